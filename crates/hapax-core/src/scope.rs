//! Who sent a key (P7). Two scopes never see each other's records.

use std::fmt;

use http::{HeaderMap, HeaderName};

use crate::secret::{HashKeys, truncated, update_framed, write_hex};

/// One part of a request that tells callers apart.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ScopePart {
    /// `header:NAME`: every value of a header field, in order.
    Header(HeaderName),
}

impl fmt::Display for ScopePart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header(name) => write!(f, "header:{name}"),
        }
    }
}

/// A keyed hash of the scope's parts: what a record carries instead of credentials.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ScopeId([u8; 16]);

impl ScopeId {
    /// Takes the bytes from a stored record.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The bytes.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for ScopeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

impl fmt::Debug for ScopeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

/// Who sent a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scope {
    /// The hash of all parts.
    pub id: ScopeId,
    /// Whether the request has none of the parts. With no parts configured (`none`), nobody is
    /// anonymous: sharing was written out.
    pub is_anonymous: bool,
}

/// Works out the scope of a request. An empty value is not an absent one (P53).
pub fn scope_of(keys: &HashKeys, parts: &[ScopePart], headers: &HeaderMap) -> Scope {
    let mut hasher = blake3::Hasher::new_keyed(&keys.scope);
    let mut found = 0usize;
    for part in parts {
        match part {
            ScopePart::Header(name) => {
                update_framed(&mut hasher, b"header");
                update_framed(&mut hasher, name.as_str().as_bytes());
                let values = headers.get_all(name);
                let count = values.iter().count();
                hasher.update(&(count as u64).to_le_bytes());
                for value in values {
                    update_framed(&mut hasher, value.as_bytes());
                }
                found += count;
            }
        }
    }
    Scope {
        id: ScopeId(truncated(&hasher.finalize())),
        is_anonymous: found == 0 && !parts.is_empty(),
    }
}
