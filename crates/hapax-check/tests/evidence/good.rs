//! Histories of a gateway that keeps its guarantees: many records, each with a story of its own, under faults.

use hapax_check::evidence::{Effect, Effects, Event, Expect, Floors, History};

use crate::random::Random;

pub(crate) const SECOND: u64 = 1_000_000;
/// A clean time, before every fault.
const CLEAN: (u64, u64) = (10 * SECOND, 900 * SECOND);
const STORE_DOWN: (u64, u64) = (1_000 * SECOND, 1_010 * SECOND);
const KILLED: (u64, u64) = (2_000 * SECOND, 2_010 * SECOND);
/// Long enough after everything else for a retention to end in between.
const UPSTREAM_SLOW: (u64, u64) = (200_000 * SECOND, 200_010 * SECOND);

/// A history, its effects, and what it is held to.
#[derive(Debug, Clone)]
pub(crate) struct Run {
    pub(crate) history: History,
    pub(crate) effects: Effects,
    pub(crate) expect: Expect,
}

/// One record and where its story stands.
struct Record {
    scope: String,
    key: String,
    payload: String,
}

#[derive(Clone)]
struct Said {
    status: u16,
    body: String,
    location: String,
}

struct Author {
    random: Random,
    events: Vec<Event>,
    effects: Vec<Effect>,
    ops: u64,
    says_bodies: bool,
}

