//! A good history under the knife: finding the place to cut, and cutting.

use hapax_check::evidence::{Effect, Event, Guarantee};

use crate::good::{Run, SECOND};
use crate::random::Random;

/// One way of corrupting a good history.
pub(crate) struct Corruption {
    pub(crate) name: &'static str,
    /// The guarantee that it breaks.
    pub(crate) expected: Guarantee,
    /// Those that it breaks as well, by the same act.
    pub(crate) besides: &'static [Guarantee],
    pub(crate) corrupt: fn(&mut Scene<'_>) -> Option<()>,
}

impl Corruption {
    /// Corrupts the run, if there is a place in it.
    pub(crate) fn apply(&self, run: &mut Run, seed: u64) -> bool {
        let attempts = attempts(run);
        let mut scene = Scene {
            run,
            random: Random::new(seed ^ 0xc077),
            attempts,
        };
        (self.corrupt)(&mut scene).is_some()
    }
}

/// What an attempt was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Told {
    Ok { status: u16, replayed: bool },
    Fail(String),
    Info(String),
}

#[derive(Debug, Clone)]
pub(crate) struct Attempt {
    pub(crate) op: u64,
    pub(crate) scope: String,
    pub(crate) key: String,
    pub(crate) payload: String,
    pub(crate) fault: Option<String>,
    pub(crate) from: u64,
    pub(crate) to: u64,
    /// Where its end is among the events.
    pub(crate) end: usize,
    pub(crate) told: Told,
}

impl Attempt {
    pub(crate) fn is_executed(&self) -> bool {
        matches!(
            self.told,
            Told::Ok {
                status: 201,
                replayed: false
            }
        )
    }

    pub(crate) fn is_replayed(&self) -> bool {
        matches!(
            self.told,
            Told::Ok {
                status: 201,
                replayed: true
            }
        )
    }

    pub(crate) fn is_failed(&self, with: &str) -> bool {
        matches!(&self.told, Told::Fail(kind) if kind == with)
    }

    pub(crate) fn is_unknown(&self) -> bool {
        matches!(&self.told, Told::Info(kind) if kind == "outcome-unknown")
    }

    pub(crate) fn is_of(&self, other: &Attempt) -> bool {
        self.scope == other.scope && self.key == other.key
    }
}

/// A run, and where to cut it.
pub(crate) struct Scene<'r> {
    pub(crate) run: &'r mut Run,
    pub(crate) random: Random,
    pub(crate) attempts: Vec<Attempt>,
}

