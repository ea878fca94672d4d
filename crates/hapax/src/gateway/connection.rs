//! What the parts of one connection know together, and what each of its requests is told.

use std::{
    net::SocketAddr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Waker},
};

use http::{Request, header};
use hyper::{body::Incoming, service::Service};

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
}

impl ConnectionState {
    /// Whether a service has granted an upgrade.
    pub(crate) fn is_tunnel(&self) -> bool {
        self.tunnel.load(Ordering::Acquire)
    }

    /// Asks the connection to end after the requests it has.
    pub(crate) fn close(&self) {
        self.closing.store(true, Ordering::SeqCst);
        if let Some(task) = self.task.get() {
            task.wake_by_ref();
        }
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
    type Future = S::Future;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        let upgrade = request.headers().contains_key(header::UPGRADE);
        let extensions = request.extensions_mut();
        extensions.insert(self.peer);
        extensions.insert(self.scheme);
        if upgrade {
            extensions.insert(Tunnel(Arc::clone(&self.state)));
        }
        self.service.call(request)
    }
}
