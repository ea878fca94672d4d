//! A store in memory: for tests and trials. Everything is gone when the process ends.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hapax_core::key::RecordKey;
use hapax_core::record::{ClaimId, Content, Held, Record};
use hapax_core::secret::Secret;
use hapax_core::store::{
    Cursor, Durability, Filter, Insert, Page, Stats, Store, StoreError, Swept, Write,
};
use hapax_core::time::{Clock, Timestamp};

use crate::gauges::{Gauges, NEVER, Seen};
use crate::limits::Limits;

/// What a record costs besides its text and content: three tree entries and its own fields.
const RECORD_OVERHEAD_BYTES: u64 = 512;

/// How many records one call of [`Store::list`] looks at before it returns a short page.
const LIST_SCAN_LIMIT: usize = 4096;

/// How many expired records a claim removes itself when the store is full.
const SWEEP_WHEN_FULL: usize = 64;

/// A store in memory. [`Durability::BestEffort`]: it survives nothing.
pub struct MemoryStore {
    clock: Arc<dyn Clock>,
    limits: Limits,
    secret: Secret,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    records: BTreeMap<RecordKey, Held>,
    expiry: BTreeSet<(Timestamp, RecordKey)>,
    gauges: Gauges,
    bytes: u64,
}

impl MemoryStore {
    /// An empty store that judges by `clock`.
    pub fn new(clock: Arc<dyn Clock>, limits: Limits, secret: Secret) -> Self {
        Self {
            clock,
            limits,
            secret,
            inner: Mutex::default(),
        }
    }

    /// No operation leaves `Inner` half-changed by a panic, since none can panic in between:
    /// a poisoned lock is as good as any.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemoryStore")
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

impl Store for MemoryStore {
    async fn insert(&self, key: &RecordKey, record: &Record) -> Result<Insert, StoreError> {
        let mut inner = self.lock();
        let now = self.clock.now();
        if let Some(held) = inner.live(key, now) {
            let held = Box::new(held.clone());
            return Ok(Insert::Occupied { held, now });
        }
        if inner.full(&self.limits).is_some() {
            inner.sweep(now, SWEEP_WHEN_FULL);
        }
        if let Some(what) = inner.full(&self.limits) {
            return Err(StoreError::Full { what });
        }
        inner.put(*key, stamped(record, now, now));
        Ok(Insert::Claimed { now })
    }

    async fn replace(
        &self,
        key: &RecordKey,
        expected: ClaimId,
        record: &Record,
    ) -> Result<Write, StoreError> {
        let mut inner = self.lock();
        let now = self.clock.now();
        let Some(held) = inner.live(key, now) else {
            return Ok(Write::Stale);
        };
        if held.record.claim != expected {
            return Ok(Write::Stale);
        }
        let claimed_at = if record.claim == expected {
            held.claimed_at
        } else {
            now
        };
        inner.put(*key, stamped(record, claimed_at, now));
        Ok(Write::Applied { now })
    }

    async fn remove(&self, key: &RecordKey, expected: ClaimId) -> Result<Write, StoreError> {
        let mut inner = self.lock();
        let now = self.clock.now();
        let holds = |held: &Held| held.record.claim == expected;
        if !inner.live(key, now).is_some_and(holds) {
            return Ok(Write::Stale);
        }
        inner.take(key);
        Ok(Write::Applied { now })
    }

    async fn read(&self, key: &RecordKey) -> Result<(Option<Held>, Timestamp), StoreError> {
        let inner = self.lock();
        let now = self.clock.now();
        Ok((inner.live(key, now).cloned(), now))
    }

    async fn sweep(&self, limit: usize) -> Result<Swept, StoreError> {
        let mut inner = self.lock();
        let now = self.clock.now();
        Ok(inner.sweep(now, limit))
    }

    async fn list(
        &self,
        filter: &Filter,
        after: Option<Cursor>,
        limit: usize,
    ) -> Result<Page, StoreError> {
        let inner = self.lock();
        let now = self.clock.now();
        let limit = limit.max(1);
        let from = after.map_or(Bound::Unbounded, |Cursor(key)| Bound::Excluded(key));
        let mut page = Page::default();
        for (looked_at, (key, held)) in inner
            .records
            .range((from, Bound::Unbounded))
            .take(LIST_SCAN_LIMIT + 1)
            .enumerate()
        {
            if page.records.len() >= limit || looked_at == LIST_SCAN_LIMIT {
                return Ok(page);
            }
            page.next = Some(Cursor(*key));
            if filter.matches(held, now) {
                page.records.push((*key, held.clone()));
            }
        }
        page.next = None;
        Ok(page)
    }

    async fn stats(&self) -> Result<Stats, StoreError> {
        let inner = self.lock();
        let now = self.clock.now();
        let mut stats = Stats {
            records: inner.len(),
            bytes: inner.bytes,
            now,
            ..Stats::default()
        };
        inner.gauges.fill(now, &mut stats);
        Ok(stats)
    }

    fn secret(&self) -> &Secret {
        &self.secret
    }

    fn durability(&self) -> Durability {
        Durability::BestEffort
    }
}

impl Inner {
    fn live(&self, key: &RecordKey, now: Timestamp) -> Option<&Held> {
        self.records.get(key).filter(|held| !held.is_expired(now))
    }

    fn len(&self) -> u64 {
        self.records.len() as u64
    }

    fn full(&self, limits: &Limits) -> Option<&'static str> {
        limits.reached(self.len(), self.bytes)
    }

    fn put(&mut self, key: RecordKey, held: Held) {
        self.take(&key);
        let seen = seen(&held);
        self.gauges.add(key, seen);
        if seen.expires_at != NEVER {
            self.expiry.insert((seen.expires_at, key));
        }
        self.bytes += size_of_held(&held);
        self.records.insert(key, held);
    }

    fn take(&mut self, key: &RecordKey) {
        let Some(held) = self.records.remove(key) else {
            return;
        };
        let seen = seen(&held);
        self.gauges.remove(*key, seen);
        self.expiry.remove(&(seen.expires_at, *key));
        self.bytes -= size_of_held(&held);
    }

    fn sweep(&mut self, now: Timestamp, limit: usize) -> Swept {
        let due = |inner: &Self| {
            let first = inner.expiry.first().copied();
            first.filter(|(expires_at, _)| *expires_at <= now)
        };
        let mut removed = 0;
        while removed < limit
            && let Some((_, key)) = due(self)
        {
            self.take(&key);
            removed += 1;
        }
        Swept {
            removed,
            more_due: due(self).is_some(),
        }
    }
}

fn stamped(record: &Record, claimed_at: Timestamp, written_at: Timestamp) -> Held {
    Held {
        record: record.clone(),
        claimed_at,
        written_at,
    }
}

fn seen(held: &Held) -> Seen {
    Seen {
        kind: held.record.state.kind(),
        written_at: held.written_at,
        expires_at: held.expires_at().unwrap_or(NEVER),
    }
}

fn size_of_held(held: &Held) -> u64 {
    let record = &held.record;
    let mut bytes = record.route.len()
        + record.trace.as_ref().map_or(0, |trace| trace.len())
        + size_of_val(&*record.fingerprint.outline);
    if let Some(response) = record.state.response() {
        let fields = response.headers.iter();
        bytes += fields
            .map(|(name, value)| name.as_str().len() + value.len())
            .sum::<usize>();
        if let Content::Stored(content) = &response.content {
            bytes += content.len();
        }
    }
    RECORD_OVERHEAD_BYTES + bytes as u64
}
