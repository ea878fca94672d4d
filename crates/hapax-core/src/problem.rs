//! Every answer that hapax makes up itself (RFC 9457): the only place where statuses are chosen.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, LINK, RETRY_AFTER};
use http::{HeaderName, HeaderValue, Response, StatusCode};

use crate::json::Value;

/// What `type` begins with; the kind's name follows as the fragment.
pub const TYPE_BASE: &str = "urn:hapax:problems";

const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");

/// What is wrong. The names are stable: clients may act on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProblemKind {
    /// The route needs a key and the request has none (P3).
    KeyMissing,
    /// The key is not one, or two carriers disagree (P4, P5).
    KeyInvalid,
    /// The route refuses requests that have none of the scope's parts (P7).
    ScopeMissing,
    /// `Content-Digest` does not match the content (P11).
    DigestMismatch,
    /// The request is framed or addressed in a way that two parsers could read differently.
    RequestMalformed,
    /// The request's head is larger, or has more fields, than is accepted.
    HeadTooLarge,
    /// The request did not arrive in full in time.
    RequestTimeout,
    /// The first attempt is still under way.
    InProgress,
    /// The operation ran, but its answer was not kept (P32).
    ResponseUnavailable,
    /// The content of a keyed request is larger than the route takes (P20).
    BodyTooLarge,
    /// The key belongs to another request (P8).
    KeyReused,
    /// The key was used before and its answer is gone (P34).
    KeyExpired,
    /// The upstream could not be reached; nothing was sent (P21).
    UpstreamUnreachable,
    /// The upstream did not accept the connection in time; nothing was sent (P21, P45).
    UpstreamConnectTimeout,
    /// Nobody can know whether the operation happened (P22).
    OutcomeUnknown,
    /// The upstream failed under a request that hapax does not protect.
    UpstreamFailed,
    /// The upstream did not answer a request in time that hapax does not protect.
    UpstreamTimeout,
    /// The store cannot be asked, is full, or the record is damaged (P17, P36).
    StoreUnavailable,
    /// Too many operations are under way.
    Overloaded,
    /// The scope has as many records as it may (P36).
    QuotaExceeded,
    /// The operation failed inside its transaction, and all of it was rolled back (P37).
    RolledBack,
}

/// Whether it makes sense to send the same request again, with the same key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Retry {
    No,
    Yes,
    /// With `Retry-After`, by default this many seconds.
    After(u64),
}

impl ProblemKind {
    /// Every kind.
    pub const ALL: [Self; 21] = [
        Self::KeyMissing,
        Self::KeyInvalid,
        Self::ScopeMissing,
        Self::DigestMismatch,
        Self::RequestMalformed,
        Self::HeadTooLarge,
        Self::RequestTimeout,
        Self::InProgress,
        Self::ResponseUnavailable,
        Self::BodyTooLarge,
        Self::KeyReused,
        Self::KeyExpired,
        Self::UpstreamUnreachable,
        Self::UpstreamConnectTimeout,
        Self::OutcomeUnknown,
        Self::UpstreamFailed,
        Self::UpstreamTimeout,
        Self::StoreUnavailable,
        Self::Overloaded,
        Self::QuotaExceeded,
        Self::RolledBack,
    ];

