//! The pool against upstreams that misbehave, byte by byte.

use std::{
    future::Future,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::Notify,
    time::timeout,
};

use super::error::ConnectError;
use super::*;

type Client = Upstream<Full<Bytes>>;

/// No test waits longer for anything that should come at once.
const SOON: Duration = Duration::from_secs(20);

struct Fake {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    /// Heads of requests that arrived whole.
    requests: Arc<AtomicUsize>,
}

/// An upstream that plays `script` on every connection; the script gets the connection's number, from 0.
async fn fake<F, Fut>(script: F) -> Fake
where
    F: Fn(Peer, usize) -> Fut + Send + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (connections, requests) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (counted, heads) = (Arc::clone(&connections), Arc::clone(&requests));
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let number = counted.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(script(
                Peer {
                    stream,
                    requests: Arc::clone(&heads),
                },
                number,
            ));
        }
    });
    Fake {
        address,
        connections,
        requests,
    }
}

struct Peer {
    stream: TcpStream,
    requests: Arc<AtomicUsize>,
}

impl Peer {
    /// Reads a head; none when the client closes instead.
    async fn head(&mut self) -> Option<String> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(self.stream.read_u8().await.ok()?);
        }
        self.requests.fetch_add(1, Ordering::SeqCst);
        Some(String::from_utf8(head).unwrap())
    }

    async fn say(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.unwrap();
    }
}

impl Fake {
    fn settings(&self) -> UpstreamSettings {
        UpstreamSettings::new(self.address.ip().to_string(), self.address.port())
    }

    fn client(&self) -> Client {
        Client::new(&self.settings()).unwrap()
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

fn request(body: &'static str) -> Request<Full<Bytes>> {
    Request::post("/pay")
        .header("host", "shop")
        .body(Full::from(body))
        .unwrap()
}

async fn send(client: &Client) -> Result<Response<PooledBody<Full<Bytes>>>, UpstreamError> {
    timeout(SOON, client.send(Box::new(request("")), None))
        .await
        .unwrap()
}

async fn text(response: Response<PooledBody<Full<Bytes>>>) -> Result<String, hyper::Error> {
    let body = timeout(SOON, response.into_body().collect())
        .await
        .unwrap()?;
    Ok(String::from_utf8(body.to_bytes().to_vec()).unwrap())
}

/// Lets the runtime look at its sockets, so that what has happened on one is known.
async fn look_at_sockets() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let (client, server) = tokio::join!(
        TcpStream::connect(listener.local_addr().unwrap()),
        listener.accept()
    );
    client.unwrap().write_all(b"x").await.unwrap();
    server.unwrap().0.read_u8().await.unwrap();
}

fn assert_not_sent(error: &UpstreamError, late: bool) {
    assert!(
        matches!(error, UpstreamError::NotSent { timed_out, .. } if *timed_out == late),
        "{error:?}"
    );
}

mod answers;
mod connecting;
mod reuse;
