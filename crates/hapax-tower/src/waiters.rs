//! Duplicates that wait for the first attempt: woken when its record changes, bounded per key,
//! per scope and in all.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use hapax_core::key::RecordKey;
use hapax_core::scope::ScopeId;

/// How many may wait.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) in_all: usize,
    pub(crate) per_key: usize,
    pub(crate) per_scope: usize,
}

#[derive(Debug)]
pub(crate) struct Waiters {
    bounds: Bounds,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    in_all: usize,
    keys: HashMap<RecordKey, (usize, Arc<Notify>)>,
    scopes: HashMap<ScopeId, usize>,
}

/// Too many are waiting already.
#[derive(Debug)]
pub(crate) struct TooMany;

impl Waiters {
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            state: Mutex::default(),
        }
    }

    /// Waits until the key's record changes in this process, at most `up_to`.
    pub(crate) async fn wait(
        &self,
        key: RecordKey,
        scope: ScopeId,
        up_to: Duration,
    ) -> Result<(), TooMany> {
        let (notify, _place) = self.take_place(key, scope)?;
        // Either way the caller looks again.
        let _ = tokio::time::timeout(up_to, notify.notified()).await;
        Ok(())
    }

    /// Wakes everybody who waits for the key.
    pub(crate) fn wake(&self, key: &RecordKey) {
        if let Some((_, notify)) = self.lock().keys.get(key) {
            notify.notify_waiters();
        }
    }

    fn take_place(
        &self,
        key: RecordKey,
        scope: ScopeId,
    ) -> Result<(Arc<Notify>, Place<'_>), TooMany> {
        let mut state = self.lock();
        let for_key = state.keys.get(&key).map_or(0, |(count, _)| *count);
        let for_scope = state.scopes.get(&scope).copied().unwrap_or(0);
        if state.in_all >= self.bounds.in_all
            || for_key >= self.bounds.per_key
            || for_scope >= self.bounds.per_scope
        {
            return Err(TooMany);
        }
        state.in_all += 1;
        *state.scopes.entry(scope).or_default() += 1;
        let (count, notify) = state.keys.entry(key).or_default();
        *count += 1;
        Ok((
            Arc::clone(notify),
            Place {
                waiters: self,
                key,
                scope,
            },
        ))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        // Counters only: a panic elsewhere while the lock was held cannot have torn them.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place among the waiters, given back when dropped.
struct Place<'a> {
    waiters: &'a Waiters,
    key: RecordKey,
    scope: ScopeId,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut state = self.waiters.lock();
        state.in_all = state.in_all.saturating_sub(1);
        if let Some((count, _)) = state.keys.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                state.keys.remove(&self.key);
            }
        }
        if let Some(count) = state.scopes.get_mut(&self.scope) {
            *count -= 1;
            if *count == 0 {
                state.scopes.remove(&self.scope);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    fn key(byte: u8) -> RecordKey {
        RecordKey::from_bytes([byte; 16])
    }

    fn scope(byte: u8) -> ScopeId {
        ScopeId::from_bytes([byte; 16])
    }

    #[tokio::test(start_paused = true)]
    async fn places_are_bounded_per_key_per_scope_and_in_all_and_given_back() {
        let waiters = Waiters::new(Bounds {
            in_all: 3,
            per_key: 2,
            per_scope: 2,
        });
        let first = waiters.take_place(key(1), scope(1)).expect("room");
        let _second = waiters.take_place(key(1), scope(2)).expect("room");
        assert!(waiters.take_place(key(1), scope(3)).is_err(), "per key");
        let _third = waiters.take_place(key(2), scope(2)).expect("room");
        assert!(waiters.take_place(key(3), scope(4)).is_err(), "in all");
        drop(first);
        assert!(waiters.take_place(key(3), scope(2)).is_err(), "per scope");
        assert!(waiters.take_place(key(3), scope(4)).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_wake_ends_the_wait() {
        let waiters = Arc::new(Waiters::new(Bounds {
            in_all: 9,
            per_key: 9,
            per_scope: 9,
        }));
        let waiting = Arc::clone(&waiters);
        let task = tokio::spawn(async move {
            let started = tokio::time::Instant::now();
            waiting.wait(key(1), scope(1), LONG).await.expect("room");
            started.elapsed()
        });
        tokio::task::yield_now().await;
        waiters.wake(&key(1));
        assert!(task.await.expect("no panic") < LONG);
    }
}
