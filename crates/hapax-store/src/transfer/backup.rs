//! A backup: a store's records in one file.
//!
//! ```text
//! "hapax-backup 1\n" secret(32)
//! per record: length(u32 LE, never 0) key(16) claimed_at(u64 LE) written_at(u64 LE) record (hapax_core::encoding)
//! at the end: 0(u32) records(u64 LE) BLAKE3 of everything before it(32)
//! ```
//!
//! Each record's own tag covers its key and instants, so that a flipped bit is found where it is; the hash at the end
//! finds a file that was cut, and covers the secret. The file is readable by its owner alone: with the secret and the
//! answers in it, it is worth as much as the store.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use hapax_core::encoding;
use hapax_core::key::RecordKey;
use hapax_core::record::Held;
use hapax_core::secret::{HashKeys, Secret};
use hapax_core::time::Timestamp;

use super::TransferError;

const MAGIC: &[u8; 15] = b"hapax-backup 1\n";

/// What a record's tag covers beside its bytes begins with it, so that no record of a store passes for one of a backup.
const BESIDE: &[u8; 8] = b"backup 1";

const OWNER_ONLY: u32 = 0o600;

/// Key and two instants.
const HEAD_LEN: usize = 16 + 8 + 8;

/// Writes a backup. It is under its name when it is complete, and not before.
#[derive(Debug)]
pub struct BackupWriter {
    path: PathBuf,
    unfinished: PathBuf,
    out: BufWriter<File>,
    hasher: Box<blake3::Hasher>,
    keys: HashKeys,
    records: u64,
    is_finished: bool,
}

impl BackupWriter {
    /// Begins a backup in `path`, where nothing may be yet.
    ///
    /// # Errors
    /// [`TransferError::NotVacant`] and [`TransferError::Io`].
    pub fn create(path: &Path, secret: &Secret) -> Result<Self, TransferError> {
        let failed = |source| TransferError::Io {
            path: path.to_owned(),
            source,
        };
        if path.try_exists().map_err(failed)? {
            return Err(TransferError::NotVacant(format!(
                "{} is there already",
                path.display()
            )));
        }
        let mut name = path.as_os_str().to_owned();
        name.push(".unfinished");
        let unfinished = PathBuf::from(name);
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true);
        let file = options.mode(OWNER_ONLY).open(&unfinished).map_err(failed)?;
        let mut backup = Self {
            path: path.to_owned(),
            unfinished,
            out: BufWriter::new(file),
            hasher: Box::default(),
            keys: HashKeys::derive(secret),
            records: 0,
            is_finished: false,
        };
        backup.write(MAGIC)?;
        backup.write(secret.as_bytes())?;
        Ok(backup)
    }

    pub(super) fn put(&mut self, records: &[(RecordKey, Held)]) -> Result<(), TransferError> {
        for (key, held) in records {
            let beside = beside(held.claimed_at, held.written_at);
            let record = encoding::encode(&self.keys, key, &held.record, &beside);
            let record = record.map_err(TransferError::Record)?;
            let len = u32::try_from(HEAD_LEN + record.len())
                .map_err(|_| self.failed(io::Error::from(io::ErrorKind::FileTooLarge)))?;
            self.write(&len.to_le_bytes())?;
            self.write(key.as_bytes())?;
            self.write(beside.split_at(BESIDE.len()).1)?;
            self.write(&record)?;
            self.records += 1;
        }
        Ok(())
    }

    pub(super) fn finish(mut self) -> Result<(), TransferError> {
        self.write(&0_u32.to_le_bytes())?;
        self.write(&self.records.to_le_bytes())?;
        let hash = self.hasher.finalize();
        self.write(hash.as_bytes())?;
        let synced = self.out.flush().and_then(|()| {
            self.out.get_ref().sync_all()?;
            fs::rename(&self.unfinished, &self.path)?;
            let folder = self
                .path
                .parent()
                .filter(|path| !path.as_os_str().is_empty());
            File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
        });
        synced.map_err(|error| self.failed(error))?;
        self.is_finished = true;
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), TransferError> {
        self.hasher.update(bytes);
        let written = self.out.write_all(bytes);
        written.map_err(|error| self.failed(error))
    }

    fn failed(&self, source: io::Error) -> TransferError {
        TransferError::Io {
            path: self.path.clone(),
            source,
        }
    }
}

impl Drop for BackupWriter {
    fn drop(&mut self) {
        if !self.is_finished {
            // Half a backup is of no use; left behind, it says so by its name.
            drop(fs::remove_file(&self.unfinished));
        }
    }
}

/// Reads a backup and checks it on the way.
#[derive(Debug)]
pub struct BackupReader {
    path: PathBuf,
    from: BufReader<File>,
    hasher: Box<blake3::Hasher>,
    secret: Secret,
    keys: HashKeys,
    records: u64,
    is_over: bool,
}

