//! A record as a row.

use bytes::Bytes;
use hapax_core::key::RecordKey;
use hapax_core::record::Held;
use hapax_core::secret::HashKeys;
use hapax_core::store::StoreError;
use hapax_core::time::Timestamp;
use tokio_postgres::Row;
use tokio_postgres::types::FromSql;

use crate::shared::{self, Stamped};

/// A column by name.
pub(super) fn column<'r, T: FromSql<'r>>(row: &'r Row, name: &str) -> Result<T, StoreError> {
    row.try_get(name).map_err(other_columns)
}

pub(super) fn other_columns(error: tokio_postgres::Error) -> StoreError {
    StoreError::Refused {
        reason: "PostgreSQL answered with other columns",
        source: Some(Box::new(error)),
    }
}

/// An instant by name.
pub(super) fn instant(row: &Row, name: &str) -> Result<Timestamp, StoreError> {
    let ms: i64 = column(row, name)?;
    Ok(timestamp(ms))
}

/// A server whose clock stands before 1970 is taken to stand there.
pub(super) fn timestamp(ms: i64) -> Timestamp {
    Timestamp::from_millis(u64::try_from(ms).unwrap_or(0))
}

/// What a row says of a key.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) now: i64,
    claim: Vec<u8>,
    claimed_at: i64,
    written_at: i64,
    expires_at: Option<i64>,
    /// `None` where the statement left it out for its size.
    value: Option<Bytes>,
}

impl Found {
    /// What the row has; `None` where it has no record.
    pub(super) fn read(row: &Row) -> Result<Option<Self>, tokio_postgres::Error> {
        let Some(claim) = row.try_get::<_, Option<Vec<u8>>>("claim")? else {
            return Ok(None);
        };
        let value: Option<&[u8]> = row.try_get("value")?;
        Ok(Some(Self {
            now: row.try_get("now")?,
            claim,
            claimed_at: row.try_get("claimed_at")?,
            written_at: row.try_get("written_at")?,
            expires_at: row.try_get("expires_at")?,
            value: value.map(Bytes::copy_from_slice),
        }))
    }

    /// The record under `key`, checked; `None` where its value was left out.
    pub(super) fn held(
        &self,
        keys: &HashKeys,
        key: &RecordKey,
    ) -> Result<Option<Held>, StoreError> {
        let Some(value) = &self.value else {
            return Ok(None);
        };
        let stamped = Stamped {
            claim: &self.claim,
            claimed_at: self.claimed_at,
            written_at: self.written_at,
            expires_at: self.expires_at,
        };
        shared::decode(keys, key, value, stamped).map(Some)
    }
}
