//! The contract, over a link to the server.

use std::fmt;
use std::sync::Arc;

use hapax_core::key::RecordKey;
use hapax_core::record::{ClaimId, Held, Record, StateKind};
use hapax_core::secret::{HashKeys, Secret};
use hapax_core::store::{
    Cursor, Durability, Filter, Insert, Page, Stats, Store, StoreError, Swept, Write,
};
use hapax_core::time::Timestamp;
use tokio_postgres::{Row, Statement};

use super::batch::Batches;
use super::damaged::Damaged;
use super::error::{Intent, PostgresError, refused};
use super::link::{Link, Parameters};
use super::operations::{Claim, Claimed, Completion, Look};
use super::options::PostgresOptions;
use super::restore::connected_gateways;
use super::statements::Statements;
use super::value::{Found, column, instant, other_columns, timestamp};
use crate::limits::{Fullness, Limits};

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
    link: Arc<Link>,
    claims: Arc<Batches<Claim>>,
    completions: Arc<Batches<Completion>>,
    looks: Arc<Batches<Look>>,
    damaged: Damaged,
    limits: Limits,
    secret: Secret,
    keys: HashKeys,
    full: Fullness,
}

impl PostgresStore {
    /// Opens the store in the database at `url`, which `migrate` has prepared.
    ///
    /// # Errors
    /// See [`PostgresError`].
    pub async fn open(url: &str, options: PostgresOptions) -> Result<Self, PostgresError> {
        let limits = options.limits;
        // Claims and completions have most of the connections. With fewer, those that come while
        // a commit is under way wait longer; with more, batches are small.
        let at_once = (options.connections * 3 / 8).max(1);
        let observer = Arc::clone(&options.observer);
        let (link, secret) = Link::open(url, options).await?;
        let link = Arc::new(link);
        Ok(Self {
            claims: Batches::new(&link, at_once),
            completions: Batches::new(&link, at_once),
            looks: Batches::new(&link, at_once),
            damaged: Damaged::new(observer),
            link,
            limits,
            keys: HashKeys::derive(&secret),
            secret,
            full: Fullness::default(),
        })
    }

    /// How many connections gateways have to this database, as far as they go by their usual name.
    ///
    /// # Errors
    /// The server cannot be asked.
    pub async fn connected_gateways(&self) -> Result<i64, PostgresError> {
        connected_gateways(&self.link.client().await?.client).await
    }

    /// What was found under `key`, checked, and not shown before it is on the standby. Read
    /// for itself where its value was left out; it may be gone by then.
    async fn show(
        &self,
        key: &RecordKey,
        found: &Found,
    ) -> Result<(Option<Held>, Timestamp), StoreError> {
        match self.damaged.note(key, found.held(&self.keys, key))? {
            Some(held) => {
                self.link.settle().await?;
                Ok((Some(held), timestamp(found.now)))
            }
            None => self.read_alone(key).await,
        }
    }

    async fn read_alone(&self, key: &RecordKey) -> Result<(Option<Held>, Timestamp), StoreError> {
        let parameters: Parameters<'_> = &[&key.as_bytes().as_slice()];
        let rows = self.link.rows(Intent::Read, |all| &all.read, parameters);
        let rows = rows.await?;
        let row = rows.first().ok_or(refused("PostgreSQL answered nothing"))?;
        let now = instant(row, "now")?;
        let Some(found) = Found::read(row).map_err(other_columns)? else {
            return Ok((None, now));
        };
        let held = self.damaged.note(key, found.held(&self.keys, key))?;
        self.link.settle().await?;
        Ok((held, now))
    }

    /// Looks whether the store is full, for the claims until the next look.
    async fn note_fullness(&self) -> Result<(), StoreError> {
        let limits = self.limits;
        if limits.are_none() {
            return Ok(());
        }
        let stats = self.stats().await?;
        self.full.note(limits.reached(stats.records, stats.bytes));
        Ok(())
    }

