//! What an operator's word means for a record (P48, P49): decided here, carried out elsewhere.
//!
//! A ruling is written with the claim id that the operator saw as the one expected, so that of
//! two operators one wins, and a holder that comes back afterwards finds its claim gone (P46).

use std::fmt;
use std::time::Duration;

use http::{HeaderMap, StatusCode, header};

use crate::problem::ProblemKind;
use crate::record::{ClaimId, Content, Held, Record, State, StateKind, StoredResponse};
use crate::settle::stored_headers;
use crate::time::Timestamp;

/// Which writing of a record somebody saw: changes with every write of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Version([u8; 8]);

impl Version {
    /// The version of a record as it is held.
    pub fn of(held: &Held) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("hapax 2026-11 record version");
        hasher.update(held.record.claim.as_bytes());
        hasher.update(&held.written_at.as_millis().to_le_bytes());
        // Of a lapsed claim that is marked unknown within a millisecond, the state alone changes.
        hasher.update(held.record.state.kind().as_str().as_bytes());
        Self(crate::secret::truncated(&hasher.finalize()))
    }
}

/// Lower-case hexadecimal; in an entity tag it stands in quotes.
impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        crate::secret::write_hex(f, &self.0)
    }
}

/// What an operator says about a record.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// The operation ran, and this was its answer. Without one, repeats get 409
    /// `response-unavailable` (P48).
    Completed(Option<StoredResponse>),
    /// The operation did not run: the key is vacant again and the next attempt executes.
    NotExecuted,
    /// Forget the record: the key is vacant and the next attempt executes, whatever ran before.
    Release,
    /// Retention is over now: what follows it by itself comes at once.
    Expire,
}

/// What to do with a record so that it says what the operator said.
#[derive(Debug, Clone, PartialEq)]
pub enum Ruling {
    /// Write this in its place.
    Replace(Box<Record>),
    /// Remove it: the key is vacant.
    Remove,
}

impl Ruling {
    /// The state the record has afterwards; `None` for a vacant key.
    pub fn leads_to(&self) -> Option<StateKind> {
        match self {
            Self::Remove => None,
            Self::Replace(record) if record.retention.is_zero() => Some(StateKind::Tombstone),
            Self::Replace(record) => Some(record.state.kind()),
        }
    }
}

/// Why an operator's word does not apply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Inapplicable {
    /// The operation is under way: its own end settles the record.
    #[error("the operation is under way; its own end settles the record")]
    UnderWay,
    /// The lease ran out: the outcome is unknown, which is for `resolve` (P49).
    #[error("the claim's lease has run out, so the outcome is unknown: resolve it")]
    Lapsed,
    /// There is nothing to resolve.
    #[error("the record is {}: only an unknown outcome can be resolved", .0.as_str())]
    Settled(StateKind),
    /// There is no record (any more).
    #[error("the key is vacant")]
    Vacant,
}

/// Decides what `verdict` means for a record at the store's `now`. `seal` is a claim id that was
/// never used: it keeps every earlier holder of the key out.
///
/// # Errors
/// [`Inapplicable`]: an outstanding record is settled by its own end; one whose lease ran out, and
/// an unknown one, can be resolved; a settled one can be released or expired.
pub fn rule(
    held: &Held,
    now: Timestamp,
    verdict: &Verdict,
    seal: ClaimId,
) -> Result<Ruling, Inapplicable> {
    let kind = held.kind_at(now).ok_or(Inapplicable::Vacant)?;
    let is_lapsed = held.is_lapsed(now);
    match (verdict, kind) {
        (_, StateKind::Outstanding) if !is_lapsed => Err(Inapplicable::UnderWay),
        (Verdict::Completed(answer), StateKind::Unknown | StateKind::Outstanding) => {
            let answer = answer.clone().unwrap_or_else(unavailable);
            Ok(Ruling::Replace(Box::new(Record {
                claim: seal,
                state: State::Completed(answer),
                asked_by: None,
                ..held.record.clone()
            })))
        }
        (Verdict::NotExecuted, StateKind::Unknown | StateKind::Outstanding) => Ok(Ruling::Remove),
        (Verdict::Completed(_) | Verdict::NotExecuted, kind) => Err(Inapplicable::Settled(kind)),
        (Verdict::Release | Verdict::Expire, StateKind::Outstanding) => Err(Inapplicable::Lapsed),
        (Verdict::Release, _) => Ok(Ruling::Remove),
        (Verdict::Expire, kind) => Ok(expired(held, kind, seal)),
    }
}

