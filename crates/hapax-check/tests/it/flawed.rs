//! A small order service that keeps every rule, or breaks one of them on purpose.

use std::collections::{HashMap, HashSet};
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// What is wrong with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flaw {
    None,
    NoRecords,
    LooksBeforeItWrites,
    ForgetsWhoHangsUp,
    ForgetsAtRestart,
    AnswersWithoutEffect,
    ActsOnTheHead,
    RunsOtherPayloads,
    SharesKeysBetweenCallers,
    ActsOnGet,
    LocksTheKey,
    ReplaysAnotherStatus,
    ReplaysOtherContent,
    ReplaysNoLocation,
    MarksNoReplay,
    FailsConcurrentRepeats,
    SaysNotWhen,
    ReplaysForOtherPayloads,
    NeedsNoKey,
    TakesAnyKey,
    KeepsTheKeyOfHalfARequest,
    SharesKeysBetweenPaths,
    RefusesInSilence,
    ForgetsWhoResets,
    LooksWhenTheyConnect,
    ActsOnHalfAHead,
}

#[derive(Default)]
struct State {
    effects: u64,
    records: HashMap<String, Record>,
}

struct Record {
    payload: String,
    /// None while the first attempt runs.
    order: Option<u64>,
}

/// A server that lives as long as the test.
pub(crate) struct Server {
    pub(crate) url: String,
}

struct Request {
    method: String,
    path: String,
    fields: Vec<(String, String)>,
    body: String,
}

impl Request {
    fn field(&self, name: &str) -> Option<&str> {
        let found = self.fields.iter().find(|(field, _)| field == name);
        found.map(|(_, value)| value.as_str())
    }
}

impl Server {
    /// An order takes as long as `work`.
    pub(crate) fn start(flaw: Flaw, work: Duration) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(Mutex::new(State::default()));
        let one_at_a_time = Arc::new(Mutex::new(()));
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let known = state.lock().unwrap().records.keys().cloned().collect();
                let mut shop = Shop {
                    flaw,
                    work,
                    state: Arc::clone(&state),
                    one_at_a_time: Arc::clone(&one_at_a_time),
                    known,
                };
                thread::spawn(move || shop.serve(stream));
            }
        });
        Self { url }
    }
}

/// One connection, one request.
struct Shop {
    flaw: Flaw,
    work: Duration,
    state: Arc<Mutex<State>>,
    /// Held until a client has gone, by those that look how it goes.
    one_at_a_time: Arc<Mutex<()>>,
    /// The records that there were when the client connected.
    known: HashSet<String>,
}

