//! What is held, and what the limits and the disk leave room for.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::engine::Engine;
use super::options::Options;
use crate::clock::Stopwatch;
use crate::limits::Limits;

/// How old the sampled sizes may be: at 100 MB/s of new claims the disk loses 100 MB between
/// two samples, well under the reserve.
const SAMPLE_EVERY_MS: u64 = 1000;

/// The unit of `st_blocks`.
const BLOCK_BYTES: u64 = 512;

/// Sizes, sampled at most once a second.
pub(super) struct Space {
    limits: Limits,
    min_free_disk: u64,
    log: PathBuf,
    running: Stopwatch,
    /// When the next sample is due, in milliseconds of `running`.
    due_ms: AtomicU64,
    bytes: AtomicU64,
    is_disk_full: AtomicBool,
}

impl Space {
    pub(super) fn new(options: &Options, log: PathBuf) -> Self {
        Self {
            limits: options.limits,
            min_free_disk: options.min_free_disk,
            log,
            running: Stopwatch::start(),
            due_ms: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            is_disk_full: AtomicBool::new(false),
        }
    }

    /// Why there is no room for a new claim, if there is none.
    pub(super) fn full(&self, engine: &Engine, open_len: usize) -> Option<&'static str> {
        self.sample_when_due(engine);
        if self.is_disk_full.load(Ordering::Acquire) {
            return Some("the disk has less free than min_free_disk");
        }
        let records = if self.limits.max_records == 0 {
            0
        } else {
            self.records(engine, open_len)
        };
        self.limits
            .reached(records, self.bytes.load(Ordering::Acquire))
    }

    /// Records held, by the engine's own count, which takes each version for a record.
    pub(super) fn records(&self, engine: &Engine, open_len: usize) -> u64 {
        (engine.settled_len() + open_len) as u64
    }

    /// Bytes on disk at the last sample.
    pub(super) fn bytes(&self, engine: &Engine) -> u64 {
        self.sample_when_due(engine);
        self.bytes.load(Ordering::Acquire)
    }

    fn sample_when_due(&self, engine: &Engine) {
        let elapsed_ms = u64::try_from(self.running.elapsed().as_millis()).unwrap_or(u64::MAX);
        let due_ms = self.due_ms.load(Ordering::Acquire);
        let next_ms = elapsed_ms.saturating_add(SAMPLE_EVERY_MS);
        let is_ours = elapsed_ms >= due_ms
            && self
                .due_ms
                .compare_exchange(due_ms, next_ms, Ordering::AcqRel, Ordering::Acquire)
                .is_ok();
        if !is_ours {
            return;
        }
        self.bytes
            .store(engine.table_bytes() + self.log_bytes(), Ordering::Release);
        // A disk that does not say is taken for full: no claim is better than half a claim.
        let free = rustix::fs::statvfs(&self.log)
            .map_or(0, |stat| stat.f_bavail.saturating_mul(stat.f_frsize));
        self.is_disk_full
            .store(free < self.min_free_disk, Ordering::Release);
    }

    /// What the log takes, with its files that wait to be used again.
    fn log_bytes(&self) -> u64 {
        let Ok(entries) = fs::read_dir(&self.log) else {
            return 0;
        };
        entries
            .filter_map(|entry| entry.ok()?.metadata().ok())
            .filter(fs::Metadata::is_file)
            .map(|file| file.blocks() * BLOCK_BYTES)
            .sum()
    }
}
