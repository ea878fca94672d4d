//! Many identical requests at the same moment.

use std::sync::{Arc, Barrier};
use std::thread;

use crate::client::{Answer, Connection, post};
use crate::gateway::Gateway;
use crate::support::Gate;
use crate::upstream::{Act, Upstream, created};

const CALLERS: usize = 200;

/// The same request over as many connections, sent at one moment; all answers.
fn all_at_once(gateway: &Gateway) -> Vec<Answer> {
    let barrier = Arc::new(Barrier::new(CALLERS));
    let callers: Vec<_> = (0..CALLERS)
        .map(|_| {
            let (barrier, address) = (Arc::clone(&barrier), gateway.address());
            thread::spawn(move || {
                let mut connection = Connection::open(address);
                barrier.wait();
                connection.send(&post("once").bytes()).expect("it listens");
                connection.read().expect("an answer")
            })
        })
        .collect();
    let answers = callers.into_iter().map(|caller| caller.join());
    answers.collect::<Result<_, _>>().expect("no panic")
}

#[test]
fn of_two_hundred_identical_requests_at_once_one_executes() {
    let upstream = Upstream::new();
    let gateway = Gateway::start(&upstream.url(), "");
    let answers = all_at_once(&gateway);
    assert_eq!(upstream.count(), 1);
    let executed = answers.iter().filter(|a| a.idempotency() == "executed");
    assert_eq!(executed.count(), 1);
    for answer in &answers {
        match answer.status {
            201 if answer.idempotency() == "executed" => assert!(!answer.is_replay()),
            201 => assert!(answer.is_replay() && answer.idempotency() == "replayed"),
            409 => {
                assert_eq!(answer.problem(), "in-progress");
                assert!(answer.field("retry-after").is_some());
                assert_eq!(answer.json()["retryable"], true);
                assert_eq!(answer.idempotency(), "");
            }
            _ => panic!("{answer:?}"),
        }
    }
}

#[test]
fn duplicates_that_may_wait_all_get_the_one_answer() {
    let gate = Gate::new();
    let held = gate.clone();
    let upstream = Upstream::scripted(move |effect| Act::Hold(held.clone(), created(effect)));
    let config = "[defaults]\nwait = \"20s\"\n[limits]\nmax_waiters_per_key = 0\n";
    let gateway = Gateway::start(&upstream.url(), config);
    let opener = thread::spawn({
        let gate = gate.clone();
        move || {
            upstream.wait_for_effects(1);
            gate.open();
            upstream
        }
    });
    let answers = all_at_once(&gateway);
    let upstream = opener.join().expect("no panic");
    assert_eq!(upstream.count(), 1);
    let first = &answers[0];
    assert_eq!(first.status, 201);
    for answer in &answers {
        assert_eq!(answer.kept(), first.kept());
    }
    let replays = answers.iter().filter(|answer| answer.is_replay());
    assert_eq!(replays.count(), CALLERS - 1);
}

#[test]
fn beyond_the_cap_of_waiters_a_duplicate_is_refused_at_once() {
    let gate = Gate::new();
    let held = gate.clone();
    let upstream = Upstream::scripted(move |effect| Act::Hold(held.clone(), created(effect)));
    let config = "[defaults]\nwait = \"20s\"\n[limits]\nmax_waiters_per_key = 1\n";
    let gateway = Gateway::start(&upstream.url(), config);
    let send = || {
        let mut connection = Connection::open(gateway.address());
        let sent = connection.send(&post("k").bytes());
        sent.expect("it listens");
        connection
    };
    let mut first = send();
    upstream.wait_for_effects(1);
    // Which of the two waits is not said; the other one is refused while the first runs.
    let (mut one, mut two) = (send(), send());
    let refused = {
        let mut answers = Vec::new();
        thread::scope(|scope| {
            let (told, heard) = std::sync::mpsc::channel();
            for connection in [&mut one, &mut two] {
                let told = told.clone();
                scope.spawn(move || told.send(connection.read().expect("an answer")));
            }
            answers.push(heard.recv().expect("an answer"));
            gate.open();
            answers.push(heard.recv().expect("an answer"));
        });
        answers
    };
    assert_eq!(refused[0].problem(), "in-progress");
    assert_eq!(refused[1].status, 201);
    assert_eq!(first.read().expect("an answer").status, 201);
    assert_eq!(upstream.count(), 1);
}

