//! The answers that hapax makes itself.

use crate::client::{Answer, Ask, Connection, ask, post};
use crate::gateway::Gateway;
use crate::upstream::Upstream;

const CONFIG: &str = r#"
[defaults]
max_body = "1KiB"

[[route]]
match = "POST /payments"
key = "required"

[[route]]
match = "POST /strict"
key_syntax = "strict"

[[route]]
match = "POST /named"
anonymous = "refuse"

[[route]]
match = "POST /aliased"
key_from = ["header:idempotency-key", "header:x-idempotency-key"]
"#;

struct Bench {
    upstream: Upstream,
    gateway: Gateway,
}

impl Bench {
    fn new() -> Self {
        let upstream = Upstream::new();
        let gateway = Gateway::start(&upstream.url(), CONFIG);
        Self { upstream, gateway }
    }

    /// The request is refused as said, before the upstream sees it.
    fn check(&self, request: &Ask, status: u16, kind: &str, retryable: bool) -> Answer {
        let before = self.upstream.count();
        let answer = request.send(self.gateway.address());
        assert_eq!((answer.status, answer.problem().as_str()), (status, kind));
        assert_eq!(answer.json()["retryable"], retryable, "{answer:?}");
        assert_eq!(answer.idempotency(), "", "{answer:?}");
        assert!(!answer.is_replay());
        let link = answer.field("link").unwrap_or_default();
        assert!(link.contains("rel=\"describedby\""), "{answer:?}");
        assert_eq!(self.upstream.count(), before);
        answer
    }

    fn assert_executes(&self, request: &Ask) {
        let answer = request.send(self.gateway.address());
        let status = (answer.status, answer.idempotency());
        assert_eq!(status, (201, "executed"), "{answer:?}");
    }
}

#[test]
fn a_route_that_requires_a_key_refuses_a_request_without_one() {
    let bench = Bench::new();
    let request = ask("POST", "/payments").body(b"{}");
    bench.check(&request, 400, "key-missing", false);
    bench.assert_executes(&request.key("k"));
}

#[test]
fn what_is_no_key_is_refused() {
    let bench = Bench::new();
    let long = "x".repeat(256);
    let quoted_long = format!("\"{long}\"");
    for key in [
        "",
        "\"\"",
        "a b",
        "a,b",
        "a;b",
        "\"open",
        "\"a b\"",
        "\"a\" \"b\"",
        "\"a\\b\"",
        "clé",
        "a\tb",
        &long,
        &quoted_long,
        "\"a\";=",
    ] {
        let answer = bench.check(&post(key), 400, "key-invalid", false);
        assert!(
            key.len() < 3 || !answer.text().contains(key),
            "{key:?} comes back"
        );
    }
    bench.assert_executes(&post(&long[..255]));
    // Parameters on a quoted key are ignored.
    bench.assert_executes(&post("\"with\";a=1"));
    assert!(post("with").send(bench.gateway.address()).is_replay());
}

#[test]
fn a_strict_route_takes_the_quoted_form_only() {
    let bench = Bench::new();
    let strict = |key: &str| post(key).target("/strict");
    bench.check(&strict("bare"), 400, "key-invalid", false);
    bench.assert_executes(&strict("\"quoted\""));
}

#[test]
fn two_keys_are_refused_even_when_they_are_the_same() {
    let bench = Bench::new();
    bench.check(&post("a").key("b"), 400, "key-invalid", false);
    bench.check(&post("a").key("a"), 400, "key-invalid", false);
}

#[test]
fn carriers_that_disagree_are_refused_and_carriers_that_agree_are_one_key() {
    let bench = Bench::new();
    let both = |other: &str| {
        let request = post("one").target("/aliased");
        request.field("X-Idempotency-Key", other)
    };
    bench.check(&both("two"), 400, "key-invalid", false);
    bench.assert_executes(&both("one"));
    let alias = ask("POST", "/aliased").body(b"{\"amount\":1}");
    let alias = alias.field("X-Idempotency-Key", "one");
    assert!(alias.send(bench.gateway.address()).is_replay());
}

#[test]
fn a_reused_key_is_told_what_differs() {
    let bench = Bench::new();
    let first = post("k").field("Content-Type", "application/json");
    bench.assert_executes(&first);
    for (request, what) in [
        (first.clone().body(b"{\"amount\":2}"), "content"),
        (first.clone().target("/other"), "target"),
        (first.clone().target("/orders?page=2"), "target"),
        (ask("PATCH", "/orders").key("k").body(b"{}"), "method"),
        (post("k").field("Content-Type", "text/plain"), "type"),
    ] {
        let answer = bench.check(&request, 422, "key-reused", false);
        let detail = answer.json()["detail"].as_str().expect("text").to_owned();
        assert!(detail.contains(what), "{what}: {detail}");
    }
    assert!(first.send(bench.gateway.address()).is_replay());
    // What differs per attempt does not count.
    let later = first.field("User-Agent", "again").field("Traceparent", "x");
    assert!(later.send(bench.gateway.address()).is_replay());
}

