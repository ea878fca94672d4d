//! A small HTTP/1.1 client on raw sockets: it can stop, wait, close or reset anywhere.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::ServerName;

use crate::answer::{self, Answer, Progress};
use crate::message::Message;

/// How long the target may take for one step.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// The most bytes of one answer, head and framing included.
const MAX_ANSWER: usize = answer::MAX_BODY + 128 * 1024;

/// What became of a request, as far as its sender can know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fate {
    /// The whole answer was read.
    Answered(Answer),
    /// The head of the answer was read, and the connection ended before the rest was.
    Partial(Answer),
    /// All of the request was sent; the checker did not wait for the answer.
    ReplyLost,
    /// The checker ended the connection before the end of the request.
    RequestCut,
    /// No answer, and not by the checker's doing.
    Failed(String),
}

/// Where the target listens.
#[derive(Clone)]
pub(crate) struct Wire {
    pub(crate) address: SocketAddr,
    pub(crate) authority: String,
    /// With whom and as whom the connection is secured; nothing: plain HTTP.
    pub(crate) tls: Option<(TlsConnector, ServerName<'static>)>,
}

/// A connection, secured or not.
enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.write_all(bytes).await,
            Self::Tls(stream) => {
                stream.write_all(bytes).await?;
                stream.flush().await
            }
        }
    }

    async fn read_buf(&mut self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read_buf(buffer).await,
            Self::Tls(stream) => stream.read_buf(buffer).await,
        }
    }

    /// Makes the end of the connection a reset (RST). Where the system refuses, the end is a close: the answer is lost
    /// all the same.
    fn reset_at_end(&self) {
        let stream = match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => stream.get_ref().0,
        };
        drop(stream.set_zero_linger());
    }
}

/// A connection with a request that is not sent, or not all of it.
pub(crate) struct Pending {
    stream: Stream,
    bytes: Vec<u8>,
    sent: usize,
    method: String,
    received: Vec<u8>,
}

impl Wire {
    /// Opens a connection for a request, and sends nothing.
    pub(crate) async fn open(&self, message: &Message) -> io::Result<Pending> {
        let stream = timeout(PATIENCE, TcpStream::connect(self.address))
            .await
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        stream.set_nodelay(true)?;
        let stream = match &self.tls {
            None => Stream::Plain(stream),
            Some((connector, name)) => {
                let secured = timeout(PATIENCE, connector.connect(name.clone(), stream))
                    .await
                    .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
                Stream::Tls(Box::new(secured))
            }
        };
        let mut bytes = message.head(&self.authority);
        bytes.extend_from_slice(message.body.as_bytes());
        Ok(Pending {
            stream,
            bytes,
            sent: 0,
            method: message.method.clone(),
            received: Vec::new(),
        })
    }

    /// Sends a request and reads its answer.
    pub(crate) async fn exchange(&self, message: &Message) -> Fate {
        match self.open(message).await {
            Err(error) => Fate::Failed(format!("cannot connect: {error}")),
            Ok(mut pending) => {
                pending.send_rest().await;
                pending.finish().await
            }
        }
    }
}

impl Pending {
    /// The bytes of the whole request.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Sends up to this byte of the request. A target that has heard enough may have closed: what it said is still there
    /// to be read, so that a failed write is no failure yet.
    pub(crate) async fn send_to(&mut self, end: usize) {
        let end = end.min(self.bytes.len());
        if let Some(piece) = self.bytes.get(self.sent..end) {
            let written = timeout(PATIENCE, self.stream.write_all(piece)).await;
            drop(written);
        }
        self.sent = end;
    }

    /// Sends what is left of the request.
    pub(crate) async fn send_rest(&mut self) {
        self.send_to(self.bytes.len()).await;
    }

    /// Reads the answer to its end.
    pub(crate) async fn finish(mut self) -> Fate {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match answer::read(&self.received, &self.method, false) {
                Progress::Complete(answer) => return Fate::Answered(answer),
                Progress::Garbage => return Fate::Failed("the answer is not HTTP/1.1".into()),
                Progress::Partial(_) | Progress::Head if self.received.len() > MAX_ANSWER => {
                    return Fate::Failed(format!("the answer is larger than {MAX_ANSWER} bytes"));
                }
                Progress::Partial(_) | Progress::Head => {}
            }
            match timeout_at(deadline, self.stream.read_buf(&mut self.received)).await {
                Ok(Ok(0)) => {
                    return self.ended("the target closed the connection without an answer");
                }
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return self.ended(&format!("the connection broke: {error}")),
                Err(_) => return self.ended("no answer in time"),
            }
        }
    }

    fn ended(&self, why: &str) -> Fate {
        match answer::read(&self.received, &self.method, true) {
            Progress::Complete(answer) => Fate::Answered(answer),
            Progress::Partial(answer) => Fate::Partial(answer),
            Progress::Head | Progress::Garbage => Fate::Failed(why.to_owned()),
        }
    }

    /// Waits until the target answers, and resets the connection: the effect is there, the answer is not. What has been
    /// received is thrown away.
    pub(crate) async fn lose_reply(mut self) -> Fate {
        match timeout(PATIENCE, self.stream.read_buf(&mut self.received)).await {
            Ok(Ok(1..)) => {
                self.stream.reset_at_end();
                Fate::ReplyLost
            }
            Ok(Ok(_)) => Fate::Failed("the target closed the connection without an answer".into()),
            Ok(Err(error)) => Fate::Failed(format!("the connection broke: {error}")),
            Err(_) => Fate::Failed("no answer in time".into()),
        }
    }

    /// Reads this many bytes of the answer, then resets the connection (RST).
    pub(crate) async fn reset_after(mut self, bytes: usize) -> Fate {
        let deadline = Instant::now() + PATIENCE;
        while self.received.len() < bytes {
            match timeout_at(deadline, self.stream.read_buf(&mut self.received)).await {
                Ok(Ok(0) | Err(_)) | Err(_) => break,
                Ok(Ok(_)) => {}
            }
        }
        self.stream.reset_at_end();
        match answer::read(&self.received, &self.method, false) {
            Progress::Complete(answer) | Progress::Partial(answer) => Fate::Partial(answer),
            Progress::Head | Progress::Garbage => Fate::ReplyLost,
        }
    }

    /// Closes without reading.
    pub(crate) fn close(self) -> Fate {
        if self.sent < self.bytes.len() {
            Fate::RequestCut
        } else {
            Fate::ReplyLost
        }
    }
}
