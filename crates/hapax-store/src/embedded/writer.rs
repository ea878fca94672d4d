//! The one thread that writes.
//!
//! It takes what has queued up, judges each operation against the tables and what the
//! operations before it in the same batch have staged, writes all of it to the log as one frame,
//! syncs, and only then answers. While it syncs, the next batch queues up.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use bytes::Bytes;
use hapax_core::key::RecordKey;
use hapax_core::record::{ClaimId, Held, Record};
use hapax_core::store::{Insert, StoreError, Write};
use hapax_core::time::Timestamp;
use tokio::sync::{mpsc, oneshot};

use super::frame::FrameBuilder;
use super::index::OpenRecord;
use super::log::Log;
use super::memory::{Change, Table};
use super::recent::Recent;
use super::store::Shared;
use super::value;
use crate::clock::Stopwatch;

/// Operations in one batch: what 2 ms of 256 callers can bring, and little enough that the
/// last of them is not kept waiting.
const BATCH_OPERATIONS: usize = 512;

/// How often other threads may run before a batch is closed that is smaller than the last.
const YIELDS: u32 = 8;

/// Bytes in one batch, the last operation not counted: twice what 512 ordinary records take. A batch is in
/// memory twice while it is written.
const BATCH_BYTES: usize = 512 << 10;

type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

/// One operation, with where its answer goes.
pub(super) enum Operation {
    /// With the batch after which the caller saw nothing of the key in the `settled` table.
    Insert(RecordKey, Record, Option<u64>, Reply<Insert>),
    Replace(RecordKey, ClaimId, Record, Reply<Write>),
    Remove(RecordKey, ClaimId, Reply<Write>),
    Read(RecordKey, Reply<(Option<Held>, Timestamp)>),
    /// Removes up to so many unknown records whose retention is over.
    Sweep(usize, Reply<usize>),
    Stop,
}

/// An answer that waits for the sync, with what is said when the sync fails.
enum Answer {
    Insert(Reply<Insert>, Insert),
    Write(Reply<Write>, Write),
    Read(
        Reply<(Option<Held>, Timestamp)>,
        Box<(Option<Held>, Timestamp)>,
    ),
    Sweep(Reply<usize>, usize),
}

/// What a key holds after the operations of this batch so far.
struct Staged {
    /// The record and its bytes; `None` for vacant.
    value: Option<(Held, Bytes)>,
    /// Whether the key is in the `open` table, before this batch.
    was_open: bool,
    /// Whether the key may be in the `settled` table, before this batch.
    was_settled: bool,
}

/// What a key holds.
enum Found {
    /// Nothing that lives; whether an expired record is still in the `settled` table.
    Vacant { is_in_settled: bool },
    /// A record of the `open` table, known without reading it.
    Open(OpenRecord),
    /// A record that has been read.
    Read(Box<Held>),
}

impl Found {
    fn claim(&self) -> Option<(ClaimId, Timestamp)> {
        match self {
            Self::Vacant { .. } => None,
            Self::Open(record) => Some((record.claim, record.claimed_at)),
            Self::Read(held) => Some((held.record.claim, held.claimed_at)),
        }
    }
}

