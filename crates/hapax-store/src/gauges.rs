//! Exact figures about the records that are not settled.

use std::collections::BTreeMap;

use hapax_core::key::RecordKey;
use hapax_core::record::StateKind;
use hapax_core::store::Stats;
use hapax_core::time::Timestamp;

/// Counts outstanding records, and knows every unknown one by when it expires.
#[derive(Debug, Default)]
pub(crate) struct Gauges {
    outstanding: u64,
    /// (expires at, key) → written at.
    unknown: BTreeMap<(Timestamp, RecordKey), Timestamp>,
}

/// What the gauges need to know of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) kind: StateKind,
    pub(crate) written_at: Timestamp,
    /// [`NEVER`] for an outstanding record.
    pub(crate) expires_at: Timestamp,
}

/// The expiry of a record that never expires.
pub(crate) const NEVER: Timestamp = Timestamp::from_millis(u64::MAX);

impl Gauges {
    pub(crate) fn add(&mut self, key: RecordKey, seen: Seen) {
        match seen.kind {
            StateKind::Outstanding => self.outstanding += 1,
            StateKind::Unknown => {
                self.unknown.insert((seen.expires_at, key), seen.written_at);
            }
            StateKind::Completed | StateKind::Rejected | StateKind::Tombstone => {}
        }
    }

    /// Takes back an earlier [`Gauges::add`].
    pub(crate) fn remove(&mut self, key: RecordKey, seen: Seen) {
        match seen.kind {
            StateKind::Outstanding => self.outstanding = self.outstanding.saturating_sub(1),
            StateKind::Unknown => {
                self.unknown.remove(&(seen.expires_at, key));
            }
            StateKind::Completed | StateKind::Rejected | StateKind::Tombstone => {}
        }
    }

    /// Up to `limit` unknown records whose retention is over at `now`.
    #[cfg(feature = "embedded")]
    pub(crate) fn expired_unknown(&self, now: Timestamp, limit: usize) -> Vec<RecordKey> {
        self.unknown
            .keys()
            .take_while(|(expires_at, _)| *expires_at <= now)
            .take(limit)
            .map(|(_, key)| *key)
            .collect()
    }

    /// Writes the gauges at `now` into `stats`.
    pub(crate) fn fill(&self, now: Timestamp, stats: &mut Stats) {
        stats.outstanding = self.outstanding;
        let live = self.unknown.iter().rev();
        for (_, written_at) in live.take_while(|((expires_at, _), _)| *expires_at > now) {
            stats.unknown += 1;
            let oldest = stats.oldest_unknown.unwrap_or(*written_at);
            stats.oldest_unknown = Some(oldest.min(*written_at));
        }
    }
}
