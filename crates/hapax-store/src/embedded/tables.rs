//! The tables: sorted files of the engine, to which memory is written out, and the filter that
//! drops what has expired.

use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};

use bytes::Bytes;
use hapax_core::key::RecordKey;
use hapax_core::secret::HashKeys;
use hapax_core::time::{Clock, Timestamp};
use lsm_tree::compaction::Leveled;
use lsm_tree::compaction::filter::{CompactionFilter, Context, Factory, ItemAccessor, Verdict};
use lsm_tree::config::{BloomConstructionPolicy, FilterPolicy, FilterPolicyEntry};
use lsm_tree::{
    AbstractTree, AnyTree, Cache, Config, Guard, SeqNo, SequenceNumberCounter, UserValue,
};

use super::memory::{Layer, Table};
use super::value;

/// One miss in ten thousand reads a block in vain: a new key must be cheap.
const FALSE_POSITIVES: f32 = 0.0001;

/// The size of a file when files are merged.
const FILE_BYTES: u64 = 64 << 20;

/// How often one call goes on merging while there is something to merge.
const MERGES: usize = 8;

/// Under this key each table says how far it goes. Not 16 bytes long, so no record's.
const FLUSHED: &[u8] = b"hapax.flushed";

/// The time by which the filter judges. It has none before the store's clock is known, and
/// keeps everything until then.
pub(super) type FilterClock = Arc<RwLock<Option<Arc<dyn Clock>>>>;

/// How far a table goes: the last batch that is in it, and the store's clock then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct Flushed {
    pub(super) batch: u64,
    pub(super) now_ms: u64,
}

impl Flushed {
    fn to_bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        for (to, number) in bytes.chunks_exact_mut(8).zip([self.batch, self.now_ms]) {
            to.copy_from_slice(&number.to_le_bytes());
        }
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let number = |bytes: &[u8]| bytes.first_chunk().copied().map(u64::from_le_bytes);
        let (batch, now_ms) = bytes.split_at_checked(8).filter(|_| bytes.len() == 16)?;
        Some(Self {
            batch: number(batch)?,
            now_ms: number(now_ms)?,
        })
    }
}

/// The folders of the tables in `data`.
pub(super) fn folders(data: &Path) -> [PathBuf; 2] {
    ["open", "settled"].map(|name| data.join(name))
}

/// Both tables.
pub(super) struct Tables {
    open: AnyTree,
    settled: AnyTree,
    seqno: SequenceNumberCounter,
}

impl Tables {
    /// Opens the tables in `data`, or makes them.
    pub(super) fn open(
        data: &Path,
        cache_bytes: u64,
        keys: &Arc<HashKeys>,
        clock: &FilterClock,
    ) -> lsm_tree::Result<Self> {
        let (seqno, visible) = <(SequenceNumberCounter, SequenceNumberCounter)>::default();
        let cache = Arc::new(Cache::with_capacity_bytes(cache_bytes));
        let [open, settled] = folders(data).map(|folder| {
            let filter = BloomConstructionPolicy::FalsePositiveRate(FALSE_POSITIVES);
            Config::new(folder, seqno.clone(), visible.clone())
                .use_cache(Arc::clone(&cache))
                .filter_policy(FilterPolicy::all(FilterPolicyEntry::Bloom(filter)))
        });
        let drop_expired: Arc<dyn Factory> = Arc::new(DropExpired {
            keys: Arc::clone(keys),
            clock: Arc::clone(clock),
        });
        let open = open.open()?;
        let settled = settled
            .with_compaction_filter_factory(Some(drop_expired))
            .open()?;
        // What is written out next must be newer than all there is.
        let highest = open.get_highest_seqno().max(settled.get_highest_seqno());
        if let Some(highest) = highest {
            seqno.fetch_max(highest + 1);
            visible.fetch_max(highest + 1);
        }
        Ok(Self {
            open,
            settled,
            seqno,
        })
    }

    fn tree(&self, table: Table) -> &AnyTree {
        match table {
            Table::Open => &self.open,
            Table::Settled => &self.settled,
        }
    }

    pub(super) fn get(&self, table: Table, key: &RecordKey) -> lsm_tree::Result<Option<Bytes>> {
        let value = self.tree(table).get(key.as_bytes(), SeqNo::MAX)?;
        Ok(value.map(Bytes::from))
    }

    /// The records behind `after`, in the order of their keys.
    pub(super) fn range(
        &self,
        table: Table,
        after: Bound<RecordKey>,
    ) -> impl Iterator<Item = lsm_tree::Result<(RecordKey, Bytes)>> {
        let from = after.map(|key| *key.as_bytes());
        let range = (from, Bound::<[u8; 16]>::Unbounded);
        let entries = self.tree(table).range(range, SeqNo::MAX, None);
        entries.filter_map(|entry| match entry.into_inner() {
            Ok((key, value)) => {
                // A key of another length is no record's.
                let key = <[u8; 16]>::try_from(&*key).ok()?;
                Some(Ok((RecordKey::from_bytes(key), Bytes::from(value))))
            }
            Err(error) => Some(Err(error)),
        })
    }

