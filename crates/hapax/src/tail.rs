//! `hapax tail`: what happens in a gateway, as it happens.

use std::fmt::Write as _;

use clap::Args;
use serde_json::Value;

use crate::cli::{Output, print};
use crate::failure::{Exit, Failure};
use crate::paint::{Colour, paint};
use crate::remote::{Remote, encoded};

/// `hapax tail`.
#[derive(Debug, Args)]
pub(crate) struct TailFlags {
    /// Names of events with commas, such as answered,became_unknown.
    #[arg(long, value_name = "NAMES")]
    types: Option<String>,
    /// One route only, as it is configured.
    #[arg(long)]
    route: Option<String>,
    /// One record only.
    #[arg(long, value_name = "ID")]
    record: Option<String>,
    /// End after so many events.
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
}

/// Prints events until the gateway ends, or as many as are wanted.
pub(crate) fn run(remote: &Remote, tail: &TailFlags, output: Output) -> Result<Exit, Failure> {
    let mut target = String::from("/api/v1/events?");
    for (name, value) in [
        ("types", &tail.types),
        ("route", &tail.route),
        ("record", &tail.record),
    ] {
        if let Some(value) = value {
            let _ = write!(target, "{name}={}&", encoded(value));
        }
    }
    let mut left = tail.limit.unwrap_or(u64::MAX);
    let mut name = String::new();
    for line in remote.lines(target.trim_end_matches(['?', '&']))? {
        let line = line.map_err(Failure::Stream)?;
        if let Some(event) = line.strip_prefix("event: ") {
            name = event.to_owned();
        }
        let Some(data) = line.strip_prefix("data: ").filter(|_| name != "hello") else {
            continue;
        };
        match output {
            Output::Json => print(&format!("{data}\n"))?,
            Output::Text => print(&line_of(&name, data))?,
        };
        // What is about the stream itself does not count.
        left -= u64::from(name != "lag" && name != "reset");
        if left == 0 {
            return Ok(Exit::Ok);
        }
    }
    let ended = std::io::Error::other("the gateway ended the stream");
    Err(Failure::Stream(ended))
}

fn line_of(name: &str, data: &str) -> String {
    let event: Value = serde_json::from_str(data).unwrap_or_default();
    let text = |member: &str| match event.get(member) {
        Some(Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
        None => String::new(),
    };
    let colour = match (name, text("outcome").as_str()) {
        ("became_unknown" | "lag" | "settlement_abandoned", _) | (_, "unknown") => Colour::Bad,
        (_, "replayed" | "rejected_replayed") => Colour::Good,
        (_, "mismatch" | "in_progress") | ("operator", _) => Colour::Warning,
        _ => Colour::Plain,
    };
    let mut out = format!(
        "{:<24}  {}",
        text("at"),
        paint(colour, &format!("{name:<16}"))
    );
    for member in [
        "outcome", "status", "state", "reason", "action", "attempt", "missed", "because",
        "took_ms", "route", "record",
    ] {
        let value = text(member);
        if !value.is_empty() {
            let _ = write!(out, " {member}={value}");
        }
    }
    out.push('\n');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line() {
        let data =
            r#"{"at":"2026","event":"answered","record":"ab","outcome":"replayed","status":201}"#;
        let line = line_of("answered", data);
        assert!(
            line.contains("outcome=replayed status=201 record=ab"),
            "{line}"
        );
        assert_eq!(line.matches('\n').count(), 1);
    }
}
