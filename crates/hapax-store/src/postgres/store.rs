//! The contract, over a pool of connections.

use std::fmt;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use deadpool::Runtime;
use deadpool::managed::{Object, Pool, PoolError};
use hapax_core::key::RecordKey;
use hapax_core::record::{ClaimId, Held, Record, StateKind};
use hapax_core::secret::{HashKeys, Secret};
use hapax_core::store::{
    Cursor, Durability, Filter, Insert, Page, Stats, Store, StoreError, Swept, Write,
};
use hapax_core::time::Timestamp;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Row, Statement};

use super::connection::{Connector, configure};
use super::error::{Intent, PostgresError, of_pool, of_statement, refused};
use super::options::PostgresOptions;
use super::restore::connected_gateways;
use super::schema;
use super::statements::Statements;
use super::value::{self, column, instant, timestamp};
use crate::shared;

/// How often a claim asks again when somebody else's transaction took the key, or gave it back,
/// while it was asking. Each turn means that another claim made progress.
const TURNS: usize = 8;

/// Rows that one call of [`Store::list`] reads before it returns a short page.
const LIST_SCAN: usize = 256;

/// Rows that one statement of a sweep removes: few, so that nobody waits for it.
const SWEEP_AT_ONCE: usize = 500;

/// A store in PostgreSQL. [`Durability::Durable`]: connections to a server that is set up to
/// lose what it acknowledged are refused.
pub struct PostgresStore {
    pool: Pool<Connector>,
    options: PostgresOptions,
    secret: Secret,
    keys: HashKeys,
    /// Commits that ended without the standby's word, and the last of them known to be there.
    doubts: AtomicU64,
    resolved: AtomicU64,
    full: AtomicU8,
}

type Parameters<'a> = &'a [&'a (dyn ToSql + Sync)];

impl PostgresStore {
    /// Opens the store in the database at `url`, which `migrate` has prepared.
    ///
    /// # Errors
    /// See [`PostgresError`].
    pub async fn open(url: &str, options: PostgresOptions) -> Result<Self, PostgresError> {
        let config = configure(url, &options)?;
        let connector = Connector { config, options };
        let secret = connector.check_schema().await?;
        let options = connector.options.clone();
        let pool = Pool::builder(connector)
            .max_size(options.connections.max(1))
            .wait_timeout(Some(options.operation_timeout))
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(|error| PostgresError::Unusable(error.to_string()))?;
        // Now, rather than with the first request: a server that cannot be used ends the start.
        let first = pool.get().await;
        drop(first.map_err(|error| match error {
            PoolError::Backend(error) => error,
            error => PostgresError::Unusable(error.to_string()),
        })?);
        Ok(Self {
            pool,
            options,
            keys: HashKeys::derive(&secret),
            secret,
            doubts: AtomicU64::new(0),
            resolved: AtomicU64::new(0),
            full: AtomicU8::new(NOT_FULL),
        })
    }

    /// How many connections gateways have to this database, as far as they go by their usual name.
    ///
    /// # Errors
    /// The server cannot be asked.
    pub async fn connected_gateways(&self) -> Result<i64, PostgresError> {
        let connection = self.pool.get().await.map_err(|error| match error {
            PoolError::Backend(error) => error,
            error => PostgresError::Unusable(error.to_string()),
        })?;
        connected_gateways(&connection.client).await
    }

    /// Runs one statement. A connection whose statement fails, or is no longer waited for, is
    /// not used again.
    async fn rows(
        &self,
        intent: Intent,
        statement: fn(&Statements) -> &Statement,
        parameters: Parameters<'_>,
    ) -> Result<Vec<Row>, StoreError> {
        let mut connection: Object<Connector> = self.pool.get().await.map_err(of_pool)?;
        let warnings = connection.warnings();
        connection.is_in_doubt = true;
        let statement = statement(&connection.statements);
        let rows = connection.client.query(statement, parameters).await;
        let rows = rows.map_err(|error| of_statement(intent, error))?;
        if intent == Intent::Write && connection.warnings() != warnings {
            // The one warning a commit gives: the wait for a synchronous standby was cancelled.
            // It is committed here, and a failover may still lose it.
            self.doubts.fetch_add(1, Ordering::AcqRel);
            return Err(StoreError::Uncertain {
                reason: "PostgreSQL committed without waiting for its standby",
                source: None,
            });
        }
        connection.is_in_doubt = false;
        Ok(rows)
    }

    /// After a commit that a failover may still lose: shows nothing before everything that was
    /// committed has reached the standby.
    async fn settle_doubts(&self) -> Result<(), StoreError> {
        let doubts = self.doubts.load(Ordering::Acquire);
        if self.resolved.load(Ordering::Acquire) >= doubts {
            return Ok(());
        }
        let barrier = self.rows(Intent::Write, |all| &all.barrier, &[]).await;
        barrier.map_err(|error| StoreError::Refused {
            reason: "the standby has not confirmed earlier commits",
            source: Some(Box::new(error)),
        })?;
        self.resolved.fetch_max(doubts, Ordering::AcqRel);
        Ok(())
    }

    /// Looks whether the store is full, for the claims until the next look.
    async fn note_fullness(&self) -> Result<(), StoreError> {
        let limits = self.options.limits;
        if limits.max_records == 0 && limits.max_bytes == 0 {
            return Ok(());
        }
        let stats = self.stats().await?;
        let full = if limits.max_records != 0 && stats.records >= limits.max_records {
            FULL_OF_RECORDS
        } else if limits.max_bytes != 0 && stats.bytes >= limits.max_bytes {
            FULL_OF_BYTES
        } else {
            NOT_FULL
        };
        self.full.store(full, Ordering::Release);
        Ok(())
    }

    fn fullness(&self) -> Option<&'static str> {
        match self.full.load(Ordering::Acquire) {
            FULL_OF_RECORDS => Some("max_records is reached"),
            FULL_OF_BYTES => Some("max_bytes is reached"),
            _ => None,
        }
    }

    fn key_of(row: &Row) -> Result<RecordKey, StoreError> {
        let key: &[u8] = column(row, "key")?;
        let key = key.try_into().map_err(|_| StoreError::Damaged {
            what: "a key is not 16 bytes long",
        })?;
        Ok(RecordKey::from_bytes(key))
    }
}