impl Author {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let says_bodies = random.once_in(2);
        Self {
            random,
            events: Vec::new(),
            effects: Vec::new(),
            ops: 0,
            says_bodies,
        }
    }

    fn invoke(&mut self, at_us: u64, record: &Record, payload: &str, fault: Option<&str>) -> u64 {
        self.ops += 1;
        self.events.push(Event::Invoke {
            at_us,
            client: self.ops % 7,
            op: self.ops,
            key: record.key.clone(),
            scope: record.scope.clone(),
            payload: payload.to_owned(),
            fault: fault.map(str::to_owned),
        });
        self.ops
    }

    fn ok(&mut self, at_us: u64, op: u64, said: &Said, replayed: bool) {
        let node = if self.random.once_in(2) { "a" } else { "b" };
        self.events.push(Event::Ok {
            at_us,
            client: op % 7,
            op,
            status: said.status,
            replayed,
            body: said.body.clone(),
            fields: vec![("location".to_owned(), said.location.clone())],
            node: Some(node.to_owned()),
        });
    }

    fn fail(&mut self, at_us: u64, op: u64, status: u16, kind: &str) {
        self.events.push(Event::Fail {
            at_us,
            client: op % 7,
            op,
            status,
            kind: kind.to_owned(),
        });
    }

    fn info(&mut self, at_us: u64, op: u64, kind: &str) {
        let status = (kind == "outcome-unknown").then_some(504);
        self.events.push(Event::Info {
            at_us,
            client: op % 7,
            op,
            status,
            kind: kind.to_owned(),
        });
    }

    fn effect(&mut self, at_us: u64, record: &Record, payload: &str) -> Said {
        let effect = self.effects.len() as u64 + 1;
        let said = Said {
            status: 201,
            body: format!("{effect:08x}"),
            location: format!("/orders/{effect}"),
        };
        self.effects.push(Effect {
            at_us,
            key: record.key.clone(),
            scope: record.scope.clone(),
            payload: payload.to_owned(),
            effect,
            answer: self.says_bodies.then(|| said.body.clone()),
        });
        said
    }

    /// An attempt that is executed between `from` and what is returned, and its answer.
    fn executed(&mut self, from: u64, record: &Record, payload: &str) -> (u64, Said) {
        let op = self.invoke(from, record, payload, None);
        let acts = from + self.random.between(1_000, 400_000);
        let said = self.effect(acts, record, payload);
        let to = acts + self.random.between(1_000, 400_000);
        self.ok(to, op, &said, false);
        (to, said)
    }

    /// Later attempts, one after the other. Some answers are lost.
    fn replays(&mut self, mut from: u64, record: &Record, said: &Said) -> u64 {
        for _ in 0..self.random.between(1, 4) {
            from += self.random.between(1, 20 * SECOND);
            let op = self.invoke(from, record, &record.payload, None);
            from += self.random.between(500, 5_000);
            if self.random.once_in(8) {
                self.info(from, op, "lost");
            } else {
                self.ok(from, op, said, true);
            }
        }
        from
    }

    /// An attempt that ends as it is told.
    fn told(&mut self, from: u64, record: &Record, payload: &str, status: u16, kind: &str) -> u64 {
        let op = self.invoke(from, record, payload, None);
        let to = from + self.random.between(500, 5_000);
        if kind == "outcome-unknown" {
            self.info(to, op, kind);
        } else {
            self.fail(to, op, status, kind);
        }
        to
    }

    /// Executed once, with duplicates at the same time, and replayed.
    fn plain(&mut self, from: u64, record: &Record) {
        let (to, said) = self.executed(from, record, &record.payload);
        for _ in 0..self.random.below(3) {
            let begins = self.random.between(from, to);
            let op = self.invoke(begins, record, &record.payload, None);
            if self.random.once_in(2) {
                let ends = self.random.between(begins, to);
                self.fail(ends, op, 409, "in-progress");
            } else {
                let ends = to + self.random.between(1, 2_000);
                self.ok(ends, op, &said, true);
            }
        }
        self.replays(to + 3_000, record, &said);
    }

    /// Executed once, and nobody comes again.
    fn single(&mut self, from: u64, record: &Record) {
        self.executed(from, record, &record.payload);
    }

    /// The client leaves; the operation goes on, and the retry gets its answer.
    fn left(&mut self, from: u64, record: &Record) {
        let payload = &record.payload;
        let op = self.invoke(from, record, payload, Some("client-leaves"));
        let left = from + self.random.between(1_000, 100_000);
        self.info(left, op, "lost");
        let acts = from + self.random.between(1_000, 4 * SECOND);
        let said = self.effect(acts, record, payload);
        if left + 10_000 < acts {
            let op = self.invoke(left + 1_000, record, payload, None);
            self.fail(left + 2_000, op, 409, "in-progress");
        }
        self.replays(acts.max(left) + SECOND, record, &said);
    }

    /// The upstream breaks off: nobody knows, until perhaps the answer comes late.
    fn broken(&mut self, from: u64, record: &Record) {
        let payload = &record.payload;
        let op = self.invoke(from, record, payload, Some("upstream-resets"));
        let acts = from + self.random.between(1_000, 100_000);
        let said = self
            .random
            .once_in(2)
            .then(|| self.effect(acts, record, payload));
        let mut to = acts + self.random.between(1_000, 100_000);
        self.info(to, op, "outcome-unknown");
        for _ in 0..self.random.between(1, 3) {
            to += self.random.between(1, 30 * SECOND);
            to = self.told(to, record, payload, 504, "outcome-unknown");
        }
        if let Some(said) = said.filter(|_| self.random.once_in(2)) {
            self.replays(to, record, &said);
        }
    }

    /// Another payload comes with the key.
    fn reused(&mut self, from: u64, record: &Record) {
        let (to, said) = self.executed(from, record, &record.payload);
        let while_it_runs = self.random.between(from, to);
        self.told(while_it_runs, record, "other", 422, "key-reused");
        let to = self.told(to + 5_000, record, "other", 422, "key-reused");
        self.replays(to, record, &said);
    }

    /// The upstream refuses for good; sometimes a corrected payload takes the key.
    fn rejected(&mut self, from: u64, record: &Record) {
        let said = Said {
            status: 422,
            body: "invalid".to_owned(),
            location: String::new(),
        };
        let op = self.invoke(from, record, &record.payload, None);
        self.ok(from + 2_000, op, &said, false);
        let to = self.replays(from + 3_000, record, &said);
        if self.random.once_in(2) {
            let (to, _) = self.executed(to + SECOND, record, "corrected");
            self.told(to + 1, record, &record.payload, 422, "key-reused");
        }
    }

    /// The upstream is busy, or cannot be reached; then it is not.
    fn released(&mut self, from: u64, record: &Record) {
        let (status, kind) = if self.random.once_in(2) {
            (503, "released")
        } else {
            (502, "upstream-unreachable")
        };
        let mut to = from;
        for _ in 0..self.random.between(1, 2) {
            to = self.told(to + 1_000, record, &record.payload, status, kind);
        }
        if self.random.once_in(2) {
            let (to, said) = self.executed(to + SECOND, record, &record.payload);
            self.replays(to, record, &said);
        }
    }

    /// The store cannot be asked; once it can, the operation runs.
    fn refused(&mut self, record: &Record) {
        let (from, healed) = STORE_DOWN;
        let begins = self.random.between(from, healed - SECOND);
        self.told(begins, record, &record.payload, 503, "store-unavailable");
        if self.random.once_in(2) {
            let (to, said) = self.executed(healed + SECOND, record, &record.payload);
            self.replays(to, record, &said);
        }
    }

    /// The store fails between the answer and its record (P24): the client has it, and later nobody knows.
    fn unrecorded(&mut self, record: &Record) {
        let (from, healed) = STORE_DOWN;
        let op = self.invoke(from - SECOND, record, &record.payload, None);
        let said = self.effect(from + 1_000, record, &record.payload);
        self.ok(from + 2_000, op, &said, false);
        let to = self.told(healed + SECOND, record, &record.payload, 409, "in-progress");
        self.told(
            to + 80 * SECOND,
            record,
            &record.payload,
            504,
            "outcome-unknown",
        );
    }

    /// The gateway is killed under the operation.
    fn killed(&mut self, record: &Record) {
        let (from, healed) = KILLED;
        let begins = self.random.between(from - 2 * SECOND, from - 1_000);
        let op = self.invoke(begins, record, &record.payload, None);
        if self.random.once_in(2) {
            let acts = self.random.between(begins, from);
            self.effect(acts, record, &record.payload);
        }
        self.info(from + 1_000, op, "lost");
        let op = self.invoke(from + SECOND, record, &record.payload, None);
        self.info(from + SECOND + 100, op, "lost");
        self.told(
            healed + SECOND,
            record,
            &record.payload,
            504,
            "outcome-unknown",
        );
    }

    /// Retention ends, and the key means another operation.
    fn expired(&mut self, from: u64, record: &Record, retention_us: u64) {
        let (to, said) = self.executed(from, record, &record.payload);
        self.replays(to, record, &said);
        let from = to + retention_us + 200 * SECOND;
        let (to, said) = self.executed(from, record, &record.payload);
        self.replays(to, record, &said);
    }

    /// A replay that is read just before retention ends, and arrives when the key means another operation already.
    fn at_the_end(&mut self, from: u64, record: &Record, retention_us: u64) {
        let (to, said) = self.executed(from, record, &record.payload);
        self.replays(to, record, &said);
        let ends = to + retention_us;
        let late = self.invoke(ends - 100, record, &record.payload, None);
        let op = self.invoke(ends - 50, record, &record.payload, None);
        let new = self.effect(ends + 200, record, &record.payload);
        self.ok(ends + 300, late, &said, true);
        self.ok(ends + 400, op, &new, false);
        self.replays(ends + 500, record, &new);
    }

    /// Retention ends, the key means another operation, and the gateway gives up on an upstream that acts after all.
    fn late(&mut self, record: &Record, retention_us: u64) {
        let (from, healed) = UPSTREAM_SLOW;
        let begins = self.random.between(from, healed);
        let before = begins - retention_us - 200 * SECOND;
        let (to, said) = self.executed(before, record, &record.payload);
        self.replays(to, record, &said);
        let op = self.invoke(begins, record, &record.payload, None);
        self.info(begins + SECOND, op, "outcome-unknown");
        let told = begins + 2 * SECOND;
        self.told(told, record, &record.payload, 504, "outcome-unknown");
        let said = self.effect(told + SECOND, record, &record.payload);
        self.replays(told + 2 * SECOND, record, &said);
    }

    fn run(mut self, records: u64) -> Run {
        let mut expect = expect();
        self.world();
        for number in 0..records {
            // Few keys and many scopes: most keys are used in several.
            let record = Record {
                scope: format!("scope {}", number / 4),
                key: format!("key {}", number % 4),
                payload: format!("payload {}", self.random.below(3)),
            };
            let (from, to) = CLEAN;
            let from = self.random.between(from, to);
            match self.random.below(14) {
                0 | 1 => self.plain(from, &record),
                2 => self.single(from, &record),
                3 => self.left(from, &record),
                4 => self.broken(from, &record),
                5 => self.reused(from, &record),
                6 => self.rejected(from, &record),
                7 => self.released(from, &record),
                8 => self.refused(&record),
                9 => self.unrecorded(&record),
                10 => self.killed(&record),
                11 => self.late(&record, expect.retention.as_micros() as u64),
                12 => self.at_the_end(from, &record, expect.retention.as_micros() as u64),
                _ => self.expired(from, &record, expect.retention.as_micros() as u64),
            }
        }
        self.figures();
        expect.floors = Floors {
            attempts: records,
            ok_share: 0.1,
            faults: [("kill-9".to_owned(), 1), ("store-down".to_owned(), 1)].into(),
            ..Floors::default()
        };
        if records < 20 {
            expect.floors = Floors::default();
        }
        self.finish(expect)
    }

    fn world(&mut self) {
        for (fault, (from, to)) in [
            ("store-down", STORE_DOWN),
            ("kill-9", KILLED),
            ("upstream-slow", UPSTREAM_SLOW),
        ] {
            self.events.push(Event::Fault {
                at_us: from,
                fault: fault.to_owned(),
                node: Some("a".to_owned()),
            });
            self.events.push(Event::Healed {
                at_us: to,
                fault: Some(fault.to_owned()),
                node: None,
            });
        }
        // Long after everything else: a store that was damaged, and noticed it.
        let damaged = 1_000_000 * SECOND;
        self.events.push(Event::Fault {
            at_us: damaged,
            fault: "bit-flip".to_owned(),
            node: None,
        });
        let record = Record {
            scope: "damaged".to_owned(),
            key: "damaged".to_owned(),
            payload: "payload".to_owned(),
        };
        let (_, said) = self.executed(damaged - SECOND, &record, &record.payload);
        self.told(
            damaged + SECOND,
            &record,
            &record.payload,
            503,
            "store-unavailable",
        );
        self.replays(damaged + 2 * SECOND, &record, &said);
    }

    /// What two gateways measured of themselves.
    fn figures(&mut self) {
        // They know of answers, too, that never reached a client.
        let (mut executed, mut replays) = (5, 5);
        for event in &self.events {
            if let Event::Ok { replayed, .. } = event {
                *(if *replayed {
                    &mut replays
                } else {
                    &mut executed
                }) += 1;
            }
        }
        let at_us = 2_000_000 * SECOND;
        let mut say = |name: &str, node: &str, value| {
            self.events.push(Event::Figure {
                at_us,
                name: name.to_owned(),
                value,
                node: Some(node.to_owned()),
            });
        };
        say("executed", "a", executed / 2);
        say("executed", "b", executed - executed / 2);
        say("replayed", "a", replays);
        say("connections", "a", 900);
    }

    fn finish(mut self, expect: Expect) -> Run {
        self.events
            .sort_by_key(|event| (event.at_us(), !matches!(event, Event::Invoke { .. })));
        Run {
            history: History {
                events: self.events,
            },
            effects: Effects {
                effects: self.effects,
            },
            expect,
        }
    }
}

