//! The contract, over the writer.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread::{self, JoinHandle};

use bytes::Bytes;
use hapax_core::key::RecordKey;
use hapax_core::record::{ClaimId, Held, Record};
use hapax_core::secret::{HashKeys, Secret};
use hapax_core::store::{
    Cursor, Durability, Filter, Insert, Page, Stats, Store, StoreError, Swept, Write,
};
use hapax_core::time::{Clock, Timestamp};
use tokio::sync::{mpsc, oneshot};

use super::directory::Directory;
use super::engine::Engine;
use super::index::Index;
use super::memory::Table;
use super::open::{self, OpenError};
use super::options::{Health, Options};
use super::space::Space;
use super::value;
use super::writer::{Operation, Writer};

/// Operations that may wait for the writer; beyond it callers wait to be let in.
const QUEUE: usize = 4096;

/// Records and bytes that one call of [`Store::list`] reads before it returns a short page.
const LIST_SCAN_RECORDS: usize = 1024;
const LIST_SCAN_BYTES: usize = 4 << 20;

/// Expired records by which an idle store's tables are rewritten: fewer are not worth it.
const MIN_EXPIRED_TO_COMPACT: u64 = 20_000;

/// The width of a bar in the histogram of expiries.
const EXPIRY_BAR_MS: u64 = 60_000;

/// A store in a directory of a local disk. [`Durability::Durable`].
///
/// Dropping it waits for the writer to finish what is queued, and for a compaction under way.
pub struct EmbeddedStore {
    shared: Arc<Shared>,
    operations: mpsc::Sender<Operation>,
    writer: Option<JoinHandle<()>>,
    /// The flusher and the merger.
    background: Vec<JoinHandle<()>>,
    compaction: Mutex<Option<JoinHandle<()>>>,
    interrupted: usize,
}

/// What a look into the `settled` table tells without the writer.
enum Look {
    /// The record, which is durable, and when it was looked at.
    Settled(Box<Held>, Timestamp),
    /// Nothing, expired or not, as of this batch or a later one. It may have been put there
    /// since: the writer knows.
    Absent { batch: u64 },
    /// Only the writer can tell.
    Unsure,
}

/// What callers and the writer share.
pub(super) struct Shared {
    // The order is that in which they are dropped: the lock goes last.
    pub(super) engine: Arc<Engine>,
    pub(super) keys: Arc<HashKeys>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) index: RwLock<Index>,
    pub(super) options: Options,
    space: Space,
    failure: RwLock<Option<String>>,
    has_failed: AtomicBool,
    /// The last batch that everybody can see.
    pub(super) published: AtomicU64,
    /// Settled records since the last compaction, by when they expire.
    expiries: Mutex<BTreeMap<u64, u64>>,
    pub(super) directory: Directory,
}

