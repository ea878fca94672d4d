//! Clients that leave before their answer.

use std::process::{Child, Command, Stdio};

use crate::client::{Connection, post};
use crate::gateway::Gateway;
use crate::support::{Gate, eventually};
use crate::upstream::{Act, Upstream, created};

/// How a client leaves.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Leave {
    Close,
    Reset,
}

fn check(leave: Leave, while_upstream_works: bool) {
    let gate = Gate::new();
    let held = gate.clone();
    let upstream = Upstream::scripted(move |effect| Act::Hold(held.clone(), created(effect)));
    let gateway = Gateway::start(&upstream.url(), "");
    let mut connection = Connection::open(gateway.address());
    connection.send(&post("k").bytes()).expect("it listens");
    if while_upstream_works {
        upstream.wait_for_effects(1);
    }
    match leave {
        Leave::Close => drop(connection),
        Leave::Reset => connection.reset(),
    }
    if while_upstream_works {
        let during = post("k").send(gateway.address());
        assert_eq!(during.problem(), "in-progress");
        gate.open();
    }
    gate.open();
    if leave == Leave::Close {
        // Without a retry's help.
        upstream.wait_for_effects(1);
    }
    let retry = eventually("a final answer", || {
        let answer = post("k").send(gateway.address());
        (answer.status != 409).then_some(answer)
    });
    assert_eq!(retry.status, 201);
    // A reset may overtake the request itself; then the retry is the first that arrives.
    if while_upstream_works || leave == Leave::Close {
        assert!(retry.is_replay(), "{leave:?}: {retry:?}");
    }
    assert_eq!(upstream.count(), 1, "{leave:?}");
}

#[test]
fn a_client_that_closes_while_the_upstream_works_changes_nothing() {
    check(Leave::Close, true);
}

#[test]
fn a_client_that_resets_while_the_upstream_works_changes_nothing() {
    check(Leave::Reset, true);
}

#[test]
fn a_client_that_closes_right_after_sending_changes_nothing() {
    check(Leave::Close, false);
}

#[test]
fn a_client_that_resets_right_after_sending_executes_at_most_once() {
    check(Leave::Reset, false);
}

#[test]
fn a_client_that_closes_only_its_side_gets_its_answer() {
    let upstream = Upstream::new();
    let gateway = Gateway::start(&upstream.url(), "");
    let mut connection = Connection::open(gateway.address());
    connection.send(&post("k").bytes()).expect("it listens");
    connection.half_close();
    let answer = connection.read().expect("an answer");
    assert_eq!((answer.status, answer.idempotency()), (201, "executed"));
    assert!(post("k").send(gateway.address()).is_replay());
    assert_eq!(upstream.count(), 1);
}

#[test]
fn a_request_that_is_cut_at_any_byte_has_no_effect_and_leaves_the_key_free() {
    let upstream = Upstream::new();
    let gateway = Gateway::start(&upstream.url(), "");
    let bytes = post("cut").bytes();
    for length in 1..bytes.len() {
        let mut connection = Connection::open(gateway.address());
        connection.send_anyway(&bytes[..length]);
        connection.half_close();
        // It is over for the gateway once it has answered or closed.
        match connection.read() {
            Ok(answer) => assert!((400..500).contains(&answer.status), "{length}: {answer:?}"),
            Err(_) => assert!(connection.is_closed_by_peer(), "{length}"),
        }
    }
    assert_eq!(upstream.count(), 0);
    let answer = post("cut").send(gateway.address());
    assert_eq!((answer.status, answer.idempotency()), (201, "executed"));
    assert_eq!(upstream.count(), 1);
}

/// A client of HTTP/2 that sends and waits. An end of it is an end: there are no half-closed connections.
fn curl(url: &str) -> Child {
    Command::new("curl")
        .args(["--silent", "--http2-prior-knowledge", "--noproxy", "*"])
        .args(["--max-time", "20", "--data", "{}"])
        .args(["--header", "Idempotency-Key: k", url])
        .stdout(Stdio::null())
        .spawn()
        .expect("curl is there")
}

fn end(mut curl: Child) {
    curl.kill().expect("it runs");
    curl.wait().expect("it is ours");
}

#[test]
fn a_client_of_http2_that_cancels_changes_nothing() {
    let gate = Gate::new();
    let held = gate.clone();
    let upstream = Upstream::scripted(move |effect| Act::Hold(held.clone(), created(effect)));
    let gateway = Gateway::start(&upstream.url(), "");
    let url = format!("http://{}/orders", gateway.address());
    let curl = curl(&url);
    upstream.wait_for_effects(1);
    end(curl);
    let same = post("k").body(b"{}");
    let same = same.field("Content-Type", "application/x-www-form-urlencoded");
    assert_eq!(same.send(gateway.address()).problem(), "in-progress");
    gate.open();
    let retry = eventually("a final answer", || {
        let answer = same.send(gateway.address());
        (answer.status != 409).then_some(answer)
    });
    assert!(retry.is_replay(), "{retry:?}");
    assert_eq!(upstream.count(), 1);
}

#[test]
fn a_hundred_duplicates_that_wait_and_leave_hold_nobody_up() {
    let gate = Gate::new();
    let held = gate.clone();
    let upstream = Upstream::scripted(move |effect| Act::Hold(held.clone(), created(effect)));
    let config = "[defaults]\nwait = \"30s\"\n[limits]\nmax_outstanding = 120\n";
    let gateway = Gateway::start(&upstream.url(), config);
    let send = |key: &str| {
        let mut connection = Connection::open(gateway.address());
        connection.send(&post(key).bytes()).expect("it listens");
        connection
    };
    let mut first = send("k");
    upstream.wait_for_effects(1);
    let waiting: Vec<_> = (0..100).map(|_| send("k")).collect();
    drop(waiting);
    // Their places are free for others once they have left or been answered.
    gate.open();
    assert_eq!(first.read().expect("an answer").status, 201);
    for number in 0..120 {
        let key = format!("other-{number}");
        let answer = eventually("a place", || {
            let answer = post(&key).send(gateway.address());
            (answer.status != 503).then_some(answer)
        });
        assert_eq!(answer.status, 201);
    }
    assert_eq!(upstream.count(), 121);
}

#[test]
fn a_duplicate_of_http2_that_leaves_while_it_waits_holds_no_place() {
    let gate = Gate::new();
    let held = gate.clone();
    let upstream = Upstream::scripted(move |effect| match effect.key() {
        "k" => Act::Hold(held.clone(), created(effect)),
        _ => Act::Answer(created(effect)),
    });
    let config = "[defaults]\nwait = \"60s\"\n[limits]\nmax_outstanding = 4\n";
    let gateway = Gateway::start(&upstream.url(), config);
    let url = format!("http://{}/orders", gateway.address());
    let first = curl(&url);
    upstream.wait_for_effects(1);
    let waiting: Vec<_> = (0..3).map(|_| curl(&url)).collect();
    eventually("all places taken", || {
        let status = gateway.admin_get("/api/v1/status").json();
        (status["under_way"] == 4).then_some(())
    });
    assert_eq!(post("other").send(gateway.address()).status, 503);
    waiting.into_iter().for_each(end);
    // The first attempt is still under way: what is free was the waiters'.
    eventually("a place", || {
        let answer = post("other").send(gateway.address());
        (answer.status == 201).then_some(())
    });
    eventually("the first attempt alone under way", || {
        let status = gateway.admin_get("/api/v1/status").json();
        (status["under_way"] == 1).then_some(())
    });
    assert_eq!(upstream.count_of("k"), 1);
    gate.open();
    end(first);
}
