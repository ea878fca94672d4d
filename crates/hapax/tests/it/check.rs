//! `hapax check` on the real shop, bare and behind a real gateway, and on targets that nobody can judge.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use hapax_shop::{Mode, Shop, serve};
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::oneshot;

use crate::gateway::Gateway;
use crate::support::eventually;

const ORDER: &str = "POST /create-order\nContent-Type: application/json\n\n{\"item\":\"a lamp\",\"quantity\":{{n}}}\n";

/// The reference shop in naive mode, with the database in memory.
struct BareShop {
    url: String,
    told: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl BareShop {
    fn start() -> Self {
        Self::at_work(Duration::ZERO)
    }

    /// An order takes this long.
    fn at_work(work: Duration) -> Self {
        Self::with(work, Mode::Naive)
    }

    fn with(work: Duration, mode: Mode) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        listener.set_nonblocking(true).unwrap();
        let (told, end) = oneshot::channel();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            runtime.block_on(async {
                let shop = Shop::in_memory().await.unwrap().work(work);
                let shop = shop.mode(mode).await.unwrap();
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                serve(listener, shop, async { drop(end.await) })
                    .await
                    .unwrap();
            });
        });
        Self {
            url,
            told: Some(told),
            thread: Some(thread),
        }
    }
}

impl Drop for BareShop {
    fn drop(&mut self) {
        drop(self.told.take());
        drop(self.thread.take().map(thread::JoinHandle::join));
    }
}

/// Answers every request with the same few bytes.
fn faceless() -> String {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || {
                let mut stream = stream;
                let (mut seen, mut buffer) = (Vec::new(), [0; 4096]);
                while !seen.ends_with(b"}") {
                    match stream.read(&mut buffer) {
                        Ok(0) | Err(_) => return,
                        Ok(n) => seen.extend_from_slice(&buffer[..n]),
                    }
                }
                drop(stream.write_all(
                    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 11\r\n\r\n{\"ok\":true}",
                ));
            });
        }
    });
    url
}

struct Checked {
    code: i32,
    text: String,
    error: String,
    folder: TempDir,
}

impl Checked {
    fn json(&self) -> Value {
        serde_json::from_str(&self.file("r.json")).unwrap()
    }

    fn file(&self, name: &str) -> String {
        std::fs::read_to_string(self.folder.path().join(name)).unwrap()
    }

    /// The state of a case.
    fn state(&self, case: &str) -> String {
        let json = self.json();
        let cases = json["cases"].as_array().unwrap();
        let found = cases.iter().find(|found| found["name"] == case).unwrap();
        found["state"].as_str().unwrap().to_owned()
    }

    fn broke(&self, case: &str, rule: &str) -> bool {
        let json = self.json();
        let findings = json["findings"].as_array().unwrap();
        findings
            .iter()
            .any(|found| found["case"] == case && found["rule"] == rule)
    }
}

fn check(url: &str, request: Option<&str>, more: &[&str]) -> Checked {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let mut command = Command::new(env!("CARGO_BIN_EXE_hapax"));
    command.arg("check").arg(url).args(more);
    if let Some(request) = request {
        std::fs::write(Path::new(&path("request")), request).unwrap();
        command.args(["--request", &path("request")]);
    }
    let reports = format!(
        "json={},junit={},html={}",
        path("r.json"),
        path("r.xml"),
        path("r.html")
    );
    let output = command.args(["--report", &reports]).output().unwrap();
    Checked {
        code: output.status.code().unwrap(),
        text: String::from_utf8(output.stdout).unwrap(),
        error: String::from_utf8(output.stderr).unwrap(),
        folder,
    }
}

#[test]
fn the_bare_shop_is_not_safe_to_retry() {
    let shop = BareShop::start();
    let ledger = format!("{}/ledger", shop.url);
    let more = ["--count-with", &ledger, "--seed", "7"];
    let found = check(&shop.url, Some(ORDER), &more);
    assert_eq!(found.code, 1, "{}{}", found.text, found.error);
    for case in [
        "replay_fidelity",
        "duplicate",
        "concurrent",
        "lose_reply",
        "reset_mid_reply",
        "delay",
        "slow_body",
    ] {
        assert!(found.broke(case, "one-effect"), "{case}: {}", found.text);
    }
    assert!(
        found.broke("other_payload", "mismatch-has-no-effect"),
        "{}",
        found.text
    );
    assert!(
        found.broke("bad_key", "bad-key-is-refused"),
        "{}",
        found.text
    );
    // It does read requests to their end, and it mixes nobody's orders up.
    for case in ["lose_request", "cut_body", "other_caller", "other_path"] {
        assert_eq!(found.state(case), "ok", "{case}: {}", found.text);
    }
    assert!(
        found.text.contains(r"$ curl -sS -w '\n' -i -X POST"),
        "{}",
        found.text
    );
    assert!(
        found.text.contains("--seed 7 --faults replay_fidelity"),
        "{}",
        found.text
    );
    assert!(found.file("r.xml").contains("<failure message="));
    assert!(found.file("r.html").contains("Not safe to retry"));
    assert_eq!(found.error, "", "progress is for terminals");
}

