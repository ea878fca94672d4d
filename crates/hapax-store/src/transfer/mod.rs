//! Takes a store's records to a file and back, or from one kind of store to another.
//!
//! The secret goes with them: record keys, scopes and fingerprints are keyed with it, and without it
//! every retry would look like a first attempt. Instants go along unchanged. What has expired stays
//! behind, and a record that is damaged ends the copy: one that silently left it out would let that
//! operation run again.
//!
//! A target takes records only while it is vacant, and shows all of them or none: an embedded store
//! appears under its name when it is complete, a store in PostgreSQL with the commit, one in Redis
//! when its entry no longer says that it is unfinished, a backup when it is renamed.

mod backup;

use std::io;
use std::path::PathBuf;

use hapax_core::key::RecordKey;
use hapax_core::record::{Content, Held, State};
use hapax_core::secret::Secret;
use hapax_core::store::{Cursor, Filter, Store, StoreError};

pub use self::backup::{BackupReader, BackupWriter};
use crate::any::AnyStore;
#[cfg(feature = "embedded")]
use crate::embedded::{EmbeddedRestore, OpenError};
#[cfg(feature = "postgres")]
use crate::postgres::{PostgresError, PostgresRestore};
#[cfg(feature = "redis")]
use crate::redis::{RedisRestore, RedisStoreError};

/// Records that are read before they are written.
const AT_ONCE: usize = 256;

