//! One connection to the upstream, driven by whoever uses it.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, atomic::AtomicBool},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http_body::Body;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{connect::Socket, relay::Relay};
use crate::timer::Timer;

pub(super) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Turns in a row before other tasks have theirs; two are the rule.
const MAX_TURNS: u32 = 8;

/// One connection: the end that sends and the end that does the work.
pub(super) struct Lane<B: Body + 'static, IO: AsyncRead + AsyncWrite + Unpin> {
    pub(super) sender: SendRequest<B>,
    pub(super) driver: Option<Driver<B, IO>>,
    pub(super) relay: Arc<Relay>,
    /// The relay as the driver sees it.
    pub(super) waker: Waker,
    /// Whether a byte was written since it was last cleared.
    pub(super) wrote: Arc<AtomicBool>,
    /// For whoever waits for an answer no longer than until some instant.
    pub(super) timer: Timer,
}

/// What does a connection's work.
#[expect(
    clippy::large_enum_variant,
    reason = "a lane is boxed, and nearly every driver is plain"
)]
pub(super) enum Driver<B: Body + 'static, IO: AsyncRead + AsyncWrite + Unpin> {
    Plain(http1::Connection<TokioIo<Socket<IO>>, B>),
    /// Hands the socket over after an answer 101. hyper does not let its type be named; it is rare enough to box.
    Upgradeable(Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>),
}

/// A context that wakes nobody.
pub(super) fn quiet() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

impl<B, IO> Lane<B, IO>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    /// Lets the connection work; whether it is still open. Its errors reach the request or the body it serves.
    pub(super) fn drive(&mut self, cx: &mut Context<'_>) -> bool {
        let polled = match &mut self.driver {
            None => return false,
            Some(Driver::Plain(driver)) => Pin::new(driver).poll(cx),
            Some(Driver::Upgradeable(driver)) => driver.as_mut().poll(cx),
        };
        if polled.is_ready() {
            self.driver = None;
        }
        polled.is_pending()
    }

    /// Asks `result` without driving. What that wakes in the driver is seen to by the next turn.
    pub(super) fn listen<T>(
        &mut self,
        cx: &Context<'_>,
        result: impl FnOnce() -> Poll<T>,
    ) -> Poll<T> {
        self.relay.enter(cx.waker());
        let polled = result();
        self.relay.leave();
        polled
    }

    /// Drives and asks `result`, which only the driver can make ready, until neither has anything to do.
    pub(super) fn turn<T>(
        &mut self,
        cx: &Context<'_>,
        mut result: impl FnMut() -> Poll<T>,
    ) -> Poll<T> {
        for _ in 0..MAX_TURNS {
            self.relay.enter(cx.waker());
            let waker = self.waker.clone();
            self.drive(&mut Context::from_waker(&waker));
            let polled = result();
            let woken = self.relay.leave();
            if polled.is_ready() || !woken {
                return polled;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Whether the connection can take a request, after it has done what it can do now.
    pub(super) fn is_idle(&mut self) -> bool {
        self.drive(&mut quiet()) && self.sender.is_ready()
    }
}
