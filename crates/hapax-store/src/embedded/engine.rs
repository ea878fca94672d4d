//! The engine: a log for what was just acknowledged, memory to find it in, and tables for the
//! rest.
//!
//! A batch goes to the log, is synced, and comes into memory. When memory is full it is sealed,
//! the flusher writes it out to the tables, and the log's segments that it came from go. A
//! look-up asks memory first and the tables then: what leaves memory is in the tables before.

use std::collections::VecDeque;
use std::io;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use hapax_core::key::RecordKey;
use hapax_core::secret::HashKeys;
use hapax_core::time::{Clock, Timestamp};

use super::frame::LogKey;
use super::log::{Log, Segments};
use super::memory::{Change, Memory, Table};
use super::options::Options;
use super::replay::{self, LogError, Replayed};
use super::tables::{FilterClock, Flushed, Tables};

/// Memory is sealed when the log has so many segments, full or not: a start reads all of them.
const MAX_SEGMENTS: usize = 16;

/// How many times its size memory may grow to while the sealed part is still being written out.
const MAX_MEMORY: u64 = 4;

/// Overlapping files beyond which nothing more is written out before they are merged.
const MAX_OVERLAPPING: usize = 24;

/// The engine of one store. The writer appends; anybody reads.
pub(super) struct Engine {
    tables: Tables,
    memory: Memory,
    segments: Arc<Segments>,
    memory_bytes: u64,
    work: Mutex<Work>,
    /// Told whenever `work` changes, and when a layer is sealed or released.
    changed: Condvar,
}

/// What the threads in the background do, beside writing out the layer that is sealed.
#[derive(Debug, Default)]
struct Work {
    is_stopping: bool,
    /// Files wait to be looked through for what to merge.
    to_merge: bool,
    is_merging: bool,
}

/// Where an engine that is opened comes from.
pub(super) struct Opening {
    tables: Tables,
    flushed: Flushed,
    memory: Memory,
    replayed: Replayed,
    folder: PathBuf,
    key: LogKey,
}

/// Why an engine could not be opened.
#[derive(Debug, thiserror::Error)]
pub(super) enum EngineError {
    #[error("the tables cannot be opened")]
    Tables(#[from] lsm_tree::Error),
    #[error(transparent)]
    Log(#[from] LogError),
    #[error("a table does not say how far it goes")]
    Note,
}

impl Opening {
    /// Reads the tables' notes and the log. Changes nothing but to sync what it has read.
    pub(super) fn read(
        data: &Path,
        log: &Path,
        options: &Options,
        keys: &Arc<HashKeys>,
        key: LogKey,
        clock: &FilterClock,
    ) -> Result<Self, EngineError> {
        let tables = Tables::open(data, options.cache_bytes, keys, clock)?;
        let flushed = tables.flushed()?.ok_or(EngineError::Note)?;
        let memory = Memory::default();
        let replayed = replay::replay(log, &key, flushed.batch, flushed.now_ms, &memory)?;
        Ok(Self {
            tables,
            flushed,
            memory,
            replayed,
            folder: log.to_owned(),
            key,
        })
    }

    /// The last batch that is there.
    pub(super) fn batch(&self) -> u64 {
        self.replayed.batch
    }

    /// The store's clock at the last batch.
    pub(super) fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.replayed.now_ms.max(self.flushed.now_ms))
    }

    /// Takes what was read for the whole of it. With the log to append to.
    pub(super) fn finish(mut self, options: &Options) -> Result<(Engine, Log), EngineError> {
        self.replayed.remove_unused(&self.folder)?;
        let numbers: VecDeque<u64> = self.replayed.segments;
        let failed = |error| LogError::Io(self.folder.clone(), error);
        let segments = Segments::new(
            self.folder.clone(),
            self.key,
            numbers,
            options.memtable_bytes,
        );
        let segments = Arc::new(segments.map_err(failed)?);
        let log = Log::new(Arc::clone(&segments)).map_err(failed)?;
        let engine = Engine {
            tables: self.tables,
            memory: self.memory,
            segments,
            memory_bytes: options.memtable_bytes,
            work: Mutex::default(),
            changed: Condvar::new(),
        };
        Ok((engine, log))
    }
}

impl Engine {
    /// What a table holds of a key.
    pub(super) fn get(&self, table: Table, key: &RecordKey) -> lsm_tree::Result<Option<Bytes>> {
        match self.memory.get(table, key) {
            Some(value) => Ok(value),
            None => self.tables.get(table, key),
        }
    }

