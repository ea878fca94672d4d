//! The table of records: set up, opened, read, swept.

use bytes::Bytes;
use sqlx::{Pool, Transaction};

use hapax_core::encoding;
use hapax_core::key::RecordKey;
use hapax_core::record::{Held, Record};
use hapax_core::secret::{HashKeys, Secret};
use hapax_core::store::StoreError;
use hapax_core::time::Timestamp;

use crate::Dialect;
use crate::statements::Row;

/// The version of the tables that this crate reads and writes.
const VERSION: i32 = 1;

/// How many expired records one statement of a sweep deletes: few enough to hold no lock for long.
const SWEEP_AT_ONCE: i64 = 500;

/// The records beside an application's own tables, on the application's own pool.
pub struct Records<DB: Dialect> {
    pub(crate) pool: Pool<DB>,
    pub(crate) keys: HashKeys,
}

impl<DB: Dialect> Clone for Records<DB> {
    fn clone(&self) -> Self {
        Self {
            pool: self.pool.clone(),
            keys: self.keys.clone(),
        }
    }
}

impl<DB: Dialect> std::fmt::Debug for Records<DB> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Records(..)")
    }
}

/// Begins a transaction, in a task of its own.
///
/// sqlx does not take back a `BEGIN` whose caller left while it was under way: the connection would go
/// back to the pool inside an open transaction, which the next statement of the application's
/// would join without knowing. The task sees it through, and a transaction that nobody waits for
/// any more is rolled back when the task ends.
pub(crate) async fn begin<DB: Dialect>(
    pool: &Pool<DB>,
    statement: &'static str,
) -> sqlx::Result<Transaction<'static, DB>> {
    let pool = pool.clone();
    let begun = tokio::spawn(async move { pool.begin_with(statement).await });
    begun
        .await
        .unwrap_or_else(|error| Err(sqlx::Error::Io(std::io::Error::other(error))))
}

/// Why the records cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RecordsError {
    /// The database refuses, or cannot be reached.
    #[error("the database refuses: {0}")]
    Database(#[from] sqlx::Error),
    /// The tables are of a version that this crate does not know.
    #[error("the tables of hapax have version {found}, and this program knows version {VERSION}")]
    Version {
        /// Theirs.
        found: i32,
    },
    /// The secret beside the records is not one.
    #[error("the secret in hapax_meta is damaged")]
    Secret,
    /// The system has no random numbers to make a secret of.
    #[error("the system has no random numbers")]
    Random,
}

impl<DB: Dialect> Records<DB> {
    /// The statements that make the tables, for those who keep all migrations in one place. Each
    /// can be run again. [`Records::open`] runs them by itself.
    pub const MIGRATION: &'static str = DB::MIGRATION;

    /// Opens the records in the database of `pool`, making the tables if they are not there.
    ///
    /// The secret that keys every digest lies beside the records. Whoever reads the database can
    /// then test guesses of keys and payloads against them; [`Records::open_with`] keeps it
    /// elsewhere.
    ///
    /// # Errors
    /// [`RecordsError`].
    pub async fn open(pool: Pool<DB>) -> Result<Self, RecordsError> {
        let mut fresh = [0; 32];
        getrandom::fill(&mut fresh).map_err(|_| RecordsError::Random)?;
        Self::set_up(pool, &fresh, None).await
    }

    /// As [`Records::open`], with a secret that the application keeps. All processes on one
    /// database need the same one: under another, every stored record counts as damaged.
    ///
    /// # Errors
    /// [`RecordsError`].
    pub async fn open_with(pool: Pool<DB>, secret: Secret) -> Result<Self, RecordsError> {
        // What is stored is not used, and must not look like the real one.
        Self::set_up(pool, &[0; 32], Some(secret)).await
    }

    async fn set_up(
        pool: Pool<DB>,
        fresh: &[u8; 32],
        secret: Option<Secret>,
    ) -> Result<Self, RecordsError> {
        let mut transaction = begin(&pool, DB::BEGIN).await?;
        let (version, stored) = DB::set_up(&mut transaction, fresh).await?;
        transaction.commit().await?;
        if version != VERSION {
            return Err(RecordsError::Version { found: version });
        }
        let secret = match secret {
            Some(secret) => secret,
            // All zeros: the tables were set up for a secret that is kept elsewhere.
            None if stored.iter().all(|byte| *byte == 0) => return Err(RecordsError::Secret),
            None => {
                let bytes = stored.try_into().map_err(|_| RecordsError::Secret)?;
                Secret::from_bytes(bytes)
            }
        };
        Ok(Self {
            pool,
            keys: HashKeys::derive(&secret),
        })
    }

    /// Deletes up to `limit` records that have expired, a few hundred at a time, and never one that
    /// has not (P34, P35); returns how many. To be called every few minutes: an expired record that
    /// is still there takes room and is otherwise as good as gone.
    ///
    /// # Errors
    /// The database's.
    pub async fn sweep(&self, limit: u64) -> sqlx::Result<u64> {
        let mut removed = 0;
        while removed < limit {
            let at_once = SWEEP_AT_ONCE.min(i64::try_from(limit - removed).unwrap_or(i64::MAX));
            let mut transaction = begin(&self.pool, DB::BEGIN).await?;
            let count = DB::sweep(&mut transaction, at_once).await?;
            transaction.commit().await?;
            removed += count;
            if count < at_once.unsigned_abs() {
                break;
            }
        }
        Ok(removed)
    }

    /// A row as the rules know it.
    pub(crate) fn held(&self, key: &RecordKey, row: Row) -> Result<Held, StoreError> {
        let (claimed_at, written_at) = (instant(row.claimed_at), instant(row.written_at));
        let bytes = Bytes::from(row.record);
        let record = encoding::decode(&self.keys, key, &bytes, &beside(claimed_at, written_at))?;
        if record.claim.as_bytes().as_slice() != row.claim {
            let what = "its claim is not that of its row";
            return Err(StoreError::Damaged { what });
        }
        Ok(Held {
            record,
            claimed_at,
            written_at,
        })
    }

    /// A settled record as a row, and when that expires.
    pub(crate) fn row(
        &self,
        key: &RecordKey,
        record: &Record,
        at: Timestamp,
    ) -> Result<(Row, Option<i64>), StoreError> {
        let bytes = encoding::encode(&self.keys, key, record, &beside(at, at))?;
        let row = Row {
            claim: record.claim.as_bytes().to_vec(),
            claimed_at: millis(at),
            written_at: millis(at),
            record: bytes.to_vec(),
        };
        let held = Held {
            record: record.clone(),
            claimed_at: at,
            written_at: at,
        };
        Ok((row, held.expires_at().map(millis)))
    }
}

/// What the record's tag covers besides its bytes: its instants.
fn beside(claimed_at: Timestamp, written_at: Timestamp) -> [u8; 16] {
    let mut beside = [0; 16];
    let instants = [claimed_at.as_millis(), written_at.as_millis()];
    for (to, from) in beside
        .iter_mut()
        .zip(instants.iter().flat_map(|at| at.to_le_bytes()))
    {
        *to = from;
    }
    beside
}

/// An instant of the database. One before 1970 is none of ours, and the record's tag says so.
pub(crate) fn instant(millis: i64) -> Timestamp {
    Timestamp::from_millis(u64::try_from(millis).unwrap_or(0))
}

fn millis(at: Timestamp) -> i64 {
    i64::try_from(at.as_millis()).unwrap_or(i64::MAX)
}
