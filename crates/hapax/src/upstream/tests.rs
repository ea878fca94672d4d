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
    timeout(SOON, client.send(request(""))).await.unwrap()
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

#[tokio::test]
async fn a_refused_connection_sent_nothing() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let client = Client::new(&UpstreamSettings::new("127.0.0.1", port)).unwrap();
    let error = send(&client).await.unwrap_err();
    assert_not_sent(&error, false);
    assert!(error.root().to_string().contains("refused"), "{error:?}");
}

#[tokio::test]
async fn a_name_without_an_address_sent_nothing() {
    let client = Client::new(&UpstreamSettings::new("nonexistent.invalid", 80)).unwrap();
    let error = send(&client).await.unwrap_err();
    // A resolver that does not answer is as good as one that says no.
    assert!(error.is_not_sent(), "{error:?}");
    assert!(!error.root().to_string().is_empty());
}

#[tokio::test]
async fn a_black_hole_times_out_and_sent_nothing() {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    // Nobody accepts: after the backlog is full, a connection stays half open.
    let mut full = Vec::new();
    while let Ok(Ok(stream)) =
        timeout(Duration::from_millis(200), TcpStream::connect(address)).await
    {
        full.push(stream);
        assert!(full.len() < 64, "the backlog never fills");
    }
    let mut settings = UpstreamSettings::new("127.0.0.1", address.port());
    settings.connect_timeout = Duration::from_millis(100);
    let client = Client::new(&settings).unwrap();
    assert_not_sent(&send(&client).await.unwrap_err(), true);
}

fn authority() -> (rcgen::CertifiedKey<rcgen::KeyPair>, tempfile::NamedTempFile) {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), made.cert.pem()).unwrap();
    (made, file)
}

async fn tls_fake(made: &rcgen::CertifiedKey<rcgen::KeyPair>) -> Fake {
    let key = rustls_pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(
        rustls::crypto::ring::default_provider(),
    ))
    .with_safe_default_protocol_versions()
    .unwrap()
    .with_no_client_auth()
    .with_single_cert(vec![made.cert.der().clone()], key)
    .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    fake(move |peer, _| {
        let acceptor = acceptor.clone();
        async move {
            let Ok(mut stream) = acceptor.accept(peer.stream).await else {
                return;
            };
            loop {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    let Ok(byte) = stream.read_u8().await else {
                        return;
                    };
                    head.push(byte);
                }
                stream
                    .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecret")
                    .await
                    .unwrap();
            }
        }
    })
    .await
}

#[tokio::test]
async fn a_failed_tls_handshake_sent_nothing() {
    let (_, stranger) = authority();
    let (made, _file) = authority();
    let plain = fake(async |mut peer: Peer, _| peer.say("HTTP/1.1 200 OK\r\n\r\n").await).await;
    let closes = fake(async |_, _| {}).await;
    let untrusted = tls_fake(&made).await;
    for upstream in [&plain, &closes, &untrusted] {
        let mut settings = upstream.settings();
        settings.tls = Some(TlsRoots {
            extra: Some(stranger.path().to_owned()),
        });
        let error = send(&Client::new(&settings).unwrap()).await.unwrap_err();
        assert_not_sent(&error, false);
        assert!(
            matches!(
                error,
                UpstreamError::NotSent {
                    source: ConnectError::Tls(_),
                    ..
                }
            ),
            "{error:?}"
        );
    }
}

#[tokio::test]
async fn a_trusted_tls_upstream_is_reused() {
    let (made, file) = authority();
    let upstream = tls_fake(&made).await;
    let mut settings = upstream.settings();
    settings.tls = Some(TlsRoots {
        extra: Some(file.path().to_owned()),
    });
    let client = Client::new(&settings).unwrap();
    for _ in 0..3 {
        assert_eq!(text(send(&client).await.unwrap()).await.unwrap(), "secret");
    }
    assert_eq!(upstream.connections(), 1);
}

#[test]
fn a_file_that_has_no_authorities_is_named() {
    for content in ["", "no certificate"] {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), content).unwrap();
        let mut settings = UpstreamSettings::new("localhost", 1);
        settings.tls = Some(TlsRoots {
            extra: Some(file.path().to_owned()),
        });
        let error = Client::new(&settings).err().unwrap();
        assert!(
            error
                .to_string()
                .contains(&file.path().display().to_string()),
            "{error}"
        );
    }
}

