//! One run of the handler, with everything that can become of it.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum_core::body::Body;
use bytes::{Bytes, BytesMut};
use http::header::CONTENT_ENCODING;
use http::response::Parts;
use http::{Request, Response};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::time::timeout;
use tower_service::Service;

use hapax_core::record::Content;

/// Any error of a body or a handler.
pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// How a run of the handler ended.
#[derive(Debug)]
pub(crate) enum Ended {
    /// With an answer, whose content is whole unless it is larger than what is kept.
    Answered {
        parts: Box<Parts>,
        content: Bytes,
        rest: Option<Body>,
    },
    /// With a panic, an error, or an answer that broke off.
    Failed,
    /// Not within the time that it has.
    TimedOut,
}

/// Runs the handler in a task of its own, so that a panic is an outcome and not an end. When its
/// time is over it is stopped, and has stopped when this returns.
pub(crate) async fn run<I>(
    mut inner: I,
    request: Request<Body>,
    max_kept: usize,
    patience: Duration,
) -> Ended
where
    I: Service<Request<Body>, Response = Response<Body>> + Send + 'static,
    I::Error: Into<BoxError>,
    I::Future: Send,
{
    let mut task = tokio::spawn(async move {
        std::future::poll_fn(|cx| inner.poll_ready(cx)).await.ok()?;
        let (parts, body) = inner.call(request).await.ok()?.into_parts();
        let (content, rest) = read(body, max_kept).await?;
        let parts = Box::new(parts);
        Some(Ended::Answered {
            parts,
            content,
            rest,
        })
    });
    match timeout(patience, &mut task).await {
        Ok(Ok(Some(ended))) => ended,
        Ok(_) => Ended::Failed,
        Err(_) => {
            task.abort();
            match task.await {
                // It ended at the last moment.
                Ok(Some(ended)) => ended,
                _ => Ended::TimedOut,
            }
        }
    }
}

/// Reads a body up to `limit` bytes: all of it, or what was read and the rest. `None` when it
/// breaks off.
pub(crate) async fn read(mut body: Body, limit: usize) -> Option<(Bytes, Option<Body>)> {
    let mut first: Option<Bytes> = None;
    let mut more = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.ok()?.into_data() else {
            continue;
        };
        // The usual body is one frame: no copy.
        match first.take() {
            None if more.is_empty() => first = Some(data),
            None => more.extend_from_slice(&data),
            Some(start) => {
                more.extend_from_slice(&start);
                more.extend_from_slice(&data);
            }
        }
        if first.as_ref().map_or(more.len(), Bytes::len) > limit {
            return Some((first.unwrap_or_else(|| more.freeze()), Some(body)));
        }
    }
    Some((first.unwrap_or_else(|| more.freeze()), None))
}

/// What is kept of an answer's content. One that is too large is not (P32), nor one in a content
/// coding, which a retry may not accept (P30).
pub(crate) fn kept(parts: &Parts, content: &Bytes, rest: Option<&Body>) -> Content {
    let is_coded = parts
        .headers
        .get(CONTENT_ENCODING)
        .is_some_and(|coding| coding != "identity");
    if is_coded || rest.is_some() {
        Content::Withheld
    } else {
        Content::Stored(content.clone())
    }
}

/// An answer's body again, from what was read of it and what is still to come.
pub(crate) fn body(content: Bytes, rest: Option<Body>) -> Body {
    match rest {
        None => Body::from(content),
        Some(rest) => {
            let read = Some(content).filter(|content| !content.is_empty());
            Body::new(Chained { read, rest })
        }
    }
}

struct Chained {
    read: Option<Bytes>,
    rest: Body,
}

impl http_body::Body for Chained {
    type Data = Bytes;
    type Error = axum_core::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum_core::Error>>> {
        match self.read.take() {
            Some(read) => Poll::Ready(Some(Ok(Frame::data(read)))),
            None => Pin::new(&mut self.rest).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.read.is_none() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        // Framed by its fields, or chunked.
        SizeHint::default()
    }
}
