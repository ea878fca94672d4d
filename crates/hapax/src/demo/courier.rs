//! Carries one request to a process and its answer back: a connection each, no retry.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::handshake;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// The most bytes of an answer.
const MAX_ANSWER: usize = 1024 * 1024;

/// How long an answer may take: longer than hapax waits for its upstream.
const PATIENCE: Duration = Duration::from_secs(20);

/// Fields that are about one connection only.
const OF_A_CONNECTION: [HeaderName; 4] = [
    CONNECTION,
    TRANSFER_ENCODING,
    CONTENT_LENGTH,
    HeaderName::from_static("keep-alive"),
];

/// A request in full.
#[derive(Debug, Clone)]
pub(super) struct Letter {
    pub(super) method: Method,
    pub(super) target: String,
    pub(super) headers: HeaderMap,
    pub(super) content: Bytes,
}

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoAnswer {
    /// Nothing was sent.
    Unreachable,
    /// Something was sent.
    Cut,
}

impl Letter {
    /// A question without content.
    pub(super) fn get(target: &str) -> Self {
        Self {
            method: Method::GET,
            target: target.to_owned(),
            headers: HeaderMap::new(),
            content: Bytes::new(),
        }
    }

    /// Sends it, and reads the whole answer.
    pub(super) async fn send(self, to: SocketAddr) -> Result<Response<Bytes>, NoAnswer> {
        timeout(PATIENCE, self.send_at_leisure(to))
            .await
            .unwrap_or(Err(NoAnswer::Cut))
    }

    async fn send_at_leisure(self, to: SocketAddr) -> Result<Response<Bytes>, NoAnswer> {
        let unreachable = |_| NoAnswer::Unreachable;
        let stream = TcpStream::connect(to).await.map_err(unreachable)?;
        let _ = stream.set_nodelay(true);
        let shaken = handshake::<_, Full<Bytes>>(TokioIo::new(stream)).await;
        let (mut sender, connection) = shaken.map_err(|_| NoAnswer::Unreachable)?;
        tokio::spawn(connection);
        let mut request = Request::new(Full::new(self.content));
        *request.method_mut() = self.method;
        *request.uri_mut() = self.target.parse().map_err(|_| NoAnswer::Unreachable)?;
        *request.headers_mut() = without_connection(self.headers);
        let host = HeaderValue::try_from(to.to_string()).map_err(|_| NoAnswer::Unreachable)?;
        request.headers_mut().insert(HOST, host);
        let cut = |_| NoAnswer::Cut;
        let (parts, content) = sender
            .send_request(request)
            .await
            .map_err(cut)?
            .into_parts();
        let content = Limited::new(content, MAX_ANSWER).collect().await;
        let content = content.map_err(|_| NoAnswer::Cut)?.to_bytes();
        let mut answer = Response::new(content);
        *answer.status_mut() = parts.status;
        *answer.headers_mut() = without_connection(parts.headers);
        Ok(answer)
    }
}

fn without_connection(mut headers: HeaderMap) -> HeaderMap {
    for name in OF_A_CONNECTION {
        headers.remove(name);
    }
    headers
}
