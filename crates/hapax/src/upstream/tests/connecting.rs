//! Getting to the upstream, or certainly not.

use super::*;

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
    let response = timeout(SOON, upstream.client().send(Box::new(request), None))
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
