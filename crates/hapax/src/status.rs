//! `hapax status`: asks a running gateway how it is.

use std::fmt::Write;
use std::io::{Read, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

/// How long the gateway may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// The largest answer that is read.
const MAX_ANSWER: u64 = 4 * 1024 * 1024;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StatusError {
    /// Nobody answers.
    #[error("nothing answers at {admin}: {source}")]
    Unreachable {
        /// The admin listener.
        admin: SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
    /// Somebody else answers.
    #[error("what answers at {0} is not the admin listener of hapax")]
    NotHapax(SocketAddr),
}

/// Asks for `/api/v1/status`.
pub(crate) fn ask(admin: SocketAddr) -> Result<Value, StatusError> {
    let answer = fetch(admin).map_err(|source| StatusError::Unreachable { admin, source })?;
    let not_hapax = || StatusError::NotHapax(admin);
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(not_hapax)?;
    if !head.starts_with("HTTP/1.0 200") && !head.starts_with("HTTP/1.1 200") {
        return Err(not_hapax());
    }
    serde_json::from_str(body).map_err(|_| not_hapax())
}

/// HTTP/1.0: the answer ends with the connection, in one piece.
fn fetch(admin: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&admin, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    write!(
        stream,
        "GET /api/v1/status HTTP/1.0\r\nHost: {admin}\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.take(MAX_ANSWER).read_to_string(&mut answer)?;
    Ok(answer)
}

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
