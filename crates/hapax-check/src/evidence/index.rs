//! Puts a history in order: attempts with their ends, records with what happened to them. Sorting, and nothing else.

use std::cell::Cell;
use std::cmp::Ordering;

use super::event::{Effect, Effects, Event, History};
use super::expect::Expect;
use super::micros;

/// Counts comparisons and steps, so that a test can show how judging grows.
#[derive(Debug, Default)]
pub(super) struct Work(Cell<u64>);

impl Work {
    pub(super) fn step(&self) {
        self.0.set(self.0.get() + 1);
    }

    pub(super) fn done(&self) -> u64 {
        self.0.get()
    }

    fn sort<T>(&self, values: &mut [T], compare: impl Fn(&T, &T) -> Ordering) {
        values.sort_by(|one, other| {
            self.step();
            compare(one, other)
        });
    }
}

/// An attempt and how it ended.
#[derive(Debug, Clone)]
pub(super) struct Attempt<'a> {
    pub(super) client: u64,
    pub(super) op: u64,
    pub(super) invoked_us: u64,
    pub(super) scope: &'a str,
    pub(super) key: &'a str,
    /// Equal for equal payloads.
    pub(super) payload: usize,
    pub(super) fault: Option<&'a str>,
    pub(super) end: Option<End<'a>>,
    /// Whose content its answer has, if it is not of its own record.
    pub(super) foreign: Option<Foreign>,
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct End<'a> {
    pub(super) at_us: u64,
    pub(super) said: Said<'a>,
}

/// What a client was told.
#[derive(Debug, Clone, Copy)]
pub(super) enum Said<'a> {
    Ok(Answer<'a>),
    Fail { kind: &'a str },
    Info { kind: &'a str },
}

/// A final answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Answer<'a> {
    pub(super) status: u16,
    pub(super) is_replayed: bool,
    pub(super) body: &'a str,
    pub(super) fields: &'a [(String, String)],
}

impl Answer<'_> {
    /// Whether it says that the operation was done: then it had its effect.
    pub(super) fn is_success(&self) -> bool {
        matches!(self.status, 200..=299 | 303)
    }

    /// Whether it is an answer after which a corrected payload may claim the key (P25).
    pub(super) fn is_rejection(&self) -> bool {
        matches!(self.status, 400 | 404..=406 | 410..=417 | 422 | 428 | 431)
    }

    pub(super) fn is_same(&self, other: &Answer<'_>) -> bool {
        self.status == other.status && self.body == other.body && self.fields == other.fields
    }
}

/// Whose content an answer has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Foreign {
    /// That of another key in the same scope.
    OtherKey,
    /// That of another scope.
    OtherScope,
}

/// One thing that happened to a record.
#[derive(Debug, Clone, Copy)]
pub(super) enum Happening<'a> {
    Invoke(usize),
    Effect { effect: &'a Effect, payload: usize },
    End(usize),
}

#[derive(Debug, Clone, Copy)]
struct Placed<'a> {
    scope: &'a str,
    key: &'a str,
    at_us: u64,
    what: Happening<'a>,
}

/// A record's name and what happened to it, in order.
#[derive(Debug)]
pub(super) struct Story<'a> {
    pub(super) scope: &'a str,
    pub(super) key: &'a str,
    /// Another scope uses the same key.
    pub(super) has_namesake: bool,
    pub(super) happenings: Vec<Happening<'a>>,
}

/// A history in order.
#[derive(Debug)]
pub(super) struct Index<'a> {
    pub(super) attempts: Vec<Attempt<'a>>,
    pub(super) stories: Vec<Story<'a>>,
    pub(super) unfit: Vec<String>,
}

impl<'a> Index<'a> {
    pub(super) fn new(
        history: &'a History,
        effects: &'a Effects,
        expect: &Expect,
        work: &Work,
    ) -> Self {
        let mut index = Self {
            attempts: Vec::new(),
            stories: Vec::new(),
            unfit: Vec::new(),
        };
        let payloads = index.read(history, effects, work);
        let mut placed = index.place(effects, &payloads, expect, work);
        index.find_foreign(effects, expect, work);
        work.sort(&mut placed, |one, other| {
            let name = (one.scope, one.key).cmp(&(other.scope, other.key));
            name.then(one.at_us.cmp(&other.at_us))
                .then(rank(&one.what).cmp(&rank(&other.what)))
        });
        index.tell(&placed, work);
        index
    }

