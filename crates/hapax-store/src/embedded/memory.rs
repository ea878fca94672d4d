//! What was written lately, in memory, until it goes to the tables.
//!
//! Two layers: the active one takes what is written; the sealed one is being written out. Only
//! what is synced comes in here, so whatever is seen is durable.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry as Slot;
use std::ops::Bound;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;
use hapax_core::key::RecordKey;

/// What an entry costs beside its value: the key, the handle, and its share of the tree's nodes.
const ENTRY_BYTES: usize = 96;

/// Records are in one of two tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Table {
    /// Outstanding and unknown records.
    Open,
    /// Completed and rejected records, tombstones among them.
    Settled,
}

/// One write to a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) key: RecordKey,
    pub(super) table: Table,
    /// `None` removes.
    pub(super) value: Option<Bytes>,
    /// Of a put: whether the table certainly holds nothing of the key. Removing it again then
    /// needs no mark that hides what is beneath.
    pub(super) is_alone: bool,
}

#[derive(Debug)]
struct Entry {
    /// `None` hides what is beneath.
    value: Option<Bytes>,
    is_alone: bool,
}

type Entries = BTreeMap<RecordKey, Entry>;

/// One layer.
#[derive(Debug, Default)]
pub(super) struct Layer {
    open: Entries,
    settled: Entries,
    bytes: usize,
    /// The last batch in it, and the store's clock then.
    pub(super) batch: u64,
    pub(super) now_ms: u64,
    /// The last segment of the log that has something of it. Set when it is sealed.
    pub(super) segment: u64,
}

impl Layer {
    fn entries(&self, table: Table) -> &Entries {
        match table {
            Table::Open => &self.open,
            Table::Settled => &self.settled,
        }
    }

    pub(super) fn apply(&mut self, change: Change) {
        let entries = match change.table {
            Table::Open => &mut self.open,
            Table::Settled => &mut self.settled,
        };
        let len = |value: &Option<Bytes>| ENTRY_BYTES + value.as_ref().map_or(0, Bytes::len);
        match entries.entry(change.key) {
            Slot::Occupied(slot) if change.value.is_none() && slot.get().is_alone => {
                self.bytes -= len(&slot.remove().value);
            }
            Slot::Occupied(mut slot) => {
                self.bytes += len(&change.value);
                self.bytes -= len(&slot.get().value);
                slot.get_mut().value = change.value;
            }
            Slot::Vacant(slot) => {
                self.bytes += len(&change.value);
                slot.insert(Entry {
                    value: change.value,
                    is_alone: change.is_alone,
                });
            }
        }
    }

    /// The entries of a table in the order of their keys; `None` for what is removed. With
    /// whether nothing is beneath.
    pub(super) fn iter(
        &self,
        table: Table,
    ) -> impl Iterator<Item = (&RecordKey, &Option<Bytes>, bool)> {
        let entries = self.entries(table).iter();
        entries.map(|(key, entry)| (key, &entry.value, entry.is_alone))
    }

    fn get(&self, table: Table, key: &RecordKey) -> Option<Option<Bytes>> {
        let entry = self.entries(table).get(key)?;
        Some(entry.value.clone())
    }
}

#[derive(Debug, Default)]
struct Layers {
    active: Layer,
    sealed: Option<Arc<Layer>>,
}

/// Both layers.
#[derive(Debug, Default)]
pub(super) struct Memory(RwLock<Layers>);

/// What was changed lately in a range of keys: `None` for what is removed.
#[derive(Debug, Default)]
pub(super) struct Changed {
    pub(super) values: BTreeMap<RecordKey, Option<Bytes>>,
    /// The last key that this covers; `None` when it covers all that follow.
    pub(super) until: Option<RecordKey>,
}

impl Memory {
    /// What is known of a key; `None` when only the tables can tell, `Some(None)` when it is
    /// vacant.
    pub(super) fn get(&self, table: Table, key: &RecordKey) -> Option<Option<Bytes>> {
        let layers = self.read();
        layers.active.get(table, key).or_else(|| {
            let sealed = layers.sealed.as_ref()?;
            sealed.get(table, key)
        })
    }

    /// The entries behind `after`, at least the first `limit` of each layer.
    pub(super) fn range(&self, table: Table, after: Bound<RecordKey>, limit: usize) -> Changed {
        let layers = self.read();
        let mut changed = Changed::default();
        // The active layer last: what it says counts.
        for layer in layers.sealed.as_deref().into_iter().chain([&layers.active]) {
            let mut entries = layer.entries(table).range((after, Bound::Unbounded));
            let mut last = None;
            for (key, entry) in entries.by_ref().take(limit) {
                changed.values.insert(*key, entry.value.clone());
                last = Some(*key);
            }
            if entries.next().is_some() {
                let bound = changed.until.into_iter().chain(last).min();
                changed.until = bound;
            }
        }
        if let Some(until) = changed.until {
            changed.values.retain(|key, _| *key <= until);
        }
        changed
    }

