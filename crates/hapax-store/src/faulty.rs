//! A decorator that makes a store fail by a script.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hapax_core::key::RecordKey;
use hapax_core::record::{ClaimId, Held, Record};
use hapax_core::secret::Secret;
use hapax_core::store::{
    Cursor, Durability, Filter, Insert, Page, Stats, Store, StoreError, Swept, Write,
};
use hapax_core::time::Timestamp;

/// What goes wrong with one operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It is applied after so long.
    Delay(Duration),
    /// It is applied, and its reply is lost: [`StoreError::Uncertain`].
    LostReply,
    /// It is not applied, and nobody says so: [`StoreError::Uncertain`].
    LostRequest,
    /// [`StoreError::Refused`].
    Refused,
    /// [`StoreError::Full`].
    Full,
    /// [`StoreError::Damaged`].
    Damaged,
    /// It is not applied and never answered.
    NeverAnswers,
}

/// Which operations a fault is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum On {
    /// [`Store::insert`].
    Insert,
    /// [`Store::replace`].
    Replace,
    /// [`Store::remove`].
    Remove,
    /// [`Store::read`].
    Read,
    /// Any of them.
    Any,
}

#[derive(Debug, Clone, Copy)]
struct Line {
    on: On,
    /// Matching operations that still pass before it strikes.
    after: u32,
    /// How often it strikes; `None` for ever.
    times: Option<u32>,
    fault: Fault,
}

/// A store that fails by a script, and works like the one inside where the script is silent.
#[derive(Debug)]
pub struct FaultyStore<S> {
    inner: S,
    script: Mutex<VecDeque<Line>>,
}

impl<S> FaultyStore<S> {
    /// A store without any fault yet.
    pub const fn new(inner: S) -> Self {
        Self {
            inner,
            script: Mutex::new(VecDeque::new()),
        }
    }

    /// The store inside.
    pub const fn inner(&self) -> &S {
        &self.inner
    }

    /// Makes the next operation of this kind fail, once.
    pub fn next(&self, on: On, fault: Fault) {
        self.add(on, 0, Some(1), fault);
    }

    /// Makes every operation of this kind fail once `after` of them have passed.
    pub fn after(&self, on: On, after: u32, fault: Fault) {
        self.add(on, after, None, fault);
    }

    /// Forgets all faults.
    pub fn heal(&self) {
        self.lock().clear();
    }

    fn add(&self, on: On, after: u32, times: Option<u32>, fault: Fault) {
        self.lock().push_back(Line {
            on,
            after,
            times,
            fault,
        });
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<Line>> {
        self.script.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The fault that strikes this operation, if any: the first line that is due.
    fn strike(&self, operation: On) -> Option<Fault> {
        let mut script = self.lock();
        let mut struck = None;
        for line in script.iter_mut() {
            if line.on != On::Any && line.on != operation {
                continue;
            }
            if line.after > 0 {
                line.after -= 1;
            } else if struck.is_none() {
                line.times = line.times.map(|times| times.saturating_sub(1));
                struck = Some(line.fault);
            }
        }
        script.retain(|line| line.times != Some(0));
        struck
    }

    async fn with_fault<T>(
        &self,
        operation: On,
        apply: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        match self.strike(operation) {
            None => apply.await,
            Some(Fault::Delay(delay)) => {
                tokio::time::sleep(delay).await;
                apply.await
            }
            Some(Fault::LostReply) => {
                drop(apply.await?);
                Err(uncertain())
            }
            Some(Fault::LostRequest) => Err(uncertain()),
            Some(Fault::Refused) => Err(StoreError::Refused {
                reason: "by the script",
                source: None,
            }),
            Some(Fault::Full) => Err(StoreError::Full {
                what: "by the script",
            }),
            Some(Fault::Damaged) => Err(StoreError::Damaged {
                what: "by the script",
            }),
            Some(Fault::NeverAnswers) => std::future::pending().await,
        }
    }
}

fn uncertain() -> StoreError {
    StoreError::Uncertain {
        reason: "by the script",
        source: None,
    }
}

impl<S: Store> Store for FaultyStore<S> {
    async fn insert(&self, key: &RecordKey, record: &Record) -> Result<Insert, StoreError> {
        self.with_fault(On::Insert, self.inner.insert(key, record))
            .await
    }

    async fn replace(
        &self,
        key: &RecordKey,
        expected: ClaimId,
        record: &Record,
    ) -> Result<Write, StoreError> {
        self.with_fault(On::Replace, self.inner.replace(key, expected, record))
            .await
    }

    async fn remove(&self, key: &RecordKey, expected: ClaimId) -> Result<Write, StoreError> {
        self.with_fault(On::Remove, self.inner.remove(key, expected))
            .await
    }

    async fn read(&self, key: &RecordKey) -> Result<(Option<Held>, Timestamp), StoreError> {
        self.with_fault(On::Read, self.inner.read(key)).await
    }

    async fn sweep(&self, limit: usize) -> Result<Swept, StoreError> {
        self.inner.sweep(limit).await
    }

    async fn list(
        &self,
        filter: &Filter,
        after: Option<Cursor>,
        limit: usize,
    ) -> Result<Page, StoreError> {
        self.inner.list(filter, after, limit).await
    }

    async fn stats(&self) -> Result<Stats, StoreError> {
        self.inner.stats().await
    }

    fn secret(&self) -> &Secret {
        self.inner.secret()
    }

    fn durability(&self) -> Durability {
        self.inner.durability()
    }
}

#[cfg(all(test, feature = "conformance", feature = "memory"))]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::clock::ManualClock;
    use crate::conformance::{self, sample};
    use crate::limits::Limits;
    use crate::memory::MemoryStore;

    fn store() -> (FaultyStore<MemoryStore>, Arc<ManualClock>) {
        let clock = Arc::new(ManualClock::default());
        let secret = Secret::from_bytes([7; 32]);
        let inner = MemoryStore::new(Arc::clone(&clock) as _, Limits::default(), secret);
        (FaultyStore::new(inner), clock)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn without_a_script_it_keeps_the_contract() {
        conformance::run(async || store()).await;
    }

    #[tokio::test]
    async fn a_lost_reply_was_applied_and_a_lost_request_was_not() {
        let (store, _) = store();
        store.next(On::Insert, Fault::LostReply);
        store.after(On::Insert, 1, Fault::LostRequest);
        for (number, is_there) in [(1, true), (2, false), (3, false)] {
            let key = sample::key(number);
            let insert = store.insert(&key, &sample::outstanding(number)).await;
            assert!(insert.is_err_and(|error| error.may_have_written()));
            let (held, _) = store.read(&key).await.expect("reads are not in the script");
            assert_eq!(held.is_some(), is_there, "claim {number}");
        }
        store.heal();
        let insert = store.insert(&sample::key(3), &sample::outstanding(3)).await;
        assert!(matches!(insert, Ok(Insert::Claimed { .. })));
    }
}
