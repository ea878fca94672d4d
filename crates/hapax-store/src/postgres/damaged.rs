//! The keys whose records were found damaged.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use hapax_core::key::RecordKey;
use hapax_core::store::StoreError;

use crate::observer::StoreObserver;

/// As many are told apart; beyond it they are told of and counted no more: 16 MiB at most.
const MAX_KEYS: usize = 1 << 18;

/// Counts each key once, as long as this process runs. Whether a record is still damaged is
/// judged whenever it is read: several gateways see the same rows, and an operator may have
/// restored them.
pub(super) struct Damaged {
    observer: Arc<dyn StoreObserver>,
    keys: Mutex<BTreeSet<RecordKey>>,
}

impl Damaged {
    pub(super) fn new(observer: Arc<dyn StoreObserver>) -> Self {
        Self {
            observer,
            keys: Mutex::default(),
        }
    }

    /// Passes on what reading `key` came to, and takes note of damage.
    pub(super) fn note<T>(
        &self,
        key: &RecordKey,
        read: Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        if let Err(StoreError::Damaged { what }) = &read {
            let is_new = {
                let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
                keys.len() >= MAX_KEYS || keys.insert(*key)
            };
            if is_new {
                self.observer.damaged(what);
            }
        }
        read
    }

    pub(super) fn count(&self) -> u64 {
        let keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        keys.len() as u64
    }
}
