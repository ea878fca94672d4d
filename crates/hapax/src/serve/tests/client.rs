//! Clients: each sends its operations again until it knows, tells what it was told, and sometimes leaves.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use hapax_check::evidence::Event;
use hapax_core::problem::TYPE_BASE;

use super::evidence::{Evidence, digest};
use super::network::Network;
use super::random::Random;

/// Longer than any answer of a gateway takes while nothing is wrong.
const PATIENCE: Duration = Duration::from_secs(5);
/// The fields that a gateway keeps and the upstream sends.
const KEPT: [&str; 3] = ["content-type", "etag", "location"];

/// One operation as its client means it.
#[derive(Debug, Clone)]
pub(super) struct Intent {
    pub(super) key: String,
    pub(super) scope: String,
    pub(super) path: String,
    pub(super) content: Bytes,
}

/// What makes two requests the same.
pub(super) fn payload_of(path: &str, content: &[u8]) -> String {
    digest(&[path.as_bytes(), b"\n", content].concat())
}

/// What all clients of a run share.
pub(super) struct Clients {
    pub(super) evidence: Arc<Evidence>,
    pub(super) network: Arc<Network>,
    pub(super) gateways: Vec<String>,
    pub(super) port: u16,
    pub(super) intents: Vec<Intent>,
    /// Of so many attempts one is left by its client; 0 for none.
    pub(super) one_left_in: u64,
    /// Of so many operations one uses a key for something else; 0 for none.
    pub(super) one_reused_in: u64,
}

/// How an attempt ended, as far as its client has to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Finally,
    ToTryAgain,
}

impl Clients {
    /// Sends some operations one after the other, each until it is known or was tried often enough.
    pub(super) async fn run(
        self: Arc<Self>,
        number: u64,
        mut random: Random,
        operations: u64,
    ) -> turmoil::Result {
        for _ in 0..operations {
            sleep(Duration::from_millis(random.below(250))).await;
            let mut intent = self.intents[random.index(self.intents.len())].clone();
            if self.one_reused_in != 0 && random.once_in(self.one_reused_in) {
                intent.content = Bytes::from_static(b"{\"something\":\"else\"}");
            }
            for _ in 0..random.between(1, 5) {
                let has_twin = random.once_in(4);
                let one = self.attempt(number, &intent, random.next());
                let told = if has_twin {
                    let other = self.attempt(number, &intent, random.next());
                    let (one, other) = tokio::join!(one, other);
                    if one == Told::Finally { one } else { other }
                } else {
                    one.await
                };
                if told == Told::Finally {
                    break;
                }
                sleep(Duration::from_millis(random.between(20, 400))).await;
            }
        }
        Ok(())
    }

    /// When all is well again, every node is asked for every operation.
    pub(super) async fn audit(self: Arc<Self>, number: u64, from: Duration) -> turmoil::Result {
        sleep(from).await;
        for intent in &self.intents {
            for gateway in &self.gateways {
                let asking = self.send(number, intent, gateway, Way::Http1, None, PATIENCE);
                asking.await;
            }
        }
        Ok(())
    }

    async fn attempt(&self, number: u64, intent: &Intent, seed: u64) -> Told {
        let mut random = Random::new(seed);
        let gateway = &self.gateways[random.index(self.gateways.len())];
        let way = if random.once_in(3) {
            Way::Http2
        } else {
            Way::Http1
        };
        let leaves = self.one_left_in != 0 && random.once_in(self.one_left_in);
        let (fault, patience) = if leaves {
            let patience = Duration::from_millis(random.below(200));
            (Some("client-leaves"), patience)
        } else {
            (None, PATIENCE)
        };
        self.send(number, intent, gateway, way, fault, patience)
            .await
    }

    /// One attempt, from its beginning to what its client knows then.
    async fn send(
        &self,
        client: u64,
        intent: &Intent,
        gateway: &str,
        way: Way,
        fault: Option<&str>,
        patience: Duration,
    ) -> Told {
        let op = self.evidence.next_op();
        self.evidence.tell(|at_us| Event::Invoke {
            at_us,
            client,
            op,
            key: intent.key.clone(),
            scope: intent.scope.clone(),
            payload: payload_of(&intent.path, &intent.content),
            fault: fault.map(str::to_owned),
        });
        let ended = timeout(patience, self.exchange(intent, gateway, way)).await;
        let event = match ended {
            Ok(Ok((status, headers, content))) => {
                said(client, op, status, &headers, &content, gateway)
            }
            Ok(Err(_)) => nobody_knows(client, op, None, "lost"),
            Err(_) => nobody_knows(client, op, None, "timed-out"),
        };
        let told = match &event {
            Event::Ok { .. } => Told::Finally,
            Event::Fail { kind, .. } if kind == "key-reused" => Told::Finally,
            _ => Told::ToTryAgain,
        };
        self.evidence.tell(|at| stamped(event, at));
        told
    }

