//! kill -9 under load, again and again on one data directory.

use std::collections::HashMap;
use std::sync::Mutex;
use std::thread;

use crate::client::{Answer, Connection, post};
use crate::gateway::Gateway;
use crate::support::{Random, campaign};
use crate::upstream::Upstream;

const CALLERS: u64 = 8;
const CYCLES: usize = 100;

/// Every key that was sent, with its final answer where the client got one.
type Sent = HashMap<String, Option<Answer>>;

/// Sends fresh and repeated keys until the gateway is gone.
fn work(gateway: std::net::SocketAddr, name: &str, seed: u64) -> Sent {
    let mut sent = Sent::new();
    let mut random = Random(seed);
    let Ok(mut connection) = Connection::try_open(gateway) else {
        return sent;
    };
    for number in 0.. {
        // One in four is a repetition, of a key that may be answered or not.
        let number = match random.below(4) {
            0 if number > 0 => random.below(number),
            _ => number,
        };
        let key = format!("{name}-{number}");
        sent.entry(key.clone()).or_default();
        if connection.send(&post(&key).bytes()).is_err() {
            break;
        }
        let Ok(answer) = connection.read() else { break };
        assert_eq!(answer.status, 201, "{answer:?}");
        if let Some(Some(first)) = sent.insert(key, Some(answer.clone())) {
            assert_eq!(first.kept(), answer.kept());
        }
    }
    sent
}

/// Asks for every key again: what was acknowledged is replayed; the rest may have one effect.
fn verify(gateway: &Gateway, sent: &Sent) {
    let mut connection = Connection::open(gateway.address());
    for (key, acknowledged) in sent {
        connection.send(&post(key).bytes()).expect("it listens");
        let retry = connection.read().expect("an answer");
        match acknowledged {
            Some(first) => {
                assert!(retry.is_replay(), "{key} was lost: {retry:?}");
                assert_eq!(retry.kept(), first.kept(), "{key}");
            }
            None if retry.status == 201 => {}
            None => assert_eq!(retry.problem(), "outcome-unknown", "{key}: {retry:?}"),
        }
    }
}

#[test]
fn a_hundred_kills_under_load_make_no_second_effect_and_lose_no_answer() {
    let upstream = Upstream::new();
    let mut gateway = Gateway::start(&upstream.url(), "");
    let mut random = Random(7);
    let mut all: Sent = HashMap::new();
    for cycle in 0..CYCLES * campaign() {
        let sent = Mutex::new(Sent::new());
        let address = gateway.address();
        // From the first requests to far into the load.
        let enough = upstream.count() + 1 + random.below(80) as usize;
        thread::scope(|scope| {
            for caller in 0..CALLERS {
                let sent = &sent;
                scope.spawn(move || {
                    let name = format!("{cycle}-{caller}");
                    let seed = cycle as u64 * CALLERS + caller;
                    let mine = work(address, &name, seed);
                    sent.lock().expect("no panic").extend(mine);
                });
            }
            upstream.wait_for_effects(enough);
            gateway.kill_nine();
        });
        let sent = sent.into_inner().expect("no panic");
        gateway.restart();
        verify(&gateway, &sent);
        all.extend(sent);
    }
    let mut effects: HashMap<String, usize> = HashMap::new();
    for effect in upstream.effects() {
        *effects.entry(effect.key().to_owned()).or_default() += 1;
    }
    let doubled: Vec<_> = effects.iter().filter(|(_, count)| **count > 1).collect();
    assert!(doubled.is_empty(), "{doubled:?}");
    let acknowledged = all.values().flatten().count();
    let open = all.len() - acknowledged;
    eprintln!(
        "0 second effects of {} keys; {acknowledged} acknowledged, 0 lost",
        all.len()
    );
    assert!(acknowledged > CYCLES * 10, "only {acknowledged}");
    assert!(open > CYCLES, "only {open} were under way at a kill");
}
