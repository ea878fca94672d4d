//! A shop behind the layer: counts its effects, and acts as it is told.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use tokio::sync::Notify;
use tower::{Layer, Service, ServiceExt};

use hapax_core::policy::Policy;
use hapax_core::secret::Secret;
use hapax_core::time::Timestamp;
use hapax_store::{Limits as StoreLimits, ManualClock, MemoryStore};
use hapax_tower::{
    BoxError, HapaxLayer, HapaxService, Limits, NotSent, Options, RequestBody, ResponseBody,
};

/// What the shop does with a request.
#[derive(Clone)]
pub(crate) enum Act {
    /// Has its effect, then waits to be told to answer 201.
    Hold,
    /// Has its effect, then panics.
    Panic,
    /// Fails before anything happened.
    NotSent,
    /// Has its effect and answers with this status.
    Answer(u16),
}

/// What to do, and what releases it where it holds.
type Script = VecDeque<(Act, Arc<Notify>)>;

#[derive(Clone, Default)]
struct Inner {
    acts: Arc<Mutex<Script>>,
    effects: Arc<AtomicUsize>,
    called: Arc<Notify>,
}

impl Service<Request<RequestBody<Full<Bytes>>>> for Inner {
    type Response = Response<Full<Bytes>>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<RequestBody<Full<Bytes>>>) -> Self::Future {
        let inner = self.clone();
        Box::pin(async move { inner.answer(request).await })
    }
}

impl Inner {
    async fn answer(
        self,
        request: Request<RequestBody<Full<Bytes>>>,
    ) -> Result<Response<Full<Bytes>>, BoxError> {
        if *request.method() == Method::OPTIONS {
            return Ok(Response::builder()
                .header("access-control-allow-origin", "https://shop.example")
                .header("access-control-allow-headers", "content-type")
                .body(Full::default())?);
        }
        let attempt = request.headers().get("hapax-attempt").cloned();
        let content = request.into_body().collect().await?.to_bytes();
        let act = self.acts.lock().expect("no panic").pop_front();
        let (act, release) = act.unwrap_or((Act::Answer(201), Arc::default()));
        if matches!(act, Act::NotSent) {
            return Err(Box::new(NotSent {
                timed_out: false,
                source: "refused".into(),
            }));
        }
        let number = self.effects.fetch_add(1, Ordering::SeqCst) + 1;
        self.called.notify_waiters();
        let status = match act {
            Act::Panic => panic!("the shop burns"),
            Act::Hold => {
                release.notified().await;
                StatusCode::CREATED
            }
            Act::Answer(status) => StatusCode::from_u16(status)?,
            Act::NotSent => StatusCode::OK,
        };
        let mut response = Response::builder()
            .status(status)
            .header("hapax-outcome", "as usual");
        if let Some(attempt) = attempt {
            response = response.header("x-attempt-seen", attempt);
        }
        let text = format!("order {number}: {}", String::from_utf8_lossy(&content));
        Ok(response.body(Full::from(text))?)
    }
}

/// The shop with the layer in front of it.
#[derive(Clone)]
pub(crate) struct Shop {
    inner: Inner,
    clock: Arc<ManualClock>,
    service: HapaxService<MemoryStore, Inner>,
}

pub(crate) fn layer(policy: Policy, limits: Limits) -> HapaxLayer<MemoryStore> {
    layer_with(policy, limits, clock())
}

fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::new(Timestamp::from_millis(1_700_000_000_000)))
}

fn layer_with(policy: Policy, limits: Limits, clock: Arc<ManualClock>) -> HapaxLayer<MemoryStore> {
    let store = MemoryStore::new(clock, StoreLimits::default(), Secret::from_bytes([1; 32]));
    let options = Options {
        limits,
        ..Options::default()
    };
    HapaxLayer::new(store, Arc::new(policy), Arc::new(()), options)
}

impl Shop {
    pub(crate) fn new(policy: Policy) -> Self {
        Self::with_limits(policy, Limits::default())
    }

    pub(crate) fn with_limits(policy: Policy, limits: Limits) -> Self {
        let (inner, clock) = (Inner::default(), clock());
        let service = layer_with(policy, limits, Arc::clone(&clock)).layer(inner.clone());
        Self {
            inner,
            clock,
            service,
        }
    }

    /// Tells the shop what to do next; the returned handle releases a held answer.
    pub(crate) fn next(&self, act: Act) -> Arc<Notify> {
        let release = Arc::new(Notify::new());
        self.inner
            .acts
            .lock()
            .expect("no panic")
            .push_back((act, Arc::clone(&release)));
        release
    }

    pub(crate) fn effects(&self) -> usize {
        self.inner.effects.load(Ordering::SeqCst)
    }

    pub(crate) async fn send(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Response<ResponseBody<Full<Bytes>>> {
        self.service
            .clone()
            .oneshot(request)
            .await
            .unwrap_or_else(|error| panic!("{error}"))
    }

    /// Lets the store's clock and the timers run on together.
    pub(crate) async fn pass(&self, duration: Duration) {
        self.clock.advance(duration);
        tokio::time::advance(duration).await;
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
    }

    /// Waits until the shop has been called `count` times.
    pub(crate) async fn until_called(&self, count: usize) {
        loop {
            let called = self.inner.called.notified();
            if self.effects() >= count {
                return;
            }
            called.await;
        }
    }

    /// Sends until the answer is a final one.
    pub(crate) async fn until_settled(&self, key: &str, content: &'static str) -> Answer {
        for _ in 0..1_000 {
            let answer = read(self.send(keyed(key, content)).await).await;
            if ![409, 503, 504].contains(&answer.status.as_u16()) {
                return answer;
            }
            tokio::task::yield_now().await;
        }
        panic!("{key} was never settled");
    }
}

pub(crate) fn keyed(key: &str, content: &'static str) -> Request<Full<Bytes>> {
    let request = Request::post("/orders").header("idempotency-key", key);
    request.body(Full::from(content)).expect("a request")
}

/// An answer read to its end.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) content: Bytes,
}

impl Answer {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.content).into_owned()
    }
}

pub(crate) async fn read(response: Response<ResponseBody<Full<Bytes>>>) -> Answer {
    let (parts, body) = response.into_parts();
    let content = body
        .collect()
        .await
        .unwrap_or_else(|error| panic!("{error}"))
        .to_bytes();
    Answer {
        status: parts.status,
        headers: parts.headers,
        content,
    }
}
