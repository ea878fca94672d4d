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
    row.try_get(name).map_err(|error| StoreError::Refused {
        reason: "PostgreSQL answered with other columns",
        source: Some(Box::new(error)),
    })
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

/// The record in a row; `None` where the row has none.
pub(super) fn held(
    keys: &HashKeys,
    key: &RecordKey,
    row: &Row,
) -> Result<Option<Held>, StoreError> {
    let Some(value) = column::<Option<&[u8]>>(row, "value")? else {
        return Ok(None);
    };
    let stamped = Stamped {
        claim: column(row, "claim")?,
        claimed_at: column(row, "claimed_at")?,
        written_at: column(row, "written_at")?,
        expires_at: column(row, "expires_at")?,
    };
    shared::decode(keys, key, &Bytes::copy_from_slice(value), stamped).map(Some)
}
