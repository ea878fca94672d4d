//! THE decision: what a record means for an attempt (section C of the protocol).

use crate::fingerprint::Fingerprint;
use crate::policy::{Mode, OnUnknown, Policy};
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
    /// Unknown, and the route says how to ask the upstream whether it happened.
    Probe,
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
            OnUnknown::Probe(_) if policy.mode == Mode::Enforce => Decision::Probe,
            _ if response.is_some() => Decision::ReplayUnknown,
            OnUnknown::Refuse | OnUnknown::Probe(_) => Decision::RefuseUnknown,
        },
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use http::{HeaderMap, StatusCode};

    use super::Decision::*;
    use super::*;
    use crate::probe::Template;
    use crate::record::{
        ClaimId, Content, MIN_UNKNOWN_RETENTION, Record, StoredResponse, UnknownReason,
    };
    use crate::scope::ScopeId;

    const WRITTEN_AT: Timestamp = Timestamp::from_millis(1_000_000);
    const LEASE: Duration = Duration::from_secs(60);
    const RETENTION: Duration = Duration::from_secs(3600);
    const TOMBSTONE: Duration = Duration::from_secs(600);
    const FOREVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
    const TICK: Duration = Duration::from_millis(1);

    fn fingerprint(byte: u8) -> Fingerprint {
        Fingerprint {
            digest: [byte; 16],
            outline: [].into(),
        }
    }

    fn response() -> StoredResponse {
        StoredResponse {
            status: StatusCode::CREATED,
            headers: HeaderMap::new(),
            content: Content::Stored(Bytes::from_static(b"{}")),
        }
    }

    fn unknown(response: Option<StoredResponse>) -> State {
        State::Unknown {
            reason: UnknownReason::UpstreamAnswered,
            response,
        }
    }

    /// Checks a row of the table at every age: `expected` is what a retry of the same request
    /// gets on a route that refuses the unknown, on one that re-sends, and what another request
    /// under the key gets on either.
    fn check(state: &State, tombstone: Duration, ages: &[Duration], expected: [Decision; 3]) {
        let held = Held {
            record: Record {
                claim: ClaimId::from_bytes([1; 16]),
                scope: ScopeId::from_bytes([2; 16]),
                fingerprint: fingerprint(1),
                attempt: 1,
                route: "".into(),
                trace: None,
                asked_by: None,
                retention: RETENTION,
                tombstone,
                state: state.clone(),
            },
            claimed_at: Timestamp::default(),
            written_at: WRITTEN_AT,
        };
        let [refuse, resend, other] = expected;
        // A route that probes does what one that refuses does, but asks about the unknown.
        let probing = match refuse {
            ReplayUnknown | RefuseUnknown => Probe,
            other => other,
        };
        let template =
            || OnUnknown::Probe(Template::parse("GET /{key}").expect("a template").into());
        for (mode, on_unknown, by, expected) in [
            (Mode::Enforce, OnUnknown::Refuse, 1, refuse),
            (Mode::Enforce, OnUnknown::Resend, 1, resend),
            (Mode::Enforce, template(), 1, probing),
            // Who only watches sends no question either (P6).
            (Mode::Observe, template(), 1, refuse),
            (Mode::Enforce, OnUnknown::Refuse, 2, other),
            (Mode::Enforce, OnUnknown::Resend, 2, other),
            (Mode::Enforce, template(), 2, other),
        ] {
            let policy = Policy {
                mode,
                on_unknown: on_unknown.clone(),
                // A route's present settings do not reach back to a record that is there.
                lease: TICK,
                retention: TICK,
                tombstone: FOREVER,
                ..Policy::default()
            };
            for age in ages {
                let decision = decide(
                    &policy,
                    &fingerprint(by),
                    Some(&held),
                    WRITTEN_AT.plus(*age),
                );
                assert_eq!(
                    decision, expected,
                    "{state:?}, fingerprint {by}, {on_unknown:?}, {age:?} old"
                );
            }
        }
    }

    #[test]
    fn a_vacant_key_is_claimed() {
        for on_unknown in [OnUnknown::Refuse, OnUnknown::Resend] {
            let policy = Policy {
                on_unknown,
                ..Policy::default()
            };
            assert_eq!(decide(&policy, &fingerprint(1), None, WRITTEN_AT), Execute);
        }
    }

    #[test]
    fn an_outstanding_record_is_in_progress_until_its_lease_lapses_and_never_vacant() {
        let state = State::Outstanding { lease: LEASE };
        for tombstone in [Duration::ZERO, TOMBSTONE] {
            let alive = [Duration::ZERO, LEASE - TICK];
            check(
                &state,
                tombstone,
                &alive,
                [InProgress, InProgress, Mismatch],
            );
            let lapsed = [LEASE, RETENTION + TOMBSTONE, FOREVER];
            check(
                &state,
                tombstone,
                &lapsed,
                [MarkUnknown, MarkUnknown, Mismatch],
            );
        }
    }

    #[test]
    fn a_completed_record_is_replayed_to_the_same_request_alone() {
        let state = State::Completed(response());
        let retained = [Duration::ZERO, LEASE, RETENTION - TICK];
        for tombstone in [Duration::ZERO, TOMBSTONE] {
            check(&state, tombstone, &retained, [Replay, Replay, Mismatch]);
        }
    }

    #[test]
    fn a_rejected_record_is_replayed_to_the_same_request_and_rebound_to_another() {
        let state = State::Rejected(response());
        let retained = [Duration::ZERO, LEASE, RETENTION - TICK];
        for tombstone in [Duration::ZERO, TOMBSTONE] {
            let expected = [ReplayRejected, ReplayRejected, Rebind];
            check(&state, tombstone, &retained, expected);
        }
    }

    #[test]
    fn an_unknown_record_is_refused_or_sent_again_as_the_route_says() {
        // Kept for a week although the record says an hour.
        let retained = [
            Duration::ZERO,
            LEASE,
            RETENTION,
            MIN_UNKNOWN_RETENTION - TICK,
        ];
        for tombstone in [Duration::ZERO, TOMBSTONE] {
            let expected = [RefuseUnknown, Resend, Mismatch];
            check(&unknown(None), tombstone, &retained, expected);
            let expected = [ReplayUnknown, Resend, Mismatch];
            check(&unknown(Some(response())), tombstone, &retained, expected);
        }
    }

    #[test]
    fn a_tombstone_says_expired_to_every_request() {
        let buried = [RETENTION, RETENTION + TOMBSTONE - TICK];
        for state in [State::Completed(response()), State::Rejected(response())] {
            check(&state, TOMBSTONE, &buried, [Expired; 3]);
        }
    }

    #[test]
    fn an_expired_record_leaves_the_key_vacant() {
        for state in [State::Completed(response()), State::Rejected(response())] {
            let gone = [RETENTION + TOMBSTONE, FOREVER];
            check(&state, TOMBSTONE, &gone, [Execute; 3]);
            check(&state, Duration::ZERO, &[RETENTION, FOREVER], [Execute; 3]);
        }
        // An unknown outcome leaves no tombstone: nobody ever got an answer that was final.
        let gone = [MIN_UNKNOWN_RETENTION, FOREVER];
        check(&unknown(None), TOMBSTONE, &gone, [Execute; 3]);
        check(&unknown(Some(response())), TOMBSTONE, &gone, [Execute; 3]);
    }
}
