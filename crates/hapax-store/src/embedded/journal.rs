//! Looks through the engine's journals before the engine opens them.
//!
//! The engine takes a journal entry that it cannot parse for the torn end of the file and cuts
//! the rest off, acknowledged batches included, and it does not check the sequence numbers,
//! by which it tells old versions from new ones and skips what it has flushed. One flipped
//! bit could so take records away without a word. This pass checks what the engine does not:
//! that our batch numbers follow one another without a gap through all journals, that sequence
//! numbers grow and are at least what the writer saw when it built the batch, and that a
//! journal that was sealed has nothing but padding behind its last batch. It checks the batches'
//! checksums too, which the engine also does, but only after it has acted on what they cover.
//!
//! It reads fjall's format 3. A release that changes it fails loudly here, in every test that
//! opens a store twice.

use std::fs;
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::xxh3_64;

/// Tags and sizes of fjall's journal entries.
const TAG_START: u8 = 1;
const TAG_ITEM: u8 = 2;
const TAG_END: u8 = 3;
const TAG_CLEAR: u8 = 4;
const END_MAGIC: &[u8] = b"FJL\x03";

/// The key under which each batch carries [`BatchInfo`]. Not 16 bytes long, so no record's.
pub(super) const BATCH_KEY: &[u8] = b"hapax.batch";

/// What each batch says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BatchInfo {
    /// Counts the batches of a store, from 1.
    pub(super) number: u64,
    /// The store's clock when it was written.
    pub(super) now_ms: u64,
    /// The engine's next sequence number when it was built: its own is at least this.
    pub(super) min_seqno: u64,
}

impl BatchInfo {
    pub(super) fn to_bytes(self) -> [u8; 24] {
        let mut bytes = [0; 24];
        let numbers = [self.number, self.now_ms, self.min_seqno];
        for (to, number) in bytes.chunks_exact_mut(8).zip(numbers) {
            to.copy_from_slice(&number.to_le_bytes());
        }
        bytes
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader { bytes };
        Some(Self {
            number: reader.u64()?,
            now_ms: reader.u64()?,
            min_seqno: reader.u64()?,
        })
    }
}