    /// Up to `limit` records of a table behind `after`, in the order of their keys, ending
    /// earlier when they are longer than `bytes` together.
    pub(super) fn page(
        &self,
        table: Table,
        after: Option<RecordKey>,
        limit: usize,
        bytes: usize,
    ) -> lsm_tree::Result<Scanned> {
        let after = after.map_or(Bound::Unbounded, Bound::Excluded);
        // Memory first: what goes from there to the tables in between is then seen twice at
        // most, and memory's word counts.
        let changed = self.memory.range(table, after, limit);
        let mut recent = changed.values.into_iter().peekable();
        let mut older = self.tables.range(table, after).peekable();
        let mut scanned = Scanned::default();
        let mut len = 0;
        loop {
            let older_key = match older.peek() {
                Some(Ok((key, _))) => Some(*key),
                Some(Err(_)) => return Err(take_error(older.next())),
                None => None,
            };
            let recent_key = recent.peek().map(|(key, _)| *key);
            let Some(key) = recent_key.into_iter().chain(older_key).min() else {
                // The tables have no more; memory may.
                scanned.until = changed.until;
                return Ok(scanned);
            };
            if changed.until.is_some_and(|until| key > until) {
                scanned.until = changed.until;
                return Ok(scanned);
            }
            if scanned.records.len() >= limit || len >= bytes {
                scanned.until = scanned.records.last().map(|(key, _)| *key);
                return Ok(scanned);
            }
            let beneath = if older_key == Some(key) {
                older.next().and_then(Result::ok)
            } else {
                None
            };
            let value = if recent_key == Some(key) {
                recent.next().and_then(|(_, value)| value)
            } else {
                beneath.map(|(_, value)| value)
            };
            if let Some(value) = value {
                len += value.len();
                scanned.records.push((key, value));
            }
        }
    }

    /// Shows a batch that is synced to everybody, and seals memory when it is full.
    pub(super) fn publish(
        &self,
        log: &mut Log,
        batch: u64,
        now: Timestamp,
        changes: impl Iterator<Item = Change>,
    ) -> io::Result<()> {
        let bytes = self.memory.apply(batch, now.as_millis(), changes) as u64;
        if bytes < self.memory_bytes && self.segments.len() < MAX_SEGMENTS {
            return Ok(());
        }
        if bytes >= self.memory_bytes * MAX_MEMORY {
            // The flusher is slower than the writer. When it has ended, nobody waits for it.
            self.wait_while(|work| self.memory.sealed().is_some() && !work.is_stopping);
        }
        if self.memory.seal(log.segment()) {
            log.rotate()?;
            self.tell(|_| ());
        }
        Ok(())
    }

    /// The flusher's thread: writes sealed layers out until told to stop. An error ends it.
    pub(super) fn flush_until_stopped(&self, clock: &dyn Clock) -> lsm_tree::Result<()> {
        loop {
            self.segments.prepare()?;
            let is_stopping =
                self.wait_while(|work| self.memory.sealed().is_none() && !work.is_stopping);
            if is_stopping {
                return Ok(());
            }
            self.wait_while(|work| {
                let is_at_work = work.to_merge || work.is_merging;
                is_at_work && !work.is_stopping && self.tables.overlapping() > MAX_OVERLAPPING
            });
            self.flush(clock.now())?;
            self.tell(|work| work.to_merge = true);
        }
    }

    /// Writes the sealed layer out.
    pub(super) fn flush(&self, now: Timestamp) -> lsm_tree::Result<()> {
        if let Some(layer) = self.memory.sealed() {
            self.tables.write(&layer, now)?;
            self.memory.release();
            self.segments.retire(layer.segment)?;
        }
        Ok(())
    }

    /// The merger's thread: merges files after each flush until told to stop. What fails is
    /// handed to `failed` and leaves everything as it was.
    pub(super) fn merge_until_stopped(&self, failed: impl Fn(lsm_tree::Error)) {
        while !self.wait_while(|work| !work.to_merge && !work.is_stopping) {
            self.tell(|work| {
                work.to_merge = false;
                work.is_merging = true;
            });
            let merged = self.tables.merge();
            self.tell(|work| work.is_merging = false);
            merged.unwrap_or_else(&failed);
        }
    }

    /// Ends the threads when they are through with what they do.
    pub(super) fn stop(&self) {
        self.tell(|work| work.is_stopping = true);
    }

