//! Targets that speak https: the same faults, through TLS.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use hapax_check::{CheckError, Fault, Options, Outcome, check};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::flawed::{Flaw, Server};

/// A TLS front of a plain server, with a certificate of its own for localhost.
struct Front {
    port: u16,
    /// The certificate, in PEM.
    ca: String,
}

impl Front {
    fn of(server: &Server) -> Self {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        let config = Arc::new(config);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let upstream = server.url.strip_prefix("http://").unwrap().to_owned();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (config, upstream) = (Arc::clone(&config), upstream.clone());
                thread::spawn(move || relay(stream, config, &upstream));
            }
        });
        Self {
            port,
            ca: made.cert.pem(),
        }
    }
}

/// The request up to its announced end or the client's, then the answer up to the server's end.
fn relay(stream: TcpStream, config: Arc<ServerConfig>, upstream: &str) {
    let mut tls = StreamOwned::new(ServerConnection::new(config).unwrap(), stream);
    let mut server = TcpStream::connect(upstream).unwrap();
    let mut seen = Vec::new();
    let mut buffer = [0; 4096];
    while !is_complete(&seen) {
        match tls.read(&mut buffer) {
            Ok(0) | Err(_) => {
                drop(server.shutdown(Shutdown::Both));
                return;
            }
            Ok(n) => {
                seen.extend_from_slice(&buffer[..n]);
                drop(server.write_all(&buffer[..n]));
            }
        }
    }
    let mut answer = Vec::new();
    drop(server.read_to_end(&mut answer));
    drop(tls.write_all(&answer));
    tls.conn.send_close_notify();
    drop(tls.flush());
}

fn is_complete(seen: &[u8]) -> bool {
    let text = String::from_utf8_lossy(seen);
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return false;
    };
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("Content-Length: "))
        .map_or(0, |length| length.parse().unwrap());
    body.len() >= length
}

fn options(server: &Server, front: &Front) -> Options {
    let mut options = Options::new(format!("https://localhost:{}/orders", front.port), 5);
    options.count_with = Some(format!("{}/count", server.url));
    options.faults = Fault::ALL
        .into_iter()
        .filter(|fault| ![Fault::HangUp, Fault::AfterRestart].contains(fault))
        .collect();
    options.ca = Some(front.ca.clone());
    options
}

#[tokio::test]
async fn a_target_with_tls_is_judged_like_one_without() {
    let sound = Server::start(Flaw::None, Duration::from_millis(20));
    let report = check(&options(&sound, &Front::of(&sound)), &|_| {})
        .await
        .unwrap();
    assert_eq!(report.outcome(), Outcome::Clean, "{}", report.to_json());
    let flawed = Server::start(Flaw::NoRecords, Duration::ZERO);
    let mut lost = options(&flawed, &Front::of(&flawed));
    lost.faults = vec![Fault::LoseReply, Fault::ResetMidReply];
    let report = check(&lost, &|_| {}).await.unwrap();
    assert_eq!(report.outcome(), Outcome::Finding);
    let json = report.to_json();
    assert!(
        json.contains("--cacert") && json.contains("https://localhost:"),
        "{json}"
    );
}

#[tokio::test]
async fn a_certificate_that_nobody_vouches_for_is_no_target() {
    let server = Server::start(Flaw::None, Duration::ZERO);
    let front = Front::of(&server);
    let mut unknown = options(&server, &front);
    unknown.ca = Some(Front::of(&server).ca);
    let error = check(&unknown, &|_| {}).await.unwrap_err();
    assert!(matches!(error, CheckError::Unreachable(..)), "{error}");
    unknown.ca = Some("no certificate".into());
    let error = check(&unknown, &|_| {}).await.unwrap_err();
    assert!(matches!(error, CheckError::Certificates(_)), "{error}");
}