impl BackupReader {
    /// Opens the backup in `path`.
    ///
    /// # Errors
    /// [`TransferError::Io`] and [`TransferError::NotABackup`].
    pub fn open(path: &Path) -> Result<Self, TransferError> {
        let file = File::open(path).map_err(|source| TransferError::Io {
            path: path.to_owned(),
            source,
        })?;
        let mut backup = Self {
            path: path.to_owned(),
            from: BufReader::new(file),
            hasher: Box::default(),
            secret: Secret::from_bytes([0; 32]),
            keys: HashKeys::derive(&Secret::from_bytes([0; 32])),
            records: 0,
            is_over: false,
        };
        let no_backup = |error| match error {
            TransferError::DamagedBackup { path, .. } => TransferError::NotABackup(path),
            error => error,
        };
        let magic: [u8; MAGIC.len()] = backup.array().map_err(no_backup)?;
        if magic != *MAGIC {
            return Err(TransferError::NotABackup(path.to_owned()));
        }
        backup.secret = Secret::from_bytes(backup.array().map_err(no_backup)?);
        backup.keys = HashKeys::derive(&backup.secret);
        Ok(backup)
    }

    /// The secret of the store it was made of.
    pub fn secret(&self) -> &Secret {
        &self.secret
    }

    /// Up to `limit` records; `None` behind the last, when the whole file is what was written.
    pub(super) fn next(
        &mut self,
        limit: usize,
    ) -> Result<Option<Vec<(RecordKey, Held)>>, TransferError> {
        if self.is_over {
            return Ok(None);
        }
        let mut records = Vec::with_capacity(limit);
        while records.len() < limit {
            let len = u32::from_le_bytes(self.array()?) as usize;
            if len == 0 {
                self.end()?;
                self.is_over = true;
                break;
            }
            records.push(self.record(len)?);
            self.records += 1;
        }
        Ok(Some(records))
    }

    fn record(&mut self, len: usize) -> Result<(RecordKey, Held), TransferError> {
        let rest = len.checked_sub(HEAD_LEN);
        let rest = rest.ok_or_else(|| self.damaged("a record is too short"))?;
        let key = RecordKey::from_bytes(self.array()?);
        let claimed_at = Timestamp::from_millis(u64::from_le_bytes(self.array()?));
        let written_at = Timestamp::from_millis(u64::from_le_bytes(self.array()?));
        // Grows with what is there: a length that lost a bit does not take memory for nothing.
        let mut bytes = Vec::new();
        let read = (&mut self.from).take(rest as u64).read_to_end(&mut bytes);
        if read.map_err(|error| self.failed(error))? < rest {
            return Err(self.damaged("it ends in the middle of a record"));
        }
        self.hasher.update(&bytes);
        let beside = beside(claimed_at, written_at);
        let record = encoding::decode(&self.keys, &key, &Bytes::from(bytes), &beside);
        let record = record.map_err(|_| self.damaged("a record is not what was written"))?;
        let held = Held {
            record,
            claimed_at,
            written_at,
        };
        Ok((key, held))
    }

    fn end(&mut self) -> Result<(), TransferError> {
        let records = u64::from_le_bytes(self.array()?);
        let hash = self.hasher.finalize();
        let written: [u8; 32] = self.array()?;
        let after = self
            .from
            .read(&mut [0])
            .map_err(|error| self.failed(error))?;
        if hash != written || records != self.records || after != 0 {
            return Err(self.damaged("it is not the whole of what was written"));
        }
        Ok(())
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], TransferError> {
        let mut bytes = [0; N];
        self.from
            .read_exact(&mut bytes)
            .map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => self.damaged("it ends too early"),
                _ => self.failed(error),
            })?;
        self.hasher.update(&bytes);
        Ok(bytes)
    }

    fn failed(&self, source: io::Error) -> TransferError {
        TransferError::Io {
            path: self.path.clone(),
            source,
        }
    }

    fn damaged(&self, what: &'static str) -> TransferError {
        TransferError::DamagedBackup {
            path: self.path.clone(),
            what,
        }
    }
}

/// What a record's tag covers beside its bytes: [`BESIDE`] and the two instants.
fn beside(claimed_at: Timestamp, written_at: Timestamp) -> [u8; BESIDE.len() + 16] {
    let mut beside = [0; BESIDE.len() + 16];
    let parts = [
        *BESIDE,
        claimed_at.as_millis().to_le_bytes(),
        written_at.as_millis().to_le_bytes(),
    ];
    for (to, from) in beside.chunks_exact_mut(8).zip(parts) {
        to.copy_from_slice(&from);
    }
    beside
}
