//! What makes two requests the same (P8–P10).

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, IF_MATCH, IF_NONE_MATCH};
use http::{HeaderMap, HeaderName, Method};

use crate::json::{self, Value};
use crate::policy::{ContentMode, Policy};
use crate::secret::{HashKeys, truncated, update_framed};

/// Members of a JSON object beyond this many are compared but not named.
const MAX_OUTLINED_MEMBERS: usize = 32;

/// Keyed digest of a request, with an outline by which a mismatch can be named.
///
/// Only the digest decides. The outline holds 32 bits a part: enough to tell a caller which
/// part of the own request differs, too little to rely on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fingerprint {
    /// The digest of everything that counts.
    pub digest: [u8; 16],
    /// A short keyed hash of every part's name and of its value.
    pub outline: Arc<[(u32, u32)]>,
}

/// The parts of a request that a fingerprint looks at.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// The method.
    pub method: &'a Method,
    /// The routed target with its query, as received.
    pub target: &'a str,
    /// The header section.
    pub headers: &'a HeaderMap,
    /// The whole content.
    pub content: &'a Bytes,
}

/// Header fields that always count, each read as the list of its values.
const FIELDS: [HeaderName; 4] = [CONTENT_TYPE, CONTENT_ENCODING, IF_MATCH, IF_NONE_MATCH];

impl Fingerprint {
    /// Works out the fingerprint of a request under a route's policy.
    pub fn of(keys: &HashKeys, policy: &Policy, subject: &Subject<'_>) -> Self {
        let mut digest = blake3::Hasher::new_keyed(&keys.fingerprint);
        let mut outline = Vec::with_capacity(8);
        visit_parts(keys, policy, subject, |part, value| {
            // A member is in the digest as part of the content.
            if let Part::Named(name) = part {
                update_framed(&mut digest, name.as_bytes());
                digest.update(value.as_bytes());
            }
            outline.push((part.short_name(keys), short(value)));
        });
        Self {
            digest: truncated(&digest.finalize()),
            outline: outline.into(),
        }
    }

    /// Names the parts in which `subject` differs from the request this fingerprint was made
    /// of. The names are the caller's own words: nothing of the first request is in them.
    pub fn differences(
        &self,
        keys: &HashKeys,
        policy: &Policy,
        subject: &Subject<'_>,
    ) -> Vec<String> {
        let mut names = Vec::new();
        let mut is_member_named = false;
        visit_parts(keys, policy, subject, |part, value| {
            let name = part.short_name(keys);
            let was = self.outline.iter().find(|(known, _)| *known == name);
            if was.is_none_or(|(_, digest)| *digest != short(value)) {
                is_member_named |= matches!(part, Part::Member(_));
                names.push(part.to_string());
            }
        });
        if is_member_named {
            names.retain(|name| name != CONTENT);
        }
        names
    }

    /// Whether two requests are the same.
    pub fn is_same(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

/// The part that stands for the content as a whole.
const CONTENT: &str = "content";

/// What a part is called.
#[derive(Debug, Clone, Copy)]
enum Part<'a> {
    /// The method, the target, a field, or the whole content.
    Named(&'a str),
    /// A member of a JSON object.
    Member(&'a str),
}

impl Part<'_> {
    /// Members have names of their own, so that a member called `method` is not the method.
    /// They come from the content, so theirs are keyed; the others are known to everybody.
    fn short_name(self, keys: &HashKeys) -> u32 {
        match self {
            Self::Named(name) => fnv1a(name.as_bytes()),
            Self::Member(name) => short(&hash_of(keys, &[b"member ".as_slice(), name.as_bytes()])),
        }
    }
}

impl fmt::Display for Part<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named(name) => f.write_str(name),
            Self::Member(name) => write!(f, "content member {name:?}"),
        }
    }
}

