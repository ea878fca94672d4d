//! The accept loop: connections by hand, each with limits of its own.

use std::{
    collections::HashMap,
    future::{Future, poll_fn},
    io,
    net::SocketAddr,
    pin::pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::{Id, JoinError, JoinSet},
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tracing::{debug, warn};

use super::{
    connection::{Answer, ConnectionState, Origin, Scheme, Tagged},
    framing::{Framing, Preface, Protocol},
    wire::{Deadlines, Wire},
};

/// Pause after a failed accept. Out of descriptors, the next try would fail at once and spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Requests one HTTP/2 client may have open; the floor RFC 9113 6.5.2 recommends is 100.
const H2_STREAMS: u32 = 128;
/// How often a silent HTTP/2 client is asked whether it lives, and how long it may take to say so.
const H2_PING: Duration = Duration::from_secs(30);
const H2_PING_TIMEOUT: Duration = Duration::from_secs(20);

/// What a listener grants its clients.
#[derive(Clone, Debug)]
pub(crate) struct ListenerSettings {
    /// TLS, if the listener speaks it.
    pub(crate) tls: Option<Arc<ServerConfig>>,
    /// How long a TLS handshake may take.
    pub(crate) handshake_timeout: Duration,
    /// How long a connection may wait for its client.
    pub(crate) deadlines: Deadlines,
    /// Bytes of a request head.
    pub(crate) max_head: u32,
    /// Connections at once; above it, nobody is accepted until one ends.
    pub(crate) max_connections: usize,
    /// How long open requests may take once shutdown has begun.
    pub(crate) drain_timeout: Duration,
}

impl Default for ListenerSettings {
    fn default() -> Self {
        Self {
            tls: None,
            handshake_timeout: Duration::from_secs(10),
            deadlines: Deadlines::default(),
            // What nginx (4 × 8 KiB) and Apache (100 × 8 KiB) let through in practice lies around it.
            max_head: 64 * 1024,
            // About 300 MB of buffers and sockets at worst.
            max_connections: 10_000,
            drain_timeout: Duration::from_secs(30),
        }
    }
}

/// How a listener ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Drained {
    /// Connections that were cut because they outlasted the drain.
    pub(crate) cut: usize,
}

/// Where connections come from: the machine's network, or one that a test simulates.
pub(crate) trait Accept: Send + 'static {
    /// A connection.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// The next connection, and who has opened it.
    fn accept(&self) -> impl Future<Output = io::Result<(Self::Stream, SocketAddr)>> + Send;
}

impl Accept for TcpListener {
    type Stream = TcpStream;

    async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let (stream, peer) = TcpListener::accept(self).await?;
        if let Err(error) = stream.set_nodelay(true) {
            debug!(%error, "cannot turn off Nagle's algorithm");
        }
        Ok((stream, peer))
    }
}

/// Serves connections until `shutdown` turns true (or its sender is gone), then drains them.
pub(crate) async fn serve<L: Accept, S: Answer>(
    listener: L,
    settings: ListenerSettings,
    service: S,
    mut shutdown: watch::Receiver<bool>,
) -> Drained {
    let settings = Arc::new(settings);
    let mut tasks = JoinSet::new();
    let mut open: HashMap<Id, Arc<ConnectionState>> = HashMap::new();
    // A sender that is gone asks too: nobody could ask any more.
    let mut asked = pin!(async move { drop(shutdown.wait_for(|down| *down).await) });
    loop {
        tokio::select! {
            // In this order: who has ended makes room. A seed of the simulation then repeats its run.
            biased;
            () = &mut asked => break,
            Some(ended) = tasks.join_next_with_id() => forget(&mut open, ended),
            accepted = listener.accept(), if open.len() < settings.max_connections => match accepted {
                Ok((stream, peer)) => {
                    let state = Arc::new(ConnectionState::default());
                    let connection = Accepted { stream, peer, state: Arc::clone(&state) };
                    let task = tasks.spawn(connection.run(Arc::clone(&settings), service.clone()));
                    open.insert(task.id(), state);
                }
                Err(error) => pause(&error).await,
            },
        }
    }
    drop(listener);
    for state in open.values() {
        state.close();
    }
    let ended = async {
        while let Some(ended) = tasks.join_next_with_id().await {
            forget(&mut open, ended);
        }
    };
    if timeout(settings.drain_timeout, ended).await.is_ok() {
        return Drained { cut: 0 };
    }
    let cut = tasks.len();
    tasks.shutdown().await;
    Drained { cut }
}

fn forget(open: &mut HashMap<Id, Arc<ConnectionState>>, ended: Result<(Id, ()), JoinError>) {
    match ended {
        Ok((id, ())) => {
            open.remove(&id);
        }
        Err(error) => {
            if error.is_panic() {
                warn!(%error, "a connection's task panicked");
            }
            open.remove(&error.id());
        }
    }
}

