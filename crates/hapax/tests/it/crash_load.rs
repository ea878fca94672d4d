//! kill -9 under load, again and again on one data directory; with controls that must be caught.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Mutex;
use std::thread;

use crate::client::{Answer, Connection, post};
use crate::gateway::Gateway;
use crate::support::{Random, campaign};
use crate::upstream::Upstream;

const CALLERS: u64 = 8;
const CYCLES: usize = 100;
/// Enough for a control: each of its cycles is caught with near certainty.
const CONTROL_CYCLES: usize = 3;

/// Every key that was sent, with its final answer where the client got one.
type Sent = HashMap<String, Option<Answer>>;

/// What a campaign found.
#[derive(Debug, Default)]
struct Verdict {
    keys: usize,
    acknowledged: usize,
    /// Keys with more than one effect.
    doubled: Vec<String>,
    /// Acknowledged answers that a retry did not get again.
    lost: Vec<String>,
    /// Answers to keys that were under way, which nothing allows.
    wrong: Vec<String>,
}

/// Sends fresh and repeated keys until the gateway is gone.
fn work(gateway: SocketAddr, name: &str, seed: u64) -> Sent {
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
fn ask_again(gateway: &Gateway, sent: &Sent, verdict: &mut Verdict) {
    let mut connection = Connection::open(gateway.address());
    for (key, acknowledged) in sent {
        connection.send(&post(key).bytes()).expect("it listens");
        let retry = connection.read().expect("an answer");
        verdict.keys += 1;
        match acknowledged {
            Some(first) => {
                verdict.acknowledged += 1;
                if !retry.is_replay() || retry.kept() != first.kept() {
                    verdict.lost.push(key.clone());
                }
            }
            None if retry.status == 201 => {}
            None if retry.status == 504 && retry.problem() == "outcome-unknown" => {}
            None => verdict.wrong.push(format!("{key}: {retry:?}")),
        }
    }
}

fn run(cycles: usize, config: &str, store: Option<&Path>) -> Verdict {
    let upstream = Upstream::new();
    let started = Gateway::try_start_in(&upstream.url(), config, store);
    let mut gateway = started.expect("it starts");
    let mut random = Random(7);
    let mut verdict = Verdict::default();
    for cycle in 0..cycles {
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
        gateway.restart();
        let sent = sent.into_inner().expect("no panic");
        ask_again(&gateway, &sent, &mut verdict);
    }
    let mut effects: HashMap<String, usize> = HashMap::new();
    for effect in upstream.effects() {
        *effects.entry(effect.key().to_owned()).or_default() += 1;
    }
    let doubled = effects.into_iter().filter(|(_, count)| *count > 1);
    verdict.doubled = doubled.map(|(key, _)| key).collect();
    verdict
}

#[test]
fn a_hundred_kills_under_load_make_no_second_effect_and_lose_no_answer() {
    let cycles = CYCLES * campaign();
    let verdict = run(cycles, "", None);
    eprintln!(
        "{cycles} kills: 0 second effects of {} keys, 0 of {} acknowledged answers lost",
        verdict.keys, verdict.acknowledged
    );
    assert_eq!(verdict.doubled, Vec::<String>::new());
    assert_eq!(verdict.lost, Vec::<String>::new());
    assert_eq!(verdict.wrong, Vec::<String>::new());
    // Else nothing was tested.
    assert!(verdict.acknowledged > cycles * 10, "{verdict:?}");
    let under_way = verdict.keys - verdict.acknowledged;
    assert!(under_way > cycles, "only {under_way} under way at a kill");
}

#[test]
fn control_a_store_in_memory_is_caught_losing_answers_and_doubling_effects() {
    let verdict = run(CONTROL_CYCLES, "", Some(Path::new("memory:")));
    assert!(!verdict.lost.is_empty(), "{verdict:?}");
    assert!(!verdict.doubled.is_empty(), "{verdict:?}");
}

#[test]
fn control_a_route_that_sends_again_is_caught_doubling_effects() {
    let verdict = run(
        CONTROL_CYCLES * 3,
        "[defaults]\non_unknown = \"resend\"\n",
        None,
    );
    assert!(!verdict.doubled.is_empty(), "{verdict:?}");
    assert_eq!(verdict.lost, Vec::<String>::new());
}
