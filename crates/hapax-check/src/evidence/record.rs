//! Goes through what happened to one record, in order, and holds it against the guarantees.

use std::collections::HashMap;

use super::event::Effect;
use super::expect::Expect;
use super::faults::Spans;
use super::index::{Answer, Attempt, Happening, Said, Story, Work};
use super::verdict::{Finding, Verdict};
use super::{Guarantee, micros};

/// Refusals after which the key may have been claimed for a while: the attempt had it, and gave it back.
const HOLDING: [&str; 4] = [
    "released",
    "rolled-back",
    "store-unavailable",
    "upstream-unreachable",
];

/// What all records are judged by.
pub(super) struct Bench<'e> {
    pub(super) expect: &'e Expect,
    pub(super) work: &'e Work,
    pub(super) faults: Spans,
    pub(super) store_faults: Spans,
    pub(super) damage: Spans,
    pub(super) verdict: Verdict,
}

impl Bench<'_> {
    /// Looks at a guarantee that is about the run and not about one record.
    pub(super) fn require_of_run(
        &mut self,
        guarantee: Guarantee,
        holds: bool,
        about: &str,
        what: &'static str,
    ) {
        if self.expect.given_up.contains(&guarantee) {
            return;
        }
        self.verdict.check(guarantee);
        if !holds {
            self.verdict.find(Finding {
                guarantee,
                what,
                record: (String::new(), about.to_owned()),
                attempt: None,
                at_us: 0,
            });
        }
    }
}

/// A final answer that somebody has.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known<'a> {
    pub(super) payload: usize,
    pub(super) answer: Answer<'a>,
    /// Another attempt has shown that it is written down, or no fault can have kept it from being so.
    pub(super) is_recorded: bool,
    /// Before this its record cannot have expired.
    pub(super) expires_us: u64,
}

/// What is known about the attempts with one payload.
#[derive(Debug, Default)]
pub(super) struct Payload<'a> {
    /// When the first attempt began that may have been executed.
    executes_from: Option<u64>,
    /// When the first attempt began that may have held the key.
    holds_from: Option<u64>,
    was_store_blamed: bool,
    was_unsent: bool,
    is_sent: bool,
    /// One of them was called another payload than the record's.
    pub(super) is_called_other: bool,
    pub(super) has_success: bool,
    /// Its effects since the record was last vacant.
    pub(super) effects: u64,
    /// What the upstream answered with, where it says so.
    pub(super) bodies: Vec<&'a str>,
}

/// Since the record was last vacant, as far as that can be told.
#[derive(Debug, Default)]
pub(super) struct Epoch<'a> {
    first_effect: Option<(u64, usize)>,
    pub(super) answer: Option<Known<'a>>,
    /// There was a record before, and what its answer was.
    before: Option<Before<'a>>,
}

/// The record that expired before this one.
#[derive(Debug, Clone, Copy)]
struct Before<'a> {
    answer: Option<Known<'a>>,
}

/// An attempt that may be executed, and how late.
#[derive(Debug, Clone, Copy)]
struct Doing {
    payload: usize,
    /// It has claimed the key by then, if ever.
    claims_by_us: u64,
    /// When the record was last said not to be settled, before it began.
    unsettled_us: Option<u64>,
}

/// One record under the eyes of the judge.
pub(super) struct Sweep<'s, 'a, 'e> {
    pub(super) story: &'s Story<'a>,
    attempts: &'s [Attempt<'a>],
    pub(super) bench: &'s mut Bench<'e>,
    pub(super) payloads: HashMap<usize, Payload<'a>>,
    /// The first attempt that may have held the key, and the first of another payload than that.
    holders: [Option<(u64, usize)>; 2],
    /// The first attempt that was told that the key is another payload's, and when.
    pub(super) first_mismatch: Option<(u64, &'s Attempt<'a>)>,
    /// What each attempt that is under way could know when it began.
    knew: HashMap<usize, Known<'a>>,
    pub(super) begun: u64,
    under_way: u64,
    pub(super) holding: u64,
    pub(super) held_until: u64,
    busy_from: u64,
    busy_until: u64,
    /// A fault fell into the time in which something may have been under way.
    pub(super) is_touched: bool,
    /// A client left, or cut its request.
    pub(super) is_left: bool,
    pub(super) epoch: Epoch<'a>,
    pub(super) effects: u64,
    /// Successes that say that they were executed.
    pub(super) executed: u64,
    /// The last time that an attempt was told that the record is outstanding or unknown.
    pub(super) unsettled_us: Option<u64>,
    /// What may still act since the record was last vacant.
    doing: Vec<Doing>,
}