    /// Fragment, status, retry advice and title: one row a kind.
    #[allow(clippy::too_many_lines, reason = "a table, one row a kind")]
    const fn row(self) -> (&'static str, StatusCode, Retry, &'static str) {
        use StatusCode as S;
        match self {
            Self::KeyMissing => (
                "key-missing",
                S::BAD_REQUEST,
                Retry::No,
                "This operation needs an idempotency key",
            ),
            Self::KeyInvalid => (
                "key-invalid",
                S::BAD_REQUEST,
                Retry::No,
                "The idempotency key cannot be used",
            ),
            Self::ScopeMissing => (
                "scope-missing",
                S::BAD_REQUEST,
                Retry::No,
                "This operation needs credentials that tell whose key it is",
            ),
            Self::DigestMismatch => (
                "digest-mismatch",
                S::BAD_REQUEST,
                Retry::No,
                "The content does not match its Content-Digest",
            ),
            Self::RequestMalformed => (
                "request-malformed",
                S::BAD_REQUEST,
                Retry::No,
                "The request is malformed",
            ),
            Self::HeadTooLarge => (
                "head-too-large",
                S::REQUEST_HEADER_FIELDS_TOO_LARGE,
                Retry::No,
                "The request's head is too large",
            ),
            Self::RequestTimeout => (
                "request-timeout",
                S::REQUEST_TIMEOUT,
                Retry::Yes,
                "The request did not arrive in time",
            ),
            Self::InProgress => (
                "in-progress",
                S::CONFLICT,
                Retry::After(1),
                "The first request with this idempotency key is still in progress",
            ),
            Self::ResponseUnavailable => (
                "response-unavailable",
                S::CONFLICT,
                Retry::No,
                "The operation ran, but its response was not kept",
            ),
            Self::BodyTooLarge => (
                "body-too-large",
                S::PAYLOAD_TOO_LARGE,
                Retry::No,
                "The content is too large",
            ),
            Self::KeyReused => (
                "key-reused",
                S::UNPROCESSABLE_ENTITY,
                Retry::No,
                "This idempotency key was used for another request",
            ),
            Self::KeyExpired => (
                "key-expired",
                S::UNPROCESSABLE_ENTITY,
                Retry::No,
                "This idempotency key was used before and has expired",
            ),
            Self::UpstreamUnreachable => (
                "upstream-unreachable",
                S::BAD_GATEWAY,
                Retry::Yes,
                "The upstream could not be reached; nothing was sent",
            ),
            Self::UpstreamConnectTimeout => (
                "upstream-unreachable",
                S::GATEWAY_TIMEOUT,
                Retry::Yes,
                "The upstream could not be reached in time; nothing was sent",
            ),
            Self::OutcomeUnknown => (
                "outcome-unknown",
                S::GATEWAY_TIMEOUT,
                Retry::No,
                "Nobody can know whether the operation happened",
            ),
            Self::UpstreamFailed => (
                "upstream-failed",
                S::BAD_GATEWAY,
                Retry::No,
                "The upstream failed",
            ),
            Self::UpstreamTimeout => (
                "upstream-failed",
                S::GATEWAY_TIMEOUT,
                Retry::No,
                "The upstream did not answer in time",
            ),
            Self::StoreUnavailable => (
                "store-unavailable",
                S::SERVICE_UNAVAILABLE,
                Retry::After(1),
                "The idempotency store is unavailable; nothing was executed",
            ),
            Self::Overloaded => (
                "overloaded",
                S::SERVICE_UNAVAILABLE,
                Retry::After(1),
                "Too many operations are under way; nothing was executed",
            ),
            // Not 503: it is this caller's doing, and no sign for a balancer that the gateway is ill.
            Self::QuotaExceeded => (
                "quota-exceeded",
                S::TOO_MANY_REQUESTS,
                Retry::After(1),
                "This caller has as many idempotency keys in use as it may; nothing was executed",
            ),
            Self::RolledBack => (
                "rolled-back",
                S::INTERNAL_SERVER_ERROR,
                Retry::Yes,
                "The operation failed and was rolled back; nothing has happened",
            ),
        }
    }

    /// The stable name: the fragment of `type`.
    pub const fn fragment(self) -> &'static str {
        self.row().0
    }

    /// The status of the answer.
    pub const fn status(self) -> StatusCode {
        self.row().1
    }

    /// Whether the same request with the same key may be sent again.
    pub const fn is_retryable(self) -> bool {
        !matches!(self.row().2, Retry::No)
    }

    /// The kind in a few words.
    pub const fn title(self) -> &'static str {
        self.row().3
    }

    /// The error type of `Proxy-Status` (RFC 9209 section 2.3) on a 502 or 504.
    const fn proxy_error(self) -> Option<&'static str> {
        match self {
            Self::UpstreamUnreachable => Some("destination_unavailable"),
            Self::UpstreamConnectTimeout => Some("connection_timeout"),
            Self::UpstreamTimeout => Some("http_response_timeout"),
            Self::OutcomeUnknown | Self::UpstreamFailed => Some("http_response_incomplete"),
            _ => None,
        }
    }
}

/// A problem of one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// What is wrong.
    pub kind: ProblemKind,
    /// What is wrong with this request, in a sentence; never another request's data.
    pub detail: Cow<'static, str>,
    /// Seconds after which a retry makes sense, where the kind has such a thing.
    retry_after: Option<u64>,
    is_retryable: bool,
}

impl Problem {
    /// A problem with a sentence about this request.
    pub fn new(kind: ProblemKind, detail: impl Into<Cow<'static, str>>) -> Self {
        let retry_after = match kind.row().2 {
            Retry::After(seconds) => Some(seconds),
            Retry::Yes | Retry::No => None,
        };
        Self {
            kind,
            detail: detail.into(),
            retry_after,
            is_retryable: kind.is_retryable(),
        }
    }

    /// Says that this request may be repeated although the kind in general may not: its method
    /// is idempotent (RFC 9110 section 9.2.2).
    #[must_use]
    pub fn retryable(self) -> Self {
        Self {
            is_retryable: true,
            ..self
        }
    }

