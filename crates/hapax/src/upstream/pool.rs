//! Sending a request over a kept-alive connection, or a fresh one.

use std::{
    collections::VecDeque,
    fmt,
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak, atomic::Ordering},
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode, Uri, header};
use http_body::{Body, Frame, SizeHint};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep, timeout, timeout_at},
};
use tower_service::Service;

use super::{
    connect::{Connector, Dial, Tcp, UpstreamSettings, UpstreamSetupError},
    error::{BrokenAnswer, ConnectError, UpstreamError},
    lane::{BoxError, Driver, Lane, quiet},
    relay::Relay,
};
use crate::timer::Timer;

/// Bytes of an answer's head; as much as we take from clients.
const MAX_ANSWER_HEAD: usize = 64 * 1024;

/// The upstream. Clones share one pool.
pub(crate) struct Upstream<B: Body + 'static, D: Dial = Tcp> {
    shared: Arc<Shared<B, D>>,
}

impl<B: Body + 'static, D: Dial> Clone for Upstream<B, D> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
        }
    }
}

struct Shared<B: Body + 'static, D: Dial> {
    connector: Connector<D>,
    connect_timeout: Duration,
    max_idle: usize,
    idle_timeout: Duration,
    builder: http1::Builder,
    /// Connections in use. An idle one holds no permit: whoever takes it has one, so that open never exceeds the limit.
    busy: Option<Arc<Semaphore>>,
    idle: Mutex<Idle<B, D::Stream>>,
}

/// Oldest first; taken from the back.
struct Idle<B: Body + 'static, IO: AsyncRead + AsyncWrite + Unpin> {
    lanes: VecDeque<(Instant, Box<Lane<B, IO>>)>,
    swept: bool,
}

/// Whether a connection's request asks for another protocol.
#[derive(Clone, Copy)]
enum Wants {
    Http,
    Upgrade,
}

impl<B> Upstream<B>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    /// Sets up the pool; connects nowhere yet.
    pub(crate) fn new(settings: &UpstreamSettings) -> Result<Self, UpstreamSetupError> {
        Self::over(Tcp, settings)
    }
}

