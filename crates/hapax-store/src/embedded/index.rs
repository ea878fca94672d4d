//! The records that are not settled, in memory.

use std::collections::{HashMap, HashSet};

use hapax_core::key::RecordKey;
use hapax_core::record::{ClaimId, Held, StateKind};
use hapax_core::time::Timestamp;

use crate::gauges::{Gauges, NEVER, Seen};

/// What is known of an outstanding or unknown record without reading it.
#[derive(Debug, Clone, Copy)]
pub(super) struct OpenRecord {
    pub(super) claim: ClaimId,
    pub(super) claimed_at: Timestamp,
    pub(super) seen: Seen,
}

impl OpenRecord {
    /// `None` for a settled record.
    pub(super) fn of(held: &Held) -> Option<Self> {
        let kind = held.record.state.kind();
        matches!(kind, StateKind::Outstanding | StateKind::Unknown).then(|| Self {
            claim: held.record.claim,
            claimed_at: held.claimed_at,
            seen: Seen {
                kind,
                written_at: held.written_at,
                expires_at: held.expires_at().unwrap_or(NEVER),
            },
        })
    }
}

/// All keys in the engine's `open` table, and what is damaged.
#[derive(Debug, Default)]
pub(super) struct Index {
    open: HashMap<RecordKey, OpenRecord>,
    /// Keys whose settled record is being written without the key being in `open`.
    in_flight: HashSet<RecordKey>,
    damaged: HashMap<RecordKey, &'static str>,
    pub(super) gauges: Gauges,
}

impl Index {
    pub(super) fn get(&self, key: &RecordKey) -> Option<&OpenRecord> {
        self.open.get(key)
    }

    /// Whether what the `settled` table says about `key` may not be the last word yet.
    pub(super) fn is_unsettled(&self, key: &RecordKey) -> bool {
        self.open.contains_key(key) || self.in_flight.contains(key)
    }

    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    pub(super) fn put(&mut self, key: RecordKey, record: OpenRecord) {
        if let Some(before) = self.open.insert(key, record) {
            self.gauges.remove(key, before.seen);
        }
        self.gauges.add(key, record.seen);
    }

    pub(super) fn take(&mut self, key: &RecordKey) {
        if let Some(before) = self.open.remove(key) {
            self.gauges.remove(*key, before.seen);
        }
    }

    pub(super) fn enter_flight(&mut self, key: RecordKey) {
        self.in_flight.insert(key);
    }

    pub(super) fn leave_flight(&mut self, key: &RecordKey) {
        self.in_flight.remove(key);
    }

    /// What is wrong with the bytes of `key`, where that is known.
    pub(super) fn damage(&self, key: &RecordKey) -> Option<&'static str> {
        self.damaged.get(key).copied()
    }

    /// Remembers damage; whether it is news.
    pub(super) fn note_damage(&mut self, key: RecordKey, what: &'static str) -> bool {
        self.damaged.insert(key, what).is_none()
    }

    pub(super) fn damaged_len(&self) -> usize {
        self.damaged.len()
    }

    pub(super) fn outstanding(&self) -> impl Iterator<Item = RecordKey> {
        let keys = self.open.iter();
        keys.filter(|(_, record)| record.seen.kind == StateKind::Outstanding)
            .map(|(key, _)| *key)
    }
}
