//! Connections as a whole: what is waited for, order, TLS and HTTP/2. The shapes of requests are in the battery.

use std::process::Command;

use crate::client::{Connection, post};
use crate::gateway::Gateway;
use crate::upstream::Upstream;

fn start(config: &str) -> (Upstream, Gateway) {
    let upstream = Upstream::new();
    let gateway = Gateway::start(&upstream.url(), config);
    (upstream, gateway)
}

#[test]
fn a_head_that_does_not_come_is_cut_off() {
    let (upstream, gateway) =
        start("[server]\nhead_timeout = \"200ms\"\nidle_timeout = \"300ms\"\n");
    let mut slow = Connection::open(gateway.address());
    slow.send(b"POST /orders HTTP/1.1\r\nHost: a")
        .expect("it listens");
    match slow.read() {
        Ok(answer) => assert_eq!(answer.status, 408, "{answer:?}"),
        Err(error) => assert_ne!(error.kind(), std::io::ErrorKind::WouldBlock, "{error}"),
    }
    assert!(slow.is_closed_by_peer());
    let mut silent = Connection::open(gateway.address());
    assert!(silent.is_closed_by_peer());
    assert_eq!(upstream.count(), 0);
}

#[test]
fn content_that_does_not_come_is_cut_off_and_the_key_stays_free() {
    let (upstream, gateway) = start("[server]\nbody_timeout = \"300ms\"\n");
    let whole = post("slow").bytes();
    let mut slow = Connection::open(gateway.address());
    slow.send(&whole[..whole.len() - 1]).expect("it listens");
    let answer = slow.read().expect("an answer");
    assert_eq!(
        (answer.status, answer.problem().as_str()),
        (408, "request-timeout")
    );
    assert!(slow.is_closed_by_peer());
    assert_eq!(upstream.count(), 0);
    assert_eq!(
        post("slow").send(gateway.address()).idempotency(),
        "executed"
    );
}

#[test]
fn requests_sent_one_behind_the_other_are_answered_in_order() {
    let (upstream, gateway) = start("");
    let mut connection = Connection::open(gateway.address());
    let mut bytes = post("one").bytes();
    bytes.extend(post("two").bytes());
    bytes.extend(post("one").bytes());
    connection.send(&bytes).expect("it listens");
    let mut read = || connection.read().expect("an answer");
    let (one, two, again) = (read(), read(), read());
    assert_eq!(one.field("idempotency-key"), Some("one"));
    assert_eq!(two.field("idempotency-key"), Some("two"));
    assert!(again.is_replay());
    assert_eq!(again.body, one.body);
    assert_eq!(upstream.count(), 2);
}

#[test]
fn an_old_client_gets_an_answer_that_it_can_read() {
    let (upstream, gateway) = start("");
    for status in ["executed", "replayed"] {
        let mut connection = Connection::open(gateway.address());
        let request = "POST /orders HTTP/1.0\r\nIdempotency-Key: k\r\nContent-Length: 2\r\n\r\n{}";
        connection.send(request.as_bytes()).expect("it listens");
        let answer = connection.read().expect("an answer");
        assert_eq!((answer.status, answer.idempotency()), (201, status));
        assert_eq!(answer.field("transfer-encoding"), None);
        assert!(connection.is_closed_by_peer());
    }
    assert_eq!(upstream.count(), 1);
}

/// Runs curl; what it wrote.
fn curl(arguments: &[&str]) -> String {
    let output = Command::new("curl")
        .args([
            "--silent",
            "--show-error",
            "--include",
            "--max-time",
            "20",
            "--noproxy",
            "*",
        ])
        .args(["--data", "{}", "--header", "Idempotency-Key: k"])
        .args(arguments)
        .output()
        .expect("curl is there");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    String::from_utf8_lossy(&output.stdout).to_lowercase()
}

#[test]
fn http2_without_tls_is_understood() {
    let (upstream, gateway) = start("");
    let url = format!("http://{}/orders", gateway.address());
    let first = curl(&["--http2-prior-knowledge", &url]);
    assert!(first.starts_with("http/2 201"), "{first}");
    assert!(first.contains("idempotency-status: executed"), "{first}");
    let second = curl(&["--http2-prior-knowledge", &url]);
    assert!(second.contains("idempotent-replayed: true"), "{second}");
    // The same operation over the other version is a replay too.
    let third = curl(&["--http1.1", &url]);
    assert!(third.starts_with("http/1.1 201"), "{third}");
    assert!(third.contains("idempotent-replayed: true"), "{third}");
    assert_eq!(upstream.count(), 1);
}

#[test]
fn a_tls_listener_serves_both_versions_of_http() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let made = rcgen::generate_simple_self_signed(names).expect("a certificate");
    let (certificate, key) = (
        folder.path().join("cert.pem"),
        folder.path().join("key.pem"),
    );
    std::fs::write(&certificate, made.cert.pem()).expect("a file");
    std::fs::write(&key, made.signing_key.serialize_pem()).expect("a file");
    let config = format!("[server]\ntls = {{ cert_file = {certificate:?}, key_file = {key:?} }}\n");
    let (upstream, gateway) = start(&config);
    assert_eq!(gateway.scheme(), "https");
    let url = format!("https://{}/orders", gateway.address());
    let trust = certificate.to_str().expect("a name");
    let first = curl(&["--cacert", trust, "--http2", &url]);
    assert!(first.starts_with("http/2 201"), "{first}");
    let second = curl(&["--cacert", trust, "--http1.1", &url]);
    assert!(second.starts_with("http/1.1 201"), "{second}");
    assert!(second.contains("idempotent-replayed: true"), "{second}");
    assert_eq!(upstream.effects()[0].field("x-forwarded-proto"), "https");
    // Without TLS nobody is served.
    assert!(post("plain").try_send(gateway.address()).is_err());
    assert_eq!(upstream.count(), 1);
}
