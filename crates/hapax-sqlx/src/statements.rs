//! What is asked of a database, as far as the two dialects agree.

use std::future::Future;

use sqlx::Database;

/// A row of the table of records: the bytes and what stands beside them.
#[derive(Debug, Clone)]
pub struct Row {
    pub(crate) claim: Vec<u8>,
    pub(crate) claimed_at: i64,
    pub(crate) written_at: i64,
    pub(crate) record: Vec<u8>,
}

/// What came of asking for a key.
#[derive(Debug)]
pub enum Claim {
    /// It was vacant: a row is there now, in this transaction, at this instant.
    Claimed(i64),
    /// Another transaction has the key.
    Locked,
    /// There is a committed row.
    Exists,
}

/// Why a statement failed, by what can be done about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    /// The database chose to roll this transaction back (serialization, deadlock, busy): the
    /// same may succeed when it is run again.
    Conflict,
    /// Anything else.
    Other,
}

/// The statements of one database. Every method works on a connection within a transaction.
pub trait Statements: Database {
    /// The tables.
    const MIGRATION: &'static str;

    /// Begins a transaction that will write.
    const BEGIN: &'static str;

    /// Whether one transaction at a time writes in the whole database, so that
    /// - writers wait for each other before they take a connection, and
    /// - a look that needs no such turn comes before the claim.
    const HAS_ONE_WRITER: bool;

    /// Makes the tables if they are not there, with `secret` if there is none; returns the version
    /// and the secret that are there.
    fn set_up(
        connection: &mut Self::Connection,
        secret: &[u8],
    ) -> impl Future<Output = sqlx::Result<(i32, Vec<u8>)>> + Send;

    /// Locks the key until the transaction ends, if that needs no waiting; says whether it did.
    fn try_lock(
        connection: &mut Self::Connection,
        key: &[u8; 16],
    ) -> impl Future<Output = sqlx::Result<bool>> + Send;

    /// Locks the key, if that needs no waiting, and inserts its row unless there is one.
    fn claim(
        connection: &mut Self::Connection,
        key: &[u8; 16],
        claim: &[u8; 16],
    ) -> impl Future<Output = sqlx::Result<Claim>> + Send;

    /// Puts another claim on a row that has the claim `expected`; returns the instant, `None` when
    /// the row has another claim.
    fn take_over(
        connection: &mut Self::Connection,
        key: &[u8; 16],
        expected: &[u8],
        claim: &[u8; 16],
    ) -> impl Future<Output = sqlx::Result<Option<i64>>> + Send;

    /// Writes a row that has the claim `expected`; says whether it did.
    fn write(
        connection: &mut Self::Connection,
        key: &[u8; 16],
        expected: &[u8],
        row: &Row,
        expires_at: Option<i64>,
    ) -> impl Future<Output = sqlx::Result<bool>> + Send;

    /// The key's row, and the present instant.
    fn read(
        connection: &mut Self::Connection,
        key: &[u8; 16],
    ) -> impl Future<Output = sqlx::Result<(Option<Row>, i64)>> + Send;

    /// Deletes up to `limit` rows that have expired; returns how many.
    fn sweep(
        connection: &mut Self::Connection,
        limit: i64,
    ) -> impl Future<Output = sqlx::Result<u64>> + Send;

    /// Why a statement failed.
    fn kind_of(error: &sqlx::Error) -> FailureKind;
}

/// The methods of [`Statements`] that differ in nothing but the expression for the present
/// instant, in milliseconds.
macro_rules! common_statements {
    (now: $now:literal) => {
        async fn set_up(
            connection: &mut Self::Connection,
            secret: &[u8],
        ) -> sqlx::Result<(i32, Vec<u8>)> {
            sqlx::raw_sql(Self::MIGRATION)
                .execute(&mut *connection)
                .await?;
            sqlx::query(
                "INSERT INTO hapax_meta (id, version, secret) VALUES (1, 1, $1)
                 ON CONFLICT (id) DO NOTHING",
            )
            .bind(secret)
            .execute(&mut *connection)
            .await?;
            let row = sqlx::query("SELECT version, secret FROM hapax_meta")
                .fetch_one(connection)
                .await?;
            Ok((row.try_get(0)?, row.try_get(1)?))
        }

        async fn take_over(
            connection: &mut Self::Connection,
            key: &[u8; 16],
            expected: &[u8],
            claim: &[u8; 16],
        ) -> sqlx::Result<Option<i64>> {
            sqlx::query(concat!(
                "UPDATE hapax_records SET claim = $3, claimed_at = ",
                $now,
                ", written_at = ",
                $now,
                ", expires_at = NULL WHERE key = $1 AND claim = $2 RETURNING written_at"
            ))
            .bind(key.as_slice())
            .bind(expected)
            .bind(claim.as_slice())
            .fetch_optional(connection)
            .await?
            .map(|row| row.try_get(0))
            .transpose()
        }

        async fn write(
            connection: &mut Self::Connection,
            key: &[u8; 16],
            expected: &[u8],
            row: &Row,
            expires_at: Option<i64>,
        ) -> sqlx::Result<bool> {
            sqlx::query(
                "UPDATE hapax_records SET claim = $3, claimed_at = $4, written_at = $5,
                 expires_at = $6, record = $7 WHERE key = $1 AND claim = $2",
            )
            .bind(key.as_slice())
            .bind(expected)
            .bind(&row.claim)
            .bind(row.claimed_at)
            .bind(row.written_at)
            .bind(expires_at)
            .bind(&row.record)
            .execute(connection)
            .await
            .map(|done| done.rows_affected() == 1)
        }

        async fn read(
            connection: &mut Self::Connection,
            key: &[u8; 16],
        ) -> sqlx::Result<(Option<Row>, i64)> {
            let row = sqlx::query(concat!(
                "SELECT n.now, r.claim, r.claimed_at, r.written_at, r.record FROM (SELECT ",
                $now,
                " AS now) n LEFT JOIN hapax_records r ON r.key = $1"
            ))
            .bind(key.as_slice())
            .fetch_one(connection)
            .await?;
            let now = row.try_get(0)?;
            let Some(claim) = row.try_get::<Option<Vec<u8>>, _>(1)? else {
                return Ok((None, now));
            };
            let found = Row {
                claim,
                claimed_at: row.try_get(2)?,
                written_at: row.try_get(3)?,
                record: row.try_get(4)?,
            };
            Ok((Some(found), now))
        }
    };
}

pub(crate) use common_statements;