    fn key_of(row: &Row) -> Result<RecordKey, StoreError> {
        let key: &[u8] = column(row, "key")?;
        let key = key.try_into().map_err(|_| StoreError::Damaged {
            what: "a key is not 16 bytes long",
        })?;
        Ok(RecordKey::from_bytes(key))
    }
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresStore")
            .field("limits", &self.limits)
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
        let occupied = |held, now| {
            let held = Box::new(held);
            Ok(Insert::Occupied { held, now })
        };
        if let Some(what) = self.full.reached() {
            // A key that is held is told so, full or not.
            return match self.read(key).await? {
                (Some(held), now) => occupied(held, now),
                (None, _) => Err(StoreError::Full { what }),
            };
        }
        for _ in 0..TURNS {
            let claim = Claim::new(&self.keys, key, record)?;
            let claimed = self.claims.ask(claim).await;
            match claimed.map_err(|failure| failure.means(Intent::Write))? {
                Claimed::Taken(ms) => return Ok(Insert::Claimed { now: timestamp(ms) }),
                Claimed::Again => {}
                Claimed::Held(found) => {
                    if let (Some(held), now) = self.show(key, &found).await? {
                        return occupied(held, now);
                    }
                }
            }
        }
        Err(refused("too many others claim this key at the same time"))
    }

    async fn replace(
        &self,
        key: &RecordKey,
        expected: ClaimId,
        record: &Record,
    ) -> Result<Write, StoreError> {
        let completion = Completion::new(&self.keys, key, expected, record)?;
        let written = self.completions.ask(completion).await;
        match written.map_err(|failure| failure.means(Intent::Write))? {
            Some(ms) => Ok(Write::Applied { now: timestamp(ms) }),
            None => Ok(Write::Stale),
        }
    }

    async fn remove(&self, key: &RecordKey, expected: ClaimId) -> Result<Write, StoreError> {
        let parameters: Parameters<'_> =
            &[&key.as_bytes().as_slice(), &expected.as_bytes().as_slice()];
        let removing = self.link.rows(Intent::Write, |all| &all.remove, parameters);
        written(&removing.await?)
    }

    async fn read(&self, key: &RecordKey) -> Result<(Option<Held>, Timestamp), StoreError> {
        let seen = self.looks.ask(Look { key: *key }).await;
        let seen = seen.map_err(|failure| failure.means(Intent::Read))?;
        let seen = seen.ok_or(refused("PostgreSQL answered nothing"))?;
        match seen.found {
            Some(found) => self.show(key, &found).await,
            None => Ok((None, timestamp(seen.now))),
        }
    }

    async fn sweep(&self, limit: usize) -> Result<Swept, StoreError> {
        let at_once = limit.min(SWEEP_AT_ONCE);
        let count = i64::try_from(at_once).unwrap_or(i64::MAX);
        let parameters: Parameters<'_> = &[&count];
        let sweeping = self.link.rows(Intent::Write, |all| &all.sweep, parameters);
        let rows = sweeping.await?;
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
        let rows = self.link.rows(Intent::Read, statement, parameters).await?;
        let mut page = Page::default();
        for row in &rows {
            if page.records.len() >= limit {
                return Ok(page);
            }
            let key = Self::key_of(row)?;
            page.next = Some(Cursor(key));
            let Some(found) = Found::read(row).map_err(other_columns)? else {
                continue;
            };
            // A damaged record is counted and left out: the others are still there to see.
            let held = match self.damaged.note(&key, found.held(&self.keys, &key)) {
                Err(StoreError::Damaged { .. }) => continue,
                held => held?,
            };
            let shown = held.filter(|held| filter.matches(held, timestamp(found.now)));
            page.records.extend(shown.map(|held| (key, held)));
        }
        if rows.len() < LIST_SCAN {
            page.next = None;
        }
        Ok(page)
    }

    async fn stats(&self) -> Result<Stats, StoreError> {
        let rows = self.link.rows(Intent::Read, |all| &all.stats, &[]).await?;
        let row = rows.first().ok_or(refused("PostgreSQL answered nothing"))?;
        let count = |name| Ok(u64::try_from(column::<i64>(row, name)?).unwrap_or(0));
        Ok(Stats {
            records: count("records")?,
            bytes: count("bytes")?,
            outstanding: count("outstanding")?,
            unknown: count("unknown")?,
            oldest_unknown: column::<Option<i64>>(row, "oldest_unknown")?.map(timestamp),
            damaged: self.damaged.count(),
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
