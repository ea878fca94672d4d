//! The bytes of a record as they are stored.
//!
//! ```text
//! written_at(u64 LE) claimed_at(u64 LE) expires_at(u64 LE) record (hapax_core::encoding)
//! ```
//!
//! The three instants are authenticated by the record's tag. They come first so that whoever
//! only asks whether a record has expired reads 24 bytes.

use bytes::Bytes;
use hapax_core::encoding;
use hapax_core::key::RecordKey;
use hapax_core::record::Held;
use hapax_core::secret::HashKeys;
use hapax_core::store::StoreError;
use hapax_core::time::Timestamp;

use crate::gauges::NEVER;

pub(super) const HEAD_LEN: usize = 24;

pub(super) fn encode(keys: &HashKeys, key: &RecordKey, held: &Held) -> Result<Bytes, StoreError> {
    let mut head = [0; HEAD_LEN];
    let instants = [
        held.written_at,
        held.claimed_at,
        held.expires_at().unwrap_or(NEVER),
    ];
    for (to, instant) in head.chunks_exact_mut(8).zip(instants) {
        to.copy_from_slice(&instant.as_millis().to_le_bytes());
    }
    let record = encoding::encode(keys, key, &held.record, &head)?;
    let mut value = Vec::with_capacity(HEAD_LEN + record.len());
    value.extend_from_slice(&head);
    value.extend_from_slice(&record);
    Ok(value.into())
}

/// The record's content is a part of `value`, not a copy.
pub(super) fn decode(keys: &HashKeys, key: &RecordKey, value: &Bytes) -> Result<Held, StoreError> {
    let damaged = |what| StoreError::Damaged { what };
    let head = value.get(..HEAD_LEN).ok_or(damaged("cut short"))?;
    let record = encoding::decode(keys, key, &value.slice(HEAD_LEN..), head)?;
    let instant = |index| read_instant(head, index).ok_or(damaged("cut short"));
    Ok(Held {
        record,
        written_at: instant(0)?,
        claimed_at: instant(1)?,
    })
}

/// When a value expires; `None` when it is too short to say.
pub(super) fn expires_at(value: &[u8]) -> Option<Timestamp> {
    read_instant(value, 2)
}

fn read_instant(head: &[u8], index: usize) -> Option<Timestamp> {
    let bytes = head.get(index * 8..index * 8 + 8)?.try_into().ok()?;
    Some(Timestamp::from_millis(u64::from_le_bytes(bytes)))
}
