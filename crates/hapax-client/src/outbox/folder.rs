//! The outbox's folder: a file an entry, written beside its place, flushed, renamed, and the folder flushed.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::OutboxError;
use super::entry::Entry;

const ENDING: &str = "intent";
const DRAFT: &str = "draft";
const LOCK: &str = "lock";

/// The folder, open for this process alone, and what is in it.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    entries: Mutex<Entries>,
    /// Held until the process ends or the outbox is dropped.
    _lock: File,
}

#[derive(Debug, Default)]
struct Entries {
    by_name: BTreeMap<String, Entry>,
    last: u64,
}

impl Folder {
    pub(super) fn open(path: &Path) -> Result<Self, OutboxError> {
        make(path)?;
        let lock = private()
            .write(true)
            .create(true)
            .truncate(false)
            .open(path.join(LOCK))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(OutboxError::InUse),
            Err(TryLockError::Error(error)) => return Err(error.into()),
        }
        let mut entries = Entries::default();
        for file in fs::read_dir(path)? {
            let file = file?.path();
            match file.extension().and_then(|ending| ending.to_str()) {
                Some(ENDING) => {
                    let damaged = || OutboxError::Damaged(file.display().to_string());
                    let entry = Entry::decode(&fs::read(&file)?).ok_or_else(damaged)?;
                    if file != place(path, &entry.name) {
                        return Err(damaged());
                    }
                    entries.last = entries.last.max(entry.number);
                    entries.by_name.insert(entry.name.clone(), entry);
                }
                // A write that never came to its place: nothing was sent on its account.
                Some(DRAFT) => fs::remove_file(&file)?,
                _ => {}
            }
        }
        Ok(Self {
            path: path.to_owned(),
            entries: Mutex::new(entries),
            _lock: lock,
        })
    }

    /// Oldest first.
    pub(super) fn names(&self) -> Vec<String> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let mut found: Vec<_> = entries
            .by_name
            .values()
            .map(|entry| (entry.number, entry.name.clone()))
            .collect();
        found.sort();
        found.into_iter().map(|(_, name)| name).collect()
    }

    pub(super) fn entry(&self, name: &str) -> Option<Entry> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.by_name.get(name).cloned()
    }

    /// Keeps an entry in the place of one of its name. It is on the disk when this returns.
    pub(super) fn write(&self, mut entry: Entry) -> Result<(), OutboxError> {
        if entry.number == 0 {
            let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
            entries.last = entries.last.saturating_add(1);
            entry.number = entries.last;
        }
        let place = place(&self.path, &entry.name);
        let draft = place.with_extension(DRAFT);
        let mut file = private()
            .write(true)
            .create(true)
            .truncate(true)
            .open(&draft)?;
        file.write_all(&entry.encode()?)?;
        file.sync_all()?;
        fs::rename(&draft, &place)?;
        self.flush()?;
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.by_name.insert(entry.name.clone(), entry);
        Ok(())
    }

    pub(super) fn remove(&self, name: &str) -> Result<(), OutboxError> {
        match fs::remove_file(place(&self.path, name)) {
            Ok(()) => self.flush()?,
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.by_name.remove(name);
        Ok(())
    }

    /// Makes renames and removals durable.
    #[cfg(unix)]
    fn flush(&self) -> Result<(), OutboxError> {
        Ok(File::open(&self.path)?.sync_all()?)
    }

    /// A folder cannot be flushed here; the file system's own journal orders its changes.
    #[cfg(not(unix))]
    fn flush(&self) -> Result<(), OutboxError> {
        Ok(())
    }
}

fn place(folder: &Path, name: &str) -> PathBuf {
    folder
        .join(blake3::hash(name.as_bytes()).to_hex().as_str())
        .with_extension(ENDING)
}

#[cfg(unix)]
fn make(path: &Path) -> Result<(), OutboxError> {
    use std::os::unix::fs::DirBuilderExt as _;
    Ok(fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)?)
}

#[cfg(not(unix))]
fn make(path: &Path) -> Result<(), OutboxError> {
    Ok(fs::create_dir_all(path)?)
}

/// Files for their owner's eyes.
#[cfg(unix)]
fn private() -> OpenOptions {
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut options = OpenOptions::new();
    options.mode(0o600);
    options
}

#[cfg(not(unix))]
fn private() -> OpenOptions {
    OpenOptions::new()
}
