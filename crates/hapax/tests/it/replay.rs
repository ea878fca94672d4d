//! What a replay looks like: the same bytes, and the fields that may be repeated.

use crate::client::{Answer, post};
use crate::gateway::Gateway;
use crate::upstream::{Act, Upstream, answer};

/// Sends the same request twice to an upstream that answers `bytes`; both answers.
fn twice(bytes: Vec<u8>) -> (Answer, Answer) {
    let upstream = Upstream::scripted(move |_| Act::Answer(bytes.clone()));
    let gateway = Gateway::start(&upstream.url(), "");
    let first = post("k").send(gateway.address());
    let second = post("k").send(gateway.address());
    assert_eq!(upstream.count(), 1);
    (first, second)
}

fn check_replay(bytes: Vec<u8>, status: u16, body: &[u8]) -> Answer {
    let (first, second) = twice(bytes);
    assert_eq!((first.status, first.idempotency()), (status, "executed"));
    assert!(!first.is_replay());
    assert_eq!(first.body, body);
    assert_eq!((second.status, second.idempotency()), (status, "replayed"));
    assert!(second.is_replay());
    assert_eq!(second.kept(), first.kept());
    assert_eq!(second.field("idempotency-key"), Some("k"));
    assert_eq!(second.field("cache-control"), Some("no-store"));
    assert_eq!(second.all("date").len(), 1);
    second
}

#[test]
fn every_byte_value_is_replayed_as_it_was() {
    let body: Vec<u8> = (0..=255).collect();
    let bytes = answer(200, &[("Content-Type", "application/octet-stream")], &body);
    check_replay(bytes, 200, &body);
}

#[test]
fn repeated_fields_are_replayed_and_fields_of_a_moment_are_not() {
    let fields = [
        ("Link", "<a>; rel=one"),
        ("ETag", "\"v1\""),
        ("Link", "<b>; rel=two"),
        ("Location", "/orders/1"),
        ("Set-Cookie", "session=first"),
        ("X-Request-Id", "first"),
        ("Server-Timing", "db"),
        ("Age", "1"),
    ];
    let (first, second) = twice(answer(201, &fields, b"made"));
    for kept in [&first, &second] {
        assert_eq!(kept.all("link"), ["<a>; rel=one", "<b>; rel=two"]);
        assert_eq!(kept.field("etag"), Some("\"v1\""));
        assert_eq!(kept.field("location"), Some("/orders/1"));
    }
    assert_eq!(first.field("set-cookie"), Some("session=first"));
    for gone in ["set-cookie", "x-request-id", "server-timing", "age"] {
        assert_eq!(second.field(gone), None, "{gone}");
    }
}

#[test]
fn an_answer_without_content_is_replayed_without_content() {
    let second = check_replay(answer(204, &[("ETag", "\"1\"")], b""), 204, b"");
    assert_eq!(second.field("transfer-encoding"), None);
    assert_eq!(second.field("content-length"), None);
}

#[test]
fn an_empty_content_is_replayed_as_one() {
    check_replay(answer(200, &[], b""), 200, b"");
}

#[test]
fn a_chunked_answer_is_replayed_with_the_same_content() {
    let bytes = b"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n\
                  5\r\nhello\r\n7;ext=1\r\n, world\r\n0\r\nX-Sum: 1\r\n\r\n";
    let second = check_replay(bytes.to_vec(), 201, b"hello, world");
    assert_eq!(second.field("x-sum"), None);
}

#[test]
fn an_interim_answer_is_not_the_answer() {
    let mut bytes = b"HTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\n".to_vec();
    bytes.extend_from_slice(&answer(201, &[], b"made"));
    let second = check_replay(bytes, 201, b"made");
    assert_eq!(second.field("link"), None);
}

#[test]
fn a_mebibyte_is_replayed() {
    let body: Vec<u8> = (0..1 << 20).map(|n: u32| (n % 251) as u8).collect();
    check_replay(answer(200, &[], &body), 200, &body);
}

#[test]
fn an_answer_too_large_to_store_is_passed_through_and_a_retry_is_pointed_to_its_location() {
    let body = vec![b'x'; (1 << 20) + 1];
    let (first, second) = twice(answer(201, &[("Location", "/orders/1")], &body));
    assert_eq!((first.status, first.body.len()), (201, body.len()));
    assert_eq!(first.body, body);
    assert_eq!(second.status, 303);
    assert_eq!(second.field("location"), Some("/orders/1"));
    assert!(second.is_replay());
}

#[test]
fn an_answer_too_large_to_store_without_a_location_is_unavailable_to_a_retry() {
    let body = vec![b'x'; 3 << 20];
    let (first, second) = twice(answer(200, &[], &body));
    assert_eq!((first.status, first.body.len()), (200, body.len()));
    assert_eq!(second.status, 409);
    assert_eq!(second.problem(), "response-unavailable");
    assert_eq!(second.json()["retryable"], false);
    assert_eq!(second.idempotency(), "");
}

