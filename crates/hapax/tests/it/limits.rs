//! Bounds: refusal comes before the claim, and what is kept stays kept.

use rustix::process::{Resource, Rlimit, prlimit};

use crate::client::{Connection, post};
use crate::gateway::Gateway;
use crate::support::{Gate, eventually};
use crate::upstream::{Act, Upstream, answer, created};

#[test]
fn a_full_store_refuses_new_keys_and_still_replays_the_old() {
    let upstream = Upstream::new();
    let gateway = Gateway::start(&upstream.url(), "[store]\nmax_records = 3\n");
    for key in ["a", "b", "c"] {
        assert_eq!(post(key).send(gateway.address()).status, 201);
    }
    let refused = post("d").send(gateway.address());
    assert_eq!(
        (refused.status, refused.problem().as_str()),
        (503, "store-unavailable")
    );
    assert!(refused.field("retry-after").is_some());
    assert_eq!(refused.json()["retryable"], true);
    assert!(post("a").send(gateway.address()).is_replay());
    assert_eq!(upstream.count(), 3);
    assert!(gateway.metric("hapax_store_errors_total", &["insert"]) >= 1.0);
    assert_eq!(gateway.counted("store_error"), 1.0);
}

#[test]
fn too_many_operations_at_once_are_refused_before_their_claim() {
    let gate = Gate::new();
    let held = gate.clone();
    let upstream = Upstream::scripted(move |effect| Act::Hold(held.clone(), created(effect)));
    let gateway = Gateway::start(&upstream.url(), "[limits]\nmax_outstanding = 1\n");
    let mut first = Connection::open(gateway.address());
    first.send(&post("a").bytes()).expect("it listens");
    upstream.wait_for_effects(1);
    let refused = post("b").send(gateway.address());
    assert_eq!(refused.status, 503, "{refused:?}");
    assert!(refused.field("retry-after").is_some());
    assert_eq!(refused.json()["retryable"], true);
    gate.open();
    assert_eq!(first.read().expect("an answer").status, 201);
    let later = eventually("a free place", || {
        let answer = post("b").send(gateway.address());
        (answer.status != 503).then_some(answer)
    });
    assert_eq!((later.status, later.idempotency()), (201, "executed"));
    assert_eq!(upstream.count(), 2);
}

#[test]
fn without_file_descriptors_nothing_is_executed_twice_and_it_recovers() {
    let upstream = Upstream::new();
    let gateway = Gateway::start(&upstream.url(), "");
    let mut early = Connection::open(gateway.address());
    early.send(&post("early").bytes()).expect("it listens");
    assert_eq!(early.read().expect("an answer").status, 201);
    let open = std::fs::read_dir(format!("/proc/{}/fd", gateway.pid().as_raw_nonzero()));
    let few = open.expect("it runs").count() as u64 + 10;
    let limit = Rlimit {
        current: Some(few),
        maximum: Some(few),
    };
    prlimit(Some(gateway.pid()), Resource::Nofile, limit).expect("it is ours");
    let crowd: Vec<_> = (0..60)
        .map(|number| {
            let mut connection = Connection::open(gateway.address());
            connection.send_anyway(&post(&format!("crowd-{number}")).bytes());
            connection
        })
        .collect();
    early.send(&post("early").bytes()).expect("it listens");
    assert!(early.read().expect("an answer").is_replay());
    drop(crowd);
    let late = eventually("recovery", || {
        let answer = post("late").try_send(gateway.address()).ok()?;
        (answer.status == 201).then_some(answer)
    });
    assert!(["executed", "replayed"].contains(&late.idempotency()));
    for effect in upstream.effects() {
        assert_eq!(upstream.count_of(effect.key()), 1, "{}", effect.key());
    }
}

#[test]
fn a_head_beyond_the_limit_is_refused_and_reaches_nobody() {
    let upstream = Upstream::new();
    let gateway = Gateway::start(&upstream.url(), "[server]\nmax_head = \"4KiB\"\n");
    let large = post("k").field("X-Large", &"x".repeat(5_000));
    let answer = large.send(gateway.address());
    assert_eq!(answer.status, 431, "{answer:?}");
    assert_eq!(upstream.count(), 0);
}

#[test]
fn many_silent_clients_do_not_keep_others_from_being_served() {
    let upstream = Upstream::new();
    let gateway = Gateway::start(&upstream.url(), "");
    let mut silent = Vec::new();
    for number in 0..400 {
        let mut connection = Connection::open(gateway.address());
        if number % 2 == 0 {
            connection.send_anyway(b"POST /orders HTTP/1.1\r\nHost: a");
        }
        silent.push(connection);
    }
    assert_eq!(post("k").send(gateway.address()).idempotency(), "executed");
    assert!(post("k").send(gateway.address()).is_replay());
    drop(silent);
}

#[test]
fn a_client_that_does_not_read_its_answer_is_cut_off_and_a_retry_gets_it() {
    let body = vec![b'x'; 60 << 20];
    let large = answer(200, &[("Location", "/large")], &body);
    let upstream = Upstream::scripted(move |_| Act::Answer(large.clone()));
    let config = "[server]\nanswer_timeout = \"300ms\"\n";
    let gateway = Gateway::start(&upstream.url(), config);
    let before = gateway.peak_memory_mib();
    let mut slow = Connection::open(gateway.address());
    slow.take_little_at_once();
    slow.send(&post("k").bytes()).expect("it listens");
    upstream.wait_for_effects(1);
    let retry = eventually("a settled record", || {
        let answer = post("k").send(gateway.address());
        (answer.status != 409).then_some(answer)
    });
    assert_eq!(
        (retry.status, retry.field("location")),
        (303, Some("/large"))
    );
    // The upstream has got rid of its answer: nobody is held up by who does not read.
    upstream.wait_for_answers(1);
    assert!(slow.read().is_err(), "it was not cut off");
    let took = gateway.peak_memory_mib() - before;
    assert!(took < 30, "{took} MiB were held for one client");
    assert_eq!(upstream.count(), 1);
}
