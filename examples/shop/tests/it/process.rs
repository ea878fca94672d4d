//! The shop as a process of its own: started, killed, stopped.

use std::process::Stdio;
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::client::{Client, PATIENCE};

/// A process that ends with the test.
pub(crate) struct Process {
    child: Child,
    pub(crate) client: Client,
}

impl Process {
    /// `kill -9`.
    pub(crate) async fn kill(&mut self) {
        self.child.kill().await.expect("killed");
    }
}

pub(crate) async fn start(database: &str, work_ms: u64, options: &[&str]) -> Process {
    let mut child = Command::new(env!("CARGO_BIN_EXE_hapax-shop"))
        .args(["--listen", "127.0.0.1:0", "--work", &work_ms.to_string()])
        .arg("--database")
        .arg(database)
        .args(options)
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("a process");
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let line = timeout(PATIENCE, lines.next_line()).await.expect("in time");
    let line = line.expect("text").expect("a line");
    let address = line
        .strip_prefix("listening shop http://")
        .expect("the line");
    let address = address.parse().expect("an address");
    Process {
        child,
        client: Client { address },
    }
}

#[tokio::test]
async fn an_order_cut_off_by_kill_9_is_there_once_or_not_at_all_and_a_repeat_finds_out() {
    let folder = tempfile::tempdir().expect("a folder");
    let database = folder.path().join("shop.db");
    let database = database.to_string_lossy();
    let lamp = json!({ "item": "a lamp" });
    let mut replayed = 0;
    for cycle in 0..12 {
        let mut process = start(&database, 200, &[]).await;
        let target = format!("/order/o-{cycle}");
        let connection = process.client.send_only("PUT", &target, &lamp).await;
        // At once, somewhere within the order's 200 ms, and when it is committed.
        match cycle % 3 {
            0 => {}
            1 => tokio::time::sleep(Duration::from_millis(cycle * 16)).await,
            _ => process.client.until(&target, 200).await,
        }
        process.kill().await;
        drop(connection);

        let process = start(&database, 0, &[]).await;
        let repeat = process.client.send("PUT", &target, &[], Some(&lamp)).await;
        assert_eq!(repeat.status, 201);
        replayed += u64::from(repeat.header("idempotent-replayed").is_some());
        let ledger = process.client.get("/ledger").await.json();
        assert_eq!(ledger["charges"], cycle + 1);
    }
    // Both sides of the commit were hit, or this showed nothing.
    assert!((1..12).contains(&replayed), "{replayed} of 12");
}

#[tokio::test]
async fn sigterm_answers_what_is_under_way_and_ends_well() {
    let folder = tempfile::tempdir().expect("a folder");
    let database = folder.path().join("shop.db");
    let mut process = start(&database.to_string_lossy(), 300, &[]).await;
    let client = process.client.clone();
    let lamp = json!({ "item": "a lamp" });
    let order =
        tokio::spawn(async move { client.send("PUT", "/order/o-1", &[], Some(&lamp)).await });
    // The order is there half way; its answer is still to come.
    process.client.until("/order/o-1", 200).await;
    let pid = process.child.id().expect("it runs").to_string();
    let killed = Command::new("kill").args(["-TERM", &pid]).status().await;
    assert!(killed.expect("kill").success());
    assert_eq!(order.await.expect("no panic").status, 201);
    let status = timeout(PATIENCE, process.child.wait())
        .await
        .expect("in time");
    assert_eq!(status.expect("an end").code(), Some(0));
}