/// Shows every part with the keyed hash of its value: a value is hashed once, and no part is
/// copied.
fn visit_parts(
    keys: &HashKeys,
    policy: &Policy,
    subject: &Subject<'_>,
    mut visit: impl FnMut(Part<'_>, &blake3::Hash),
) {
    let mut named = |name: &str, value: &blake3::Hash| visit(Part::Named(name), value);
    named(
        "method",
        &hash_of(keys, &[subject.method.as_str().as_bytes()]),
    );
    named("target", &hash_of(keys, &[subject.target.as_bytes()]));
    for field in FIELDS.iter().chain(&policy.fingerprint_headers) {
        let mut lines = subject.headers.get_all(field).iter().peekable();
        // A field that is absent is left out, so that a longer list of fields to look at
        // changes nothing for requests that have none of them.
        if lines.peek().is_none() {
            continue;
        }
        let mut value = blake3::Hasher::new_keyed(&keys.fingerprint);
        for line in lines {
            update_framed(&mut value, line.as_bytes());
        }
        named(field.as_str(), &value.finalize());
    }
    visit_content(keys, policy, subject.content, visit);
}

fn visit_content(
    keys: &HashKeys,
    policy: &Policy,
    content: &Bytes,
    mut visit: impl FnMut(Part<'_>, &blake3::Hash),
) {
    // The first byte says how the content was read, so that the canonical form of one request
    // can never equal the raw content of another.
    let raw = || hash_of(keys, &[b"r".as_slice(), content.as_ref()]);
    match policy.fingerprint {
        ContentMode::Off => {}
        ContentMode::Raw => visit(Part::Named(CONTENT), &raw()),
        ContentMode::Json => {
            let Ok(mut document) = json::parse(content) else {
                return visit(Part::Named(CONTENT), &raw());
            };
            for pointer in &policy.ignore {
                document.remove(pointer);
            }
            let mut canonical = Vec::with_capacity(content.len());
            document.write_canonical(&mut canonical);
            visit(
                Part::Named(CONTENT),
                &hash_of(keys, &[b"j".as_slice(), &canonical]),
            );
            if let Value::Object(members) = &document {
                for (name, value) in members.iter().take(MAX_OUTLINED_MEMBERS) {
                    canonical.clear();
                    value.write_canonical(&mut canonical);
                    visit(Part::Member(name), &hash_of(keys, &[&canonical]));
                }
            }
        }
    }
}

fn hash_of(keys: &HashKeys, pieces: &[&[u8]]) -> blake3::Hash {
    match pieces {
        [piece] => blake3::keyed_hash(&keys.fingerprint, piece),
        pieces => {
            let mut hasher = blake3::Hasher::new_keyed(&keys.fingerprint);
            for piece in pieces {
                hasher.update(piece);
            }
            hasher.finalize()
        }
    }
}

fn short(hash: &blake3::Hash) -> u32 {
    u32::from_le_bytes(truncated(hash))
}

/// Fowler, Noll and Vo's hash, for the handful of names that are no secret.
fn fnv1a(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| {
        (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
    })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;
    use crate::secret::Secret;

    struct Request {
        method: Method,
        target: &'static str,
        headers: Vec<(&'static str, &'static str)>,
        content: &'static str,
    }

    fn base() -> Request {
        Request {
            method: Method::POST,
            target: "/orders?a=1",
            headers: vec![("content-type", "application/json")],
            content: r#"{"a":1,"b":2}"#,
        }
    }

    fn with<T>(request: &Request, f: impl FnOnce(&Subject<'_>) -> T) -> T {
        let mut headers = HeaderMap::new();
        for (name, value) in &request.headers {
            let name = HeaderName::from_static(name);
            headers.append(name, HeaderValue::from_static(value));
        }
        let content = Bytes::from_static(request.content.as_bytes());
        f(&Subject {
            method: &request.method,
            target: request.target,
            headers: &headers,
            content: &content,
        })
    }

    fn check(policy: &Policy, change: impl FnOnce(&mut Request), differing: &[&str]) {
        let keys = HashKeys::derive(&Secret::from_bytes([3; 32]));
        let mut changed = base();
        change(&mut changed);
        let first = with(&base(), |subject| Fingerprint::of(&keys, policy, subject));
        let second = with(&changed, |subject| Fingerprint::of(&keys, policy, subject));
        assert_eq!(first.is_same(&second), differing.is_empty());
        assert_eq!(
            with(&changed, |subject| first
                .differences(&keys, policy, subject)),
            differing
        );
    }

    fn json() -> Policy {
        Policy {
            fingerprint: ContentMode::Json,
            ..Policy::default()
        }
    }

    #[test]
    fn what_differs_is_named() {
        let raw = Policy::default();
        check(&raw, |_| {}, &[]);
        check(&raw, |r| r.method = Method::PATCH, &["method"]);
        check(&raw, |r| r.target = "/orders?a=2", &["target"]);
        check(&raw, |r| r.content = r#"{"a":1,"b": 2}"#, &["content"]);
        check(
            &raw,
            |r| r.headers.push(("content-encoding", "gzip")),
            &["content-encoding"],
        );
        check(
            &raw,
            |r| r.headers.push(("if-match", "\"x\"")),
            &["if-match"],
        );
        check(
            &raw,
            |r| r.headers.push(("content-type", "text/plain")),
            &["content-type"],
        );
    }

    #[test]
    fn what_differs_per_attempt_does_not_count() {
        for field in [
            "authorization",
            "date",
            "traceparent",
            "user-agent",
            "accept",
            "x-request-id",
        ] {
            check(&Policy::default(), |r| r.headers.push((field, "x")), &[]);
        }
    }

    #[test]
    fn a_configured_field_counts() {
        let name = HeaderName::from_static("x-version");
        let policy = Policy {
            fingerprint_headers: vec![name],
            ..Policy::default()
        };
        check(
            &policy,
            |r| r.headers.push(("x-version", "2")),
            &["x-version"],
        );
    }

    #[test]
    fn json_content_is_compared_by_meaning_and_the_member_is_named() {
        check(&json(), |r| r.content = r#" {"b":2, "a":1} "#, &[]);
        check(
            &json(),
            |r| r.content = r#"{"a":1,"b":2.0}"#,
            &["content member \"b\""],
        );
        check(
            &json(),
            |r| r.content = r#"{"a":1,"b":2,"method":3}"#,
            &["content member \"method\""],
        );
        // Two members of one name: read as bytes, and bytes are never the same as a document.
        check(
            &json(),
            |r| r.content = r#"{"a":1,"b":2,"b":2}"#,
            &["content"],
        );
    }

    #[test]
    fn an_ignored_member_does_not_count() {
        let ignore = vec!["/b".parse().expect("a pointer")];
        check(
            &Policy { ignore, ..json() },
            |r| r.content = r#"{"a":1,"b":7}"#,
            &[],
        );
    }

    #[test]
    fn with_content_off_only_the_rest_counts() {
        let off = Policy {
            fingerprint: ContentMode::Off,
            ..Policy::default()
        };
        check(&off, |r| r.content = "", &[]);
        check(&off, |r| r.target = "/", &["target"]);
    }
}