#[test]
fn a_stream_of_events_is_passed_through_and_not_stored() {
    let fields = [("Content-Type", "text/event-stream")];
    let (first, second) = twice(answer(200, &fields, b"data: 1\n\n"));
    assert_eq!((first.status, first.text().as_str()), (200, "data: 1\n\n"));
    assert_eq!(second.problem(), "response-unavailable");
}

/// `hello, coded world` in gzip.
const CODED: [u8; 38] = [
    31, 139, 8, 0, 0, 0, 0, 0, 2, 255, 203, 72, 205, 201, 201, 215, 81, 72, 206, 79, 73, 77, 81,
    40, 207, 47, 202, 73, 1, 0, 223, 232, 128, 150, 18, 0, 0, 0,
];

#[test]
fn a_retry_that_does_not_take_the_coding_gets_the_content_without_it() {
    let fields = [("Content-Encoding", "gzip"), ("Content-Type", "text/plain")];
    let bytes = answer(200, &fields, &CODED);
    let upstream = Upstream::scripted(move |_| Act::Answer(bytes.clone()));
    let gateway = Gateway::start(&upstream.url(), "");
    let taking = |coding: &str| {
        let request = post("k").field("Accept-Encoding", coding);
        request.send(gateway.address())
    };
    assert_eq!(taking("gzip").body, CODED);
    let same = taking("gzip");
    assert!(same.is_replay());
    assert_eq!(same.body, CODED);
    let plain = taking("identity");
    assert!(plain.is_replay());
    assert_eq!(plain.text(), "hello, coded world");
    assert_eq!(plain.field("content-encoding"), None);
    assert_eq!(upstream.count(), 1);
}

#[test]
fn what_was_too_large_to_store_is_not_run_again_after_a_restart() {
    let body = vec![b'x'; 2 << 20];
    let bytes = answer(201, &[("Location", "/orders/1")], &body);
    let upstream = Upstream::scripted(move |_| Act::Answer(bytes.clone()));
    let mut gateway = Gateway::start(&upstream.url(), "");
    assert_eq!(post("k").send(gateway.address()).body.len(), body.len());
    gateway.restart();
    let retry = post("k").send(gateway.address());
    assert_eq!(
        (retry.status, retry.field("location")),
        (303, Some("/orders/1"))
    );
    assert_eq!(upstream.count(), 1);
}

#[test]
fn a_replay_says_until_when_it_is_kept_and_the_key_as_received() {
    let upstream = Upstream::new();
    let gateway = Gateway::start(&upstream.url(), "");
    let first = post("\"quoted\"").send(gateway.address());
    // The quoted and the bare form are one key; each is echoed as it came.
    let second = post("quoted").send(gateway.address());
    assert!(second.is_replay());
    assert_eq!(first.field("idempotency-key"), Some("\"quoted\""));
    assert_eq!(second.field("idempotency-key"), Some("quoted"));
    let expires = second.field("idempotency-expires").expect("there");
    assert_eq!(first.field("idempotency-expires"), Some(expires));
    assert!(expires.len() >= 20 && expires.ends_with('Z'), "{expires}");
}

#[test]
fn cors_fields_name_ours_and_a_preflight_allows_the_key() {
    let fields = [
        ("Access-Control-Allow-Origin", "https://a.example"),
        ("Access-Control-Allow-Headers", "Content-Type"),
    ];
    let bytes = answer(200, &fields, b"ok");
    let upstream = Upstream::scripted(move |_| Act::Answer(bytes.clone()));
    let gateway = Gateway::start(&upstream.url(), "");
    let preflight = crate::client::ask("OPTIONS", "/orders")
        .field("Origin", "https://a.example")
        .field("Access-Control-Request-Method", "POST")
        .field("Access-Control-Request-Headers", "idempotency-key")
        .send(gateway.address());
    let allowed = preflight.all("access-control-allow-headers").join(", ");
    assert!(allowed.to_ascii_lowercase().contains("idempotency-key"));
    let from = |origin: &str| post("k").field("Origin", origin).send(gateway.address());
    let first = from("https://a.example");
    let exposed = first.all("access-control-expose-headers").join(", ");
    assert!(exposed.contains("Idempotent-Replayed"), "{exposed}");
    let same = from("https://a.example");
    assert!(same.is_replay());
    assert_eq!(
        same.field("access-control-allow-origin"),
        Some("https://a.example")
    );
    let other = from("https://b.example");
    assert!(other.is_replay());
    assert_eq!(other.field("access-control-allow-origin"), None);
}