impl<B, D> Upstream<B, D>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
    D: Dial,
{
    /// The same on the network of `dial`.
    pub(crate) fn over(dial: D, settings: &UpstreamSettings) -> Result<Self, UpstreamSetupError> {
        let mut builder = http1::Builder::new();
        builder.max_header_size(MAX_ANSWER_HEAD);
        let shared = Shared {
            connector: Connector::new(settings, dial)?,
            connect_timeout: settings.connect_timeout,
            max_idle: settings.max_idle,
            idle_timeout: settings.idle_timeout,
            builder,
            busy: settings
                .max_connections
                .map(|most| Arc::new(Semaphore::new(most))),
            idle: Mutex::new(Idle {
                lanes: VecDeque::new(),
                swept: false,
            }),
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// Sends a request and waits for the head of its final answer. It goes to the configured upstream, whatever
    /// authority its URI names; it needs a Host field.
    ///
    /// Informational answers (1xx but 101) are dropped. The request is sent at most once: only when hyper hands it
    /// back unwritten is it tried again, once, on a fresh connection (P23). Dropping the future closes the connection.
    ///
    /// The request is boxed, because a future holds what it is given as often as it hands it on.
    ///
    /// Whose head has not come by `until` is [`UpstreamError::OutOfTime`]; nothing is said of whether it was sent.
    pub(crate) async fn send(
        &self,
        mut request: Box<Request<B>>,
        until: Option<Instant>,
    ) -> Result<Response<PooledBody<B, D>>, UpstreamError> {
        if request.uri().authority().is_some() {
            let target = request.uri().path_and_query().cloned();
            *request.uri_mut() = target.map_or_else(|| Uri::from_static("/"), Uri::from);
        }
        let permit = match &self.shared.busy {
            None => None,
            Some(busy) => Some(in_time(until, self.permit(busy)).await?),
        };
        let wants = if request.headers().contains_key(header::UPGRADE) {
            Wants::Upgrade
        } else {
            Wants::Http
        };
        if let Wants::Http = wants
            && let Some(lane) = self.shared.take_idle()
        {
            match exchange(lane, request, until).await {
                Ok(answer) => return self.finish(answer, permit),
                Err(Failure::HandedBack {
                    request: untouched, ..
                }) => request = untouched,
                Err(Failure::Lost(error)) => return Err(error),
            }
        }
        // Boxed, as it is rare: a request that waits for its answer should not hold the room that a handshake takes.
        let lane = in_time(until, Box::pin(self.shared.connect(wants))).await?;
        match exchange(lane, request, until).await {
            Ok(answer) => self.finish(answer, permit),
            Err(Failure::HandedBack { error, .. }) => {
                Err(UpstreamError::not_sent(ConnectError::Closed(error)))
            }
            Err(Failure::Lost(error)) => Err(error),
        }
    }

    async fn permit(&self, busy: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, UpstreamError> {
        let limit = self.shared.connect_timeout;
        match timeout(limit, Arc::clone(busy).acquire_owned()).await {
            // The semaphore is never closed, so an error here is a time-out too.
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) | Err(_) => Err(UpstreamError::not_sent(ConnectError::Busy(limit))),
        }
    }

    fn finish(
        &self,
        (response, lane): Answer<B, D::Stream>,
        permit: Option<OwnedSemaphorePermit>,
    ) -> Result<Response<PooledBody<B, D>>, UpstreamError> {
        let headers = response.headers();
        if headers.contains_key(header::TRANSFER_ENCODING)
            && headers.contains_key(header::CONTENT_LENGTH)
        {
            return Err(UpstreamError::AfterDispatch {
                source: BrokenAnswer::Framing,
            });
        }
        let ended = response.body().is_end_stream();
        let mut response = response.map(|incoming| PooledBody {
            incoming,
            lane: Some(lane),
            home: Arc::clone(&self.shared),
            permit,
        });
        if ended {
            response.body_mut().release();
        }
        Ok(response)
    }

    /// How many connections are idle in the pool.
    #[cfg(test)]
    pub(crate) fn idle(&self) -> usize {
        self.shared.lock().lanes.len()
    }
}

/// Bounds what has a bound of its own by an instant as well.
async fn in_time<T>(
    until: Option<Instant>,
    work: impl Future<Output = Result<T, UpstreamError>>,
) -> Result<T, UpstreamError> {
    match until {
        Some(until) => timeout_at(until, work)
            .await
            .unwrap_or(Err(UpstreamError::OutOfTime)),
        None => work.await,
    }
}

type Answer<B, IO> = (Response<Incoming>, Box<Lane<B, IO>>);

enum Failure<B> {
    /// Nothing was written, and here is the request.
    HandedBack {
        request: Box<Request<B>>,
        error: hyper::Error,
    },
    Lost(UpstreamError),
}

/// Sends over `lane`, driving it, until the answer's head has come.
async fn exchange<B, IO>(
    mut lane: Box<Lane<B, IO>>,
    request: Box<Request<B>>,
    until: Option<Instant>,
) -> Result<Answer<B, IO>, Failure<B>>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    lane.wrote.store(false, Ordering::Relaxed);
    let mut answer = pin!(lane.sender.try_send_request(*request));
    // In a turn the driver goes first: it notices a closed connection before it takes the request, and hands it back.
    let result = poll_fn(|cx| {
        let polled = lane.turn(cx, || answer.as_mut().poll(&mut quiet()));
        match (polled, until) {
            (Poll::Ready(result), _) => Poll::Ready(Some(result)),
            (Poll::Pending, Some(until)) => lane.timer.poll(cx, until).map(|()| None),
            (Poll::Pending, None) => Poll::Pending,
        }
    })
    .await;
    let Some(result) = result else {
        return Err(Failure::Lost(UpstreamError::OutOfTime));
    };
    match result {
        Ok(response) => {
            if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                // hyper hands over the socket when the driver ends, which it does without further input.
                poll_fn(|cx| {
                    if lane.drive(cx) {
                        Poll::Pending
                    } else {
                        Poll::Ready(())
                    }
                })
                .await;
            }
            Ok((response, lane))
        }
        Err(mut error) => match error.take_message() {
            Some(request) => Err(Failure::HandedBack {
                request: Box::new(request),
                error: error.into_error(),
            }),
            None if lane.wrote.load(Ordering::Relaxed) => {
                Err(Failure::Lost(UpstreamError::AfterDispatch {
                    source: BrokenAnswer::Http(error.into_error()),
                }))
            }
            // hyper had begun to write and the socket took not one byte.
            None => Err(Failure::Lost(UpstreamError::not_sent(
                ConnectError::Closed(error.into_error()),
            ))),
        },
    }
}

