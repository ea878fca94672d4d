//! One client: sends an attempt, sees it through or leaves, and takes down what became of it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::event::{Recorder, Seen, digest};
use super::node::Node;
use crate::answer::{self, Answer, Progress};
use crate::evidence::Event;
use crate::random::Random;

/// How long a client waits for an answer: less than some faults last.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long where nothing is broken: then nobody may hang, however busy this machine is.
const CALM_PATIENCE: Duration = Duration::from_secs(40);
/// The fields that every repeat must have as the first answer had them.
const KEPT: [&str; 5] = ["content-type", "location", "etag", "x-effect", "x-part"];

/// An answer that was given although its record could not be written yet.
pub(crate) const NOT_STORED: &str = "answer-not-stored";

/// What is asked for.
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    pub(crate) key: String,
    pub(crate) scope: String,
    pub(crate) payload: String,
}

impl Ask {
    fn bytes(&self) -> Vec<u8> {
        format!(
            "POST /orders HTTP/1.1\r\nHost: campaign.test\r\nAuthorization: {}\r\nIdempotency-Key: {}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{}",
            self.scope,
            self.key,
            self.payload.len(),
            self.payload
        )
        .into_bytes()
    }
}

/// Whether the client sees its request through.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Leave {
    Never,
    /// Ends the connection after so many bytes of the request, or one before its end.
    Cut(usize),
    /// Sends all of it and ends the connection so long after.
    After(Duration),
    /// Reads so many bytes of the answer and resets the connection.
    Read(usize),
}

impl Leave {
    fn name(self) -> Option<&'static str> {
        match self {
            Self::Never => None,
            Self::Cut(_) => Some("cut-request"),
            Self::After(_) => Some("client-leaves"),
            Self::Read(_) => Some("client-resets"),
        }
    }
}

/// What became of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fate {
    /// A final answer.
    Final(Seen),
    /// Surely not executed by this attempt, and why. The status is 0 where there was no answer.
    Refused(u16, String),
    /// Nobody knows, and why not.
    Unknown(Option<u16>, String),
    /// There was nobody to send it to.
    Unsent,
}

/// A client with at most one connection to each gateway at a time.
pub(crate) struct Caller {
    pub(crate) client: u64,
    recorder: Arc<Recorder>,
    nodes: Arc<Vec<Node>>,
    connection: Option<(SocketAddr, TcpStream)>,
    patience: Duration,
}

impl Caller {
    pub(crate) fn new(
        client: u64,
        recorder: &Arc<Recorder>,
        nodes: &Arc<Vec<Node>>,
        is_calm: bool,
    ) -> Self {
        Self {
            client,
            patience: if is_calm { CALM_PATIENCE } else { PATIENCE },
            recorder: Arc::clone(recorder),
            nodes: Arc::clone(nodes),
            connection: None,
        }
    }

    /// Sends one attempt to one of the gateways.
    pub(crate) async fn attempt(&mut self, ask: &Ask, leave: Leave, random: &mut Random) -> Fate {
        let turn = random.within(0, self.nodes.len().saturating_sub(1));
        let Some((node, address)) = self.nodes.get(turn).and_then(Node::listening) else {
            return Fate::Unsent;
        };
        let Ok(stream) = self.open(address).await else {
            return Fate::Unsent;
        };
        let (client, op) = (self.client, self.recorder.next_op());
        let fault = leave.name();
        if let Some(fault) = fault {
            self.recorder.count(fault);
        }
        self.recorder.add(|at_us| Event::Invoke {
            at_us,
            client,
            op,
            key: ask.key.clone(),
            scope: ask.scope.clone(),
            payload: digest(ask.payload.as_bytes()),
            fault: fault.map(str::to_owned),
        });
        let fate = match exchange(stream, ask, leave, self.patience).await {
            Ok((stream, answer)) => {
                let is_closing = answer.field("connection") == Some("close");
                self.connection = (!is_closing).then_some((address, stream));
                classify(&answer, ask)
            }
            Err(fate) => fate,
        };
        self.take_down(op, fate.clone(), &node);
        fate
    }

    fn take_down(&self, op: u64, fate: Fate, node: &str) {
        let (client, recorder) = (self.client, &self.recorder);
        match fate {
            Fate::Final(seen) => {
                // The gateway says itself that its store has not taken the answer: P24.
                let is_stored = seen.stored;
                if !is_stored {
                    recorder.fault(NOT_STORED, node);
                }
                recorder.add(|at_us| Event::Ok {
                    at_us,
                    client,
                    op,
                    status: seen.status,
                    replayed: seen.replayed,
                    body: seen.body,
                    fields: seen.fields,
                    node: Some(node.to_owned()),
                });
                if !is_stored {
                    recorder.healed(NOT_STORED, node);
                }
            }
            Fate::Refused(status, kind) => recorder.add(|at_us| Event::Fail {
                at_us,
                client,
                op,
                status,
                kind,
            }),
            Fate::Unknown(status, kind) => recorder.add(|at_us| Event::Info {
                at_us,
                client,
                op,
                status,
                kind,
            }),
            Fate::Unsent => {}
        }
    }

