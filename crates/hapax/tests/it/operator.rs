//! An operator at the admin API: calls, and the records they are about.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::client::{Answer, Connection, post};
use crate::gateway::Gateway;
use crate::upstream::{Act, Upstream, answer};

/// A call of the admin API.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    method: &'static str,
    target: String,
    fields: Vec<(String, String)>,
    body: Option<String>,
}

pub(crate) fn get(target: &str) -> Call {
    Call {
        method: "GET",
        target: target.to_owned(),
        fields: Vec::new(),
        body: None,
    }
}

pub(crate) fn send(target: &str, body: &Value) -> Call {
    Call {
        method: "POST",
        body: Some(body.to_string()),
        ..get(target)
    }
    .field("Content-Type", "application/json")
}

impl Call {
    pub(crate) fn method(mut self, method: &'static str) -> Self {
        self.method = method;
        self
    }

    pub(crate) fn field(mut self, name: &str, value: &str) -> Self {
        self.fields.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Without the fields of this name.
    pub(crate) fn without(mut self, name: &str) -> Self {
        self.fields
            .retain(|(field, _)| !field.eq_ignore_ascii_case(name));
        self
    }

    pub(crate) fn token(self, token: &str) -> Self {
        self.field("Authorization", &format!("Bearer {token}"))
    }

    /// Names the version that was seen.
    pub(crate) fn version(self, version: &str) -> Self {
        self.field("If-Match", &format!("\"{version}\""))
    }

    fn bytes(&self, gateway: &Gateway, protocol: &str) -> Vec<u8> {
        let mut head = format!("{} {} {protocol}\r\n", self.method, self.target);
        let has_host = self.fields.iter().any(|(name, _)| name == "Host");
        if !has_host {
            head.push_str(&format!("Host: {}\r\n", gateway.admin()));
        }
        for (name, value) in &self.fields {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        let body = self.body.as_deref().unwrap_or_default();
        if self.body.is_some() {
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        format!("{head}\r\n{body}").into_bytes()
    }

    pub(crate) fn to(&self, gateway: &Gateway) -> Answer {
        let mut connection = Connection::open(gateway.admin());
        let sent = connection.send(&self.bytes(gateway, "HTTP/1.1"));
        sent.expect("it listens");
        connection.read_answer_to(self.method).expect("an answer")
    }

    /// The JSON of an answer that must be 200.
    pub(crate) fn json(&self, gateway: &Gateway) -> Value {
        let answer = self.to(gateway);
        assert_eq!(answer.status, 200, "{self:?}: {}", answer.text());
        answer.json()
    }

    /// The kind of a refusal.
    pub(crate) fn refusal(&self, gateway: &Gateway) -> String {
        let answer = self.to(gateway);
        assert!(answer.status >= 400, "{self:?}: {}", answer.text());
        answer.problem()
    }

    /// A stream that goes on: what follows the head, uncut.
    pub(crate) fn stream(&self, gateway: &Gateway) -> Connection {
        let mut connection = Connection::open(gateway.admin());
        // HTTP/1.0: no chunks between the events.
        let sent = connection.send(&self.bytes(gateway, "HTTP/1.0"));
        sent.expect("it listens");
        let head = connection.read_until(b"\r\n\r\n");
        assert!(head.contains(" 200 "), "{head}");
        assert!(head.contains("text/event-stream"), "{head}");
        connection
    }
}

/// The records in a state; an empty name for all.
pub(crate) fn records(gateway: &Gateway, state: &str) -> Vec<Value> {
    let target = match state {
        "" => "/api/v1/records?limit=500".to_owned(),
        state => format!("/api/v1/records?limit=500&state={state}"),
    };
    let page = get(&target).json(gateway);
    assert!(page["next"].is_null(), "{page}");
    page["records"].as_array().expect("a list").clone()
}

/// The only record there is.
pub(crate) fn the_record(gateway: &Gateway) -> Value {
    let mut records = records(gateway, "");
    assert_eq!(records.len(), 1, "{records:?}");
    records.remove(0)
}

pub(crate) fn text<'a>(value: &'a Value, member: &str) -> &'a str {
    value[member]
        .as_str()
        .unwrap_or_else(|| panic!("no {member}: {value}"))
}

/// An action on a record as it was seen.
pub(crate) fn act(record: &Value, action: &str, body: &Value) -> Call {
    let target = format!("/api/v1/records/{}:{action}", text(record, "id"));
    send(&target, body).version(text(record, "version"))
}

pub(crate) fn not_executed() -> Value {
    json!({ "as": "not_executed", "reason": "the order is not in the database" })
}

pub(crate) fn completed() -> Value {
    json!({ "as": "completed", "reason": "the order is in the database" })
}

/// An upstream that has its effect and then fails.
pub(crate) fn failing() -> Upstream {
    Upstream::scripted(|_| Act::Answer(answer(500, &[], b"it broke")))
}

/// A gateway with one unknown outcome for each of the keys.
pub(crate) fn with_unknown(upstream: &Upstream, config: &str, keys: &[&str]) -> Gateway {
    let gateway = Gateway::start(&upstream.url(), config);
    for key in keys {
        assert_eq!(post(key).send(gateway.address()).status, 500);
    }
    assert_eq!(records(&gateway, "unknown").len(), keys.len());
    gateway
}

pub(crate) const VIEWER: &str = "viewer-token-0123456789";
pub(crate) const OPERATOR: &str = "operator-token-0123456789";

/// A token file in a folder of its own, and the configuration that names it.
pub(crate) struct TokenFile {
    pub(crate) path: PathBuf,
    _folder: tempfile::TempDir,
}

impl TokenFile {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let file = Self {
            path: folder.path().join("admin.token"),
            _folder: folder,
        };
        file.write(
            &format!("viewer:{VIEWER}\noperator:ann:{OPERATOR}\n"),
            0o600,
        );
        file
    }

    pub(crate) fn write(&self, text: &str, mode: u32) {
        use std::os::unix::fs::PermissionsExt;
        std::fs::write(&self.path, text).expect("room");
        let mode = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(&self.path, mode).expect("it is ours");
    }

    pub(crate) fn config(&self) -> String {
        format!("[admin]\ntoken_file = {:?}\n", self.path)
    }
}
