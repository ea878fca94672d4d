//! The files around the engine: lock, format, secret, witness.
//!
//! A new store is made in an order in which every step can be repeated: secret, witness,
//! engine, and `FORMAT` last. While `FORMAT` is not there, nothing was ever acknowledged.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use hapax_core::secret::Secret;
use hapax_core::time::Timestamp;

use super::open::OpenError;
use super::witness::Witness;
use crate::limits::random_secret;

const LOCK: &str = "LOCK";
const FORMAT: &str = "FORMAT";
const SECRET: &str = "secret";
const WITNESS: &str = "WITNESS";
const DATA: &str = "data";
const LOG: &str = "log";

/// The first line of `FORMAT`. Another number means another layout.
const FORMAT_LINE: &str = "hapax-store 2";

/// Only the owner: the secret and everybody's answers are in there.
const DIRECTORY_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

/// How much of the lock file is shown to whoever finds it taken.
const LOCK_NOTE_BYTES: u64 = 200;

/// A store's directory, locked for as long as this lives.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    pub(super) secret: Secret,
    pub(super) witness: Witness,
    /// Whether the store was never finished: `FORMAT` is still to be written.
    pub(super) is_new: bool,
    _lock: File,
}

impl Directory {
    pub(super) fn open(path: &Path, now: Timestamp) -> Result<Self, OpenError> {
        make(path)?;
        let lock = lock(path, now)?;
        let format = read_if_there(&path.join(FORMAT))?;
        let is_new = format.is_none();
        if let Some(format) = &format {
            check_version(format)?;
        }
        let secret = match (read_if_there(&path.join(SECRET))?, is_new) {
            (Some(bytes), _) => bytes
                .try_into()
                .map(Secret::from_bytes)
                .map_err(|_| OpenError::damaged("the secret is not 32 bytes long"))?,
            (None, true) if !path.join(DATA).exists() => new_secret(path)?,
            (None, _) => return Err(OpenError::damaged("the secret is missing")),
        };
        if let Some(format) = format
            && format != format_of(&secret).as_bytes()
        {
            return Err(OpenError::damaged(
                "the secret is not the one of this store",
            ));
        }
        let witness = open_witness(path, is_new)?;
        Ok(Self {
            path: path.to_owned(),
            secret,
            witness,
            is_new,
            _lock: lock,
        })
    }

    /// Makes a directory for a new store that will have this secret.
    pub(super) fn prepare(path: &Path, secret: &Secret) -> Result<(), OpenError> {
        make(path)?;
        write_durably(path, SECRET, secret.as_bytes())
    }

    /// Where the tables are.
    pub(super) fn data(&self) -> PathBuf {
        self.path.join(DATA)
    }

    /// Where the log is.
    pub(super) fn log(&self) -> PathBuf {
        self.path.join(LOG)
    }

    /// Makes the folders of tables and log.
    pub(super) fn make_folders(&self) -> Result<(), OpenError> {
        for folder in [self.data(), self.log()] {
            fs::create_dir_all(&folder).map_err(|error| OpenError::io(&folder, error))?;
        }
        sync_directory(&self.path)
    }

    /// Marks a new store as finished.
    pub(super) fn finish(&mut self) -> Result<(), OpenError> {
        let format = format_of(&self.secret);
        write_durably(&self.path, FORMAT, format.as_bytes())?;
        self.is_new = false;
        Ok(())
    }
}

fn make(path: &Path) -> Result<(), OpenError> {
    let failed = |error| OpenError::io(path, error);
    match fs::metadata(path) {
        Ok(metadata) if !metadata.is_dir() => {
            return Err(OpenError::NotADirectory {
                path: path.to_owned(),
            });
        }
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let mut builder = DirBuilder::new();
            builder.recursive(true).mode(DIRECTORY_MODE);
            builder.create(path).map_err(failed)?;
            // The new directory's own entry; above that it is the operator's.
            sync_parent(path)?;
        }
        Err(error) => return Err(failed(error)),
    }
    fs::set_permissions(path, Permissions::from_mode(DIRECTORY_MODE)).map_err(failed)
}

