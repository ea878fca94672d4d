//! What makes two requests the same (P8–P10).

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
    pub outline: Vec<(u32, u32)>,
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
        visit_parts(policy, subject, |part| {
            match &part {
                Part::Named { name, value } => {
                    update_framed(&mut digest, name.as_bytes());
                    update_framed(&mut digest, value);
                    outline.push((short(keys, name.as_bytes()), short(keys, value)));
                }
                // Already in the digest as part of the content.
                Part::Member { name, value } => {
                    outline.push((short_member(keys, name), short(keys, value)));
                }
            }
        });
        Self {
            digest: truncated(&digest.finalize()),
            outline,
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
        visit_parts(policy, subject, |part| {
            let (hash, name, value) = match &part {
                Part::Named { name, value } => (short(keys, name.as_bytes()), name.clone(), value),
                Part::Member { name, value } => (
                    short_member(keys, name),
                    format!("content member {name:?}"),
                    value,
                ),
            };
            let was = self.outline.iter().find(|(known, _)| *known == hash);
            if was.is_none_or(|(_, digest)| *digest != short(keys, value)) {
                is_member_named |= matches!(part, Part::Member { .. });
                names.push(name);
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

enum Part<'a> {
    Named { name: String, value: Vec<u8> },
    Member { name: &'a str, value: Vec<u8> },
}

fn visit_parts(policy: &Policy, subject: &Subject<'_>, mut visit: impl FnMut(Part<'_>)) {
    let mut named = |name: &str, value: Vec<u8>| {
        visit(Part::Named {
            name: name.to_owned(),
            value,
        })
    };
    named("method", subject.method.as_str().into());
    named("target", subject.target.into());
    for field in FIELDS.iter().chain(&policy.fingerprint_headers) {
        let mut value = Vec::new();
        for line in subject.headers.get_all(field) {
            value.extend_from_slice(&(line.len() as u64).to_le_bytes());
            value.extend_from_slice(line.as_bytes());
        }
        // A field that is absent is left out, so that a longer list of fields to look at
        // changes nothing for requests that have none of them.
        if !value.is_empty() {
            named(field.as_str(), value);
        }
    }
    visit_content(policy, subject.content, visit);
}

fn visit_content(policy: &Policy, content: &Bytes, mut visit: impl FnMut(Part<'_>)) {
    // The first byte says how the content was read, so that the canonical form of one request
    // can never equal the raw content of another.
    let raw = |content: &Bytes| [b"r".as_slice(), content].concat();
    let mut whole = |value| {
        visit(Part::Named {
            name: CONTENT.to_owned(),
            value,
        })
    };
    match policy.fingerprint {
        ContentMode::Off => {}
        ContentMode::Raw => whole(raw(content)),
        ContentMode::Json => {
            let Ok(mut document) = json::parse(content) else {
                return whole(raw(content));
            };
            for pointer in &policy.ignore {
                document.remove(pointer);
            }
            let mut canonical = vec![b'j'];
            document.write_canonical(&mut canonical);
            whole(canonical);
            if let Value::Object(members) = &document {
                for (name, value) in members.iter().take(MAX_OUTLINED_MEMBERS) {
                    let mut canonical = Vec::new();
                    value.write_canonical(&mut canonical);
                    visit(Part::Member {
                        name,
                        value: canonical,
                    });
                }
            }
        }
    }
}

fn short(keys: &HashKeys, bytes: &[u8]) -> u32 {
    u32::from_le_bytes(truncated(&blake3::keyed_hash(&keys.fingerprint, bytes)))
}

/// Members have names of their own, so that a member called `method` is not the method.
fn short_member(keys: &HashKeys, name: &str) -> u32 {
    short(keys, &[b"member ", name.as_bytes()].concat())
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
