//! The request that is checked: read from a file, and filled in freshly for every case.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::CheckError;
use crate::message::Message;
use crate::random::Random;

/// The largest request file, in bytes.
pub(crate) const MAX_FILE: usize = 256 * 1024;
/// What is sent where nothing else is asked for.
const DEFAULT_BODY: &str = r#"{"amount":{{n}},"reference":"{{uuid}}"}"#;

/// How a request says which intent it belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A key in a field.
    Field,
    /// A key elsewhere: in the path, or in the content.
    Embedded,
    /// PUT or DELETE: the method itself promises it (RFC 9110 section 9.2.2).
    Natural,
    /// GET, HEAD, OPTIONS, TRACE: no effect at all (RFC 9110 section 9.2.1).
    Safe,
}

/// A request with placeholders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Template {
    message: Message,
    other_body: Option<String>,
    key_field: String,
    pub(crate) kind: Kind,
}

/// What the placeholders stand for in one case.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Values {
    pub(crate) key: String,
    pub(crate) uuid: String,
    pub(crate) n: usize,
}

impl Values {
    /// Fresh values.
    pub(crate) fn draw(random: &mut Random) -> Self {
        Self {
            key: random.uuid(),
            uuid: random.uuid(),
            n: random.within(1, 99),
        }
    }

    fn fill(&self, text: &str) -> String {
        text.replace("{{key}}", &self.key)
            .replace("{{uuid}}", &self.uuid)
            .replace("{{n}}", &self.n.to_string())
    }
}

/// A request file in JSON or TOML.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    method: Option<String>,
    target: Option<String>,
    #[serde(default)]
    fields: BTreeMap<String, String>,
    body: Option<Value>,
    other_body: Option<Value>,
}

impl Template {
    /// `file` is the text of a request file; `path` the URL's path.
    pub(crate) fn read(
        file: Option<&str>,
        path: &str,
        method: Option<&str>,
        key_field: &str,
    ) -> Result<Self, CheckError> {
        let (mut message, other_body) = match file {
            None => (
                Message {
                    method: method.unwrap_or("POST").to_owned(),
                    target: path.to_owned(),
                    fields: Vec::new(),
                    body: String::new(),
                },
                None,
            ),
            Some(text) if text.len() > MAX_FILE => {
                return Err(CheckError::Request(format!(
                    "it is larger than {MAX_FILE} bytes"
                )));
            }
            Some(text) => parse(text, path)?,
        };
        if let Some(method) = method {
            method.clone_into(&mut message.method);
        }
        message.method.make_ascii_uppercase();
        let has_content = ["POST", "PUT", "PATCH"].contains(&message.method.as_str());
        if file.is_none() && has_content {
            DEFAULT_BODY.clone_into(&mut message.body);
        }
        if !message.body.is_empty() && message.field("content-type").is_none() {
            message
                .fields
                .push(("Content-Type".into(), "application/json".into()));
        }
        let kind = kind_of(&message, key_field);
        if kind == Kind::Field && message.field(key_field).is_none() {
            // A string of structured fields, as the draft has it (section 2.1).
            message
                .fields
                .push((key_field.to_owned(), "\"{{key}}\"".into()));
        }
        let template = Self {
            message,
            other_body,
            key_field: key_field.to_owned(),
            kind,
        };
        template.require_placeholders()?;
        let sample = Values {
            key: "k".into(),
            uuid: "u".into(),
            n: 1,
        };
        match template.fill(&sample).fault() {
            Some(why) => Err(CheckError::Request(why)),
            None => Ok(template),
        }
    }

    /// A request that every case shares would be one intent for all of them.
    fn require_placeholders(&self) -> Result<(), CheckError> {
        let message = &self.message;
        let has = |text: &str| text.contains("{{key}}") || text.contains("{{uuid}}");
        let is_fresh = match self.kind {
            Kind::Safe => true,
            Kind::Field => message.field(&self.key_field).is_some_and(has),
            Kind::Embedded => true,
            Kind::Natural => has(&message.target),
        };
        if is_fresh {
            return Ok(());
        }
        Err(CheckError::Request(match self.kind {
            Kind::Natural => "the target of a PUT or DELETE needs {{uuid}}, such as /order/{{uuid}}: every case needs a resource of its own".into(),
            _ => format!("{} needs {{{{key}}}}: every case needs a key of its own", self.key_field),
        }))
    }

    /// The same request with these credentials.
    pub(crate) fn authorize(&mut self, credentials: &str) -> Result<(), CheckError> {
        self.message = self.authorized(credentials)?;
        Ok(())
    }

