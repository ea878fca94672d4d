//! What the upstream is told, and routes whose upstream is itself idempotent.

use crate::client::post;
use crate::gateway::Gateway;
use crate::upstream::{Act, Upstream, answer, created};

#[test]
fn a_route_that_may_resend_sends_an_unknown_operation_again_and_says_so() {
    let upstream = Upstream::scripted(|effect| match effect.serial {
        1 => Act::Reset(Vec::new()),
        _ => Act::Answer(created(effect)),
    });
    let gateway = Gateway::start(&upstream.url(), "[defaults]\non_unknown = \"resend\"\n");
    let first = post("k").send(gateway.address());
    assert_eq!(first.problem(), "outcome-unknown");
    let second = post("k").send(gateway.address());
    assert_eq!((second.status, second.idempotency()), (201, "executed"));
    let third = post("k").send(gateway.address());
    assert!(third.is_replay());
    assert_eq!(third.kept(), second.kept());
    let effects = upstream.effects();
    let attempts = effects.iter().map(|effect| effect.field("hapax-attempt"));
    assert_eq!(attempts.collect::<Vec<_>>(), ["1", "2"]);
}

#[test]
fn a_route_that_may_resend_does_so_after_a_kill() {
    let upstream = Upstream::scripted(|effect| match effect.serial {
        1 => Act::Hold(crate::support::Gate::new(), Vec::new()),
        _ => Act::Answer(created(effect)),
    });
    let mut gateway = Gateway::start(&upstream.url(), "[defaults]\non_unknown = \"resend\"\n");
    let mut connection = crate::client::Connection::open(gateway.address());
    connection.send(&post("k").bytes()).expect("it listens");
    upstream.wait_for_effects(1);
    gateway.restart();
    let retry = post("k").send(gateway.address());
    assert_eq!((retry.status, retry.idempotency()), (201, "executed"));
    assert_eq!(upstream.effects()[1].field("hapax-attempt"), "2");
}

#[test]
fn an_operation_that_was_released_counts_its_attempts_anew() {
    let upstream = Upstream::scripted(|effect| match effect.serial {
        1 => Act::Answer(answer(503, &[("Retry-After", "1")], b"busy")),
        _ => Act::Answer(created(effect)),
    });
    let gateway = Gateway::start(&upstream.url(), "");
    let first = post("k").send(gateway.address());
    assert_eq!((first.status, first.field("retry-after")), (503, Some("1")));
    assert_eq!(post("k").send(gateway.address()).idempotency(), "executed");
    let effects = upstream.effects();
    assert_eq!(effects.len(), 2);
    assert_eq!(effects[0].field("hapax-attempt"), "1");
}

#[test]
fn a_derived_key_keeps_callers_apart_at_a_shared_upstream() {
    let upstream = Upstream::new();
    let gateway = Gateway::start(&upstream.url(), "[defaults]\nupstream_key = \"derive\"\n");
    let from = |who: &str| {
        let answer = post("k")
            .field("Authorization", who)
            .send(gateway.address());
        assert_eq!(answer.status, 201);
        answer
    };
    let first = from("one");
    assert_eq!(first.field("idempotency-key"), Some("k"));
    from("two");
    assert!(from("one").is_replay());
    let effects = upstream.effects();
    assert_eq!(effects.len(), 2);
    assert_ne!(effects[0].key(), effects[1].key());
    for effect in &effects {
        assert!(
            effect.key().len() >= 32 && effect.key() != "k",
            "{}",
            effect.key()
        );
    }
}

#[test]
fn the_upstream_is_asked_for_an_uncoded_answer_and_told_who_the_client_is() {
    let upstream = Upstream::new();
    let gateway = Gateway::start(&upstream.url(), "");
    let request = post("k")
        .field("Accept-Encoding", "gzip, br")
        .field("X-Forwarded-For", "192.0.2.1")
        .field("Keep-Alive", "timeout=5")
        .field("TE", "trailers");
    assert_eq!(request.send(gateway.address()).status, 201);
    let effect = &upstream.effects()[0];
    assert_eq!(effect.field("accept-encoding"), "identity");
    assert_eq!(effect.field("x-forwarded-for"), "127.0.0.1");
    assert_eq!(effect.field("host"), "a.test");
    assert_eq!(effect.field("keep-alive"), "");
    assert!(effect.field("via").contains("hapax"));
}
