//! The checker starts the shop, kills it while it works on an order, starts it again, and counts the charges.

use std::net::TcpListener;

use hapax_check::{CheckError, Fault, Options, Outcome, check};
use serde_json::Value;
use tempfile::TempDir;

const ORDER: &str = "POST /create-order\nContent-Type: application/json\n\n{\"item\":\"a lamp\",\"quantity\":{{n}}}\n";

/// A shop that takes 80 ms for an order and has it on disk after half of that.
struct Kills {
    options: Options,
    _folder: TempDir,
}

/// What a target is started by: it, or a shell that starts a shell that starts it, none of which is replaced by the next.
fn nested(command: &str) -> String {
    format!("sh -c '{command}; true'; true")
}

impl Kills {
    fn of(mode: &str) -> Self {
        let folder = TempDir::new().expect("a folder");
        let free = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = free.local_addr().expect("an address");
        drop(free);
        let path = folder.path().display();
        let mut options = Options::new(format!("http://{address}"), 7);
        options.request = Some(ORDER.into());
        options.faults = vec![Fault::KillTarget];
        options.count_with = Some(format!("http://{address}/ledger"));
        options.start = Some(format!(
            "{} --listen {address} --database {path}/orders.db --work 80 --mode {}",
            env!("CARGO_BIN_EXE_hapax-shop"),
            mode.replace("KEYS", &format!("{path}/keys")),
        ));
        Self {
            options,
            _folder: folder,
        }
    }

    /// Started by shells that go on running beside it.
    fn by_shells(mut self) -> Self {
        self.options.start = self.options.start.as_deref().map(nested);
        self
    }

    /// How many charges there are more after the commands of a finding than before, and what the commands are.
    fn charges_by_the_commands(&self, report: &Value, fault: Fault) -> (i64, String) {
        let findings = report["findings"].as_array().expect("findings");
        let found = findings
            .iter()
            .find(|found| found["rule"] == "one-effect" && found["case"] == fault.name());
        let found = found.unwrap_or_else(|| panic!("{report:#}"));
        let lines = found["curl"].as_array().expect("commands").iter();
        let lines: Vec<&str> = lines.map(|line| line.as_str().expect("text")).collect();
        let script = lines.join("\n");
        let output = std::process::Command::new("timeout")
            .args(["60", "sh", "-c", &script])
            .output()
            .expect("a shell");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        let charges: Vec<i64> = said
            .split("{\"charges\":")
            .skip(1)
            .map(|rest| {
                let number = rest.split(',').next().expect("a number");
                number.parse().expect("a number")
            })
            .collect();
        let what = format!("{script}\n{said}\n{errors}");
        let [before, after] = charges[..] else {
            panic!("two counts: {what}");
        };
        (after - before, what)
    }

    /// How it ended, and the report.
    async fn check(&self) -> (Outcome, Value) {
        let report = check(&self.options, &|_| {}).await.expect("a verdict");
        let json = serde_json::from_str(&report.to_json()).expect("JSON");
        (report.outcome(), json)
    }
}

/// The rules that were broken.
fn broken(report: &Value) -> Vec<&str> {
    let findings = report["findings"].as_array().expect("findings").iter();
    findings
        .map(|found| found["rule"].as_str().expect("a rule"))
        .collect()
}

#[tokio::test]
async fn a_shop_that_is_killed_at_work_charges_once_where_key_and_order_are_one_transaction() {
    let (outcome, report) = Kills::of("transactional").check().await;
    assert_eq!(outcome, Outcome::Clean, "{report:#}");
    assert_eq!(report["cases"][0]["state"], "ok", "{report:#}");
}

#[tokio::test]
async fn a_shop_with_durable_keys_beside_its_orders_charges_once_when_it_is_killed_at_work() {
    let (_, report) = Kills::of("keyed --keys KEYS").check().await;
    // That nobody knows what happened is told, which is no final answer; the charge is not repeated.
    let broken = broken(&report);
    assert!(!broken.contains(&"one-effect"), "{report:#}");
    assert!(broken.contains(&"repeat-gets-result"), "{report:#}");
}

