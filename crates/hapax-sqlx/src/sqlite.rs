//! The statements of SQLite.

use sqlx::error::DatabaseError as _;
use sqlx::sqlite::SqliteError;
use sqlx::{Row as _, Sqlite};

use crate::statements::{Claim, FailureKind, Row, Statements, common_statements};

/// Result codes that say that another connection has the lock: `SQLITE_BUSY`, `SQLITE_LOCKED`.
/// Extended codes have them in their lowest byte.
const CONFLICTS: [i32; 2] = [5, 6];

impl Statements for Sqlite {
    const MIGRATION: &'static str = include_str!("../migrations/sqlite.sql");
    /// Takes the write lock at once: a transaction that takes it at its first write may be told
    /// that it cannot have it any more.
    const BEGIN: &'static str = "BEGIN IMMEDIATE";
    const HAS_ONE_WRITER: bool = true;

    common_statements!(
        now: "CAST(unixepoch('subsec') * 1000 AS INTEGER)",
        lock: "", skip: "");

    /// Whoever is in a writing transaction is alone.
    async fn try_lock(_connection: &mut Self::Connection, _key: &[u8; 16]) -> sqlx::Result<bool> {
        Ok(true)
    }

    async fn claim(
        connection: &mut Self::Connection,
        key: &[u8; 16],
        claim: &[u8; 16],
    ) -> sqlx::Result<Claim> {
        let inserted = sqlx::query(
            "INSERT INTO hapax_records (key, claim, claimed_at, written_at, record)
             SELECT $1, $2, n.now, n.now, x''
             FROM (SELECT CAST(unixepoch('subsec') * 1000 AS INTEGER) AS now) n WHERE true
             ON CONFLICT (key) DO NOTHING RETURNING written_at",
        )
        .bind(key.as_slice())
        .bind(claim.as_slice())
        .fetch_optional(connection)
        .await?;
        Ok(match inserted {
            Some(row) => Claim::Claimed(row.try_get(0)?),
            None => Claim::Exists,
        })
    }

    async fn sweep(connection: &mut Self::Connection, limit: i64) -> sqlx::Result<u64> {
        sqlx::query(
            "DELETE FROM hapax_records WHERE key IN (
                 SELECT key FROM hapax_records
                 WHERE expires_at <= CAST(unixepoch('subsec') * 1000 AS INTEGER)
                 ORDER BY expires_at LIMIT $1)",
        )
        .bind(limit)
        .execute(connection)
        .await
        .map(|done| done.rows_affected())
    }

    /// A statement that fails takes back itself alone. Where SQLite ends the transaction, the commit
    /// fails.
    async fn assure_unbroken(_connection: &mut Self::Connection) -> sqlx::Result<()> {
        Ok(())
    }

    fn kind_of(error: &sqlx::Error) -> FailureKind {
        let code = error
            .as_database_error()
            .and_then(|error| error.try_downcast_ref::<SqliteError>())
            .and_then(|error| error.code()?.parse::<i32>().ok());
        match code {
            Some(code) if CONFLICTS.contains(&(code & 0xff)) => FailureKind::Conflict,
            _ => FailureKind::Other,
        }
    }
}
