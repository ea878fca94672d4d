//! Which keys the last batches settled, so that a caller's look into the `settled` table need
//! not be repeated by the writer.

use std::collections::HashSet;

use hapax_core::key::RecordKey;

/// Batches after which the older half is forgotten. A caller's look is rarely ten batches old;
/// with full batches two halves hold 1 MiB of keys.
const HALF_BATCHES: u64 = 64;

/// The keys that were settled in every batch after `covered_after`.
#[derive(Debug)]
pub(super) struct Recent {
    young: HashSet<RecordKey>,
    old: HashSet<RecordKey>,
    young_after: u64,
    covered_after: u64,
}

impl Recent {
    /// Covers the batches after `batch`.
    pub(super) fn new(batch: u64) -> Self {
        Self {
            young: HashSet::new(),
            old: HashSet::new(),
            young_after: batch,
            covered_after: batch,
        }
    }

    /// Begins to note the keys of `batch`, which is one more than the last.
    pub(super) fn begin(&mut self, batch: u64) {
        if batch.saturating_sub(self.young_after) > HALF_BATCHES {
            std::mem::swap(&mut self.old, &mut self.young);
            self.young.clear();
            self.covered_after = self.young_after;
            self.young_after = batch.saturating_sub(1);
        }
    }

    /// Notes a key that the batch settles.
    pub(super) fn note(&mut self, key: RecordKey) {
        self.young.insert(key);
    }

    /// Whether `key` has certainly not been settled by a batch after `batch`.
    pub(super) fn is_untouched_since(&self, batch: u64, key: &RecordKey) -> bool {
        batch >= self.covered_after && !self.young.contains(key) && !self.old.contains(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u64) -> RecordKey {
        RecordKey::from_bytes(u128::from(number).to_be_bytes())
    }

    #[test]
    fn a_look_is_only_trusted_when_every_batch_since_is_known_not_to_have_settled_the_key() {
        let first = 7;
        let mut recent = Recent::new(first);
        let last = first + 5 * HALF_BATCHES;
        for batch in first + 1..=last {
            recent.begin(batch);
            recent.note(key(batch));
            for looked_at in first..=batch {
                // Settled by this batch, which is after every earlier look.
                assert!(looked_at == batch || !recent.is_untouched_since(looked_at, &key(batch)));
                // Settled after the look: never trusted, remembered or forgotten.
                for settled_by in looked_at + 1..=batch {
                    assert!(!recent.is_untouched_since(looked_at, &key(settled_by)));
                }
            }
            // The usual case is worth something: a look of the last batches is trusted.
            assert!(
                recent.is_untouched_since(batch.saturating_sub(HALF_BATCHES).max(first), &key(0))
            );
        }
        assert!(!recent.is_untouched_since(first, &key(0)), "forgotten");
    }
}
