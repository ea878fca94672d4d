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

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use http::HeaderValue;

    use super::*;
    use crate::secret::Secret;

    const NAMES: [&str; 2] = ["authorization", "x-tenant"];

    fn of(secret: u8, names: &[&'static str], lines: &[(&'static str, &str)]) -> Scope {
        let keys = HashKeys::derive(&Secret::from_bytes([secret; 32]));
        let parts: Vec<_> = names
            .iter()
            .map(|name| ScopePart::Header(HeaderName::from_static(name)))
            .collect();
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            let value = HeaderValue::from_str(value).expect("a field value");
            headers.append(HeaderName::from_static(name), value);
        }
        scope_of(&keys, &parts, &headers)
    }

    #[test]
    fn callers_that_differ_in_any_part_have_different_scopes() {
        let callers: [&[(&str, &str)]; 14] = [
            &[],
            &[("authorization", "")],
            &[("authorization", "a")],
            &[("authorization", "A")],
            &[("authorization", "ab")],
            &[("authorization", "a"), ("authorization", "b")],
            &[("authorization", "b"), ("authorization", "a")],
            &[("authorization", "a, b")],
            &[("x-tenant", "a")],
            &[("authorization", "a"), ("x-tenant", "b")],
            &[("authorization", "b"), ("x-tenant", "a")],
            &[("authorization", "ab"), ("x-tenant", "")],
            // Values that look like the beginning of the next part.
            &[("authorization", "header"), ("authorization", "x-tenant")],
            &[("x-tenant", "header"), ("x-tenant", "x-tenant")],
        ];
        let scopes: HashSet<_> = callers
            .iter()
            .map(|lines| of(1, &NAMES, lines).id)
            .collect();
        assert_eq!(scopes.len(), callers.len());
        let lines = [("authorization", "a")];
        assert_ne!(of(1, &NAMES, &lines).id, of(2, &NAMES, &lines).id);
    }

    #[test]
    fn what_is_no_part_of_the_scope_makes_no_difference() {
        let one = [("authorization", "a"), ("user-agent", "x")];
        let other = [("user-agent", "y"), ("authorization", "a")];
        assert_eq!(of(1, &NAMES, &one), of(1, &NAMES, &other));
        assert_eq!(of(1, &[], &one), of(1, &[], &[]));
    }

    #[test]
    fn who_has_none_of_the_parts_is_anonymous_unless_there_are_none() {
        let is_anonymous = |names: &[&'static str], lines: &[(&'static str, &str)]| {
            of(1, names, lines).is_anonymous
        };
        assert!(is_anonymous(&NAMES, &[]));
        assert!(is_anonymous(&NAMES, &[("user-agent", "x")]));
        assert!(!is_anonymous(&NAMES, &[("x-tenant", "a")]));
        assert!(!is_anonymous(&NAMES, &[("authorization", "")]));
        assert!(!is_anonymous(&[], &[]));
    }

    #[test]
    fn a_scope_and_its_parts_are_shown_as_they_are_configured_and_stored() {
        let id = ScopeId::from_bytes([0xab; 16]);
        assert_eq!(id.as_bytes(), &[0xab; 16]);
        assert_eq!(id.to_string(), "ab".repeat(16));
        assert_eq!(format!("{id:?}"), "ab".repeat(16));
        let part = ScopePart::Header(HeaderName::from_static("x-tenant"));
        assert_eq!(part.to_string(), "header:x-tenant");
    }
}
