//! A second opinion: on histories of one record, stateright's tester of linearizability says what the judge says.

use hapax_check::evidence::{Effect, Effects, Event, Expect, History, judge};
use stateright::semantics::{ConsistencyTester, LinearizabilityTester, SequentialSpec};

use crate::random::Random;

/// What an attempt asks for: the operation, with one of two payloads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Execute(u8);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Ret {
    /// The answer, by its number.
    Answer(u8),
    Mismatch,
}

/// An object that does one thing once, and says the same to everybody who asks for it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Once {
    /// What it will say.
    answer: u8,
    done: Option<Execute>,
}

impl SequentialSpec for Once {
    type Op = Execute;
    type Ret = Ret;

    fn invoke(&mut self, op: &Execute) -> Ret {
        if self.done.get_or_insert(*op) == op {
            Ret::Answer(self.answer)
        } else {
            Ret::Mismatch
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Attempt {
    payload: u8,
    from: u64,
    to: u64,
    /// `None`: nobody knows.
    ret: Option<Ret>,
}

/// Attempts with random ends: right ones, and a little wrong ones.
fn attempts(random: &mut Random) -> Vec<Attempt> {
    let count = random.between(2, 6);
    let bound = random.below(2) as u8;
    let is_wrong_once_in = random.between(2, 12);
    (0..count)
        .map(|_| {
            let payload = random.below(2) as u8;
            let from = random.between(1, 20);
            let right = if payload == bound {
                Ret::Answer(1)
            } else {
                Ret::Mismatch
            };
            let ret = match random.below(3) {
                _ if !random.once_in(is_wrong_once_in) => right,
                0 => Ret::Answer(1),
                1 => Ret::Answer(2),
                _ => Ret::Mismatch,
            };
            Attempt {
                payload,
                // Odd and even, so that no attempt begins when another ends.
                from: 2 * from,
                to: 2 * (from + random.between(1, 8)) + 1,
                ret: (!random.once_in(8)).then_some(ret),
            }
        })
        .collect()
}

/// What stateright says.
fn is_linearizable(attempts: &[Attempt]) -> bool {
    // Which of several answers it is does not matter: then none of the others can be explained.
    let answer = attempts.iter().find_map(|attempt| match attempt.ret {
        Some(Ret::Answer(answer)) => Some(answer),
        _ => None,
    });
    let answer = answer.unwrap_or_default();
    let mut tester = LinearizabilityTester::new(Once { answer, done: None });
    let mut moments: Vec<(u64, bool, usize)> = Vec::new();
    for (thread, attempt) in attempts.iter().enumerate() {
        moments.push((attempt.from, false, thread));
        if attempt.ret.is_some() {
            moments.push((attempt.to, true, thread));
        }
    }
    moments.sort_unstable();
    for (_, is_end, thread) in moments {
        let attempt = attempts[thread];
        let result = match attempt.ret {
            Some(ret) if is_end => tester.on_return(thread, ret),
            _ => tester.on_invoke(thread, Execute(attempt.payload)),
        };
        assert!(result.is_ok(), "one attempt a thread: {attempts:?}");
    }
    tester.is_consistent()
}

/// The same for the judge: answers come from one effect, that of the first answer.
fn written_down(attempts: &[Attempt]) -> (History, Effects) {
    let mut events = Vec::new();
    let answered = |attempt: &&Attempt| matches!(attempt.ret, Some(Ret::Answer(_)));
    let first = attempts
        .iter()
        .filter(answered)
        .min_by_key(|attempt| attempt.to);
    for (op, attempt) in attempts.iter().enumerate() {
        let op = op as u64;
        events.push(Event::Invoke {
            at_us: attempt.from,
            client: op,
            op,
            key: "key".to_owned(),
            scope: "scope".to_owned(),
            payload: attempt.payload.to_string(),
            fault: None,
        });
        let (at_us, client) = (attempt.to, op);
        events.push(match attempt.ret {
            Some(Ret::Answer(answer)) => Event::Ok {
                at_us,
                client,
                op,
                status: 201,
                replayed: first.is_some_and(|first| first.to != attempt.to),
                body: answer.to_string(),
                fields: Vec::new(),
                node: None,
            },
            Some(Ret::Mismatch) => Event::Fail {
                at_us,
                client,
                op,
                status: 422,
                kind: "key-reused".to_owned(),
            },
            None => Event::Info {
                at_us,
                client,
                op,
                status: None,
                kind: "lost".to_owned(),
            },
        });
    }
    events.sort_by_key(Event::at_us);
    let effects = first.map(|first| Effect {
        at_us: first.to,
        key: "key".to_owned(),
        scope: "scope".to_owned(),
        payload: first.payload.to_string(),
        effect: 1,
        answer: None,
    });
    (
        History { events },
        Effects {
            effects: effects.into_iter().collect(),
        },
    )
}

#[test]
fn the_judge_and_a_linearizability_tester_say_the_same() {
    const HISTORIES: u64 = 20_000;
    let expect = Expect {
        has_releases: false,
        ..Expect::default()
    };
    let (mut good, mut bad) = (0, 0);
    for seed in 0..HISTORIES {
        let mut random = Random::new(seed);
        let attempts = attempts(&mut random);
        // One end an instant: which of two answers is the first is otherwise anybody's guess.
        let mut ends: Vec<u64> = attempts.iter().map(|attempt| attempt.to).collect();
        ends.sort_unstable();
        if ends.windows(2).any(|pair| pair[0] == pair[1]) {
            continue;
        }
        let (history, effects) = written_down(&attempts);
        let verdict = judge(&history, &effects, &expect);
        let is_linearizable = is_linearizable(&attempts);
        assert_eq!(
            verdict.is_upheld(),
            is_linearizable,
            "seed {seed}: {attempts:#?}\n{verdict}"
        );
        *(if is_linearizable { &mut good } else { &mut bad }) += 1;
    }
    println!("{good} linearizable and {bad} other histories, judged alike");
    assert!(
        good > HISTORIES / 10 && bad > HISTORIES / 10,
        "{good} and {bad}"
    );
}