impl EmbeddedStore {
    /// Opens the store in `path`, or makes a new one. Claims that a previous process held are
    /// unknown from here on (P16). Costs a pass over the log and over the records that
    /// are not settled; blocks.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(path: impl AsRef<Path>, options: Options) -> Result<Self, OpenError> {
        let path = path.as_ref();
        let recovered = open::recover(path, &options)?;
        let shared = Arc::new(Shared {
            space: Space::new(&options, recovered.directory.log()),
            engine: recovered.engine,
            keys: recovered.keys,
            clock: recovered.clock,
            index: RwLock::new(recovered.index),
            options,
            failure: RwLock::default(),
            has_failed: AtomicBool::new(false),
            published: AtomicU64::new(recovered.batch),
            expiries: Mutex::default(),
            directory: recovered.directory,
        });
        let (operations, queue) = mpsc::channel(QUEUE);
        let writer = Writer::new(Arc::clone(&shared), recovered.log, recovered.batch);
        let mut store = Self {
            shared,
            operations,
            writer: None,
            background: Vec::new(),
            compaction: Mutex::default(),
            interrupted: recovered.interrupted,
        };
        // From here on, dropping it ends the threads that are there.
        store
            .start(writer, queue)
            .map_err(|error| OpenError::io(path, error))?;
        Ok(store)
    }

    fn start(&mut self, writer: Writer, queue: mpsc::Receiver<Operation>) -> io::Result<()> {
        let thread = |name: &str| thread::Builder::new().name(name.to_owned());
        let shared = Arc::clone(&self.shared);
        self.background.push(thread("hapax-flusher").spawn(move || {
            let flushed = shared.engine.flush_until_stopped(&*shared.clock);
            if let Err(error) = flushed {
                // What is in memory stays in the log, and is not tried again: the same as a
                // failed sync. The writer must not wait for this thread.
                shared.fail(&error);
                shared.engine.stop();
            }
        })?);
        let shared = Arc::clone(&self.shared);
        self.background.push(thread("hapax-merger").spawn(move || {
            shared.engine.merge_until_stopped(|error| {
                shared.unreadable(error);
            });
        })?);
        self.writer = Some(thread("hapax-writer").spawn(move || writer.run(queue))?);
        Ok(())
    }

    /// How many claims of the previous process became unknown when the store was opened.
    pub fn interrupted(&self) -> usize {
        self.interrupted
    }

    /// Whether the store can write.
    pub fn health(&self) -> Health {
        let failure = self.shared.failure.read();
        match &*failure.unwrap_or_else(PoisonError::into_inner) {
            Some(reason) => Health::Failed {
                reason: reason.clone(),
            },
            None => Health::Healthy,
        }
    }

    /// Finishes what is queued and releases the directory. Blocks.
    pub fn close(self) {
        drop(self);
    }

    async fn ask<T>(
        &self,
        operation: impl FnOnce(oneshot::Sender<Result<T, StoreError>>) -> Operation,
    ) -> Result<T, StoreError> {
        // The operation is made when there is room for it, so that nothing holds it while it waits.
        let room = self.operations.reserve().await;
        let room = room.map_err(|_| refused("the store is closed"))?;
        let (reply, answer) = oneshot::channel();
        room.send(operation(reply));
        answer.await.map_err(|_| StoreError::Uncertain {
            reason: "the writer ended before it answered",
            source: None,
        })?
    }

    /// The settled record of `key`, where it can be known without the writer.
    ///
    /// What this returns is durable. A key is in the index from when its claim is synced until
    /// after the batch that settles it is synced; one that is written to `settled` without
    /// having been in the index is marked as in flight for as long. So when the key is not
    /// unsettled *after* the look-up, whatever the look-up saw was synced before: had it been
    /// part of a batch still under way, the key would be in the index or in flight until that
    /// batch is through. (The engine on its part shows a batch only after its sync.) The check
    /// before the look-up only saves the look-up. A miss proves nothing, and goes to the writer.
    fn settled_without_writer(&self, key: &RecordKey) -> Result<Look, StoreError> {
        {
            let index = self.shared.index();
            if let Some(what) = index.damage(key) {
                return Err(StoreError::Damaged { what });
            }
            if index.is_unsettled(key) {
                return Ok(Look::Unsure);
            }
        }
        // Before the look-up, which then sees at least this batch.
        let batch = self.shared.published.load(Ordering::Acquire);
        let Some(held) = self.shared.settled(key)? else {
            return Ok(Look::Absent { batch });
        };
        let now = self.shared.clock.now();
        let is_certain = !held.is_expired(now) && !self.shared.index().is_unsettled(key);
        Ok(if is_certain {
            Look::Settled(Box::new(held), now)
        } else {
            Look::Unsure
        })
    }

    /// Rewrites the tables in the background when most of what they hold has expired, as far
    /// as this process knows. An idle store would never do it by itself.
    fn compact_when_worthwhile(&self) {
        let now_bar = self.shared.clock.now().as_millis() / EXPIRY_BAR_MS;
        let mut expiries = lock(&self.shared.expiries);
        let expired: u64 = expiries.range(..now_bar).map(|(_, count)| count).sum();
        let held = self.shared.engine.settled_len() as u64;
        let mut compaction = lock(&self.compaction);
        let is_running = compaction
            .as_ref()
            .is_some_and(|thread| !thread.is_finished());
        if expired < MIN_EXPIRED_TO_COMPACT || expired < held / 2 || is_running {
            return;
        }
        let engine = Arc::clone(&self.shared.engine);
        // One that fails leaves everything as it was: room is all that is lost.
        let spawned = thread::Builder::new()
            .name("hapax-compaction".to_owned())
            .spawn(move || drop(engine.rewrite_settled()));
        if let Ok(thread) = spawned {
            *compaction = Some(thread);
            *expiries = expiries.split_off(&now_bar);
        }
    }
}

