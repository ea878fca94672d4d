//! THE decision: what a record means for an attempt (section C of the protocol).

use crate::fingerprint::Fingerprint;
use crate::policy::{OnUnknown, Policy};
use crate::record::{Held, State};
use crate::time::Timestamp;

/// What to do with an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// The key is vacant: claim it and execute.
    Execute,
    /// The first request was refused for good and this is a corrected one: claim the key anew
    /// and execute.
    Rebind,
    /// Answer with the stored response of a completed record.
    Replay,
    /// Answer with the stored response of a rejected record.
    ReplayRejected,
    /// The first attempt is under way: wait as long as the route says, then 409.
    InProgress,
    /// The holder's lease ran out: write down that the outcome is unknown, then decide again.
    MarkUnknown,
    /// Unknown, and the upstream's own 5xx answer is stored: replay it.
    ReplayUnknown,
    /// Unknown: 504, nothing is executed.
    RefuseUnknown,
    /// Unknown, and the route declares its upstream idempotent: claim anew and send again.
    Resend,
    /// The key belongs to another request: 422.
    Mismatch,
    /// The key was used before and its answer is gone: 422.
    Expired,
}

/// Decides an attempt. `now` is the store's clock: one clock judges every lease on a key.
pub fn decide(
    policy: &Policy,
    fingerprint: &Fingerprint,
    held: Option<&Held>,
    now: Timestamp,
) -> Decision {
    let Some(held) = held.filter(|held| !held.is_expired(now)) else {
        return Decision::Execute;
    };
    if held.retained_until().is_some_and(|until| until <= now) {
        return Decision::Expired;
    }
    let is_same = held.record.fingerprint.is_same(fingerprint);
    match &held.record.state {
        State::Rejected(_) if is_same => Decision::ReplayRejected,
        State::Rejected(_) => Decision::Rebind,
        // Before the other states: a reused key is a client's bug whether or not the original
        // has finished (P12).
        _ if !is_same => Decision::Mismatch,
        State::Completed(_) => Decision::Replay,
        State::Outstanding { .. } if held.is_lapsed(now) => Decision::MarkUnknown,
        State::Outstanding { .. } => Decision::InProgress,
        State::Unknown { response, .. } => match policy.on_unknown {
            OnUnknown::Resend => Decision::Resend,
            OnUnknown::Refuse if response.is_some() => Decision::ReplayUnknown,
            OnUnknown::Refuse => Decision::RefuseUnknown,
        },
    }
}
