//! Upstreams that cannot be reached, break off, or take too long.

use std::net::TcpListener;

use crate::client::{Answer, Connection, ask, post};
use crate::gateway::Gateway;
use crate::support::{Gate, eventually};
use crate::upstream::{Act, Effect, Upstream, created};

/// Nothing was sent: the client may try again, and the key is free.
fn assert_unreachable(answer: &Answer) {
    assert_eq!(answer.status, 502, "{answer:?}");
    assert_eq!(answer.problem(), "upstream-unreachable");
    assert_eq!(answer.json()["retryable"], true);
    assert!(answer.field("proxy-status").is_some());
}

fn assert_unknown(answer: &Answer, case: &str) {
    assert_eq!(answer.status, 504, "{case}: {answer:?}");
    assert_eq!(answer.problem(), "outcome-unknown", "{case}");
    assert_eq!(answer.json()["retryable"], false, "{case}");
}

/// A port that nobody listens on.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}

#[test]
fn a_refused_connection_leaves_the_key_free() {
    let port = free_port();
    let gateway = Gateway::start(&format!("http://127.0.0.1:{port}"), "");
    for _ in 0..2 {
        assert_unreachable(&post("k").send(gateway.address()));
    }
    let upstream = Upstream::on(port, |effect| Act::Answer(created(effect)));
    let answer = post("k").send(gateway.address());
    assert_eq!((answer.status, answer.idempotency()), (201, "executed"));
    assert_eq!(upstream.count(), 1);
    assert_eq!(upstream.effects()[0].field("hapax-attempt"), "1");
}

#[test]
fn a_name_without_an_address_leaves_the_key_free() {
    let mut gateway = Gateway::start("http://nonexistent.invalid", "");
    for _ in 0..2 {
        assert_unreachable(&post("k").send(gateway.address()));
    }
    let upstream = Upstream::new();
    gateway.setup.upstream = upstream.url();
    gateway.restart();
    let answer = post("k").send(gateway.address());
    assert_eq!((answer.status, answer.idempotency()), (201, "executed"));
}

#[test]
fn a_failed_tls_handshake_leaves_the_key_free() {
    let plain = Upstream::new();
    let url = plain.url().replace("http://", "https://");
    let mut gateway = Gateway::start(&url, "");
    for _ in 0..2 {
        assert_unreachable(&post("k").send(gateway.address()));
    }
    assert_eq!(plain.count(), 0);
    gateway.setup.upstream = plain.url();
    gateway.restart();
    let answer = post("k").send(gateway.address());
    assert_eq!((answer.status, answer.idempotency()), (201, "executed"));
}

/// Breaks off after as many bytes as the key says, as the key says.
fn broken(effect: &Effect) -> Act {
    let key = effect.key();
    let Some((how, count)) = key.split_once('-') else {
        return Act::Answer(created(effect));
    };
    let count: usize = count.parse().expect("a number");
    let bytes = SHORT.as_bytes()[..count].to_vec();
    match how {
        "reset" => Act::Reset(bytes),
        _ => Act::Close(bytes),
    }
}

const SHORT: &str = "HTTP/1.1 201 Created\r\nContent-Length: 4\r\n\r\nmade";

#[test]
fn an_answer_cut_at_any_byte_is_unknown_and_never_sent_again() {
    let upstream = Upstream::scripted(broken);
    let gateway = Gateway::start(&upstream.url(), "");
    for how in ["reset", "close"] {
        for count in 0..SHORT.len() {
            // So that there is a pooled connection to break, in every other case.
            if count % 2 == 0 {
                let warm = format!("warm{how}{count}");
                assert_eq!(post(&warm).send(gateway.address()).status, 201);
            }
            let key = format!("{how}-{count}");
            assert_unknown(&post(&key).send(gateway.address()), &key);
            assert_unknown(&post(&key).send(gateway.address()), &key);
            assert_eq!(upstream.count_of(&key), 1, "{key}");
        }
    }
    let unknown = gateway.counted("unknown");
    assert!(unknown >= 4.0 * SHORT.len() as f64, "{unknown}");
}

