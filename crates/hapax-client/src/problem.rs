//! The members of a problem (RFC 9457) that a client acts on.

use std::time::Duration;

use http::HeaderMap;
use http::header::CONTENT_TYPE;
use serde_json::Value;

/// What a problem says; empty where the answer is none.
#[derive(Debug, Default)]
pub(crate) struct Problem {
    /// What follows the last `#` or `/` of its type.
    pub(crate) kind: String,
    pub(crate) is_retryable: Option<bool>,
    pub(crate) retry_after: Option<Duration>,
}

/// Whether the content is `application/problem+json`; only then is it looked at.
pub(crate) fn is_problem(fields: &HeaderMap) -> bool {
    fields
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .is_some_and(|essence| {
            essence
                .trim()
                .eq_ignore_ascii_case("application/problem+json")
        })
}

/// Reads a problem. Whatever is not one, or a member of the wrong type, says nothing.
pub(crate) fn read(fields: &HeaderMap, body: &[u8]) -> Problem {
    if !is_problem(fields) {
        return Problem::default();
    }
    let Ok(Value::Object(members)) = serde_json::from_slice::<Value>(body) else {
        return Problem::default();
    };
    let kind = members.get("type").and_then(Value::as_str).unwrap_or("");
    let retry_after = members
        .get("retry_after")
        .and_then(Value::as_f64)
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    Problem {
        kind: kind.rsplit(['#', '/']).next().unwrap_or("").to_owned(),
        is_retryable: members.get("retryable").and_then(Value::as_bool),
        retry_after: retry_after.map(crate::backoff::whole_millis),
    }
}
