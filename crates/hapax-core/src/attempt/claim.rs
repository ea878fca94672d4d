//! From arrival to the claim, or to the answer that another attempt has already earned.

use std::time::Duration;

use crate::event::{Event, Outcome};
use crate::policy::OnStoreFailure;
use crate::problem::ProblemKind;
use crate::record::{Held, State, UnknownReason};
use crate::store::{Insert, StoreError, Write};
use crate::time::Timestamp;
use crate::{Decision, decide};

use super::machine::{Attempt, Phase, Tell, Then, Unused};
use super::reply::{in_progress_reply, problem_reply, quota_reply, reply_from};
use super::{Reply, Step};

/// How often a lost race for the key is run again before the attempt gives way with a 409.
const MAX_RACES: u32 = 8;

impl Attempt {
    pub(super) fn claim(&mut self) -> Step {
        self.phase = Phase::Claiming;
        Step::Insert(self.outstanding(1))
    }

    pub(super) fn on_inserted(
        &mut self,
        result: Result<Insert, StoreError>,
        elapsed: Duration,
        tell: Tell<'_>,
    ) -> Step {
        match result {
            Ok(Insert::Claimed { .. }) => self.execute_in_time(1, elapsed, tell),
            // A write of ours that was given up as not applied has arrived after all (P51). What
            // is still claiming has not executed, so the claim is as good as new.
            Ok(Insert::Occupied { held, now }) if held.record.claim == self.ticket.claim => {
                self.execute_found(&held, now, elapsed, tell)
            }
            Ok(Insert::Occupied { held, now }) => self.consider(&held, now, elapsed, tell),
            Err(error) if error.may_have_written() => {
                self.leave_unused(1);
                self.phase = Phase::CheckingClaim;
                Step::Read
            }
            Err(error) => self.store_failed(&error, tell),
        }
    }

    /// P36: a key that is held is told so, quota or not.
    pub(super) fn on_looked_without_room(
        &mut self,
        until: Duration,
        found: Result<(Option<Held>, Timestamp), StoreError>,
        elapsed: Duration,
        tell: Tell<'_>,
    ) -> Step {
        match found {
            Ok((Some(held), now)) if held.record.claim == self.ticket.claim => {
                self.execute_found(&held, now, elapsed, tell)
            }
            Ok((Some(held), now)) => self.consider(&held, now, elapsed, tell),
            Ok((None, _)) => {
                tell(Event::QuotaExceeded {
                    route: &self.ticket.route,
                });
                self.give_way(quota_reply(until), tell)
            }
            Err(error) => self.store_failed(&error, tell),
        }
    }

    /// P51: a claim whose write timed out but was applied is used or removed, never left behind.
    pub(super) fn on_claim_checked(
        &mut self,
        found: Result<(Option<Held>, Timestamp), StoreError>,
        elapsed: Duration,
        tell: Tell<'_>,
    ) -> Step {
        match found {
            Ok((Some(held), now)) if held.record.claim == self.ticket.claim => {
                self.execute_found(&held, now, elapsed, tell)
            }
            Ok((Some(held), now)) => self.consider(&held, now, elapsed, tell),
            Ok((None, _)) => {
                let reason = "the claim was not confirmed";
                let error = StoreError::Uncertain {
                    reason,
                    source: None,
                };
                self.store_failed(&error, tell)
            }
            Err(error) => self.store_failed(&error, tell),
        }
    }

    pub(super) fn consider(
        &mut self,
        held: &Held,
        now: Timestamp,
        elapsed: Duration,
        tell: Tell<'_>,
    ) -> Step {
        let decision = decide(
            &self.ticket.policy,
            &self.ticket.fingerprint,
            Some(held),
            now,
        );
        self.has_met_record |= decision != Decision::Execute;
        match decision {
            // Expired between the store's look and ours: run for it again.
            Decision::Execute => self.race_again(tell),
            Decision::Rebind => self.take_over(held, 1),
            Decision::Resend => self.take_over(held, held.record.attempt.saturating_add(1)),
            Decision::Probe if self.has_probed => self.not_settled_by_probe(held, now, tell),
            Decision::Probe => self.probe(held, now),
            Decision::MarkUnknown => {
                let mut record = held.record.clone();
                record.state = State::Unknown {
                    reason: UnknownReason::LeaseLapsed,
                    response: None,
                };
                self.phase = Phase::MarkingUnknown;
                // The claim id stays: a holder that was only frozen may still complete (P46).
                Step::Replace {
                    expected: held.record.claim,
                    record,
                }
            }
            Decision::InProgress => {
                let left = self.ticket.policy.wait.saturating_sub(elapsed);
                if left.is_zero() || self.is_observing() {
                    return self.in_progress(tell);
                }
                self.phase = Phase::Waiting;
                Step::Wait(left)
            }
            Decision::Replay
            | Decision::ReplayRejected
            | Decision::ReplayUnknown
            | Decision::RefuseUnknown
            | Decision::Mismatch
            | Decision::Expired => self.give_way(reply_from(decision, held, now), tell),
        }
    }

    /// Claims a key anew whose record says that it may: guarded by that record's claim id.
    pub(super) fn take_over(&mut self, held: &Held, attempt: u32) -> Step {
        self.phase = Phase::TakingOver { attempt };
        Step::Replace {
            expected: held.record.claim,
            record: self.outstanding(attempt),
        }
    }

