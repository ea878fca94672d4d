//! What an upstream's answer means for the record (P25), what of it is kept (P28), and what a
//! replay looks like (P27–P32).

use bytes::Bytes;
use http::header::{
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, AGE, ALT_SVC, CACHE_CONTROL,
    CONNECTION, DATE, LOCATION, ORIGIN, RETRY_AFTER, SET_COOKIE, TE, TRAILER, TRANSFER_ENCODING,
    UPGRADE, VARY, VIA, WWW_AUTHENTICATE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};

use crate::problem::{Problem, ProblemKind};
use crate::record::{Content, StoredResponse};
use crate::time::Timestamp;

/// By which an application overrules what its answer means; stripped before it is passed on.
pub const HAPAX_OUTCOME: HeaderName = HeaderName::from_static("hapax-outcome");
/// Tells the upstream how often the operation has been sent, this time included (P26).
pub const HAPAX_ATTEMPT: HeaderName = HeaderName::from_static("hapax-attempt");
/// The key, echoed as it was received.
pub const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// `executed`, `replayed`, `unknown` or `observed`.
pub const IDEMPOTENCY_STATUS: HeaderName = HeaderName::from_static("idempotency-status");
/// Until when the answer will be replayed (RFC 3339).
pub const IDEMPOTENCY_EXPIRES: HeaderName = HeaderName::from_static("idempotency-expires");
/// `true` on replays only.
pub const IDEMPOTENT_REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// What an answer does to the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settlement {
    /// The operation ran; its answer is final.
    Complete,
    /// The operation was refused for good; a corrected payload may try again under the key.
    Reject,
    /// The operation did not run; the key is given back.
    Release,
    /// Nobody can know.
    Unknown,
}

/// What an answer with `status` means, unless the application says otherwise (P25).
pub fn settlement_of(status: StatusCode) -> Settlement {
    match status.as_u16() {
        400 | 404 | 405 | 406 | 410..=417 | 422 | 428 | 431 => Settlement::Reject,
        401 | 403 | 407 | 408 | 409 | 421 | 423 | 425 | 426 | 429 | 503 => Settlement::Release,
        301 | 302 | 307 | 308 => Settlement::Release,
        // Among them 300, 304 and other 3xx that the protocol's table leaves open: an answer
        // that was given once is given again, which is the side that cannot run twice.
        200..=499 => Settlement::Complete,
        _ => Settlement::Unknown,
    }
}

impl Settlement {
    /// What the answer means where operation and record are one transaction: what is unknown
    /// elsewhere is rolled back, and the key given back (P25, P37).
    #[must_use]
    pub const fn in_transaction(self) -> Self {
        match self {
            Self::Unknown => Self::Release,
            Self::Complete | Self::Reject | Self::Release => self,
        }
    }
}

/// Takes `Hapax-Outcome` out of an answer and says what the answer means. A value that is not
/// one of the four words counts as absent.
pub fn take_settlement(status: StatusCode, headers: &mut HeaderMap) -> Settlement {
    let said = headers
        .get(HAPAX_OUTCOME)
        .and_then(|value| match value.as_bytes() {
            b"complete" => Some(Settlement::Complete),
            b"reject" => Some(Settlement::Reject),
            b"release" => Some(Settlement::Release),
            b"unknown" => Some(Settlement::Unknown),
            _ => None,
        });
    headers.remove(HAPAX_OUTCOME);
    said.unwrap_or_else(|| settlement_of(status))
}

/// Fields that belong to one connection, one caller or one moment and are never replayed (P28).
const NOT_STORED: [HeaderName; 16] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
    TRAILER,
    SET_COOKIE,
    WWW_AUTHENTICATE,
    HeaderName::from_static("authentication-info"),
    HeaderName::from_static("clear-site-data"),
    RETRY_AFTER,
    HeaderName::from_static("server-timing"),
    ALT_SVC,
    VIA,
    AGE,
    DATE,
];

/// Request and trace ids, under the names they commonly have.
const IDS: [&str; 10] = [
    "request-id",
    "x-request-id",
    "x-correlation-id",
    "x-amzn-requestid",
    "x-amzn-trace-id",
    "x-b3-traceid",
    "x-cloud-trace-context",
    "traceparent",
    "tracestate",
    "traceresponse",
];