/// What is left when retention ends: a tombstone where the record has one, else nothing.
fn expired(held: &Held, kind: StateKind, seal: ClaimId) -> Ruling {
    let leaves_tombstone = matches!(kind, StateKind::Completed | StateKind::Rejected)
        && !held.record.tombstone.is_zero();
    if !leaves_tombstone {
        return Ruling::Remove;
    }
    Ruling::Replace(Box::new(Record {
        claim: seal,
        retention: Duration::ZERO,
        // A tombstone answers nothing but that the key was used: the answer may go.
        state: State::Completed(unavailable()),
        asked_by: None,
        ..held.record.clone()
    }))
}

/// The stored form of an answer that nobody has.
fn unavailable() -> StoredResponse {
    StoredResponse {
        status: ProblemKind::ResponseUnavailable.status(),
        headers: HeaderMap::new(),
        content: Content::Withheld,
    }
}

/// An answer that an operator wrote, as a record keeps it.
///
/// # Errors
/// A status that cannot be the final answer of an operation: below 200, or 204, 205 or 304 with
/// content.
pub fn dictated(
    status: StatusCode,
    headers: &HeaderMap,
    content: bytes::Bytes,
) -> Result<StoredResponse, &'static str> {
    if status.as_u16() < 200 {
        return Err("an interim status is no answer");
    }
    if matches!(status.as_u16(), 204 | 205 | 304) && !content.is_empty() {
        return Err("an answer with this status has no content");
    }
    let mut headers = stored_headers(headers);
    // The length is the content's, whatever was written.
    headers.remove(header::CONTENT_LENGTH);
    let content = Content::Stored(content);
    Ok(StoredResponse {
        status,
        headers,
        content,
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::HeaderValue;

    use super::*;
    use crate::fingerprint::Fingerprint;
    use crate::record::UnknownReason;
    use crate::scope::ScopeId;

    const AT: Timestamp = Timestamp::from_millis(1_000_000);
    const LEASE: Duration = Duration::from_secs(60);
    const RETENTION: Duration = Duration::from_secs(3600);
    const TOMBSTONE: Duration = Duration::from_secs(600);
    const SEAL: ClaimId = ClaimId::from_bytes([9; 16]);

    fn held(state: State, tombstone: Duration) -> Held {
        Held {
            record: Record {
                claim: ClaimId::from_bytes([1; 16]),
                scope: ScopeId::from_bytes([2; 16]),
                fingerprint: Fingerprint {
                    digest: [3; 16],
                    outline: [].into(),
                },
                attempt: 2,
                route: "r".into(),
                trace: None,
                asked_by: None,
                retention: RETENTION,
                tombstone,
                state,
            },
            claimed_at: AT,
            written_at: AT,
        }
    }

    fn answer() -> StoredResponse {
        dictated(StatusCode::CREATED, &HeaderMap::new(), Bytes::new()).expect("an answer")
    }

    fn unknown() -> State {
        State::Unknown {
            reason: UnknownReason::Restarted,
            response: None,
        }
    }

    /// What each verdict (completed, not executed, release, expire) does to a record.
    fn check(
        state: &State,
        tombstone: Duration,
        age: Duration,
        expected: [Result<Option<StateKind>, Inapplicable>; 4],
    ) {
        let held = held(state.clone(), tombstone);
        let verdicts = [
            Verdict::Completed(None),
            Verdict::NotExecuted,
            Verdict::Release,
            Verdict::Expire,
        ];
        for (verdict, expected) in verdicts.iter().zip(expected) {
            let ruling = rule(&held, AT.plus(age), verdict, SEAL);
            let leads_to = ruling.as_ref().map(Ruling::leads_to).map_err(|why| *why);
            assert_eq!(leads_to, expected, "{verdict:?} on {state:?} after {age:?}");
            if let Ok(Ruling::Replace(record)) = ruling {
                // Nobody who held the key before can write any more.
                assert_eq!(record.claim, SEAL);
                assert_eq!(record.fingerprint, held.record.fingerprint);
            }
        }
    }

    #[test]
    fn an_outstanding_record_is_left_to_its_own_end_until_its_lease_has_run_out() {
        let state = State::Outstanding { lease: LEASE };
        let refused = Err(Inapplicable::UnderWay);
        check(&state, TOMBSTONE, Duration::ZERO, [refused; 4]);
        let lapsed = Err(Inapplicable::Lapsed);
        let completed = Ok(Some(StateKind::Completed));
        check(
            &state,
            TOMBSTONE,
            LEASE,
            [completed, Ok(None), lapsed, lapsed],
        );
    }

    #[test]
    fn an_unknown_record_can_be_resolved_either_way_and_leaves_no_tombstone() {
        let completed = Ok(Some(StateKind::Completed));
        let expected = [completed, Ok(None), Ok(None), Ok(None)];
        check(&unknown(), TOMBSTONE, LEASE, expected);
    }

    #[test]
    fn a_settled_record_is_not_resolved_and_can_be_released_or_expired() {
        for (state, kind) in [
            (State::Completed(answer()), StateKind::Completed),
            (State::Rejected(answer()), StateKind::Rejected),
        ] {
            let settled = Err(Inapplicable::Settled(kind));
            let buried = Ok(Some(StateKind::Tombstone));
            check(
                &state,
                TOMBSTONE,
                LEASE,
                [settled, settled, Ok(None), buried],
            );
            check(
                &state,
                Duration::ZERO,
                LEASE,
                [settled, settled, Ok(None), Ok(None)],
            );
            let settled = Err(Inapplicable::Settled(StateKind::Tombstone));
            check(
                &state,
                TOMBSTONE,
                RETENTION,
                [settled, settled, Ok(None), Ok(None)],
            );
            let vacant = Err(Inapplicable::Vacant);
            check(&state, Duration::ZERO, RETENTION, [vacant; 4]);
        }
    }

    #[test]
    fn an_expired_record_is_a_tombstone_at_once_and_keeps_no_answer() {
        let held = held(State::Completed(answer()), TOMBSTONE);
        let Ok(Ruling::Replace(record)) = rule(&held, AT, &Verdict::Expire, SEAL) else {
            panic!("it has a tombstone");
        };
        let buried = Held {
            record: *record,
            ..held
        };
        assert_eq!(buried.kind_at(AT), Some(StateKind::Tombstone));
        assert_eq!(buried.kind_at(AT.plus(TOMBSTONE)), None);
        let kept = buried.record.state.response().expect("a completed record");
        assert_eq!(kept.content, Content::Withheld);
    }

    #[test]
    fn a_dictated_answer_keeps_what_a_replay_keeps_and_no_length() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            (header::LOCATION, "/o/1"),
            (header::CONTENT_LENGTH, "7"),
            (header::SET_COOKIE, "a=b"),
            (header::TRANSFER_ENCODING, "chunked"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        let kept = dictated(StatusCode::OK, &headers, Bytes::from_static(b"x")).expect("an answer");
        assert_eq!(kept.headers.len(), 1);
        assert_eq!(kept.headers[header::LOCATION], "/o/1");
        assert!(dictated(StatusCode::CONTINUE, &headers, Bytes::new()).is_err());
        assert!(dictated(StatusCode::NO_CONTENT, &headers, Bytes::from_static(b"x")).is_err());
    }

    #[test]
    fn a_version_changes_with_every_write() {
        let first = held(unknown(), TOMBSTONE);
        let mut later = first.clone();
        later.written_at = AT.plus(Duration::from_millis(1));
        let mut other = first.clone();
        other.record.claim = SEAL;
        assert_eq!(Version::of(&first), Version::of(&first.clone()));
        assert_ne!(Version::of(&first), Version::of(&later));
        assert_ne!(Version::of(&first), Version::of(&other));
        assert_eq!(Version::of(&first).to_string().len(), 16);
    }
}
