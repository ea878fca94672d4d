//! The statements of PostgreSQL.

use sqlx::postgres::PgDatabaseError;
use sqlx::{Postgres, Row as _};

use crate::statements::{Claim, FailureKind, Row, Statements, common_statements};

/// Error codes with which the server rolls a transaction back that may succeed when run again:
/// `serialization_failure`, `deadlock_detected`, `lock_not_available`.
const CONFLICTS: [&str; 3] = ["40001", "40P01", "55P03"];

impl Statements for Postgres {
    const MIGRATION: &'static str = include_str!("../migrations/postgres.sql");
    const BEGIN: &'static str = "BEGIN";
    const HAS_ONE_WRITER: bool = false;

    common_statements!(
        now: "CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT)",
        lock: " FOR UPDATE", skip: " FOR UPDATE SKIP LOCKED");

    async fn try_lock(connection: &mut Self::Connection, key: &[u8; 16]) -> sqlx::Result<bool> {
        sqlx::query("SELECT pg_try_advisory_xact_lock($1)")
            .bind(lock_of(key))
            .fetch_one(connection)
            .await?
            .try_get(0)
    }

    /// One round trip. An insert alone would wait for a transaction that has the same key, and
    /// hold its connection meanwhile: so the lock comes first, and nothing is inserted without
    /// it. The unique index decides all the same.
    async fn claim(
        connection: &mut Self::Connection,
        key: &[u8; 16],
        claim: &[u8; 16],
    ) -> sqlx::Result<Claim> {
        let row = sqlx::query(
            "WITH locked AS MATERIALIZED (
                 SELECT pg_try_advisory_xact_lock($1) AS has_lock,
                        CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT) AS now
             ), inserted AS (
                 INSERT INTO hapax_records (key, claim, claimed_at, written_at, record)
                 SELECT $2, $3, now, now, '' FROM locked WHERE has_lock
                 ON CONFLICT (key) DO NOTHING RETURNING 1
             )
             SELECT has_lock, now, EXISTS (SELECT 1 FROM inserted) FROM locked",
        )
        .bind(lock_of(key))
        .bind(key.as_slice())
        .bind(claim.as_slice())
        .fetch_one(connection)
        .await?;
        Ok(match (row.try_get(0)?, row.try_get(2)?) {
            (false, _) => Claim::Locked,
            (true, true) => Claim::Claimed(row.try_get(1)?),
            (true, false) => Claim::Exists,
        })
    }

    async fn sweep(connection: &mut Self::Connection, limit: i64) -> sqlx::Result<u64> {
        // Rows that an attempt is taking over are passed by.
        sqlx::query(
            "DELETE FROM hapax_records WHERE key IN (
                 SELECT key FROM hapax_records
                 WHERE expires_at <= CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT)
                 ORDER BY expires_at LIMIT $1 FOR UPDATE SKIP LOCKED)",
        )
        .bind(limit)
        .execute(connection)
        .await
        .map(|done| done.rows_affected())
    }

    /// The server takes a COMMIT after a failed statement for a rollback, and calls that a success.
    async fn assure_unbroken(connection: &mut Self::Connection) -> sqlx::Result<()> {
        sqlx::query("SELECT 1")
            .execute(connection)
            .await
            .map(|_| ())
    }

    fn kind_of(error: &sqlx::Error) -> FailureKind {
        let error = error
            .as_database_error()
            .and_then(|error| error.try_downcast_ref::<PgDatabaseError>());
        match error {
            Some(error) if CONFLICTS.contains(&error.code()) => FailureKind::Conflict,
            _ => FailureKind::Other,
        }
    }
}

/// The advisory lock of a key. Two keys that share one, by a chance of 2⁻⁶⁴, wait for each other
/// and are otherwise not harmed.
fn lock_of(key: &[u8; 16]) -> i64 {
    let (start, _) = key.split_first_chunk::<8>().unwrap_or((&[0; 8], &[]));
    i64::from_be_bytes(*start)
}
