//! One call of the inner service, with everything that can become of it.

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::response::Parts;
use http::{HeaderMap, Method, Request, Response};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use pin_project_lite::pin_project;
use tokio::sync::mpsc;
use tower_service::Service;

use hapax_core::attempt::UpstreamFailure;
use hapax_core::problem::{Problem, ProblemKind};
use hapax_core::settle::{self, Settlement};

use crate::body::{BoxError, Read, RequestBody, ResponseBody, read_bounded};

/// By which an inner service says that it failed before any byte of the request was sent, so
/// that the key can be given back (P21). Any other error leaves the outcome unknown.
#[derive(Debug, thiserror::Error)]
#[error("nothing was sent")]
pub struct NotSent {
    /// Whether the connection was not accepted in time.
    pub timed_out: bool,
    /// The cause.
    #[source]
    pub source: BoxError,
}

/// The inner service did not begin to answer in time.
#[derive(Debug, thiserror::Error)]
#[error("no answer in time")]
pub struct AnswerTimeout;

/// An inner service's answer, buffered as far as the route stores answers.
pub(crate) struct Exchange<R> {
    pub(crate) parts: Parts,
    pub(crate) settlement: Settlement,
    pub(crate) content: Kept<R>,
}

pub(crate) enum Kept<R> {
    Whole(Bytes),
    /// Too large or a stream: what was read, and the rest.
    Part(Bytes, R),
}

/// Calls the inner service and buffers its answer up to `max_stored` bytes.
pub(crate) async fn exchange<I, B, R>(
    inner: I,
    request: Box<Request<RequestBody<B>>>,
    max_stored: usize,
) -> Result<Exchange<R>, UpstreamFailure>
where
    I: Service<Request<RequestBody<B>>, Response = Response<R>>,
    I::Error: Into<BoxError>,
    R: Body<Data = Bytes> + Unpin,
    R::Error: Into<BoxError>,
{
    let calling = CatchPanic {
        inner: call_and_buffer(inner, request, max_stored),
    };
    calling.await.unwrap_or(Err(UpstreamFailure::AfterDispatch))
}

async fn call_and_buffer<I, B, R>(
    mut inner: I,
    request: Box<Request<RequestBody<B>>>,
    max_stored: usize,
) -> Result<Exchange<R>, UpstreamFailure>
where
    I: Service<Request<RequestBody<B>>, Response = Response<R>>,
    I::Error: Into<BoxError>,
    R: Body<Data = Bytes> + Unpin,
    R::Error: Into<BoxError>,
{
    // A service that is not ready has not seen the request.
    if poll_fn(|cx| inner.poll_ready(cx)).await.is_err() {
        return Err(UpstreamFailure::NotSent { timed_out: false });
    }
    let response = inner
        .call(*request)
        .await
        .map_err(|error| failure_of(&error.into()))?;
    let (mut parts, body) = response.into_parts();
    let settlement = settle::take_settlement(parts.status, &mut parts.headers);
    settle::strip_ours(&mut parts.headers);
    if is_stream(&parts.headers) || is_announced_over(&parts.headers, max_stored) {
        return Ok(Exchange {
            parts,
            settlement,
            content: Kept::Part(Bytes::new(), body),
        });
    }
    let content = match read_bounded(body, max_stored).await {
        Ok(Read::Whole(content)) => Kept::Whole(content),
        Ok(Read::Over(read, rest)) => Kept::Part(read, rest),
        Err(_) => return Err(UpstreamFailure::AfterDispatch),
    };
    Ok(Exchange {
        parts,
        settlement,
        content,
    })
}

fn is_stream(headers: &HeaderMap) -> bool {
    headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .is_some_and(|value| value.trim().eq_ignore_ascii_case("text/event-stream"))
}

fn is_announced_over(headers: &HeaderMap, limit: usize) -> bool {
    let length = headers
        .get(CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok());
    length
        .and_then(|value| value.parse::<u64>().ok())
        .is_some_and(|length| length > limit as u64)
}

