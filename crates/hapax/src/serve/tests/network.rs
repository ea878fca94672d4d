//! Connections over the simulated network: cut after some bytes, handed over in crumbs, and reset when a broken link is
//! mended.
//!
//! turmoil sends no lost segment again, so a connection that lived through a partition would hang for ever. Where TCP
//! would go on or give up, it gives up here: [`Network::reset_all`] ends what was open when a link is mended.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll, Waker, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use turmoil::net::{TcpListener, TcpStream};

use crate::gateway::listener::Accept;
use crate::upstream::{ConnectError, Dial};

use super::evidence::Evidence;
use super::random::Random;

type Slot = Mutex<Option<Waker>>;

/// What all connections of a run have in common.
pub(super) struct Network {
    evidence: Arc<Evidence>,
    random: Mutex<Random>,
    /// Of so many connections one is cut after some bytes; 0 for none.
    one_cut_in: AtomicU64,
    /// Of so many connections one is read and written in crumbs.
    one_crumbled_in: u64,
    generation: AtomicU64,
    open: Mutex<Vec<Weak<Slot>>>,
}

impl Network {
    pub(super) fn new(evidence: Arc<Evidence>, mut random: Random, one_cut_in: u64) -> Arc<Self> {
        Arc::new(Self {
            evidence,
            one_crumbled_in: random.between(1, 4),
            random: Mutex::new(random),
            one_cut_in: AtomicU64::new(one_cut_in),
            generation: AtomicU64::new(0),
            open: Mutex::default(),
        })
    }

    /// No connection is cut from now on.
    pub(super) fn calm(&self) {
        self.one_cut_in.store(0, Ordering::Relaxed);
    }

    /// Ends every connection that is open.
    pub(super) fn reset_all(&self) {
        self.evidence.strikes("reset", None);
        self.generation.fetch_add(1, Ordering::Relaxed);
        for slot in self.open.lock().unwrap().drain(..) {
            if let Some(waker) = slot.upgrade().and_then(|slot| slot.lock().unwrap().take()) {
                waker.wake();
            }
        }
    }

    /// Connects; `fault` names what it is called when this connection is cut.
    pub(super) async fn connect(
        self: &Arc<Self>,
        host: &str,
        port: u16,
        fault: &'static str,
    ) -> io::Result<Connection> {
        let stream = TcpStream::connect((host, port)).await?;
        Ok(self.wrap(stream, Some(fault)))
    }

    fn wrap(self: &Arc<Self>, stream: TcpStream, fault: Option<&'static str>) -> Connection {
        let mut random = self.random.lock().unwrap();
        let one_cut_in = self.one_cut_in.load(Ordering::Relaxed);
        let is_cut = fault.is_some() && one_cut_in != 0 && random.once_in(one_cut_in);
        let crumb = random
            .once_in(self.one_crumbled_in)
            .then(|| random.between(60, 400));
        let slot = Arc::new(Slot::default());
        self.open.lock().unwrap().push(Arc::downgrade(&slot));
        Connection {
            stream,
            left: is_cut.then(|| random.between(0, 700)),
            crumb: crumb.unwrap_or(u64::MAX),
            fault: fault.unwrap_or("reset"),
            generation: self.generation.load(Ordering::Relaxed),
            network: Arc::clone(self),
            slot,
        }
    }
}

/// A listener of a simulated host.
pub(super) struct Listener {
    pub(super) listener: TcpListener,
    pub(super) network: Arc<Network>,
}

impl Accept for Listener {
    type Stream = Connection;

    async fn accept(&self) -> io::Result<(Connection, SocketAddr)> {
        let (stream, peer) = self.listener.accept().await?;
        Ok((self.network.wrap(stream, None), peer))
    }
}

/// The way of a gateway to its upstream.
#[derive(Clone)]
pub(super) struct Way(pub(super) Arc<Network>);

impl Dial for Way {
    type Stream = Connection;

    fn dial(
        &self,
        host: &str,
        port: u16,
    ) -> impl Future<Output = Result<Connection, ConnectError>> + Send {
        let (network, host) = (Arc::clone(&self.0), host.to_owned());
        async move {
            let connecting = network.connect(&host, port, "cut");
            connecting.await.map_err(|source| ConnectError::Connect {
                address: SocketAddr::from(([0, 0, 0, 0], port)),
                source,
            })
        }
    }
}

/// A connection with its fate.
pub(super) struct Connection {
    stream: TcpStream,
    network: Arc<Network>,
    /// Bytes until it is cut.
    left: Option<u64>,
    /// Bytes that one call takes or gives at most.
    crumb: u64,
    fault: &'static str,
    generation: u64,
    slot: Arc<Slot>,
}

impl Connection {
    /// How many bytes may pass now.
    fn room(&mut self) -> io::Result<usize> {
        let reset = || io::Error::from(io::ErrorKind::ConnectionReset);
        if self.generation != self.network.generation.load(Ordering::Relaxed) {
            return Err(reset());
        }
        let room = self.left.unwrap_or(u64::MAX).min(self.crumb);
        if room == 0 {
            if self.crumb != 0 {
                self.network.evidence.strikes(self.fault, None);
                // Said once.
                self.crumb = 0;
            }
            return Err(reset());
        }
        Ok(usize::try_from(room).unwrap_or(usize::MAX))
    }

    fn pass(&mut self, bytes: usize) {
        self.left = self.left.map(|left| left - bytes as u64);
    }

    /// Whoever waits here is woken by a reset.
    fn waits(&self, cx: &Context<'_>) {
        *self.slot.lock().unwrap() = Some(cx.waker().clone());
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.waits(cx);
        let mut scratch = [0; 4096];
        let room = this.room()?.min(buf.remaining()).min(scratch.len());
        let mut part = ReadBuf::new(&mut scratch[..room]);
        ready!(Pin::new(&mut this.stream).poll_read(cx, &mut part))?;
        buf.put_slice(part.filled());
        this.pass(part.filled().len());
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.waits(cx);
        let room = this.room()?.min(bytes.len());
        let written = ready!(Pin::new(&mut this.stream).poll_write(cx, &bytes[..room]))?;
        this.pass(written);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match ready!(Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)) {
            // turmoil says so of a side that is closed already.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Poll::Ready(Ok(())),
            result => Poll::Ready(result),
        }
    }
}