    /// Whether these credentials can be sent.
    pub(crate) fn require_credentials(&self, credentials: &str) -> Result<(), CheckError> {
        self.authorized(credentials).map(drop)
    }

    fn authorized(&self, credentials: &str) -> Result<Message, CheckError> {
        let message = self.message.with_field("Authorization", Some(credentials));
        match message.fault() {
            // Not the fault itself: it would show the credentials.
            Some(_) => Err(CheckError::Request(
                "the credentials are no field value: they have to be one line of text".into(),
            )),
            None => Ok(message),
        }
    }

    pub(crate) fn method(&self) -> &str {
        &self.message.method
    }

    pub(crate) fn target(&self) -> &str {
        &self.message.target
    }

    /// The name of the field that carries the key.
    pub(crate) fn key_field(&self) -> &str {
        &self.key_field
    }

    /// The request of a case.
    pub(crate) fn fill(&self, values: &Values) -> Message {
        let mut message = self.message.clone();
        message.target = values.fill(&message.target);
        message.body = values.fill(&message.body);
        for (_, value) in &mut message.fields {
            *value = values.fill(value);
        }
        message
    }

    /// The same request with another payload under the same key; nothing where there is no payload.
    pub(crate) fn fill_other(&self, values: &Values, random: &mut Random) -> Option<Message> {
        let first = self.fill(values);
        if first.body.is_empty() {
            return None;
        }
        let other_n = values.n % 99 + 1;
        let other = Values {
            key: values.key.clone(),
            uuid: random.uuid(),
            n: other_n,
        };
        let text = self.other_body.as_ref().unwrap_or(&self.message.body);
        let mut body = other.fill(text);
        if body == first.body {
            body = changed(&body)?;
        }
        Some(Message { body, ..first })
    }
}

/// The same content with one number or text changed.
fn changed(body: &str) -> Option<String> {
    let mut value: Value = serde_json::from_str(body).ok()?;
    change(&mut value).then(|| value.to_string())
}

fn change(value: &mut Value) -> bool {
    match value {
        Value::Number(number) => {
            let next = number.as_i64().and_then(|n| n.checked_add(1));
            next.is_some_and(|next| {
                *value = next.into();
                true
            })
        }
        Value::Array(items) => items.iter_mut().any(change),
        Value::Object(members) => {
            members.values_mut().any(change) || {
                let text = members.values_mut().find_map(|member| match member {
                    Value::String(text) => Some(text),
                    _ => None,
                });
                text.is_some_and(|text| {
                    text.push_str(" (other)");
                    true
                })
            }
        }
        _ => false,
    }
}

fn kind_of(message: &Message, key_field: &str) -> Kind {
    let has_key = message.target.contains("{{key}}") || message.body.contains("{{key}}");
    let other_field = message
        .fields
        .iter()
        .any(|(name, value)| !name.eq_ignore_ascii_case(key_field) && value.contains("{{key}}"));
    match message.method.as_str() {
        "GET" | "HEAD" | "OPTIONS" | "TRACE" => Kind::Safe,
        _ if message.field(key_field).is_some() => Kind::Field,
        "PUT" | "DELETE" => Kind::Natural,
        _ if has_key || other_field => Kind::Embedded,
        _ => Kind::Field,
    }
}

fn parse(text: &str, path: &str) -> Result<(Message, Option<String>), CheckError> {
    let wrong = |why: String| CheckError::Request(why);
    let start = text.trim_start();
    let first = start.lines().next().unwrap_or("");
    // A line of TOML has `=` or `[` where a request line has a method and a target.
    let is_toml = first.starts_with(['[', '#'])
        || first
            .split_once('=')
            .is_some_and(|(name, _)| name.trim().chars().all(|c| c.is_alphanumeric() || c == '_'));
    if start.starts_with('{') {
        let file = serde_json::from_str(start).map_err(|error| wrong(error.to_string()))?;
        return Ok(from_file(file, path));
    }
    if is_toml {
        let file = toml::from_str(text).map_err(|error| wrong(error.to_string()))?;
        return Ok(from_file(file, path));
    }
    let text = start.replace("\r\n", "\n");
    let (head, body) = text.split_once("\n\n").unwrap_or((&text, ""));
    let mut lines = head.lines();
    let mut words = lines.next().unwrap_or("").split_ascii_whitespace();
    let method = words.next().ok_or_else(|| wrong("it is empty".into()))?;
    let target = words.next().unwrap_or(path);
    let mut fields = Vec::new();
    for line in lines.filter(|line| !line.trim().is_empty()) {
        let (name, value) = line
            .split_once(':')
            .ok_or_else(|| wrong(format!("{line:?} is no field: there is no colon")))?;
        fields.push((name.trim().to_owned(), value.trim().to_owned()));
    }
    fields.retain(|(name, _)| !name.eq_ignore_ascii_case("content-length"));
    let message = Message {
        method: method.to_owned(),
        target: target.to_owned(),
        fields,
        // An editor ends the last line; the content does not.
        body: body.trim_end_matches('\n').to_owned(),
    };
    Ok((message, None))
}

