//! Recovery: from a directory to a store that can be asked.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};

use fjall::PersistMode;
use hapax_core::key::RecordKey;
use hapax_core::record::{State, UnknownReason};
use hapax_core::secret::HashKeys;
use hapax_core::store::StoreError;
use hapax_core::time::{Clock, Timestamp};

use super::directory::Directory;
use super::engine::{Engine, FilterClock};
use super::index::{Index, OpenRecord};
use super::journal::{self, BATCH_KEY, BatchInfo};
use super::manifest;
use super::options::Options;
use super::value;
use crate::clock::Monotonic;

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has the directory (P54).
    #[error("the store is in use by {by}")]
    Locked {
        /// The other process: its id and when it started.
        by: String,
    },
    /// Something of the store is missing or not what was written. An operator must look.
    #[error("the store is damaged: {what}")]
    Damaged {
        /// What does not fit.
        what: String,
        /// The cause below, where there is one.
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// Reading or writing failed.
    #[error("{path}: {source}")]
    Io {
        /// Which file or directory.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The path is there and is no directory.
    #[error("{path} is not a directory")]
    NotADirectory {
        /// The path.
        path: PathBuf,
    },
    /// The store was written by a version of hapax with another layout.
    #[error("the store has format {found}, and this program knows format 1")]
    Version {
        /// The format's number.
        found: String,
    },
}

impl OpenError {
    pub(super) fn io(path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        Self::Io { path, source }
    }

    pub(super) fn damaged(what: impl Into<String>) -> Self {
        Self::Damaged {
            what: what.into(),
            source: None,
        }
    }

    pub(super) fn engine(what: &'static str) -> impl Fn(fjall::Error) -> Self {
        move |error| Self::Damaged {
            what: what.to_owned(),
            source: Some(Box::new(error)),
        }
    }
}

/// What recovery found.
pub(super) struct Recovered {
    pub(super) directory: Directory,
    pub(super) engine: Engine,
    pub(super) keys: Arc<HashKeys>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) index: Index,
    /// The number of the last batch.
    pub(super) batch: u64,
    /// Outstanding claims of the previous process, which became unknown (P16).
    pub(super) interrupted: usize,
}

/// Claims that one batch of recovery turns unknown.
const INTERRUPTED_PER_BATCH: usize = 512;

pub(super) fn recover(path: &Path, options: &Options) -> Result<Recovered, OpenError> {
    let mut directory = Directory::open(path, options.clock.now())?;
    let keys = Arc::new(HashKeys::derive(&directory.secret));
    let filter_clock: FilterClock = Arc::new(RwLock::new(None));
    let witness = directory
        .witness
        .read()
        .ok_or_else(|| OpenError::damaged("WITNESS is not what a store writes"))?;
    let engine = open_engine(&directory, options, witness, &keys, &filter_clock)?;
    let last = last_batch(&engine)?;
    let batch = last.map_or(0, |last| last.number);
    if batch < witness {
        return Err(OpenError::damaged(format!(
            "{} acknowledged batches are missing: the last is {batch}, and {witness} were acknowledged",
            witness - batch
        )));
    }
    // Every acknowledged instant is at most this: the clock never goes back over a restart.
    let floor = Timestamp::from_millis(last.map_or(0, |last| last.now_ms));
    let clock: Arc<dyn Clock> = Arc::new(Monotonic::new(Arc::clone(&options.clock), floor));
    if directory.is_new {
        directory.finish()?;
    }
    let index = read_open(&engine, &keys, options)?;
    let mut recovered = Recovered {
        directory,
        engine,
        keys,
        clock,
        index,
        batch,
        interrupted: 0,
    };
    interrupt(&mut recovered)?;
    // Only now may the filter drop anything: before, the clock was not known.
    if let Ok(mut filter_clock) = filter_clock.write() {
        *filter_clock = Some(Arc::clone(&recovered.clock));
    }
    Ok(recovered)
}