/// What a duplicate that waits gets when the first attempt ends in `end`; and the effects.
fn waiter_after(end: fn() -> Act) -> (Answer, usize) {
    let gate = Gate::new();
    let held = gate.clone();
    let upstream = Upstream::scripted(move |effect| match effect.serial {
        1 => Act::Parts(Vec::new(), held.clone(), Box::new(end())),
        _ => Act::Answer(created(effect)),
    });
    let gateway = Gateway::start(&upstream.url(), "[defaults]\nwait = \"20s\"\n");
    let mut first = Connection::open(gateway.address());
    first.send(&post("k").bytes()).expect("it listens");
    upstream.wait_for_effects(1);
    let mut waiter = Connection::open(gateway.address());
    waiter.send(&post("k").bytes()).expect("it listens");
    // With another payload there is nothing to wait for: by its answer the waiter has long come.
    let other = post("k").body(b"other").send(gateway.address());
    assert_eq!(other.problem(), "key-reused");
    gate.open();
    first.read().expect("an answer");
    let answer = waiter.read().expect("an answer");
    (answer, upstream.count())
}

#[test]
fn a_duplicate_that_waited_executes_when_the_first_attempt_gave_the_key_back() {
    let (answer, effects) = waiter_after(|| Act::Answer(crate::upstream::answer(503, &[], b"")));
    assert_eq!((answer.status, answer.idempotency()), (201, "executed"));
    assert_eq!(effects, 2);
}

#[test]
fn a_duplicate_that_waited_gets_the_rejection_of_the_first_attempt() {
    let (answer, effects) = waiter_after(|| Act::Answer(crate::upstream::answer(422, &[], b"no")));
    assert_eq!((answer.status, answer.text().as_str()), (422, "no"));
    assert!(answer.is_replay());
    assert_eq!(effects, 1);
}

#[test]
fn a_duplicate_that_waited_is_told_when_the_outcome_is_unknown() {
    let (answer, effects) = waiter_after(|| Act::Reset(Vec::new()));
    assert_eq!(
        (answer.status, answer.problem().as_str()),
        (504, "outcome-unknown")
    );
    assert_eq!(effects, 1);
}

#[test]
fn of_two_payloads_under_one_key_at_once_one_executes_and_the_other_is_refused() {
    let upstream = Upstream::new();
    let gateway = Gateway::start(&upstream.url(), "");
    for round in 0..10 {
        let key = format!("k{round}");
        let barrier = Barrier::new(20);
        let answers: Vec<(usize, Answer)> = thread::scope(|scope| {
            let callers: Vec<_> = (0..20)
                .map(|caller| {
                    let (barrier, key, address) = (&barrier, &key, gateway.address());
                    scope.spawn(move || {
                        let payload = [b"one".as_slice(), b"two"][caller % 2];
                        let mut connection = Connection::open(address);
                        barrier.wait();
                        let sent = connection.send(&post(key).body(payload).bytes());
                        sent.expect("it listens");
                        (caller % 2, connection.read().expect("an answer"))
                    })
                })
                .collect();
            let joined = callers.into_iter().map(|caller| caller.join());
            joined.collect::<Result<_, _>>().expect("no panic")
        });
        assert_eq!(upstream.count_of(&key), 1, "{key}");
        let executed = answers.iter().find(|(_, answer)| answer.status == 201);
        let (winner, _) = executed.expect("one of them");
        for (payload, answer) in &answers {
            let expected: &[u16] = if payload == winner {
                &[201, 409]
            } else {
                &[422]
            };
            assert!(expected.contains(&answer.status), "{key}: {answer:?}");
        }
    }
}
