//! What an embedded store can be told, and what it tells.

use std::fmt;
use std::sync::Arc;

use hapax_core::time::Clock;

use crate::clock::SystemClock;
use crate::limits::Limits;
use crate::observer::{NoObserver, StoreObserver};

/// How an embedded store is set up.
#[derive(Clone)]
pub struct Options {
    /// How much it may hold.
    pub limits: Limits,
    /// No new claim is taken when the disk has less free than this, so that the claims that
    /// are outstanding can still be settled. Default 256 MiB, as much as the log may take.
    pub min_free_disk: u64,
    /// Memory for blocks that were read. Default 64 MiB.
    pub cache_bytes: u64,
    /// Memory for what was written lately before it goes to the tables; as much again while it
    /// is written out, and up to four times as much when the disk is slow. Default 32 MiB.
    pub memtable_bytes: u64,
    /// The clock; a store raises it to the last instant of the previous process.
    pub clock: Arc<dyn Clock>,
    /// Who is told about syncs and failures.
    pub observer: Arc<dyn StoreObserver>,
    /// Faults to inject.
    #[cfg(feature = "fault-injection")]
    pub faults: Arc<Faults>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            min_free_disk: 256 << 20,
            cache_bytes: 64 << 20,
            memtable_bytes: 32 << 20,
            clock: Arc::new(SystemClock::new()),
            observer: Arc::new(NoObserver),
            #[cfg(feature = "fault-injection")]
            faults: Arc::default(),
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("limits", &self.limits)
            .field("min_free_disk", &self.min_free_disk)
            .field("cache_bytes", &self.cache_bytes)
            .field("memtable_bytes", &self.memtable_bytes)
            .finish_non_exhaustive()
    }
}

/// Whether a store can write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// It can.
    Healthy,
    /// A write or a sync failed, and is not tried again: after a failed sync nobody knows which
    /// pages reached the disk. Restart the process to recover from what is there.
    Failed {
        /// What failed.
        reason: String,
    },
}

/// Faults to inject into an embedded store.
#[cfg(feature = "fault-injection")]
#[derive(Debug, Default)]
pub struct Faults {
    /// The next batch fails as if its sync had failed.
    pub fail_next_sync: std::sync::atomic::AtomicBool,
    /// Acknowledges without syncing: what a power cut must be able to reveal.
    pub dangerously_without_sync: std::sync::atomic::AtomicBool,
}
