//! The accept loop on real sockets.

use std::{
    convert::Infallible,
    io::ErrorKind,
    net::{Ipv4Addr, SocketAddr},
};

use bytes::Bytes;
use http::{Request, Response, StatusCode, Version, header};
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::Notify,
    task::JoinHandle,
};
use tokio_rustls::TlsConnector;

use super::*;
use crate::gateway::{connection::Tunnel, refusal::refusal_of, tls::tls_config};

/// No test waits longer for anything that should come at once.
const SOON: Duration = Duration::from_secs(20);

struct Fixture {
    address: SocketAddr,
    shutdown: watch::Sender<bool>,
    /// Lets one request to `/wait` go on.
    go: Arc<Notify>,
    /// Rings when a request to `/wait` has begun.
    begun: Arc<Notify>,
    listener: JoinHandle<Drained>,
}

async fn fixture(settings: ListenerSettings) -> Fixture {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (shutdown, down) = watch::channel(false);
    let (go, begun) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (wait, begin) = (Arc::clone(&go), Arc::clone(&begun));
    let service = move |request: Request<Incoming>, origin: &Origin| {
        let told = format!("{} {}", origin.peer, origin.scheme.as_str());
        answer(request, told, Arc::clone(&wait), Arc::clone(&begin))
    };
    let listener = tokio::spawn(serve(listener, settings, service, down));
    Fixture {
        address,
        shutdown,
        go,
        begun,
        listener,
    }
}

/// Answers with what the request was told about its connection.
async fn answer(
    mut request: Request<Incoming>,
    told: String,
    go: Arc<Notify>,
    begun: Arc<Notify>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    if let Some(refusal) = refusal_of(&request) {
        let mut response = Response::new(Full::from(refusal.code()));
        *response.status_mut() = StatusCode::BAD_REQUEST;
        return Ok(response);
    }
    if let Some(tunnel) = request.extensions().get::<Tunnel>() {
        tunnel.open();
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let mut io = TokioIo::new(upgrade.await.unwrap());
            let mut buffer = [0; 64];
            let read = io.read(&mut buffer).await.unwrap();
            io.write_all(&buffer[..read]).await.unwrap();
        });
        let response = Response::builder()
            .status(101)
            .header(header::UPGRADE, "echo")
            .header("connection", "upgrade");
        return Ok(response.body(Full::default()).unwrap());
    }
    if request.uri().path() == "/wait" {
        begun.notify_one();
        go.notified().await;
    }
    let text = format!("{told} {:?}", request.version());
    Ok(Response::new(Full::from(text)))
}

fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n")
}

async fn until(io: &mut (impl AsyncRead + Unpin), end: &str) -> String {
    let mut text = Vec::new();
    while !text.ends_with(end.as_bytes()) {
        text.push(timeout(SOON, io.read_u8()).await.unwrap().unwrap());
    }
    String::from_utf8(text).unwrap()
}

async fn rest(io: &mut (impl AsyncRead + Unpin)) -> String {
    let mut text = Vec::new();
    timeout(SOON, io.read_to_end(&mut text))
        .await
        .unwrap()
        .unwrap();
    String::from_utf8(text).unwrap()
}

async fn over_http2(io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> String {
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(io))
            .await
            .unwrap();
    let connection = tokio::spawn(connection);
    let request = Request::builder()
        .uri("http://a/")
        .body(Empty::<Bytes>::new())
        .unwrap();
    let response = timeout(SOON, sender.send_request(request))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(response.version(), Version::HTTP_2);
    let body = response.into_body().collect().await.unwrap().to_bytes();
    drop(sender);
    connection.await.unwrap().unwrap();
    String::from_utf8(body.to_vec()).unwrap()
}

#[tokio::test]
async fn requests_are_told_their_peer_and_scheme_and_connections_are_kept() {
    let it = fixture(ListenerSettings::default()).await;
    let mut client = TcpStream::connect(it.address).await.unwrap();
    let expected = format!("{} http HTTP/1.1", client.local_addr().unwrap());
    for _ in 0..3 {
        client.write_all(get("/").as_bytes()).await.unwrap();
        let text = until(&mut client, "HTTP/1.1").await + &until(&mut client, "HTTP/1.1").await;
        assert!(
            text.ends_with(&expected) && text.contains("\r\ndate: "),
            "{text}"
        );
    }
}

#[tokio::test]
async fn http2_is_spoken_with_prior_knowledge() {
    let it = fixture(ListenerSettings::default()).await;
    let client = TcpStream::connect(it.address).await.unwrap();
    let expected = format!("{} http HTTP/2.0", client.local_addr().unwrap());
    assert_eq!(over_http2(client).await, expected);
}

