//! The contract, over scripts.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use hapax_core::key::RecordKey;
use hapax_core::record::{ClaimId, Held, Record};
use hapax_core::secret::{HashKeys, Secret};
use hapax_core::store::{
    Cursor, Durability, Filter, Insert, Page, Stats, Store, StoreError, Swept, Write,
};
use hapax_core::time::Timestamp;

use super::cluster::{Asked, Cluster};
use super::error::{Failure, Intent, RedisStoreError, refused};
use super::layout::{HOME, Partition, STORE};
use super::options::RedisOptions;
use super::scripts::{DAMAGED, DONE, HELD, Program, UNFINISHED};
use super::server::RedisReport;
use super::together::{Became, Change, Together};
use super::value::{self, Answer, strange};
use crate::limits::{Fullness, random_secret};
use crate::shared;

/// The version of the layout and of the records' heads.
pub(super) const VERSION: &str = "1";

/// A store in Redis. [`Durability::Durable`] with an append-only file that is synced at every
/// write, on the server that has it: a failover to a replica loses what that has not received.
/// Servers that throw records away to make room are refused.
pub struct RedisStore {
    pub(super) cluster: Arc<Cluster>,
    claims: Arc<Together>,
    completions: Arc<Together>,
    pub(super) keys: HashKeys,
    secret: Secret,
    /// What every partition is marked with: where it is missing, records are missing too.
    mark: String,
    report: RedisReport,
    full: Fullness,
    damaged: AtomicU64,
}

impl RedisStore {
    /// Opens the store at `url`; the first to do so makes its secret and its marks.
    ///
    /// # Errors
    /// See [`RedisStoreError`].
    pub async fn open(url: &str, options: RedisOptions) -> Result<Self, RedisStoreError> {
        let (cluster, mut report) = Cluster::open(url, options).await?;
        let own = Own::make(&cluster).await?;
        let marked = own.mark_partitions(&cluster).await?;
        if marked > 0 && !own.is_new {
            report.warnings.push(format!(
                "{marked} of 256 partitions had not the store's mark: unless the store was made \
                 this very moment, their records are lost"
            ));
        }
        cluster.hold_to(&report);
        let cluster = Arc::new(cluster);
        let mark = own.mark.as_bytes();
        Ok(Self {
            claims: Together::new(&cluster, |all| &all.insert, mark),
            completions: Together::new(&cluster, |all| &all.replace, &[]),
            cluster,
            keys: HashKeys::derive(&own.secret),
            secret: own.secret,
            mark: own.mark,
            report,
            full: Fullness::default(),
            damaged: AtomicU64::new(0),
        })
    }

    /// Looks at the servers behind `url` as [`RedisStore::open`] does, and writes nothing.
    ///
    /// # Errors
    /// See [`RedisStoreError`].
    pub async fn inspect(url: &str, options: RedisOptions) -> Result<RedisReport, RedisStoreError> {
        Ok(Cluster::open(url, options).await?.1)
    }

    /// How many connections gateways have to the servers, as far as they go by their usual name;
    /// `None` where a server does not say who is connected.
    pub async fn connected_gateways(&self) -> Option<i64> {
        self.cluster.connected_gateways().await
    }

    /// What was found when the store was opened.
    pub fn report(&self) -> &RedisReport {
        &self.report
    }

    /// How many damaged records this process has come upon.
    pub(super) fn damaged(&self) -> u64 {
        self.damaged.load(Ordering::Relaxed)
    }

    /// Notes damage, so that it is counted.
    pub(super) fn noted(&self, error: StoreError) -> StoreError {
        if matches!(error, StoreError::Damaged { .. }) {
            self.damaged.fetch_add(1, Ordering::Relaxed);
        }
        error
    }

    /// Calls a script about the record of `key`.
    async fn call(
        &self,
        intent: Intent,
        program: &Program,
        key: &RecordKey,
        arguments: &[&[u8]],
    ) -> Result<Answer, StoreError> {
        let partition = Partition::of(key);
        let ask = self.cluster.ask(
            program,
            &Asked {
                partition,
                keys: &[
                    &partition.record(key.as_bytes()),
                    partition.mark().as_bytes(),
                    partition.index().as_bytes(),
                    partition.unknown().as_bytes(),
                ],
                arguments,
            },
        );
        let answer = self.cluster.run(intent, &ask).await;
        let answer = answer.map_err(|failure| self.noted(failure.into_store_error(intent)))?;
        match answer.outcome {
            DAMAGED => Err(self.damage()),
            _ => Ok(answer),
        }
    }

