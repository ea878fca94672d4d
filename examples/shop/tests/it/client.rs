//! A client of HTTP/1.1 that repeats nothing and hides nothing: a connection a request.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, interval, timeout};

/// Longer than anything here takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A shop, by its address.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    pub(crate) address: SocketAddr,
}

/// What it answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    fields: Vec<(String, String)>,
    pub(crate) content: String,
}

impl Answer {
    fn parse(text: &str) -> Option<Self> {
        let (head, content) = text.split_once("\r\n\r\n")?;
        let mut lines = head.lines();
        let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
        let fields = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        Some(Self {
            status,
            fields,
            content: content.to_owned(),
        })
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.fields.iter().filter(|(field, _)| field == name);
        values.next().map(|(_, value)| value.as_str())
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.content).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

impl Client {
    pub(crate) async fn get(&self, target: &str) -> Answer {
        self.send("GET", target, &[], None).await
    }

    pub(crate) async fn send(
        &self,
        method: &str,
        target: &str,
        fields: &[(&str, &str)],
        payload: Option<&Value>,
    ) -> Answer {
        let content = payload.map(Value::to_string).unwrap_or_default();
        let mut fields = fields.to_vec();
        if payload.is_some() {
            fields.push(("Content-Type", "application/json"));
        }
        self.send_raw(method, target, &fields, &content).await
    }

    pub(crate) async fn send_raw(
        &self,
        method: &str,
        target: &str,
        fields: &[(&str, &str)],
        content: &str,
    ) -> Answer {
        let answer = self.exchange(method, target, fields, content).await;
        answer.unwrap_or_else(|| panic!("no answer to {method} {target}"))
    }

    /// `None` when the connection ended before a whole answer had come.
    pub(crate) async fn exchange(
        &self,
        method: &str,
        target: &str,
        fields: &[(&str, &str)],
        content: &str,
    ) -> Option<Answer> {
        let request = request(method, target, fields, content);
        let exchange = async {
            let mut stream = TcpStream::connect(self.address).await.ok()?;
            // A server that refuses early may close before it has read everything.
            let _ = stream.write_all(request.as_bytes()).await;
            let mut answer = Vec::new();
            let read = stream.read_to_end(&mut answer).await;
            if answer.is_empty() {
                read.ok()?;
            }
            Answer::parse(&String::from_utf8(answer).ok()?)
        };
        timeout(PATIENCE, exchange)
            .await
            .expect("an answer in time")
    }

    /// Sends a request and does not wait for its answer. Dropping the connection hangs up; a server
    /// that notices before it has read the request does not run it.
    pub(crate) async fn send_only(&self, method: &str, target: &str, payload: &Value) -> TcpStream {
        let fields = [("Content-Type", "application/json")];
        let request = request(method, target, &fields, &payload.to_string());
        let mut stream = TcpStream::connect(self.address)
            .await
            .expect("a connection");
        stream.write_all(request.as_bytes()).await.expect("written");
        stream
    }

    /// Asks until the answer has this status.
    pub(crate) async fn until(&self, target: &str, status: u16) {
        let deadline = Instant::now() + PATIENCE;
        let mut ticks = interval(Duration::from_millis(10));
        while self.get(target).await.status != status {
            assert!(
                Instant::now() < deadline,
                "{target} did not become {status}"
            );
            ticks.tick().await;
        }
    }
}

fn request(method: &str, target: &str, fields: &[(&str, &str)], content: &str) -> String {
    let mut request = format!("{method} {target} HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n");
    for (name, value) in fields {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str(&format!(
        "Content-Length: {}\r\n\r\n{content}",
        content.len()
    ));
    request
}