#[tokio::test]
async fn an_answer_cut_at_any_byte_is_after_dispatch_or_a_body_error() {
    const ANSWER: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
    let head = ANSWER.len() - 5;
    for reset in [false, true] {
        for cut in 0..=ANSWER.len() {
            let upstream = fake(move |mut peer, _| async move {
                peer.head().await;
                peer.say(&ANSWER.as_bytes()[..cut]).await;
                if reset {
                    peer.stream.set_zero_linger().unwrap();
                }
            })
            .await;
            let result = send(&upstream.client()).await;
            match result {
                Err(error) => {
                    assert!(
                        matches!(error, UpstreamError::AfterDispatch { .. }),
                        "{cut}: {error:?}"
                    );
                    assert!(cut < head || reset, "{cut}");
                }
                Ok(response) => {
                    assert!(cut >= head, "{cut}");
                    let body = text(response).await;
                    // After a reset the system may forget bytes it had received.
                    assert!(
                        body.is_ok() == (cut == ANSWER.len()) || reset,
                        "{cut}: {body:?}"
                    );
                    assert!(cut == ANSWER.len() || body.is_err(), "{cut}: {body:?}");
                }
            }
            assert_eq!(upstream.requests(), 1, "{cut}: the request was sent again");
        }
    }
}

#[tokio::test]
async fn a_chunked_answer_cut_at_any_byte_is_a_body_error() {
    const HEAD: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    const BODY: &str = "5\r\nhello\r\n0\r\n\r\n";
    for cut in 0..BODY.len() {
        let upstream = fake(move |mut peer, _| async move {
            peer.head().await;
            peer.say(HEAD).await;
            peer.say(&BODY.as_bytes()[..cut]).await;
        })
        .await;
        let response = send(&upstream.client()).await.unwrap();
        assert!(text(response).await.is_err(), "{cut}");
    }
}

#[tokio::test]
async fn malformed_answers_are_after_dispatch() {
    let large = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "y".repeat(70_000));
    for answer in [
        "HTP/1.1 200 OK\r\n\r\n",
        "hello\r\n\r\n",
        "HTTP/1.1 20 OK\r\n\r\n",
        "HTTP/3.0 200 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX : y\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: y\r\n z\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: \0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        &large,
    ] {
        let answer: Arc<str> = answer.into();
        let shown: String = answer.chars().take(80).collect();
        let upstream = fake(move |mut peer, _| {
            let answer = Arc::clone(&answer);
            async move {
                peer.head().await;
                // The client may hang up while a large head is still being sent.
                let _ = peer.stream.write_all(answer.as_bytes()).await;
            }
        })
        .await;
        let result = send(&upstream.client()).await;
        assert!(
            matches!(result, Err(UpstreamError::AfterDispatch { .. })),
            "{shown:?}: {:?}",
            result.err()
        );
        assert_eq!(upstream.requests(), 1);
    }
}

#[tokio::test]
async fn informational_answers_are_not_final() {
    let upstream = fake(async |mut peer: Peer, _| {
        while peer.head().await.is_some() {
            peer.say("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n").await;
            peer.say("HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\nok").await;
        }
    })
    .await;
    let client = upstream.client();
    for _ in 0..2 {
        let response = send(&client).await.unwrap();
        assert_eq!(response.status(), 201);
        assert!(!response.headers().contains_key("link"));
        assert_eq!(text(response).await.unwrap(), "ok");
    }
    assert_eq!(upstream.connections(), 1);
}

#[tokio::test]
async fn a_connection_whose_answer_was_read_is_used_again() {
    let answers = [
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "ok"),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            "ok",
        ),
        ("HTTP/1.1 204 No Content\r\n\r\n", ""),
        ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", ""),
    ];
    let upstream = fake(move |mut peer, _| async move {
        for (answer, _) in answers.iter().cycle() {
            if peer.head().await.is_none() {
                return;
            }
            peer.say(answer).await;
        }
    })
    .await;
    let client = upstream.client();
    for round in 0..100 {
        let response = send(&client).await.unwrap();
        assert_eq!(text(response).await.unwrap(), answers[round % 4].1);
        assert_eq!(client.idle(), 1, "round {round}");
    }
    assert_eq!((upstream.connections(), upstream.requests()), (1, 100));
}

#[tokio::test]
async fn an_answer_without_content_gives_its_connection_back_unread() {
    let upstream = fake(async |mut peer: Peer, _| {
        while peer.head().await.is_some() {
            peer.say("HTTP/1.1 204 No Content\r\n\r\n").await;
        }
    })
    .await;
    let client = upstream.client();
    for _ in 0..3 {
        drop(send(&client).await.unwrap());
    }
    assert_eq!(upstream.connections(), 1);
}

