//! Tokens and roles: read from a file that only its owner may read, compared in constant time.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::http::{HeaderMap, header};
use subtle::{Choice, ConstantTimeEq};

/// The longest token, in bytes; all are compared at this length.
const MAX_TOKEN: usize = 255;
/// Shorter ones can be guessed over a network.
const MIN_TOKEN: usize = 16;
const MAX_TOKENS: usize = 100;
const MAX_FILE: u64 = 64 * 1024;
/// Permission bits that let others than the owner at the file.
const OTHERS: u32 = 0o077;

/// How far a caller may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Role {
    /// May read everything but stored content.
    Viewer,
    /// May also read stored content, and settle, release and expire records.
    Operator,
}

impl Role {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
        }
    }
}

/// Who calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Caller {
    /// As the audit log has it.
    pub(crate) name: Arc<str>,
    pub(crate) role: Role,
}

impl Caller {
    /// Whoever reaches a loopback address that has no tokens.
    pub(super) fn local() -> Self {
        Self {
            name: "local".into(),
            role: Role::Operator,
        }
    }

    /// Whoever asks for what needs no token.
    pub(super) fn nobody() -> Self {
        Self {
            name: "nobody".into(),
            role: Role::Viewer,
        }
    }
}

/// The tokens of a file.
pub(crate) struct Tokens(Vec<Token>);

struct Token {
    caller: Caller,
    secret: Padded,
}

/// A token at its full length, so that comparing tells nothing of how long it is.
struct Padded {
    bytes: [u8; MAX_TOKEN + 1],
    len: u64,
}

impl Padded {
    fn new(text: &str) -> Option<Self> {
        let mut bytes = [0; MAX_TOKEN + 1];
        let room = bytes.get_mut(..text.len())?;
        room.copy_from_slice(text.as_bytes());
        let len = text.len() as u64;
        Some(Self { bytes, len })
    }

    fn is(&self, other: &Self) -> Choice {
        self.bytes.ct_eq(&other.bytes) & self.len.ct_eq(&other.len)
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tokens({})", self.0.len())
    }
}

/// Why a token file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TokenFileError {
    /// It cannot be read.
    #[error("cannot read the token file {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Others than its owner may read or write it.
    #[error("the token file {} is open to others than its owner (mode {mode:03o}): chmod 600 it", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A line of it makes no sense.
    #[error("{}:{line}: {what}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// From 1; 0 for the whole file.
        line: usize,
        /// What is wrong; never the token.
        what: &'static str,
    },
}

impl Tokens {
    /// Reads a token file.
    pub(crate) fn read(path: &Path) -> Result<Self, TokenFileError> {
        let failed = |source| TokenFileError::Read {
            path: path.to_owned(),
            source,
        };
        let file = File::open(path).map_err(failed)?;
        // Of the file that is open, not of whatever has the name by now.
        let mode = file.metadata().map_err(failed)?.permissions().mode() & 0o777;
        if mode & OTHERS != 0 {
            let path = path.to_owned();
            return Err(TokenFileError::Open { path, mode });
        }
        let mut text = String::new();
        file.take(MAX_FILE)
            .read_to_string(&mut text)
            .map_err(failed)?;
        Self::parse(&text).map_err(|(line, what)| TokenFileError::Line {
            path: path.to_owned(),
            line,
            what,
        })
    }

    fn parse(text: &str) -> Result<Self, (usize, &'static str)> {
        let mut tokens = Vec::new();
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let token = parse_line(number, line).map_err(|what| (number, what))?;
            tokens.push(token);
            if tokens.len() > MAX_TOKENS {
                return Err((number, "there are more than 100 tokens"));
            }
        }
        if tokens.is_empty() {
            return Err((0, "there is no token in it"));
        }
        Ok(Self(tokens))
    }

    /// Whose token a request carries. Every token is compared, whichever fits.
    pub(super) fn caller_of(&self, headers: &HeaderMap) -> Option<Caller> {
        let mut lines = headers.get_all(header::AUTHORIZATION).iter();
        let (Some(value), None) = (lines.next(), lines.next()) else {
            return None;
        };
        let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let given = Padded::new(token.trim())?;
        let mut found = None;
        for token in &self.0 {
            if bool::from(token.secret.is(&given)) {
                found = Some(&token.caller);
            }
        }
        found.cloned()
    }
}

