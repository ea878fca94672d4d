//! What each status of the upstream means for the key (P25), and how an application overrules.

use crate::client::post;
use crate::gateway::Gateway;
use crate::upstream::{Act, Effect, Upstream, answer};

/// Answers with the status at the end of the path; `Hapax-Outcome` as the request's `X-Say` says.
fn by_path(effect: &Effect) -> Act {
    let status = effect
        .target
        .rsplit('/')
        .next()
        .and_then(|s| s.parse().ok());
    let status = status.expect("a status");
    let body = match status {
        204 | 205 | 304 => String::new(),
        _ => format!("answer {}", effect.serial),
    };
    let said = effect.field("x-say").to_owned();
    let fields: Vec<(&str, &str)> = match said.as_str() {
        "" => Vec::new(),
        said => vec![("Hapax-Outcome", said)],
    };
    Act::Answer(answer(status, &fields, body.as_bytes()))
}

/// What a retry meets.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Then {
    Replayed,
    Rejected,
    Released,
    Unknown,
}

struct Bench {
    upstream: Upstream,
    gateway: Gateway,
}

impl Bench {
    fn new() -> Self {
        let upstream = Upstream::scripted(by_path);
        let gateway = Gateway::start(&upstream.url(), "");
        Self { upstream, gateway }
    }

    fn check(&self, status: u16, say: &str, then: Then) {
        let case = format!("{status} {say} {then:?}");
        let key = format!("{status}-{say}");
        let target = format!("/answers/{status}");
        let mut request = post(&key).target(&target);
        if !say.is_empty() {
            request = request.field("X-Say", say);
        }
        let to = self.gateway.address();
        let first = request.send(to);
        assert_eq!(first.status, status, "{case}");
        assert_eq!(first.field("hapax-outcome"), None, "{case}");
        assert!(!first.is_replay(), "{case}");
        let retry = request.send(to);
        assert_eq!(retry.status, status, "{case}");
        assert_eq!(retry.field("hapax-outcome"), None, "{case}");
        let corrected = request.clone().body(b"{\"amount\":2}").send(to);
        for answer in [&first, &retry, &corrected] {
            assert_eq!(
                answer.field("idempotency-key"),
                Some(key.as_str()),
                "{case}"
            );
        }
        let effects = self.upstream.count_of(&key);
        match then {
            Then::Released => {
                assert!(!retry.is_replay() && !corrected.is_replay(), "{case}");
                assert_eq!(first.idempotency(), "", "{case}");
                assert_eq!(effects, 3, "{case}");
            }
            Then::Rejected => {
                assert!(retry.is_replay(), "{case}");
                assert_eq!(retry.body, first.body, "{case}");
                assert_eq!(corrected.status, status, "{case}");
                assert!(!corrected.is_replay(), "{case}");
                assert_eq!(effects, 2, "{case}");
            }
            Then::Replayed | Then::Unknown => {
                assert!(retry.is_replay(), "{case}");
                assert_eq!(retry.body, first.body, "{case}");
                assert_eq!(corrected.problem(), "key-reused", "{case}");
                assert_eq!(effects, 1, "{case}");
            }
        }
        if then == Then::Unknown {
            assert_eq!(retry.idempotency(), "unknown", "{case}");
        } else if retry.is_replay() {
            assert_eq!(retry.idempotency(), "replayed", "{case}");
        }
    }
}

#[test]
fn final_answers_are_replayed() {
    let bench = Bench::new();
    for status in [
        200, 201, 202, 203, 204, 205, 206, 207, 208, 226, 303, 402, 424, 451, 418, 419, 420, 430,
    ] {
        bench.check(status, "", Then::Replayed);
    }
}

#[test]
fn rejections_are_replayed_to_the_same_payload_and_a_corrected_one_executes() {
    let bench = Bench::new();
    for status in [400, 404, 405, 406, 422, 428, 431]
        .into_iter()
        .chain(410..=417)
    {
        bench.check(status, "", Then::Rejected);
    }
}

#[test]
fn answers_that_say_not_now_free_the_key() {
    let bench = Bench::new();
    for status in [
        401, 403, 407, 408, 409, 421, 423, 425, 426, 429, 503, 301, 302, 307, 308,
    ] {
        bench.check(status, "", Then::Released);
    }
}

#[test]
fn server_errors_are_unknown_and_replayed() {
    let bench = Bench::new();
    for status in [500, 501, 502, 504, 505, 506, 507, 508, 510, 511, 599] {
        bench.check(status, "", Then::Unknown);
    }
}

#[test]
fn an_application_overrules_what_its_answer_means() {
    let bench = Bench::new();
    for status in [200, 201, 400, 409, 422, 429, 500, 502, 503, 504] {
        bench.check(status, "complete", Then::Replayed);
        bench.check(status, "reject", Then::Rejected);
        bench.check(status, "release", Then::Released);
        bench.check(status, "unknown", Then::Unknown);
    }
}