    /// Takes the attempts and their ends from the events. Returns the number of each payload: first those of the attempts
    /// as they come, then those of the effects.
    fn read(&mut self, history: &'a History, effects: &'a Effects, work: &Work) -> Vec<usize> {
        let mut payloads = Vec::new();
        let mut ends = Vec::new();
        let mut last_us = 0;
        for event in &history.events {
            work.step();
            if event.at_us() < last_us {
                let at = event.at_us();
                self.unfit
                    .push(format!("the clock went back from {last_us} to {at} us"));
            }
            last_us = event.at_us();
            if let Some(end) = end_of(event) {
                ends.push(end);
            }
            if let Event::Invoke {
                at_us,
                client,
                op,
                key,
                scope,
                payload,
                fault,
            } = event
            {
                payloads.push(payload.as_str());
                self.attempts.push(Attempt {
                    client: *client,
                    op: *op,
                    invoked_us: *at_us,
                    scope,
                    key,
                    payload: 0,
                    fault: fault.as_deref(),
                    end: None,
                    foreign: None,
                });
            }
        }
        self.join(ends, work);
        payloads.extend(effects.effects.iter().map(|effect| effect.payload.as_str()));
        let numbers = number(&payloads, work);
        for (attempt, payload) in self.attempts.iter_mut().zip(&numbers) {
            attempt.payload = *payload;
        }
        numbers
    }

    /// Gives every attempt its end.
    fn join(&mut self, mut ends: Vec<((u64, u64), End<'a>)>, work: &Work) {
        let mut names: Vec<((u64, u64), usize)> = (self.attempts.iter().enumerate())
            .map(|(at, attempt)| ((attempt.client, attempt.op), at))
            .collect();
        work.sort(&mut names, |one, other| one.0.cmp(&other.0));
        work.sort(&mut ends, |one, other| one.0.cmp(&other.0));
        let mut last = None;
        for (name, _) in &names {
            if last == Some(name) {
                self.unfit.push(format!("{} begins twice", said(*name)));
            }
            last = Some(name);
        }
        let mut names = names.into_iter().peekable();
        for (name, end) in ends {
            while names.next_if(|(other, _)| *other < name).is_some() {
                work.step();
            }
            let begun = names.peek().filter(|(other, _)| *other == name);
            let attempt = begun.and_then(|(_, at)| self.attempts.get_mut(*at));
            match attempt {
                Some(attempt) if attempt.end.is_some() => {
                    self.unfit.push(format!("{} ends twice", said(name)));
                }
                Some(attempt) if end.at_us < attempt.invoked_us => {
                    let line = format!("{} ends before it begins", said(name));
                    self.unfit.push(line);
                }
                Some(attempt) => attempt.end = Some(end),
                None => {
                    let line = format!("{} ends and never began", said(name));
                    self.unfit.push(line);
                }
            }
        }
    }

    fn place(
        &self,
        effects: &'a Effects,
        payloads: &[usize],
        expect: &Expect,
        work: &Work,
    ) -> Vec<Placed<'a>> {
        let slack = micros(expect.clock_slack);
        let mut placed = Vec::new();
        for (at, attempt) in self.attempts.iter().enumerate() {
            work.step();
            let (scope, key) = (attempt.scope, attempt.key);
            let mut place = |at_us, what| {
                placed.push(Placed {
                    scope,
                    key,
                    at_us,
                    what,
                });
            };
            place(attempt.invoked_us, Happening::Invoke(at));
            if let Some(end) = attempt.end {
                place(end.at_us, Happening::End(at));
            }
        }
        let payloads = payloads.iter().skip(self.attempts.len());
        for (effect, payload) in effects.effects.iter().zip(payloads) {
            placed.push(Placed {
                scope: &effect.scope,
                key: &effect.key,
                at_us: effect.at_us.saturating_sub(slack),
                what: Happening::Effect {
                    effect,
                    payload: *payload,
                },
            });
        }
        placed
    }