    /// Applies a batch and says how many bytes the active layer holds then.
    pub(super) fn apply(
        &self,
        batch: u64,
        now_ms: u64,
        changes: impl Iterator<Item = Change>,
    ) -> usize {
        let mut layers = self.write();
        changes.for_each(|change| layers.active.apply(change));
        layers.active.batch = batch;
        layers.active.now_ms = now_ms;
        layers.active.bytes
    }

    /// Seals the active layer, which ends with `segment` of the log. `false` while the one before
    /// is still being written out.
    pub(super) fn seal(&self, segment: u64) -> bool {
        let mut layers = self.write();
        if layers.sealed.is_some() {
            return false;
        }
        let mut layer = std::mem::take(&mut layers.active);
        layers.active.batch = layer.batch;
        layers.active.now_ms = layer.now_ms;
        layer.segment = segment;
        layers.sealed = Some(Arc::new(layer));
        true
    }

    /// The layer that is to be written out.
    pub(super) fn sealed(&self) -> Option<Arc<Layer>> {
        self.read().sealed.clone()
    }

    /// Lets go of the sealed layer, which is in the tables now.
    pub(super) fn release(&self) {
        let released = self.write().sealed.take();
        // Freed without the lock.
        drop(released);
    }

    /// Entries of the `settled` table.
    pub(super) fn settled_len(&self) -> usize {
        let layers = self.read();
        let sealed = layers.sealed.as_ref();
        layers.active.settled.len() + sealed.map_or(0, |sealed| sealed.settled.len())
    }

    fn read(&self) -> RwLockReadGuard<'_, Layers> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Layers> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(number: u8, value: Option<&'static [u8]>, is_alone: bool) -> Change {
        Change {
            key: RecordKey::from_bytes([number; 16]),
            table: Table::Open,
            value: value.map(Bytes::from_static),
            is_alone,
        }
    }

    fn get(memory: &Memory, number: u8) -> Option<Option<Bytes>> {
        memory.get(Table::Open, &RecordKey::from_bytes([number; 16]))
    }

    #[test]
    fn what_comes_and_goes_within_a_layer_leaves_nothing_behind() {
        let memory = Memory::default();
        let changes = [change(1, Some(b"claim"), true), change(1, None, false)];
        assert_eq!(memory.apply(1, 1, changes.into_iter()), 0);
        assert_eq!(get(&memory, 1), None);
    }

    #[test]
    fn a_removal_hides_what_may_be_beneath() {
        let memory = Memory::default();
        memory.apply(1, 1, [change(1, Some(b"claim"), false)].into_iter());
        memory.apply(2, 1, [change(1, None, false)].into_iter());
        assert_eq!(get(&memory, 1), Some(None));
        // Claimed anew in the same layer: what is beneath it is still there.
        memory.apply(3, 1, [change(1, Some(b"again"), true)].into_iter());
        memory.apply(4, 1, [change(1, None, false)].into_iter());
        assert_eq!(get(&memory, 1), Some(None));
    }

    #[test]
    fn a_removal_hides_what_the_sealed_layer_has() {
        let memory = Memory::default();
        memory.apply(1, 1, [change(1, Some(b"claim"), true)].into_iter());
        assert!(memory.seal(7));
        assert!(!memory.seal(8), "one at a time");
        assert_eq!(get(&memory, 1), Some(Some(Bytes::from_static(b"claim"))));
        memory.apply(2, 1, [change(1, None, false)].into_iter());
        assert_eq!(get(&memory, 1), Some(None));
        memory.release();
        assert_eq!(get(&memory, 1), Some(None));
    }

    #[test]
    fn a_range_says_how_far_it_knows() {
        let memory = Memory::default();
        let changes = (0..10).map(|number| change(2 * number, Some(b"sealed"), true));
        memory.apply(1, 1, changes);
        assert!(memory.seal(1));
        let changes = (0..3).map(|number| change(2 * number, None, false));
        memory.apply(2, 1, changes);
        let changed = memory.range(Table::Open, Bound::Unbounded, 5);
        assert_eq!(changed.until, Some(RecordKey::from_bytes([8; 16])));
        let values: Vec<bool> = changed.values.values().map(Option::is_some).collect();
        assert_eq!(values, [false, false, false, true, true]);
        let rest = memory.range(
            Table::Open,
            Bound::Excluded(RecordKey::from_bytes([8; 16])),
            5,
        );
        assert_eq!((rest.until, rest.values.len()), (None, 5));
    }
}
