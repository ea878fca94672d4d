//! Asking the upstream about an unknown outcome, and what becomes of the record then (P47).

use http::StatusCode;

use crate::Decision;
use crate::event::{Event, Outcome};
use crate::probe::{ProbeOutcome, Probed, Resolution, resolve};
use crate::problem::ProblemKind;
use crate::record::{Held, StateKind};
use crate::settle::IdempotencyStatus;
use crate::store::{StoreError, Write};
use crate::time::Timestamp;

use super::machine::{Attempt, Phase, Tell};
use super::reply::{problem_reply, reply_from};
use super::{Reply, Step};

/// What an unknown record says to a retry when nobody can say more.
pub(super) fn unanswered(held: &Held) -> Decision {
    match held.record.state.response() {
        Some(_) => Decision::ReplayUnknown,
        None => Decision::RefuseUnknown,
    }
}

impl Attempt {
    pub(super) fn probe(&mut self, held: &Held, now: Timestamp) -> Step {
        self.phase = Phase::Probing {
            held: Box::new(held.clone()),
            asked_at: now,
        };
        Step::Probe
    }

    pub(super) fn on_probed(
        &mut self,
        held: &Held,
        asked_at: Timestamp,
        probed: Probed,
        tell: Tell<'_>,
    ) -> Step {
        self.has_probed = true;
        let resolution = match probed {
            Probed::ByAnother => return self.race_again(tell),
            Probed::Failed => Resolution::Leave(ProbeOutcome::Failed),
            Probed::Answered(answer) => {
                let quiescence = self.ticket.policy.probe_after;
                resolve(held, quiescence, asked_at, answer, self.ticket.seal)
            }
        };
        tell(Event::Probed {
            record: self.ticket.key,
            route: &self.ticket.route,
            outcome: resolution.outcome(),
        });
        match resolution {
            Resolution::Complete(record) => {
                let status = record.state.response().map(|response| response.status);
                self.phase = Phase::Resolving {
                    status: status.unwrap_or_default(),
                };
                Step::Replace {
                    expected: held.record.claim,
                    record: *record,
                }
            }
            // The attempt that asked has the key, without anybody in between.
            Resolution::Free => self.take_over(held, held.record.attempt.saturating_add(1)),
            Resolution::Leave(_) => self.not_settled_by_probe(held, asked_at, tell),
        }
    }

    /// Whatever was written, by this attempt or by somebody else, the record now says it.
    pub(super) fn on_resolved(
        &mut self,
        status: StatusCode,
        result: Result<Write, StoreError>,
        tell: Tell<'_>,
    ) -> Step {
        match result {
            Ok(write) => {
                if matches!(write, Write::Applied { .. }) {
                    tell(Event::Settled {
                        record: self.ticket.key,
                        state: StateKind::Completed,
                        status,
                    });
                }
                self.race_again(tell)
            }
            Err(error) => self.store_failed(&error, tell),
        }
    }

    pub(super) fn not_settled_by_probe(
        &mut self,
        held: &Held,
        now: Timestamp,
        tell: Tell<'_>,
    ) -> Step {
        let decision = unanswered(held);
        let reply = reply_from(decision, held, now);
        if decision == Decision::ReplayUnknown {
            return self.give_way(reply, tell);
        }
        let asked = Reply {
            status: Some(IdempotencyStatus::Unknown),
            attempt: reply.attempt,
            age: reply.age,
            first: reply.first,
            ..problem_reply(
                ProblemKind::OutcomeUnknown,
                "An earlier request with this key was sent to the upstream and its outcome is not known. \
                 The upstream was asked about it and could not settle it yet. It was not sent again.",
                Outcome::Unknown,
            )
        };
        self.give_way(asked, tell)
    }
}