    /// How far both tables go. `None` when one has no proper note of it.
    pub(super) fn flushed(&self) -> lsm_tree::Result<Option<Flushed>> {
        let read = |tree: &AnyTree| -> lsm_tree::Result<Option<Flushed>> {
            Ok(match tree.get(FLUSHED, SeqNo::MAX)? {
                Some(bytes) => Flushed::from_bytes(&bytes),
                // Nothing was ever written out.
                None => (tree.table_count() == 0).then(Flushed::default),
            })
        };
        let (open, settled) = (read(&self.open)?, read(&self.settled)?);
        // The log has what only one of them got.
        Ok(open.zip(settled).map(|(open, settled)| open.min(settled)))
    }

    /// Writes a layer out, durably. What has expired by `now` and hides nothing stays out.
    ///
    /// When the process ends between the two tables, the log has all of it still.
    pub(super) fn write(&self, layer: &Layer, now: Timestamp) -> lsm_tree::Result<()> {
        self.write_to(Table::Settled, layer, now)?;
        self.write_to(Table::Open, layer, now)
    }

    pub(super) fn write_to(
        &self,
        table: Table,
        layer: &Layer,
        now: Timestamp,
    ) -> lsm_tree::Result<()> {
        let flushed = Flushed {
            batch: layer.batch,
            now_ms: layer.now_ms,
        };
        let mut ingestion = self.tree(table).ingestion()?;
        let mut note = Some(UserValue::from(flushed.to_bytes()));
        for (key, value, is_alone) in layer.iter(table) {
            let key = key.as_bytes();
            if key.as_slice() > FLUSHED
                && let Some(note) = note.take()
            {
                ingestion.write(FLUSHED, note)?;
            }
            let is_over = |value: &Bytes| {
                value::expires_at(value).is_some_and(|expires_at| expires_at <= now)
            };
            match value {
                // An unknown record stays until the sweep removes it from the index too.
                Some(value) if table == Table::Open || !is_over(value) => {
                    ingestion.write(key, value.clone())?;
                }
                Some(_) if is_alone => {}
                Some(_) | None => ingestion.write_tombstone(key)?,
            }
        }
        if let Some(note) = note.take() {
            ingestion.write(FLUSHED, note)?;
        }
        ingestion.finish()
    }

    /// Merges files where there are many that overlap.
    pub(super) fn merge(&self) -> lsm_tree::Result<()> {
        for tree in [&self.settled, &self.open] {
            for _ in 0..MERGES {
                let shape = |tree: &AnyTree| (tree.table_count(), tree.l0_run_count());
                let before = shape(tree);
                // Nobody reads what was: every read looks for the newest.
                tree.compact(Arc::new(Leveled::default()), self.seqno.get())?;
                if shape(tree) == before {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Rewrites the settled records.
    pub(super) fn rewrite_settled(&self) -> lsm_tree::Result<()> {
        self.settled.major_compact(FILE_BYTES, self.seqno.get())
    }

    /// Settled records, by the engine's count, which takes each version for one.
    pub(super) fn settled_len(&self) -> usize {
        self.settled.approximate_len()
    }

    /// Files of settled records that a look-up must consider one by one.
    pub(super) fn overlapping(&self) -> usize {
        self.settled.l0_run_count()
    }

    pub(super) fn disk_bytes(&self) -> u64 {
        self.settled.disk_space() + self.open.disk_space()
    }
}

/// Drops settled records that have expired while the engine rewrites its tables anyway.
///
/// It leaves a tombstone in a record's place ([`Verdict::Remove`]) rather than nothing: an
/// older version of the key may lie in a deeper level that this compaction does not touch, and
/// would come back to life. The engine drops the tombstone when it reaches the last level.
struct DropExpired {
    keys: Arc<HashKeys>,
    clock: FilterClock,
}

struct DropExpiredBy {
    keys: Arc<HashKeys>,
    now: Option<Timestamp>,
}

impl Factory for DropExpired {
    fn name(&self) -> &str {
        "drop-expired"
    }

    fn make_filter(&self, _: &Context) -> Box<dyn CompactionFilter> {
        // A lock that a panic poisoned tells no time, and nothing is dropped.
        let now = self.clock.read().ok().and_then(|clock| {
            let clock = clock.as_ref()?;
            Some(clock.now())
        });
        Box::new(DropExpiredBy {
            keys: Arc::clone(&self.keys),
            now,
        })
    }
}

// What the trait asks for: a panic while a filter is made leaves nothing half done in it.
impl std::panic::RefUnwindSafe for DropExpired {}

impl CompactionFilter for DropExpiredBy {
    fn filter_item(&mut self, item: ItemAccessor<'_>, _: &Context) -> lsm_tree::Result<Verdict> {
        let Some(now) = self.now else {
            return Ok(Verdict::Keep);
        };
        let value = item.value()?;
        if value::expires_at(&value).is_none_or(|expires_at| now < expires_at) {
            return Ok(Verdict::Keep);
        }
        // A damaged record is an alarm and stays one: only what is proven to be a record that
        // has expired goes.
        let key = <[u8; 16]>::try_from(&**item.key()).map(RecordKey::from_bytes);
        let held = key.map(|key| value::decode(&self.keys, &key, &Bytes::from(value)));
        Ok(match held {
            Ok(Ok(held)) if held.is_expired(now) => Verdict::Remove,
            _ => Verdict::Keep,
        })
    }
}