#[test]
fn the_shop_behind_hapax_is_safe_to_retry() {
    let shop = BareShop::start();
    let gateway = Gateway::start(&shop.url, "");
    let (url, ledger) = (
        format!("http://{}", gateway.address()),
        format!("{}/ledger", shop.url),
    );
    let more = [
        "--count-with",
        &ledger,
        "--seed",
        "7",
        "--profile",
        "ietf",
        "--fail-on",
        "practice",
    ];
    let found = check(&url, Some(ORDER), &more);
    assert_eq!(found.code, 0, "{}{}", found.text, found.error);
    assert_eq!(found.state("lose_reply"), "ok");
    assert_eq!(found.state("after_restart"), "skipped");
    assert!(
        found
            .file("r.xml")
            .contains("failures=\"0\" errors=\"0\" skipped=\"2\"")
    );
}

#[test]
fn the_transactional_shop_is_safe_to_retry() {
    let shop = BareShop::with(Duration::from_millis(50), Mode::Transactional);
    let ledger = format!("{}/ledger", shop.url);
    let more = ["--count-with", &ledger, "--fail-on", "practice"];
    let found = check(&shop.url, Some(ORDER), &more);
    assert_eq!(found.code, 0, "{}{}", found.text, found.error);
    assert_eq!(found.state("concurrent"), "ok");
}

#[test]
fn an_operation_of_the_shops_own_description_is_checked() {
    let shop = BareShop::start();
    let ledger = format!("{}/ledger", shop.url);
    let openapi = format!("{}/openapi.json", shop.url);
    let of = |operation: &str| {
        let more = [
            "--openapi",
            &openapi,
            "--operation",
            operation,
            "--count-with",
            &ledger,
            "--faults",
            "duplicate,concurrent,lose_reply",
        ];
        check(&shop.url, None, &more)
    };
    let post = of("POST /create-order");
    assert_eq!(post.code, 1, "{}{}", post.text, post.error);
    assert!(
        post.broke("concurrent", "one-effect") && post.text.contains("--operation"),
        "{}",
        post.text
    );
    let put = of("PUT /order/{order-id}");
    assert_eq!(put.code, 0, "{}{}", put.text, put.error);
    let missing = of("POST /nothing");
    assert_eq!(missing.code, 2, "{}", missing.error);
    assert!(missing.error.contains("it has"), "{}", missing.error);
}

#[test]
fn without_a_count_the_answers_convict_and_the_rest_stays_open() {
    let shop = BareShop::start();
    let found = check(
        &shop.url,
        Some(ORDER),
        &["--faults", "duplicate", "--seed", "1"],
    );
    assert_eq!(found.code, 1, "{}", found.text);
    assert!(found.broke("duplicate", "one-effect"), "{}", found.text);
    let found = check(
        &shop.url,
        Some(ORDER),
        &["--faults", "lose-reply", "--seed", "1"],
    );
    assert_eq!(found.code, 5, "{}", found.text);
}

#[test]
fn a_put_of_the_bare_shop_is_idempotent_by_nature() {
    let shop = BareShop::start();
    let ledger = format!("{}/ledger", shop.url);
    let put = ORDER.replace("POST /create-order", "PUT /order/{{uuid}}");
    let found = check(
        &shop.url,
        Some(&put),
        &["--count-with", &ledger, "--seed", "7"],
    );
    assert_eq!(found.code, 0, "{}{}", found.text, found.error);
    assert_eq!(found.state("concurrent"), "ok");
    assert_eq!(found.state("no_key"), "skipped");
    let delete = check(
        &shop.url,
        Some("DELETE /order/{{uuid}}"),
        &["--count-with", &ledger, "--seed", "7"],
    );
    assert_eq!(delete.code, 0, "{}{}", delete.text, delete.error);
}

