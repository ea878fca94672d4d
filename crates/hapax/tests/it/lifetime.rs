//! How long a key is remembered.

use std::collections::HashMap;
use std::thread;
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
fn under_load_a_key_never_executes_twice_within_its_retention() {
    let upstream = Upstream::new();
    let config = "[defaults]\nretention = \"1s\"\n";
    let gateway = Gateway::start(&upstream.url(), config);
    let until = Instant::now() + Duration::from_secs(4);
    thread::scope(|scope| {
        for caller in 0..4_usize {
            let address = gateway.address();
            scope.spawn(move || {
                let mut connection = Connection::open(address);
                for number in caller.. {
                    let request = post(&format!("k{}", number % 10));
                    connection.send(&request.bytes()).expect("it listens");
                    let answer = connection.read().expect("an answer");
                    assert!([201, 409].contains(&answer.status), "{answer:?}");
                    if Instant::now() > until {
                        return;
                    }
                }
            });
        }
    });
    let mut last: HashMap<String, Instant> = HashMap::new();
    let effects = upstream.effects();
    for effect in &effects {
        if let Some(before) = last.insert(effect.key().to_owned(), effect.at) {
            let gap = effect.at - before;
            assert!(gap >= Duration::from_secs(1), "{}: {gap:?}", effect.key());
        }
    }
    // Every key has expired and executed anew: the sweep and the claims did race.
    assert!(effects.len() >= 30, "{}", effects.len());
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
