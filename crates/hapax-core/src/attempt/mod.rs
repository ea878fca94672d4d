//! The life of one attempt: an [`Input`] goes in, the next [`Step`] comes out.
//!
//! A driver performs each step and reports what came of it; it decides nothing. Time is the
//! time since the attempt arrived, told by the driver; instants come from the store.
//!
//! ```text
//! Claiming ─ claimed ─▶ Executing ─ answered ─▶ Settling ─ written ─▶ Replying ─▶ Done
//!    │  ▲                  │  ▲ heartbeat          │ a write failed: reply, then try on
//!    │  └─ waited ─┐       │  └─ Renewing          ▼
//!    └─ in progress: Waiting └─ timed out: reply "unknown", keep waiting for a late answer
//! ```
//!
//! Invariants (each has a test):
//! - `Execute` is only said when the claim is durable, or when the route fails open or observes.
//! - Every write names the claim it was made under; settling gives the record a fresh claim id
//!   (the *seal*), so that a write that was decided on the outstanding record cannot hit the
//!   settled one.
//! - Each attempt says `Reply` exactly once.
//! - A claim is used within a lease of having been asked for, or not at all.
//! - A claim that was never confirmed, or came too late to be used, is taken back, unless the
//!   operation had been sent before: that is never forgotten.
//! - An attempt that has seen somebody's record never fails open.
//! - A scope without room for another record claims no vacant key; a key that is held is answered as ever.
//! - An attempt probes at most once; what a probe does to the record is written under the claim it was read with.

mod claim;
mod execution;
mod machine;
mod probing;
mod reply;
mod settlement;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, StatusCode};

use crate::event::Outcome;
use crate::fingerprint::Fingerprint;
use crate::key::RecordKey;
use crate::policy::Policy;
use crate::probe::{Probed, Values};
use crate::problem::Problem;
use crate::record::{ClaimId, Content, Held, Record, StoredResponse};
use crate::scope::ScopeId;
use crate::settle::{IdempotencyStatus, Settlement};
use crate::store::{Insert, StoreError, Write};
use crate::time::Timestamp;

pub use machine::{Attempt, Tell};

/// What an attempt is about. Randomness comes in here.
#[derive(Debug, Clone)]
pub struct Ticket {
    /// Which record.
    pub key: RecordKey,
    /// Who sent it.
    pub scope: ScopeId,
    /// What it asks for.
    pub fingerprint: Fingerprint,
    /// The route's rules.
    pub policy: Arc<Policy>,
    /// The route's name.
    pub route: Arc<str>,
    /// A fresh claim id, for the claim.
    pub claim: ClaimId,
    /// Another fresh claim id, for the settled record.
    pub seal: ClaimId,
    /// The request's `traceparent`.
    pub trace: Option<Arc<str>>,
    /// What a probe without a caller needs (see [`Record::asked_by`]).
    pub asked_by: Option<Arc<Values>>,
}

/// What the driver does next.
#[derive(Debug)]
pub enum Step {
    /// `Store::insert`; report [`Input::Inserted`], or [`Input::NoRoom`] without having asked the store.
    Insert(Record),
    /// `Store::replace`; report [`Input::Written`].
    Replace {
        /// The claim that must still hold the key.
        expected: ClaimId,
        /// What to write.
        record: Record,
    },
    /// `Store::remove`; report [`Input::Written`].
    Remove {
        /// The claim that must still hold the key.
        expected: ClaimId,
    },
    /// `Store::read`; report [`Input::Found`].
    Read,
    /// Ask the upstream whether the operation happened; report [`Input::Probed`].
    Probe,
    /// Wait until the key may have changed, at most this long; report [`Input::Waited`] or
    /// [`Input::WaitRefused`].
    Wait(Duration),
    /// Let this much time pass; report [`Input::Waited`].
    Pause(Duration),
    /// Send the request to the upstream, once; then as [`Step::Await`].
    Execute(Execution),
    /// Go on waiting for the upstream; report whichever comes first of [`Input::Answered`],
    /// [`Input::Failed`], [`Input::HeartbeatDue`], [`Input::TimedOut`].
    Await,
    /// Answer the client; report [`Input::Replied`].
    Reply(Reply),
    /// The attempt is over.
    Done,
}