fn expect() -> Expect {
    Expect {
        bounds: [("connections".to_owned(), 1_000)].into(),
        ..Expect::default()
    }
}

impl Run {
    /// As many records as asked for, each with a story of its own.
    pub(crate) fn good(seed: u64, records: u64) -> Self {
        Author::new(seed).run(records)
    }

    /// One record, executed once and replayed `size` times.
    pub(crate) fn of_one_record(seed: u64, size: u64) -> Self {
        let mut author = Author::new(seed);
        let record = Record {
            scope: "scope".to_owned(),
            key: "key".to_owned(),
            payload: "payload".to_owned(),
        };
        let (to, said) = author.executed(SECOND, &record, "payload");
        for number in 0..size {
            let op = author.invoke(to + number, &record, "payload", None);
            author.ok(to + number + 500, op, &said, true);
        }
        author.finish(Expect::default())
    }

    /// One record, and as many other payloads as asked for that come with its key.
    pub(crate) fn of_many_payloads(seed: u64, size: u64) -> Self {
        let mut author = Author::new(seed);
        let record = Record {
            scope: "scope".to_owned(),
            key: "key".to_owned(),
            payload: "payload".to_owned(),
        };
        let (to, _) = author.executed(SECOND, &record, "payload");
        for number in 0..size {
            let payload = format!("other {number}");
            author.told(to + number * 100, &record, &payload, 422, "key-reused");
        }
        author.finish(Expect::default())
    }
}
