//! While the request is with the upstream.

use crate::event::{Event, Outcome};
use crate::problem::ProblemKind;
use crate::record::{Content, State, StoredResponse, UnknownReason};
use crate::settle::{IdempotencyStatus, Settlement};
use crate::store::{StoreError, Write};

use super::machine::{Attempt, Executing, Phase, Settling, Tell, Then};
use super::reply::problem_reply;
use super::{Execution, Input, Reply, Step, UpstreamAnswer, UpstreamFailure};

/// Three heartbeats fit into a lease, so that two may fail before it runs out.
const HEARTBEATS_PER_LEASE: u32 = 3;

impl Attempt {
    pub(super) fn execute(&mut self, attempt: u32, tell: Tell<'_>) -> Step {
        tell(Event::Claimed {
            record: self.ticket.key,
            route: &self.ticket.route,
            attempt,
        });
        if self.is_observing() {
            tell(Event::WouldHave {
                route: &self.ticket.route,
                outcome: Outcome::Executed,
            });
        }
        let outcome = if self.is_observing() {
            Outcome::Observed
        } else {
            Outcome::Executed
        };
        let executing = Executing {
            attempt,
            is_recorded: true,
            has_replied: false,
            outcome,
        };
        self.phase = Phase::Executing(executing);
        let heartbeat = Some(self.ticket.policy.lease / HEARTBEATS_PER_LEASE);
        Step::Execute(Execution { attempt, heartbeat })
    }

    pub(super) fn execute_unrecorded(&mut self, outcome: Outcome) -> Step {
        let executing = Executing {
            attempt: 1,
            is_recorded: false,
            has_replied: false,
            outcome,
        };
        self.phase = Phase::Executing(executing);
        Step::Execute(Execution {
            attempt: 1,
            heartbeat: None,
        })
    }

    pub(super) fn on_executing(&mut self, executing: Executing, input: Input) -> Step {
        match input {
            Input::Answered(answer) => self.on_answered(executing, answer),
            Input::Failed(failure) => self.on_failed(executing, failure),
            Input::TimedOut if !executing.has_replied => self.on_timed_out(executing),
            Input::HeartbeatDue if executing.is_recorded && !executing.has_replied => {
                self.phase = Phase::Renewing(executing);
                let record = self.outstanding(executing.attempt);
                Step::Replace {
                    expected: self.ticket.claim,
                    record,
                }
            }
            _ => {
                self.phase = Phase::Executing(executing);
                Step::Await
            }
        }
    }

    pub(super) fn on_answered(&mut self, executing: Executing, answer: UpstreamAnswer) -> Step {
        let reply =
            (!executing.has_replied).then(|| self.upstream_reply(executing, answer.settlement));
        if !executing.is_recorded {
            return self.reply_or_done(reply);
        }
        let response = StoredResponse {
            status: answer.status,
            headers: answer.headers,
            content: answer.content,
        };
        let state = match answer.settlement {
            Settlement::Complete => Some(State::Completed(response)),
            Settlement::Reject => Some(State::Rejected(response)),
            Settlement::Unknown => Some(State::Unknown {
                reason: UnknownReason::UpstreamAnswered,
                response: Some(response).filter(|kept| kept.content != Content::Withheld),
            }),
            Settlement::Release => unused(executing, UnknownReason::UpstreamAnswered),
        };
        let record = state.map(|state| self.sealed(executing.attempt, state));
        self.settle(Settling::end(executing, record, reply))
    }

    pub(super) fn on_failed(&mut self, executing: Executing, failure: UpstreamFailure) -> Step {
        let reply = (!executing.has_replied).then(|| self.failure_reply(executing, failure));
        if !executing.is_recorded {
            return self.reply_or_done(reply);
        }
        match failure {
            UpstreamFailure::NotSent { .. } => {
                let record = unused(executing, UnknownReason::UpstreamFailed)
                    .map(|state| self.sealed(executing.attempt, state));
                self.settle(Settling::end(executing, record, reply))
            }
            // Already written down as unknown when the client was told.
            UpstreamFailure::AfterDispatch if executing.has_replied => Step::Done,
            UpstreamFailure::AfterDispatch => {
                let state = State::Unknown {
                    reason: UnknownReason::UpstreamFailed,
                    response: None,
                };
                let record = self.sealed(executing.attempt, state);
                self.settle(Settling::end(executing, Some(record), reply))
            }
        }
    }

    /// The client is told; the operation goes on and its answer, should it come, is kept (P46).
    /// Until then the record keeps the claim id, so that this attempt may still complete it.
    pub(super) fn on_timed_out(&mut self, mut executing: Executing) -> Step {
        let reply = Some(Reply {
            attempt: Some(executing.attempt),
            status: Some(self.status_of(IdempotencyStatus::Unknown)),
            ..problem_reply(
                ProblemKind::OutcomeUnknown,
                "The upstream has not answered in time. The operation may still happen.",
                if executing.outcome == Outcome::Executed {
                    Outcome::Unknown
                } else {
                    executing.outcome
                },
            )
        });
        executing.has_replied = true;
        if !executing.is_recorded {
            self.phase = Phase::Replying(Then::AwaitLate(executing));
            return reply.map_or(Step::Await, Step::Reply);
        }
        let mut record = self.outstanding(executing.attempt);
        record.state = State::Unknown {
            reason: UnknownReason::UpstreamTimeout,
            response: None,
        };
        let settling = Settling::end(executing, Some(record), reply);
        self.settle(Box::new(Settling {
            is_interim: true,
            ..*settling
        }))
    }

    pub(super) fn on_renewed(
        &mut self,
        executing: Executing,
        result: &Result<Write, StoreError>,
        tell: Tell<'_>,
    ) -> Step {
        if matches!(result, &Ok(Write::Stale)) {
            tell(Event::LeaseLost {
                record: self.ticket.key,
            });
        }
        // A failed heartbeat is tried again when the next is due.
        self.phase = Phase::Executing(executing);
        Step::Await
    }
}

/// What the record says when this execution certainly did nothing: the key is given back, unless
/// the operation had been sent before. Giving back would forget that the earlier execution may
/// have had its effect, and the next would tell the upstream that it is the first.
fn unused(executing: Executing, reason: UnknownReason) -> Option<State> {
    (executing.attempt > 1).then_some(State::Unknown {
        reason,
        response: None,
    })
}
