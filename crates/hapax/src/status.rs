//! `hapax status`: what a running gateway says of itself, for people.

use std::fmt::Write;

use serde_json::Value;

/// The answer for people.
pub(crate) fn as_text(status: &Value) -> String {
    let mut out = String::new();
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        Value::Null => "-".to_owned(),
        other => other.to_string(),
    };
    let mut line = |name: &str, value: String| {
        // Writing to a string does not fail.
        let _ = writeln!(out, "{name:<20} {value}");
    };
    let of = |name: &str| text(status.get(name).unwrap_or(&Value::Null));
    let store = status.get("store").unwrap_or(&Value::Null);
    let of_store = |name: &str| text(store.get(name).unwrap_or(&Value::Null));
    line(
        "state",
        format!(
            "{}, version {}, up {} s",
            of("state"),
            of("version"),
            of("uptime_s")
        ),
    );
    line(
        "gateway",
        format!("{} -> {}", of("gateway"), of("upstream")),
    );
    line("duplicates stopped", of("duplicates_stopped"));
    line("under way", of("under_way"));
    line(
        "store",
        format!("{}, {}", of_store("kind"), of_store("durability")),
    );
    line("at failover", of_store("at_failover"));
    if store
        .get("failure")
        .is_some_and(|failure| !failure.is_null())
    {
        line("store failure", of_store("failure"));
    }
    line(
        "records",
        format!("{} in {} bytes", of_store("records"), of_store("bytes")),
    );
    line("outstanding", of_store("outstanding"));
    let age = of_store("unknown_oldest_age_s");
    let unknown = of_store("unknown");
    let oldest = if age == "-" {
        String::new()
    } else {
        format!(", the oldest for {age} s")
    };
    line("unknown", format!("{unknown}{oldest}"));
    line("damaged", of_store("damaged"));
    if let Some(error) = status.pointer("/reload/error") {
        line("last reload", format!("failed: {}", text(error)));
    }
    if let Some(Value::Object(requests)) = status.get("requests") {
        for (outcome, count) in requests
            .iter()
            .filter(|(_, count)| count.as_u64() != Some(0))
        {
            line(&format!("requests {outcome}"), count.to_string());
        }
    }
    out
}
