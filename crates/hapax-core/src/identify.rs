//! Whose key a request carries, and which (P3–P7).

use std::sync::Arc;

use bytes::Bytes;
use http::HeaderValue;
use http::request::Parts;

use crate::json;
use crate::key::{Key, KeyError};
use crate::policy::{KeySource, Policy};

/// A key, and the value that `Idempotency-Key` echoes.
#[derive(Debug, Clone)]
pub struct Carried {
    /// The key.
    pub key: Key,
    /// The field value, as it was received or as it would be written.
    pub as_received: HeaderValue,
}

/// The path parameters of a route, decoded.
pub type Params = [(Arc<str>, String)];

/// Whether the body has to be read to know the key.
pub fn needs_body(policy: &Policy) -> bool {
    policy
        .key_from
        .iter()
        .any(|source| matches!(source, KeySource::Json(_)))
}

/// Finds the key in every place that the route names. `None` when no place has one.
///
/// # Errors
/// [`KeyError`] when a place has something that is no key, or two places disagree.
pub fn find_key(
    policy: &Policy,
    params: &Params,
    parts: &Parts,
    content: Option<&Bytes>,
) -> Result<Option<Carried>, KeyError> {
    let mut found: Option<Carried> = None;
    for source in &policy.key_from {
        let Some(carried) = key_from(source, policy, params, parts, content)? else {
            continue;
        };
        match &found {
            Some(first) if first.key != carried.key => return Err(KeyError::Disagreeing),
            Some(_) => {}
            None => found = Some(carried),
        }
    }
    Ok(found)
}

fn key_from(
    source: &KeySource,
    policy: &Policy,
    params: &Params,
    parts: &Parts,
    content: Option<&Bytes>,
) -> Result<Option<Carried>, KeyError> {
    match source {
        KeySource::Header(name) => {
            let mut lines = parts.headers.get_all(name).iter();
            let Some(value) = lines.next() else {
                return Ok(None);
            };
            if lines.next().is_some() {
                return Err(KeyError::Repeated);
            }
            let key = Key::from_header(value, policy.key_syntax)?;
            Ok(Some(Carried {
                key,
                as_received: value.clone(),
            }))
        }
        KeySource::Path(name) => params
            .iter()
            .find(|(param, _)| **param == **name)
            .map(|(_, value)| from_text(value))
            .transpose(),
        KeySource::Query(name) => from_query(parts.uri.query().unwrap_or_default(), name),
        KeySource::Json(pointer) => {
            let document = content.and_then(|content| json::parse(content).ok());
            match document.as_ref().and_then(|document| document.at(pointer)) {
                None => Ok(None),
                Some(json::Value::String(text)) => from_text(text).map(Some),
                Some(_) => Err(KeyError::NotAString),
            }
        }
    }
}

fn from_text(text: &str) -> Result<Carried, KeyError> {
    let key = Key::from_text(text)?;
    // Quoted, because a text from elsewhere may have characters that a bare value cannot.
    let quoted = format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
    let as_received = HeaderValue::from_str(&quoted).map_err(|_| KeyError::Character)?;
    Ok(Carried { key, as_received })
}

fn from_query(query: &str, name: &str) -> Result<Option<Carried>, KeyError> {
    let mut values = query.split('&').filter_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (form_decoded(key).as_deref() == Some(name.as_bytes())).then_some(value)
    });
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(KeyError::Repeated);
    }
    let decoded = form_decoded(value).ok_or(KeyError::Malformed)?;
    let text = String::from_utf8(decoded).map_err(|_| KeyError::Character)?;
    from_text(&text).map(Some)
}

/// Undoes `application/x-www-form-urlencoded`; `None` for a broken escape.
fn form_decoded(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digits = [bytes.next()?, bytes.next()?];
                let digits = std::str::from_utf8(&digits).ok()?;
                // `from_str_radix` takes a sign, an escape does not.
                if digits.starts_with('+') {
                    return None;
                }
                u8::from_str_radix(digits, 16).ok()?
            }
            _ => byte,
        });
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(
        sources: &[KeySource],
        request: http::Request<&str>,
        expected: Result<Option<&str>, KeyError>,
    ) {
        let policy = Policy {
            key_from: sources.to_vec(),
            ..Policy::default()
        };
        let params = vec![
            (Arc::from("id"), "p 1".to_owned()),
            (Arc::from("order"), "o-1".to_owned()),
        ];
        let (parts, content) = request.into_parts();
        let content = Bytes::from(content.to_owned());
        let found = find_key(&policy, &params, &parts, Some(&content));
        let found = found.map(|found| found.map(|carried| carried.key.as_str().to_owned()));
        assert_eq!(
            found.as_ref().map(|key| key.as_deref()),
            expected.as_ref().map(|key| *key)
        );
    }

    fn request(
        uri: &str,
        fields: &[(&str, &str)],
        content: &'static str,
    ) -> http::Request<&'static str> {
        let mut builder = http::Request::post(uri);
        for (name, value) in fields {
            builder = builder.header(*name, *value);
        }
        builder.body(content).expect("a request")
    }

    fn header(name: &'static str) -> KeySource {
        KeySource::Header(http::HeaderName::from_static(name))
    }

    #[test]
    fn the_key_is_found_where_the_route_says() {
        let json = || KeySource::Json("/a/id".parse().expect("a pointer"));
        let query = || KeySource::Query("k".to_owned());
        let path = |name: &str| KeySource::Path(name.to_owned());
        let key = || header("idempotency-key");
        check(&[key()], request("/", &[], ""), Ok(None));
        check(
            &[key()],
            request("/", &[("idempotency-key", "a")], ""),
            Ok(Some("a")),
        );
        check(&[path("order")], request("/", &[], ""), Ok(Some("o-1")));
        check(
            &[path("id")],
            request("/", &[], ""),
            Err(KeyError::Character),
        );
        check(
            &[query()],
            request("/?x=1&k=a%2Bb", &[], ""),
            Ok(Some("a+b")),
        );
        check(
            &[query()],
            request("/?k=1&%6b=2", &[], ""),
            Err(KeyError::Repeated),
        );
        check(
            &[query()],
            request("/?k=%zz", &[], ""),
            Err(KeyError::Malformed),
        );
        check(
            &[json()],
            request("/", &[], r#"{"a":{"id":"x"}}"#),
            Ok(Some("x")),
        );
        check(
            &[json()],
            request("/", &[], r#"{"a":{"id":7}}"#),
            Err(KeyError::NotAString),
        );
        check(&[json()], request("/", &[], "nope"), Ok(None));
    }

    #[test]
    fn carriers_must_agree_and_a_field_may_not_repeat() {
        let both = [header("idempotency-key"), header("x-idempotency-key")];
        let agreeing = [("idempotency-key", "\"a\""), ("x-idempotency-key", "a")];
        check(&both, request("/", &agreeing, ""), Ok(Some("a")));
        let differing = [("idempotency-key", "a"), ("x-idempotency-key", "b")];
        check(
            &both,
            request("/", &differing, ""),
            Err(KeyError::Disagreeing),
        );
        let twice = [("idempotency-key", "a"), ("idempotency-key", "a")];
        check(&both, request("/", &twice, ""), Err(KeyError::Repeated));
    }
}
