//! Parameters and content of calls, read within bounds; what makes no sense is a [`Problem`].

use std::time::Duration;

use axum::body::to_bytes;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::HeaderMap;
use axum::http::header::IF_MATCH;
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use hapax_core::operate::Version;
use hapax_core::time::Timestamp;

use super::problem::{Kind, Problem};

/// The largest content of a call: an answer of 1 MiB in base64 fits.
const MAX_CONTENT: usize = 2 * 1024 * 1024;
/// The longest reason that is written down.
const MAX_REASON: usize = 1_000;

/// The query of a call.
#[derive(Debug)]
pub(super) struct Params<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        Query::try_from_uri(&parts.uri)
            .map(|Query(value)| Self(value))
            .map_err(|error| malformed(format!("The query makes no sense: {}.", root(&error))))
    }
}

/// The last segment of a record's path: an id, with or without an action.
#[derive(Debug)]
pub(super) struct Target(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for Target {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = Path::<String>::from_request_parts(parts, state).await;
        path.map(|Path(target)| Self(target))
            .map_err(|_| Problem::new(Kind::NoSuchRecord, "That is not the id of a record."))
    }
}

/// The content of a call: JSON.
#[derive(Debug)]
pub(super) struct Content<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Content<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Problem> {
        let content = to_bytes(request.into_body(), MAX_CONTENT).await;
        let content = content.map_err(|_| {
            let detail = format!("The content is cut short or over {MAX_CONTENT} bytes.");
            Problem::new(Kind::TooLarge, detail)
        })?;
        // The error's text has names and places, and can have values: those may be keys.
        serde_json::from_slice(&content).map(Self).map_err(|error| {
            let (line, column) = (error.line(), error.column());
            let what = match error.classify() {
                serde_json::error::Category::Data => "The content is JSON of another shape",
                _ => "The content is not JSON",
            };
            malformed(format!("{what}: line {line}, column {column}."))
        })
    }
}

fn root(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

pub(super) fn malformed(detail: impl Into<std::borrow::Cow<'static, str>>) -> Problem {
    Problem::new(Kind::Malformed, detail)
}

/// The version that `If-Match` names (RFC 9110 section 13.1.1), against the present one (P49).
pub(super) fn check_version(headers: &HeaderMap, present: Version) -> Result<(), Problem> {
    let mut lines = headers.get_all(IF_MATCH).iter().peekable();
    if lines.peek().is_none() {
        let detail = "Send If-Match with the version that you have seen, in quotes.";
        return Err(Problem::new(Kind::VersionMissing, detail));
    }
    let present = present.to_string();
    let matches = lines
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(','))
        .any(|tag| tag.trim().trim_matches('"') == present);
    if matches {
        return Ok(());
    }
    Err(stale())
}

pub(super) fn stale() -> Problem {
    let detail = "The record has changed since you saw it. Look again, then decide again.";
    Problem::new(Kind::VersionStale, detail)
}

/// A reason: some text, on one line.
pub(super) fn reason(text: &str) -> Result<String, Problem> {
    let text = text.trim();
    if text.is_empty() {
        return Err(malformed(
            "`reason` is empty: say why, for whoever reads the audit log.",
        ));
    }
    if text.chars().count() > MAX_REASON || text.chars().any(char::is_control) {
        let detail = "`reason` is one line of at most 1000 characters.";
        return Err(malformed(detail));
    }
    Ok(text.to_owned())
}

/// A duration with a unit, such as `15m`.
pub(super) fn duration(name: &str, text: &str) -> Result<Duration, Problem> {
    humantime::parse_duration(text)
        .map_err(|_| malformed(format!("`{name}` is a duration such as 15m.")))
}

/// An instant: RFC 3339, or how long ago (`15m`).
pub(super) fn instant(name: &str, text: &str, now: Timestamp) -> Result<Timestamp, Problem> {
    if let Ok(ago) = humantime::parse_duration(text) {
        let ago = u64::try_from(ago.as_millis()).unwrap_or(u64::MAX);
        return Ok(Timestamp::from_millis(now.as_millis().saturating_sub(ago)));
    }
    let at = humantime::parse_rfc3339_weak(text).ok();
    at.and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok())
        .and_then(|since| u64::try_from(since.as_millis()).ok())
        .map(Timestamp::from_millis)
        .ok_or_else(|| {
            malformed(format!(
                "`{name}` is an instant such as 2026-01-31T12:00:00Z, or how long ago, such as 15m."
            ))
        })
}

/// How many are wanted: 1 to `most`.
pub(super) fn limit(asked: Option<usize>, default: usize, most: usize) -> Result<usize, Problem> {
    match asked.unwrap_or(default) {
        limit if (1..=most).contains(&limit) => Ok(limit),
        _ => Err(malformed(format!("`limit` is 1 to {most}."))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instant_is_a_date_or_how_long_ago() {
        let now = Timestamp::from_millis(2_000_000);
        let of = |text| instant("since", text, now).map(Timestamp::as_millis).ok();
        assert_eq!(of("1970-01-01T00:00:05Z"), Some(5_000));
        assert_eq!(of("15m"), Some(1_100_000));
        assert_eq!(of("10 years"), Some(0));
        for text in ["", "yesterday", "1960-01-01T00:00:00Z", "-5m"] {
            assert_eq!(of(text), None, "{text}");
        }
    }

    #[test]
    fn a_reason_is_one_line_that_says_something() {
        assert_eq!(
            reason(" the order is there ").unwrap(),
            "the order is there"
        );
        let long = "x".repeat(MAX_REASON + 1);
        for text in ["", "  \n", "a\nb", &long] {
            assert!(reason(text).is_err(), "{text}");
        }
    }
}