#[tokio::test]
async fn tls_speaks_what_alpn_agreed_on() {
    let dir = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let tls = Some(tls_config(&cert, &key).unwrap());
    let it = fixture(ListenerSettings {
        tls,
        ..ListenerSettings::default()
    })
    .await;

    let connect = async |alpn: &[&[u8]]| {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(made.cert.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        let stream = TcpStream::connect(it.address).await.unwrap();
        let name = "localhost".try_into().unwrap();
        TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await
            .unwrap()
    };
    assert!(
        over_http2(connect(&[b"h2", b"http/1.1"]).await)
            .await
            .ends_with("https HTTP/2.0")
    );
    for alpn in [&[b"http/1.1".as_slice()] as &[_], &[]] {
        let mut client = connect(alpn).await;
        client.write_all(get("/").as_bytes()).await.unwrap();
        until(&mut client, "https HTTP/1.1").await;
        // Framing is judged inside TLS too, and no one may switch to HTTP/2 there.
        client
            .write_all(crate::gateway::framing::H2_PREFACE)
            .await
            .unwrap();
        assert!(
            until(&mut client, "asterisk-form")
                .await
                .contains("400 Bad Request")
        );
    }
    // Cleartext on a TLS port ends, and nobody else is disturbed.
    let mut client = TcpStream::connect(it.address).await.unwrap();
    client.write_all(get("/").as_bytes()).await.unwrap();
    let _ = timeout(SOON, client.read_to_end(&mut Vec::new()))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_client_that_never_finishes_its_tls_handshake_is_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let tls = Some(tls_config(&cert, &key).unwrap());
    let handshake_timeout = Duration::from_millis(50);
    let it = fixture(ListenerSettings {
        tls,
        handshake_timeout,
        ..ListenerSettings::default()
    })
    .await;
    let mut client = TcpStream::connect(it.address).await.unwrap();
    client.write_all(b"\x16\x03\x01").await.unwrap();
    let read = timeout(SOON, client.read(&mut [0; 8])).await.unwrap();
    assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
}

#[tokio::test]
async fn above_the_cap_nobody_is_served_until_a_connection_ends() {
    let it = fixture(ListenerSettings {
        max_connections: 1,
        ..ListenerSettings::default()
    })
    .await;
    let mut first = TcpStream::connect(it.address).await.unwrap();
    first.write_all(get("/").as_bytes()).await.unwrap();
    until(&mut first, "http HTTP/1.1").await;
    let mut second = TcpStream::connect(it.address).await.unwrap();
    second.write_all(get("/").as_bytes()).await.unwrap();
    for _ in 0..20 {
        first.write_all(get("/").as_bytes()).await.unwrap();
        until(&mut first, "http HTTP/1.1").await;
        let early = second.try_read(&mut [0; 8]);
        assert!(
            matches!(&early, Err(error) if error.kind() == ErrorKind::WouldBlock),
            "{early:?}"
        );
    }
    drop(first);
    until(&mut second, "http HTTP/1.1").await;
}

#[tokio::test]
async fn shutdown_lets_requests_finish_and_closes_idle_connections() {
    let it = fixture(ListenerSettings::default()).await;
    let mut idle = TcpStream::connect(it.address).await.unwrap();
    idle.write_all(get("/").as_bytes()).await.unwrap();
    until(&mut idle, "http HTTP/1.1").await;
    let mut silent = TcpStream::connect(it.address).await.unwrap();
    let mut busy = TcpStream::connect(it.address).await.unwrap();
    busy.write_all(get("/wait").as_bytes()).await.unwrap();
    timeout(SOON, it.begun.notified()).await.unwrap();
    it.shutdown.send(true).unwrap();
    assert_eq!(rest(&mut idle).await, "");
    assert_eq!(rest(&mut silent).await, "");
    it.go.notify_one();
    let text = rest(&mut busy).await;
    assert!(
        text.starts_with("HTTP/1.1 200") && text.ends_with("http HTTP/1.1"),
        "{text}"
    );
    assert_eq!(
        timeout(SOON, it.listener).await.unwrap().unwrap(),
        Drained { cut: 0 }
    );
    assert!(TcpStream::connect(it.address).await.is_err());
}

#[tokio::test]
async fn what_outlasts_the_drain_is_cut_and_counted() {
    let settings = ListenerSettings {
        drain_timeout: Duration::from_millis(50),
        ..ListenerSettings::default()
    };
    let it = fixture(settings).await;
    let mut busy = TcpStream::connect(it.address).await.unwrap();
    busy.write_all(get("/wait").as_bytes()).await.unwrap();
    timeout(SOON, it.begun.notified()).await.unwrap();
    it.shutdown.send(true).unwrap();
    assert_eq!(
        timeout(SOON, it.listener).await.unwrap().unwrap(),
        Drained { cut: 1 }
    );
    assert!(!rest(&mut busy).await.contains("200 OK"));
}

#[tokio::test]
async fn a_granted_upgrade_makes_the_connection_a_tunnel() {
    let it = fixture(ListenerSettings::default()).await;
    let mut client = TcpStream::connect(it.address).await.unwrap();
    let head = "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n";
    client.write_all(head.as_bytes()).await.unwrap();
    assert!(
        until(&mut client, "\r\n\r\n")
            .await
            .starts_with("HTTP/1.1 101")
    );
    client.write_all(b"\0no\nHTTP at all").await.unwrap();
    assert_eq!(rest(&mut client).await, "\0no\nHTTP at all");
}

#[tokio::test]
async fn a_refusal_reaches_a_client_that_is_still_sending() {
    let it = fixture(ListenerSettings::default()).await;
    for _ in 0..20 {
        let mut client = TcpStream::connect(it.address).await.unwrap();
        let head =
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n";
        client.write_all(head.as_bytes()).await.unwrap();
        client.write_all(&[b'x'; 100_000]).await.unwrap();
        client.shutdown().await.unwrap();
        let text = rest(&mut client).await;
        assert!(
            text.starts_with("HTTP/1.1 400") && text.ends_with("length-and-coding"),
            "{text}"
        );
    }
}