    /// Has a record written, together with others.
    async fn change(&self, together: &Arc<Together>, change: Change) -> Result<Became, StoreError> {
        let became = together.ask(change).await;
        match became.map_err(|failure| self.noted(failure.into_store_error(Intent::Write)))? {
            Became::Damaged => Err(self.damage()),
            Became::Lost => Err(refused(
                "the Redis server has lost what hapax wrote there: nothing is claimed before \
                 hapax is restarted",
            )),
            Became::Full => Err(StoreError::Full {
                what: "the memory of Redis is used up",
            }),
            became => Ok(became),
        }
    }

    fn damage(&self) -> StoreError {
        self.noted(StoreError::Damaged {
            what: "its head does not match its check",
        })
    }

    /// The record in these bytes, when all that was written is where it has to be.
    async fn shown(&self, key: &RecordKey, bytes: Vec<u8>) -> Result<Held, StoreError> {
        let settled = self
            .cluster
            .settle_doubts(Partition::of(key), &self.mark)
            .await;
        settled.map_err(|failure| StoreError::Refused {
            reason: "the replicas have not confirmed earlier writes",
            source: Some(Box::new(failure.into_store_error(Intent::Read))),
        })?;
        value::held(&self.keys, key, &Bytes::from(bytes)).map_err(|error| self.noted(error))
    }

    /// Notes how much there is, for the claims until the next look.
    pub(super) async fn note_fullness(&self, records: u64) -> Result<(), StoreError> {
        let limits = self.cluster.options().limits;
        let bytes = match limits.max_bytes {
            0 => Ok(0),
            _ => self.cluster.used_memory().await,
        };
        let bytes = bytes.map_err(|failure| failure.into_store_error(Intent::Read))?;
        self.full.note(limits.reached(records, bytes));
        Ok(())
    }
}

/// What the store says of itself.
struct Own {
    secret: Secret,
    mark: String,
    is_new: bool,
}

impl Own {
    /// Makes it where there is none; of several that start at once, one does.
    async fn make(cluster: &Cluster) -> Result<Self, RedisStoreError> {
        let fresh = random_secret()?;
        let mark = fresh_mark()?;
        let ask = cluster.ask(
            &cluster.scripts().make,
            &Asked {
                partition: HOME,
                keys: &[STORE.as_bytes()],
                arguments: &[VERSION.as_bytes(), fresh.as_bytes(), mark.as_bytes()],
            },
        );
        // No replica is waited for: a server without this entry is noticed, whatever it is.
        let answer = cluster.run(Intent::Read, &ask).await.map_err(of_opening)?;
        let part = |index| answer.bytes(index).map_err(|_| RedisStoreError::Damaged);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if part(0)? != VERSION.as_bytes() {
            return Err(match part(0)? {
                [] => RedisStoreError::Damaged,
                version if version == UNFINISHED.as_bytes() => RedisStoreError::Unfinished,
                version => RedisStoreError::Newer(text(version)),
            });
        }
        let secret = part(1)?.try_into().map_err(|_| RedisStoreError::Damaged)?;
        Ok(Self {
            secret: Secret::from_bytes(secret),
            mark: text(part(2)?),
            is_new: answer.outcome == DONE,
        })
    }

    /// Marks the partitions that have no mark; how many.
    async fn mark_partitions(&self, cluster: &Cluster) -> Result<usize, RedisStoreError> {
        let asks: Vec<_> = Partition::all()
            .map(|partition| {
                let mark = partition.mark();
                let asked = Asked {
                    partition,
                    keys: &[mark.as_bytes()],
                    arguments: &[self.mark.as_bytes()],
                };
                cluster.ask(&cluster.scripts().mark, &asked)
            })
            .collect();
        let mut marked = 0;
        for answer in cluster
            .run_all(Intent::Write, &asks)
            .await
            .map_err(of_opening)?
        {
            if answer.outcome == DONE {
                marked += 1;
            } else if answer.bytes(0).map_err(|_| RedisStoreError::Damaged)? != self.mark.as_bytes()
            {
                return Err(RedisStoreError::Mixed);
            }
        }
        Ok(marked)
    }
}