fn problem(status: u16, more: &str) -> String {
    let body = r#"{"title":"refused"}"#;
    format!(
        "HTTP/1.1 {status} X\r\nContent-Type: application/problem+json\r\n{more}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

impl Shop {
    fn is(&self, flaw: Flaw) -> bool {
        self.flaw == flaw
    }

    fn serve(&mut self, mut stream: TcpStream) {
        let mut seen = Vec::new();
        let mut has_acted = false;
        let request = loop {
            if let Some((request, length)) = parse(&seen) {
                if self.is(Flaw::ActsOnTheHead) && request.method == "POST" && !has_acted {
                    self.state.lock().unwrap().effects += 1;
                    has_acted = true;
                }
                if request.body.len() >= length {
                    break request;
                }
            }
            let mut buffer = [0; 4096];
            match stream.read(&mut buffer) {
                Ok(0) | Err(_) => return self.cut(&seen),
                Ok(n) => seen.extend_from_slice(&buffer[..n]),
            }
        };
        if self.is(Flaw::ForgetsWhoResets) {
            return self.forget_if_reset(&request, stream);
        }
        let answer = self.answer(&request, &stream);
        drop(stream.write_all(answer.as_bytes()));
    }

    /// Takes the record back when the client does not take the answer.
    fn forget_if_reset(&self, request: &Request, mut stream: TcpStream) {
        let one_at_a_time = Arc::clone(&self.one_at_a_time);
        let _held = one_at_a_time.lock().unwrap();
        let answer = self.answer(request, &stream);
        drop(stream.write_all(answer.as_bytes()));
        stream
            .set_read_timeout(Some(Duration::from_secs(2)))
            .unwrap();
        if let Err(error) = stream.read(&mut [0])
            && error.kind() == ErrorKind::ConnectionReset
        {
            let key = self.record_key(request, request.field("idempotency-key").unwrap_or(""));
            self.state.lock().unwrap().records.remove(&key);
        }
    }

    /// A request that ended early.
    fn cut(&self, seen: &[u8]) {
        if self.is(Flaw::ActsOnHalfAHead) && !seen.is_empty() && parse(seen).is_none() {
            self.state.lock().unwrap().effects += 1;
        }
        if let Some((request, _)) = parse(seen)
            && self.is(Flaw::KeepsTheKeyOfHalfARequest)
        {
            let record = Record {
                payload: String::new(),
                order: None,
            };
            let key = self.record_key(&request, request.field("idempotency-key").unwrap_or(""));
            self.state.lock().unwrap().records.insert(key, record);
        }
    }

    fn record_key(&self, request: &Request, key: &str) -> String {
        let caller = match self.is(Flaw::SharesKeysBetweenCallers) {
            true => "",
            false => request.field("authorization").unwrap_or(""),
        };
        format!("{caller}\n{key}")
    }

    fn answer(&self, request: &Request, stream: &TcpStream) -> String {
        match (request.method.as_str(), request.path.as_str()) {
            ("GET", "/count") => {
                let body = format!("{{\"count\":{}}}", self.state.lock().unwrap().effects);
                format!(
                    "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
                    body.len()
                )
            }
            ("GET", _) => {
                if self.is(Flaw::ActsOnGet) {
                    self.state.lock().unwrap().effects += 1;
                }
                "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}".into()
            }
            ("POST", "/restart") => {
                if self.is(Flaw::ForgetsAtRestart) {
                    self.state.lock().unwrap().records.clear();
                }
                "HTTP/1.1 204 No Content\r\n\r\n".into()
            }
            ("POST", "/orders") => self.order(request, stream),
            ("POST", _) if self.is(Flaw::SharesKeysBetweenPaths) => self.order(request, stream),
            _ => problem(404, ""),
        }
    }

    fn order(&self, request: &Request, stream: &TcpStream) -> String {
        let Some(key) = request.field("idempotency-key") else {
            return match self.is(Flaw::NeedsNoKey) {
                true => self.run(None, stream),
                false => problem(400, ""),
            };
        };
        let is_key =
            key.len() > 2 && key.len() <= 257 && key.starts_with('"') && key.ends_with('"');
        if !is_key && !self.is(Flaw::TakesAnyKey) {
            return problem(400, "");
        }
        let key = self.record_key(request, key);
        let mut state = self.state.lock().unwrap();
        let held = state.records.get(&key);
        let is_seen = match self.flaw {
            Flaw::NoRecords => false,
            Flaw::LooksWhenTheyConnect => self.known.contains(&key),
            _ => true,
        };
        if let Some(record) = held.filter(|_| is_seen) {
            let is_other = record.payload != request.body;
            match (record.order, self.flaw) {
                (None, Flaw::KeepsTheKeyOfHalfARequest) => {
                    return problem(409, "Retry-After: 0\r\n");
                }
                (_, Flaw::RunsOtherPayloads) if is_other => {}
                (Some(order), Flaw::ReplaysForOtherPayloads) if is_other => {
                    return self.replay(order);
                }
                (_, Flaw::RefusesInSilence) if is_other => {
                    return "HTTP/1.1 422 X\r\nContent-Length: 0\r\n\r\n".into();
                }
                _ if is_other => return problem(422, ""),
                (None, Flaw::FailsConcurrentRepeats) => return problem(500, ""),
                (None, Flaw::SaysNotWhen) => return problem(409, ""),
                (None, _) => return problem(409, "Retry-After: 1\r\n"),
                (Some(_), Flaw::LocksTheKey) => return problem(409, "Retry-After: 0\r\n"),
                (Some(order), _) => return self.replay(order),
            }
        }
        if !self.is(Flaw::LooksBeforeItWrites) {
            let record = Record {
                payload: request.body.clone(),
                order: None,
            };
            state.records.insert(key.clone(), record);
        }
        drop(state);
        self.run(Some((key, request.body.clone())), stream)
    }

    fn run(&self, record: Option<(String, String)>, stream: &TcpStream) -> String {
        thread::park_timeout(self.work);
        let mut state = self.state.lock().unwrap();
        let is_idle = self.is(Flaw::AnswersWithoutEffect) && state.effects >= 2;
        if !is_idle && !self.is(Flaw::ActsOnTheHead) {
            state.effects += 1;
        }
        let order = state.effects;
        if let Some((key, payload)) = record {
            let record = Record {
                payload,
                order: Some(order),
            };
            if self.is(Flaw::ForgetsWhoHangsUp) && has_left(stream) {
                state.records.remove(&key);
            } else {
                state.records.insert(key, record);
            }
        }
        created(
            201,
            order,
            true,
            "",
            &format!("{{\"id\":\"order-{order}\"}}"),
        )
    }

    fn replay(&self, order: u64) -> String {
        let status = if self.is(Flaw::ReplaysAnotherStatus) {
            200
        } else {
            201
        };
        let mark = match self.is(Flaw::MarksNoReplay) {
            true => "",
            false => "Idempotent-Replayed: true\r\n",
        };
        let space = if self.is(Flaw::ReplaysOtherContent) {
            " "
        } else {
            ""
        };
        let body = format!("{{{space}\"id\":\"order-{order}\"}}");
        created(
            status,
            order,
            !self.is(Flaw::ReplaysNoLocation),
            mark,
            &body,
        )
    }
}

fn created(status: u16, order: u64, has_location: bool, more: &str, body: &str) -> String {
    let location = match has_location {
        true => format!("Location: /orders/order-{order}\r\n"),
        false => String::new(),
    };
    format!(
        "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\n{location}{more}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// Whether the other end has closed.
fn has_left(stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    let left = match stream.peek(&mut [0]) {
        Ok(n) => n == 0,
        Err(error) => error.kind() != ErrorKind::WouldBlock,
    };
    stream.set_nonblocking(false).unwrap();
    left
}

/// The request as far as it has arrived, and how long its content is to be; nothing before the end of the head.
fn parse(bytes: &[u8]) -> Option<(Request, usize)> {
    let text = String::from_utf8_lossy(bytes);
    let (head, body) = text.split_once("\r\n\r\n")?;
    let mut lines = head.lines();
    let mut words = lines.next()?.split(' ');
    let request = Request {
        method: words.next()?.to_owned(),
        path: words.next()?.to_owned(),
        fields: lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect(),
        body: body.to_owned(),
    };
    let length = request
        .field("content-length")
        .map_or(0, |n| n.parse().unwrap());
    Some((request, length))
}