pub(super) struct Writer {
    shared: Arc<Shared>,
    log: Log,
    frame: FrameBuilder,
    /// What the batch changes in the tables.
    changes: Vec<Change>,
    staged: HashMap<RecordKey, Staged>,
    answers: Vec<Answer>,
    bytes: usize,
    /// The number of the last batch.
    batch: u64,
    recent: Recent,
    /// Operations in the last batch.
    last_operations: usize,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, log: Log, batch: u64) -> Self {
        Self {
            shared,
            log,
            frame: FrameBuilder::default(),
            changes: Vec::new(),
            staged: HashMap::new(),
            answers: Vec::new(),
            bytes: 0,
            batch,
            recent: Recent::new(batch),
            last_operations: 0,
        }
    }

    /// Serves `operations` until told to stop or nobody is left to ask.
    pub(super) fn run(mut self, mut operations: mpsc::Receiver<Operation>) {
        let mut is_stopping = false;
        while !is_stopping && let Some(first) = operations.blocking_recv() {
            // On a busy machine, callers that were just answered come first: the batch is fuller
            // for it. On an idle one this costs nothing.
            for _ in 0..YIELDS {
                std::thread::yield_now();
                if operations.len() + 1 >= self.last_operations {
                    break;
                }
            }
            let mut next = Some(first);
            while let Some(operation) = next {
                is_stopping = matches!(operation, Operation::Stop);
                self.judge(operation);
                let has_room = self.answers.len() < BATCH_OPERATIONS && self.bytes < BATCH_BYTES;
                next = if has_room && !is_stopping {
                    operations.try_recv().ok()
                } else {
                    None
                };
            }
            self.last_operations = self.answers.len();
            self.commit();
        }
    }

    fn judge(&mut self, operation: Operation) {
        match operation {
            Operation::Insert(key, record, absent_at, reply) => {
                let insert = self.insert(key, record, absent_at);
                self.answer(reply, insert, Answer::Insert);
            }
            Operation::Replace(key, expected, record, reply) => {
                let write = self.write(key, expected, Some(record));
                self.answer(reply, write, Answer::Write);
            }
            Operation::Remove(key, expected, reply) => {
                let write = self.write(key, expected, None);
                self.answer(reply, write, Answer::Write);
            }
            Operation::Read(key, reply) => {
                let read = self.read(key);
                self.answer(reply, read, |reply, read| {
                    Answer::Read(reply, Box::new(read))
                });
            }
            Operation::Sweep(limit, reply) => {
                let removed = self.sweep(limit);
                self.answer(reply, removed, Answer::Sweep);
            }
            Operation::Stop => {}
        }
    }

    /// Errors say that nothing was staged, so they need not wait for the sync.
    fn answer<T>(
        &mut self,
        reply: Reply<T>,
        result: Result<T, StoreError>,
        wait: impl FnOnce(Reply<T>, T) -> Answer,
    ) {
        match result {
            Ok(result) => self.answers.push(wait(reply, result)),
            // Whoever asked may have gone away; then nobody needs the answer.
            Err(error) => drop(reply.send(Err(error))),
        }
    }

    fn insert(
        &mut self,
        key: RecordKey,
        record: Record,
        absent_at: Option<u64>,
    ) -> Result<Insert, StoreError> {
        self.shared.check_writable()?;
        let now = self.shared.clock.now();
        match self.find(&key, now, absent_at)? {
            Found::Vacant { is_in_settled } => {
                let held = Held {
                    record,
                    claimed_at: now,
                    written_at: now,
                };
                self.stage(key, Some(held), is_in_settled)?;
                Ok(Insert::Claimed { now })
            }
            found => {
                let held = Box::new(self.shared.load(&key, found)?);
                Ok(Insert::Occupied { held, now })
            }
        }
    }

    fn write(
        &mut self,
        key: RecordKey,
        expected: ClaimId,
        record: Option<Record>,
    ) -> Result<Write, StoreError> {
        self.shared.check_writable()?;
        let now = self.shared.clock.now();
        let found = self.find(&key, now, None)?;
        let is_in_settled = matches!(found, Found::Read(_));
        let Some((_, claimed_at)) = found.claim().filter(|(claim, _)| *claim == expected) else {
            return Ok(Write::Stale);
        };
        let held = record.map(|record| Held {
            claimed_at: if record.claim == expected {
                claimed_at
            } else {
                now
            },
            written_at: now,
            record,
        });
        self.stage(key, held, is_in_settled)?;
        Ok(Write::Applied { now })
    }

    fn read(&mut self, key: RecordKey) -> Result<(Option<Held>, Timestamp), StoreError> {
        // After a failed batch nobody knows what the disk holds of it.
        self.shared.check_writable()?;
        let now = self.shared.clock.now();
        let held = match self.find(&key, now, None)? {
            Found::Vacant { .. } => None,
            found => Some(self.shared.load(&key, found)?),
        };
        Ok((held, now))
    }

    fn sweep(&mut self, limit: usize) -> Result<usize, StoreError> {
        self.shared.check_writable()?;
        let now = self.shared.clock.now();
        let due = self.shared.index().gauges.expired_unknown(now, limit);
        let mut removed = 0;
        for key in due {
            // Staged: an operation of this batch has just claimed it anew or removed it.
            if !self.staged.contains_key(&key) {
                self.stage(key, None, false)?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    /// What lives under `key` at `now`, after what this batch has staged. `absent_at` as in
    /// [`Operation::Insert`].
    fn find(
        &self,
        key: &RecordKey,
        now: Timestamp,
        absent_at: Option<u64>,
    ) -> Result<Found, StoreError> {
        if let Some(staged) = self.staged.get(key) {
            let held = staged.value.as_ref().map(|(held, _)| held);
            let live = held.filter(|held| !held.is_expired(now));
            // What the table holds was noted when the key was staged.
            let vacant = Found::Vacant {
                is_in_settled: staged.was_settled,
            };
            return Ok(live.map_or(vacant, |held| Found::Read(Box::new(held.clone()))));
        }
        {
            let index = self.shared.index();
            if let Some(what) = index.damage(key) {
                return Err(StoreError::Damaged { what });
            }
            if let Some(record) = index.get(key) {
                let is_live = now < record.seen.expires_at;
                return Ok(if is_live {
                    Found::Open(*record)
                } else {
                    Found::Vacant {
                        is_in_settled: false,
                    }
                });
            }
        }
        // Only batches of this thread put anything into the table.
        if absent_at.is_some_and(|batch| self.recent.is_untouched_since(batch, key)) {
            return Ok(Found::Vacant {
                is_in_settled: false,
            });
        }
        let settled = self.shared.settled(key)?;
        let vacant = Found::Vacant {
            is_in_settled: settled.is_some(),
        };
        let live = settled.filter(|held| !held.is_expired(now));
        Ok(live.map_or(vacant, |held| Found::Read(Box::new(held))))
    }

    /// Adds a write to the batch. `is_in_settled` is what [`Self::find`] saw of a key that is
    /// neither staged yet nor in the index.
    fn stage(
        &mut self,
        key: RecordKey,
        held: Option<Held>,
        is_in_settled: bool,
    ) -> Result<(), StoreError> {
        let value = match held {
            Some(held) => {
                let bytes = value::encode(&self.shared.keys, &key, &held)?;
                self.bytes += bytes.len();
                Some((held, bytes))
            }
            None => None,
        };
        match self.staged.entry(key) {
            Entry::Occupied(mut staged) => staged.get_mut().value = value,
            Entry::Vacant(vacant) => {
                let was_open = self.shared.index().get(&key).is_some();
                // An expired record that was not dropped yet: it goes with this batch, so that
                // it cannot come back when the new one is released.
                let was_settled = !was_open && is_in_settled;
                vacant.insert(Staged {
                    value,
                    was_open,
                    was_settled,
                });
            }
        }
        Ok(())
    }

    /// Writes and syncs what is staged, and answers.
    fn commit(&mut self) {
        if self.staged.is_empty() {
            // What was seen is what earlier batches have synced.
            self.answers.drain(..).for_each(Answer::send);
            return;
        }
        let watch = Stopwatch::start();
        match self.write_batch() {
            Ok(()) => {
                let observer = &self.shared.options.observer;
                observer.synced(watch.elapsed(), self.answers.len());
                self.publish();
                self.answers.drain(..).for_each(Answer::send);
            }
            Err(error) => {
                // Not tried again: after a failed sync the system may have dropped the pages
                // and report success for the next one.
                self.shared.fail(&error);
                let error = Arc::new(error);
                for answer in self.answers.drain(..) {
                    answer.fail(&error);
                }
            }
        }
        self.staged.clear();
        self.bytes = 0;
    }

    fn write_batch(&mut self) -> lsm_tree::Result<()> {
        let number = self.batch + 1;
        self.recent.begin(number);
        self.changes.clear();
        {
            let mut index = self.shared.index_mut();
            for (key, staged) in &self.staged {
                let value = staged.value.as_ref();
                let is_open = value.is_some_and(|(held, _)| OpenRecord::of(held).is_some());
                let is_settled = value.is_some() && !is_open;
                if is_settled {
                    self.recent.note(*key);
                    if !staged.was_open {
                        index.enter_flight(*key);
                    }
                }
                let bytes = value.map(|(_, bytes)| bytes);
                let tables = [
                    (Table::Open, is_open, staged.was_open),
                    (Table::Settled, is_settled, staged.was_settled),
                ];
                for (table, is_in, was_in) in tables {
                    if is_in || was_in {
                        self.changes.push(Change {
                            key: *key,
                            table,
                            value: bytes.filter(|_| is_in).cloned(),
                            is_alone: !was_in,
                        });
                    }
                }
            }
        }
        let now = self.shared.clock.now();
        self.frame.fill(number, now.as_millis(), &self.changes);
        self.shared.injected_sync_fault()?;
        self.log.append(&mut self.frame)?;
        if self.shared.is_syncing() {
            self.log.sync()?;
        }
        self.batch = number;
        let changes = self.changes.drain(..);
        let published = self
            .shared
            .engine
            .publish(&mut self.log, number, now, changes);
        self.shared.published.store(number, Ordering::Release);
        published?;
        // A witness that cannot be written means a disk that cannot: the same as a failed sync.
        self.shared.directory.witness.write(number)?;
        Ok(())
    }

    /// Makes what was synced known to those who look without asking the writer. Only now: an
    /// entry that left the index before the sync would let them see a record that a power cut
    /// can still take back.
    fn publish(&mut self) {
        let mut settled = Vec::new();
        {
            let mut index = self.shared.index_mut();
            for (key, staged) in &self.staged {
                let held = staged.value.as_ref().map(|(held, _)| held);
                match held.and_then(OpenRecord::of) {
                    Some(record) => index.put(*key, record),
                    None => index.take(key),
                }
                index.leave_flight(key);
                settled.extend(held.and_then(Held::expires_at));
            }
        }
        self.shared.note_settled(&settled);
    }
}

impl Answer {
    fn send(self) {
        // Whoever asked may have gone away; then nobody needs the answer.
        match self {
            Self::Insert(reply, insert) => drop(reply.send(Ok(insert))),
            Self::Write(reply, write) => drop(reply.send(Ok(write))),
            Self::Read(reply, read) => drop(reply.send(Ok(*read))),
            Self::Sweep(reply, removed) => drop(reply.send(Ok(removed))),
        }
    }

    /// The batch may be on the disk or not. What would have written is uncertain; what only
    /// looked may have looked at it.
    fn fail(self, error: &Arc<lsm_tree::Error>) {
        let source = || Some(Box::new(Arc::clone(error)) as _);
        let uncertain = || StoreError::Uncertain {
            reason: "writing or syncing failed",
            source: source(),
        };
        let refused = || StoreError::Refused {
            reason: "writing or syncing failed",
            source: source(),
        };
        match self {
            Self::Insert(reply, Insert::Claimed { .. }) => drop(reply.send(Err(uncertain()))),
            Self::Insert(reply, Insert::Occupied { .. }) => drop(reply.send(Err(refused()))),
            Self::Write(reply, Write::Applied { .. }) => drop(reply.send(Err(uncertain()))),
            Self::Write(reply, Write::Stale) => drop(reply.send(Err(refused()))),
            Self::Read(reply, _) => drop(reply.send(Err(refused()))),
            Self::Sweep(reply, _) => drop(reply.send(Err(refused()))),
        }
    }
}

impl Shared {
    /// The whole record of what was found under `key`.
    fn load(&self, key: &RecordKey, found: Found) -> Result<Held, StoreError> {
        match found {
            Found::Read(held) => Ok(*held),
            Found::Open(_) | Found::Vacant { .. } => self.open_record(key),
        }
    }

    /// Whether a batch is synced before it is acknowledged. It is.
    #[cfg_attr(
        not(feature = "fault-injection"),
        expect(clippy::unused_self, reason = "a fault may say otherwise")
    )]
    fn is_syncing(&self) -> bool {
        #[cfg(feature = "fault-injection")]
        if self
            .options
            .faults
            .dangerously_without_sync
            .load(Ordering::Acquire)
        {
            return false;
        }
        true
    }

    #[cfg_attr(
        not(feature = "fault-injection"),
        expect(clippy::unused_self, reason = "there are no faults to look for")
    )]
    fn injected_sync_fault(&self) -> io::Result<()> {
        #[cfg(feature = "fault-injection")]
        if self
            .options
            .faults
            .fail_next_sync
            .swap(false, Ordering::AcqRel)
        {
            return Err(io::Error::other("an injected fault of the sync"));
        }
        Ok(())
    }

    pub(super) fn index(&self) -> std::sync::RwLockReadGuard<'_, super::index::Index> {
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn index_mut(&self) -> std::sync::RwLockWriteGuard<'_, super::index::Index> {
        self.index.write().unwrap_or_else(PoisonError::into_inner)
    }
}
