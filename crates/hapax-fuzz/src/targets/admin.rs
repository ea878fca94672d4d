//! What operators write into calls of the admin API.

#[allow(dead_code, unreachable_pub, reason = "the binary uses all of it")]
#[rustfmt::skip]
#[path = "../../../hapax/src/admin/input.rs"]
mod input;
#[allow(dead_code, unreachable_pub, reason = "the binary uses all of it")]
#[rustfmt::skip]
#[path = "../../../hapax/src/admin/problem.rs"]
mod problem;

use axum::extract::Query;
use axum::http::header::IF_MATCH;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri};
use serde::Deserialize;

use hapax_core::key::RecordKey;
use hapax_core::operate::Version;
use hapax_core::record::Held;
use hapax_core::time::Timestamp;

use super::codec::record_of;
use super::pieces::Pieces;

pub(crate) const WORDS: &[&str] = &[
    "15m",
    "1h",
    "0s",
    "-5m",
    "99999999999999y",
    "18446744073709551615ms",
    "2026-01-31T12:00:00Z",
    "1960-01-01T00:00:00Z",
    "9999-12-31T23:59:59.999999999Z",
    "\"",
    "W/",
    "*",
    ",",
    " ",
    "\n",
    "\u{0}",
    "\u{e9}",
    "state=",
    "unknown",
    "limit=",
    "500",
    "501",
    "0",
    "-1",
    "&",
    "=",
    "%41",
    "%",
    "%ff",
    "since=",
    "0123456789abcdef0123456789abcdef",
    "+",
    "route=POST+/orders",
];

/// A query as calls have it.
#[derive(Debug, Deserialize)]
struct Asked {
    since: Option<String>,
    limit: Option<usize>,
    after: Option<String>,
}

/// Whatever an operator writes is understood within bounds or refused as the operator's own mistake: never an answer of
/// 5xx, which would say that hapax is broken.
pub fn admin(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let now = Timestamp::from_millis(1_800_000_000_000);
    since(&text, now);
    match input::reason(&text) {
        Ok(kept) => {
            assert!(
                !kept.is_empty()
                    && kept.chars().count() <= 1_000
                    && !kept.contains(char::is_control)
            );
            assert_eq!(
                input::reason(&kept).ok().as_ref(),
                Some(&kept),
                "a reason is one already"
            );
        }
        Err(problem) => blames_the_caller(&problem),
    }
    if let Err(problem) = input::duration("wait", &text) {
        blames_the_caller(&problem);
    }
    if let Ok(id) = text.parse::<RecordKey>() {
        assert_eq!(
            id.to_string(),
            text.to_ascii_lowercase(),
            "an id is written as it was read"
        );
    }
    if let Ok(value) = HeaderValue::from_bytes(data) {
        version(value);
    }
    if let Ok(uri) = format!("/api/v1/records?{text}").parse::<Uri>()
        && let Ok(Query(asked)) = Query::<Asked>::try_from_uri(&uri)
    {
        match input::limit(asked.limit, 50, 500) {
            Ok(limit) => assert!((1..=500).contains(&limit)),
            Err(problem) => blames_the_caller(&problem),
        }
        asked.since.iter().for_each(|text| since(text, now));
        if let Some(Ok(id)) = asked.after.map(|text| text.parse::<RecordKey>()) {
            assert_eq!(id.to_string().len(), 32);
        }
    }
}

fn since(text: &str, now: Timestamp) {
    match input::instant("since", text, now) {
        // What stays within the years of four digits is shown, and read back, the same.
        Ok(at) if at.as_millis() < 253_402_300_800_000 => {
            let again = input::instant("since", &at.to_string(), now).ok();
            let seconds = |at: Timestamp| at.as_millis() / 1_000;
            assert_eq!(again.map(seconds), Some(seconds(at)), "{at}");
        }
        Ok(_) => {}
        Err(problem) => blames_the_caller(&problem),
    }
}

/// `If-Match` fits when it names the version, and only then.
fn version(value: HeaderValue) {
    let present = Version::of(&Held {
        record: record_of(&mut Pieces(&[])),
        claimed_at: Timestamp::from_millis(0),
        written_at: Timestamp::from_millis(0),
    });
    let names_it = String::from_utf8_lossy(value.as_bytes()).contains(&present.to_string());
    let mut headers = HeaderMap::new();
    headers.insert(IF_MATCH, value);
    match input::check_version(&headers, present) {
        Ok(()) => assert!(names_it),
        Err(problem) => blames_the_caller(&problem),
    }
}

fn blames_the_caller(problem: &problem::Problem) {
    let status: StatusCode = problem.kind.status();
    assert!(status.is_client_error(), "{status}");
}