    /// Changes `work` and wakes whoever waits for a change.
    fn tell(&self, change: impl FnOnce(&mut Work)) {
        change(&mut self.work());
        self.changed.notify_all();
    }

    /// Waits until `condition` is not so, and says whether the threads are to stop.
    fn wait_while(&self, mut condition: impl FnMut(&Work) -> bool) -> bool {
        let work = self.work();
        let work = self.changed.wait_while(work, |work| condition(work));
        work.unwrap_or_else(PoisonError::into_inner).is_stopping
    }

    fn work(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Rewrites the settled records, without those that have expired.
    pub(super) fn rewrite_settled(&self) -> lsm_tree::Result<()> {
        self.tables.rewrite_settled()
    }

    /// Settled records, with each version taken for one.
    pub(super) fn settled_len(&self) -> usize {
        self.tables.settled_len() + self.memory.settled_len()
    }

    /// Bytes of the tables' files.
    pub(super) fn table_bytes(&self) -> u64 {
        self.tables.disk_bytes()
    }
}

/// A part of a table.
#[derive(Debug, Default)]
pub(super) struct Scanned {
    pub(super) records: Vec<(RecordKey, Bytes)>,
    /// The last key that this covers; `None` at the end of the table.
    pub(super) until: Option<RecordKey>,
}

fn take_error<T>(item: Option<lsm_tree::Result<T>>) -> lsm_tree::Error {
    match item {
        Some(Err(error)) => error,
        // Only called for an item that is one.
        Some(Ok(_)) | None => lsm_tree::Error::Unrecoverable,
    }
}

#[cfg(test)]
mod tests {
    use super::super::frame::FrameBuilder;
    use super::super::memory::Layer;
    use super::*;
    use hapax_core::secret::Secret;

    const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

    fn key(number: u8) -> RecordKey {
        RecordKey::from_bytes([number; 16])
    }

    /// A value of 40 bytes that never expires.
    fn value(number: u8) -> Bytes {
        let mut value = vec![number; 40];
        value[16..24].copy_from_slice(&[0xff; 8]);
        value.into()
    }

    struct Opened {
        engine: Engine,
        log: Log,
        batch: u64,
    }

    fn open(folder: &Path) -> Opened {
        try_open(folder).unwrap()
    }

    fn try_open(folder: &Path) -> Result<Opened, EngineError> {
        let (data, log) = (folder.join("data"), folder.join("log"));
        std::fs::create_dir_all(&log).unwrap();
        let secret = Secret::from_bytes([7; 32]);
        let keys = Arc::new(HashKeys::derive(&secret));
        let (options, key) = (Options::default(), LogKey::derive(&secret));
        let opening = Opening::read(&data, &log, &options, &keys, key, &FilterClock::default())?;
        let batch = opening.batch();
        let (engine, log) = opening.finish(&options)?;
        Ok(Opened { engine, log, batch })
    }

    impl Opened {
        fn write(&mut self, changes: &[(u8, Table, bool)]) {
            self.batch += 1;
            let changes: Vec<Change> = changes
                .iter()
                .map(|(number, table, is_put)| Change {
                    key: key(*number),
                    table: *table,
                    value: is_put.then(|| value(*number)),
                    is_alone: *is_put,
                })
                .collect();
            let mut frame = FrameBuilder::default();
            frame.fill(self.batch, NOW.as_millis(), &changes);
            self.log.append(&mut frame).unwrap();
            self.log.sync().unwrap();
            let published =
                self.engine
                    .publish(&mut self.log, self.batch, NOW, changes.into_iter());
            published.unwrap();
        }

        /// What both tables hold.
        fn all(&self) -> [Vec<RecordKey>; 2] {
            [Table::Open, Table::Settled].map(|table| {
                let scanned = self.engine.page(table, None, 100, usize::MAX).unwrap();
                assert_eq!(scanned.until, None);
                let read = |key| self.engine.get(table, key).unwrap();
                for (key, value) in &scanned.records {
                    assert_eq!(read(key).as_ref(), Some(value));
                }
                scanned.records.into_iter().map(|(key, _)| key).collect()
            })
        }
    }

