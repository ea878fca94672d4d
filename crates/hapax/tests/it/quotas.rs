//! What one scope may have stored: beyond it, refusal comes before the claim.

use crate::client::{Answer, Connection, post};
use crate::gateway::Gateway;
use crate::support::{Gate, eventually};
use crate::upstream::{Act, Upstream, answer, created};

fn send(gateway: &Gateway, scope: &str, key: &str) -> Answer {
    let request = post(key).field("Authorization", scope);
    request.send(gateway.address())
}

fn assert_over_quota(refused: &Answer) {
    assert_eq!(
        (refused.status, refused.problem().as_str()),
        (429, "quota-exceeded"),
        "{refused:?}"
    );
    assert_eq!(refused.json()["retryable"], true);
    assert_eq!(refused.idempotency(), "");
    let seconds = refused
        .field("retry-after")
        .and_then(|text| text.parse::<u64>().ok());
    assert!(seconds.is_some_and(|seconds| seconds >= 1), "{refused:?}");
}

#[test]
fn a_scope_that_floods_with_new_keys_is_refused_and_others_go_on() {
    let upstream = Upstream::new();
    let config = "[limits]\nmax_records_per_scope = 20\n";
    let mut gateway = Gateway::start(&upstream.url(), config);
    for number in 0..20 {
        assert_eq!(send(&gateway, "flood", &format!("k{number}")).status, 201);
    }
    let before = upstream.count();
    for number in 20..60 {
        assert_over_quota(&send(&gateway, "flood", &format!("k{number}")));
    }
    assert_eq!(upstream.count(), before, "what was refused was executed");
    for number in 0..20 {
        assert!(
            send(&gateway, "flood", &format!("k{number}")).is_replay(),
            "{number}"
        );
    }
    let mismatch = post("k0").field("Authorization", "flood").body(b"other");
    assert_eq!(mismatch.send(gateway.address()).problem(), "key-reused");
    for number in 0..20 {
        let other = send(&gateway, "other", &format!("k{number}"));
        assert_eq!((other.status, other.idempotency()), (201, "executed"));
    }
    assert_eq!(post("anonymous").send(gateway.address()).status, 201);
    assert_eq!(
        gateway.metric("hapax_quota_exceeded_total", &["route=\"default\""]),
        40.0
    );
    assert_eq!(gateway.counted("refused"), 40.0);
    let day = send(&gateway, "flood", "new");
    let seconds: u64 = day
        .field("retry-after")
        .and_then(|text| text.parse().ok())
        .expect("seconds");
    assert!((80_000..=92_000).contains(&seconds), "{seconds}");
    // Nothing of what was refused was claimed; and the count begins anew with the process.
    gateway.restart();
    let later = send(&gateway, "flood", "k20");
    assert_eq!((later.status, later.idempotency()), (201, "executed"));
}

#[test]
fn a_scopes_room_comes_back_as_its_keys_run_out_or_are_given_back() {
    let upstream = Upstream::scripted(|effect| match effect.key().starts_with("released") {
        true => Act::Answer(answer(401, &[], b"who?")),
        false => Act::Answer(created(effect)),
    });
    let config = "[limits]\nmax_records_per_scope = 2\n[defaults]\nretention = \"1s\"\n";
    let gateway = Gateway::start(&upstream.url(), config);
    // What is released takes no room.
    for number in 0..10 {
        let released = eventually("its place is given back", || {
            let answer = send(&gateway, "a", &format!("released-{number}"));
            (answer.status != 429).then_some(answer)
        });
        assert_eq!(released.status, 401);
    }
    eventually("two claims in a row", || {
        (send(&gateway, "a", "one").status == 201).then_some(())
    });
    eventually("the quota is reached", || {
        let answers = [send(&gateway, "a", "two"), send(&gateway, "a", "three")];
        answers
            .iter()
            .any(|answer| answer.status == 429)
            .then_some(())
    });
    eventually("the window frees", || {
        (send(&gateway, "a", "later").status == 201).then_some(())
    });
}

#[test]
fn a_scope_is_refused_once_its_answers_take_as_many_bytes_as_they_may() {
    let upstream = Upstream::scripted(|_| Act::Answer(answer(200, &[], &[b'x'; 40_000])));
    let config = "[limits]\nmax_bytes_per_scope = \"100KiB\"\n";
    let gateway = Gateway::start(&upstream.url(), config);
    for key in ["a", "b", "c"] {
        assert_eq!(send(&gateway, "large", key).status, 200, "{key}");
    }
    assert_over_quota(&send(&gateway, "large", "d"));
    assert!(send(&gateway, "large", "a").is_replay());
    assert_eq!(send(&gateway, "small", "d").status, 200);
    assert_eq!(upstream.count(), 4);
}

#[test]
fn what_is_under_way_takes_room_and_its_duplicates_do_not() {
    let gate = Gate::new();
    let held = gate.clone();
    let upstream = Upstream::scripted(move |effect| Act::Hold(held.clone(), created(effect)));
    let config = "[limits]\nmax_records_per_scope = 1\n";
    let gateway = Gateway::start(&upstream.url(), config);
    let mut first = Connection::open(gateway.address());
    first.send(&post("a").bytes()).expect("it listens");
    upstream.wait_for_effects(1);
    assert_over_quota(&post("b").send(gateway.address()));
    assert_eq!(post("a").send(gateway.address()).problem(), "in-progress");
    gate.open();
    assert_eq!(first.read().expect("an answer").status, 201);
    assert!(post("a").send(gateway.address()).is_replay());
    assert_over_quota(&post("b").send(gateway.address()));
    assert_eq!(upstream.count(), 1);
}