#[test]
fn a_get_is_held_to_have_no_effect() {
    let shop = BareShop::start();
    let ledger = format!("{}/ledger", shop.url);
    let url = format!("{}/catalogue", shop.url);
    let found = check(&url, None, &["--method", "GET", "--count-with", &ledger]);
    assert_eq!(found.code, 0, "{}{}", found.text, found.error);
}

#[test]
fn a_target_without_count_and_identity_is_inconclusive() {
    let found = check(
        &faceless(),
        None,
        &["--faults", "duplicate,lose_reply", "--seed", "3"],
    );
    assert_eq!(found.code, 5, "{}{}", found.text, found.error);
    assert!(found.text.contains("not countable"), "{}", found.text);
    assert_eq!(found.state("duplicate"), "inconclusive");
}

#[test]
fn a_request_that_is_not_accepted_is_inconclusive_and_says_so() {
    let shop = BareShop::start();
    let found = check(
        &format!("{}/create-order", shop.url),
        None,
        &["--seed", "3"],
    );
    assert_eq!(found.code, 5, "{}{}", found.text, found.error);
    assert!(found.text.contains("--request"), "{}", found.text);
}

#[test]
fn what_is_not_allowed_or_not_there_ends_with_4_and_what_makes_no_sense_with_2() {
    let remote = check("http://192.0.2.1/", None, &[]);
    assert_eq!(remote.code, 4);
    assert!(remote.error.contains("--allow-remote"), "{}", remote.error);
    let closed = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .unwrap()
        .local_addr()
        .unwrap();
    assert_eq!(check(&format!("http://{closed}/"), None, &[]).code, 4);
    let missing = ["--request", "/nonexistent/request"];
    assert_eq!(check("http://127.0.0.1:1/", None, &missing).code, 2);
    let counter = ["--count-with", "http://192.0.2.1/"];
    assert_eq!(check("http://127.0.0.1:1/", None, &counter).code, 4);
    for (url, more) in [
        ("127.0.0.1", vec![]),
        (
            "https://127.0.0.1/",
            vec![
                "--ca-file",
                concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"),
            ],
        ),
        ("http://127.0.0.1/", vec!["--openapi", "/nonexistent"]),
        ("http://127.0.0.1/", vec!["--faults", "earthquake"]),
        ("http://127.0.0.1/", vec!["--profile", "mine"]),
        ("http://127.0.0.1/order", vec!["--method", "PUT"]),
    ] {
        let wrong = check(url, None, &more);
        assert_eq!(wrong.code, 2, "{url} {more:?}: {}", wrong.error);
    }
}

#[test]
fn a_report_that_cannot_be_written_does_not_cost_the_verdict() {
    let shop = BareShop::start();
    let more = [
        "--faults",
        "duplicate",
        "--report",
        "html=/nonexistent/r.html",
    ];
    let found = check(&shop.url, Some(ORDER), &more);
    assert_eq!(found.code, 4);
    assert!(found.text.contains("one-effect"), "{}", found.text);
    assert!(
        found.error.contains("/nonexistent/r.html"),
        "{}",
        found.error
    );
}

#[test]
fn the_same_seed_sends_the_same_requests() {
    let sent = |seed: &str| {
        let shop = BareShop::start();
        let found = check(
            &shop.url,
            Some(ORDER),
            &["--seed", seed, "--faults", "duplicate,lose_request"],
        );
        let json = found.json();
        let steps = json["cases"]
            .as_array()
            .unwrap()
            .iter()
            .flat_map(|case| case["steps"].as_array().unwrap().clone());
        steps
            .map(|step| format!("{} {}", step["fields"], step["body"]))
            .collect::<Vec<_>>()
    };
    assert_eq!(sent("11"), sent("11"));
    assert_ne!(sent("11"), sent("12"));
}

/// A gateway on one port that is killed and started anew whenever a file appears, until the end of the test.
struct Restarted {
    address: SocketAddr,
    /// What `--restart` runs.
    command: String,
    is_over: Arc<AtomicBool>,
    keeper: Option<thread::JoinHandle<()>>,
    _folder: TempDir,
}

fn gateway_at(address: SocketAddr, upstream: &str, store: &str) -> Child {
    let child = Command::new(env!("CARGO_BIN_EXE_hapax"))
        .args(["serve", "--upstream", upstream, "--admin", "127.0.0.1:0"])
        .args(["--listen", &address.to_string(), "--store", store])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    eventually("the gateway", || TcpStream::connect(address).ok());
    child
}

