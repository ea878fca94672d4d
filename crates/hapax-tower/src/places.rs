//! How many keyed requests may be under way; refusal comes before the claim (G13).

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use hapax_core::scope::ScopeId;

use crate::layer::Limits;

/// Keyed requests under way, bounded in all and per scope.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    limits: Limits,
    taken: Arc<AtomicUsize>,
    scopes: Arc<Mutex<HashMap<ScopeId, usize>>>,
}

impl Places {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            taken: Arc::default(),
            scopes: Arc::default(),
        }
    }

    pub(crate) fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    pub(crate) fn take(&self, scope: ScopeId) -> Option<Place> {
        let bound = self.limits.outstanding;
        let count = |taken: usize| (taken < bound).then_some(taken + 1);
        self.taken
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, count)
            .ok()?;
        let mut place = Place {
            places: self.clone(),
            scope: None,
        };
        if self.limits.outstanding_per_scope == usize::MAX {
            return Some(place);
        }
        let mut scopes = self.scopes.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = scopes.entry(scope).or_default();
        if *taken >= self.limits.outstanding_per_scope {
            drop(scopes);
            return None;
        }
        *taken += 1;
        drop(scopes);
        place.scope = Some(scope);
        Some(place)
    }
}

/// A place among the requests under way, given back when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    places: Places,
    scope: Option<ScopeId>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.taken.fetch_sub(1, Ordering::Relaxed);
        let Some(scope) = self.scope else { return };
        let mut scopes = self
            .places
            .scopes
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(taken) = scopes.get_mut(&scope) {
            *taken -= 1;
            if *taken == 0 {
                scopes.remove(&scope);
            }
        }
    }
}
