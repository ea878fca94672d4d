//! What went over the wire, lost answers included: for the page's drawer of requests.

use std::collections::{HashSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::Serialize;

use super::fate::Place;
use super::wire::Till;

/// How many requests are remembered; the oldest go first.
const MAX_ENTRIES: usize = 500;

/// How many places are remembered, to tell a browser's own repeat.
const MAX_PLACES: usize = 10_000;

/// What became of a request on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Outcome {
    /// The answer reached the page.
    Delivered,
    /// There was an answer, and the network lost it.
    Lost,
    /// Nobody listened: nothing was sent.
    Unreachable,
    /// It was sent, and the other side died before it answered.
    Cut,
    /// A copy that the network made; nobody waits for its answer.
    Discarded,
}

/// One request and what became of it.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Entry {
    /// Counts up from 1.
    pub(super) serial: u64,
    pub(super) till: Till,
    /// Which request of the page's it is; none of a stranger's.
    pub(super) place: Option<String>,
    pub(super) is_copy: bool,
    pub(super) method: String,
    pub(super) target: String,
    pub(super) key: Option<String>,
    pub(super) delay_ms: u64,
    pub(super) is_duplicated: bool,
    pub(super) loses_answer: bool,
    pub(super) outcome: Outcome,
    /// Of the answer, also of one that was lost.
    pub(super) status: Option<u16>,
    pub(super) fields: Vec<(String, String)>,
    pub(super) content: String,
}

/// The newest entries, and which places have been seen.
#[derive(Debug, Default)]
pub(super) struct WireRecord(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    last_serial: u64,
    entries: VecDeque<Entry>,
    places: HashSet<(Till, Place)>,
}

impl WireRecord {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether no request of this place came to the till before.
    pub(super) fn is_first(&self, till: Till, place: Place) -> bool {
        let mut inner = self.lock();
        if inner.places.len() >= MAX_PLACES {
            inner.places.clear();
        }
        inner.places.insert((till, place))
    }

    /// Adds an entry and numbers it.
    pub(super) fn add(&self, mut entry: Entry) {
        let mut inner = self.lock();
        inner.last_serial += 1;
        entry.serial = inner.last_serial;
        if inner.entries.len() >= MAX_ENTRIES {
            inner.entries.pop_front();
        }
        inner.entries.push_back(entry);
    }

    /// The entries after the given one, in order.
    pub(super) fn after(&self, serial: u64) -> Vec<Entry> {
        let inner = self.lock();
        let newer = inner.entries.iter().filter(|entry| entry.serial > serial);
        newer.cloned().collect()
    }

    /// Forgets all of it; serials go on.
    pub(super) fn clear(&self) {
        let mut inner = self.lock();
        inner.entries.clear();
        inner.places.clear();
    }
}