impl Restarted {
    fn start(upstream: &str, is_durable: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| folder.path().join(name);
        let store = match is_durable {
            true => file("data").display().to_string(),
            false => "memory:".to_owned(),
        };
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let (down, up) = (file("down"), file("up"));
        let command = format!(
            "touch {}; while [ ! -e {} ]; do sleep 0.05; done",
            down.display(),
            up.display()
        );
        let is_over = Arc::new(AtomicBool::new(false));
        let (over, upstream) = (Arc::clone(&is_over), upstream.to_owned());
        let mut child = gateway_at(address, &upstream, &store);
        let keeper = thread::spawn(move || {
            while !over.load(Ordering::Acquire) {
                if down.exists() {
                    std::fs::remove_file(&down).unwrap();
                    child.kill().unwrap();
                    child.wait().unwrap();
                    child = gateway_at(address, &upstream, &store);
                    std::fs::write(&up, "").unwrap();
                }
                thread::park_timeout(Duration::from_millis(20));
            }
            child.kill().unwrap();
            child.wait().unwrap();
        });
        Self {
            address,
            command,
            is_over,
            keeper: Some(keeper),
            _folder: folder,
        }
    }
}

impl Drop for Restarted {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Release);
        drop(self.keeper.take().map(thread::JoinHandle::join));
    }
}

#[test]
fn a_restart_forgets_nothing_in_a_durable_store_and_everything_in_memory() {
    let shop = BareShop::start();
    let ledger = format!("{}/ledger", shop.url);
    for (is_durable, code) in [(true, 0), (false, 1)] {
        let gateway = Restarted::start(&shop.url, is_durable);
        let url = format!("http://{}", gateway.address);
        let more = [
            "--count-with",
            &ledger,
            "--faults",
            "after_restart",
            "--restart",
            &gateway.command,
        ];
        let found = check(&url, Some(ORDER), &more);
        assert_eq!(found.code, code, "{}{}", found.text, found.error);
        assert_eq!(
            found.broke("after_restart", "one-effect"),
            !is_durable,
            "{}",
            found.text
        );
    }
}

#[test]
fn a_gateway_that_is_killed_at_work_repeats_an_effect_only_if_its_store_is_in_memory() {
    let shop = BareShop::at_work(Duration::from_millis(80));
    let ledger = format!("{}/ledger", shop.url);
    for is_durable in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let store = match is_durable {
            true => folder.path().join("data").display().to_string(),
            false => "memory:".to_owned(),
        };
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let start = format!(
            "{} serve --upstream {} --admin 127.0.0.1:0 --listen {address} --store {store} 2>/dev/null",
            env!("CARGO_BIN_EXE_hapax"),
            shop.url
        );
        let more = [
            "--count-with",
            &ledger,
            "--faults",
            "kill_target,after_restart",
            "--start",
            &start,
            "--fail-on",
            "must",
        ];
        let found = check(&format!("http://{address}"), Some(ORDER), &more);
        let code = if is_durable { 0 } else { 1 };
        assert_eq!(found.code, code, "{}{}", found.text, found.error);
        for case in ["kill_target", "after_restart"] {
            assert_eq!(
                found.broke(case, "one-effect"),
                !is_durable,
                "{case}: {}",
                found.text
            );
        }
        assert!(
            TcpStream::connect(address).is_err(),
            "it ends with the check"
        );
    }
}

#[test]
fn a_slow_shop_behind_hapax_tells_concurrent_repeats_when_to_come_back() {
    let shop = BareShop::at_work(Duration::from_millis(400));
    let gateway = Gateway::start(&shop.url, "");
    let (url, ledger) = (
        format!("http://{}", gateway.address()),
        format!("{}/ledger", shop.url),
    );
    let faults = "duplicate,concurrent,lose_reply,hang_up,reset_mid_reply";
    let more = [
        "--count-with",
        &ledger,
        "--faults",
        faults,
        "--fail-on",
        "practice",
    ];
    let found = check(&url, Some(ORDER), &more);
    assert_eq!(found.code, 0, "{}{}", found.text, found.error);
    let json = found.file("r.json");
    assert!(
        json.contains("\"got 409\"") && json.contains("conflict-says-when"),
        "{json}"
    );
}
