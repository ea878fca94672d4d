//! A store with a simulated disk or network under it: what was acknowledged survives a crash, what was not may not.
//!
//! Operations queue up, as in the writer of the embedded store or on a connection to a server. One that is due is durable
//! and acknowledged; a crash keeps a beginning of the queue that nobody was told of, and loses the rest. Reads queue up
//! too, so that nobody is shown what a crash could take back. What works inside is the memory store.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use tokio::sync::oneshot;

use hapax_core::key::RecordKey;
use hapax_core::record::{ClaimId, Held, Record, State, UnknownReason};
use hapax_core::secret::Secret;
use hapax_core::store::{
    Cursor, Durability, Filter, Insert, Page, Stats, Store, StoreError, Swept, Write,
};
use hapax_core::time::Timestamp;
use hapax_store::{Limits, ManualClock, MemoryStore};

use super::random::Random;

/// What is wrong with the store on purpose: each must be caught.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flaw {
    None,
    /// A crash loses records that were acknowledged, as a disk does that does not sync.
    DoesNotSync,
    /// A claim writes over what is there.
    ClaimsWithoutLooking,
}

/// Whose store it is, which says what a crash of a gateway does to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// In the gateway's process: it crashes with it, and claims of the process before are unknown at the start (P16).
    Embedded,
    /// A server's, shared by all gateways: it goes on.
    Shared,
}

/// How the store fares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Health {
    Good,
    /// It refuses everything.
    Down,
    /// It takes longer than anybody waits, and does it all the same.
    Slow,
}

/// The disk and what is on its way there.
pub(super) struct Disk {
    pub(super) kind: Kind,
    flaw: Flaw,
    clock: Arc<ManualClock>,
    memory: MemoryStore,
    inner: Mutex<Inner>,
}

struct Inner {
    now_ms: u64,
    queue: VecDeque<Pending>,
    health: Health,
    /// Of so many operations one loses its reply or itself; 0 for none.
    one_lost_in: u64,
    random: Random,
    /// For [`Flaw::DoesNotSync`]: the latest settled records, which a crash takes.
    unsynced: Vec<(RecordKey, ClaimId)>,
}

struct Pending {
    due_ms: u64,
    work: Work,
}

enum Work {
    Insert(RecordKey, Box<Record>, Reply<Insert>),
    Replace(RecordKey, ClaimId, Box<Record>, Reply<Write>),
    Remove(RecordKey, ClaimId, Reply<Write>),
    Read(RecordKey, Reply<(Option<Held>, Timestamp)>),
}

/// To whom it is acknowledged; nobody when the reply is lost.
type Reply<T> = Option<oneshot::Sender<Result<T, StoreError>>>;

const STARTED_AT_MS: u64 = 1_700_000_000_000;

impl Disk {
    pub(super) fn new(kind: Kind, flaw: Flaw, random: Random) -> Arc<Self> {
        let clock = Arc::new(ManualClock::new(Timestamp::from_millis(STARTED_AT_MS)));
        let secret = Secret::from_bytes([7; 32]);
        Arc::new(Self {
            kind,
            flaw,
            memory: MemoryStore::new(Arc::clone(&clock) as _, Limits::default(), secret),
            clock,
            inner: Mutex::new(Inner {
                now_ms: 0,
                queue: VecDeque::new(),
                health: Health::Good,
                one_lost_in: 0,
                random,
                unsynced: Vec::new(),
            }),
        })
    }

    /// Lets time pass, and what is due become durable.
    pub(super) fn advance_to(&self, now_ms: u64) {
        let mut inner = self.inner.lock().unwrap();
        self.clock
            .set(Timestamp::from_millis(STARTED_AT_MS + now_ms));
        inner.now_ms = now_ms;
        while inner
            .queue
            .front()
            .is_some_and(|first| first.due_ms <= now_ms)
        {
            let first = inner.queue.pop_front().unwrap();
            self.apply(first.work, &mut inner);
        }
    }

    pub(super) fn fares(&self, health: Health) {
        let mut inner = self.inner.lock().unwrap();
        let inner = &mut *inner;
        inner.health = health;
        // What a slow store had put off is done once it is well: its end is the end of its effects.
        for pending in inner.queue.iter_mut().filter(|_| health == Health::Good) {
            pending.due_ms = pending.due_ms.min(inner.now_ms);
        }
    }

    pub(super) fn loses_one_in(&self, times: u64) {
        self.inner.lock().unwrap().one_lost_in = times;
    }

    /// The machine or process of the store crashes: some of what is on its way had arrived, the rest is gone. Nobody is
    /// told either way.
    pub(super) fn crash(&self) {
        let mut inner = self.inner.lock().unwrap();
        let inner = &mut *inner;
        let arrived = inner.random.index(inner.queue.len() + 1);
        let queue = std::mem::take(&mut inner.queue);
        for pending in queue.into_iter().take(arrived) {
            self.apply(pending.work.unheard(), inner);
        }
        if self.flaw == Flaw::DoesNotSync {
            for (key, claim) in std::mem::take(&mut inner.unsynced) {
                done(self.memory.remove(&key, claim)).unwrap();
            }
        }
    }

