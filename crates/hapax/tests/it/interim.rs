//! Informational answers: they reach the client that waits, and never stand within another answer.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::client::{Answer, Ask, Connection, ask, post};
use crate::gateway::Gateway;
use crate::support::{Gate, PATIENCE, eventually};
use crate::upstream::{Act, Effect, Upstream, answer, created};

fn interim(status: u16, fields: &[(&str, &str)]) -> Vec<u8> {
    let mut head = format!("HTTP/1.1 {status} Interim\r\n");
    for (name, value) in fields {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    head.into_bytes()
}

fn hint(of: &str) -> Vec<u8> {
    interim(103, &[("Link", &format!("<{of}>; rel=preload"))])
}

/// Sends these bytes, and the answer once the gate is open.
fn then(first: Vec<u8>, gate: &Gate, effect: &Effect) -> Act {
    Act::Parts(first, gate.clone(), Box::new(Act::Answer(created(effect))))
}

fn open(gateway: &Gateway, request: &Ask) -> Connection {
    let mut connection = Connection::open(gateway.address());
    connection.send(&request.bytes()).expect("it listens");
    connection
}

fn next(connection: &mut Connection) -> Answer {
    connection.read_next("POST").expect("an answer")
}

#[test]
fn an_informational_answer_reaches_the_waiting_client_and_is_not_replayed() {
    let gate = Gate::new();
    let held = gate.clone();
    let upstream = Upstream::scripted(move |effect| {
        let fields = [
            ("Link", "</a.css>; rel=preload"),
            ("Link", "</b.js>"),
            ("Connection", "x-hop"),
            ("X-Hop", "1"),
            ("Transfer-Encoding", "chunked"),
            ("Content-Length", "5"),
            ("Idempotent-Replayed", "true"),
            ("Hapax-Outcome", "release"),
        ];
        then(interim(103, &fields), &held, effect)
    });
    let gateway = Gateway::start(&upstream.url(), "");
    for request in [post("keyed"), ask("POST", "/unkeyed").body(b"{}")] {
        let mut connection = open(&gateway, &request);
        let early = next(&mut connection);
        assert_eq!(early.status, 103);
        let expected = [("link", "</a.css>; rel=preload"), ("link", "</b.js>")];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(early.fields, expected);
        gate.open();
        assert_eq!(next(&mut connection).status, 201);
    }
    let mut connection = open(&gateway, &post("keyed"));
    let replay = next(&mut connection);
    assert!(replay.is_replay(), "{replay:?}");
    assert_eq!(replay.field("link"), None);
}

#[test]
fn one_that_comes_together_with_the_answer_goes_before_it() {
    let upstream = Upstream::scripted(|effect| {
        let mut bytes = hint("now");
        bytes.extend_from_slice(&created(effect));
        Act::Answer(bytes)
    });
    let gateway = Gateway::start(&upstream.url(), "");
    let mut connection = Connection::open(gateway.address());
    for number in 0..50 {
        let request = post(&format!("k{number}"));
        connection.send(&request.bytes()).expect("it listens");
        assert_eq!(next(&mut connection).status, 103);
        assert_eq!(next(&mut connection).status, 201);
    }
}

#[test]
fn what_is_no_informational_answer_to_pass_on_is_kept_back_and_the_rest_is_bounded() {
    let gate = Gate::new();
    let held = gate.clone();
    let upstream = Upstream::scripted(move |effect| {
        let mut bytes = Vec::new();
        match effect.key() {
            "kinds" => {
                for status in [100, 102, 199] {
                    bytes.extend(interim(status, &[]));
                }
            }
            "large" => {
                bytes.extend(interim(103, &[("X", &"x".repeat(17 * 1024))]));
                bytes.extend(interim(103, &[("X", "small")]));
            }
            _ => (0..40).for_each(|_| bytes.extend(hint("many"))),
        }
        then(bytes, &held, effect)
    });
    let gateway = Gateway::start(&upstream.url(), "");
    let mut kinds = open(&gateway, &post("kinds"));
    assert_eq!(next(&mut kinds).status, 102);
    assert_eq!(next(&mut kinds).status, 199);
    let mut large = open(&gateway, &post("large"));
    assert_eq!(next(&mut large).field("x"), Some("small"));
    let mut many = open(&gateway, &post("many"));
    for _ in 0..16 {
        assert_eq!(next(&mut many).status, 103);
    }
    gate.open();
    for mut connection in [kinds, large, many] {
        assert_eq!(next(&mut connection).status, 201);
    }
}

#[test]
fn a_client_or_an_upstream_that_hangs_up_after_one_changes_nothing_else() {
    let gate = Gate::new();
    let held = gate.clone();
    let upstream = Upstream::scripted(move |effect| match effect.key() {
        "cut" => Act::Close(hint("cut")),
        _ => {
            let more = Act::Parts(
                hint("two"),
                held.clone(),
                Box::new(Act::Answer(created(effect))),
            );
            Act::Parts(hint("one"), held.clone(), Box::new(more))
        }
    });
    let gateway = Gateway::start(&upstream.url(), "");
    let mut gone = open(&gateway, &post("gone"));
    assert_eq!(next(&mut gone).status, 103);
    // A duplicate is not the one that waits for this.
    assert_eq!(next(&mut open(&gateway, &post("gone"))).status, 409);
    gone.reset();
    gate.open();
    let retry = eventually("a settled record", || {
        let answer = next(&mut open(&gateway, &post("gone")));
        (answer.status != 409).then_some(answer)
    });
    assert!(retry.is_replay(), "{retry:?}");
    let mut cut = open(&gateway, &post("cut"));
    let mut last = next(&mut cut);
    if last.status == 103 {
        last = next(&mut cut);
    }
    assert_eq!(
        (last.status, last.problem().as_str()),
        (504, "outcome-unknown")
    );
    assert_eq!(upstream.count(), 2);
}

#[test]
fn pipelined_requests_get_their_own_in_order() {
    let gates: Vec<Gate> = (0..3).map(|_| Gate::new()).collect();
    let held = gates.clone();
    let upstream = Upstream::scripted(move |effect| {
        let number: usize = effect
            .key()
            .trim_start_matches('k')
            .parse()
            .expect("a number");
        then(hint(effect.key()), &held[number], effect)
    });
    let gateway = Gateway::start(&upstream.url(), "");
    let mut connection = Connection::open(gateway.address());
    let requests = (0..3).flat_map(|number| post(&format!("k{number}")).bytes());
    connection
        .send(&requests.collect::<Vec<_>>())
        .expect("it listens");
    for (number, gate) in gates.iter().enumerate() {
        let early = next(&mut connection);
        assert_eq!(
            early.field("link"),
            Some(format!("<k{number}>; rel=preload").as_str())
        );
        gate.open();
        let done = next(&mut connection);
        assert_eq!(done.json()["key"], format!("k{number}"));
    }
}

#[test]
fn one_that_comes_after_its_client_was_answered_reaches_nobody() {
    let (late, last) = (Gate::new(), Gate::new());
    let (late_held, last_held) = (late.clone(), last.clone());
    let upstream = Upstream::scripted(move |effect| match effect.key() {
        // Nothing, until the client has given up; then the hint.
        "late" => {
            let more = then(hint("late"), &last_held, effect);
            Act::Parts(Vec::new(), late_held.clone(), Box::new(more))
        }
        _ => then(hint("own"), &last_held, effect),
    });
    let config = "[server]\nupstream_timeout = \"1s\"\n";
    let gateway = Gateway::start(&upstream.url(), config);
    let mut connection = open(&gateway, &post("late"));
    assert_eq!(next(&mut connection).status, 504);
    connection.send(&post("own").bytes()).expect("it is open");
    assert_eq!(
        next(&mut connection).field("link"),
        Some("<own>; rel=preload")
    );
    late.open();
    // The late hint has passed through the gateway once the late answer is in the record.
    last.open();
    eventually("the late answer", || {
        post("late")
            .send(gateway.address())
            .is_replay()
            .then_some(())
    });
    assert_eq!(next(&mut connection).json()["key"], "own");
}

/// Every byte that comes until the connection ends, read slowly from a small buffer.
fn read_slowly(mut stream: TcpStream) -> Vec<u8> {
    stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    let (mut bytes, mut chunk) = (Vec::new(), [0; 8 * 1024]);
    loop {
        match stream.read(&mut chunk).expect("it comes") {
            0 => return bytes,
            count => bytes.extend_from_slice(&chunk[..count]),
        }
        if bytes.len() < 1 << 20 {
            std::thread::yield_now();
        }
    }
}

#[test]
fn one_that_comes_while_an_earlier_answer_is_still_being_written_waits_for_its_end() {
    const LARGE: usize = 6 << 20;
    let asked = Gate::new();
    let told = asked.clone();
    let upstream = Upstream::scripted(move |effect| match effect.target.as_str() {
        "/large" => Act::Answer(answer(200, &[], &vec![b'x'; LARGE])),
        _ => {
            told.open();
            let mut bytes = hint("second");
            bytes.extend_from_slice(&created(effect));
            Act::Answer(bytes)
        }
    });
    let gateway = Gateway::start(
        &upstream.url(),
        "[defaults]\nmax_stored_response = \"8MiB\"\n",
    );
    // Stored answers are handed to the connection whole; others as they come.
    for (first, round) in [(post("stored"), "a"), (ask("GET", "/large"), "b")] {
        let stream = TcpStream::connect(gateway.address()).expect("it listens");
        let small = socket2::SockRef::from(&stream).set_recv_buffer_size(16 * 1024);
        small.expect("it is open");
        let last = post(round).field("Connection", "close");
        let mut requests = first.target("/large").bytes();
        requests.extend(last.bytes());
        (&stream).write_all(&requests).expect("it listens");
        let bytes = read_slowly(stream);
        let text = String::from_utf8(bytes).expect("ASCII");
        let (head, rest) = text.split_once("\r\n\r\n").expect("a head");
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        let (content, rest) = rest.split_at(LARGE);
        assert!(
            content.bytes().all(|byte| byte == b'x'),
            "something stands within the content"
        );
        let is_early = rest.starts_with(
            "HTTP/1.1 103 Early Hints\r\nlink: <second>; rel=preload\r\n\r\nHTTP/1.1 201 ",
        );
        // It may also have come too late to be sent; it is then nowhere.
        let is_dropped = rest.starts_with("HTTP/1.1 201 ") && !rest.contains(" 103 ");
        assert!(is_early || is_dropped, "{}", &rest[..rest.len().min(300)]);
    }
    asked.pass();
}

#[test]
fn clients_of_http_1_0_get_none() {
    let gate = Gate::new();
    let held = gate.clone();
    let upstream = Upstream::scripted(move |effect| then(hint("old"), &held, effect));
    let gateway = Gateway::start(&upstream.url(), "");
    let mut old = Connection::open(gateway.address());
    let request = "POST /orders HTTP/1.0\r\nIdempotency-Key: k\r\nContent-Length: 2\r\n\r\n{}";
    old.send(request.as_bytes()).expect("it listens");
    upstream.wait_for_effects(1);
    // The gateway has read the hint by the time it has read a later one for another client.
    let mut new = open(&gateway, &post("new"));
    assert_eq!(next(&mut new).status, 103);
    gate.open();
    assert_eq!(next(&mut old).status, 201);
}
