//! Reads the log back when a store is opened, and holds it against what was acknowledged.
//!
//! Batch numbers follow one another without a gap that the tables do not fill, from one that they
//! have or that follows what they have, to one that is at least the last acknowledged. A frame is written when the one
//! before is synced. So a frame that is not whole is one that a crash cut off if nothing whole
//! comes behind it and everything acknowledged comes before it, and damage otherwise.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::frame::{Frame, LogKey, PAGE, is_segment};
use super::log::{number_of, path_of};
use super::memory::Memory;

/// What is wrong with the log.
#[derive(Debug, thiserror::Error)]
pub(super) enum LogError {
    #[error("{0} cannot be read")]
    Io(PathBuf, #[source] io::Error),
    #[error("{0} is missing from the log")]
    Missing(PathBuf),
    #[error("{0} does not begin as a segment of this log")]
    Head(PathBuf),
    #[error("{path} has batch {found} where {expected} should follow")]
    Gap {
        path: PathBuf,
        expected: u64,
        found: u64,
    },
    #[error("{0} has a batch that does not fit its tag, and whole ones behind it")]
    Damaged(PathBuf),
    #[error("the log begins with batch {first}, and the tables end with {flushed}")]
    Begins { first: u64, flushed: u64 },
}

/// What the log said.
#[derive(Debug)]
pub(super) struct Replayed {
    /// The last batch of tables and log, and the store's clock then.
    pub(super) batch: u64,
    pub(super) now_ms: u64,
    /// The segments that are there, lowest first.
    pub(super) segments: VecDeque<u64>,
    /// How many of them it takes to have every frame.
    used: usize,
}

/// Reads the log in `folder` into `memory`. The tables have everything up to `flushed`, written
/// when the store's clock stood at `now_ms`.
pub(super) fn replay(
    folder: &Path,
    key: &LogKey,
    flushed: u64,
    now_ms: u64,
    memory: &Memory,
) -> Result<Replayed, LogError> {
    let segments = segments(folder)?;
    let mut reading = Reading {
        key,
        memory,
        flushed,
        now_ms,
        last: None,
    };
    let mut used = 0;
    for (position, number) in segments.iter().enumerate() {
        let path = path_of(folder, *number);
        let failed = |error| LogError::Io(path.clone(), error);
        let file = File::open(&path).map_err(failed)?;
        let bytes = read(&file).map_err(failed)?;
        if !is_segment(key, *number, &bytes) {
            return Err(LogError::Head(path));
        }
        if reading.segment(&path, *number, &bytes)? {
            used = position + 1;
            // Whole but perhaps not synced when the process ended: from here on it counts.
            file.sync_data().map_err(failed)?;
        }
    }
    Ok(Replayed {
        batch: reading.last.unwrap_or(flushed).max(flushed),
        now_ms: reading.now_ms,
        used,
        segments,
    })
}

impl Replayed {
    /// Removes the segments that were prepared and have no whole frame; the last first, so that
    /// what is left is without a gap. Only when it is known that nothing is missing: they are
    /// evidence until then.
    pub(super) fn remove_unused(&mut self, folder: &Path) -> Result<(), LogError> {
        while self.segments.len() > self.used
            && let Some(number) = self.segments.pop_back()
        {
            let path = path_of(folder, number);
            fs::remove_file(&path).map_err(|error| LogError::Io(path, error))?;
        }
        Ok(())
    }
}

struct Reading<'a> {
    key: &'a LogKey,
    memory: &'a Memory,
    flushed: u64,
    now_ms: u64,
    last: Option<u64>,
}

impl Reading<'_> {
    /// Reads one segment; whether it has frames.
    fn segment(&mut self, path: &Path, number: u64, bytes: &Bytes) -> Result<bool, LogError> {
        let mut offset = PAGE;
        while let Some(frame) = Frame::read(self.key, number, bytes, offset) {
            let expected = match self.last {
                // The end of what the tables have may have been damaged, and the store gone on.
                Some(last) if frame.batch > last && frame.batch <= self.flushed + 1 => frame.batch,
                Some(last) => last + 1,
                None if frame.batch > self.flushed + 1 => {
                    return Err(LogError::Begins {
                        first: frame.batch,
                        flushed: self.flushed,
                    });
                }
                None => frame.batch,
            };
            if frame.batch != expected {
                return Err(LogError::Gap {
                    path: path.to_owned(),
                    expected,
                    found: frame.batch,
                });
            }
            self.apply(path, &frame)?;
            offset += frame.pages_len;
        }
        let pages = (offset..bytes.len()).step_by(PAGE).skip(1);
        for place in pages {
            if Frame::read(self.key, number, bytes, place).is_some() {
                return Err(LogError::Damaged(path.to_owned()));
            }
        }
        Ok(offset > PAGE)
    }

    fn apply(&mut self, path: &Path, frame: &Frame) -> Result<(), LogError> {
        self.last = Some(frame.batch);
        self.now_ms = self.now_ms.max(frame.now_ms);
        if frame.batch <= self.flushed {
            return Ok(());
        }
        let changes: Option<Vec<_>> = frame.changes().collect();
        let changes = changes.ok_or_else(|| LogError::Damaged(path.to_owned()))?;
        self.memory
            .apply(frame.batch, frame.now_ms, changes.into_iter());
        Ok(())
    }
}

/// The numbers of the segments in `folder`, lowest first, without a gap.
fn segments(folder: &Path) -> Result<VecDeque<u64>, LogError> {
    let failed = |error| LogError::Io(folder.to_owned(), error);
    let mut numbers = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        numbers.extend(number_of(&entry.map_err(failed)?.path()));
    }
    numbers.sort_unstable();
    for (number, next) in numbers.iter().zip(numbers.iter().skip(1)) {
        if *next != number + 1 {
            return Err(LogError::Missing(path_of(folder, number + 1)));
        }
    }
    Ok(numbers.into())
}

fn read(mut file: &File) -> io::Result<Bytes> {
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(bytes.into())
}