#[tokio::test]
async fn a_connection_that_says_close_or_whose_answer_was_dropped_is_not_used_again() {
    for answer in [
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\n\r\nok",
    ] {
        let upstream = fake(move |mut peer, _| async move {
            peer.head().await;
            peer.say(answer).await;
        })
        .await;
        let client = upstream.client();
        for round in 1..=3 {
            assert_eq!(text(send(&client).await.unwrap()).await.unwrap(), "ok");
            assert_eq!((upstream.connections(), client.idle()), (round, 0));
        }
    }
    let closed = Arc::new(Notify::new());
    let bell = Arc::clone(&closed);
    let upstream = fake(move |mut peer, _| {
        let bell = Arc::clone(&bell);
        async move {
            peer.head().await;
            peer.say("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\npart")
                .await;
            assert!(peer.head().await.is_none());
            bell.notify_one();
        }
    })
    .await;
    let client = upstream.client();
    drop(send(&client).await.unwrap());
    timeout(SOON, closed.notified()).await.unwrap();
    assert_eq!(client.idle(), 0);
}

#[tokio::test]
async fn a_connection_that_the_upstream_closed_while_idle_is_replaced_unseen() {
    let closed = Arc::new(Notify::new());
    let bell = Arc::clone(&closed);
    let upstream = fake(move |mut peer, _| {
        let bell = Arc::clone(&bell);
        async move {
            peer.head().await;
            peer.say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                .await;
            drop(peer);
            bell.notify_one();
        }
    })
    .await;
    let client = upstream.client();
    for round in 1..=20 {
        assert_eq!(text(send(&client).await.unwrap()).await.unwrap(), "ok");
        timeout(SOON, closed.notified()).await.unwrap();
        look_at_sockets().await;
        assert_eq!(
            (upstream.connections(), upstream.requests()),
            (round, round)
        );
    }
}

#[tokio::test]
async fn a_pooled_connection_that_dies_as_the_request_arrives_is_after_dispatch_and_not_repeated() {
    // How many bytes of the second request the upstream reads before it closes.
    for reads in 1..=12 {
        let upstream = fake(move |mut peer, _| async move {
            peer.head().await;
            peer.say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                .await;
            let mut part = vec![0; reads];
            peer.stream.read_exact(&mut part).await.unwrap();
        })
        .await;
        let client = upstream.client();
        assert_eq!(text(send(&client).await.unwrap()).await.unwrap(), "ok");
        let error = send(&client).await.unwrap_err();
        assert!(
            matches!(error, UpstreamError::AfterDispatch { .. }),
            "{error:?}"
        );
        assert_eq!(upstream.connections(), 1, "the request was sent again");
    }
}

#[tokio::test]
async fn a_pooled_connection_that_dies_at_any_moment_never_doubles_a_request() {
    // The upstream closes right after its answer, with no signal: whatever the race gives, a request that failed after
    // dispatch was not repeated, and one that was repeated had not arrived.
    let upstream = fake(async |mut peer: Peer, _| {
        peer.head().await;
        peer.say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            .await;
    })
    .await;
    let client = upstream.client();
    let mut answered = 0;
    for _ in 0..200 {
        match send(&client).await {
            Ok(response) => {
                assert_eq!(text(response).await.unwrap(), "ok");
                answered += 1;
            }
            Err(error) => assert!(!error.is_not_sent(), "{error:?}"),
        }
    }
    assert!(answered >= 100, "{answered}");
    assert_eq!(upstream.requests(), answered);
}

#[tokio::test]
async fn an_expired_connection_is_not_used() {
    let upstream = fake(async |mut peer: Peer, _| {
        while peer.head().await.is_some() {
            peer.say("HTTP/1.1 204 No Content\r\n\r\n").await;
        }
    })
    .await;
    let mut settings = upstream.settings();
    settings.idle_timeout = Duration::ZERO;
    let client = Client::new(&settings).unwrap();
    for _ in 0..3 {
        send(&client).await.unwrap();
    }
    assert_eq!(upstream.connections(), 3);
}