impl Scene<'_> {
    /// Any attempt of which this is true, on a store that nothing damages.
    pub(crate) fn pick(&mut self, is_fit: impl Fn(&Self, &Attempt) -> bool) -> Option<Attempt> {
        let fit = self
            .attempts
            .iter()
            .filter(|attempt| attempt.scope != "damaged" && is_fit(self, attempt));
        let fit: Vec<Attempt> = fit.cloned().collect();
        let at = self.random.below(fit.len().max(1) as u64) as usize;
        fit.get(at).cloned()
    }

    /// The attempts of the record of this one, this one among them.
    pub(crate) fn record(&self, of: &Attempt) -> Vec<&Attempt> {
        self.attempts
            .iter()
            .filter(|attempt| attempt.is_of(of))
            .collect()
    }

    /// The effects of its record.
    pub(crate) fn effects(&self, of: &Attempt) -> Vec<usize> {
        let effects = self.run.effects.effects.iter().enumerate();
        let own = effects.filter(|(_, effect)| effect.scope == of.scope && effect.key == of.key);
        own.map(|(at, _)| at).collect()
    }

    pub(crate) fn has_namesake(&self, of: &Attempt) -> bool {
        let is_namesake = |other: &Attempt| other.key == of.key && other.scope != of.scope;
        self.attempts.iter().any(is_namesake)
    }

    pub(crate) fn has_one_payload(&self, of: &Attempt) -> bool {
        self.record(of)
            .iter()
            .all(|attempt| attempt.payload == of.payload)
    }

    /// Whether its record has been over before the first fault on the world, and had none of its own.
    pub(crate) fn is_clean(&self, of: &Attempt) -> bool {
        let record = self.record(of);
        record
            .iter()
            .all(|attempt| attempt.to < 990 * SECOND && attempt.fault.is_none())
    }

    /// Whether some client had the success of its record when it began, and not a retention ago.
    pub(crate) fn knew(&self, of: &Attempt) -> bool {
        self.record(of).iter().any(|other| {
            matches!(other.told, Told::Ok { status: 201, .. })
                && other.to < of.from
                && of.to < other.from + 50_000 * SECOND
        })
    }

    /// Whether it is the first attempt of its record.
    pub(crate) fn is_first(&self, of: &Attempt) -> bool {
        self.record(of)
            .first()
            .is_some_and(|first| first.op == of.op)
    }

    pub(crate) fn told(&mut self, attempt: &Attempt, told: Told) {
        let (at_us, client, op) = (attempt.to, attempt.op % 7, attempt.op);
        let end = &mut self.run.history.events[attempt.end];
        *end = match (told, &*end) {
            (Told::Fail(kind), _) => Event::Fail {
                at_us,
                client,
                op,
                status: 409,
                kind,
            },
            (Told::Info(kind), _) => Event::Info {
                at_us,
                client,
                op,
                status: None,
                kind,
            },
            (Told::Ok { status, replayed }, old) => {
                let (body, fields, node) = match old {
                    Event::Ok {
                        body, fields, node, ..
                    } => (body.clone(), fields.clone(), node.clone()),
                    _ => (format!("of {op}"), Vec::new(), None),
                };
                Event::Ok {
                    at_us,
                    client,
                    op,
                    status,
                    replayed,
                    body,
                    fields,
                    node,
                }
            }
        };
    }

    pub(crate) fn fails(&mut self, attempt: &Attempt, kind: &str) {
        self.told(attempt, Told::Fail(kind.to_owned()));
    }

    pub(crate) fn informs(&mut self, attempt: &Attempt, kind: &str) {
        self.told(attempt, Told::Info(kind.to_owned()));
    }

    pub(crate) fn end_mut(&mut self, attempt: &Attempt) -> &mut Event {
        &mut self.run.history.events[attempt.end]
    }

    /// One more effect of its record.
    pub(crate) fn act(&mut self, of: &Attempt, at_us: u64, payload: &str) {
        let effect = self.run.effects.effects.len() as u64 + 1;
        self.run.effects.effects.push(Effect {
            at_us,
            key: of.key.clone(),
            scope: of.scope.clone(),
            payload: payload.to_owned(),
            effect,
            answer: None,
        });
    }

    /// One more attempt on its record, which ends a millisecond later.
    pub(crate) fn come_again(&mut self, of: &Attempt, from: u64, kind: &str) {
        let op = 1_000_000;
        let client = op % 7;
        let events = &mut self.run.history.events;
        events.push(Event::Invoke {
            at_us: from,
            client,
            op,
            key: of.key.clone(),
            scope: of.scope.clone(),
            payload: of.payload.clone(),
            fault: None,
        });
        let (at_us, kind) = (from + 1_000, kind.to_owned());
        events.push(match &*kind {
            "lost" => Event::Info {
                at_us,
                client,
                op,
                status: None,
                kind,
            },
            _ => Event::Fail {
                at_us,
                client,
                op,
                status: 409,
                kind,
            },
        });
        events.sort_by_key(|event| (event.at_us(), !matches!(event, Event::Invoke { .. })));
    }
}

fn attempts(run: &Run) -> Vec<Attempt> {
    let events = &run.history.events;
    let mut attempts = Vec::new();
    for event in events {
        let Event::Invoke {
            at_us,
            op,
            key,
            scope,
            payload,
            fault,
            ..
        } = event
        else {
            continue;
        };
        let is_end = |event: &Event| match event {
            Event::Ok { op: other, .. }
            | Event::Fail { op: other, .. }
            | Event::Info { op: other, .. } => other == op,
            _ => false,
        };
        let end = events
            .iter()
            .position(is_end)
            .expect("every attempt of a good history ends");
        let told = match &events[end] {
            Event::Ok {
                status, replayed, ..
            } => Told::Ok {
                status: *status,
                replayed: *replayed,
            },
            Event::Fail { kind, .. } => Told::Fail(kind.clone()),
            Event::Info { kind, .. } => Told::Info(kind.clone()),
            _ => unreachable!("an end is one of these"),
        };
        attempts.push(Attempt {
            op: *op,
            scope: scope.clone(),
            key: key.clone(),
            payload: payload.clone(),
            fault: fault.clone(),
            from: *at_us,
            to: events[end].at_us(),
            end,
            told,
        });
    }
    attempts
}