    /// Finds answers whose content is that of another record: of the record whose effect answers with it, else of the
    /// one that had it first.
    fn find_foreign(&mut self, effects: &'a Effects, expect: &Expect, work: &Work) {
        struct Seen<'a> {
            body: &'a str,
            /// By an effect: the true owner; else by an attempt.
            attempt: Option<usize>,
            at_us: u64,
            name: (&'a str, &'a str),
        }
        let mut seen = Vec::new();
        for effect in &effects.effects {
            if let Some(body) = &effect.answer {
                let name = (effect.scope.as_str(), effect.key.as_str());
                let (at_us, attempt) = (0, None);
                seen.push(Seen {
                    body,
                    attempt,
                    at_us,
                    name,
                });
            }
        }
        for (at, attempt) in self.attempts.iter().enumerate() {
            if let Some(End {
                at_us,
                said: Said::Ok(answer),
            }) = attempt.end
                && answer.is_success()
            {
                seen.push(Seen {
                    body: answer.body,
                    attempt: Some(at),
                    at_us,
                    name: (attempt.scope, attempt.key),
                });
            }
        }
        work.sort(&mut seen, |one, other| {
            (one.body, one.attempt.is_some(), one.at_us).cmp(&(
                other.body,
                other.attempt.is_some(),
                other.at_us,
            ))
        });
        for group in seen.chunk_by(|one, other| one.body == other.body) {
            let Some(owner) = group.first() else { continue };
            let is_told = owner.attempt.is_none();
            let is_shared = group
                .iter()
                .any(|other| other.attempt.is_none() && other.name != owner.name);
            if is_shared || !(is_told || expect.has_unique_bodies) {
                continue;
            }
            for other in group {
                work.step();
                let attempt = other.attempt.and_then(|at| self.attempts.get_mut(at));
                if let Some(attempt) = attempt.filter(|_| other.name != owner.name) {
                    attempt.foreign = Some(if attempt.scope == owner.name.0 {
                        Foreign::OtherKey
                    } else {
                        Foreign::OtherScope
                    });
                }
            }
        }
    }

    fn tell(&mut self, placed: &[Placed<'a>], work: &Work) {
        let is_same = |one: &Placed<'_>, other: &Placed<'_>| {
            work.step();
            (one.scope, one.key) == (other.scope, other.key)
        };
        for group in placed.chunk_by(is_same) {
            let Some(first) = group.first() else { continue };
            self.stories.push(Story {
                scope: first.scope,
                key: first.key,
                has_namesake: false,
                happenings: group.iter().map(|placed| placed.what).collect(),
            });
        }
        let mut by_key: Vec<&mut Story<'a>> = self.stories.iter_mut().collect();
        work.sort(&mut by_key, |one, other| one.key.cmp(other.key));
        for group in by_key.chunk_by_mut(|one, other| one.key == other.key) {
            let has_namesake = group.len() > 1;
            for story in group {
                work.step();
                story.has_namesake = has_namesake;
            }
        }
    }
}

/// At one instant, attempts begin before effects happen, and those happen before attempts end.
fn rank(what: &Happening<'_>) -> u8 {
    match what {
        Happening::Invoke(_) => 0,
        Happening::Effect { .. } => 1,
        Happening::End(_) => 2,
    }
}

fn said((client, op): (u64, u64)) -> String {
    format!("op {op} of client {client}")
}

fn end_of(event: &Event) -> Option<((u64, u64), End<'_>)> {
    let (client, op, at_us, said) = match event {
        Event::Ok {
            at_us,
            client,
            op,
            status,
            replayed,
            body,
            fields,
            node: _,
        } => {
            let answer = Answer {
                status: *status,
                is_replayed: *replayed,
                body,
                fields,
            };
            (client, op, at_us, Said::Ok(answer))
        }
        Event::Fail {
            at_us,
            client,
            op,
            kind,
            ..
        } => (client, op, at_us, Said::Fail { kind }),
        Event::Info {
            at_us,
            client,
            op,
            kind,
            ..
        } => (client, op, at_us, Said::Info { kind }),
        _ => return None,
    };
    let at_us = *at_us;
    Some(((*client, *op), End { at_us, said }))
}

/// A number for each text, equal for equal texts.
fn number(texts: &[&str], work: &Work) -> Vec<usize> {
    let mut order: Vec<(usize, &str)> = texts.iter().copied().enumerate().collect();
    work.sort(&mut order, |one, other| one.1.cmp(other.1));
    let mut numbers = vec![0; texts.len()];
    for (number, group) in order.chunk_by(|one, other| one.1 == other.1).enumerate() {
        for (at, _) in group {
            work.step();
            if let Some(place) = numbers.get_mut(*at) {
                *place = number;
            }
        }
    }
    numbers
}
