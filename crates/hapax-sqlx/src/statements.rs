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

/// An event as it is taken: number, id, topic, payload, attempts.
pub(crate) type EventRow = (i64, String, String, Vec<u8>, i64);

/// A request that goes through recovery points: key, fingerprint, content.
pub(crate) type FlowRow = (Vec<u8>, Vec<u8>, Vec<u8>);

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

    /// Notes that a request goes through recovery points, unless that is noted; returns the
    /// fingerprint that is noted, and the present instant.
    fn begin_flow(
        connection: &mut Self::Connection,
        key: &[u8; 16],
        fingerprint: &[u8; 16],
        request: &[u8],
    ) -> impl Future<Output = sqlx::Result<(Vec<u8>, i64)>> + Send;

    /// Locks the request until the transaction ends; says whether it is still under way.
    fn lock_flow(
        connection: &mut Self::Connection,
        key: &[u8; 16],
    ) -> impl Future<Output = sqlx::Result<bool>> + Send;

    /// Removes the request and its steps.
    fn end_flow(
        connection: &mut Self::Connection,
        key: &[u8; 16],
    ) -> impl Future<Output = sqlx::Result<()>> + Send;

    /// Whether a step of the request is done.
    fn has_steps(
        connection: &mut Self::Connection,
        key: &[u8; 16],
    ) -> impl Future<Output = sqlx::Result<bool>> + Send;

    /// The result of a step that is done.
    fn step(
        connection: &mut Self::Connection,
        key: &[u8; 16],
        name: &str,
    ) -> impl Future<Output = sqlx::Result<Option<String>>> + Send;

    /// Notes that a step is done.
    fn end_step(
        connection: &mut Self::Connection,
        key: &[u8; 16],
        name: &str,
        result: &str,
    ) -> impl Future<Output = sqlx::Result<()>> + Send;

    /// Requests with a step that is done that nobody has touched for so long, up to `limit` of them;
    /// touches them. Their keys, fingerprints and contents.
    fn abandoned(
        connection: &mut Self::Connection,
        older_than_ms: i64,
        limit: i64,
    ) -> impl Future<Output = sqlx::Result<Vec<FlowRow>>> + Send;

    /// Forgets requests of which no step is done that nobody has touched for so long, up to `limit` of
    /// them.
    fn forget_flows(
        connection: &mut Self::Connection,
        older_than_ms: i64,
        limit: i64,
    ) -> impl Future<Output = sqlx::Result<()>> + Send;

    /// Writes an event to be sent.
    fn put_event(
        connection: &mut Self::Connection,
        id: &str,
        topic: &str,
        payload: &[u8],
    ) -> impl Future<Output = sqlx::Result<()>> + Send;

    /// Takes up to `limit` events that are due, and makes them due again after `lease_ms`: number,
    /// id, topic, payload, and how often each has been taken.
    fn take_events(
        connection: &mut Self::Connection,
        limit: i64,
        lease_ms: i64,
    ) -> impl Future<Output = sqlx::Result<Vec<EventRow>>> + Send;

    /// Removes an event that was sent.
    fn end_event(
        connection: &mut Self::Connection,
        number: i64,
    ) -> impl Future<Output = sqlx::Result<()>> + Send;

    /// Fails when an earlier statement has failed and a commit would silently be a rollback.
    fn assure_unbroken(
        connection: &mut Self::Connection,
    ) -> impl Future<Output = sqlx::Result<()>> + Send;

    /// Why a statement failed.
    fn kind_of(error: &sqlx::Error) -> FailureKind;
}

