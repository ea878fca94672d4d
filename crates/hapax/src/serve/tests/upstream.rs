//! An upstream that acts once a request has arrived whole, writes every effect down before it answers, and fails around it.

use std::error::Error;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use turmoil::net::TcpListener;

use crate::gateway::listener::Accept;

use super::evidence::{Evidence, digest};
use super::network::{Listener, Network};
use super::random::Random;

/// Where it listens.
pub(super) const PORT: u16 = 80;

/// Longer than this it may be too slow for its gateway, whose patience has the network's share in it.
const SLOW: Duration = Duration::from_millis(250);

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Plan {
    /// It acts and says so.
    Acts,
    /// 422: nothing happens.
    Rejects,
    /// 503: nothing happens, and the key is given back.
    IsBusy,
    /// The connection ends before it has acted.
    BreaksBefore,
    /// The connection ends after it has acted.
    BreaksAfter,
    /// It acts, and its answer ends in the middle.
    CutsAnswer,
    /// 500 after it has acted.
    FailsAfter,
    /// 500 before it has acted.
    FailsBefore,
}

impl Plan {
    const TROUBLE: [Self; 7] = [
        Self::Rejects,
        Self::IsBusy,
        Self::BreaksBefore,
        Self::BreaksAfter,
        Self::CutsAnswer,
        Self::FailsAfter,
        Self::FailsBefore,
    ];

    fn acts(self) -> bool {
        matches!(
            self,
            Self::Acts | Self::BreaksAfter | Self::CutsAnswer | Self::FailsAfter
        )
    }

    /// What it is called as a fault; an answer of its own is none.
    fn fault(self) -> Option<&'static str> {
        match self {
            Self::Acts | Self::Rejects | Self::IsBusy => None,
            Self::BreaksBefore | Self::BreaksAfter => Some("upstream-breaks"),
            Self::CutsAnswer => Some("upstream-cuts"),
            Self::FailsAfter | Self::FailsBefore => Some("upstream-fails"),
        }
    }
}

/// The upstream, as far as it outlives its crashes.
pub(super) struct Upstream {
    pub(super) evidence: Arc<Evidence>,
    pub(super) network: Arc<Network>,
    pub(super) random: Mutex<Random>,
    /// Of so many requests one is in trouble; 0 for none.
    pub(super) one_trouble_in: u64,
    /// It takes at most so long before and after it acts.
    pub(super) slowness_ms: u64,
    pub(super) is_calm: AtomicBool,
    pub(super) refusals: AtomicU64,
}

impl Upstream {
    /// Listens until it crashes.
    pub(super) async fn run(self: Arc<Self>) -> turmoil::Result {
        let listener = Listener {
            listener: TcpListener::bind(("0.0.0.0", PORT)).await?,
            network: Arc::clone(&self.network),
        };
        loop {
            let (stream, _) = listener.accept().await?;
            let upstream = Arc::clone(&self);
            tokio::spawn(async move {
                let service = service_fn(move |request| Arc::clone(&upstream).serve(request));
                let serving = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                // A connection that breaks is what the run is about.
                let _ = serving.await;
            });
        }
    }

    /// Handles a request in a task of its own: hyper drops its future when the caller leaves, and an upstream that goes on
    /// is the harder case.
    async fn serve(
        self: Arc<Self>,
        request: Request<Incoming>,
    ) -> Result<Response<Answer>, Box<dyn Error + Send + Sync>> {
        let (parts, body) = request.into_parts();
        let content = body.collect().await?.to_bytes();
        let field = |name: &str| {
            let value = parts
                .headers
                .get(name)
                .and_then(|value| value.to_str().ok());
            value.unwrap_or_default().to_owned()
        };
        let (key, scope) = (field("idempotency-key"), field("authorization"));
        let target = parts
            .uri
            .path_and_query()
            .map_or("/", |target| target.as_str());
        let payload = super::client::payload_of(target, &content);
        let handling = tokio::spawn(self.handle(key.trim_matches('"').to_owned(), scope, payload));
        handling.await?
    }

    async fn handle(
        self: Arc<Self>,
        key: String,
        scope: String,
        payload: String,
    ) -> Result<Response<Answer>, Box<dyn Error + Send + Sync>> {
        let (plan, before, after, length) = self.draw();
        if before + after > SLOW {
            self.evidence.strikes("upstream-slow", None);
        }
        tokio::time::sleep(before).await;
        if let Some(fault) = plan.fault() {
            self.evidence.strikes(fault, None);
        }
        let text = |number| {
            let mut text = format!("effect {number} of {payload}\n").into_bytes();
            text.resize(text.len().max(length), b'.');
            text
        };
        let acted = plan
            .acts()
            .then(|| self.evidence.acts((&key, &scope, &payload), text));
        tokio::time::sleep(after).await;
        let (effect, text) = acted.unzip();
        let refusal = self.refusals.fetch_add(1, Ordering::Relaxed);
        let refuse = |why: &str| format!("{why}, refusal {refusal}").into_bytes();
        let (status, content) = match plan {
            Plan::Acts | Plan::CutsAnswer => (StatusCode::CREATED, text.unwrap_or_default()),
            Plan::Rejects => (StatusCode::UNPROCESSABLE_ENTITY, refuse("no such thing")),
            Plan::IsBusy => (StatusCode::SERVICE_UNAVAILABLE, refuse("later")),
            Plan::FailsAfter | Plan::FailsBefore => {
                (StatusCode::INTERNAL_SERVER_ERROR, refuse("sorry"))
            }
            Plan::BreaksBefore | Plan::BreaksAfter => return Err("it breaks".into()),
        };
        let answer = Answer {
            is_cut: plan == Plan::CutsAnswer,
            length: content.len(),
            content: Some(content.clone().into()),
        };
        let builder = Response::builder()
            .status(status)
            .header("content-type", "text/plain")
            .header("etag", format!("\"{}\"", digest(&content)));
        let builder = match effect {
            Some(number) => builder.header("location", format!("/orders/{number}")),
            None => builder,
        };
        Ok(builder.body(answer)?)
    }

    fn draw(&self) -> (Plan, Duration, Duration, usize) {
        let mut random = self.random.lock().unwrap();
        let is_calm = self.is_calm.load(Ordering::Relaxed);
        let is_troubled = self.one_trouble_in != 0 && random.once_in(self.one_trouble_in);
        let plan = if is_troubled && !is_calm {
            Plan::TROUBLE[random.index(Plan::TROUBLE.len())]
        } else {
            Plan::Acts
        };
        let slowness = if is_calm { 10 } else { self.slowness_ms };
        let mut pause = || Duration::from_millis(random.below(slowness + 1));
        let (before, after) = (pause(), pause());
        let length = usize::try_from(random.below(3_000)).unwrap();
        (plan, before, after, length)
    }
}

/// The content of an answer, whole or cut in the middle.
pub(super) struct Answer {
    content: Option<Bytes>,
    length: usize,
    is_cut: bool,
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let length = self.length;
        match self.content.take() {
            Some(content) if self.is_cut => {
                Poll::Ready(Some(Ok(Frame::data(content.slice(..length / 2)))))
            }
            Some(content) => Poll::Ready(Some(Ok(Frame::data(content)))),
            None if self.is_cut => Poll::Ready(Some(Err("it is cut".into()))),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.content.is_none() && !self.is_cut
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.length as u64)
    }
}