impl<'s, 'a, 'e> Sweep<'s, 'a, 'e> {
    pub(super) fn new(
        story: &'s Story<'a>,
        attempts: &'s [Attempt<'a>],
        bench: &'s mut Bench<'e>,
    ) -> Self {
        Self {
            story,
            attempts,
            bench,
            payloads: HashMap::new(),
            holders: [None; 2],
            first_mismatch: None,
            knew: HashMap::new(),
            begun: 0,
            under_way: 0,
            holding: 0,
            held_until: 0,
            busy_from: 0,
            busy_until: 0,
            is_touched: false,
            is_left: false,
            epoch: Epoch::default(),
            effects: 0,
            executed: 0,
            unsettled_us: None,
            doing: Vec::new(),
        }
    }

    pub(super) fn run(mut self) {
        let (story, attempts) = (self.story, self.attempts);
        for happening in &story.happenings {
            if let Happening::Invoke(at) = happening
                && let Some(attempt) = attempts.get(*at)
            {
                self.foresee(attempt);
            }
        }
        for happening in &story.happenings {
            self.bench.work.step();
            match *happening {
                Happening::Invoke(at) => {
                    if let Some(attempt) = attempts.get(at) {
                        self.begins(at, attempt);
                    }
                }
                Happening::Effect { effect, payload } => self.acts(effect, payload),
                Happening::End(at) => {
                    if let Some(attempt) = attempts.get(at) {
                        self.ends(at, attempt);
                    }
                }
            }
        }
        if let Some((at, attempt)) = self.first_mismatch {
            self.is_anybodys(at, attempt);
        }
    }

    /// Where nothing gives a key back: not everybody is told that it is somebody else's.
    fn is_anybodys(&mut self, at: u64, attempt: &Attempt<'_>) {
        let may_own = |payload: &Payload<'_>| {
            !payload.is_called_other && payload.holds_from.is_some_and(|from| from <= at)
        };
        let has_owner = self.payloads.values().any(may_own);
        let what = "every payload is called another one";
        let holds = has_owner || self.bench.expect.has_releases;
        self.require(Guarantee::OtherPayload, holds, attempt, what);
    }

    /// What an attempt may do is known from how it ends.
    fn foresee(&mut self, attempt: &Attempt<'a>) {
        self.bench.work.step();
        let from = attempt.invoked_us;
        let payload = self.payloads.entry(attempt.payload).or_default();
        payload.is_sent = true;
        if let Some(Said::Fail { kind }) = attempt.end.map(|end| end.said) {
            payload.was_store_blamed |= kind == "store-unavailable";
            payload.was_unsent |= kind == "upstream-unreachable";
        }
        // Attempts come in their order: the first is the earliest.
        if may_execute(attempt) {
            payload.executes_from.get_or_insert(from);
        }
        if may_hold(attempt) {
            payload.holds_from.get_or_insert(from);
            let [first, other] = &mut self.holders;
            match first {
                None => *first = Some((from, attempt.payload)),
                Some((_, payload)) if *payload != attempt.payload => {
                    other.get_or_insert((from, attempt.payload));
                }
                Some(_) => {}
            }
        }
    }

    /// When the first attempt with another payload began that may have held the key.
    pub(super) fn other_held_from(&self, payload: usize) -> Option<u64> {
        let is_other = |holder: &&(u64, usize)| holder.1 != payload;
        let others = self.holders.iter().flatten().filter(is_other);
        others.map(|(from, _)| *from).min()
    }

    pub(super) fn has_one_payload(&self) -> bool {
        self.payloads.len() == 1
    }

    fn begins(&mut self, at: usize, attempt: &Attempt<'a>) {
        let now = attempt.invoked_us;
        self.touch(now);
        if self.under_way == 0 && now > self.busy_until {
            self.busy_from = now;
        }
        self.begun += 1;
        self.under_way += 1;
        self.holding += u64::from(may_hold(attempt));
        if let Some(fault) = attempt.fault {
            if self.bench.expect.client_faults.contains(fault) {
                self.is_left = true;
            } else {
                self.is_touched = true;
            }
        }
        if let Some(known) = self.epoch.answer {
            self.knew.insert(at, known);
        }
        if may_execute(attempt) {
            self.doing.push(Doing {
                payload: attempt.payload,
                claims_by_us: attempt.end.map_or(u64::MAX, |end| end.at_us),
                unsettled_us: self.unsettled_us,
            });
        }
        if attempt.end.is_none() {
            let what = "an attempt never ends";
            self.require(Guarantee::Liveness, false, attempt, what);
        }
    }

    fn ends(&mut self, at: usize, attempt: &'s Attempt<'a>) {
        let Some(end) = attempt.end else { return };
        self.touch(end.at_us);
        self.under_way = self.under_way.saturating_sub(1);
        // Nobody knows for how long an attempt goes on that was left alone.
        let until = match end.said {
            Said::Info { .. } => end.at_us.saturating_add(self.settles_within_us()),
            _ => end.at_us,
        };
        self.busy_until = self.busy_until.max(until);
        if may_hold(attempt) {
            self.holding = self.holding.saturating_sub(1);
            self.held_until = self.held_until.max(until);
        }
        let knew = self.knew.remove(&at);
        if self.is_damaged(end.at_us) {
            self.check(Guarantee::Damage);
        }
        self.said(attempt, end, knew);
    }

    /// Whether a fault fell into the time that has passed since the last look.
    fn touch(&mut self, now: u64) {
        if self.begun > 0 && !self.is_touched {
            let to = if self.under_way > 0 {
                now
            } else {
                now.min(self.busy_until)
            };
            self.is_touched = self.bench.faults.overlap(self.busy_from, to);
        }
    }

    fn acts(&mut self, effect: &'a Effect, payload: usize) {
        let (at, retention) = (effect.at_us, micros(self.bench.expect.retention));
        self.effects += 1;
        self.has_a_cause(effect, payload);
        let first = self.epoch.first_effect;
        let is_within = |(from, _): &(u64, usize)| at < from.saturating_add(retention);
        let earlier = first.filter(is_within);
        let what = "two effects of one record";
        self.require_at(Guarantee::OneEffect, earlier.is_none(), at, what);
        if let Some((_, other)) = earlier {
            let what = "another payload had an effect, too";
            self.require_at(Guarantee::OtherPayload, other == payload, at, what);
        } else {
            if let Some((first, _)) = first {
                let told = self.unsettled_us.filter(|told| *told > first);
                let is_kept = told.is_none_or(|told| at >= told.saturating_add(retention))
                    || self.may_act_late(first, at, payload);
                let what = "a record that was not settled was removed";
                self.require_at(Guarantee::Retention, is_kept, at, what);
            }
            self.begin_anew(at, payload);
        }
        let payload = self.payloads.entry(payload).or_default();
        payload.effects += 1;
        payload.bodies.extend(effect.answer.as_deref());
    }

    /// Whether an effect can be that of an attempt which found the record of the effect before expired. What is said not to be
    /// settled from then on is that attempt itself, and an upstream may act long after it was given up.
    fn may_act_late(&self, first: u64, at: u64, payload: usize) -> bool {
        let retention = micros(self.bench.expect.retention);
        self.doing.iter().any(|doing| {
            self.bench.work.step();
            let told = doing.unsettled_us.unwrap_or(first).max(first);
            doing.payload == payload && doing.claims_by_us.min(at) >= told.saturating_add(retention)
        })
    }

    /// The record was vacant, or an answer had made it as good as that.
    fn begin_anew(&mut self, at: u64, payload: usize) {
        if let Some(known) = self.epoch.answer.filter(|known| at < known.expires_us) {
            let may_run = known.payload != payload && known.answer.is_rejection();
            let what = "executed although a client has the final answer";
            let holds = may_run || !known.is_recorded || !self.has_one_payload();
            self.require_at(Guarantee::NoLoss, holds, at, what);
        }
        for payload in self.payloads.values_mut() {
            self.bench.work.step();
            payload.effects = 0;
            payload.bodies.clear();
        }
        // Who has ended by now has claimed before this effect: the next record is none of its.
        self.doing.retain(|doing| doing.claims_by_us > at);
        let before = Before {
            answer: self.epoch.answer,
        };
        self.epoch = Epoch {
            before: self.epoch.first_effect.map(|_| before),
            first_effect: Some((at, payload)),
            answer: None,
        };
    }

    /// Whether a replay may have been read from the record before this one, just before that expired.
    pub(super) fn is_of_the_record_before(
        &self,
        attempt: &Attempt<'_>,
        answer: Answer<'_>,
    ) -> bool {
        let slack = micros(self.bench.expect.clock_slack);
        let began = self.epoch.first_effect.map_or(0, |(at, _)| at);
        let is_earlier = attempt.invoked_us <= began.saturating_add(slack);
        let is_its = |before: Before<'_>| {
            let known = before.answer;
            known.is_none_or(|known| answer.is_same(&known.answer))
        };
        answer.is_replayed && is_earlier && self.epoch.before.is_some_and(is_its)
    }

    /// G5, and what else an effect without a cause breaks.
    fn has_a_cause(&mut self, effect: &Effect, payload: usize) {
        let slack = micros(self.bench.expect.clock_slack);
        let known = self.payloads.entry(payload).or_default();
        let latest = effect.at_us.saturating_add(slack);
        let has_cause = known.executes_from.is_some_and(|from| from <= latest);
        let (guarantee, what) = if known.was_store_blamed {
            let what = "an effect of a request that the store's failure had refused";
            (Guarantee::FailClosed, what)
        } else if known.was_unsent {
            let what = "an effect of a request that was said not to have been sent";
            (Guarantee::HonestUnknown, what)
        } else if known.is_sent || self.payloads.len() == 1 {
            (
                Guarantee::ClaimFirst,
                "an effect that no attempt can have caused",
            )
        } else {
            let what = "an effect of a payload that nobody sent";
            (Guarantee::OtherPayload, what)
        };
        if guarantee != Guarantee::ClaimFirst {
            self.check(Guarantee::ClaimFirst);
        }
        self.require_at(guarantee, has_cause, effect.at_us, what);
    }

    pub(super) fn settles_within_us(&self) -> u64 {
        micros(self.bench.expect.settles_within)
    }

    /// Before when the record of an answer cannot have expired.
    pub(super) fn expires_us(&self, attempt: &Attempt<'_>) -> u64 {
        let from = self.epoch.first_effect.map(|(at, _)| at);
        let retention = micros(self.bench.expect.retention);
        from.unwrap_or(attempt.invoked_us).saturating_add(retention)
    }

    fn is_damaged(&self, now: u64) -> bool {
        self.bench.damage.last_end(now).is_some()
    }

    pub(super) fn check(&mut self, guarantee: Guarantee) {
        if !self.bench.expect.given_up.contains(&guarantee) {
            self.bench.verdict.check(guarantee);
        }
    }

    /// Looks at a guarantee where an attempt shows whether it holds.
    pub(super) fn require(
        &mut self,
        guarantee: Guarantee,
        holds: bool,
        attempt: &Attempt<'_>,
        what: &'static str,
    ) {
        self.check(guarantee);
        if !holds {
            let at_us = attempt.end.map_or(attempt.invoked_us, |end| end.at_us);
            self.find(guarantee, Some((attempt.client, attempt.op)), at_us, what);
        }
    }

    fn require_at(&mut self, guarantee: Guarantee, holds: bool, at_us: u64, what: &'static str) {
        self.check(guarantee);
        if !holds {
            self.find(guarantee, None, at_us, what);
        }
    }

    fn find(
        &mut self,
        guarantee: Guarantee,
        attempt: Option<(u64, u64)>,
        at_us: u64,
        what: &'static str,
    ) {
        let is_about_records = matches!(
            guarantee,
            Guarantee::OneEffect | Guarantee::OneAnswer | Guarantee::NoPhantom | Guarantee::NoLoss
        );
        let as_well = (is_about_records && self.is_damaged(at_us)).then_some(Guarantee::Damage);
        for guarantee in [Some(guarantee), as_well].into_iter().flatten() {
            if !self.bench.expect.given_up.contains(&guarantee) {
                self.bench.verdict.find(Finding {
                    guarantee,
                    what,
                    record: (self.story.scope.to_owned(), self.story.key.to_owned()),
                    attempt,
                    at_us,
                });
            }
        }
    }
}

/// Whether an attempt may have been executed.
fn may_execute(attempt: &Attempt<'_>) -> bool {
    match attempt.end.map(|end| end.said) {
        Some(Said::Ok(answer)) => !answer.is_replayed,
        Some(Said::Fail { .. }) => false,
        Some(Said::Info { .. }) | None => true,
    }
}

/// Whether an attempt may have held the key, at least for a while.
fn may_hold(attempt: &Attempt<'_>) -> bool {
    match attempt.end.map(|end| end.said) {
        Some(Said::Fail { kind }) => HOLDING.contains(&kind),
        Some(Said::Ok(_) | Said::Info { .. }) | None => true,
    }
}