/// `ROLE:TOKEN` or `ROLE:NAME:TOKEN`; a line without a colon is an operator's token.
fn parse_line(number: usize, line: &str) -> Result<Token, &'static str> {
    let parts: Vec<&str> = line.split(':').collect();
    let (role, name, secret) = match parts.as_slice() {
        [secret] => ("operator", None, *secret),
        [role, secret] => (*role, None, *secret),
        [role, name, secret] => (*role, Some(*name), *secret),
        _ => return Err("a line is ROLE:TOKEN or ROLE:NAME:TOKEN"),
    };
    let role = match role {
        "viewer" => Role::Viewer,
        "operator" => Role::Operator,
        _ => return Err("the roles are viewer and operator"),
    };
    if !secret.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("a token is visible ASCII without spaces and colons");
    }
    if secret.len() < MIN_TOKEN {
        return Err("a token has at least 16 characters: openssl rand -hex 32 makes a good one");
    }
    let is_name = |name: &str| {
        let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.@".contains(&byte);
        !name.is_empty() && name.len() <= 64 && name.bytes().all(is_letter)
    };
    let name = match name {
        None => format!("{} in line {number}", role.as_str()),
        Some(name) if is_name(name) => name.to_owned(),
        Some(_) => return Err("a name is 1 to 64 letters, digits, -, _, . or @"),
    };
    let secret = Padded::new(secret).filter(|secret| secret.len <= MAX_TOKEN as u64);
    Ok(Token {
        caller: Caller {
            name: name.into(),
            role,
        },
        secret: secret.ok_or("a token has at most 255 characters")?,
    })
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    const FILE: &str = "# who looks\nviewer:0123456789abcdef\n\noperator:ann:fedcba9876543210\n0123456789abcdefx\n";

    fn caller(value: &'static str) -> Option<(String, Role)> {
        let tokens = Tokens::parse(FILE).expect("a token file");
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, HeaderValue::from_static(value));
        let caller = tokens.caller_of(&headers)?;
        Some((caller.name.to_string(), caller.role))
    }

    #[test]
    fn a_token_names_its_caller_and_role() {
        let viewer = Some(("viewer in line 2".to_owned(), Role::Viewer));
        assert_eq!(caller("Bearer 0123456789abcdef"), viewer);
        let ann = Some(("ann".to_owned(), Role::Operator));
        assert_eq!(caller("bearer fedcba9876543210"), ann);
        let bare = Some(("operator in line 5".to_owned(), Role::Operator));
        assert_eq!(caller("Bearer 0123456789abcdefx"), bare);
    }

    #[test]
    fn what_is_not_exactly_a_token_is_nobodys() {
        for value in [
            "Bearer 0123456789abcde",
            "Bearer 0123456789abcdeg",
            "Bearer ",
            "Basic 0123456789abcdef",
            "0123456789abcdef",
        ] {
            assert_eq!(caller(value), None, "{value}");
        }
    }

    #[test]
    fn a_faulty_line_is_named_and_its_token_is_not() {
        for (text, line) in [
            ("", 0),
            ("# nothing\n", 0),
            ("viewer:short\n", 1),
            ("\nadmin:0123456789abcdef\n", 2),
            ("viewer:a b:0123456789abcdef\n", 1),
            ("viewer:x:0123456789abcdef:y\n", 1),
            ("viewer:0123456789 abcdef\n", 1),
        ] {
            let (found, what) = Tokens::parse(text).expect_err("faulty");
            assert_eq!(found, line, "{text}");
            assert!(!what.contains("0123456789"));
        }
        let long = format!("viewer:{}\n", "x".repeat(MAX_TOKEN + 1));
        assert!(Tokens::parse(&long).is_err());
    }
}