const NOT_FULL: u8 = 0;
const FULL_OF_RECORDS: u8 = 1;
const FULL_OF_BYTES: u8 = 2;

impl Connector {
    async fn check_schema(&self) -> Result<Secret, PostgresError> {
        let (client, connection) = self.config.connect(tokio_postgres::NoTls).await?;
        // Ends with the client.
        tokio::spawn(connection);
        schema::check(&client).await
    }
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresStore")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

/// What a write that returns its instant did.
fn written(rows: &[Row]) -> Result<Write, StoreError> {
    let Some(row) = rows.first() else {
        return Ok(Write::Stale);
    };
    let ms: i64 = row.try_get(0).map_err(|error| StoreError::Uncertain {
        reason: "PostgreSQL answered a write with other columns",
        source: Some(Box::new(error)),
    })?;
    Ok(Write::Applied { now: timestamp(ms) })
}

impl Store for PostgresStore {
    async fn insert(&self, key: &RecordKey, record: &Record) -> Result<Insert, StoreError> {
        if let Some(what) = self.fullness() {
            // A key that is held is told so, full or not.
            return match self.read(key).await? {
                (Some(held), now) => Ok(Insert::Occupied {
                    held: Box::new(held),
                    now,
                }),
                (None, _) => Err(StoreError::Full { what }),
            };
        }
        let value = shared::encode(&self.keys, key, record)?;
        let parameters: Parameters<'_> = &[
            &key.as_bytes().as_slice(),
            &record.claim.as_bytes().as_slice(),
            &shared::state(record),
            &shared::lifetime_ms(record),
            &value.as_ref(),
        ];
        for _ in 0..TURNS {
            let rows = self
                .rows(Intent::Write, |all| &all.insert, parameters)
                .await?;
            let Some(row) = rows.first() else { continue };
            let now = instant(row, "now")?;
            let Some(held) = value::held(&self.keys, key, row)? else {
                return Ok(Insert::Claimed { now });
            };
            self.settle_doubts().await?;
            let held = Box::new(held);
            return Ok(Insert::Occupied { held, now });
        }
        Err(refused("too many others claim this key at the same time"))
    }

