//! Bodies on both sides of the layer, and bounded buffering between them.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::sync::mpsc;

/// Any error of a body or an inner service.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What the inner service gets: the client's body as it arrives, or one that was read in full.
#[derive(Debug)]
pub enum RequestBody<B> {
    /// Passed through.
    Streaming {
        /// The client's body.
        inner: B,
    },
    /// Read in full, or in part with the rest to come.
    Buffered {
        /// What was read.
        read: Option<Bytes>,
        /// What is still to come; none for a keyed request.
        rest: Option<B>,
    },
}

impl<B> RequestBody<B> {
    pub(crate) fn full(content: Bytes) -> Self {
        let read = Some(content).filter(|content| !content.is_empty());
        Self::Buffered { read, rest: None }
    }
}

impl<B> Body for RequestBody<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.get_mut() {
            RequestBody::Streaming { inner } => Pin::new(inner).poll_frame(cx).map_err(Into::into),
            RequestBody::Buffered { read, rest } => match (read.take(), rest.as_mut()) {
                (Some(content), _) => Poll::Ready(Some(Ok(Frame::data(content)))),
                (None, Some(rest)) => Pin::new(rest).poll_frame(cx).map_err(Into::into),
                (None, None) => Poll::Ready(None),
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Streaming { inner } => inner.is_end_stream(),
            Self::Buffered { read, rest } => {
                read.is_none() && rest.as_ref().is_none_or(Body::is_end_stream)
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Streaming { inner } => inner.size_hint(),
            Self::Buffered { read, rest } => {
                let read = read.as_ref().map_or(0, Bytes::len) as u64;
                let mut hint = rest
                    .as_ref()
                    .map_or_else(|| SizeHint::with_exact(0), Body::size_hint);
                let upper = hint.upper().and_then(|upper| upper.checked_add(read));
                hint.set_lower(0);
                match upper {
                    Some(upper) => {
                        let lower = rest.as_ref().map_or(0, |rest| rest.size_hint().lower());
                        hint.set_upper(upper);
                        hint.set_lower(lower.saturating_add(read));
                    }
                    None => hint = SizeHint::new(),
                }
                hint
            }
        }
    }
}

/// What the client gets.
#[derive(Debug)]
pub enum ResponseBody<B> {
    /// The inner service's body, passed through.
    Streaming {
        /// The inner body.
        inner: B,
    },
    /// A stored, buffered or made answer.
    Full {
        /// The content that is still to be sent.
        content: Option<Bytes>,
    },
    /// An answer too large to store, pumped by a task of its own.
    Piped {
        /// Where the frames come from.
        frames: mpsc::Receiver<Result<Frame<Bytes>, BoxError>>,
    },
}

impl<B> ResponseBody<B> {
    pub(crate) fn full(content: Bytes) -> Self {
        Self::Full {
            content: Some(content).filter(|content| !content.is_empty()),
        }
    }
}

impl<B> Body for ResponseBody<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.get_mut() {
            ResponseBody::Streaming { inner } => Pin::new(inner).poll_frame(cx).map_err(Into::into),
            ResponseBody::Full { content } => {
                Poll::Ready(content.take().map(|content| Ok(Frame::data(content))))
            }
            ResponseBody::Piped { frames } => frames.poll_recv(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Streaming { inner } => inner.is_end_stream(),
            Self::Full { content } => content.is_none(),
            Self::Piped { .. } => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Streaming { inner } => inner.size_hint(),
            Self::Full { content } => {
                SizeHint::with_exact(content.as_ref().map_or(0, Bytes::len) as u64)
            }
            Self::Piped { .. } => SizeHint::new(),
        }
    }
}

/// What reading a body within a bound came to.
pub(crate) enum Read<B> {
    /// All of it.
    Whole(Bytes),
    /// More than the bound: what was read, and the rest.
    Over(Bytes, B),
}

/// Reads a body up to `limit` bytes. Trailers are dropped: they never become header fields, and
/// a key in one is no key (P5, P31).
pub(crate) async fn read_bounded<B>(mut body: B, limit: usize) -> Result<Read<B>, BoxError>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    let mut first: Option<Bytes> = None;
    let mut more = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(Into::into)?.into_data() else {
            continue;
        };
        // The usual body is one frame: no copy.
        match first.take() {
            None if more.is_empty() => first = Some(data),
            None => more.extend_from_slice(&data),
            Some(start) => {
                more.reserve(start.len() + data.len());
                more.extend_from_slice(&start);
                more.extend_from_slice(&data);
            }
        }
        let read = first.as_ref().map_or(more.len(), Bytes::len);
        if read > limit {
            return Ok(Read::Over(first.unwrap_or_else(|| more.freeze()), body));
        }
    }
    Ok(Read::Whole(first.unwrap_or_else(|| more.freeze())))
}
