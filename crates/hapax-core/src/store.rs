//! The contract every store keeps.

use std::future::Future;

use crate::key::RecordKey;
use crate::record::{ClaimId, Held, Record, StateKind};
use crate::secret::Secret;
use crate::time::Timestamp;

/// Durable memory of records. Every method is atomic; none decides anything.
///
/// Durations travel to a store, instants come from it: a store stamps `written_at` at every
/// write and `claimed_at` at every write that changes the claim id, both by its own clock, which
/// never goes backwards. No method has a default: a default could only fake atomicity.
pub trait Store: Send + Sync + 'static {
    /// Writes `record` if `key` is vacant or what is there has expired by the store's clock;
    /// durable on return. Otherwise returns what is there, and the store's `now`.
    ///
    /// # Errors
    /// [`StoreError::Refused`], [`StoreError::Full`] and [`StoreError::Damaged`]: nothing was
    /// written. [`StoreError::Uncertain`]: it may have been written.
    fn insert(
        &self,
        key: &RecordKey,
        record: &Record,
    ) -> impl Future<Output = Result<Insert, StoreError>> + Send;

    /// Writes `record` if the claim `expected` still holds `key` (an expired record is held by
    /// nobody); says whether it did. Durable on return.
    ///
    /// # Errors
    /// As [`Store::insert`]. Full stores must still take this write: it settles a claim.
    fn replace(
        &self,
        key: &RecordKey,
        expected: ClaimId,
        record: &Record,
    ) -> impl Future<Output = Result<Write, StoreError>> + Send;

    /// Removes the record if the claim `expected` still holds it; says whether it did. Durable
    /// on return.
    ///
    /// # Errors
    /// As [`Store::insert`].
    fn remove(
        &self,
        key: &RecordKey,
        expected: ClaimId,
    ) -> impl Future<Output = Result<Write, StoreError>> + Send;

    /// Reads without changing anything. An expired record is `None`. What is returned is
    /// durable: nobody is shown a record that a power cut could still take back.
    ///
    /// # Errors
    /// [`StoreError::Refused`] or [`StoreError::Damaged`].
    fn read(
        &self,
        key: &RecordKey,
    ) -> impl Future<Output = Result<(Option<Held>, Timestamp), StoreError>> + Send;

    /// Removes up to `limit` expired records, and never an outstanding one.
    ///
    /// # Errors
    /// [`StoreError::Refused`].
    fn sweep(&self, limit: usize) -> impl Future<Output = Result<Swept, StoreError>> + Send;

    /// A page of up to `limit` records that match `filter`, in the order of their keys.
    ///
    /// # Errors
    /// [`StoreError::Refused`] or [`StoreError::Damaged`].
    fn list(
        &self,
        filter: &Filter,
        after: Option<Cursor>,
        limit: usize,
    ) -> impl Future<Output = Result<Page, StoreError>> + Send;

    /// Figures for gauges; cheap enough to ask every few seconds.
    ///
    /// # Errors
    /// [`StoreError::Refused`].
    fn stats(&self) -> impl Future<Output = Result<Stats, StoreError>> + Send;

    /// The store's secret, which keys every digest kept in it.
    fn secret(&self) -> &Secret;

    /// What a record that was acknowledged survives.
    fn durability(&self) -> Durability;
}

/// What [`Store::insert`] did.
#[derive(Debug, Clone, PartialEq)]
pub enum Insert {
    /// The key was vacant and the record is now there, durably.
    Claimed {
        /// The store's clock at the write.
        now: Timestamp,
    },
    /// The key is held by this record.
    Occupied {
        /// What is there.
        held: Box<Held>,
        /// The store's clock at the look-up.
        now: Timestamp,
    },
}

/// What [`Store::replace`] or [`Store::remove`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Write {
    /// Written, durably.
    Applied {
        /// The store's clock at the write.
        now: Timestamp,
    },
    /// The expected claim no longer holds the key. Nothing was written.
    Stale,
}

/// What [`Store::sweep`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Swept {
    /// How many expired records went.
    pub removed: usize,
    /// Whether more are known to be due.
    pub more_due: bool,
}

/// Which records [`Store::list`] shows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Filter {
    /// Only records in this state.
    pub state: Option<StateKind>,
    /// Only records of the route with this name.
    pub route: Option<String>,
    /// Only records written at or after this instant.
    pub since: Option<Timestamp>,
}

impl Filter {
    /// Whether `held` is shown at `now`. An expired record never is.
    pub fn matches(&self, held: &Held, now: Timestamp) -> bool {
        let Some(kind) = held.kind_at(now) else {
            return false;
        };
        self.state.is_none_or(|state| state == kind)
            && self
                .route
                .as_ref()
                .is_none_or(|route| **route == *held.record.route)
            && self.since.is_none_or(|since| since <= held.written_at)
    }
}

/// Where a page of [`Store::list`] ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor(pub RecordKey);

/// A page of records.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Page {
    /// The records.
    pub records: Vec<(RecordKey, Held)>,
    /// Where the next page starts; `None` when this was the last. A page may be shorter than
    /// asked for, even empty, and still not the last: a store bounds how much one call reads.
    pub next: Option<Cursor>,
}

/// Figures about a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Records held, expired ones that still take room included; an estimate where counting
    /// would cost a scan.
    pub records: u64,
    /// Bytes on disk (or in memory, for a store that has no disk).
    pub bytes: u64,
    /// Outstanding records, exactly.
    pub outstanding: u64,
    /// Unknown records, exactly.
    pub unknown: u64,
    /// When the oldest unknown record became unknown.
    pub oldest_unknown: Option<Timestamp>,
    /// Records that could not be read because their bytes are damaged, found so far.
    pub damaged: u64,
    /// The store's clock.
    pub now: Timestamp,
}

/// What an acknowledged record survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// A crash of the process and of the machine.
    Durable,
    /// Less than that; the set-up's documentation says what.
    BestEffort,
}

/// Why a store could not do what it was asked, by what the caller can do about it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Nothing was written, and nothing will be: safe to give up or to ask again.
    #[error("the store refused: {reason}")]
    Refused {
        /// What is wrong with the store.
        reason: &'static str,
        /// The cause below, where there is one.
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// The write may have happened: read the key to find out (P51).
    #[error("the store did not say whether it wrote: {reason}")]
    Uncertain {
        /// What is wrong with the store.
        reason: &'static str,
        /// The cause below, where there is one.
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// A quota or the disk is full: no new claim is taken, live records stay (P36).
    #[error("the store is full: {what}")]
    Full {
        /// Which limit was reached.
        what: &'static str,
    },
    /// A record's bytes are not what was written. An alarm, never an answer.
    #[error("a stored record is damaged: {what}")]
    Damaged {
        /// What does not fit.
        what: &'static str,
    },
}

impl StoreError {
    /// Whether the write can have happened all the same.
    pub const fn may_have_written(&self) -> bool {
        matches!(self, Self::Uncertain { .. })
    }
}
