//! Calls of a running gateway's admin API, for the commands that are its clients.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use crate::failure::Exit;

/// How long the gateway may take to take a connection and a call, and to answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// The largest answer that is read.
const MAX_ANSWER: u64 = 16 * 1024 * 1024;
/// The largest file with a token.
const MAX_TOKEN_FILE: u64 = 64 * 1024;

/// Why a call came to nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RemoteError {
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
    /// The gateway refuses.
    #[error("{detail} ({kind})")]
    Refused {
        /// The kind of the problem.
        kind: String,
        /// What is wrong, in a sentence.
        detail: String,
    },
    /// The token cannot be read.
    #[error("cannot read a token from {}: {source}", path.display())]
    Token {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
}

impl RemoteError {
    /// The exit code.
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Refused { kind, .. } => match kind.as_str() {
                "no-such-record" | "inapplicable" | "version-stale" => Exit::Finding,
                "malformed" | "too-large" | "version-missing" => Exit::Usage,
                "reload-failed" => Exit::Configuration,
                _ => Exit::Unreachable,
            },
            _ => Exit::Unreachable,
        }
    }
}

/// A gateway's admin listener, and what lets us in.
#[derive(Debug)]
pub(crate) struct Remote {
    admin: SocketAddr,
    token: Option<String>,
}

/// A call: `POST` with content, else `GET`.
#[derive(Debug, Default)]
pub(crate) struct Call<'a> {
    /// Path and query.
    pub(crate) target: &'a str,
    /// What is sent.
    pub(crate) content: Option<&'a Value>,
    /// The version of the record that was seen.
    pub(crate) version: Option<&'a str>,
}

impl Remote {
    /// A listener. An address that stands for all of a machine's is called on loopback.
    pub(crate) fn new(admin: SocketAddr, token_file: Option<&Path>) -> Result<Self, RemoteError> {
        let ip = match admin.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        Ok(Self {
            admin: SocketAddr::new(ip, admin.port()),
            token: token_file.map(read_token).transpose()?,
        })
    }

    /// What `GET` of `target` answers.
    pub(crate) fn get(&self, target: &str) -> Result<Value, RemoteError> {
        self.call(&Call {
            target,
            ..Call::default()
        })
    }

    /// What a call answers.
    pub(crate) fn call(&self, call: &Call<'_>) -> Result<Value, RemoteError> {
        let (status, mut body) = self.open(call)?;
        let mut text = String::new();
        let not_hapax = || RemoteError::NotHapax(self.admin);
        let read = body.by_ref().take(MAX_ANSWER).read_to_string(&mut text);
        read.map_err(|source| self.unreachable(source))?;
        let json: Value = serde_json::from_str(&text).map_err(|_| not_hapax())?;
        if status == 200 {
            return Ok(json);
        }
        Err(refusal(&json).ok_or_else(not_hapax)?)
    }

    /// What a call answers as it comes, line by line.
    pub(crate) fn lines(
        &self,
        target: &str,
    ) -> Result<impl Iterator<Item = std::io::Result<String>>, RemoteError> {
        let (status, mut body) = self.open(&Call {
            target,
            ..Call::default()
        })?;
        if status != 200 {
            let mut text = String::new();
            let _ = body.by_ref().take(MAX_ANSWER).read_to_string(&mut text);
            let json: Value = serde_json::from_str(&text).unwrap_or_default();
            return Err(refusal(&json).unwrap_or(RemoteError::NotHapax(self.admin)));
        }
        Ok(body.lines())
    }

    fn unreachable(&self, source: std::io::Error) -> RemoteError {
        let admin = self.admin;
        RemoteError::Unreachable { admin, source }
    }

