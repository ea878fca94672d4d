//! Writing down how an execution ended, and answering for it.

use std::time::Duration;

use crate::event::{Event, Outcome};
use crate::problem::{Problem, ProblemKind};
use crate::record::{Held, Record, State};
use crate::settle::IdempotencyStatus;
use crate::store::{StoreError, Write};
use crate::time::Timestamp;
use crate::{Decision, decide};

use super::machine::{Attempt, Executing, Phase, Settling, Tell, Then};
use super::probing::unanswered;
use super::reply::{problem_reply, reply_from};
use super::{Input, Reply, ReplyContent, Step};

/// The first pause before a failed write is tried again; doubled up to [`MAX_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(20);
/// The longest pause between two tries of a failed write.
const MAX_PAUSE: Duration = Duration::from_secs(2);

impl Attempt {
    pub(super) fn settle(&mut self, settling: Box<Settling>) -> Step {
        let expected = self.ticket.claim;
        let step = match &settling.record {
            Some(record) => Step::Replace {
                expected,
                record: record.clone(),
            },
            None => Step::Remove { expected },
        };
        self.phase = Phase::Settling(settling);
        step
    }

    pub(super) fn on_settled(
        &mut self,
        mut settling: Box<Settling>,
        result: Result<Write, StoreError>,
        elapsed: Duration,
        tell: Tell<'_>,
    ) -> Step {
        match result {
            Ok(Write::Applied { now }) => self.settlement_applied(settling, now, tell),
            Ok(Write::Stale) => {
                self.phase = Phase::CheckingSettlement(settling);
                Step::Read
            }
            Err(_) if settling.is_interim => self.finish(settling),
            Err(error) => {
                if settling.failures == 0 {
                    settling.failing_since = elapsed;
                }
                settling.failures += 1;
                self.settlement_failed(settling, &error, elapsed, tell)
            }
        }
    }

    /// P38: neither effect nor record is there, and the key is what it was before the claim.
    pub(super) fn on_rolled_back(
        &mut self,
        executing: Executing,
        problem: Problem,
        outcome: Outcome,
        tell: Tell<'_>,
    ) -> Step {
        if outcome != Outcome::Unknown {
            tell(Event::Released {
                record: self.ticket.key,
            });
        }
        let reply = Reply {
            content: ReplyContent::Problem(problem),
            status: self.is_observing().then_some(IdempotencyStatus::Observed),
            expires: None,
            outcome,
            attempt: Some(executing.attempt),
            first: None,
            age: None,
        };
        self.reply_or_done(Some(reply))
    }

    /// P24: the client gets the real answer in any case, and the write is tried again while the
    /// lease lives.
    pub(super) fn settlement_failed(
        &mut self,
        mut settling: Box<Settling>,
        error: &StoreError,
        elapsed: Duration,
        tell: Tell<'_>,
    ) -> Step {
        if let Some(reply) = settling.reply.take() {
            self.phase = Phase::Replying(Then::Settle(settling));
            return Step::Reply(reply);
        }
        if elapsed.saturating_sub(settling.failing_since) >= self.ticket.policy.lease {
            tell(Event::SettlementAbandoned {
                record: self.ticket.key,
                error,
            });
            return Step::Done;
        }
        let pause = pause_after(settling.failures);
        self.phase = Phase::Pausing(settling);
        Step::Pause(pause)
    }

    /// The write found another claim on the key. If an earlier try of ours had failed, that
    /// claim may be our own seal.
    pub(super) fn on_settlement_checked(
        &mut self,
        mut settling: Box<Settling>,
        found: Result<(Option<Held>, Timestamp), StoreError>,
        elapsed: Duration,
        tell: Tell<'_>,
    ) -> Step {
        match &found {
            Ok((held, now)) => {
                let claim = held.as_ref().map(|held| held.record.claim);
                let is_ours = match &settling.record {
                    Some(record) => claim == Some(record.claim) && !settling.is_interim,
                    None => claim.is_none() && settling.failures > 0,
                };
                if is_ours {
                    return self.settlement_applied(settling, *now, tell);
                }
            }
            Err(error) if settling.failures > 0 => {
                settling.failures += 1;
                return self.settlement_failed(settling, error, elapsed, tell);
            }
            Err(_) => {}
        }
        tell(Event::StaleWriteRefused {
            record: self.ticket.key,
        });
        if let Some(reply) = &mut settling.reply
            && !settling.is_interim
            && !self.is_observing()
        {
            self.defer_to_record(reply, found.ok());
        }
        self.finish(settling)
    }