    /// The store of a gateway that starts.
    pub(super) fn open(self: &Arc<Self>) -> SimulatedStore {
        if self.kind == Kind::Embedded {
            let outstanding = Filter {
                state: Some(hapax_core::record::StateKind::Outstanding),
                ..Filter::default()
            };
            let page = done(self.memory.list(&outstanding, None, usize::MAX)).unwrap();
            for (key, held) in page.records {
                let mut record = held.record;
                let claim = record.claim;
                record.state = State::Unknown {
                    reason: UnknownReason::Restarted,
                    response: None,
                };
                done(self.memory.replace(&key, claim, &record)).unwrap();
            }
        }
        SimulatedStore(Arc::clone(self))
    }

    fn apply(&self, work: Work, inner: &mut Inner) {
        match work {
            Work::Insert(key, record, reply) => {
                if self.flaw == Flaw::ClaimsWithoutLooking
                    && let (Some(held), _) = done(self.memory.read(&key)).unwrap()
                {
                    done(self.memory.remove(&key, held.record.claim)).unwrap();
                }
                answer(reply, done(self.memory.insert(&key, &record)));
            }
            Work::Replace(key, expected, record, reply) => {
                if matches!(record.state, State::Completed(_)) {
                    inner.unsynced.push((key, record.claim));
                }
                answer(reply, done(self.memory.replace(&key, expected, &record)));
            }
            Work::Remove(key, expected, reply) => {
                answer(reply, done(self.memory.remove(&key, expected)));
            }
            Work::Read(key, reply) => answer(reply, done(self.memory.read(&key))),
        }
    }

    /// Puts an operation into the queue, or says why not.
    fn submit<T>(
        &self,
        work: impl FnOnce(Reply<T>) -> Work,
    ) -> Result<oneshot::Receiver<Result<T, StoreError>>, StoreError> {
        let mut inner = self.inner.lock().unwrap();
        let inner = &mut *inner;
        if inner.health == Health::Down {
            return Err(StoreError::Refused {
                reason: "it is down",
                source: None,
            });
        }
        let latency = match inner.health {
            Health::Slow => inner.random.between(50, 900),
            _ => inner.random.between(1, 12),
        };
        let last = inner.queue.back().map_or(0, |last| last.due_ms);
        let due_ms = (inner.now_ms + latency).max(last);
        let (reply, acknowledged) = oneshot::channel();
        let is_lost = inner.one_lost_in != 0 && inner.random.once_in(inner.one_lost_in);
        match is_lost.then(|| inner.random.once_in(2)) {
            // Applied, and nobody is told.
            Some(true) => inner.queue.push_back(Pending {
                due_ms,
                work: work(None),
            }),
            Some(false) => {}
            None => inner.queue.push_back(Pending {
                due_ms,
                work: work(Some(reply)),
            }),
        }
        Ok(acknowledged)
    }

    async fn ask<T>(&self, work: impl FnOnce(Reply<T>) -> Work) -> Result<T, StoreError> {
        let acknowledged = self.submit(work)?;
        acknowledged.await.unwrap_or(Err(StoreError::Uncertain {
            reason: "its reply was lost",
            source: None,
        }))
    }
}

impl Work {
    fn unheard(self) -> Self {
        match self {
            Self::Insert(key, record, _) => Self::Insert(key, record, None),
            Self::Replace(key, expected, record, _) => Self::Replace(key, expected, record, None),
            Self::Remove(key, expected, _) => Self::Remove(key, expected, None),
            Self::Read(key, _) => Self::Read(key, None),
        }
    }
}

fn answer<T>(reply: Reply<T>, result: Result<T, StoreError>) {
    if let Some(reply) = reply {
        // Who has given up is not told.
        let _ = reply.send(result);
    }
}

/// The memory store is always ready.
fn done<T>(work: impl Future<Output = T>) -> T {
    match pin!(work).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("the memory store waits"),
    }
}

/// A gateway's end of the store.
pub(super) struct SimulatedStore(Arc<Disk>);

impl Store for SimulatedStore {
    async fn insert(&self, key: &RecordKey, record: &Record) -> Result<Insert, StoreError> {
        let record = Box::new(record.clone());
        self.0.ask(|reply| Work::Insert(*key, record, reply)).await
    }

    async fn replace(
        &self,
        key: &RecordKey,
        expected: ClaimId,
        record: &Record,
    ) -> Result<Write, StoreError> {
        let record = Box::new(record.clone());
        let work = |reply| Work::Replace(*key, expected, record, reply);
        self.0.ask(work).await
    }

    async fn remove(&self, key: &RecordKey, expected: ClaimId) -> Result<Write, StoreError> {
        let work = |reply| Work::Remove(*key, expected, reply);
        self.0.ask(work).await
    }

    async fn read(&self, key: &RecordKey) -> Result<(Option<Held>, Timestamp), StoreError> {
        let read = self.0.ask(|reply| Work::Read(*key, reply)).await;
        read.map_err(|_| StoreError::Refused {
            reason: "it did not answer",
            source: None,
        })
    }

    async fn sweep(&self, limit: usize) -> Result<Swept, StoreError> {
        self.0.memory.sweep(limit).await
    }

    async fn list(
        &self,
        filter: &Filter,
        after: Option<Cursor>,
        limit: usize,
    ) -> Result<Page, StoreError> {
        self.0.memory.list(filter, after, limit).await
    }

    async fn stats(&self) -> Result<Stats, StoreError> {
        self.0.memory.stats().await
    }

    fn secret(&self) -> &Secret {
        self.0.memory.secret()
    }

    fn durability(&self) -> Durability {
        Durability::Durable
    }
}
