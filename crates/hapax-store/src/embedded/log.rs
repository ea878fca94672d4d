//! The log: what was acknowledged and is not in the tables yet, in segments of a fixed size.
//!
//! A segment is as long as it will ever be before the first frame goes into it, and its file is
//! used again when it is no longer needed: a sync then writes what was appended and nothing of
//! the file system's own, which is most of what a sync of a growing file costs.
//!
//! A segment's file gets its name when its first page is on the disk. Numbers follow one another
//! without a gap; the oldest go first.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::frame::{FrameBuilder, LogKey, PAGE, segment_head};

/// The length of a segment, unless one frame alone is longer.
const SEGMENT_BYTES: u64 = 16 << 20;
const MIN_SEGMENT_BYTES: u64 = 1 << 20;

/// Files kept to be used again: what a layer of records leaves behind when it is written out.
const SPARES: usize = 4;

const FILE_MODE: u32 = 0o600;

/// The files of the log.
#[derive(Debug)]
pub(super) struct Segments {
    folder: PathBuf,
    key: LogKey,
    segment_bytes: u64,
    pool: Mutex<Pool>,
}

#[derive(Debug)]
struct Pool {
    /// The highest number that a file has.
    last: u64,
    /// The segment `last`, when nobody writes to it yet.
    prepared: Option<File>,
    /// The numbers of the files that are there, lowest first.
    numbers: VecDeque<u64>,
    /// Files to be used again.
    spares: Vec<PathBuf>,
    /// The name of the next spare.
    next_spare: u64,
}

impl Segments {
    /// The log in `folder`, which has the segments `numbers`. Other files there are removed.
    pub(super) fn new(
        folder: PathBuf,
        key: LogKey,
        numbers: VecDeque<u64>,
        memory_bytes: u64,
    ) -> io::Result<Self> {
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            if number_of(&path).is_none() {
                fs::remove_file(path)?;
            }
        }
        Ok(Self {
            folder,
            key,
            segment_bytes: memory_bytes
                .clamp(MIN_SEGMENT_BYTES, SEGMENT_BYTES)
                .next_multiple_of(PAGE as u64),
            pool: Mutex::new(Pool {
                last: numbers.back().copied().unwrap_or(0),
                prepared: None,
                numbers,
                spares: Vec::new(),
                next_spare: 0,
            }),
        })
    }

    /// Sees to it that the next segment is there before it is needed.
    pub(super) fn prepare(&self) -> io::Result<()> {
        let mut pool = self.pool();
        if pool.prepared.is_none() {
            let file = self.make(&mut pool)?;
            pool.prepared = Some(file);
        }
        Ok(())
    }

    /// How many segments there are.
    pub(super) fn len(&self) -> usize {
        self.pool().numbers.len()
    }

    /// The next segment, and its number.
    fn take(&self) -> io::Result<(u64, File)> {
        let mut pool = self.pool();
        let file = match pool.prepared.take() {
            Some(file) => file,
            None => self.make(&mut pool)?,
        };
        Ok((pool.last, file))
    }

    fn make(&self, pool: &mut Pool) -> io::Result<File> {
        let number = pool.last + 1;
        let path = match pool.spares.pop() {
            Some(path) => path,
            None => self.spare(pool),
        };
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false);
        let file = options.mode(FILE_MODE).open(&path)?;
        reserve(&file, self.segment_bytes)?;
        file.write_all_at(&segment_head(&self.key, number), 0)?;
        file.sync_all()?;
        fs::rename(&path, path_of(&self.folder, number))?;
        sync_folder(&self.folder)?;
        pool.last = number;
        pool.numbers.push_back(number);
        Ok(file)
    }

    fn spare(&self, pool: &mut Pool) -> PathBuf {
        pool.next_spare += 1;
        self.folder.join(format!("{}.spare", pool.next_spare))
    }

    /// Lets go of the segments up to `number`: all that is in them is in the tables. Each goes
    /// for good before the next: what is left of a log is always its end.
    pub(super) fn retire(&self, number: u64) -> io::Result<()> {
        loop {
            // Not held throughout: the writer may need a segment meanwhile.
            let mut pool = self.pool();
            let Some(oldest) = pool
                .numbers
                .front()
                .copied()
                .filter(|oldest| *oldest <= number)
            else {
                return Ok(());
            };
            let path = path_of(&self.folder, oldest);
            if pool.spares.len() < SPARES {
                let spare = self.spare(&mut pool);
                fs::rename(&path, &spare)?;
                sync_folder(&self.folder)?;
                pool.spares.push(spare);
            } else {
                fs::remove_file(&path)?;
                sync_folder(&self.folder)?;
            }
            pool.numbers.pop_front();
        }
    }

    fn pool(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The end of the log, to which frames are appended. Frames go to the disk whole and in order:
/// the next is written when the one before is synced.
#[derive(Debug)]
pub(super) struct Log {
    segments: Arc<Segments>,
    file: File,
    number: u64,
    offset: u64,
}

impl Log {
    /// Goes on in a new segment: what a crash left at the end of the last one stays as it is.
    pub(super) fn new(segments: Arc<Segments>) -> io::Result<Self> {
        let (number, file) = segments.take()?;
        Ok(Self {
            segments,
            file,
            number,
            offset: PAGE as u64,
        })
    }

    /// The segment that is written to.
    pub(super) fn segment(&self) -> u64 {
        self.number
    }

    /// Appends a frame, which is not on the disk before [`Self::sync`].
    pub(super) fn append(&mut self, frame: &mut FrameBuilder) -> io::Result<()> {
        let len = frame.len() as u64;
        let is_empty = self.offset == PAGE as u64;
        if !is_empty && self.offset + len > self.segments.segment_bytes {
            self.rotate()?;
        }
        let bytes = frame
            .seal(&self.segments.key, self.number, self.offset)
            .ok_or_else(|| io::Error::other("a batch of 4 GiB"))?;
        self.file.write_all_at(bytes, self.offset)?;
        self.offset = (self.offset + len).next_multiple_of(PAGE as u64);
        Ok(())
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Goes on in the next segment.
    pub(super) fn rotate(&mut self) -> io::Result<()> {
        (self.number, self.file) = self.segments.take()?;
        self.offset = PAGE as u64;
        Ok(())
    }
}

/// Gives a file its length, and where the file system can, its room on the disk.
fn reserve(file: &File, len: u64) -> io::Result<()> {
    if file.metadata()?.len() >= len {
        return Ok(());
    }
    match rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), 0, len) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => file.set_len(len),
        Err(error) => Err(error.into()),
    }
}

pub(super) fn path_of(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number:012}.log"))
}

/// The number of the segment that a path names, if it names one.
pub(super) fn number_of(path: &Path) -> Option<u64> {
    let name = path.file_name()?.to_str()?;
    name.strip_suffix(".log")?.parse().ok()
}

pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}
