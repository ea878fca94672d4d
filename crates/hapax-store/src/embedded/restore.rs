//! Fills a new store with the records of another, all of them or none.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use hapax_core::key::RecordKey;
use hapax_core::record::{Held, State};
use hapax_core::secret::Secret;

use super::directory::{self, Directory};
use super::memory::{Change, Table};
use super::open::{self, OpenError, Recovered};
use super::options::Options;
use super::value;
use crate::transfer::TransferError;

/// A store that is being filled, in a directory beside its place.
pub struct EmbeddedRestore {
    path: PathBuf,
    unfinished: PathBuf,
    /// `None` when it is finished.
    store: Option<Recovered>,
}

impl EmbeddedRestore {
    /// Begins to fill a store that will be in `path`, where nothing or an empty directory is.
    ///
    /// # Errors
    /// [`TransferError::NotVacant`] and [`TransferError::Embedded`].
    pub fn create(path: &Path, secret: &Secret) -> Result<Self, TransferError> {
        let vacant = match fs::read_dir(path) {
            Ok(mut entries) => entries.next().is_none(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => true,
            Err(error) => return Err(OpenError::io(path, error).into()),
        };
        if !vacant {
            let what = format!("{} is not empty", path.display());
            return Err(TransferError::NotVacant(what));
        }
        let unfinished = beside(path);
        if unfinished
            .try_exists()
            .map_err(|error| OpenError::io(&unfinished, error))?
        {
            let what = format!(
                "{} is there, from a copy that was cut off or is under way (remove it when none is)",
                unfinished.display()
            );
            return Err(TransferError::NotVacant(what));
        }
        let options = Options::default();
        Directory::prepare(&unfinished, secret)?;
        // From here on, dropping it removes what is there.
        let mut restore = Self {
            path: path.to_owned(),
            unfinished,
            store: None,
        };
        restore.store = Some(open::recover(&restore.unfinished, &options)?);
        Ok(restore)
    }

    pub(crate) fn put(&mut self, records: &[(RecordKey, Held)]) -> Result<(), TransferError> {
        let Some(store) = &mut self.store else {
            return Ok(());
        };
        let failed = OpenError::engine("it cannot be written");
        let mut changes = Vec::with_capacity(records.len());
        for (key, held) in records {
            changes.push(Change {
                key: *key,
                table: match held.record.state {
                    State::Outstanding { .. } | State::Unknown { .. } => Table::Open,
                    State::Completed(_) | State::Rejected(_) => Table::Settled,
                },
                value: Some(value::encode(&store.keys, key, held).map_err(TransferError::Record)?),
                is_alone: true,
            });
        }
        let now = store.clock.now();
        store.write(now, changes).map_err(&failed)?;
        store.engine.flush(now).map_err(failed)?;
        Ok(())
    }

    pub(crate) fn finish(mut self) -> Result<(), TransferError> {
        let Some(store) = self.store.take() else {
            return Ok(());
        };
        let finishing = finish(store, &self.unfinished, &self.path);
        if finishing.is_err() {
            drop(fs::remove_dir_all(&self.unfinished));
        }
        Ok(finishing?)
    }
}

fn finish(store: Recovered, unfinished: &Path, path: &Path) -> Result<(), OpenError> {
    let witnessed = store.directory.witness.write(store.batch);
    witnessed
        .and_then(|()| store.directory.witness.sync())
        .map_err(|error| OpenError::io(unfinished, error))?;
    // The engine closes its files and the lock goes before the directory moves.
    drop(store);
    fs::rename(unfinished, path).map_err(|error| OpenError::io(path, error))?;
    directory::sync_parent(path)
}

impl Drop for EmbeddedRestore {
    fn drop(&mut self) {
        if self.store.take().is_some() {
            // Left behind, it is found by the next attempt and named.
            drop(fs::remove_dir_all(&self.unfinished));
        }
    }
}

impl std::fmt::Debug for EmbeddedRestore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EmbeddedRestore")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

/// The directory that is filled: a neighbour, so that it can be renamed.
fn beside(path: &Path) -> PathBuf {
    let name = path.file_name().map_or_else(OsString::new, OsString::from);
    let mut name = if name.is_empty() {
        OsString::from("store")
    } else {
        name
    };
    name.push(".unfinished");
    path.with_file_name(name)
}