/// The fields of an answer that a record keeps (P28), in their order.
pub fn stored_headers(headers: &HeaderMap) -> HeaderMap {
    // As bytes: an option that is no text must not hide the names beside it.
    let named_by_connection: Vec<&[u8]> = headers
        .get_all(CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
        .collect();
    let is_kept = |name: &HeaderName| {
        let text = name.as_str();
        !(NOT_STORED.contains(name)
            || IDS.contains(&text)
            || text.starts_with("proxy-")
            || text.starts_with("ratelimit")
            || text.starts_with("x-ratelimit")
            || is_ours(name)
            || named_by_connection
                .iter()
                .any(|named| named.eq_ignore_ascii_case(text.as_bytes())))
    };
    let mut kept = HeaderMap::with_capacity(headers.len());
    for (name, value) in headers {
        if is_kept(name) {
            kept.append(name.clone(), value.clone());
        }
    }
    kept
}

/// Our own fields, which an upstream cannot set (another hapax behind this one would).
fn is_ours(name: &HeaderName) -> bool {
    [
        HAPAX_OUTCOME,
        IDEMPOTENCY_KEY,
        IDEMPOTENCY_STATUS,
        IDEMPOTENCY_EXPIRES,
        IDEMPOTENT_REPLAYED,
    ]
    .contains(name)
}

/// Takes our own fields out of an answer, so that only we say them.
pub fn strip_ours(headers: &mut HeaderMap) {
    for name in [
        HAPAX_OUTCOME,
        IDEMPOTENCY_KEY,
        IDEMPOTENCY_STATUS,
        IDEMPOTENCY_EXPIRES,
        IDEMPOTENT_REPLAYED,
    ] {
        headers.remove(name);
    }
}

/// `Idempotency-Status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdempotencyStatus {
    /// The operation ran for this very request.
    Executed,
    /// The answer of the first request.
    Replayed,
    /// Nobody can know what happened.
    Unknown,
    /// The route only watches.
    Observed,
}

impl IdempotencyStatus {
    /// The field's value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Executed => "executed",
            Self::Replayed => "replayed",
            Self::Unknown => "unknown",
            Self::Observed => "observed",
        }
    }
}

/// Adds our fields to a keyed answer (P27, P29).
pub fn annotate(
    headers: &mut HeaderMap,
    key_as_received: &HeaderValue,
    status: Option<IdempotencyStatus>,
    expires: Option<Timestamp>,
) {
    headers.insert(IDEMPOTENCY_KEY, key_as_received.clone());
    if let Some(status) = status {
        headers.insert(
            IDEMPOTENCY_STATUS,
            HeaderValue::from_static(status.as_str()),
        );
    }
    if let Some(value) = expires.and_then(|at| HeaderValue::from_str(&at.to_string()).ok()) {
        headers.insert(IDEMPOTENCY_EXPIRES, value);
    }
    if headers.contains_key(ACCESS_CONTROL_ALLOW_ORIGIN) {
        // One more line of a list field adds to the list (RFC 9110 section 5.3).
        headers.append(
            ACCESS_CONTROL_EXPOSE_HEADERS,
            HeaderValue::from_static(
                "Idempotency-Key, Idempotency-Status, Idempotency-Expires, Idempotent-Replayed",
            ),
        );
    }
}