#[tokio::test]
async fn idle_connections_are_swept_without_traffic() {
    let closed = Arc::new(Notify::new());
    let bell = Arc::clone(&closed);
    let upstream = fake(move |mut peer, _| {
        let bell = Arc::clone(&bell);
        async move {
            peer.head().await;
            peer.say("HTTP/1.1 204 No Content\r\n\r\n").await;
            assert!(peer.head().await.is_none());
            bell.notify_one();
        }
    })
    .await;
    let mut settings = upstream.settings();
    settings.idle_timeout = Duration::from_millis(40);
    let client = Client::new(&settings).unwrap();
    for _ in 0..2 {
        send(&client).await.unwrap();
        assert_eq!(client.idle(), 1);
        timeout(SOON, closed.notified()).await.unwrap();
        assert_eq!(client.idle(), 0);
    }
}

#[tokio::test]
async fn no_more_connections_are_kept_or_opened_than_allowed() {
    let go = Arc::new(tokio::sync::Semaphore::new(0));
    let gate = Arc::clone(&go);
    let upstream = fake(move |mut peer, _| {
        let gate = Arc::clone(&gate);
        async move {
            while peer.head().await.is_some() {
                gate.acquire().await.unwrap().forget();
                peer.say("HTTP/1.1 204 No Content\r\n\r\n").await;
            }
        }
    })
    .await;
    let mut settings = upstream.settings();
    settings.max_connections = Some(2);
    settings.max_idle = 1;
    settings.connect_timeout = Duration::from_millis(50);
    let client = Client::new(&settings).unwrap();
    let busy: Vec<_> = (0..2)
        .map(|_| {
            tokio::spawn({
                let client = client.clone();
                async move { send(&client).await }
            })
        })
        .collect();
    while upstream.requests() < 2 {
        tokio::task::yield_now().await;
    }
    let error = send(&client).await.unwrap_err();
    assert!(
        matches!(
            error,
            UpstreamError::NotSent {
                timed_out: true,
                source: ConnectError::Busy(_)
            }
        ),
        "{error:?}"
    );
    go.add_permits(3);
    for one in busy {
        one.await.unwrap().unwrap();
    }
    assert_eq!((upstream.connections(), client.idle()), (2, 1));
    send(&client).await.unwrap();
    assert_eq!(upstream.connections(), 2);
}

#[tokio::test]
async fn an_early_answer_leaves_no_half_sent_request_in_the_pool() {
    let upstream = fake(async |mut peer: Peer, _| {
        peer.head().await;
        peer.say("HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\n\r\nno")
            .await;
        peer.head().await;
    })
    .await;
    let client: Upstream<Endless> = Upstream::new(&upstream.settings()).unwrap();
    let request = Request::post("/")
        .header("host", "a")
        .body(Endless)
        .unwrap();
    let response = timeout(SOON, client.send(request)).await.unwrap().unwrap();
    assert_eq!(response.status(), 413);
    timeout(SOON, response.into_body().collect())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(client.idle(), 0);
}

/// A body that never comes.
struct Endless;

impl http_body::Body for Endless {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, std::io::Error>>> {
        std::task::Poll::Pending
    }
}

#[tokio::test]
async fn the_target_goes_to_the_configured_upstream_whatever_authority_it_names() {
    let upstream = fake(async |mut peer: Peer, _| {
        let head = peer.head().await.unwrap();
        peer.say(format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{head}",
            head.len()
        ))
        .await;
    })
    .await;
    let request = Request::get("http://evil.invalid/a//b?c")
        .header("host", "shop")
        .body(Full::default())
        .unwrap();
    let response = timeout(SOON, upstream.client().send(request))
        .await
        .unwrap()
        .unwrap();
    let head = text(response).await.unwrap();
    assert!(
        head.starts_with("GET /a//b?c HTTP/1.1\r\nhost: shop\r\n"),
        "{head}"
    );
    assert!(!head.contains("evil"), "{head}");
}

#[tokio::test]
async fn a_granted_upgrade_hands_the_socket_over() {
    let upstream = fake(async |mut peer: Peer, _| {
        peer.head().await;
        peer.say(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\nhi",
        )
        .await;
        let mut word = [0; 5];
        peer.stream.read_exact(&mut word).await.unwrap();
        peer.say(word).await;
    })
    .await;
    let mut request = request("");
    request
        .headers_mut()
        .insert("connection", "upgrade".parse().unwrap());
    request
        .headers_mut()
        .insert("upgrade", "echo".parse().unwrap());
    let mut response = timeout(SOON, upstream.client().send(request))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(response.status(), 101);
    let mut io = TokioIo::new(
        timeout(SOON, hyper::upgrade::on(&mut response))
            .await
            .unwrap()
            .unwrap(),
    );
    io.write_all(b"there").await.unwrap();
    let mut all = Vec::new();
    timeout(SOON, io.read_to_end(&mut all))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(all, b"hithere");
}
