//! A client that sends exactly the bytes it is given, and reads exactly one answer.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use crate::support::PATIENCE;

/// An answer as it came: fields in order, repeated ones included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// The field's first value.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.all(name).first().copied()
    }

    /// All values of the field, in order.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        let lines = self.fields.iter();
        lines
            .filter(|(field, _)| field.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
            .collect()
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {}", self.text()))
    }

    /// The fragment of a problem's type; panics when the answer is no problem.
    pub(crate) fn problem(&self) -> String {
        let is_problem = self.field("content-type") == Some("application/problem+json");
        assert!(is_problem, "no problem: {self:?}");
        let json = self.json();
        assert_eq!(json["status"], self.status, "{self:?}");
        assert!(json["title"].is_string() && json["detail"].is_string());
        assert_eq!(self.field("cache-control"), Some("no-store"), "{self:?}");
        let kind = json["type"].as_str().expect("a type");
        kind.rsplit('#').next().expect("a fragment").to_owned()
    }

    pub(crate) fn is_replay(&self) -> bool {
        self.field("idempotent-replayed") == Some("true")
    }

    /// `Idempotency-Status`, or nothing.
    pub(crate) fn idempotency(&self) -> &str {
        self.field("idempotency-status").unwrap_or_default()
    }

    /// What the protocol says must not change: status, kept fields, content.
    pub(crate) fn kept(&self) -> (u16, Vec<(String, String)>, Vec<u8>) {
        const MOMENT: [&str; 10] = [
            "date",
            "via",
            "connection",
            "transfer-encoding",
            "cache-control",
            "set-cookie",
            "idempotent-replayed",
            "idempotency-status",
            "content-length",
            "keep-alive",
        ];
        let mut fields: Vec<_> = self
            .fields
            .iter()
            .map(|(name, value)| (name.to_ascii_lowercase(), value.clone()))
            .filter(|(name, _)| !MOMENT.contains(&name.as_str()))
            .collect();
        // Stable: the order of lines of one name is kept.
        fields.sort_by(|a, b| a.0.cmp(&b.0));
        (self.status, fields, self.body.clone())
    }
}

/// A request under construction.
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    method: String,
    target: String,
    fields: Vec<(String, String)>,
    body: Vec<u8>,
}

pub(crate) fn ask(method: &str, target: &str) -> Ask {
    Ask {
        method: method.to_owned(),
        target: target.to_owned(),
        fields: Vec::new(),
        body: Vec::new(),
    }
}

/// A POST with a key and a small JSON body.
pub(crate) fn post(key: &str) -> Ask {
    ask("POST", "/orders").key(key).body(b"{\"amount\":1}")
}

impl Ask {
    pub(crate) fn field(mut self, name: &str, value: &str) -> Self {
        self.fields.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn key(self, key: &str) -> Self {
        self.field("Idempotency-Key", key)
    }

    pub(crate) fn target(mut self, target: &str) -> Self {
        self.target = target.to_owned();
        self
    }

    pub(crate) fn body(mut self, body: &[u8]) -> Self {
        self.body = body.to_vec();
        self
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut head = format!(
            "{} {} HTTP/1.1\r\nHost: a.test\r\n",
            self.method, self.target
        );
        for (name, value) in &self.fields {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if !self.body.is_empty() || self.method != "GET" {
            head.push_str(&format!("Content-Length: {}\r\n", self.body.len()));
        }
        head.push_str("\r\n");
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(&self.body);
        bytes
    }

    /// Sends it over a connection of its own.
    pub(crate) fn send(&self, to: SocketAddr) -> Answer {
        self.try_send(to).expect("an answer")
    }

    pub(crate) fn try_send(&self, to: SocketAddr) -> io::Result<Answer> {
        let mut connection = Connection::try_open(to)?;
        connection.send(&self.bytes())?;
        connection.read()
    }
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    pub(crate) fn open(to: SocketAddr) -> Self {
        Self::try_open(to).expect("it listens")
    }

    pub(crate) fn try_open(to: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&to, PATIENCE)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let buffer = Vec::new();
        Ok(Self { stream, buffer })
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Sends, and does not care whether the other side still listens.
    pub(crate) fn send_anyway(&mut self, bytes: &[u8]) {
        drop(self.stream.write_all(bytes));
    }

    /// Says that nothing more will be sent.
    pub(crate) fn half_close(&self) {
        self.stream.shutdown(Shutdown::Write).expect("it is open");
    }

    /// Ends it with a reset.
    pub(crate) fn reset(self) {
        reset(self.stream);
    }

    /// Keeps the system from taking an answer that nobody reads.
    pub(crate) fn take_little_at_once(&self) {
        let set = socket2::SockRef::from(&self.stream).set_recv_buffer_size(64 * 1024);
        set.expect("it is open");
    }

    pub(crate) fn set_patience(&self, patience: Duration) {
        let set = self.stream.set_read_timeout(Some(patience));
        set.expect("a time-out");
    }

    /// Whether the other side has closed, with whatever it said before thrown away.
    pub(crate) fn is_closed_by_peer(&mut self) -> bool {
        let mut chunk = [0; 4096];
        loop {
            match self.stream.read(&mut chunk) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) => return error.kind() == io::ErrorKind::ConnectionReset,
            }
        }
    }