    async fn open(&mut self, address: SocketAddr) -> io::Result<TcpStream> {
        if let Some((to, stream)) = self.connection.take()
            && to == address
        {
            return Ok(stream);
        }
        let stream = timeout(self.patience, TcpStream::connect(address))
            .await
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

fn lost() -> Fate {
    Fate::Unknown(None, "lost".into())
}

/// The answer and the connection; or what became of it without one.
async fn exchange(
    mut stream: TcpStream,
    ask: &Ask,
    leave: Leave,
    patience: Duration,
) -> Result<(TcpStream, Answer), Fate> {
    let bytes = ask.bytes();
    let end = match leave {
        Leave::Cut(at) => at.min(bytes.len().saturating_sub(1)),
        _ => bytes.len(),
    };
    let piece = bytes.get(..end).unwrap_or(&bytes);
    let written = timeout(patience, stream.write_all(piece)).await;
    match leave {
        Leave::Cut(at) => {
            if at % 2 == 0 {
                drop(stream.set_zero_linger());
            }
            // Not all of it was sent, so it cannot have been executed (P20).
            return Err(Fate::Refused(0, "request-cut".into()));
        }
        Leave::After(pause) => {
            sleep(pause).await;
            if pause.as_millis() % 2 == 0 {
                drop(stream.set_zero_linger());
            }
            return Err(lost());
        }
        Leave::Never | Leave::Read(_) => {}
    }
    // A gateway that has heard enough may have closed: what it said is still there to be read.
    drop(written);
    let most = match leave {
        Leave::Read(most) => most,
        _ => usize::MAX,
    };
    let mut received = Vec::new();
    let deadline = Instant::now() + patience;
    loop {
        if received.len() >= most {
            drop(stream.set_zero_linger());
            return Err(lost());
        }
        match timeout_at(deadline, stream.read_buf(&mut received)).await {
            Ok(Ok(1..)) => {}
            Ok(Ok(_) | Err(_)) => return Err(lost()),
            Err(_) => return Err(Fate::Unknown(None, "timed-out".into())),
        }
        match answer::read(&received, "POST", false) {
            Progress::Complete(answer) => return Ok((stream, answer)),
            Progress::Garbage => return Err(Fate::Unknown(None, "unexpected-garbage".into())),
            Progress::Partial(_) | Progress::Head => {}
        }
    }
}

fn classify(answer: &Answer, ask: &Ask) -> Fate {
    if answer.field("content-type") == Some("application/problem+json") {
        return problem(answer);
    }
    let status = answer.status;
    match status {
        200 | 201 | 402 => Fate::Final(seen(answer, ask)),
        429 | 503 => Fate::Refused(status, "released".into()),
        // The upstream's own, and its replays.
        500 => Fate::Unknown(Some(status), "outcome-unknown".into()),
        _ => Fate::Unknown(Some(status), format!("unexpected-{status}")),
    }
}

fn problem(answer: &Answer) -> Fate {
    let kind = answer
        .json()
        .and_then(|json| Some(json.get("type")?.as_str()?.rsplit('#').next()?.to_owned()))
        .unwrap_or_default();
    let status = answer.status;
    match kind.as_str() {
        "outcome-unknown" => Fate::Unknown(Some(status), kind),
        "in-progress"
        | "key-reused"
        | "store-unavailable"
        | "overloaded"
        | "upstream-unreachable"
        | "request-timeout"
        | "request-malformed" => Fate::Refused(status, kind),
        // Nothing that is sent here deserves any other.
        _ => Fate::Unknown(Some(status), format!("unexpected-{status}-{kind}")),
    }
}

fn seen(answer: &Answer, ask: &Ask) -> Seen {
    // What is in the content belongs to this caller's request, or somebody else's answer came.
    let is_own = answer.json().is_some_and(|json| {
        json.get("key").and_then(|key| key.as_str()) == Some(&ask.key)
            && json.get("payload").and_then(|payload| payload.as_str())
                == Some(&digest(ask.payload.as_bytes()))
    });
    let mut fields: Vec<(String, String)> = answer
        .fields
        .iter()
        .filter(|(name, _)| KEPT.contains(&name.as_str()))
        .cloned()
        .collect();
    if !is_own {
        fields.push(("foreign".into(), "content".into()));
    }
    Seen {
        status: answer.status,
        replayed: answer.field("idempotent-replayed") == Some("true"),
        stored: answer.field("idempotency-expires").is_some(),
        body: digest(&answer.body),
        fields,
    }
}
