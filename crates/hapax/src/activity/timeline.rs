//! What happened to a record: its last moments, repeated ones grouped, for the records seen last.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use hapax_core::key::RecordKey;
use hapax_core::time::Timestamp;

use super::What;
use super::hasher::Quick;

/// How many groups of moments a record has at most; beyond, the oldest after the first few go.
const MOST_GROUPS: usize = 32;

/// What an execution comes to: claimed, forwarded, answered by the upstream, stored, answered; and a replay.
const USUAL_GROUPS: usize = 6;

/// A lock for every sixteenth of the records: attempts rarely wait for each other.
const SHARDS: usize = 16;
/// 10,240 records in all; with all their moments they take at most 20 MB.
const RECORDS_PER_SHARD: usize = 640;
/// How a record began is never forgotten.
const KEPT_FROM_START: usize = 8;

/// Something that happened once, or several times in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moment {
    pub(crate) at: Timestamp,
    /// When it happened last.
    pub(crate) last: Timestamp,
    pub(crate) count: u32,
    pub(crate) what: What,
}

/// What is remembered of one record.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Timeline {
    pub(crate) moments: Vec<Moment>,
    /// How many moments did not fit.
    pub(crate) omitted: u64,
}

impl Timeline {
    fn with_usual_room() -> Self {
        Self {
            moments: Vec::with_capacity(USUAL_GROUPS),
            omitted: 0,
        }
    }

    fn emptied(mut self) -> Self {
        self.moments.clear();
        self.moments.shrink_to(USUAL_GROUPS);
        self.omitted = 0;
        self
    }

    fn note(&mut self, at: Timestamp, what: What) {
        if let Some(last) = self.moments.last_mut()
            && is_repeat(last.what, what)
        {
            last.last = at;
            last.count = last.count.saturating_add(1);
            return;
        }
        if self.moments.len() >= MOST_GROUPS {
            let gone = self.moments.remove(KEPT_FROM_START);
            self.omitted += u64::from(gone.count);
        }
        self.moments.push(Moment {
            at,
            last: at,
            count: 1,
            what,
        });
    }
}

/// Whether two moments differ in their durations at most.
fn is_repeat(first: What, second: What) -> bool {
    let timeless = |what| match what {
        What::Answered {
            outcome, status, ..
        } => What::Answered {
            outcome,
            status,
            took_ms: 0,
        },
        other => other,
    };
    timeless(first) == timeless(second)
}

/// The timelines of the records seen last.
#[derive(Debug, Default)]
pub(crate) struct Timelines([Mutex<Shard>; SHARDS]);

#[derive(Debug, Default)]
struct Shard {
    timelines: HashMap<RecordKey, Timeline, Quick>,
    /// In the order in which they were first seen.
    order: VecDeque<RecordKey>,
}

impl Timelines {
    pub(super) fn note(&self, record: RecordKey, at: Timestamp, what: What) {
        let Some(shard) = self.shard(&record) else {
            return;
        };
        let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(timeline) = shard.timelines.get_mut(&record) {
            timeline.note(at, what);
            return;
        }
        let oldest = (shard.order.len() >= RECORDS_PER_SHARD)
            .then(|| shard.order.pop_front())
            .flatten();
        // Its room is the new one's: once the memory is full, taking note allocates nothing.
        let forgotten = oldest.and_then(|oldest| shard.timelines.remove(&oldest));
        let mut timeline = forgotten.map_or_else(Timeline::with_usual_room, Timeline::emptied);
        timeline.note(at, what);
        shard.order.push_back(record);
        shard.timelines.insert(record, timeline);
    }

    pub(super) fn of(&self, record: &RecordKey) -> Option<Timeline> {
        let shard = self.shard(record)?;
        let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
        shard.timelines.get(record).cloned()
    }

    /// A record key is a hash: any byte of it spreads records evenly.
    fn shard(&self, record: &RecordKey) -> Option<&Mutex<Shard>> {
        let byte = record.as_bytes().last().copied().unwrap_or_default();
        self.0.get(usize::from(byte) % SHARDS)
    }
}

#[cfg(test)]
mod tests {
    use hapax_core::event::Outcome;

    use super::*;

    const MOST_RECORDS: usize = SHARDS * RECORDS_PER_SHARD;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn answered(outcome: Outcome, took_ms: u32) -> What {
        What::Answered {
            outcome,
            status: 201,
            took_ms,
        }
    }

    #[test]
    fn what_repeats_is_grouped_with_its_count() {
        let mut timeline = Timeline::default();
        timeline.note(at(1), What::Claimed { attempt: 1 });
        for time in 2..5 {
            timeline.note(at(time), answered(Outcome::Replayed, 7));
        }
        timeline.note(at(9), answered(Outcome::Mismatch, 7));
        let groups: Vec<_> = timeline
            .moments
            .iter()
            .map(|m| (m.at, m.last, m.count))
            .collect();
        assert_eq!(
            groups,
            [(at(1), at(1), 1), (at(2), at(4), 3), (at(9), at(9), 1)]
        );
    }

    #[test]
    fn a_timeline_keeps_how_it_began_and_its_end_and_counts_what_it_left_out() {
        let mut timeline = Timeline::default();
        for attempt in 0..100 {
            timeline.note(at(u64::from(attempt)), What::Claimed { attempt });
        }
        assert_eq!(timeline.moments.len(), MOST_GROUPS);
        assert_eq!(timeline.omitted, 100 - MOST_GROUPS as u64);
        assert_eq!(timeline.moments[0].what, What::Claimed { attempt: 0 });
        assert_eq!(
            timeline.moments[MOST_GROUPS - 1].what,
            What::Claimed { attempt: 99 }
        );
    }

    #[test]
    fn no_more_records_are_remembered_than_fit_and_the_newest_stay() {
        let timelines = Timelines::default();
        let record = |number: u64| {
            let mut bytes = [0; 16];
            bytes[8..].copy_from_slice(&number.to_be_bytes());
            RecordKey::from_bytes(bytes)
        };
        let all = MOST_RECORDS as u64 * 2;
        for number in 0..all {
            timelines.note(record(number), at(number), What::Released);
        }
        let held = (0..all).filter(|number| timelines.of(&record(*number)).is_some());
        assert_eq!(held.count(), MOST_RECORDS);
        assert!(timelines.of(&record(all - 1)).is_some());
        assert!(timelines.of(&record(0)).is_none());
    }
}
