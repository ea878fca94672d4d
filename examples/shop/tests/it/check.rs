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