    async fn replace(
        &self,
        key: &RecordKey,
        expected: ClaimId,
        record: &Record,
    ) -> Result<Write, StoreError> {
        let value = shared::encode(&self.keys, key, record)?;
        let parameters: Parameters<'_> = &[
            &key.as_bytes().as_slice(),
            &expected.as_bytes().as_slice(),
            &record.claim.as_bytes().as_slice(),
            &shared::state(record),
            &shared::lifetime_ms(record),
            &value.as_ref(),
        ];
        written(
            &self
                .rows(Intent::Write, |all| &all.replace, parameters)
                .await?,
        )
    }

    async fn remove(&self, key: &RecordKey, expected: ClaimId) -> Result<Write, StoreError> {
        let parameters: Parameters<'_> =
            &[&key.as_bytes().as_slice(), &expected.as_bytes().as_slice()];
        written(
            &self
                .rows(Intent::Write, |all| &all.remove, parameters)
                .await?,
        )
    }

    async fn read(&self, key: &RecordKey) -> Result<(Option<Held>, Timestamp), StoreError> {
        let parameters: Parameters<'_> = &[&key.as_bytes().as_slice()];
        let rows = self.rows(Intent::Read, |all| &all.read, parameters).await?;
        let row = rows.first().ok_or(refused("PostgreSQL answered nothing"))?;
        let held = value::held(&self.keys, key, row)?;
        if held.is_some() {
            self.settle_doubts().await?;
        }
        Ok((held, instant(row, "now")?))
    }

    async fn sweep(&self, limit: usize) -> Result<Swept, StoreError> {
        let at_once = limit.min(SWEEP_AT_ONCE);
        let count = i64::try_from(at_once).unwrap_or(i64::MAX);
        let rows = self
            .rows(Intent::Write, |all| &all.sweep, &[&count])
            .await?;
        self.note_fullness().await?;
        Ok(Swept {
            removed: rows.len(),
            more_due: rows.len() == at_once,
        })
    }

    async fn list(
        &self,
        filter: &Filter,
        after: Option<Cursor>,
        limit: usize,
    ) -> Result<Page, StoreError> {
        let statement: fn(&Statements) -> &Statement = match filter.state {
            Some(StateKind::Outstanding) => |all| &all.list_outstanding,
            Some(StateKind::Unknown) => |all| &all.list_unknown,
            _ => |all| &all.list,
        };
        let limit = limit.max(1);
        let after = after.map_or(Vec::new(), |Cursor(key)| key.as_bytes().to_vec());
        let count = i64::try_from(LIST_SCAN).unwrap_or(i64::MAX);
        let parameters: Parameters<'_> = &[&after, &count];
        let rows = self.rows(Intent::Read, statement, parameters).await?;
        let mut page = Page::default();
        for row in &rows {
            if page.records.len() >= limit {
                return Ok(page);
            }
            let key = Self::key_of(row)?;
            page.next = Some(Cursor(key));
            // Damage is for whoever asks for that very record; here it would hide the others.
            let held = match value::held(&self.keys, &key, row) {
                Err(StoreError::Damaged { .. }) => continue,
                held => held?,
            };
            let now = instant(row, "now")?;
            page.records.extend(
                held.filter(|held| filter.matches(held, now))
                    .map(|held| (key, held)),
            );
        }
        if rows.len() < LIST_SCAN {
            page.next = None;
        }
        Ok(page)
    }

    async fn stats(&self) -> Result<Stats, StoreError> {
        let rows = self.rows(Intent::Read, |all| &all.stats, &[]).await?;
        let row = rows.first().ok_or(refused("PostgreSQL answered nothing"))?;
        let count = |name| Ok(u64::try_from(column::<i64>(row, name)?).unwrap_or(0));
        Ok(Stats {
            records: count("records")?,
            bytes: count("bytes")?,
            outstanding: count("outstanding")?,
            unknown: count("unknown")?,
            oldest_unknown: column::<Option<i64>>(row, "oldest_unknown")?.map(timestamp),
            damaged: 0,
            now: instant(row, "now")?,
        })
    }

    fn secret(&self) -> &Secret {
        &self.secret
    }

    fn durability(&self) -> Durability {
        Durability::Durable
    }
}