#[tokio::test]
async fn a_shop_without_keys_or_with_keys_in_memory_is_caught_charging_twice_when_it_is_killed_at_work()
 {
    for mode in ["naive", "keyed"] {
        let (outcome, report) = Kills::of(mode).check().await;
        assert_eq!(outcome, Outcome::Finding, "{mode}: {report:#}");
        assert!(
            broken(&report).contains(&"one-effect"),
            "{mode}: {report:#}"
        );
    }
}

#[tokio::test]
async fn the_commands_of_a_kill_start_the_shop_kill_it_at_work_and_charge_twice() {
    for kills in [
        Kills::of("naive"),
        Kills::of("keyed"),
        Kills::of("keyed").by_shells(),
    ] {
        let (_, report) = kills.check().await;
        let (charges, what) = kills.charges_by_the_commands(&report, Fault::KillTarget);
        assert_eq!(charges, 2, "{what}");
        // Nothing that the commands have started is left.
        let address = kills.options.url.trim_start_matches("http://");
        assert!(TcpListener::bind(address).is_ok(), "{what}");
    }
}

#[tokio::test]
async fn the_commands_of_other_faults_start_what_the_checker_started_and_charge_as_often() {
    for (mode, fault, charged) in [
        ("keyed", Fault::AfterRestart, 2..=2),
        ("naive", Fault::LoseReply, 2..=2),
        ("naive", Fault::Duplicate, 3..=3),
        // How many of the racing ones get through is the shop's chance.
        ("naive", Fault::Concurrent, 2..=9),
        ("naive", Fault::Delay, 3..=3),
    ] {
        let mut kills = Kills::of(mode);
        kills.options.faults = vec![fault];
        let (_, report) = kills.check().await;
        let (charges, what) = kills.charges_by_the_commands(&report, fault);
        assert!(charged.contains(&charges), "{charges}: {what}");
    }
}

#[test]
fn commands_that_are_pasted_wait_for_nothing_else_in_the_background() {
    let kills = Kills::of("naive");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    for fault in [
        Fault::KillTarget,
        Fault::Duplicate,
        Fault::Concurrent,
        Fault::Delay,
    ] {
        let mut options = kills.options.clone();
        options.faults = vec![fault];
        let report = runtime
            .block_on(check(&options, &|_| {}))
            .expect("a verdict");
        let json: Value = serde_json::from_str(&report.to_json()).expect("JSON");
        let lines = json["findings"][0]["curl"]
            .as_array()
            .expect("commands")
            .iter();
        let mut script: Vec<&str> = lines.map(|line| line.as_str().expect("text")).collect();
        // Somebody's server, in the terminal into which they are pasted.
        script.insert(0, "sleep 600 & OTHER=$!");
        script.push("kill $OTHER");
        let status = std::process::Command::new("timeout")
            .args(["60", "sh", "-c", &script.join("\n")])
            .output()
            .expect("a shell")
            .status;
        assert!(status.success(), "{fault:?}: {status}");
    }
}

#[tokio::test]
async fn the_same_commands_charge_once_where_key_and_order_are_one_transaction() {
    let kills = Kills::of("naive");
    let (_, report) = kills.check().await;
    let right = kills.options.start.as_deref().expect("a command");
    let right = right.replace("--mode naive", "--mode transactional");
    let told = report
        .to_string()
        .replace("--mode naive", "--mode transactional");
    assert!(told.contains(&right), "{told}");
    let report = serde_json::from_str(&told).expect("JSON");
    let (charges, what) = kills.charges_by_the_commands(&report, Fault::KillTarget);
    assert_eq!(charges, 1, "{what}");
}

#[tokio::test]
async fn what_is_started_ends_with_the_check_and_nobody_else_is_killed_in_its_place() {
    let kills = Kills::of("naive");
    kills.check().await;
    let address = kills.options.url.trim_start_matches("http://");
    // The port is free again.
    let other = TcpListener::bind(address).expect("the address");
    let refused = check(&kills.options, &|_| {}).await;
    assert!(
        matches!(&refused, Err(CheckError::Start(_, why)) if why.contains("already")),
        "{refused:?}"
    );
    drop(other);
    let ends = Options {
        start: Some("exit 3".into()),
        ..kills.options.clone()
    };
    let refused = check(&ends, &|_| {}).await;
    assert!(
        matches!(&refused, Err(CheckError::Start(_, why)) if why.contains("exit status: 3")),
        "{refused:?}"
    );
}