/// The answer to a retry, from what is stored.
///
/// # Errors
/// [`ProblemKind::ResponseUnavailable`] when the content was not kept and the answer names no
/// `Location` to look at instead (P32).
pub fn replay(stored: &StoredResponse, retry: &HeaderMap) -> Result<Response<Bytes>, Problem> {
    let mut headers = stored.headers.clone();
    drop_foreign_cors(&mut headers, retry);
    let (status, content) = match &stored.content {
        Content::Stored(content) => (stored.status, content.clone()),
        Content::Withheld => {
            let Some(location) = stored.headers.get(LOCATION).cloned() else {
                return Err(Problem::new(
                    ProblemKind::ResponseUnavailable,
                    "The operation ran once; its answer was too large, a stream, or never known, \
                     and is not kept.",
                ));
            };
            headers = cors_fields(&headers);
            headers.insert(LOCATION, location);
            (StatusCode::SEE_OTHER, Bytes::new())
        }
    };
    headers.insert(IDEMPOTENT_REPLAYED, HeaderValue::from_static("true"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let mut response = Response::new(content);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    Ok(response)
}

/// What lets a page of another origin read an answer: without it, a browser does not follow a `Location` either.
fn cors_fields(headers: &HeaderMap) -> HeaderMap {
    let mut kept = HeaderMap::new();
    for (name, value) in headers {
        if is_cors(name) || *name == VARY {
            kept.append(name.clone(), value.clone());
        }
    }
    kept
}

fn is_cors(name: &HeaderName) -> bool {
    name.as_str().starts_with("access-control-")
}

/// CORS fields are an answer to one origin. A retry from another one gets none, unless the
/// answer was for everybody (P29, P52).
fn drop_foreign_cors(headers: &mut HeaderMap, retry: &HeaderMap) {
    let Some(allowed) = headers.get(ACCESS_CONTROL_ALLOW_ORIGIN) else {
        return;
    };
    if allowed == "*" || Some(allowed) == retry.get(ORIGIN) {
        return;
    }
    let names: Vec<HeaderName> = headers
        .keys()
        .filter(|name| is_cors(name))
        .cloned()
        .collect();
    for name in names {
        headers.remove(name);
    }
    if !headers.contains_key(VARY) {
        headers.insert(VARY, HeaderValue::from_static("Origin"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_settles_as_the_table_says() {
        let mut rejected = vec![400, 404, 405, 406, 422, 428, 431];
        rejected.extend(410..=417);
        let released = [
            401, 403, 407, 408, 409, 421, 423, 425, 426, 429, 503, 301, 302, 307, 308,
        ];
        for code in 200..1000 {
            let expected = match code {
                500.. if code != 503 => Settlement::Unknown,
                _ if rejected.contains(&code) => Settlement::Reject,
                _ if released.contains(&code) => Settlement::Release,
                _ => Settlement::Complete,
            };
            let status = StatusCode::from_u16(code).expect("a status");
            assert_eq!(settlement_of(status), expected, "{code}");
        }
    }

    #[test]
    fn the_application_overrules_and_its_word_is_stripped() {
        for (word, settlement) in [
            ("complete", Settlement::Complete),
            ("reject", Settlement::Reject),
            ("release", Settlement::Release),
            ("unknown", Settlement::Unknown),
            ("nonsense", Settlement::Reject),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(HAPAX_OUTCOME, HeaderValue::from_static(word));
            assert_eq!(
                take_settlement(StatusCode::BAD_REQUEST, &mut headers),
                settlement
            );
            assert!(headers.is_empty());
        }
    }

    #[test]
    fn in_a_transaction_nothing_is_unknown() {
        for code in 200..1000 {
            let settlement = settlement_of(StatusCode::from_u16(code).expect("a status"));
            let expected = match settlement {
                Settlement::Unknown => Settlement::Release,
                other => other,
            };
            assert_eq!(settlement.in_transaction(), expected, "{code}");
        }
    }

    fn fields(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            );
        }
        headers
    }

    #[test]
    fn end_to_end_fields_are_kept_and_fields_of_a_moment_are_not() {
        let kept = [
            ("location", "/orders/1"),
            ("etag", "\"v1\""),
            ("link", "<a>"),
            ("link", "<b>"),
            ("content-type", "text/plain"),
            ("x-custom", "1"),
            ("cache-control", "max-age=1"),
        ];
        let dropped = [
            ("connection", "close, X-Hop"),
            ("x-hop", "1"),
            ("set-cookie", "a=b"),
            ("date", "now"),
            ("via", "1.1 x"),
            ("age", "3"),
            ("ratelimit-remaining", "9"),
            ("x-request-id", "r"),
            ("proxy-authenticate", "Basic"),
            ("retry-after", "1"),
            ("server-timing", "db"),
            ("idempotent-replayed", "true"),
            ("hapax-outcome", "complete"),
        ];
        let all: Vec<_> = kept.iter().chain(&dropped).copied().collect();
        assert_eq!(stored_headers(&fields(&all)), fields(&kept));
    }

    #[test]
    fn an_option_that_is_no_text_hides_no_name_beside_it() {
        let mut headers = fields(&[("x-hop", "1"), ("x-kept", "1")]);
        let value = HeaderValue::from_bytes(b"X-Hop, cl\xf9se").expect("a field value");
        headers.insert(CONNECTION, value);
        assert_eq!(stored_headers(&headers), fields(&[("x-kept", "1")]));
    }

    fn stored(headers: HeaderMap, content: Content) -> StoredResponse {
        StoredResponse {
            status: StatusCode::CREATED,
            headers,
            content,
        }
    }

    #[test]
    fn a_replay_is_marked_and_not_cached() {
        let content = Bytes::from_static(b"{}");
        let stored = stored(
            fields(&[("cache-control", "max-age=60")]),
            Content::Stored(content.clone()),
        );
        let response = replay(&stored, &HeaderMap::new()).expect("it was kept");
        assert_eq!(response.status(), 201);
        assert_eq!(response.body(), &content);
        assert_eq!(response.headers()["idempotent-replayed"], "true");
        assert_eq!(response.headers()["cache-control"], "no-store");
    }

    #[test]
    fn content_that_was_not_kept_is_a_pointer_or_a_conflict() {
        let with_location = stored(
            fields(&[("location", "/o/1"), ("content-type", "a/b")]),
            Content::Withheld,
        );
        let response = replay(&with_location, &HeaderMap::new()).expect("a pointer");
        assert_eq!(response.status(), 303);
        assert_eq!(response.headers()["location"], "/o/1");
        assert!(!response.headers().contains_key("content-type"));
        assert!(
            !response
                .headers()
                .contains_key("access-control-allow-origin")
        );
        let without = stored(HeaderMap::new(), Content::Withheld);
        let problem = replay(&without, &HeaderMap::new()).expect_err("nothing to send");
        assert_eq!(problem.kind, ProblemKind::ResponseUnavailable);
    }

    #[test]
    fn cors_fields_of_another_origin_are_dropped() {
        let cors = fields(&[
            ("access-control-allow-origin", "https://a.example"),
            ("access-control-allow-credentials", "true"),
        ]);
        let stored_for_a = stored(cors, Content::Stored(Bytes::new()));
        let same = replay(&stored_for_a, &fields(&[("origin", "https://a.example")]));
        assert!(
            same.expect("kept")
                .headers()
                .contains_key("access-control-allow-credentials")
        );
        let other = replay(&stored_for_a, &fields(&[("origin", "https://b.example")]));
        assert!(
            !other
                .expect("kept")
                .headers()
                .contains_key("access-control-allow-credentials")
        );
        let any = fields(&[("access-control-allow-origin", "*")]);
        let stored_for_all = stored(any, Content::Stored(Bytes::new()));
        let other = replay(&stored_for_all, &fields(&[("origin", "https://b.example")]));
        assert_eq!(
            other.expect("kept").headers()["access-control-allow-origin"],
            "*"
        );
    }

    #[test]
    fn a_pointer_may_be_read_by_whom_the_answer_was_for() {
        let fields_of_answer = [
            ("location", "/o/1"),
            ("access-control-allow-origin", "https://a.example"),
            ("vary", "Origin"),
        ];
        let pointer = stored(fields(&fields_of_answer), Content::Withheld);
        let from = |origin| {
            let retry = fields(&[("origin", origin)]);
            replay(&pointer, &retry)
                .expect("a pointer")
                .headers()
                .clone()
        };
        let same = from("https://a.example");
        assert_eq!(same["access-control-allow-origin"], "https://a.example");
        assert_eq!(same["vary"], "Origin");
        let other = from("https://b.example");
        assert!(!other.contains_key("access-control-allow-origin"));
        assert_eq!(other["location"], "/o/1");
    }

    #[test]
    fn our_fields_are_exposed_to_scripts_where_the_answer_is() {
        let mut headers = fields(&[("access-control-allow-origin", "*")]);
        let key = HeaderValue::from_static("\"abc\"");
        annotate(&mut headers, &key, Some(IdempotencyStatus::Executed), None);
        assert_eq!(headers["idempotency-key"], "\"abc\"");
        assert_eq!(headers["idempotency-status"], "executed");
        let exposed = headers["access-control-expose-headers"]
            .to_str()
            .expect("text");
        assert!(exposed.contains("Idempotent-Replayed"));
    }
}