fn from_file(file: File, path: &str) -> (Message, Option<String>) {
    let text = |value: Value| match value {
        Value::String(text) => text,
        value => value.to_string(),
    };
    let message = Message {
        method: file.method.unwrap_or_else(|| "POST".into()),
        target: file.target.unwrap_or_else(|| path.to_owned()),
        fields: file.fields.into_iter().collect(),
        body: file.body.map(text).unwrap_or_default(),
    };
    (message, file.other_body.map(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "Idempotency-Key";

    fn values() -> Values {
        Values {
            key: "K".into(),
            uuid: "U".into(),
            n: 7,
        }
    }

    #[test]
    fn a_request_is_the_same_in_all_three_forms() {
        let http = "POST /o HTTP/1.1\nContent-Type: application/json\nIdempotency-Key: \"{{key}}\"\n\n{\"n\":{{n}}}\n";
        let json = r#"{"method":"POST","target":"/o","fields":{"Content-Type":"application/json","Idempotency-Key":"\"{{key}}\""},"body":"{\"n\":{{n}}}"}"#;
        let toml = "method = \"POST\"\ntarget = \"/o\"\nbody = '{\"n\":{{n}}}'\n[fields]\n\"Content-Type\" = \"application/json\"\n\"Idempotency-Key\" = '\"{{key}}\"'\n";
        let of = |text| {
            Template::read(Some(text), "/", None, KEY)
                .unwrap()
                .fill(&values())
        };
        assert_eq!(of(http), of(json));
        assert_eq!(of(http), of(toml));
        assert_eq!(of(http).body, r#"{"n":7}"#);
        assert_eq!(of(http).field("idempotency-key"), Some("\"K\""));
    }

    #[test]
    fn the_kind_follows_the_method_and_where_the_key_is() {
        for (text, kind) in [
            ("POST /o\n\n{}", Kind::Field),
            ("POST /o/{{key}}\n\n{}", Kind::Embedded),
            ("POST /o\n\n{\"id\":\"{{key}}\"}", Kind::Embedded),
            ("PUT /o/{{uuid}}\n\n{}", Kind::Natural),
            (
                "PUT /o/{{uuid}}\nIdempotency-Key: {{key}}\n\n{}",
                Kind::Field,
            ),
            ("GET /o", Kind::Safe),
        ] {
            assert_eq!(
                Template::read(Some(text), "/", None, KEY).unwrap().kind,
                kind,
                "{text}"
            );
        }
    }

    #[test]
    fn a_request_that_cases_would_share_or_that_splits_messages_is_refused() {
        for text in [
            "PUT /o\n\n{}",
            "POST /o\nIdempotency-Key: fixed\n\n{}",
            "POST o\n\n{}",
            "POST /o\nno colon\n\n{}",
            "POST /o\nTransfer-Encoding: chunked\n\n{}",
            "{\"methud\":\"POST\"}",
            "",
        ] {
            assert!(
                matches!(
                    Template::read(Some(text), "/", None, KEY),
                    Err(CheckError::Request(_))
                ),
                "{text}"
            );
        }
    }

    #[test]
    fn credentials_of_several_lines_are_refused_and_not_shown() {
        let mut template = Template::read(Some("POST /o\n\n{}"), "/", None, KEY).unwrap();
        let wrong = template
            .require_credentials("Bearer a\r\nHost: b")
            .unwrap_err();
        assert!(!wrong.to_string().contains("Bearer"), "{wrong}");
        template.authorize("Bearer a").unwrap();
        let message = template.fill(&values());
        assert_eq!(message.field("authorization"), Some("Bearer a"));
    }

    #[test]
    fn another_payload_differs_and_keeps_the_key() {
        let mut random = Random::for_case(1, "x");
        for text in [
            "POST /o\n\n{\"n\":{{n}}}",
            "POST /o\n\n{\"a\":[3]}",
            "POST /o\n\n{\"a\":\"b\"}",
        ] {
            let template = Template::read(Some(text), "/", None, KEY).unwrap();
            let other = template.fill_other(&values(), &mut random).unwrap();
            assert_ne!(other.body, template.fill(&values()).body, "{text}");
            assert_eq!(other.fields, template.fill(&values()).fields, "{text}");
        }
    }
}
