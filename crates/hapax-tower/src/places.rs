//! How many keyed requests may be under way; refusal comes before the claim (G13).

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use hapax_core::scope::ScopeId;

use crate::layer::Limits;

/// Keyed requests under way, bounded in all and per scope.
#[derive(Debug, Clone)]
pub(crate) struct Places(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    limits: Limits,
    taken: AtomicUsize,
    scopes: Mutex<HashMap<ScopeId, usize>>,
}

impl Places {
    pub(crate) fn new(limits: Limits) -> Self {
        Self(Arc::new(Shared {
            limits,
            taken: AtomicUsize::new(0),
            scopes: Mutex::default(),
        }))
    }

    pub(crate) fn taken(&self) -> usize {
        self.0.taken.load(Ordering::Relaxed)
    }

    pub(crate) fn take(&self, scope: ScopeId) -> Option<Place> {
        let Shared {
            limits,
            taken: all,
            scopes,
        } = &*self.0;
        let bound = limits.outstanding;
        let count = |taken: usize| (taken < bound).then_some(taken + 1);
        all.fetch_update(Ordering::Relaxed, Ordering::Relaxed, count)
            .ok()?;
        let mut place = Place {
            places: self.clone(),
            scope: None,
        };
        if limits.outstanding_per_scope == usize::MAX {
            return Some(place);
        }
        let mut scopes = scopes.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = scopes.entry(scope).or_default();
        if *taken >= limits.outstanding_per_scope {
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
        self.places.0.taken.fetch_sub(1, Ordering::Relaxed);
        let Some(scope) = self.scope else { return };
        let mut scopes = self
            .places
            .0
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
