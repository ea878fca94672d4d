//! What an attempt was told, held against what it could know.

use super::Guarantee;
use super::index::{Answer, Attempt, End, Foreign, Said};
use super::record::{Known, Sweep};

/// Problems that deny that there is a final answer. What else can be refused is refused before anybody looks.
const DENIALS: [&str; 8] = [
    "in-progress",
    "key-expired",
    "key-reused",
    "outcome-unknown",
    "released",
    "response-unavailable",
    "rolled-back",
    "upstream-unreachable",
];

impl<'s, 'a> Sweep<'s, 'a, '_> {
    pub(super) fn said(&mut self, attempt: &'s Attempt<'a>, end: End<'a>, knew: Option<Known<'a>>) {
        self.check(Guarantee::Liveness);
        if self.is_left && !self.is_touched {
            self.check(Guarantee::ClientLeaves);
        }
        match end.said {
            Said::Ok(answer) => self.answered(attempt, end.at_us, answer, knew),
            Said::Fail { kind } => {
                match kind {
                    "in-progress" => self.conflicts(attempt),
                    "key-reused" => self.mismatches(attempt, end.at_us),
                    "store-unavailable" => self.check(Guarantee::FailClosed),
                    _ => {}
                }
                self.denied(attempt, end.at_us, kind, knew);
            }
            Said::Info {
                kind: "outcome-unknown" | "unknown",
            } => {
                self.unknown(attempt);
                self.denied(attempt, end.at_us, "outcome-unknown", knew);
            }
            Said::Info { kind } => {
                if kind == "timed-out" {
                    self.hangs(attempt, end.at_us);
                }
            }
        }
    }

    fn answered(
        &mut self,
        attempt: &Attempt<'a>,
        now: u64,
        answer: Answer<'a>,
        knew: Option<Known<'a>>,
    ) {
        self.is_of_its_own(attempt, answer);
        if self.is_of_the_record_before(attempt, answer) {
            self.check(Guarantee::OneAnswer);
            return;
        }
        if answer.is_success() {
            self.has_happened(attempt, answer);
            self.is_the_owners(attempt, now, answer);
        }
        if let Some(known) = knew {
            let is_foreign = known.payload != attempt.payload
                && !known.answer.is_rejection()
                && now < known.expires_us;
            let what = "another payload was answered after the first had its answer";
            self.require(Guarantee::OtherPayload, !is_foreign, attempt, what);
        }
        // A rejection is an answer for good only where nobody can rebind the key.
        let is_again = knew.is_some_and(|known| known.payload == attempt.payload);
        if answer.is_rejection() && !self.has_one_payload() && !is_again {
            return;
        }
        let store_faults = &self.bench.store_faults;
        let is_recorded = answer.is_replayed || !store_faults.overlap(attempt.invoked_us, now);
        let new = Known {
            payload: attempt.payload,
            answer,
            is_recorded,
            expires_us: self.expires_us(attempt),
        };
        let Some(first) = self.epoch.answer else {
            self.check(Guarantee::OneAnswer);
            self.epoch.answer = Some(new);
            return;
        };
        if now >= first.expires_us && !answer.is_same(&first.answer) {
            self.epoch.answer = Some(new);
            return;
        }
        let is_same = answer.is_same(&first.answer);
        let what = "two final answers of one record differ";
        self.require(Guarantee::OneAnswer, is_same, attempt, what);
        if let Some(known) = &mut self.epoch.answer {
            known.is_recorded |= is_recorded;
        }
    }

    /// G8, G3: an answer says nothing of another record.
    fn is_of_its_own(&mut self, attempt: &Attempt<'a>, answer: Answer<'a>) {
        // Whoever repeats something has a first: this attempt is no other's repeat when it is alone.
        let is_alone = answer.is_replayed && self.begun == 1;
        let is_from_elsewhere = is_alone && self.story.has_namesake;
        let holds = attempt.foreign != Some(Foreign::OtherScope) && !is_from_elsewhere;
        let what = "an answer from another scope";
        self.require(Guarantee::Isolation, holds, attempt, what);
        let holds = attempt.foreign != Some(Foreign::OtherKey);
        let what = "the answer of another key";
        self.require(Guarantee::NoPhantom, holds, attempt, what);
        let holds = !is_alone || is_from_elsewhere;
        let what = "a replay of nothing";
        self.require(Guarantee::NoPhantom, holds, attempt, what);
    }

    /// G3, G7: a success has its effect, by this very payload, and says what the upstream said.
    fn has_happened(&mut self, attempt: &Attempt<'a>, answer: Answer<'a>) {
        let has_other_effects = self.effects > 0;
        let has_releases = self.bench.expect.has_releases;
        let payload = self.payloads.entry(attempt.payload).or_default();
        payload.has_success = true;
        let has_effect = payload.effects > 0;
        let is_said = !has_effect
            || payload.bodies.is_empty()
            || attempt.foreign.is_some()
            || payload.bodies.contains(&answer.body);
        let is_called_other = payload.is_called_other && !has_releases;
        let what = "content that the upstream did not answer";
        self.require(Guarantee::NoPhantom, is_said, attempt, what);
        if has_effect || !has_other_effects {
            let what = "a success without an effect";
            self.require(Guarantee::NoPhantom, has_effect, attempt, what);
        } else {
            let what = "the effect is that of another payload";
            self.require(Guarantee::OtherPayload, false, attempt, what);
        }
        let what = "a payload that was called another one succeeds";
        self.require(Guarantee::OtherPayload, !is_called_other, attempt, what);
    }

    /// G6: one effect makes one owner.
    fn is_the_owners(&mut self, attempt: &Attempt<'a>, now: u64, answer: Answer<'a>) {
        if answer.is_replayed {
            return;
        }
        self.executed += 1;
        let is_owner = self.effects == 0 || self.executed <= self.effects;
        let known = self.epoch.answer;
        if known.is_some_and(|known| now >= known.expires_us) {
            let what = "a success without an effect of its own";
            self.require(Guarantee::NoPhantom, is_owner, attempt, what);
        } else {
            let what = "two attempts say that they executed one effect";
            self.require(Guarantee::OwnerOnly, is_owner, attempt, what);
        }
    }

    /// G4, G7: who comes after a final answer is not told that there is none.
    fn denied(&mut self, attempt: &Attempt<'a>, now: u64, kind: &str, knew: Option<Known<'a>>) {
        let Some(known) = knew.filter(|known| now < known.expires_us) else {
            return;
        };
        let is_unsure = matches!(kind, "in-progress" | "outcome-unknown");
        let is_excused = !known.is_recorded && is_unsure;
        let is_denied = DENIALS.contains(&kind) && !is_excused;
        if known.answer.is_rejection() && !self.has_one_payload() {
            return;
        }
        if known.payload == attempt.payload {
            let what = "a final answer was lost";
            self.require(Guarantee::NoLoss, !is_denied, attempt, what);
        } else {
            let is_refused = !is_denied || kind == "key-reused";
            let what = "another payload was told of the first";
            self.require(Guarantee::OtherPayload, is_refused, attempt, what);
        }
    }

    /// G10, G8: a conflict is with somebody.
    fn conflicts(&mut self, attempt: &Attempt<'a>) {
        let (now, within) = (attempt.invoked_us, self.settles_within_us());
        self.unsettled_us = self.unsettled_us.max(Some(now));
        let is_alone = self.begun == 1;
        if is_alone && self.story.has_namesake {
            let what = "a conflict with another scope";
            self.require(Guarantee::Isolation, false, attempt, what);
            return;
        }
        let last_fault = self.bench.faults.last_end(now);
        let is_held = self.holding > 0
            || !is_alone && now <= self.held_until.saturating_add(within)
            || last_fault.is_some_and(|end| now <= end.saturating_add(within));
        let what = "a record is outstanding although nobody can hold it any more";
        self.require(Guarantee::Liveness, is_held, attempt, what);
    }

    /// G7, G8: a mismatch is with somebody.
    fn mismatches(&mut self, attempt: &'s Attempt<'a>, now: u64) {
        self.first_mismatch.get_or_insert((now, attempt));
        let has_releases = self.bench.expect.has_releases;
        let other = self.other_held_from(attempt.payload);
        let has_other = other.is_some_and(|from| from <= now);
        let guarantee = if self.story.has_namesake {
            Guarantee::Isolation
        } else {
            Guarantee::OtherPayload
        };
        let what = "called another payload although there is no other";
        self.require(guarantee, has_other, attempt, what);
        let payload = self.payloads.entry(attempt.payload).or_default();
        payload.is_called_other = true;
        let has_success = payload.has_success && !has_releases;
        let what = "a payload that succeeded is called another one";
        self.require(Guarantee::OtherPayload, !has_success, attempt, what);
    }

    /// G9, G12: nothing is unknown without a reason, and a client that left is none.
    fn unknown(&mut self, attempt: &Attempt<'a>) {
        self.unsettled_us = self.unsettled_us.max(Some(attempt.invoked_us));
        if self.is_left {
            let what = "an outcome is unknown because a client left";
            self.require(Guarantee::ClientLeaves, self.is_touched, attempt, what);
            self.check(Guarantee::HonestUnknown);
        } else {
            let what = "an outcome is unknown without a fault";
            self.require(Guarantee::HonestUnknown, self.is_touched, attempt, what);
        }
    }

    /// G10: nobody waits for ever.
    fn hangs(&mut self, attempt: &Attempt<'a>, now: u64) {
        let within = self.settles_within_us();
        let last_fault = self.bench.faults.last_end(now);
        let is_excused = attempt.fault.is_some()
            || last_fault.is_some_and(|end| attempt.invoked_us <= end.saturating_add(within));
        let what = "a client gave up waiting without a fault";
        self.require(Guarantee::Liveness, is_excused, attempt, what);
    }
}