impl Shared {
    pub(super) fn check_writable(&self) -> Result<(), StoreError> {
        if self.has_failed.load(Ordering::Acquire) {
            return Err(refused("an earlier write or sync failed"));
        }
        Ok(())
    }

    /// From now on nothing is written.
    pub(super) fn fail(&self, error: &lsm_tree::Error) {
        let reason = match error {
            lsm_tree::Error::Io(error) => error.to_string(),
            error => error.to_string(),
        };
        self.options.observer.failed(&reason);
        let mut failure = self.failure.write().unwrap_or_else(PoisonError::into_inner);
        failure.get_or_insert(reason);
        self.has_failed.store(true, Ordering::Release);
    }

    /// What the `settled` table holds of `key`, expired or not.
    pub(super) fn settled(&self, key: &RecordKey) -> Result<Option<Held>, StoreError> {
        let value = self.engine.get(Table::Settled, key);
        let value = value.map_err(|error| self.unreadable(error))?;
        value.map(|value| self.decode(key, &value)).transpose()
    }

    /// The record of a key that the index has.
    pub(super) fn open_record(&self, key: &RecordKey) -> Result<Held, StoreError> {
        let value = self.engine.get(Table::Open, key);
        match value.map_err(|error| self.unreadable(error))? {
            Some(value) => self.decode(key, &value),
            None => Err(self.note_damage(key, "it is gone")),
        }
    }

    fn decode(&self, key: &RecordKey, value: &Bytes) -> Result<Held, StoreError> {
        value::decode(&self.keys, key, value).map_err(|error| match error {
            StoreError::Damaged { what } => self.note_damage(key, what),
            error => error,
        })
    }

    /// From now on the key is damaged, whatever is written.
    fn note_damage(&self, key: &RecordKey, what: &'static str) -> StoreError {
        if self.index_mut().note_damage(*key, what) {
            self.options.observer.damaged(what);
        }
        StoreError::Damaged { what }
    }

    /// The engine could not read a block: damage that cannot be pinned on one record, or a
    /// disk that does not answer. Nothing was written either way.
    fn unreadable(&self, error: lsm_tree::Error) -> StoreError {
        self.options.observer.damaged("a block of a table");
        StoreError::Refused {
            reason: "a table cannot be read",
            source: Some(Box::new(error)),
        }
    }

    pub(super) fn note_settled(&self, expiries: &[Timestamp]) {
        let mut bars = lock(&self.expiries);
        for expires_at in expiries {
            *bars
                .entry(expires_at.as_millis() / EXPIRY_BAR_MS)
                .or_default() += 1;
        }
    }
}

impl Store for EmbeddedStore {
    async fn insert(&self, key: &RecordKey, record: &Record) -> Result<Insert, StoreError> {
        let absent_at = match self.settled_without_writer(key)? {
            Look::Settled(held, now) => return Ok(Insert::Occupied { held, now }),
            Look::Absent { batch } => Some(batch),
            Look::Unsure => None,
        };
        self.shared.check_writable()?;
        let open_len = {
            let index = self.shared.index();
            // A key that is held is told so, full or not.
            (!index.is_unsettled(key)).then_some(index.len())
        };
        if let Some(open_len) = open_len
            && let Some(what) = self.shared.space.full(&self.shared.engine, open_len)
        {
            return Err(StoreError::Full { what });
        }
        self.ask(|reply| Operation::Insert(*key, record.clone(), absent_at, reply))
            .await
    }

    async fn replace(
        &self,
        key: &RecordKey,
        expected: ClaimId,
        record: &Record,
    ) -> Result<Write, StoreError> {
        self.ask(|reply| Operation::Replace(*key, expected, record.clone(), reply))
            .await
    }