/// How to send a request to the upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Execution {
    /// The how-manieth time the operation is sent (`Hapax-Attempt`).
    pub attempt: u32,
    /// When to report [`Input::HeartbeatDue`], again and again; `None` when no claim is held.
    pub heartbeat: Option<Duration>,
}

/// What came of a step.
#[derive(Debug)]
pub enum Input {
    /// The attempt starts.
    Begin,
    /// What `Store::insert` said.
    Inserted(Result<Insert, StoreError>),
    /// Not asked for: the scope has as many records as it may (P36).
    NoRoom {
        /// When it is known to have fewer.
        until: Duration,
    },
    /// What `Store::replace` or `Store::remove` said.
    Written(Result<Write, StoreError>),
    /// What `Store::read` said.
    Found(Result<(Option<Held>, Timestamp), StoreError>),
    /// What came of a probe.
    Probed(Probed),
    /// The wait or pause is over.
    Waited,
    /// Too many are waiting already.
    WaitRefused,
    /// The upstream answered.
    Answered(UpstreamAnswer),
    /// The upstream failed.
    Failed(UpstreamFailure),
    /// The operation ran inside a transaction, together with its record, and all of it was rolled
    /// back: as if it had never been asked for (P37, P38). Answers `Execute`, or a write after it.
    RolledBack {
        /// What the client is told.
        problem: Problem,
        /// What the request counts as; [`Outcome::Unknown`] where a lost connection leaves open
        /// whether it was rolled back or committed.
        outcome: Outcome,
    },
    /// The lease wants renewing.
    HeartbeatDue,
    /// The route's `upstream_timeout` has passed since the request was sent.
    TimedOut,
    /// The client has its answer, or has left.
    Replied,
}

/// The upstream's answer, as far as a record keeps it.
#[derive(Debug)]
pub struct UpstreamAnswer {
    /// The status.
    pub status: StatusCode,
    /// What the answer means.
    pub settlement: Settlement,
    /// The fields that are kept (see [`stored_headers`](crate::settle::stored_headers)).
    pub headers: HeaderMap,
    /// The content, if it was small enough and whole.
    pub content: Content,
}

/// How the upstream failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpstreamFailure {
    /// Certainly before any byte of the request was sent (P21).
    NotSent {
        /// Whether that was a connect time-out.
        timed_out: bool,
    },
    /// Anything later (P22).
    AfterDispatch,
}

/// The answer to the client.
#[derive(Debug)]
pub struct Reply {
    /// What to send.
    pub content: ReplyContent,
    /// `Idempotency-Status`, where the answer has one.
    pub status: Option<IdempotencyStatus>,
    /// `Idempotency-Expires`, where the answer has one.
    pub expires: Option<Timestamp>,
    /// What became of the request.
    pub outcome: Outcome,
    /// How often the operation has been sent, where that is known.
    pub attempt: Option<u32>,
    /// The `traceparent` of the execution that the answer comes from, where that was another attempt's.
    pub first: Option<Arc<str>>,
    /// How old the record is that the answer comes from.
    pub age: Option<Duration>,
}

/// What to send to the client.
#[derive(Debug)]
pub enum ReplyContent {
    /// The upstream's answer of this very attempt.
    Upstream,
    /// A stored answer (see [`replay`](crate::settle::replay)).
    Stored(StoredResponse),
    /// A problem of ours.
    Problem(Problem),
    /// A mismatch; the driver, which still has the request, names the difference to `first`.
    Mismatch {
        /// The fingerprint of the first request.
        first: Fingerprint,
    },
}
