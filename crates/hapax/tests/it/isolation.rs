//! Nothing of a key is seen from another scope.

use std::thread;

use crate::client::{Connection, post};
use crate::gateway::Gateway;
use crate::upstream::{Act, Upstream, answer};

const SCOPES: usize = 1_000;
const CALLERS: usize = 8;

#[test]
fn a_thousand_callers_with_the_same_key_get_their_own_answer_only() {
    let upstream = Upstream::scripted(|effect| {
        let canary = format!("canary of {}", effect.field("authorization"));
        Act::Answer(answer(201, &[("X-Canary", &canary)], canary.as_bytes()))
    });
    let gateway = Gateway::start(&upstream.url(), "");
    // Twice: the first round executes, the second one replays.
    for round in ["executed", "replayed"] {
        thread::scope(|scope| {
            for caller in 0..CALLERS {
                let address = gateway.address();
                scope.spawn(move || {
                    let mut connection = Connection::open(address);
                    for number in (caller..SCOPES).step_by(CALLERS) {
                        let who = format!("Bearer caller-{number}");
                        let request = post("same").field("Authorization", &who);
                        connection.send(&request.bytes()).expect("it listens");
                        let answer = connection.read().expect("an answer");
                        assert_eq!((answer.status, answer.idempotency()), (201, round));
                        let canary = format!("canary of {who}");
                        assert_eq!(answer.text(), canary);
                        assert_eq!(answer.all("x-canary"), [canary.as_str()]);
                    }
                });
            }
        });
        assert_eq!(upstream.count(), SCOPES);
    }
}

#[test]
fn a_mismatch_says_nothing_of_the_first_request_and_another_scope_sees_no_mismatch() {
    let upstream = Upstream::scripted(|_| Act::Answer(answer(201, &[], b"secret answer")));
    let gateway = Gateway::start(&upstream.url(), "");
    let from = |who: &str, body: &[u8]| {
        let request = post("k").field("Authorization", who).body(body);
        request.send(gateway.address())
    };
    assert_eq!(from("one", b"secret request").status, 201);
    let mismatch = from("one", b"other request");
    assert_eq!(mismatch.problem(), "key-reused");
    for secret in ["secret answer", "secret request"] {
        assert!(!format!("{mismatch:?}").contains(secret), "{mismatch:?}");
    }
    let other = from("two", b"other request");
    assert_eq!((other.status, other.idempotency()), (201, "executed"));
    assert_eq!(upstream.count(), 2);
}
