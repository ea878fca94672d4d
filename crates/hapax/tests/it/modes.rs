//! Routes that only watch, and routes that are left alone.

use crate::client::post;
use crate::gateway::Gateway;
use crate::upstream::{Act, Upstream, created};

#[test]
fn a_route_that_observes_executes_duplicates_and_counts_what_it_would_have_done() {
    let upstream = Upstream::scripted(|effect| Act::Answer(created(effect)));
    let config = "[defaults]\nmode = \"observe\"\n";
    let gateway = Gateway::start(&upstream.url(), config);
    for number in 1..=3 {
        let answer = post("k").send(gateway.address());
        assert_eq!((answer.status, answer.idempotency()), (201, "observed"));
        assert!(!answer.is_replay());
        assert!(answer.text().contains(&format!("\"effect\":{number}")));
    }
    let mismatch = post("k").body(b"other").send(gateway.address());
    assert_eq!((mismatch.status, mismatch.idempotency()), (201, "observed"));
    assert_eq!(upstream.count(), 4);
    assert_eq!(gateway.counted("observed"), 4.0);
    let would_have = |outcome: &str| {
        gateway.metric("hapax_observed_total", &[&format!("outcome=\"{outcome}\"")])
    };
    assert_eq!(would_have("executed"), 1.0);
    assert_eq!(would_have("replayed"), 2.0);
    assert_eq!(would_have("mismatch"), 1.0);
    assert_eq!(gateway.metric("hapax_duplicates_stopped_total", &[]), 0.0);
}

#[test]
fn what_was_only_observed_does_not_answer_once_the_route_enforces() {
    let upstream = Upstream::new();
    let mut gateway = Gateway::start(&upstream.url(), "[defaults]\nmode = \"observe\"\n");
    assert_eq!(post("k").send(gateway.address()).idempotency(), "observed");
    gateway.setup.config = String::new();
    gateway.restart();
    assert_eq!(post("k").send(gateway.address()).idempotency(), "executed");
    assert!(post("k").send(gateway.address()).is_replay());
    assert_eq!(upstream.count(), 2);
}

#[test]
fn a_route_that_is_off_is_left_alone() {
    let upstream = Upstream::new();
    let config = "[[route]]\nmatch = \"POST /orders\"\nmode = \"off\"\n";
    let gateway = Gateway::start(&upstream.url(), config);
    for _ in 0..2 {
        let answer = post("k").send(gateway.address());
        assert_eq!((answer.status, answer.idempotency()), (201, ""));
        assert_eq!(answer.field("idempotency-key"), None);
    }
    // Not even a malformed key matters there; elsewhere it does.
    assert_eq!(post("a b").send(gateway.address()).status, 201);
    let elsewhere = post("a b").target("/elsewhere").send(gateway.address());
    assert_eq!(elsewhere.status, 400);
    assert_eq!(upstream.effects()[0].field("hapax-attempt"), "");
    assert_eq!(upstream.count(), 3);
}