    async fn exchange(
        &self,
        intent: &Intent,
        gateway: &str,
        way: Way,
    ) -> Result<(StatusCode, HeaderMap, Bytes), Box<dyn std::error::Error + Send + Sync>> {
        let connecting = self.network.connect(gateway, self.port, "client-resets");
        let io = TokioIo::new(connecting.await?);
        let authority = format!("{gateway}:{}", self.port);
        let request = Request::post(match way {
            Way::Http1 => intent.path.clone(),
            Way::Http2 => format!("http://{authority}{}", intent.path),
        })
        .header("idempotency-key", format!("\"{}\"", intent.key))
        .header("authorization", &intent.scope)
        .header("content-type", "application/json");
        let content = Full::new(intent.content.clone());
        let (response, _driver): (Response<Incoming>, Driver) = match way {
            Way::Http1 => {
                let (mut sender, connection) = http1::handshake(io).await?;
                let driver = Driver::of(connection);
                let request = request.header("host", authority).body(content)?;
                (sender.send_request(request).await?, driver)
            }
            Way::Http2 => {
                let executor = TokioExecutor::new();
                let (mut sender, connection) = http2::handshake(executor, io).await?;
                let driver = Driver::of(connection);
                (sender.send_request(request.body(content)?).await?, driver)
            }
        };
        let (parts, body) = response.into_parts();
        let content = body.collect().await?.to_bytes();
        Ok((parts.status, parts.headers, content))
    }
}

/// How a client speaks.
#[derive(Debug, Clone, Copy)]
enum Way {
    Http1,
    Http2,
}

/// Drives a connection until it is dropped: whoever leaves takes the connection along.
struct Driver(JoinHandle<()>);

impl Driver {
    fn of(connection: impl Future<Output = hyper::Result<()>> + Send + 'static) -> Self {
        Self(tokio::spawn(async {
            // The request hears of it.
            let _ = connection.await;
        }))
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What an answer says of its operation.
fn said(
    client: u64,
    op: u64,
    status: StatusCode,
    headers: &HeaderMap,
    content: &Bytes,
    gateway: &str,
) -> Event {
    let number = status.as_u16();
    let field = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let problem = field("content-type")
        .filter(|kind| *kind == "application/problem+json")
        .and_then(|_| serde_json::from_slice::<serde_json::Value>(content).ok())
        .and_then(|problem| Some(problem["type"].as_str()?.to_owned()));
    if let Some(problem) = problem {
        let kind = problem.strip_prefix(&format!("{TYPE_BASE}#"));
        let kind = kind.expect("the upstream answers no problems");
        return match kind {
            "outcome-unknown" => nobody_knows(client, op, Some(number), kind),
            _ => Event::Fail {
                at_us: 0,
                client,
                op,
                status: number,
                kind: kind.to_owned(),
            },
        };
    }
    if field("idempotency-status") == Some("unknown") {
        return nobody_knows(client, op, Some(number), "outcome-unknown");
    }
    if status == StatusCode::SERVICE_UNAVAILABLE {
        return Event::Fail {
            at_us: 0,
            client,
            op,
            status: number,
            kind: "released".to_owned(),
        };
    }
    let kept = |name: &&str| Some(((*name).to_owned(), field(name)?.to_owned()));
    Event::Ok {
        at_us: 0,
        client,
        op,
        status: number,
        replayed: field("idempotent-replayed") == Some("true"),
        body: digest(content),
        fields: KEPT.iter().filter_map(kept).collect(),
        node: Some(gateway.to_owned()),
    }
}

fn nobody_knows(client: u64, op: u64, status: Option<u16>, kind: &str) -> Event {
    Event::Info {
        at_us: 0,
        client,
        op,
        status,
        kind: kind.to_owned(),
    }
}

fn stamped(mut event: Event, at: u64) -> Event {
    if let Event::Ok { at_us, .. } | Event::Fail { at_us, .. } | Event::Info { at_us, .. } =
        &mut event
    {
        *at_us = at;
    }
    event
}
