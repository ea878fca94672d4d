//! What the parts of one connection know together, and what each of its requests is told.

use std::{
    convert::Infallible,
    error::Error,
    future::Future,
    net::SocketAddr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Waker},
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, Version, header};
use hyper::{
    body::{Body, Incoming},
    service::Service,
};

use super::interim::{self, Answering, Interims};

/// How a request reached us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scheme {
    /// In the clear.
    Http,
    /// Over TLS that ended here.
    Https,
}

impl Scheme {
    /// The scheme as it is written.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// Where the requests of a connection come from.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    /// The address the connection came from.
    pub(crate) peer: SocketAddr,
    /// Its IP address as a field value: every request says it to the upstream. An IPv4 address that came over an IPv6
    /// socket is what it is.
    pub(crate) peer_value: HeaderValue,
    /// How the connection reached us.
    pub(crate) scheme: Scheme,
}

impl Origin {
    /// The origin of a connection from `peer`.
    pub(crate) fn new(peer: SocketAddr, scheme: Scheme) -> Self {
        let address = peer.ip().to_canonical().to_string();
        // An address has no byte that a value may not have.
        let peer_value = HeaderValue::from_maybe_shared(Bytes::from(address));
        Self {
            peer,
            peer_value: peer_value.unwrap_or(HeaderValue::from_static("unknown")),
            scheme,
        }
    }
}

/// What answers the requests of a listener's connections.
pub(crate) trait Answer: Clone + Send + 'static {
    /// The content of its answers.
    type Body: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static;
    /// An answer under way.
    type Future: Future<Output = Result<Response<Self::Body>, Infallible>> + Send + 'static;

    /// Answers a request that came from `origin`, which no extension says: four allocations a request are much of what
    /// passing one through takes.
    fn answer(&self, request: Request<Incoming>, origin: &Origin) -> Self::Future;
}

impl<F, R, B> Answer for F
where
    F: Fn(Request<Incoming>, &Origin) -> R + Clone + Send + 'static,
    R: Future<Output = Result<Response<B>, Infallible>> + Send + 'static,
    B: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static,
{
    type Body = B;
    type Future = R;

    fn answer(&self, request: Request<Incoming>, origin: &Origin) -> R {
        self(request, origin)
    }
}

/// Lets a service turn its connection into a tunnel (extension of HTTP/1 requests that carry `Upgrade`).
#[derive(Clone, Debug)]
pub(crate) struct Tunnel(Arc<ConnectionState>);

impl Tunnel {
    /// Stops judging the connection's bytes as HTTP. Call it before the answer 101 is returned, and only then.
    pub(crate) fn open(&self) {
        self.0.tunnel.store(true, Ordering::Release);
    }
}

/// Shared by a connection's wire, its service and the accept loop.
#[derive(Debug, Default)]
pub(crate) struct ConnectionState {
    tunnel: AtomicBool,
    closing: AtomicBool,
    task: OnceLock<Waker>,
    interims: Interims,
}

impl ConnectionState {
    /// Whether a service has granted an upgrade.
    pub(crate) fn is_tunnel(&self) -> bool {
        self.tunnel.load(Ordering::Acquire)
    }

    /// Asks the connection to end after the requests it has.
    pub(crate) fn close(&self) {
        self.closing.store(true, Ordering::SeqCst);
        self.wake();
    }

    /// Has the connection look around: it may have something to send.
    pub(crate) fn wake(&self) {
        if let Some(task) = self.task.get() {
            task.wake_by_ref();
        }
    }

    /// What is to be sent between answers.
    pub(crate) fn interims(&self) -> &Interims {
        &self.interims
    }

    /// Whether the connection shall end. The task that asks first is the one that [`close`](Self::close) wakes.
    pub(crate) fn poll_closing(&self, context: &Context<'_>) -> bool {
        // The waker goes in first: a `close` in between either finds it or is seen by the load.
        self.task.get_or_init(|| context.waker().clone());
        self.closing.load(Ordering::SeqCst)
    }
}

/// Tells every request of one connection where it came from.
#[derive(Clone, Debug)]
pub(crate) struct Tagged<S> {
    pub(crate) service: S,
    pub(crate) origin: Origin,
    pub(crate) state: Arc<ConnectionState>,
}

impl<S: Answer> Service<Request<Incoming>> for Tagged<S> {
    type Response = Response<S::Body>;
    type Error = Infallible;
    type Future = Answering<S::Future>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        let upgrade = request.headers().contains_key(header::UPGRADE);
        // A client of HTTP/1.0 knows no informational answers, and whoever asks for an upgrade waits for one of its own.
        let can_be_told = request.version() == Version::HTTP_11 && !upgrade;
        let informer = can_be_told.then(|| interim::open(&self.state));
        if upgrade {
            let tunnel = Tunnel(Arc::clone(&self.state));
            request.extensions_mut().insert(tunnel);
        }
        if let Some(informer) = &informer {
            request.extensions_mut().insert(informer.clone());
        }
        Answering::new(self.service.answer(request, &self.origin), informer)
    }
}