/// What is wrong with the journals.
#[derive(Debug, thiserror::Error)]
pub(super) enum JournalError {
    #[error("{0} cannot be read")]
    Io(PathBuf, #[source] std::io::Error),
    #[error("{0} ends in the middle although it was sealed whole")]
    SealedCutShort(PathBuf),
    #[error("{path} has batch {found} where {expected} should follow")]
    Gap {
        path: PathBuf,
        expected: u64,
        found: u64,
    },
    #[error("{0} has a batch whose sequence number is out of order")]
    Order(PathBuf),
    #[error("{0} has a batch that does not fit its checksum")]
    Checksum(PathBuf),
    #[error("acknowledged batches {0} to {1} are missing from the journal")]
    Lost(u64, u64),
}

/// Checks all journals in `folder` against each other and against what `witness` says.
pub(super) fn check(folder: &Path, witness: u64) -> Result<(), JournalError> {
    let paths = journals(folder)?;
    let (mut last, mut last_seqno) = (None, None);
    for (position, path) in paths.iter().enumerate() {
        let bytes = fs::read(path).map_err(|error| JournalError::Io(path.clone(), error))?;
        let mut reader = Reader { bytes: &bytes };
        let mut rest = reader.bytes;
        while let Some(batch) = next_batch(&mut reader) {
            let Batch {
                seqno,
                info,
                is_intact,
            } = batch;
            let before = std::mem::replace(&mut rest, reader.bytes);
            if !is_intact {
                let is_last = position + 1 == paths.len() && next_batch(&mut reader).is_none();
                // Pages reach the disk in any order: a whole batch with a hole in it is one that
                // the power cut off, as long as no acknowledged batch can be it or follow it.
                if is_last && last.is_none_or(|last| last >= witness) {
                    return cut(path, bytes.len() - before.len());
                }
                return Err(JournalError::Checksum(path.clone()));
            }
            if last_seqno.is_some_and(|last_seqno| seqno <= last_seqno) {
                return Err(JournalError::Order(path.clone()));
            }
            last_seqno = Some(seqno);
            let Some(info) = info else { continue };
            if seqno < info.min_seqno {
                return Err(JournalError::Order(path.clone()));
            }
            let (expected, found) = (last.map_or(info.number, |last| last + 1), info.number);
            if found != expected {
                let path = path.clone();
                return Err(JournalError::Gap {
                    path,
                    expected,
                    found,
                });
            }
            last = Some(found);
        }
        let is_sealed = position + 1 < paths.len();
        if rest.iter().any(|byte| *byte != 0) {
            if is_sealed {
                return Err(JournalError::SealedCutShort(path.clone()));
            }
            // A torn end is what a power cut leaves, as long as nothing in it was acknowledged.
            // Known for sure when a batch before it tells how far the journal goes.
            if let Some(last) = last
                && last < witness
            {
                return Err(JournalError::Lost(last + 1, witness));
            }
        }
    }
    Ok(())
}

/// Cuts a torn batch off: the engine does so where the tear shows in the structure, and will
/// not open where it shows in the checksum only.
fn cut(path: &Path, len: usize) -> Result<(), JournalError> {
    let file = fs::OpenOptions::new().write(true).open(path);
    file.and_then(|file| {
        file.set_len(len as u64)?;
        file.sync_all()
    })
    .map_err(|error| JournalError::Io(path.to_owned(), error))
}

/// The journals in `folder`, oldest first.
fn journals(folder: &Path) -> Result<Vec<PathBuf>, JournalError> {
    let failed = |error| JournalError::Io(folder.to_owned(), error);
    let mut numbered = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        let number = name.and_then(|name| name.strip_suffix(".jnl")?.parse::<u64>().ok());
        if let Some(number) = number {
            numbered.push((number, path));
        }
    }
    numbered.sort_unstable();
    Ok(numbered.into_iter().map(|(_, path)| path).collect())
}

struct Batch {
    seqno: u64,
    /// What it says about itself; the engine has batches of its own that say nothing.
    info: Option<BatchInfo>,
    is_intact: bool,
}

/// Reads one whole batch. `None` at the end, or where the bytes are no batch.
fn next_batch(reader: &mut Reader<'_>) -> Option<Batch> {
    if reader.u8()? != TAG_START {
        return None;
    }
    let items = reader.u32()?;
    let seqno = reader.u64()?;
    let mut info = None;
    let from = reader.bytes;
    for _ in 0..items {
        match reader.u8()? {
            TAG_ITEM => {
                let _value_type = reader.u8()?;
                // Compression: we build the engine without any, which is one zero byte.
                if reader.u8()? != 0 {
                    return None;
                }
                let _keyspace = reader.u64()?;
                let key_len = usize::from(reader.u16()?);
                let _value_len = reader.u32()?;
                let stored_len = reader.u32()? as usize;
                let key = reader.take(key_len)?;
                let value = reader.take(stored_len)?;
                if key == BATCH_KEY {
                    info = Some(BatchInfo::from_bytes(value)?);
                }
            }
            TAG_CLEAR => drop(reader.u64()?),
            _ => return None,
        }
    }
    let covered = from.get(..from.len() - reader.bytes.len())?;
    if reader.u8()? != TAG_END {
        return None;
    }
    let checksum = reader.u64()?;
    if reader.take(END_MAGIC.len())? != END_MAGIC {
        return None;
    }
    Some(Batch {
        seqno,
        info,
        is_intact: xxh3_64(covered) == checksum,
    })
}

struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.bytes.split_at_checked(len)?;
        self.bytes = rest;
        Some(taken)
    }

    fn chunk<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn u8(&mut self) -> Option<u8> {
        self.chunk().map(u8::from_le_bytes)
    }

    fn u16(&mut self) -> Option<u16> {
        self.chunk().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.chunk().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.chunk().map(u64::from_le_bytes)
    }
}
