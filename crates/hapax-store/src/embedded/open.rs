//! Recovery: from a directory to a store that can be asked.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};

use hapax_core::key::RecordKey;
use hapax_core::record::{State, UnknownReason};
use hapax_core::secret::HashKeys;
use hapax_core::store::StoreError;
use hapax_core::time::{Clock, Timestamp};

use super::directory::Directory;
use super::engine::{Engine, EngineError, Opening};
use super::frame::{FrameBuilder, LogKey};
use super::index::{Index, OpenRecord};
use super::log::Log;
use super::manifest;
use super::memory::{Change, Table};
use super::options::Options;
use super::replay::LogError;
use super::tables::{self, FilterClock};
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
    #[error("the store has format {found}, and this program knows format 2")]
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

    pub(super) fn engine(what: &'static str) -> impl Fn(lsm_tree::Error) -> Self {
        move |error| Self::Damaged {
            what: what.to_owned(),
            source: Some(Box::new(error)),
        }
    }
}

/// What recovery found.
pub(super) struct Recovered {
    pub(super) directory: Directory,
    pub(super) engine: Arc<Engine>,
    pub(super) log: Log,
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

/// Records that are read at a time when a store is opened.
const OPEN_PER_PAGE: usize = 4096;

pub(super) fn recover(path: &Path, options: &Options) -> Result<Recovered, OpenError> {
    let mut directory = Directory::open(path, options.clock.now())?;
    let keys = Arc::new(HashKeys::derive(&directory.secret));
    let filter_clock: FilterClock = Arc::new(RwLock::new(None));
    let witness = directory
        .witness
        .read()
        .ok_or_else(|| OpenError::damaged("WITNESS is not what a store writes"))?;
    let opening = read_engine(&directory, options, &keys, &filter_clock)?;
    let batch = opening.batch();
    if batch < witness {
        return Err(OpenError::damaged(format!(
            "{} acknowledged batches are missing: the last is {batch}, and {witness} were acknowledged",
            witness - batch
        )));
    }
    if directory.is_new && batch > 0 {
        // It is written before the first batch.
        return Err(OpenError::damaged("FORMAT is missing"));
    }
    // Every acknowledged instant is at most this: the clock never goes back over a restart.
    let floor = opening.now();
    let clock: Arc<dyn Clock> = Arc::new(Monotonic::new(Arc::clone(&options.clock), floor));
    let opened = opening.finish(options);
    let (engine, log) = opened.map_err(|error| engine_error(&directory, error))?;
    if directory.is_new {
        directory.finish()?;
    }
    let index = read_open(&engine, &keys, options)?;
    let mut recovered = Recovered {
        directory,
        engine: Arc::new(engine),
        log,
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

fn read_engine(
    directory: &Directory,
    options: &Options,
    keys: &Arc<HashKeys>,
    filter_clock: &FilterClock,
) -> Result<Opening, OpenError> {
    if directory.is_new {
        directory.make_folders()?;
    }
    for folder in tables::folders(&directory.data()) {
        if manifest::is_there(&folder) {
            manifest::check(&folder).map_err(|error| OpenError::Damaged {
                what: error.to_string(),
                source: Some(Box::new(error)),
            })?;
        } else if !directory.is_new {
            let folder = folder.display();
            return Err(OpenError::damaged(format!("the table {folder} is missing")));
        } else if folder.exists() {
            // Cut off while it was made; it never held anything.
            fs::remove_dir_all(&folder).map_err(|error| OpenError::io(&folder, error))?;
        }
    }
    let key = LogKey::derive(&directory.secret);
    let (data, log) = (directory.data(), directory.log());
    // The tables' engine asserts some of what it reads from disk: for us a panic of its own
    // while it opens is one more way of saying that the files are damaged.
    let opened = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        Opening::read(&data, &log, options, keys, key, filter_clock)
    }));
    opened
        .map_err(|_| OpenError::damaged("the engine cannot make sense of its files"))?
        .map_err(|error| engine_error(directory, error))
}

/// A disk that is full is no damage.
fn engine_error(directory: &Directory, error: EngineError) -> OpenError {
    match error {
        EngineError::Tables(lsm_tree::Error::Io(error))
        | EngineError::Log(LogError::Io(_, error))
            if error.kind() == io::ErrorKind::StorageFull =>
        {
            OpenError::io(&directory.data(), error)
        }
        error => OpenError::Damaged {
            what: error.to_string(),
            source: Some(Box::new(error)),
        },
    }
}

/// Reads every record that is not settled. One that is damaged is kept and remembered.
fn read_open(engine: &Engine, keys: &HashKeys, options: &Options) -> Result<Index, OpenError> {
    let mut index = Index::default();
    let mut after = None;
    loop {
        let page = engine
            .page(Table::Open, after, OPEN_PER_PAGE, usize::MAX)
            .map_err(OpenError::engine("an outstanding record cannot be read"))?;
        for (key, value) in page.records {
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
        after = page.until;
        if after.is_none() {
            return Ok(index);
        }
    }
}

/// Turns every outstanding claim of the previous process into an unknown outcome (P16).
fn interrupt(recovered: &mut Recovered) -> Result<(), OpenError> {
    let interrupted: Vec<RecordKey> = recovered.index.outstanding().collect();
    let failed = OpenError::engine("interrupted claims cannot be written");
    for chunk in interrupted.chunks(INTERRUPTED_PER_BATCH) {
        let now = recovered.clock.now();
        let mut changes = Vec::with_capacity(chunk.len());
        let mut written = Vec::with_capacity(chunk.len());
        for key in chunk {
            let value = recovered.engine.get(Table::Open, key).map_err(&failed)?;
            let value =
                value.ok_or_else(|| OpenError::damaged("a record went while it was read"))?;
            let refused = |error: StoreError| OpenError::damaged(error.to_string());
            let mut held = value::decode(&recovered.keys, key, &value).map_err(refused)?;
            held.record.state = State::Unknown {
                reason: UnknownReason::Restarted,
                response: None,
            };
            held.written_at = now;
            changes.push(Change {
                key: *key,
                table: Table::Open,
                value: Some(value::encode(&recovered.keys, key, &held).map_err(refused)?),
                is_alone: false,
            });
            written.extend(OpenRecord::of(&held).map(|record| (*key, record)));
        }
        recovered.write(now, changes).map_err(&failed)?;
        for (key, record) in written {
            recovered.index.put(key, record);
        }
    }
    let witnessed = recovered.directory.witness.write(recovered.batch);
    witnessed.map_err(|error| OpenError::io(&recovered.directory.data(), error))?;
    recovered.interrupted = interrupted.len();
    Ok(())
}

impl Recovered {
    /// Writes a batch, synced.
    pub(super) fn write(&mut self, now: Timestamp, changes: Vec<Change>) -> lsm_tree::Result<()> {
        let number = self.batch + 1;
        let mut frame = FrameBuilder::default();
        frame.fill(number, now.as_millis(), &changes);
        self.log.append(&mut frame)?;
        self.log.sync()?;
        self.batch = number;
        let changes = changes.into_iter();
        Ok(self.engine.publish(&mut self.log, number, now, changes)?)
    }
}