/// Sixteen random bytes as text.
pub(super) fn fresh_mark() -> Result<String, RedisStoreError> {
    let random = random_secret()?;
    Ok(RecordKey::from_bytes(first_half(random.as_bytes())).to_string())
}

fn first_half(bytes: &[u8; 32]) -> [u8; 16] {
    let mut half = [0; 16];
    half.iter_mut()
        .zip(bytes)
        .for_each(|(to, from)| *to = *from);
    half
}

pub(super) fn of_opening(failure: Failure) -> RedisStoreError {
    match failure {
        Failure::Unconnected(error) => error,
        Failure::Lost(error) | Failure::Server(error) => RedisStoreError::Unusable(error),
        Failure::Strange | Failure::TooFewReplicas => RedisStoreError::Silent,
    }
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore")
            .field("options", self.cluster.options())
            .field("report", &self.report)
            .finish_non_exhaustive()
    }
}

/// What the scripts put into a record's head, and its lifetime: 0 for ever, else one more.
fn terms(record: &Record) -> [u8; 26] {
    let lifetime = shared::lifetime_ms(record).map_or(0, |ms| ms.saturating_add(1));
    let state = u8::try_from(shared::state(record)).unwrap_or(u8::MAX);
    let parts = [1, state].into_iter().chain(*record.claim.as_bytes());
    let mut terms = [0; 26];
    terms
        .iter_mut()
        .zip(parts.chain(lifetime.to_be_bytes()))
        .for_each(|(to, from)| *to = from);
    terms
}

/// What a write did.
fn written(answer: &Answer) -> Result<Write, StoreError> {
    match answer.outcome {
        DONE => Ok(Write::Applied { now: answer.now }),
        HELD => Ok(Write::Stale),
        _ => Err(written_strangely()),
    }
}

fn written_strangely() -> StoreError {
    StoreError::Uncertain {
        reason: "Redis answered a write with something else",
        source: None,
    }
}

impl Store for RedisStore {
    async fn insert(&self, key: &RecordKey, record: &Record) -> Result<Insert, StoreError> {
        if let Some(what) = self.full.reached() {
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
        let claim = Change::new(key, terms(record).to_vec(), value);
        match self.change(&self.claims, claim).await? {
            Became::Done(now) => Ok(Insert::Claimed { now }),
            Became::Held(now, bytes) => Ok(Insert::Occupied {
                held: Box::new(self.shown(key, bytes).await?),
                now,
            }),
            _ => Err(strange()),
        }
    }

    async fn replace(
        &self,
        key: &RecordKey,
        expected: ClaimId,
        record: &Record,
    ) -> Result<Write, StoreError> {
        let value = shared::encode(&self.keys, key, record)?;
        let terms = [expected.as_bytes().as_slice(), &terms(record)].concat();
        let completion = Change::new(key, terms, value);
        match self.change(&self.completions, completion).await? {
            Became::Done(now) => Ok(Write::Applied { now }),
            Became::Stale => Ok(Write::Stale),
            _ => Err(written_strangely()),
        }
    }

    async fn remove(&self, key: &RecordKey, expected: ClaimId) -> Result<Write, StoreError> {
        let remove = &self.cluster.scripts().remove;
        let arguments: &[&[u8]] = &[expected.as_bytes()];
        written(&self.call(Intent::Write, remove, key, arguments).await?)
    }

    async fn read(&self, key: &RecordKey) -> Result<(Option<Held>, Timestamp), StoreError> {
        let read = &self.cluster.scripts().read;
        let answer = self.call(Intent::Read, read, key, &[]).await?;
        let now = answer.now;
        match answer.outcome {
            HELD => {
                let bytes = answer.bytes(0)?.to_vec();
                Ok((Some(self.shown(key, bytes).await?), now))
            }
            DONE => Ok((None, now)),
            _ => Err(strange()),
        }
    }

    async fn sweep(&self, limit: usize) -> Result<Swept, StoreError> {
        self.sweep_all(limit).await
    }

    async fn list(
        &self,
        filter: &Filter,
        after: Option<Cursor>,
        limit: usize,
    ) -> Result<Page, StoreError> {
        self.page(filter, after, limit.max(1)).await
    }

    async fn stats(&self) -> Result<Stats, StoreError> {
        self.figures().await
    }

    fn secret(&self) -> &Secret {
        &self.secret
    }

    fn durability(&self) -> Durability {
        self.report.durability
    }
}
