//! What the parts of one connection know together, and what each of its requests is told.

use std::{
    net::SocketAddr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Waker},
};

use http::{Request, Version, header};
use hyper::{body::Incoming, service::Service};

use super::interim::{self, Answering, Interims};

/// The address the connection came from (request extension).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PeerAddr(pub(crate) SocketAddr);

/// How the request reached us (request extension).
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
    pub(crate) peer: PeerAddr,
    pub(crate) scheme: Scheme,
    pub(crate) state: Arc<ConnectionState>,
}

impl<S: Service<Request<Incoming>>> Service<Request<Incoming>> for Tagged<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = Answering<S::Future>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        let upgrade = request.headers().contains_key(header::UPGRADE);
        // A client of HTTP/1.0 knows no informational answers, and whoever asks for an upgrade waits for one of its own.
        let can_be_told = request.version() == Version::HTTP_11 && !upgrade;
        let informer = can_be_told.then(|| interim::open(&self.state));
        let extensions = request.extensions_mut();
        extensions.insert(self.peer);
        extensions.insert(self.scheme);
        if upgrade {
            extensions.insert(Tunnel(Arc::clone(&self.state)));
        }
        if let Some(informer) = &informer {
            extensions.insert(informer.clone());
        }
        Answering::new(self.service.call(request), informer)
    }
}