    async fn remove(&self, key: &RecordKey, expected: ClaimId) -> Result<Write, StoreError> {
        self.ask(|reply| Operation::Remove(*key, expected, reply))
            .await
    }

    async fn read(&self, key: &RecordKey) -> Result<(Option<Held>, Timestamp), StoreError> {
        if let Look::Settled(held, now) = self.settled_without_writer(key)? {
            return Ok((Some(*held), now));
        }
        self.ask(|reply| Operation::Read(*key, reply)).await
    }

    async fn sweep(&self, limit: usize) -> Result<Swept, StoreError> {
        let removed = self.ask(|reply| Operation::Sweep(limit, reply)).await?;
        self.compact_when_worthwhile();
        let now = self.shared.clock.now();
        let more_due = !self
            .shared
            .index()
            .gauges
            .expired_unknown(now, 1)
            .is_empty();
        Ok(Swept { removed, more_due })
    }

    async fn list(
        &self,
        filter: &Filter,
        after: Option<Cursor>,
        limit: usize,
    ) -> Result<Page, StoreError> {
        self.shared.list(filter, after, limit.max(1))
    }

    async fn stats(&self) -> Result<Stats, StoreError> {
        let shared = &self.shared;
        let bytes = shared.space.bytes(&shared.engine);
        let index = shared.index();
        let now = shared.clock.now();
        let mut stats = Stats {
            records: shared.space.records(&shared.engine, index.len()),
            bytes,
            damaged: index.damaged_len() as u64,
            now,
            ..Stats::default()
        };
        index.gauges.fill(now, &mut stats);
        Ok(stats)
    }

    fn secret(&self) -> &Secret {
        &self.shared.directory.secret
    }

    fn durability(&self) -> Durability {
        Durability::Durable
    }
}

impl Shared {
    fn list(
        &self,
        filter: &Filter,
        after: Option<Cursor>,
        limit: usize,
    ) -> Result<Page, StoreError> {
        let now = self.clock.now();
        let after = after.map(|Cursor(key)| key);
        let read = |table| {
            let page = self
                .engine
                .page(table, after, LIST_SCAN_RECORDS, LIST_SCAN_BYTES);
            page.map_err(|error| self.unreadable(error))
        };
        let (open, settled) = (read(Table::Open)?, read(Table::Settled)?);
        let until = open.until.into_iter().chain(settled.until).min();
        // Not one instant for both tables: a record that moved in between is in both, or was
        // claimed anew, and the later word counts.
        let mut found: BTreeMap<RecordKey, Held> = BTreeMap::new();
        for (key, value) in open.records.into_iter().chain(settled.records) {
            // A damaged record is counted and left out: the others are still there to see.
            if until.is_none_or(|until| key <= until)
                && let Ok(held) = self.decode(&key, &value)
                && found
                    .get(&key)
                    .is_none_or(|other| other.written_at <= held.written_at)
            {
                found.insert(key, held);
            }
        }
        let mut page = Page::default();
        for (key, held) in found {
            if page.records.len() >= limit {
                return Ok(page);
            }
            page.next = Some(Cursor(key));
            if filter.matches(&held, now) {
                page.records.push((key, held));
            }
        }
        page.next = until.map(Cursor);
        Ok(page)
    }
}

impl Drop for EmbeddedStore {
    fn drop(&mut self) {
        // Not awaited: with a full queue the writer ends when the last sender is gone.
        drop(self.operations.try_send(Operation::Stop));
        let (closed, _) = mpsc::channel(1);
        drop(std::mem::replace(&mut self.operations, closed));
        // A thread that panicked has nothing more to finish.
        if let Some(writer) = self.writer.take() {
            drop(writer.join());
        }
        self.shared.engine.stop();
        for thread in self.background.drain(..) {
            drop(thread.join());
        }
        if let Some(compaction) = lock(&self.compaction).take() {
            drop(compaction.join());
        }
    }
}

impl fmt::Debug for EmbeddedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbeddedStore")
            .field("options", &self.shared.options)
            .finish_non_exhaustive()
    }
}

fn refused(reason: &'static str) -> StoreError {
    StoreError::Refused {
        reason,
        source: None,
    }
}

/// Nothing behind these locks is left half-changed by a panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