/// Why records could not be taken from one place to another. The target has none of them.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// A store that is read from failed.
    #[error("the source failed: {0}")]
    Source(#[source] StoreError),
    /// A record cannot be written as it is.
    #[error("a record cannot be written: {0}")]
    Record(#[source] StoreError),
    /// Records of the source are damaged, and a copy would do without them.
    #[error("{0} records of the source are damaged: nothing was copied")]
    DamagedSource(u64),
    /// The target has records already, or something else is in its place.
    #[error("{0}: records are taken over by a vacant store only")]
    NotVacant(String),
    /// Gateways are connected to a store that must not be in use.
    #[error("{0} connections of gateways are open: stop the gateways first")]
    InUse(i64),
    /// Opening or writing an embedded store failed.
    #[cfg(feature = "embedded")]
    #[error(transparent)]
    Embedded(#[from] OpenError),
    /// A store in PostgreSQL failed.
    #[cfg(feature = "postgres")]
    #[error(transparent)]
    Postgres(#[from] PostgresError),
    /// A store in Redis failed.
    #[cfg(feature = "redis")]
    #[error(transparent)]
    Redis(#[from] RedisStoreError),
    /// Reading or writing a file failed.
    #[error("{path}: {source}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The file is no backup, or one that another version wrote.
    #[error("{0} is not a backup that this program knows")]
    NotABackup(PathBuf),
    /// The backup is not what was written.
    #[error("{path} is damaged: {what}")]
    DamagedBackup {
        /// Which file.
        path: PathBuf,
        /// What does not fit.
        what: &'static str,
    },
}

/// How far a copy is, or what it has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Transferred {
    /// Records.
    pub records: u64,
    /// Bytes of stored content among them.
    pub content_bytes: u64,
    /// Records that were outstanding. Their operations may have ended since, which the copy does not know: they are
    /// *unknown* to whoever asks when their lease is over.
    pub outstanding: u64,
}

/// Where records come from.
#[derive(Debug)]
pub enum Source<'a> {
    /// A store. Nothing may write to it meanwhile: what is written behind the place that has
    /// been read is missed.
    Store(&'a AnyStore),
    /// A backup.
    Backup(Box<BackupReader>),
}

/// Where records go.
#[derive(Debug)]
pub enum Target {
    /// A backup.
    Backup(BackupWriter),
    /// An embedded store.
    #[cfg(feature = "embedded")]
    Embedded(EmbeddedRestore),
    /// A store in PostgreSQL.
    #[cfg(feature = "postgres")]
    Postgres(PostgresRestore),
    /// A store in Redis.
    #[cfg(feature = "redis")]
    Redis(Box<RedisRestore>),
}

impl Source<'_> {
    /// The secret that keys every digest in the records.
    pub fn secret(&self) -> &Secret {
        match self {
            Self::Store(store) => store.secret(),
            Self::Backup(backup) => backup.secret(),
        }
    }
}

impl Target {
    async fn put(&mut self, records: &[(RecordKey, Held)]) -> Result<(), TransferError> {
        match self {
            Self::Backup(backup) => backup.put(records),
            #[cfg(feature = "embedded")]
            Self::Embedded(store) => store.put(records),
            #[cfg(feature = "postgres")]
            Self::Postgres(store) => store.put(records).await,
            #[cfg(feature = "redis")]
            Self::Redis(store) => store.put(records).await,
        }
    }

    async fn finish(self) -> Result<(), TransferError> {
        match self {
            Self::Backup(backup) => backup.finish(),
            #[cfg(feature = "embedded")]
            Self::Embedded(store) => store.finish(),
            #[cfg(feature = "postgres")]
            Self::Postgres(store) => store.finish().await,
            #[cfg(feature = "redis")]
            Self::Redis(store) => store.finish().await,
        }
    }

    /// Leaves the target vacant where letting go of it does not.
    async fn abandon(self) {
        match self {
            #[cfg(feature = "redis")]
            Self::Redis(store) => store.abandon().await,
            #[allow(unreachable_patterns, reason = "without Redis there is no other")]
            _ => {}
        }
    }
}

/// Takes every record of `source` that has not expired to `target`, which was made with the source's secret. `progress` is
/// told how far it is, a few hundred records at a time.
///
/// # Errors
/// See [`TransferError`]. The target is left vacant, but for files of its own that say so.
pub async fn transfer(
    source: Source<'_>,
    mut target: Target,
    progress: &mut dyn FnMut(&Transferred),
) -> Result<Transferred, TransferError> {
    match fill(source, &mut target, progress).await {
        Ok(done) => {
            target.finish().await?;
            Ok(done)
        }
        Err(error) => {
            target.abandon().await;
            Err(error)
        }
    }
}

async fn fill(
    source: Source<'_>,
    target: &mut Target,
    progress: &mut dyn FnMut(&Transferred),
) -> Result<Transferred, TransferError> {
    let mut done = Transferred::default();
    let mut reading = Reading::new(source);
    while let Some(records) = reading.next().await? {
        target.put(&records).await?;
        for (_, held) in &records {
            done.records += 1;
            done.content_bytes += content_len(held);
            done.outstanding += u64::from(matches!(held.record.state, State::Outstanding { .. }));
        }
        progress(&done);
    }
    Ok(done)
}

fn content_len(held: &Held) -> u64 {
    let response = held.record.state.response();
    match response.map(|response| &response.content) {
        Some(Content::Stored(content)) => content.len() as u64,
        Some(Content::Withheld) | None => 0,
    }
}

/// A source and the place in it.
struct Reading<'a> {
    source: Source<'a>,
    after: Option<Cursor>,
    is_over: bool,
}

impl<'a> Reading<'a> {
    fn new(source: Source<'a>) -> Self {
        Self {
            source,
            after: None,
            is_over: false,
        }
    }

    /// The next records, possibly none of them; `None` when all of the source was read, and was whole.
    async fn next(&mut self) -> Result<Option<Vec<(RecordKey, Held)>>, TransferError> {
        let store = match &mut self.source {
            Source::Backup(backup) => return backup.next(AT_ONCE),
            Source::Store(store) => store,
        };
        if self.is_over {
            // A damaged record is left out of a list, and counted.
            let stats = store.stats().await.map_err(TransferError::Source)?;
            return match stats.damaged {
                0 => Ok(None),
                damaged => Err(TransferError::DamagedSource(damaged)),
            };
        }
        let page = store.list(&Filter::default(), self.after, AT_ONCE).await;
        let page = page.map_err(TransferError::Source)?;
        self.after = page.next;
        self.is_over = page.next.is_none();
        Ok(Some(page.records))
    }
}
