//! kill -9 at every stage of a request's life: never a second effect.

use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use socket2::{Domain, Socket, Type};

use crate::client::{Answer, Connection, post};
use crate::gateway::Gateway;
use crate::support::{Gate, eventually};
use crate::upstream::{Act, Upstream, answer, created};

fn send(gateway: &Gateway, key: &str) -> Connection {
    let mut connection = Connection::open(gateway.address());
    let sent = connection.send(&post(key).bytes());
    sent.expect("it listens");
    connection
}

fn assert_unknown(answer: &Answer) {
    assert_eq!(answer.status, 504, "{answer:?}");
    assert_eq!(answer.problem(), "outcome-unknown");
    assert_eq!(answer.json()["retryable"], false);
}

/// Restarts and asks twice: the outcome is unknown and stays so.
fn assert_unknown_after_restart(gateway: &mut Gateway, upstream: &Upstream, effects: usize) {
    gateway.restart();
    assert_unknown(&post("k").send(gateway.address()));
    assert_unknown(&post("k").send(gateway.address()));
    assert_eq!(upstream.count(), effects);
}

/// An address whose connections hang: its queue is full and nobody accepts.
struct BlackHole {
    socket: Socket,
    _queued: Vec<Socket>,
}

impl BlackHole {
    fn new() -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        let any: SocketAddr = ([127, 0, 0, 1], 0).into();
        socket.bind(&any.into()).expect("a port");
        socket.listen(0).expect("it listens");
        let address = socket.local_addr().expect("an address");
        let mut queued = Vec::new();
        loop {
            let caller = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
            let connected = caller.connect_timeout(&address, Duration::from_millis(200));
            if connected.is_err() {
                break;
            }
            queued.push(caller);
            assert!(queued.len() < 64, "the queue never fills");
        }
        Self {
            socket,
            _queued: queued,
        }
    }

    fn url(&self) -> String {
        let address = self.socket.local_addr().ok().and_then(|a| a.as_socket());
        format!("http://{}", address.expect("an address"))
    }
}

#[test]
fn killed_before_dispatch_the_outcome_is_unknown() {
    let hole = BlackHole::new();
    let config = "[server]\nconnect_timeout = \"60s\"\n";
    let mut gateway = Gateway::start(&hole.url(), config);
    // The one that is refused says that the other's claim is there.
    let (told, heard) = mpsc::channel();
    for _ in 0..2 {
        let (told, mut connection) = (told.clone(), send(&gateway, "k"));
        thread::spawn(move || drop(told.send(connection.read())));
    }
    let refused = heard.recv().expect("one answers").expect("an answer");
    assert_eq!(refused.problem(), "in-progress");
    gateway.kill_nine();
    let upstream = Upstream::new();
    gateway.setup.upstream = upstream.url();
    assert_unknown_after_restart(&mut gateway, &upstream, 0);
}

#[test]
fn killed_while_the_upstream_works_the_outcome_is_unknown() {
    let gate = Gate::new();
    let held = gate.clone();
    let upstream = Upstream::scripted(move |effect| Act::Hold(held.clone(), created(effect)));
    let mut gateway = Gateway::start(&upstream.url(), "");
    let mut caller = send(&gateway, "k");
    upstream.wait_for_effects(1);
    gateway.kill_nine();
    assert!(caller.read().is_err());
    gate.open();
    assert_unknown_after_restart(&mut gateway, &upstream, 1);
}

#[test]
fn killed_amid_the_answer_the_outcome_is_unknown() {
    let upstream = Upstream::scripted(|effect| {
        let whole = created(effect);
        Act::Answer(whole[..whole.len() - 1].to_vec())
    });
    let mut gateway = Gateway::start(&upstream.url(), "");
    let mut caller = send(&gateway, "k");
    upstream.wait_for_answers(1);
    gateway.kill_nine();
    assert!(caller.read().is_err());
    assert_unknown_after_restart(&mut gateway, &upstream, 1);
}

#[test]
fn killed_with_the_answer_in_its_socket_the_outcome_is_unknown() {
    let gate = Gate::new();
    let held = gate.clone();
    let upstream = Upstream::scripted(move |effect| Act::Hold(held.clone(), created(effect)));
    let mut gateway = Gateway::start(&upstream.url(), "");
    let mut caller = send(&gateway, "k");
    upstream.wait_for_effects(1);
    gateway.freeze();
    gate.open();
    upstream.wait_for_answers(1);
    gateway.kill_nine();
    assert!(caller.read().is_err());
    assert_unknown_after_restart(&mut gateway, &upstream, 1);
}

