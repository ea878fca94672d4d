//! A record as a shared store keeps it: the bytes, and beside them what the store judges by.
//!
//! The bytes are made before the store stamps its instants, so their tag cannot cover these.
//! What can be checked is: a record whose expiry is not its own instant plus its own lifetime
//! is damaged.

use bytes::Bytes;
use hapax_core::encoding;
use hapax_core::key::RecordKey;
use hapax_core::record::{Held, MIN_UNKNOWN_RETENTION, Record, State};
use hapax_core::secret::HashKeys;
use hapax_core::store::StoreError;
use hapax_core::time::Timestamp;

/// What the tag covers beside the bytes, so that a record of one kind of store is none in
/// another.
const BESIDE: &[u8] = b"shared 1";

/// Longer lifetimes are cut to it, so that instants stay whole numbers in every server's
/// arithmetic: 1,000 years in milliseconds.
const LONGEST_MS: u64 = 1000 * 366 * 86_400_000;

/// The bytes of a record.
pub(crate) fn encode(
    keys: &HashKeys,
    key: &RecordKey,
    record: &Record,
) -> Result<Bytes, StoreError> {
    encoding::encode(keys, key, record, BESIDE)
}

/// The state's number.
pub(crate) fn state(record: &Record) -> i16 {
    match record.state {
        State::Outstanding { .. } => 0,
        State::Completed(_) => 1,
        State::Rejected(_) => 2,
        State::Unknown { .. } => 3,
    }
}

/// How long after it is written a record expires, in milliseconds; `None` for never.
pub(crate) fn lifetime_ms(record: &Record) -> Option<i64> {
    let lifetime = match record.state {
        State::Outstanding { .. } => return None,
        State::Unknown { .. } => record.retention.max(MIN_UNKNOWN_RETENTION),
        State::Completed(_) | State::Rejected(_) => {
            record.retention.saturating_add(record.tombstone)
        }
    };
    let millis = u64::try_from(lifetime.as_millis()).unwrap_or(LONGEST_MS);
    i64::try_from(millis.min(LONGEST_MS)).ok()
}

/// A record with what the store says about it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stamped<'a> {
    pub(crate) claim: &'a [u8],
    pub(crate) claimed_at: i64,
    pub(crate) written_at: i64,
    pub(crate) expires_at: Option<i64>,
}

/// The record of `key`, checked against what stands beside it.
pub(crate) fn decode(
    keys: &HashKeys,
    key: &RecordKey,
    value: &Bytes,
    stamped: Stamped<'_>,
) -> Result<Held, StoreError> {
    let damaged = |what| StoreError::Damaged { what };
    let record = encoding::decode(keys, key, value, BESIDE)?;
    if record.claim.as_bytes() != stamped.claim {
        return Err(damaged("its claim is not the one beside it"));
    }
    let expires_at =
        lifetime_ms(&record).map(|lifetime| stamped.written_at.saturating_add(lifetime));
    if expires_at != stamped.expires_at {
        return Err(damaged("its expiry is not the one beside it"));
    }
    let instant = |ms| {
        u64::try_from(ms)
            .map(Timestamp::from_millis)
            .map_err(|_| damaged("an instant before 1970"))
    };
    Ok(Held {
        record,
        claimed_at: instant(stamped.claimed_at)?,
        written_at: instant(stamped.written_at)?,
    })
}