fn open_engine(
    directory: &Directory,
    options: &Options,
    witness: u64,
    keys: &Arc<HashKeys>,
    filter_clock: &FilterClock,
) -> Result<Engine, OpenError> {
    let data = directory.data();
    let is_there = data
        .try_exists()
        .map_err(|error| OpenError::io(&data, error))?;
    if directory.is_new && is_there && !data.join("version").exists() {
        // The engine was cut off while it was made, and cannot go on from there. It never held
        // anything: it writes its marker before it takes the first record.
        fs::remove_dir_all(&data).map_err(|error| OpenError::io(&data, error))?;
    } else if !directory.is_new && !data.join("version").exists() {
        return Err(OpenError::damaged("the engine's files are missing"));
    } else if is_there {
        let damaged = |error: Box<dyn std::error::Error + Send + Sync>| OpenError::Damaged {
            what: error.to_string(),
            source: Some(error),
        };
        manifest::check(&data).map_err(|error| damaged(error.into()))?;
        journal::check(&data, witness).map_err(|error| damaged(error.into()))?;
    }
    // The engine asserts some of what it reads from disk: for us a panic of its own while it
    // opens is one more way of saying that the files are damaged.
    let opened = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        Engine::open(&data, directory.is_new, options, keys, filter_clock)
    }));
    opened
        .map_err(|_| OpenError::damaged("the engine cannot make sense of its files"))?
        .map_err(|error| match error {
            fjall::Error::Io(error) if error.kind() == io::ErrorKind::StorageFull => {
                OpenError::io(&data, error)
            }
            error => OpenError::engine("the engine cannot open it")(error),
        })?
        .ok_or_else(|| OpenError::damaged("a table is missing"))
}

fn last_batch(engine: &Engine) -> Result<Option<BatchInfo>, OpenError> {
    let value = engine
        .meta
        .get(BATCH_KEY)
        .map_err(OpenError::engine("the last batch cannot be read"))?;
    value
        .map(|value| {
            BatchInfo::from_bytes(&value)
                .ok_or_else(|| OpenError::damaged("the last batch's number is cut short"))
        })
        .transpose()
}

/// Reads every record that is not settled. One that is damaged is kept and remembered.
fn read_open(engine: &Engine, keys: &HashKeys, options: &Options) -> Result<Index, OpenError> {
    let mut index = Index::default();
    for entry in engine.open.iter() {
        let (key, value) = entry
            .into_inner()
            .map_err(OpenError::engine("an outstanding record cannot be read"))?;
        let key = <[u8; 16]>::try_from(&*key)
            .map(RecordKey::from_bytes)
            .map_err(|_| OpenError::damaged("an outstanding record has no proper key"))?;
        let damage = match value::decode(keys, &key, &value) {
            Ok(held) => match OpenRecord::of(&held) {
                Some(record) => {
                    index.put(key, record);
                    continue;
                }
                None => "a settled record among the outstanding",
            },
            Err(StoreError::Damaged { what }) => what,
            Err(_) => "it cannot be decoded",
        };
        index.note_damage(key, damage);
        options.observer.damaged(damage);
    }
    Ok(index)
}

/// Turns every outstanding claim of the previous process into an unknown outcome (P16).
fn interrupt(recovered: &mut Recovered) -> Result<(), OpenError> {
    let interrupted: Vec<RecordKey> = recovered.index.outstanding().collect();
    let failed = OpenError::engine("interrupted claims cannot be written");
    for chunk in interrupted.chunks(INTERRUPTED_PER_BATCH) {
        let engine = &recovered.engine;
        let now = recovered.clock.now();
        let mut batch = engine.db.batch().durability(Some(PersistMode::SyncData));
        let mut written = Vec::with_capacity(chunk.len());
        for key in chunk {
            let value = engine.open.get(key.as_bytes()).map_err(&failed)?;
            let value =
                value.ok_or_else(|| OpenError::damaged("a record went while it was read"))?;
            let refused = |error: StoreError| OpenError::damaged(error.to_string());
            let mut held = value::decode(&recovered.keys, key, &value).map_err(refused)?;
            held.record.state = State::Unknown {
                reason: UnknownReason::Restarted,
                response: None,
            };
            held.written_at = now;
            let value = value::encode(&recovered.keys, key, &held).map_err(refused)?;
            batch.insert(&engine.open, key.as_bytes(), value);
            written.extend(OpenRecord::of(&held).map(|record| (*key, record)));
        }
        let number = recovered.batch + 1;
        let info = BatchInfo {
            number,
            now_ms: now.as_millis(),
            min_seqno: engine.db.seqno(),
        };
        batch.insert(&engine.meta, BATCH_KEY, info.to_bytes());
        batch.commit().map_err(&failed)?;
        recovered.batch = number;
        for (key, record) in written {
            recovered.index.put(key, record);
        }
    }
    let witnessed = recovered.directory.witness.write(recovered.batch);
    witnessed.map_err(|error| OpenError::io(&recovered.directory.data(), error))?;
    recovered.interrupted = interrupted.len();
    Ok(())
}