#[test]
fn killed_after_completion_the_answer_is_replayed() {
    let upstream = Upstream::new();
    let mut gateway = Gateway::start(&upstream.url(), "");
    let first = post("k").send(gateway.address());
    assert_eq!((first.status, first.idempotency()), (201, "executed"));
    gateway.restart();
    let retry = post("k").send(gateway.address());
    assert!(retry.is_replay());
    assert_eq!(retry.kept(), first.kept());
    assert_eq!(upstream.count(), 1);
}

#[test]
fn killed_after_completion_and_before_the_client_read_the_answer_is_replayed() {
    let upstream = Upstream::new();
    let mut gateway = Gateway::start(&upstream.url(), "");
    let caller = send(&gateway, "k");
    let other = eventually("completion", || {
        let answer = post("k").send(gateway.address());
        (answer.status == 201).then_some(answer)
    });
    gateway.restart();
    drop(caller);
    let retry = post("k").send(gateway.address());
    assert!(retry.is_replay());
    assert_eq!(retry.kept(), other.kept());
    assert_eq!(upstream.count(), 1);
}

#[test]
fn killed_after_a_server_error_the_error_is_replayed_as_unknown() {
    let error = answer(500, &[("X-Error", "deadlock")], b"it broke");
    let upstream = Upstream::scripted(move |_| Act::Answer(error.clone()));
    let mut gateway = Gateway::start(&upstream.url(), "");
    let first = post("k").send(gateway.address());
    assert_eq!((first.status, first.text().as_str()), (500, "it broke"));
    for _ in 0..2 {
        gateway.restart();
        let retry = post("k").send(gateway.address());
        assert_eq!((retry.status, retry.idempotency()), (500, "unknown"));
        assert!(retry.is_replay());
        assert_eq!(retry.kept(), first.kept());
    }
    assert_eq!(upstream.count(), 1);
}

#[test]
fn a_frozen_gateway_that_thaws_finishes_what_it_had_begun() {
    let gate = Gate::new();
    let held = gate.clone();
    let upstream = Upstream::scripted(move |effect| Act::Hold(held.clone(), created(effect)));
    let gateway = Gateway::start(&upstream.url(), "");
    let mut caller = send(&gateway, "k");
    upstream.wait_for_effects(1);
    gateway.freeze();
    gate.open();
    upstream.wait_for_answers(1);
    gateway.signal(Signal::CONT);
    assert_eq!(caller.read().expect("an answer").status, 201);
    assert!(post("k").send(gateway.address()).is_replay());
    assert_eq!(upstream.count(), 1);
}

#[test]
fn a_gateway_frozen_past_its_lease_still_completes_what_nobody_has_resolved() {
    let gate = Gate::new();
    let held = gate.clone();
    let upstream = Upstream::scripted(move |effect| Act::Hold(held.clone(), created(effect)));
    let gateway = Gateway::start(&upstream.url(), "[defaults]\nlease = \"1s\"\n");
    let mut caller = send(&gateway, "k");
    upstream.wait_for_effects(1);
    gateway.freeze();
    let thaw_at = Instant::now() + Duration::from_millis(1500);
    eventually("the lease's end", || {
        (Instant::now() > thaw_at).then_some(())
    });
    gateway.signal(Signal::CONT);
    // Whatever it thinks of the lease, it does not execute again.
    let during = post("k").send(gateway.address());
    let problem = during.problem();
    assert!(problem == "in-progress" || problem == "outcome-unknown");
    gate.open();
    assert_eq!(caller.read().expect("an answer").status, 201);
    let retry = post("k").send(gateway.address());
    assert!(retry.is_replay() && retry.status == 201, "{retry:?}");
    assert_eq!(upstream.count(), 1);
}

#[test]
fn a_connection_that_is_never_accepted_times_out_and_leaves_the_key_free() {
    let hole = BlackHole::new();
    let config = "[server]\nconnect_timeout = \"300ms\"\n";
    let mut gateway = Gateway::start(&hole.url(), config);
    let answer = post("k").send(gateway.address());
    assert_eq!(answer.status, 504);
    assert_eq!(answer.problem(), "upstream-unreachable");
    assert_eq!(answer.json()["retryable"], true);
    let upstream = Upstream::new();
    gateway.setup.upstream = upstream.url();
    gateway.restart();
    assert_eq!(post("k").send(gateway.address()).idempotency(), "executed");
}

#[test]
fn the_black_hole_of_these_tests_accepts_nobody() {
    let hole = BlackHole::new();
    let address = hole.url().trim_start_matches("http://").parse();
    let connected =
        TcpStream::connect_timeout(&address.expect("an address"), Duration::from_millis(100));
    assert!(connected.is_err());
}