    /// Claims 1 to 4, of which 2 settles and 3 is released, and then 4 settles too.
    fn work(opened: &mut Opened) {
        opened.write(&[1, 2, 3, 4].map(|number| (number, Table::Open, true)));
        opened.write(&[(2, Table::Open, false), (2, Table::Settled, true)]);
        opened.write(&[(3, Table::Open, false)]);
        let sealed = opened.engine.memory.seal(opened.log.segment());
        assert!(sealed);
        opened.log.rotate().unwrap();
        opened.write(&[(4, Table::Open, false), (4, Table::Settled, true)]);
    }

    fn expected() -> [Vec<RecordKey>; 2] {
        [vec![key(1)], vec![key(2), key(4)]]
    }

    #[test]
    fn a_process_that_ends_while_memory_is_written_out_leaves_all_of_it() {
        type Step = fn(&Engine, &Layer);
        let steps: [Step; 4] = [
            |_, _| {},
            |engine, layer| engine.tables.write_to(Table::Settled, layer, NOW).unwrap(),
            |engine, layer| engine.tables.write(layer, NOW).unwrap(),
            |engine, layer| {
                engine.tables.write(layer, NOW).unwrap();
                engine.memory.release();
            },
        ];
        for (number, step) in steps.into_iter().enumerate() {
            let folder = tempfile::tempdir().unwrap();
            let mut opened = open(folder.path());
            work(&mut opened);
            let layer = opened.engine.memory.sealed().unwrap();
            step(&opened.engine, &layer);
            assert_eq!(opened.all(), expected(), "step {number}, before");
            drop(opened);
            // Twice: the second start reads what the first left.
            for _ in 0..2 {
                assert_eq!(open(folder.path()).all(), expected(), "step {number}");
            }
            let opened = open(folder.path());
            assert_eq!(opened.batch, 4);
            // What was replayed is written out over what had been.
            assert!(opened.engine.memory.seal(opened.log.segment()));
            opened.engine.flush(NOW).unwrap();
            opened.engine.tables.merge().unwrap();
            assert_eq!(opened.all(), expected(), "step {number}, written out again");
            drop(opened);
            assert_eq!(open(folder.path()).all(), expected());
        }
    }

    #[test]
    fn damage_at_the_end_of_what_the_tables_have_is_passed_over_and_other_damage_is_not() {
        for is_written_out in [true, false] {
            let folder = tempfile::tempdir().unwrap();
            let mut opened = open(folder.path());
            let segment =
                super::super::log::path_of(&folder.path().join("log"), opened.log.segment());
            work(&mut opened);
            if is_written_out {
                let layer = opened.engine.memory.sealed().unwrap();
                opened.engine.tables.write(&layer, NOW).unwrap();
            }
            drop(opened);
            // The third batch, a page behind the head and two of a page each.
            let file = std::fs::OpenOptions::new().write(true).open(segment);
            let at = 3 * super::super::frame::PAGE as u64 + 8;
            std::os::unix::fs::FileExt::write_all_at(&file.unwrap(), &[0xff; 8], at).unwrap();
            if !is_written_out {
                let Err(EngineError::Log(LogError::Gap {
                    expected: 3,
                    found: 4,
                    ..
                })) = try_open(folder.path())
                else {
                    panic!("batch 3 is nowhere");
                };
                continue;
            }
            let mut opened = open(folder.path());
            assert_eq!((opened.batch, opened.all()), (4, expected()));
            opened.write(&[(1, Table::Open, false)]);
            drop(opened);
            for _ in 0..2 {
                let opened = open(folder.path());
                assert_eq!(
                    (opened.batch, opened.all()),
                    (5, [vec![], expected()[1].clone()])
                );
            }
        }
    }

    #[test]
    fn what_has_expired_in_memory_is_not_written_out_and_hides_what_is_beneath() {
        let folder = tempfile::tempdir().unwrap();
        let mut opened = open(folder.path());
        opened.write(&[(1, Table::Settled, true), (2, Table::Settled, true)]);
        assert!(opened.engine.memory.seal(opened.log.segment()));
        opened.log.rotate().unwrap();
        opened.engine.flush(NOW).unwrap();
        // The same keys anew and a third, with values that end at 0.
        let changes = [1, 3].map(|number| Change {
            key: key(number),
            table: Table::Settled,
            value: Some(vec![0; 40].into()),
            is_alone: number == 3,
        });
        opened.engine.memory.apply(2, 0, changes.into_iter());
        assert!(opened.engine.memory.seal(opened.log.segment()));
        opened.engine.flush(NOW).unwrap();
        assert_eq!(opened.all(), [vec![], vec![key(2)]]);
    }
}
