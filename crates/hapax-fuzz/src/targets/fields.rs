//! The fields of an answer: which are kept, which are ours, and what a replay has (P27, P28).

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use hapax_core::record::{Content, StoredResponse};
use hapax_core::settle::{
    annotate, replay, settlement_of, stored_headers, strip_ours, take_settlement,
};

pub(crate) const WORDS: &[&str] = &[
    "\n",
    "connection: ",
    "close",
    "keep-alive",
    "set-cookie: a=b",
    "location: /orders/1",
    "etag: \"1\"",
    "content-type: text/plain",
    "hapax-outcome: complete",
    "hapax-outcome: release",
    "idempotency-key: k",
    "idempotent-replayed: true",
    "idempotency-status: executed",
    "cache-control: max-age=60",
    "retry-after: 1",
    "ratelimit-limit: 1",
    "x-ratelimit-remaining: 0",
    "proxy-authenticate: Basic",
    "transfer-encoding: chunked",
    "content-length: 5",
    "trailer: x",
    "date: today",
    "via: 1.1 a",
    "vary: origin",
    "x-request-id: 1",
    "access-control-allow-origin: https://a.test",
    "access-control-allow-origin: *",
    "x-a: 1",
    "x-a",
    ", ",
    "Connection: X-A, location",
];

/// Never in a record: they belong to one connection, one moment or one caller, or are ours to say.
const NEVER: [&str; 22] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-status",
    "te",
    "transfer-encoding",
    "upgrade",
    "trailer",
    "set-cookie",
    "www-authenticate",
    "authentication-info",
    "clear-site-data",
    "retry-after",
    "ratelimit-limit",
    "server-timing",
    "alt-svc",
    "via",
    "age",
    "date",
    "hapax-outcome",
    "idempotent-replayed",
    "idempotency-status",
];

/// What is kept is a part of what came, in its order; it has nothing that belongs to a connection, a moment or a caller,
/// and keeping it again changes nothing. A replay says that it is one, once, whatever the upstream claimed.
pub fn fields(data: &[u8]) {
    let headers = read(data);
    let kept = stored_headers(&headers);
    for name in kept.keys() {
        assert!(!NEVER.contains(&name.as_str()), "{name} is kept");
        let (before, after) = (lines(&headers, name), lines(&kept, name));
        assert_eq!(before, after, "all lines of a kept field, in their order");
        assert!(
            !is_named(&headers, name),
            "{name} belongs to the connection"
        );
    }
    assert_eq!(stored_headers(&kept), kept, "keeping again changes nothing");

    let status =
        StatusCode::from_u16(200 + data.first().map_or(0, |byte| u16::from(*byte)) * 2 % 400);
    let status = status.expect("200 to 599");
    let mut passed = headers.clone();
    let said = headers.get("hapax-outcome").map(HeaderValue::as_bytes);
    let taken = take_settlement(status, &mut passed);
    assert!(!passed.contains_key("hapax-outcome"));
    let is_word = said
        .is_some_and(|said| [&b"complete"[..], b"reject", b"release", b"unknown"].contains(&said));
    assert!(
        is_word || taken == settlement_of(status),
        "another word counts as none"
    );

    let content = match data.len() % 3 {
        0 => Content::Withheld,
        _ => Content::Stored(Bytes::from_static(b"content")),
    };
    let is_withheld = content == Content::Withheld;
    let stored = StoredResponse {
        status,
        headers: kept.clone(),
        content,
    };
    match replay(&stored, &headers) {
        Ok(answer) => {
            let fields = answer.headers();
            assert_eq!(
                lines(fields, &HeaderName::from_static("idempotent-replayed")),
                [b"true"]
            );
            assert_eq!(
                lines(fields, &HeaderName::from_static("cache-control")),
                [b"no-store"]
            );
            assert!(is_withheld || (answer.status() == status && answer.body() == "content"));
            assert!(
                !is_withheld
                    || answer.status() == StatusCode::SEE_OTHER && answer.body().is_empty()
            );
            assert!(!fields.contains_key("set-cookie"));
        }
        Err(_) => assert!(is_withheld && !kept.contains_key("location")),
    }

    let mut ours = headers.clone();
    strip_ours(&mut ours);
    annotate(&mut ours, &HeaderValue::from_static("k"), None, None);
    assert_eq!(
        lines(&ours, &HeaderName::from_static("idempotency-key")),
        [b"k"]
    );
    assert!(!ours.contains_key("idempotent-replayed") && !ours.contains_key("idempotency-status"));
}

fn read(data: &[u8]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in data.split(|byte| *byte == b'\n') {
        let colon = line
            .iter()
            .position(|byte| *byte == b':')
            .unwrap_or(line.len());
        let value = line.get(colon + 1..).unwrap_or_default().trim_ascii();
        if let (Ok(name), Ok(value)) = (
            HeaderName::from_bytes(&line[..colon]),
            HeaderValue::from_bytes(value),
        ) {
            headers.append(name, value);
        }
    }
    headers
}

fn lines<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Vec<&'a [u8]> {
    headers
        .get_all(name)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect()
}

fn is_named(headers: &HeaderMap, name: &HeaderName) -> bool {
    let values = headers
        .get_all("connection")
        .iter()
        .map(HeaderValue::as_bytes);
    let mut options = values.flat_map(|value| value.split(|byte| *byte == b','));
    options.any(|option| {
        option
            .trim_ascii()
            .eq_ignore_ascii_case(name.as_str().as_bytes())
    })
}