/// Survives a failed accept. A client that left before it was accepted is no reason to pause.
async fn pause(error: &io::Error) {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    if !matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset
    ) {
        warn!(%error, "cannot accept a connection");
        sleep(ACCEPT_PAUSE).await;
    }
}

/// A connection nobody has spoken on.
struct Accepted<IO> {
    stream: IO,
    peer: SocketAddr,
    state: Arc<ConnectionState>,
}

impl<IO: AsyncRead + AsyncWrite + Unpin + Send + 'static> Accepted<IO> {
    async fn run<S: Answer>(self, settings: Arc<ListenerSettings>, service: S) {
        let Self {
            stream,
            peer,
            state,
        } = self;
        let scheme = if settings.tls.is_some() {
            Scheme::Https
        } else {
            Scheme::Http
        };
        let service = Tagged {
            service,
            origin: Origin::new(peer, scheme),
            state,
        };
        if let Some(tls) = &settings.tls {
            let acceptor = TlsAcceptor::from(Arc::clone(tls));
            // Boxed: a connection in the clear, which there are more of behind a terminator, needs half the room.
            Box::pin(secured(stream, acceptor, &settings, service)).await;
        } else {
            let framing = Framing::new(max_head(&settings), Preface::Accepted);
            speak(stream, framing, &settings, service).await;
        }
    }
}

/// Serves a connection that begins with a TLS handshake.
async fn secured<IO, S>(
    stream: IO,
    acceptor: TlsAcceptor,
    settings: &ListenerSettings,
    service: Tagged<S>,
) where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Answer,
{
    let shake = acceptor.accept(stream);
    let Ok(Some(Ok(stream))) = timeout(
        settings.handshake_timeout,
        until_closing(shake, &service.state),
    )
    .await
    else {
        debug!(peer = %service.origin.peer, "the TLS handshake failed");
        return;
    };
    let framing = if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
        Framing::transparent(Protocol::Http2)
    } else {
        Framing::new(max_head(settings), Preface::Refused)
    };
    speak(stream, framing, settings, service).await;
}

fn max_head(settings: &ListenerSettings) -> usize {
    usize::try_from(settings.max_head).unwrap_or(usize::MAX)
}

/// Runs `work` until it is done or the connection shall end.
async fn until_closing<F: Future>(work: F, state: &ConnectionState) -> Option<F::Output> {
    let mut work = pin!(work);
    poll_fn(|cx| {
        if state.poll_closing(cx) {
            Poll::Ready(None)
        } else {
            work.as_mut().poll(cx).map(Some)
        }
    })
    .await
}

async fn speak<IO, S>(io: IO, framing: Framing, settings: &ListenerSettings, service: Tagged<S>)
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Answer,
{
    let state = Arc::clone(&service.state);
    let mut wire = Wire::new(io, framing, settings.deadlines, Arc::clone(&state));
    let Some(Ok(protocol)) = until_closing(poll_fn(|cx| wire.poll_protocol(cx)), &state).await
    else {
        return;
    };
    let io = TokioIo::new(wire);
    let ended = if protocol == Some(Protocol::Http2) {
        let mut connection = pin!(http2_builder(settings).serve_connection(io, service));
        drive(&state, |cx, order| {
            if order == Order::Close {
                connection.as_mut().graceful_shutdown();
            }
            connection.as_mut().poll(cx)
        })
        .await
    } else {
        let connection = http1_builder().serve_connection(io, service);
        let mut connection = pin!(connection.with_upgrades());
        drive(&state, |cx, order| {
            if order == Order::Close {
                connection.as_mut().graceful_shutdown();
            }
            connection.as_mut().poll(cx)
        })
        .await
    };
    if let Err(error) = ended {
        debug!(%error, "a connection ended badly");
    }
}

/// What a connection is to do when it is polled.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    Continue,
    Close,
}

/// Polls a connection to its end, telling it once when it shall close.
async fn drive(
    state: &ConnectionState,
    mut poll: impl FnMut(&mut Context<'_>, Order) -> Poll<hyper::Result<()>>,
) -> hyper::Result<()> {
    let mut told = false;
    poll_fn(|cx| {
        let order = if !told && state.poll_closing(cx) {
            told = true;
            Order::Close
        } else {
            Order::Continue
        };
        poll(cx, order)
    })
    .await
}

fn http1_builder() -> http1::Builder {
    let mut builder = http1::Builder::new();
    // The wire keeps the deadlines, so hyper needs no timer. A client may close its side and still gets its answer.
    // Not `pipeline_flush`: with it hyper buffers an answer without bound while its client does not read.
    builder.half_close(true);
    builder
}

fn http2_builder(settings: &ListenerSettings) -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(H2_STREAMS)
        .max_header_list_size(settings.max_head)
        .keep_alive_interval(H2_PING)
        .keep_alive_timeout(H2_PING_TIMEOUT);
    builder
}

#[cfg(test)]
mod tests;
