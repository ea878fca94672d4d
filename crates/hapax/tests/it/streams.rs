//! Answers that are passed through while they come.

use std::time::{Duration, Instant};

use crate::client::{Connection, ask, post};
use crate::gateway::Gateway;
use crate::support::{Gate, eventually};
use crate::upstream::{Act, Upstream};

const HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\
                    Transfer-Encoding: chunked\r\n\r\n";
const FIRST: &str = "9\r\ndata: 1\n\n\r\n";
const REST: &str = "9\r\ndata: 2\n\n\r\n0\r\n\r\n";

/// Sends a first event, waits for the gate, and then does as the second part says.
fn stream(gate: &Gate, end: fn() -> Act) -> Upstream {
    let gate = gate.clone();
    Upstream::scripted(move |_| {
        let first = format!("{HEAD}{FIRST}").into_bytes();
        Act::Parts(first, gate.clone(), Box::new(end()))
    })
}

fn whole() -> Act {
    Act::Answer(REST.into())
}

#[test]
fn events_reach_the_client_while_the_upstream_still_sends() {
    for key in [None, Some("k")] {
        let gate = Gate::new();
        let upstream = stream(&gate, whole);
        let gateway = Gateway::start(&upstream.url(), "");
        let mut request = ask("POST", "/events");
        if let Some(key) = key {
            request = request.key(key);
        }
        let mut connection = Connection::open(gateway.address());
        connection.send(&request.bytes()).expect("it listens");
        let seen = connection.read_until(b"data: 1\n\n");
        assert!(seen.starts_with("HTTP/1.1 200"), "{seen}");
        gate.open();
        let rest = connection.read_until(b"0\r\n\r\n");
        assert!(rest.contains("data: 2\n\n"), "{rest}");
    }
}

#[test]
fn a_stream_may_last_longer_than_the_upstream_may_take_to_begin_it() {
    for key in [None, Some("k")] {
        let gate = Gate::new();
        let upstream = stream(&gate, whole);
        let config = "[server]\nupstream_timeout = \"300ms\"\n";
        let gateway = Gateway::start(&upstream.url(), config);
        let mut request = ask("POST", "/events");
        if let Some(key) = key {
            request = request.key(key);
        }
        let mut connection = Connection::open(gateway.address());
        connection.send(&request.bytes()).expect("it listens");
        connection.read_until(b"data: 1\n\n");
        let later = Instant::now() + Duration::from_secs(1);
        eventually("later", || (Instant::now() > later).then_some(()));
        gate.open();
        let rest = connection.read_until(b"0\r\n\r\n");
        assert!(rest.contains("data: 2\n\n"), "{key:?}: {rest}");
    }
}

#[test]
fn killed_amid_a_stream_a_retry_does_not_run_it_again() {
    let gate = Gate::new();
    let upstream = stream(&gate, whole);
    let mut gateway = Gateway::start(&upstream.url(), "");
    let mut connection = Connection::open(gateway.address());
    connection.send(&post("k").bytes()).expect("it listens");
    connection.read_until(b"data: 1\n\n");
    gateway.restart();
    gate.open();
    // The record was complete before the first byte of the answer was sent.
    let retry = post("k").send(gateway.address());
    assert_eq!(retry.problem(), "response-unavailable");
    assert_eq!(upstream.count(), 1);
}

#[test]
fn a_client_that_leaves_a_stream_leaves_a_settled_record() {
    let gate = Gate::new();
    let upstream = stream(&gate, whole);
    let gateway = Gateway::start(&upstream.url(), "");
    let mut connection = Connection::open(gateway.address());
    connection.send(&post("k").bytes()).expect("it listens");
    connection.read_until(b"data: 1\n\n");
    connection.reset();
    let retry = eventually("a settled record", || {
        let answer = post("k").send(gateway.address());
        (answer.problem() != "in-progress").then_some(answer)
    });
    assert_eq!(retry.problem(), "response-unavailable");
    gate.open();
    assert_eq!(upstream.count(), 1);
}

#[test]
fn a_stream_that_breaks_off_does_not_look_like_one_that_ended() {
    for key in [None, Some("k")] {
        let gate = Gate::new();
        gate.open();
        let upstream = stream(&gate, || Act::Reset(Vec::new()));
        let gateway = Gateway::start(&upstream.url(), "");
        let mut request = ask("POST", "/events");
        if let Some(key) = key {
            request = request.key(key);
        }
        // Either it broke before the head was passed on, or the content has no end.
        match request.try_send(gateway.address()) {
            Ok(answer) => assert!(answer.status == 504 || answer.status == 502, "{answer:?}"),
            Err(error) => assert_ne!(error.kind(), std::io::ErrorKind::WouldBlock),
        }
        if key.is_some() {
            let retry = request.send(gateway.address());
            assert!(retry.status == 504 || retry.status == 409, "{retry:?}");
        }
        assert_eq!(upstream.count(), 1);
    }
}

#[test]
fn a_large_answer_that_breaks_off_does_not_look_like_one_that_ended() {
    let upstream = Upstream::scripted(|_| {
        let mut bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 4000000\r\n\r\n".to_vec();
        bytes.resize(2_000_000, b'x');
        Act::Close(bytes)
    });
    let gateway = Gateway::start(&upstream.url(), "");
    let cut = post("k").try_send(gateway.address());
    assert!(cut.is_err(), "{:?}", cut.map(|answer| answer.body.len()));
    let retry = post("k").send(gateway.address());
    assert!(retry.status == 504 || retry.status == 409, "{retry:?}");
    assert_eq!(upstream.count(), 1);
}

#[test]
fn a_web_socket_is_carried_both_ways() {
    let gate = Gate::new();
    gate.open();
    let upstream = Upstream::scripted(move |_| {
        let head = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\n\
                    Upgrade: websocket\r\n\r\nhello";
        Act::Echo(head.into())
    });
    let gateway = Gateway::start(&upstream.url(), "");
    let request = "GET /socket HTTP/1.1\r\nHost: a.test\r\nIdempotency-Key: k\r\n\
                   Connection: upgrade\r\nUpgrade: websocket\r\n\r\n";
    let mut connection = Connection::open(gateway.address());
    connection.send(request.as_bytes()).expect("it listens");
    let seen = connection.read_until(b"hello");
    assert!(seen.starts_with("HTTP/1.1 101"), "{seen}");
    connection.send(b"ping\n").expect("it listens");
    assert_eq!(connection.read_until(b"ping\n"), "ping\n");
}