    pub(super) fn on_taken_over(
        &mut self,
        attempt: u32,
        result: Result<Write, StoreError>,
        elapsed: Duration,
        tell: Tell<'_>,
    ) -> Step {
        match result {
            Ok(Write::Applied { .. }) => self.execute_in_time(attempt, elapsed, tell),
            Ok(Write::Stale) => self.race_again(tell),
            Err(error) if error.may_have_written() => {
                self.leave_unused(attempt);
                self.phase = Phase::CheckingTakeover;
                Step::Read
            }
            Err(error) => self.store_failed(&error, tell),
        }
    }

    pub(super) fn on_takeover_checked(
        &mut self,
        found: Result<(Option<Held>, Timestamp), StoreError>,
        elapsed: Duration,
        tell: Tell<'_>,
    ) -> Step {
        match found {
            Ok((Some(held), now)) if held.record.claim == self.ticket.claim => {
                self.execute_found(&held, now, elapsed, tell)
            }
            Ok(_) => self.race_again(tell),
            Err(error) => self.store_failed(&error, tell),
        }
    }

    /// Executes under a claim that the store has confirmed, unless this attempt was frozen for so
    /// long that the claim may have lapsed: then somebody may be acting on an unknown outcome.
    fn execute_in_time(&mut self, attempt: u32, elapsed: Duration, tell: Tell<'_>) -> Step {
        if elapsed.saturating_sub(self.written_since) < self.ticket.policy.lease {
            self.execute(attempt, tell)
        } else {
            self.give_up_lapsed(attempt, tell)
        }
    }

    /// The same for a claim that was found in the store, as it was at `now`.
    fn execute_found(
        &mut self,
        held: &Held,
        now: Timestamp,
        elapsed: Duration,
        tell: Tell<'_>,
    ) -> Step {
        let attempt = held.record.attempt;
        let is_outstanding = matches!(held.record.state, State::Outstanding { .. });
        if is_outstanding && !held.is_lapsed(now) {
            self.execute_in_time(attempt, elapsed, tell)
        } else {
            self.give_up_lapsed(attempt, tell)
        }
    }

    /// A claim that lapsed before it was used is not renewed: whoever saw it lapsed could still
    /// mark the renewed one unknown, since both have one claim id.
    fn give_up_lapsed(&mut self, attempt: u32, tell: Tell<'_>) -> Step {
        self.leave_unused(attempt);
        let reply = problem_reply(
            ProblemKind::StoreUnavailable,
            "Claiming the key took longer than a claim lives. Nothing was executed.",
            Outcome::StoreError,
        );
        self.give_way(reply, tell)
    }

    fn leave_unused(&mut self, attempt: u32) {
        self.unused = match self.unused {
            Unused::Nothing | Unused::Claim if attempt == 1 => Unused::Claim,
            _ => Unused::Resend,
        };
    }

    pub(super) fn on_marked_unknown(
        &mut self,
        result: Result<Write, StoreError>,
        tell: Tell<'_>,
    ) -> Step {
        match result {
            Ok(write) => {
                if matches!(write, Write::Applied { .. }) {
                    self.tell_unknown(UnknownReason::LeaseLapsed, tell);
                }
                self.race_again(tell)
            }
            Err(error) => self.store_failed(&error, tell),
        }
    }

    pub(super) fn race_again(&mut self, tell: Tell<'_>) -> Step {
        self.races += 1;
        if self.races > MAX_RACES {
            self.in_progress(tell)
        } else {
            self.claim()
        }
    }

    pub(super) fn in_progress(&mut self, tell: Tell<'_>) -> Step {
        self.give_way(in_progress_reply(), tell)
    }

    /// P17. A damaged record or a full store never fails open: the first may have run, the
    /// second can still answer for those that have. Nor does an attempt that has seen another's
    /// record: failing open is for not knowing, and it knows that the operation may have run.
    pub(super) fn store_failed(&mut self, error: &StoreError, tell: Tell<'_>) -> Step {
        let is_unreachable = matches!(
            error,
            StoreError::Refused { .. } | StoreError::Uncertain { .. }
        );
        if self.ticket.policy.on_store_failure == OnStoreFailure::FailOpen
            && is_unreachable
            && !self.has_met_record
            && !self.is_observing()
        {
            return self.execute_unrecorded(Outcome::StoreError);
        }
        let detail = match error {
            StoreError::Damaged { .. } => {
                "The record of this key is damaged. Nothing was executed; an operator has to look."
            }
            StoreError::Full { .. } => "The store is full. Nothing was executed.",
            _ => "The store could not be asked. Nothing was executed.",
        };
        let reply = problem_reply(ProblemKind::StoreUnavailable, detail, Outcome::StoreError);
        self.give_way(reply, tell)
    }

    /// Answers without executing; on a route that only observes, says so and executes.
    pub(super) fn give_way(&mut self, reply: Reply, tell: Tell<'_>) -> Step {
        if self.is_observing() {
            tell(Event::WouldHave {
                route: &self.ticket.route,
                outcome: reply.outcome,
            });
            return self.execute_unrecorded(Outcome::Observed);
        }
        let then = match self.unused {
            Unused::Claim => Then::Undo,
            Unused::Nothing | Unused::Resend => Then::Done,
        };
        self.phase = Phase::Replying(then);
        Step::Reply(reply)
    }
}