    /// Says when a retry makes sense, in whole seconds and at least one, where the kind has such a thing.
    #[must_use]
    pub fn after(self, time: Duration) -> Self {
        let whole = time.as_secs() + u64::from(time.subsec_nanos() > 0);
        Self {
            retry_after: self.retry_after.map(|_| whole.max(1)),
            ..self
        }
    }

    /// The answer to send. It carries its [`ProblemKind`] as an extension, by which whoever hands it on tells it from a
    /// problem of the upstream.
    pub fn response(&self) -> Response<Bytes> {
        let (fragment, status, _, title) = self.kind.row();
        let mut body = String::from("{\"type\":");
        let member = |text: &str| {
            let mut out = Vec::new();
            Value::String(text.into()).write_canonical(&mut out);
            String::from_utf8(out).unwrap_or_default()
        };
        body.push_str(&member(&format!("{TYPE_BASE}#{fragment}")));
        body.push_str(&format!(",\"title\":{}", member(title)));
        body.push_str(&format!(",\"status\":{}", status.as_u16()));
        body.push_str(&format!(",\"detail\":{}", member(&self.detail)));
        body.push_str(&format!(",\"retryable\":{}", self.is_retryable));
        if let Some(seconds) = self.retry_after {
            body.push_str(&format!(",\"retry_after\":{seconds}"));
        }
        body.push('}');
        let mut response = Response::new(Bytes::from(body));
        *response.status_mut() = status;
        response.extensions_mut().insert(self.kind);
        let headers = response.headers_mut();
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        let link = format!("<{TYPE_BASE}#{fragment}>; rel=\"describedby\"");
        if let Ok(link) = HeaderValue::from_str(&link) {
            headers.insert(LINK, link);
        }
        if let Some(seconds) = self.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(error) = self.kind.proxy_error()
            && let Ok(value) = HeaderValue::from_str(&format!("hapax; error={error}"))
        {
            headers.insert(PROXY_STATUS, value);
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_json_with_its_type_and_advice() {
        let detail = "the key \"a\"\nis long";
        let response = Problem::new(ProblemKind::InProgress, detail).response();
        assert_eq!(response.status(), 409);
        assert_eq!(response.headers()["retry-after"], "1");
        assert_eq!(
            response.headers()["content-type"],
            "application/problem+json"
        );
        assert_eq!(response.headers()["cache-control"], "no-store");
        let body: serde_json::Value = serde_json::from_slice(response.body()).expect("JSON");
        assert_eq!(body["type"], "urn:hapax:problems#in-progress");
        assert_eq!(body["status"], 409);
        assert_eq!(body["detail"], detail);
        assert_eq!(body["retryable"], true);
        assert_eq!(body["retry_after"], 1);
    }

    #[test]
    fn statuses_and_advice_are_those_of_the_protocol() {
        for (fragment, status, is_retryable) in [
            ("key-missing", 400, false),
            ("key-invalid", 400, false),
            ("digest-mismatch", 400, false),
            ("in-progress", 409, true),
            ("response-unavailable", 409, false),
            ("body-too-large", 413, false),
            ("key-reused", 422, false),
            ("key-expired", 422, false),
            ("upstream-unreachable", 502, true),
            ("outcome-unknown", 504, false),
            ("store-unavailable", 503, true),
            ("quota-exceeded", 429, true),
        ] {
            let kind = ProblemKind::ALL
                .into_iter()
                .find(|kind| kind.fragment() == fragment)
                .expect("every kind is listed");
            assert_eq!(
                (kind.status().as_u16(), kind.is_retryable()),
                (status, is_retryable)
            );
        }
    }

    #[test]
    fn a_retry_makes_sense_after_whole_seconds() {
        let wait = |kind, millis| {
            let problem = Problem::new(kind, "").after(Duration::from_millis(millis));
            let response = problem.response();
            response.headers().get("retry-after").cloned()
        };
        for (millis, seconds) in [
            (0, "1"),
            (1, "1"),
            (1_000, "1"),
            (1_001, "2"),
            (90_000, "90"),
        ] {
            let said = wait(ProblemKind::QuotaExceeded, millis).expect("a time");
            assert_eq!(said, seconds, "{millis}");
        }
        assert_eq!(wait(ProblemKind::KeyMissing, 5_000), None);
    }

    #[test]
    fn an_answer_made_in_the_upstreams_place_says_so() {
        let response = Problem::new(ProblemKind::UpstreamUnreachable, "refused").response();
        assert_eq!(
            response.headers()["proxy-status"],
            "hapax; error=destination_unavailable"
        );
    }
}