#[test]
fn content_that_is_too_large_is_refused_and_the_key_stays_free() {
    let bench = Bench::new();
    let large = post("large").body(&[b'x'; 1025]);
    bench.check(&large, 413, "body-too-large", false);
    bench.assert_executes(&large.body(&[b'x'; 1024]));
    let chunked = "POST /orders HTTP/1.1\r\nHost: a.test\r\nIdempotency-Key: c\r\n\
                   Transfer-Encoding: chunked\r\n\r\n";
    let mut connection = Connection::open(bench.gateway.address());
    connection.send(chunked.as_bytes()).expect("it listens");
    for _ in 0..3 {
        connection.send_anyway(format!("200\r\n{}\r\n", "x".repeat(0x200)).as_bytes());
    }
    let answer = connection.read().expect("an answer");
    assert_eq!(answer.problem(), "body-too-large");
    assert_eq!(bench.upstream.count_of("c"), 0);
}

#[test]
fn a_digest_that_does_not_match_is_refused_and_the_key_stays_free() {
    let bench = Bench::new();
    // SHA-256 of `hello` and of the empty string.
    let good = "sha-256=:LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ=:";
    let bad = "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:";
    let hello = post("d").body(b"hello");
    let wrong = hello.clone().field("Content-Digest", bad);
    bench.check(&wrong, 400, "digest-mismatch", false);
    bench.assert_executes(&hello.field("Content-Digest", good));
}

#[test]
fn keys_are_compared_byte_by_byte() {
    let bench = Bench::new();
    for key in ["abc", "ABC", "abc.", "ab", "%61bc"] {
        bench.assert_executes(&post(key));
    }
    assert!(post("abc").send(bench.gateway.address()).is_replay());
}

#[test]
fn a_key_in_a_trailer_is_no_key() {
    let bench = Bench::new();
    let request = "POST /orders HTTP/1.1\r\nHost: a.test\r\nTrailer: Idempotency-Key\r\n\
                   Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\
                   Idempotency-Key: k\r\n\r\n";
    for _ in 0..2 {
        let mut connection = Connection::open(bench.gateway.address());
        connection.send(request.as_bytes()).expect("it listens");
        let answer = connection.read().expect("an answer");
        assert_eq!(answer.idempotency(), "", "{answer:?}");
        assert!(!answer.is_replay());
    }
    bench.assert_executes(&post("k").body(b"{}"));
}

#[test]
fn every_answer_to_a_keyed_request_echoes_the_key() {
    let bench = Bench::new();
    let echo = |answer: &Answer| answer.field("idempotency-key").map(str::to_owned);
    let executed = post("k").send(bench.gateway.address());
    let replayed = post("k").send(bench.gateway.address());
    let refused = post("k").body(b"other").send(bench.gateway.address());
    for answer in [executed, replayed, refused] {
        assert_eq!(echo(&answer).as_deref(), Some("k"), "{answer:?}");
    }
}

#[test]
fn a_route_can_refuse_callers_without_credentials() {
    let bench = Bench::new();
    let request = post("k").target("/named");
    bench.check(&request, 400, "scope-missing", false);
    bench.assert_executes(&request.field("Authorization", "Bearer one"));
}

#[test]
fn a_key_beside_content_of_any_allowed_size_and_shape_is_one_operation() {
    let bench = Bench::new();
    let empty = ask("POST", "/orders").key("empty");
    bench.assert_executes(&empty);
    assert!(empty.send(bench.gateway.address()).is_replay());
    let chunked = "POST /orders HTTP/1.1\r\nHost: a.test\r\nIdempotency-Key: c\r\n\
                   Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
    let mut connection = Connection::open(bench.gateway.address());
    connection.send(chunked.as_bytes()).expect("it listens");
    assert_eq!(
        connection.read().expect("an answer").idempotency(),
        "executed"
    );
    // Framing is not part of what makes two requests the same.
    let plain = post("c").body(b"abcde");
    assert!(plain.send(bench.gateway.address()).is_replay());
    let effects = bench.upstream.effects();
    assert_eq!(effects.last().expect("one").body, b"abcde");
}
