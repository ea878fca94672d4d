//! Keys under way in this process: duplicates see them here and wait without a connection (P40).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;
use tokio::time::{sleep, timeout};

use hapax_core::fingerprint::Fingerprint;
use hapax_core::key::RecordKey;

/// How often a duplicate looks whether another process is done with the key.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// The keys that attempts of this process have at present.
#[derive(Debug)]
pub(crate) struct Flights {
    waiters_per_key: usize,
    keys: Mutex<HashMap<RecordKey, Flight>>,
}

#[derive(Debug, Default)]
struct Flight {
    /// What is being executed; `None` while the database is asked whether the key is vacant.
    executing: Option<Fingerprint>,
    changed: Arc<Notify>,
    waiters: usize,
}

/// Too many are waiting already.
#[derive(Debug)]
pub(crate) struct TooMany;

impl Flights {
    pub(crate) fn new(waiters_per_key: usize) -> Arc<Self> {
        Arc::new(Self {
            waiters_per_key,
            keys: Mutex::default(),
        })
    }

    /// Waits for the turn to ask the database about a key: one at a time, so that duplicates
    /// neither take connections from everybody else nor find the key locked by each other.
    /// An error is what is being executed under the key.
    pub(crate) async fn take(self: &Arc<Self>, key: RecordKey) -> Result<Turn, Fingerprint> {
        loop {
            let changed = {
                let mut keys = self.lock();
                let Some(flight) = keys.get(&key) else {
                    keys.insert(key, Flight::default());
                    let flights = Arc::clone(self);
                    return Ok(Turn { flights, key });
                };
                if let Some(first) = &flight.executing {
                    return Err(first.clone());
                }
                Arc::clone(&flight.changed).notified_owned()
            };
            // Made before the lock was given back, so that no change is missed.
            changed.await;
        }
    }

    /// Waits until the key may have changed, at most `up_to`.
    pub(crate) async fn wait(&self, key: RecordKey, up_to: Duration) -> Result<(), TooMany> {
        let Some((_waiter, changed)) = self.waiter(key)? else {
            // Another process has it.
            sleep(up_to.min(LOOK_AGAIN)).await;
            return Ok(());
        };
        // Either way the caller looks again.
        let _ = timeout(up_to, changed).await;
        Ok(())
    }

    fn waiter(&self, key: RecordKey) -> Result<Option<(Waiter<'_>, OwnedNotified)>, TooMany> {
        match self.lock().get_mut(&key) {
            None => Ok(None),
            Some(flight) if flight.waiters >= self.waiters_per_key => Err(TooMany),
            Some(flight) => {
                flight.waiters += 1;
                let changed = Arc::clone(&flight.changed);
                // Made under the lock, so that no change is missed.
                let notified = Arc::clone(&changed).notified_owned();
                let waiter = Waiter {
                    flights: self,
                    key,
                    changed,
                };
                Ok(Some((waiter, notified)))
            }
        }
    }

    /// How many keys are under way.
    pub(crate) fn count(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<RecordKey, Flight>> {
        // A panic elsewhere while the lock was held cannot have torn an entry.
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place among the waiters of a key, given back when dropped.
struct Waiter<'a> {
    flights: &'a Flights,
    key: RecordKey,
    changed: Arc<Notify>,
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        let mut keys = self.flights.lock();
        // The key may be under way anew by now.
        if let Some(flight) = keys.get_mut(&self.key)
            && Arc::ptr_eq(&flight.changed, &self.changed)
        {
            flight.waiters = flight.waiters.saturating_sub(1);
        }
    }
}

/// A key that this attempt has within its process, given back when dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    flights: Arc<Flights>,
    key: RecordKey,
}

impl Turn {
    /// From now on duplicates are told what is being executed.
    pub(crate) fn execute(&self, fingerprint: &Fingerprint) {
        if let Some(flight) = self.flights.lock().get_mut(&self.key) {
            flight.executing = Some(fingerprint.clone());
            flight.changed.notify_waiters();
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(flight) = self.flights.lock().remove(&self.key) {
            flight.changed.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    fn key() -> RecordKey {
        RecordKey::from_bytes([1; 16])
    }

    fn fingerprint() -> Fingerprint {
        Fingerprint {
            digest: [1; 16],
            outline: [].into(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_at_a_time_asks_about_a_key_and_an_execution_is_seen() {
        let flights = Flights::new(1);
        let first = flights.take(key()).await.expect("vacant");
        let second = tokio::spawn({
            let flights = Arc::clone(&flights);
            async move { flights.take(key()).await.err() }
        });
        tokio::task::yield_now().await;
        assert!(!second.is_finished());
        first.execute(&fingerprint());
        assert_eq!(second.await.expect("no panic"), Some(fingerprint()));
        drop(first);
        assert_eq!(flights.count(), 0);
        assert!(flights.take(key()).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn waiters_are_bounded_and_woken_at_the_end() {
        let flights = Flights::new(1);
        let turn = flights.take(key()).await.expect("vacant");
        turn.execute(&fingerprint());
        let waiting = tokio::spawn({
            let flights = Arc::clone(&flights);
            async move {
                let started = tokio::time::Instant::now();
                flights.wait(key(), LONG).await.expect("room");
                started.elapsed()
            }
        });
        tokio::task::yield_now().await;
        assert!(flights.wait(key(), LONG).await.is_err());
        drop(turn);
        assert!(waiting.await.expect("no panic") < LONG);
    }
}