    /// Reads one final answer; interim ones are skipped.
    pub(crate) fn read(&mut self) -> io::Result<Answer> {
        self.read_answer_to("POST")
    }

    pub(crate) fn read_answer_to(&mut self, method: &str) -> io::Result<Answer> {
        loop {
            let answer = self.read_next(method)?;
            if !(100..200).contains(&answer.status) {
                return Ok(answer);
            }
        }
    }

    /// Reads the next answer, be it an interim one.
    pub(crate) fn read_next(&mut self, method: &str) -> io::Result<Answer> {
        let (status, fields) = self.head()?;
        let body = match status {
            100..200 => Vec::new(),
            _ => self.content(method, status, &fields)?,
        };
        Ok(Answer {
            status,
            fields,
            body,
        })
    }

    /// Waits for the orderly end of the connection, before which nothing more may come.
    pub(crate) fn read_end(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() && !self.fill()? {
            return Ok(());
        }
        let rest = String::from_utf8_lossy(&self.buffer);
        Err(io::Error::other(format!("{rest:?} instead of an end")))
    }

    /// Everything that comes until the end, be that orderly or not.
    pub(crate) fn read_out(mut self) -> Vec<u8> {
        while matches!(self.fill(), Ok(true)) {}
        self.buffer
    }

    /// Everything up to `end`, as text.
    pub(crate) fn read_until(&mut self, end: &[u8]) -> String {
        let read = self.until(end).expect("it comes");
        String::from_utf8_lossy(&read).into_owned()
    }

    fn head(&mut self) -> io::Result<(u16, Vec<(String, String)>)> {
        let head = self.until(b"\r\n\r\n")?;
        let text = String::from_utf8_lossy(&head).into_owned();
        let mut lines = text.trim_end().split("\r\n");
        let status = lines
            .next()
            .and_then(|line| line.split(' ').nth(1))
            .and_then(|code| code.parse().ok())
            .ok_or_else(|| io::Error::other(format!("no status: {text}")))?;
        let fields = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
            .collect();
        Ok((status, fields))
    }

    fn content(
        &mut self,
        method: &str,
        status: u16,
        fields: &[(String, String)],
    ) -> io::Result<Vec<u8>> {
        let find = |name: &str| {
            let mut lines = fields.iter();
            lines.find(|(field, _)| field.eq_ignore_ascii_case(name))
        };
        if method == "HEAD" || status == 204 || status == 304 {
            return Ok(Vec::new());
        }
        if find("transfer-encoding").is_some() {
            return self.chunks();
        }
        if let Some((_, length)) = find("content-length") {
            return self.exactly(length.parse().map_err(io::Error::other)?);
        }
        while self.fill()? {}
        Ok(std::mem::take(&mut self.buffer))
    }

    fn chunks(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line = self.until(b"\r\n")?;
            let text = String::from_utf8_lossy(&line);
            let size = text.trim().split(';').next().unwrap_or_default();
            let size = usize::from_str_radix(size, 16).map_err(io::Error::other)?;
            if size == 0 {
                while self.until(b"\r\n")?.len() > 2 {}
                return Ok(body);
            }
            body.extend_from_slice(&self.exactly(size)?);
            self.exactly(2)?;
        }
    }

    fn until(&mut self, end: &[u8]) -> io::Result<Vec<u8>> {
        loop {
            let found = self
                .buffer
                .windows(end.len())
                .position(|bytes| bytes == end);
            if let Some(at) = found {
                return Ok(self.buffer.drain(..at + end.len()).collect());
            }
            self.need()?;
        }
    }

    fn exactly(&mut self, count: usize) -> io::Result<Vec<u8>> {
        while self.buffer.len() < count {
            self.need()?;
        }
        Ok(self.buffer.drain(..count).collect())
    }

    fn need(&mut self) -> io::Result<()> {
        if self.fill()? {
            return Ok(());
        }
        let message = format!("cut after {:?}", String::from_utf8_lossy(&self.buffer));
        Err(io::Error::new(io::ErrorKind::UnexpectedEof, message))
    }

    fn fill(&mut self) -> io::Result<bool> {
        let mut chunk = [0; 16 * 1024];
        let count = self.stream.read(&mut chunk)?;
        self.buffer.extend_from_slice(&chunk[..count]);
        Ok(count > 0)
    }
}

/// Ends a connection with a reset rather than an orderly end.
pub(crate) fn reset(stream: TcpStream) {
    let linger = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
    linger.expect("it is open");
    drop(stream);
}