fn lock(path: &Path, now: Timestamp) -> Result<File, OpenError> {
    let path = path.join(LOCK);
    let failed = |error| OpenError::io(&path, error);
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    let mut file = options.mode(FILE_MODE).open(&path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut by = Vec::new();
            (&mut file)
                .take(LOCK_NOTE_BYTES)
                .read_to_end(&mut by)
                .map_err(failed)?;
            let by = String::from_utf8_lossy(&by).trim().to_owned();
            return Err(OpenError::Locked { by });
        }
        Err(TryLockError::Error(error)) => return Err(failed(error)),
    }
    // Written in place under the lock: the note names whoever holds it.
    file.set_len(0).map_err(failed)?;
    file.rewind().map_err(failed)?;
    let note = format!("process {}, started {now}\n", std::process::id());
    file.write_all(note.as_bytes()).map_err(failed)?;
    Ok(file)
}

fn check_version(format: &[u8]) -> Result<(), OpenError> {
    let line = format.split(|byte| *byte == b'\n').next();
    let line = String::from_utf8_lossy(line.unwrap_or_default());
    if line == FORMAT_LINE {
        return Ok(());
    }
    let found = line.strip_prefix("hapax-store ");
    match found.filter(|version| version.parse::<u32>().is_ok()) {
        Some(version) => Err(OpenError::Version {
            found: version.to_owned(),
        }),
        None => Err(OpenError::damaged("FORMAT is not what a store writes")),
    }
}

/// `FORMAT` names the layout and proves the secret: with a secret that lost a bit every record
/// would be looked for under another key, and found absent.
fn format_of(secret: &Secret) -> String {
    let check = blake3::keyed_hash(secret.as_bytes(), b"hapax store secret");
    let check = check.to_hex();
    format!("{FORMAT_LINE}\nsecret-check {check}\n")
}

fn new_secret(path: &Path) -> Result<Secret, OpenError> {
    let secret = random_secret().map_err(|error| OpenError::io(path, io::Error::other(error)))?;
    write_durably(path, SECRET, secret.as_bytes())?;
    Ok(secret)
}

fn open_witness(directory: &Path, is_new: bool) -> Result<Witness, OpenError> {
    let path = directory.join(WITNESS);
    let failed = |error| OpenError::io(&path, error);
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(FILE_MODE);
    options.create(is_new).truncate(false);
    let file = match options.open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(OpenError::damaged("WITNESS is missing"));
        }
        file => file.map_err(failed)?,
    };
    let witness = Witness::new(file);
    if is_new && witness.read().is_none() {
        witness.write(0).map_err(failed)?;
        witness.sync().map_err(failed)?;
        sync_directory(directory)?;
    }
    Ok(witness)
}

fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>, OpenError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(OpenError::io(path, error)),
    }
}

/// Writes a whole file so that it is either there with all its bytes or not at all.
fn write_durably(directory: &Path, name: &str, bytes: &[u8]) -> Result<(), OpenError> {
    let (path, unfinished) = (directory.join(name), directory.join(format!("{name}.new")));
    let write = || {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true);
        let mut file = options.mode(FILE_MODE).open(&unfinished)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&unfinished, &path)
    };
    write().map_err(|error| OpenError::io(&path, error))?;
    sync_directory(directory)
}

/// Makes the entry of `path` in the directory above it durable.
pub(super) fn sync_parent(path: &Path) -> Result<(), OpenError> {
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    sync_directory(parent.unwrap_or(Path::new(".")))
}

fn sync_directory(path: &Path) -> Result<(), OpenError> {
    File::open(path)
        .and_then(|directory| directory.sync_all())
        .map_err(|error| OpenError::io(path, error))
}