/// What an error of the inner service means for the key.
pub(crate) fn failure_of(error: &BoxError) -> UpstreamFailure {
    match find_cause::<NotSent>(error) {
        Some(not_sent) => UpstreamFailure::NotSent {
            timed_out: not_sent.timed_out,
        },
        None => UpstreamFailure::AfterDispatch,
    }
}

fn find_cause<E: std::error::Error + 'static>(error: &BoxError) -> Option<&E> {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error.as_ref());
    while let Some(error) = cause {
        if let Some(found) = error.downcast_ref::<E>() {
            return Some(found);
        }
        cause = error.source();
    }
    None
}

/// The problem that a failure of the inner service is, for a request that is not protected.
pub fn problem_of(error: &BoxError, method: &Method) -> Problem {
    let (kind, detail) = match failure_of(error) {
        UpstreamFailure::NotSent { timed_out: false } => (
            ProblemKind::UpstreamUnreachable,
            "The upstream could not be reached. Nothing was sent.",
        ),
        UpstreamFailure::NotSent { timed_out: true } => (
            ProblemKind::UpstreamConnectTimeout,
            "The upstream did not accept a connection in time. Nothing was sent.",
        ),
        UpstreamFailure::AfterDispatch if find_cause::<AnswerTimeout>(error).is_some() => (
            ProblemKind::UpstreamTimeout,
            "The upstream has not answered in time.",
        ),
        UpstreamFailure::AfterDispatch => (
            ProblemKind::UpstreamFailed,
            "The upstream failed after the request was sent, or part of it.",
        ),
    };
    let problem = Problem::new(kind, detail);
    if method.is_idempotent() {
        problem.retryable()
    } else {
        problem
    }
}

/// How many frames of a large answer are read ahead of the client.
const PIPE_FRAMES: usize = 8;

/// Sends an answer that is not stored through to the client, in a task of its own: a client
/// that leaves does not cut the upstream off (P18), which may go on for `drain`.
pub(crate) fn pipe<R>(read: Bytes, rest: R, drain: Duration) -> ResponseBody<R>
where
    R: Body<Data = Bytes> + Send + Unpin + 'static,
    R::Error: Into<BoxError>,
{
    let (sender, frames) = mpsc::channel(PIPE_FRAMES);
    tokio::spawn(pump(read, rest, sender, drain));
    ResponseBody::Piped { frames }
}

async fn pump<R>(
    read: Bytes,
    mut rest: R,
    sender: mpsc::Sender<Result<Frame<Bytes>, BoxError>>,
    drain: Duration,
) where
    R: Body<Data = Bytes> + Send + Unpin + 'static,
    R::Error: Into<BoxError>,
{
    let mut is_wanted = read.is_empty() || sender.send(Ok(Frame::data(read))).await.is_ok();
    while is_wanted {
        let frame = tokio::select! {
            frame = rest.frame() => frame.map(|frame| frame.map_err(Into::into)),
            () = sender.closed() => break,
        };
        let Some(frame) = frame else { return };
        let is_end = frame.is_err();
        is_wanted = sender.send(frame).await.is_ok();
        if is_end {
            return;
        }
    }
    let draining = async { while let Some(Ok(_)) = rest.frame().await {} };
    let _ = tokio::time::timeout(drain, draining).await;
}

pin_project! {
    /// Turns a panic of the inner service into `None`: the effect may have happened.
    struct CatchPanic<F> {
        #[pin]
        inner: F,
    }
}

impl<F: Future> Future for CatchPanic<F> {
    type Output = Option<F::Output>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let inner = self.project().inner;
        // Unwind safety: after a panic the future is dropped, never polled again.
        match catch_unwind(AssertUnwindSafe(|| inner.poll(cx))) {
            Ok(poll) => poll.map(Some),
            Err(_) => Poll::Ready(None),
        }
    }
}