    /// One answer a key (G2): the claim was lost, so the client gets what the record says now,
    /// where it says something.
    fn defer_to_record(&self, reply: &mut Reply, found: Option<(Option<Held>, Timestamp)>) {
        let (held, now) = match found {
            Some((Some(held), now)) => (held, now),
            // Nobody else's answer is there to be contradicted.
            Some((None, _)) => return,
            // Somebody has the key and may have answered for it: ours cannot be called final.
            None => {
                *reply = Reply {
                    attempt: reply.attempt,
                    status: Some(IdempotencyStatus::Unknown),
                    ..problem_reply(
                        ProblemKind::OutcomeUnknown,
                        "The operation was sent, but its record passed to somebody else and \
                         cannot be read.",
                        Outcome::Unknown,
                    )
                };
                return;
            }
        };
        let (policy, fingerprint) = (&self.ticket.policy, &self.ticket.fingerprint);
        match decide(policy, fingerprint, Some(&held), now) {
            Decision::Execute | Decision::Rebind | Decision::Mismatch | Decision::Expired => {}
            Decision::Probe => *reply = reply_from(unanswered(&held), &held, now),
            Decision::MarkUnknown | Decision::Resend => {
                *reply = reply_from(Decision::RefuseUnknown, &held, now);
            }
            decision => *reply = reply_from(decision, &held, now),
        }
    }

    pub(super) fn settlement_applied(
        &mut self,
        mut settling: Box<Settling>,
        now: Timestamp,
        tell: Tell<'_>,
    ) -> Step {
        let record = self.ticket.key;
        match settling.record.as_ref().map(|record| &record.state) {
            None => tell(Event::Released { record }),
            Some(State::Unknown { reason, .. }) => self.tell_unknown(*reason, tell),
            Some(state @ (State::Completed(response) | State::Rejected(response))) => {
                let (state, status) = (state.kind(), response.status);
                tell(Event::Settled {
                    record,
                    state,
                    status,
                });
                // A route that only observes replays nothing, so there is no end of it to tell.
                if let Some(reply) = &mut settling.reply
                    && !self.is_observing()
                {
                    reply.expires = Some(now.plus(self.ticket.policy.retention));
                }
            }
            Some(State::Outstanding { .. }) => {}
        }
        self.finish(settling)
    }

    /// Sends what is left to send and ends, or goes on waiting for a late answer.
    pub(super) fn finish(&mut self, mut settling: Box<Settling>) -> Step {
        let then = if settling.is_interim {
            Then::AwaitLate(settling.executing)
        } else {
            Then::Done
        };
        match settling.reply.take() {
            Some(reply) => {
                self.phase = Phase::Replying(then);
                Step::Reply(reply)
            }
            None => Step::Done,
        }
    }

    pub(super) fn after_reply(&mut self, then: Then, elapsed: Duration) -> Step {
        match then {
            Then::Done => Step::Done,
            Then::Settle(settling) => {
                let pause = pause_after(settling.failures);
                self.phase = Phase::Pausing(settling);
                Step::Pause(pause)
            }
            Then::AwaitLate(executing) => {
                self.phase = Phase::Executing(executing);
                Step::Await
            }
            Then::Undo => {
                self.phase = Phase::Undoing {
                    tries: 1,
                    since: elapsed,
                };
                Step::Remove {
                    expected: self.ticket.claim,
                }
            }
        }
    }

    pub(super) fn on_undoing(
        &mut self,
        tries: u32,
        since: Duration,
        input: &Input,
        elapsed: Duration,
    ) -> Step {
        let is_in_time = elapsed.saturating_sub(since) < self.ticket.policy.lease;
        let (tries, step) = match input {
            Input::Written(Err(_)) if is_in_time => {
                (tries.saturating_add(1), Step::Pause(pause_after(tries)))
            }
            Input::Waited => {
                let expected = self.ticket.claim;
                (tries, Step::Remove { expected })
            }
            _ => return Step::Done,
        };
        self.phase = Phase::Undoing { tries, since };
        step
    }

    pub(super) fn reply_or_done(&mut self, reply: Option<Reply>) -> Step {
        self.phase = Phase::Replying(Then::Done);
        reply.map_or(Step::Done, Step::Reply)
    }
}

impl Settling {
    pub(super) fn end(
        executing: Executing,
        record: Option<Record>,
        reply: Option<Reply>,
    ) -> Box<Self> {
        let failing_since = Duration::ZERO;
        Box::new(Self {
            executing,
            record,
            reply,
            failures: 0,
            failing_since,
            is_interim: false,
        })
    }
}

fn pause_after(failures: u32) -> Duration {
    let factor = 1u32
        .checked_shl(failures.saturating_sub(1))
        .unwrap_or(u32::MAX);
    FIRST_PAUSE.saturating_mul(factor).min(MAX_PAUSE)
}
