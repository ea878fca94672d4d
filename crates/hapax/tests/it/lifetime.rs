//! How long a key is remembered.

use std::time::{Duration, Instant};

use crate::client::{Connection, post};
use crate::gateway::Gateway;
use crate::support::{Gate, eventually};
use crate::upstream::{Act, Upstream, created};

/// Retention in these tests.
const RETENTION: Duration = Duration::from_secs(2);

#[test]
fn after_retention_a_key_is_new_and_before_it_is_not() {
    let upstream = Upstream::new();
    let config = "[defaults]\nretention = \"2s\"\n";
    let gateway = Gateway::start(&upstream.url(), config);
    let began = Instant::now();
    let first = post("k").send(gateway.address());
    assert!(first.field("idempotency-expires").is_some());
    let mut replays = 0;
    let second = eventually("expiry", || {
        let answer = post("k").send(gateway.address());
        assert_eq!(answer.status, 201);
        if answer.is_replay() {
            replays += 1;
            return None;
        }
        Some(answer)
    });
    assert!(began.elapsed() >= RETENTION, "{:?}", began.elapsed());
    assert!(replays > 3, "{replays}");
    assert_eq!(second.idempotency(), "executed");
    assert_eq!(upstream.count(), 2);
}

#[test]
fn an_operation_under_way_outlasts_retention() {
    let gate = Gate::new();
    let held = gate.clone();
    let upstream = Upstream::scripted(move |effect| Act::Hold(held.clone(), created(effect)));
    let config = "[defaults]\nretention = \"1s\"\nlease = \"1s\"\n";
    let gateway = Gateway::start(&upstream.url(), config);
    let mut connection = Connection::open(gateway.address());
    connection.send(&post("k").bytes()).expect("it listens");
    upstream.wait_for_effects(1);
    // Three times as long as retention and the lease, which the holder renews.
    let until = Instant::now() + Duration::from_secs(3);
    eventually("the end of the watch", || {
        let during = post("k").send(gateway.address());
        assert_eq!(during.problem(), "in-progress");
        (Instant::now() > until).then_some(())
    });
    gate.open();
    assert_eq!(connection.read().expect("an answer").status, 201);
    assert!(post("k").send(gateway.address()).is_replay());
    assert_eq!(upstream.count(), 1);
}

#[test]
fn a_tombstone_answers_that_the_key_has_expired() {
    let upstream = Upstream::new();
    let config = "[defaults]\nretention = \"1s\"\ntombstone = \"1h\"\n";
    let mut gateway = Gateway::start(&upstream.url(), config);
    assert_eq!(post("k").send(gateway.address()).status, 201);
    let expired = eventually("expiry", || {
        let answer = post("k").send(gateway.address());
        (!answer.is_replay()).then_some(answer)
    });
    assert_eq!(
        (expired.status, expired.problem().as_str()),
        (422, "key-expired")
    );
    assert_eq!(expired.json()["retryable"], false);
    gateway.restart();
    assert_eq!(post("k").send(gateway.address()).problem(), "key-expired");
    let other = post("k").body(b"other").send(gateway.address());
    assert_eq!(other.problem(), "key-expired");
    assert_eq!(upstream.count(), 1);
}