/// The methods of [`Statements`] that differ in little: the expression for the present instant in
/// milliseconds, and what locks a row that is selected, or passes by one that is locked.
macro_rules! common_statements {
    (now: $now:literal, lock: $lock:literal, skip: $skip:literal) => {
        async fn begin_flow(
            connection: &mut Self::Connection,
            key: &[u8; 16],
            fingerprint: &[u8; 16],
            request: &[u8],
        ) -> sqlx::Result<(Vec<u8>, i64)> {
            let row = sqlx::query(concat!(
                "INSERT INTO hapax_flows (key, fingerprint, request, touched_at)
                 SELECT $1, $2, $3, n.now FROM (SELECT ",
                $now,
                " AS now) n WHERE true
                 ON CONFLICT (key) DO UPDATE SET touched_at = excluded.touched_at
                 RETURNING fingerprint, touched_at"
            ))
            .bind(key.as_slice())
            .bind(fingerprint.as_slice())
            .bind(request)
            .fetch_one(connection)
            .await?;
            Ok((row.try_get(0)?, row.try_get(1)?))
        }

        async fn lock_flow(
            connection: &mut Self::Connection,
            key: &[u8; 16],
        ) -> sqlx::Result<bool> {
            sqlx::query(concat!(
                "SELECT touched_at FROM hapax_flows WHERE key = $1",
                $lock
            ))
            .bind(key.as_slice())
            .fetch_optional(connection)
            .await
            .map(|row| row.is_some())
        }

        async fn end_flow(connection: &mut Self::Connection, key: &[u8; 16]) -> sqlx::Result<()> {
            sqlx::query("DELETE FROM hapax_steps WHERE key = $1")
                .bind(key.as_slice())
                .execute(&mut *connection)
                .await?;
            sqlx::query("DELETE FROM hapax_flows WHERE key = $1")
                .bind(key.as_slice())
                .execute(connection)
                .await
                .map(|_| ())
        }

        async fn has_steps(
            connection: &mut Self::Connection,
            key: &[u8; 16],
        ) -> sqlx::Result<bool> {
            sqlx::query("SELECT name FROM hapax_steps WHERE key = $1 LIMIT 1")
                .bind(key.as_slice())
                .fetch_optional(connection)
                .await
                .map(|row| row.is_some())
        }

        async fn step(
            connection: &mut Self::Connection,
            key: &[u8; 16],
            name: &str,
        ) -> sqlx::Result<Option<String>> {
            sqlx::query("SELECT result FROM hapax_steps WHERE key = $1 AND name = $2")
                .bind(key.as_slice())
                .bind(name)
                .fetch_optional(connection)
                .await?
                .map(|row| row.try_get(0))
                .transpose()
        }

        async fn end_step(
            connection: &mut Self::Connection,
            key: &[u8; 16],
            name: &str,
            result: &str,
        ) -> sqlx::Result<()> {
            sqlx::query("INSERT INTO hapax_steps (key, name, result) VALUES ($1, $2, $3)")
                .bind(key.as_slice())
                .bind(name)
                .bind(result)
                .execute(connection)
                .await
                .map(|_| ())
        }

        async fn abandoned(
            connection: &mut Self::Connection,
            older_than_ms: i64,
            limit: i64,
        ) -> sqlx::Result<Vec<crate::statements::FlowRow>> {
            sqlx::query(concat!(
                "UPDATE hapax_flows SET touched_at = ",
                $now,
                " WHERE key IN (SELECT f.key FROM hapax_flows f WHERE f.touched_at <= ",
                $now,
                " - $1 AND EXISTS (SELECT 1 FROM hapax_steps s WHERE s.key = f.key)
                 ORDER BY f.touched_at LIMIT $2",
                $skip,
                ") RETURNING key, fingerprint, request"
            ))
            .bind(older_than_ms)
            .bind(limit)
            .fetch_all(connection)
            .await?
            .iter()
            .map(|row| Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?)))
            .collect()
        }

        async fn forget_flows(
            connection: &mut Self::Connection,
            older_than_ms: i64,
            limit: i64,
        ) -> sqlx::Result<()> {
            sqlx::query(concat!(
                "DELETE FROM hapax_flows WHERE key IN (SELECT f.key FROM hapax_flows f
                 WHERE f.touched_at <= ",
                $now,
                " - $1 AND NOT EXISTS (SELECT 1 FROM hapax_steps s WHERE s.key = f.key)
                 ORDER BY f.touched_at LIMIT $2",
                $skip,
                ")"
            ))
            .bind(older_than_ms)
            .bind(limit)
            .execute(connection)
            .await
            .map(|_| ())
        }

        async fn put_event(
            connection: &mut Self::Connection,
            id: &str,
            topic: &str,
            payload: &[u8],
        ) -> sqlx::Result<()> {
            sqlx::query(
                "INSERT INTO hapax_outbox (id, topic, payload, not_before) VALUES ($1, $2, $3, 0)",
            )
            .bind(id)
            .bind(topic)
            .bind(payload)
            .execute(connection)
            .await
            .map(|_| ())
        }

        async fn take_events(
            connection: &mut Self::Connection,
            limit: i64,
            lease_ms: i64,
        ) -> sqlx::Result<Vec<crate::statements::EventRow>> {
            let rows = sqlx::query(concat!(
                "UPDATE hapax_outbox SET attempts = attempts + 1, not_before = $2 + ",
                $now,
                " WHERE number IN (SELECT number FROM hapax_outbox WHERE not_before <= ",
                $now,
                " ORDER BY number LIMIT $1",
                $skip,
                ") RETURNING number, id, topic, payload, attempts"
            ))
            .bind(limit)
            .bind(lease_ms)
            .fetch_all(connection)
            .await?;
            let mut events = Vec::with_capacity(rows.len());
            for row in rows {
                events.push((
                    row.try_get(0)?,
                    row.try_get(1)?,
                    row.try_get(2)?,
                    row.try_get(3)?,
                    row.try_get(4)?,
                ));
            }
            events.sort_by_key(|(number, ..)| *number);
            Ok(events)
        }

        async fn end_event(connection: &mut Self::Connection, number: i64) -> sqlx::Result<()> {
            sqlx::query("DELETE FROM hapax_outbox WHERE number = $1")
                .bind(number)
                .execute(connection)
                .await
                .map(|_| ())
        }

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