    /// Sends a call over HTTP/1.0, whose answer ends with the connection, and reads the head.
    fn open(&self, call: &Call<'_>) -> Result<(u16, BufReader<TcpStream>), RemoteError> {
        let mut reader = self.send(call).map_err(|source| self.unreachable(source))?;
        let (mut line, mut status) = (String::new(), None);
        loop {
            line.clear();
            let read = reader.by_ref().take(64 * 1024).read_line(&mut line);
            read.map_err(|source| self.unreachable(source))?;
            if line.trim_end().is_empty() {
                break;
            }
            status = status.or_else(|| {
                let rest = line.strip_prefix("HTTP/1.")?.get(2..5)?;
                rest.parse().ok()
            });
        }
        let status = status.ok_or(RemoteError::NotHapax(self.admin))?;
        Ok((status, reader))
    }

    fn send(&self, call: &Call<'_>) -> std::io::Result<BufReader<TcpStream>> {
        let mut stream = TcpStream::connect_timeout(&self.admin, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let method = if call.content.is_some() {
            "POST"
        } else {
            "GET"
        };
        let mut head = format!(
            "{method} {} HTTP/1.0\r\nHost: {}\r\n",
            call.target, self.admin
        );
        if let Some(token) = &self.token {
            head.push_str(&format!("Authorization: Bearer {token}\r\n"));
        }
        if let Some(version) = call.version {
            head.push_str(&format!("If-Match: \"{version}\"\r\n"));
        }
        let content = call.content.map(Value::to_string).unwrap_or_default();
        if call.content.is_some() {
            let length = content.len();
            head.push_str("Content-Type: application/json\r\n");
            head.push_str(&format!("Content-Length: {length}\r\n"));
        }
        stream.write_all(format!("{head}\r\n{content}").as_bytes())?;
        Ok(BufReader::new(stream))
    }
}

fn refusal(problem: &Value) -> Option<RemoteError> {
    let kind = problem.get("type")?.as_str()?;
    let kind = kind.strip_prefix("urn:hapax:admin:problems#")?;
    let detail = problem.get("detail")?.as_str()?;
    Some(RemoteError::Refused {
        kind: kind.to_owned(),
        detail: detail.trim_end_matches('.').to_owned(),
    })
}

/// The first operator's token of a file, else its first: a file with one token, or the gateway's
/// own.
fn read_token(path: &Path) -> Result<String, RemoteError> {
    let failed = |source| RemoteError::Token {
        path: path.to_owned(),
        source,
    };
    let mut text = String::new();
    let file = File::open(path).map_err(failed)?;
    file.take(MAX_TOKEN_FILE)
        .read_to_string(&mut text)
        .map_err(failed)?;
    let lines = text.lines().map(str::trim);
    let lines: Vec<&str> = lines
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .collect();
    let is_operator = |line: &&&str| !line.contains(':') || line.starts_with("operator:");
    let line = lines.iter().find(is_operator).or_else(|| lines.first());
    let token = line.and_then(|line| line.rsplit(':').next());
    token
        .filter(|token| token.bytes().all(|byte| byte.is_ascii_graphic()))
        .map(str::to_owned)
        .ok_or_else(|| failed(std::io::Error::other("there is no token in it")))
}

/// A value as it stands in a query (RFC 3986 section 3.4).
pub(crate) fn encoded(value: &str) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(value.len());
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_operators_token_of_a_file_is_used() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("t");
        for (text, expected) in [
            ("abc\n", Some("abc")),
            ("# x\nviewer:v\noperator:ann:o\n", Some("o")),
            ("viewer:v\n", Some("v")),
            ("\n", None),
            ("a\tb\n", None),
        ] {
            std::fs::write(&path, text).expect("room");
            assert_eq!(read_token(&path).ok().as_deref(), expected, "{text:?}");
        }
        assert!(read_token(Path::new("/nonexistent")).is_err());
    }

    #[test]
    fn a_value_in_a_query_is_encoded() {
        assert_eq!(
            encoded("POST /v1/{id}&x=ä"),
            "POST%20%2Fv1%2F%7Bid%7D%26x%3D%C3%A4"
        );
    }
}
