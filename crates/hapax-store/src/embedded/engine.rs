//! The engine, set up for this load, and the filter that drops what has expired.

use std::path::Path;
use std::sync::{Arc, RwLock};

use fjall::compaction::filter::{CompactionFilter, Context, Factory, ItemAccessor, Verdict};
use fjall::config::{BloomConstructionPolicy, FilterPolicy, FilterPolicyEntry};
use fjall::{Database, Keyspace, KeyspaceCreateOptions};
use hapax_core::key::RecordKey;
use hapax_core::secret::HashKeys;
use hapax_core::time::{Clock, Timestamp};

use super::options::Options;
use super::value;

/// One for flushes, one for compactions: with one, a long compaction would hold up a flush,
/// and with it the writer.
const WORKERS: usize = 2;

/// All journals together; beyond it the engine writes tables out to be rid of the oldest.
const JOURNAL_BYTES: u64 = 256 << 20;

/// Records of the `open` table live for a request, and nobody looks them up there: what counts
/// is that the processor's caches hold what is written to.
const OPEN_MEMTABLE_BYTES: u64 = 4 << 20;

/// One miss in ten thousand reads a block in vain: a new key must be cheap.
const FALSE_POSITIVES: f32 = 0.0001;

/// The engine and its tables.
#[derive(Clone)]
pub(super) struct Engine {
    pub(super) db: Database,
    /// Outstanding and unknown records.
    pub(super) open: Keyspace,
    /// Completed and rejected records, tombstones among them.
    pub(super) settled: Keyspace,
    /// The last batch's [`super::journal::BatchInfo`].
    pub(super) meta: Keyspace,
}

/// The time by which the filter judges. It has none before the store's clock is known, and
/// keeps everything until then.
pub(super) type FilterClock = Arc<RwLock<Option<Arc<dyn Clock>>>>;

/// Names of the tables.
const OPEN: &str = "open";
const SETTLED: &str = "settled";
const META: &str = "meta";

impl Engine {
    /// Opens the engine at `path`, making its tables when `is_new`. `Ok(None)` when a table of
    /// an old store is not there.
    pub(super) fn open(
        path: &Path,
        is_new: bool,
        options: &Options,
        keys: &Arc<HashKeys>,
        clock: &FilterClock,
    ) -> fjall::Result<Option<Self>> {
        let factory: Arc<dyn Factory> = Arc::new(DropExpired {
            keys: Arc::clone(keys),
            clock: Arc::clone(clock),
        });
        let db = Database::builder(path)
            .cache_size(options.cache_bytes)
            .manual_journal_persist(true)
            .worker_threads(WORKERS)
            .max_journaling_size(JOURNAL_BYTES)
            .with_compaction_filter_factories(Arc::new(move |name| {
                (name == SETTLED).then(|| Arc::clone(&factory))
            }))
            .open()?;
        let names = [OPEN, SETTLED, META];
        if !is_new && !names.iter().all(|name| db.keyspace_exists(name)) {
            return Ok(None);
        }
        let table = |name, memtable_bytes| {
            db.keyspace(name, || {
                let filter = BloomConstructionPolicy::FalsePositiveRate(FALSE_POSITIVES);
                KeyspaceCreateOptions::default()
                    .manual_journal_persist(true)
                    .max_memtable_size(memtable_bytes)
                    .filter_policy(FilterPolicy::all(FilterPolicyEntry::Bloom(filter)))
            })
        };
        Ok(Some(Self {
            open: table(OPEN, OPEN_MEMTABLE_BYTES.min(options.memtable_bytes))?,
            settled: table(SETTLED, options.memtable_bytes)?,
            meta: table(META, options.memtable_bytes)?,
            db,
        }))
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
    fn filter_item(
        &mut self,
        item: ItemAccessor<'_>,
        _: &Context,
    ) -> fjall::compaction::filter::CompactionFilterResult {
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
        let held = key.map(|key| value::decode(&self.keys, &key, &value));
        Ok(match held {
            Ok(Ok(held)) if held.is_expired(now) => Verdict::Remove,
            _ => Verdict::Keep,
        })
    }
}
