//! What the client is told.

use std::time::Duration;

use crate::Decision;
use crate::event::Outcome;
use crate::problem::{Problem, ProblemKind};
use crate::record::Held;
use crate::settle::{IdempotencyStatus, Settlement};
use crate::time::Timestamp;

use super::machine::{Attempt, Executing};
use super::{Reply, ReplyContent, UpstreamFailure};

impl Attempt {
    pub(super) fn upstream_reply(&self, executing: Executing, settlement: Settlement) -> Reply {
        let (status, outcome) = match settlement {
            _ if executing.outcome == Outcome::StoreError => (None, Outcome::StoreError),
            _ if self.is_observing() => (Some(IdempotencyStatus::Observed), Outcome::Observed),
            Settlement::Release => (None, Outcome::Executed),
            Settlement::Unknown => (Some(IdempotencyStatus::Unknown), Outcome::Unknown),
            Settlement::Complete | Settlement::Reject => {
                (Some(IdempotencyStatus::Executed), Outcome::Executed)
            }
        };
        Reply {
            content: ReplyContent::Upstream,
            status,
            expires: None,
            outcome,
            attempt: Some(executing.attempt),
            age: None,
            first: None,
        }
    }

    pub(super) fn failure_reply(&self, executing: Executing, failure: UpstreamFailure) -> Reply {
        let (kind, detail, outcome) = match failure {
            UpstreamFailure::NotSent { timed_out: false } => (
                ProblemKind::UpstreamUnreachable,
                "The upstream could not be reached. Nothing was sent.",
                Outcome::UpstreamError,
            ),
            UpstreamFailure::NotSent { timed_out: true } => (
                ProblemKind::UpstreamConnectTimeout,
                "The upstream did not accept a connection in time. Nothing was sent.",
                Outcome::UpstreamError,
            ),
            UpstreamFailure::AfterDispatch => (
                ProblemKind::OutcomeUnknown,
                "The upstream failed after the request was sent, or part of it.",
                Outcome::Unknown,
            ),
        };
        let status = match failure {
            _ if self.is_observing() => Some(IdempotencyStatus::Observed),
            UpstreamFailure::NotSent { .. } => None,
            UpstreamFailure::AfterDispatch => Some(IdempotencyStatus::Unknown),
        };
        let reply = problem_reply(kind, detail, outcome);
        Reply {
            status,
            attempt: Some(executing.attempt),
            ..reply
        }
    }
}

pub(super) fn in_progress_reply() -> Reply {
    problem_reply(
        ProblemKind::InProgress,
        "The first request with this key has not been answered yet. Send this one again later, \
         with the same key.",
        Outcome::InProgress,
    )
}

pub(super) fn quota_reply(until: Duration) -> Reply {
    let detail = "This caller has as many idempotency keys in use as it may. Nothing was executed; answers to keys that are \
                  in use are still given.";
    let problem = Problem::new(ProblemKind::QuotaExceeded, detail).after(until);
    Reply {
        content: ReplyContent::Problem(problem),
        ..problem_reply(ProblemKind::QuotaExceeded, detail, Outcome::Refused)
    }
}

pub(super) fn problem_reply(kind: ProblemKind, detail: &'static str, outcome: Outcome) -> Reply {
    Reply {
        content: ReplyContent::Problem(Problem::new(kind, detail)),
        status: None,
        expires: None,
        outcome,
        attempt: None,
        age: None,
        first: None,
    }
}

/// The answer that a record gives to a duplicate, for decisions that execute nothing.
pub(super) fn reply_from(decision: Decision, held: &Held, now: Timestamp) -> Reply {
    let reply = match (decision, held.record.state.response()) {
        (Decision::Replay | Decision::ReplayRejected | Decision::ReplayUnknown, Some(stored)) => {
            let (status, outcome) = match decision {
                Decision::Replay => (IdempotencyStatus::Replayed, Outcome::Replayed),
                Decision::ReplayRejected => {
                    (IdempotencyStatus::Replayed, Outcome::RejectedReplayed)
                }
                _ => (IdempotencyStatus::Unknown, Outcome::Unknown),
            };
            let expires = held
                .retained_until()
                .filter(|_| decision != Decision::ReplayUnknown);
            Reply {
                content: ReplyContent::Stored(stored.clone()),
                status: Some(status),
                expires,
                outcome,
                attempt: None,
                age: None,
                first: None,
            }
        }
        (Decision::InProgress, _) => in_progress_reply(),
        (Decision::Mismatch, _) => Reply {
            content: ReplyContent::Mismatch {
                first: held.record.fingerprint.clone(),
            },
            ..problem_reply(ProblemKind::KeyReused, "", Outcome::Mismatch)
        },
        (Decision::Expired, _) => problem_reply(
            ProblemKind::KeyExpired,
            "This key was used before; its answer is no longer kept. Use a new key for a new \
             operation.",
            Outcome::Expired,
        ),
        _ => Reply {
            status: Some(IdempotencyStatus::Unknown),
            ..problem_reply(
                ProblemKind::OutcomeUnknown,
                "An earlier request with this key was sent to the upstream and its outcome is not \
                 known. It was not sent again.",
                Outcome::Unknown,
            )
        },
    };
    let age = Some(now.since(held.written_at));
    Reply {
        attempt: Some(held.record.attempt),
        age,
        first: held.record.trace.clone(),
        ..reply
    }
}