#[test]
fn garbage_for_an_answer_is_unknown() {
    let upstream = Upstream::scripted(|_| Act::Close(b"SSH-2.0-OpenSSH_9.2\r\n\r\n".to_vec()));
    let gateway = Gateway::start(&upstream.url(), "");
    assert_unknown(&post("k").send(gateway.address()), "garbage");
    assert_unknown(&post("k").send(gateway.address()), "again");
    assert_eq!(upstream.count(), 1);
}

#[test]
fn a_pooled_connection_that_the_upstream_closed_is_not_used_and_no_request_is_doubled() {
    let upstream = Upstream::scripted(|effect| match effect.serial {
        1 => Act::Close(created(effect)),
        _ => Act::Answer(created(effect)),
    });
    let gateway = Gateway::start(&upstream.url(), "");
    assert_eq!(post("a").send(gateway.address()).status, 201);
    let second = post("b").send(gateway.address());
    assert!(upstream.count_of("b") <= 1);
    assert_eq!(second.status, 201, "{second:?}");
}

#[test]
fn an_upstream_that_closes_after_every_answer_never_gets_a_request_twice() {
    // It does not say that it will close: each next request races with the end of the connection.
    let upstream = Upstream::scripted(|effect| Act::Close(created(effect)));
    let gateway = Gateway::start(&upstream.url(), "");
    let mut connection = Connection::open(gateway.address());
    let mut executed = 0;
    for number in 0..300 {
        let key = format!("k{number}");
        connection.send(&post(&key).bytes()).expect("it listens");
        let answer = connection.read().expect("an answer");
        let effects = upstream.count_of(&key);
        match answer.status {
            201 => assert_eq!(effects, 1, "{key}"),
            502 => assert_eq!(effects, 0, "{key}: {answer:?}"),
            504 => assert!(effects <= 1, "{key}"),
            _ => panic!("{key}: {answer:?}"),
        }
        executed += usize::from(answer.status == 201);
    }
    // A gateway that gives up half of the time is of no use.
    assert!(executed > 270, "{executed} of 300");
}

#[test]
fn an_answer_that_comes_too_late_is_stored_for_the_next_retry() {
    let gate = Gate::new();
    let held = gate.clone();
    let upstream = Upstream::scripted(move |effect| Act::Hold(held.clone(), created(effect)));
    let config = "[server]\nupstream_timeout = \"500ms\"\n";
    let gateway = Gateway::start(&upstream.url(), config);
    assert_unknown(&post("k").send(gateway.address()), "out of time");
    assert_unknown(&post("k").send(gateway.address()), "retry");
    gate.open();
    let late = eventually("the late answer", || {
        let answer = post("k").send(gateway.address());
        (answer.status != 504).then_some(answer)
    });
    assert_eq!((late.status, late.idempotency()), (201, "replayed"));
    assert!(late.is_replay() && late.text().contains("\"effect\":1"));
    assert_eq!(upstream.count(), 1);
}

#[test]
fn a_failure_under_a_request_without_a_key_is_not_called_unknown() {
    let upstream = Upstream::scripted(|effect| match effect.target.as_str() {
        "/reset" => Act::Reset(Vec::new()),
        "/silent" => Act::Hold(Gate::new(), Vec::new()),
        _ => Act::Answer(created(effect)),
    });
    let config = "[server]\nupstream_timeout = \"300ms\"\n";
    let gateway = Gateway::start(&upstream.url(), config);
    for (method, target, status) in [
        ("POST", "/reset", 502),
        ("GET", "/reset", 502),
        ("POST", "/silent", 504),
        ("GET", "/silent", 504),
    ] {
        let answer = ask(method, target).send(gateway.address());
        assert_eq!(answer.status, status, "{method} {target}: {answer:?}");
        assert_eq!(answer.problem(), "upstream-failed", "{method} {target}");
        assert!(answer.field("proxy-status").is_some());
        assert_eq!(answer.idempotency(), "");
    }
    assert_eq!(upstream.count(), 4);
}

#[test]
fn an_upstream_below_a_path_is_asked_below_that_path() {
    let upstream = Upstream::new();
    let gateway = Gateway::start(&format!("{}/api/v1/", upstream.url()), "");
    let answer = post("k")
        .target("/orders/../x?a=%2F")
        .send(gateway.address());
    assert_eq!(answer.status, 201);
    assert_eq!(upstream.effects()[0].target, "/api/v1/orders/../x?a=%2F");
}