impl<B, D> Shared<B, D>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
    D: Dial,
{
    fn lock(&self) -> MutexGuard<'_, Idle<B, D::Stream>> {
        // Nothing panics while the lock is held, and a list of connections has no state to be broken.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection that was used last, if it is still good.
    fn take_idle(&self) -> Option<Box<Lane<B, D::Stream>>> {
        loop {
            let mut idle = self.lock();
            let (since, mut lane) = idle.lanes.pop_back()?;
            if since.elapsed() >= self.idle_timeout {
                // All others are older. They are closed after the lock is let go.
                let expired = std::mem::take(&mut idle.lanes);
                drop(idle);
                drop(expired);
                return None;
            }
            drop(idle);
            if lane.is_idle() {
                return Some(lane);
            }
        }
    }

    async fn connect(&self, wants: Wants) -> Result<Box<Lane<B, D::Stream>>, UpstreamError> {
        let transport = self
            .connector
            .connect(self.connect_timeout)
            .await
            .map_err(UpstreamError::not_sent)?;
        let (sender, connection) = self
            .builder
            .handshake(TokioIo::new(transport.io))
            .await
            .map_err(|error| UpstreamError::not_sent(ConnectError::Closed(error)))?;
        let driver = match wants {
            Wants::Http => Driver::Plain(connection),
            Wants::Upgrade => Driver::Upgradeable(Box::pin(connection.with_upgrades())),
        };
        let relay = Arc::new(Relay::default());
        let waker = Waker::from(Arc::clone(&relay));
        Ok(Box::new(Lane {
            sender,
            driver: Some(driver),
            relay,
            waker,
            wrote: transport.wrote,
            timer: Timer::default(),
        }))
    }

    /// Keeps an idle connection, and sees to it that somebody looks after it.
    fn put(self: &Arc<Self>, lane: Box<Lane<B, D::Stream>>) {
        let mut idle = self.lock();
        if idle.lanes.len() >= self.max_idle {
            return;
        }
        idle.lanes.push_back((Instant::now(), lane));
        let start = !std::mem::replace(&mut idle.swept, true);
        drop(idle);
        if start {
            match tokio::runtime::Handle::try_current() {
                Ok(runtime) => drop(runtime.spawn(sweep(Arc::downgrade(self), self.idle_timeout))),
                // A body dropped outside the runtime: the next `put` inside starts the sweep.
                Err(_) => self.lock().swept = false,
            }
        }
    }

    /// Drops connections that are expired or closed; whether any is left.
    fn prune(&self) -> bool {
        let mut idle = self.lock();
        // Polling an idle connection costs a system call only if its socket has something to tell.
        idle.lanes
            .retain_mut(|(since, lane)| since.elapsed() < self.idle_timeout && lane.is_idle());
        idle.swept = !idle.lanes.is_empty();
        idle.swept
    }
}

/// Looks after idle connections until there is none, or no pool.
async fn sweep<B, D>(pool: Weak<Shared<B, D>>, idle_timeout: Duration)
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
    D: Dial,
{
    loop {
        sleep(idle_timeout / 2).await;
        let Some(pool) = pool.upgrade() else { return };
        if !pool.prune() {
            return;
        }
    }
}

/// An answer's body. Reading it drives its connection; read to its end, it gives the connection back, and dropped
/// earlier it closes it.
pub(crate) struct PooledBody<B, D = Tcp>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
    D: Dial,
{
    incoming: Incoming,
    lane: Option<Box<Lane<B, D::Stream>>>,
    home: Arc<Shared<B, D>>,
    permit: Option<OwnedSemaphorePermit>,
}

impl<B, D> PooledBody<B, D>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
    D: Dial,
{
    /// Gives the connection back if it can serve again.
    fn release(&mut self) {
        if let Some(mut lane) = self.lane.take()
            && lane.is_idle()
        {
            self.home.put(lane);
        }
        self.permit = None;
    }
}

impl<B, D> fmt::Debug for PooledBody<B, D>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
    D: Dial,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PooledBody")
            .field("incoming", &self.incoming)
            .finish_non_exhaustive()
    }
}

impl<B, D> Body for PooledBody<B, D>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
    D: Dial,
{
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = self.get_mut();
        let incoming = &mut this.incoming;
        let mut frame = || Pin::new(&mut *incoming).poll_frame(&mut quiet());
        let polled = match &mut this.lane {
            None => frame(),
            Some(lane) => match lane.listen(cx, &mut frame) {
                Poll::Pending => lane.turn(cx, frame),
                ready => ready,
            },
        };
        match &polled {
            Poll::Ready(Some(Err(_))) => {
                this.lane = None;
                this.permit = None;
            }
            Poll::Ready(None) => this.release(),
            Poll::Ready(Some(Ok(_))) if this.incoming.is_end_stream() => this.release(),
            Poll::Ready(Some(Ok(_))) | Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

impl<B, D> Service<Request<B>> for Upstream<B, D>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
    D: Dial,
{
    type Response = Response<PooledBody<B, D>>;
    type Error = UpstreamError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, UpstreamError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), UpstreamError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let upstream = self.clone();
        Box::pin(async move { upstream.send(Box::new(request), None).await })
    }
}
