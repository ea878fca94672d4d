//! Operations that wait together are done together: one statement, one commit.
//!
//! Nothing waits for company. An operation that finds a worker free is done at once, alone;
//! those that come while all workers are busy are the next batch. A caller who leaves takes
//! nothing along: what has begun is finished without him, and what has not is never begun.

use std::collections::VecDeque;
use std::collections::btree_map::{BTreeMap, Entry};
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hapax_core::key::RecordKey;
use tokio::sync::oneshot;

use super::error::Failure;
use super::link::Link;
use crate::clock::Stopwatch;

/// Keys in one statement: beyond this the statement, not the commit, is what takes time.
const MAX_KEYS: usize = 128;

/// Bytes that one statement writes, unless it is for one key.
const MAX_BYTES: usize = 4 << 20;

/// Turns an outcome into that of whoever follows.
pub(super) type Follow<T> = fn(&T) -> T;

/// An operation that can be done together with others of its kind.
pub(super) trait Member: Sized + Send + Sync + 'static {
    /// What it comes to.
    type Outcome: Clone + Send + 'static;

    fn key(&self) -> &RecordKey;

    /// How much it writes.
    fn bytes(&self) -> usize;

    /// What others of the same key come to that came before it was begun, given what it came
    /// to itself. `None` where each has to be done by itself.
    const FOLLOW: Option<Follow<Self::Outcome>>;

    /// Whether that has changed a record.
    fn written(outcome: &Self::Outcome) -> bool;

    /// Does them. Their keys differ and are in order, and there is an outcome for each.
    fn perform(
        link: &Link,
        members: &[Self],
    ) -> impl Future<Output = Result<Vec<Self::Outcome>, Failure>> + Send;
}

/// The operations of one kind.
pub(super) struct Batches<M: Member> {
    link: Arc<Link>,
    /// The most that are under way at the same time.
    at_once: usize,
    queue: Mutex<Queue<M>>,
}

struct Queue<M: Member> {
    waiting: VecDeque<Asked<M>>,
    workers: usize,
}

type Reply<M> = oneshot::Sender<Result<<M as Member>::Outcome, Failure>>;

struct Asked<M: Member> {
    member: M,
    reply: Reply<M>,
}

/// Members with those who wait for them; whoever comes first for a key is the one that is done.
struct Batch<M: Member> {
    members: Vec<M>,
    replies: Vec<Vec<Reply<M>>>,
}

impl<M: Member> Batches<M> {
    pub(super) fn new(link: &Arc<Link>, at_once: usize) -> Arc<Self> {
        Arc::new(Self {
            link: Arc::clone(link),
            at_once,
            queue: Mutex::new(Queue {
                waiting: VecDeque::new(),
                workers: 0,
            }),
        })
    }

    /// Has it done.
    pub(super) async fn ask(self: &Arc<Self>, member: M) -> Result<M::Outcome, Failure> {
        let (reply, outcome) = oneshot::channel();
        let is_worker_wanted = {
            let mut queue = self.lock();
            queue.waiting.push_back(Asked { member, reply });
            let is_wanted = queue.workers < self.at_once;
            queue.workers += usize::from(is_wanted);
            is_wanted
        };
        if is_worker_wanted {
            tokio::spawn(Worker::new(Arc::clone(self)).work());
        }
        outcome.await.unwrap_or(Err(Failure::Abandoned))
    }

    /// The next batch; without one, the worker that asks is counted out.
    fn take(&self) -> Option<Batch<M>> {
        let mut queue = self.lock();
        let mut batch: BTreeMap<RecordKey, (M, Vec<Reply<M>>)> = BTreeMap::new();
        let (mut bytes, mut later) = (0, VecDeque::new());
        while let Some(asked) = queue.waiting.pop_front() {
            // Nobody waits for it any more.
            if asked.reply.is_closed() {
                continue;
            }
            let (len, size) = (batch.len(), asked.member.bytes());
            match batch.entry(*asked.member.key()) {
                Entry::Occupied(mut first) if M::FOLLOW.is_some() => {
                    first.get_mut().1.push(asked.reply);
                }
                Entry::Occupied(_) => later.push_back(asked),
                Entry::Vacant(_) if len >= MAX_KEYS || (len > 0 && bytes + size > MAX_BYTES) => {
                    later.push_back(asked);
                    break;
                }
                Entry::Vacant(place) => {
                    bytes += size;
                    place.insert((asked.member, vec![asked.reply]));
                }
            }
        }
        later.append(&mut queue.waiting);
        queue.waiting = later;
        if batch.is_empty() {
            queue.workers -= 1;
            return None;
        }
        let (members, replies) = batch.into_values().unzip();
        Some(Batch { members, replies })
    }

    async fn perform(&self, batch: Batch<M>) {
        let Batch { members, replies } = batch;
        let watch = Stopwatch::start();
        match M::perform(&self.link, &members).await {
            Ok(outcomes) => {
                let written = outcomes
                    .iter()
                    .filter(|outcome| M::written(outcome))
                    .count();
                if written > 0 {
                    self.link.observer.synced(watch.elapsed(), written);
                }
                for (outcome, replies) in outcomes.into_iter().zip(replies) {
                    answer::<M>(&Ok(outcome), replies);
                }
            }
            // Nothing was written, and perhaps because of one: each is tried by itself, so that
            // one that cannot be done is nobody else's failure.
            Err(failure) if members.len() > 1 && failure.may_be_of_one() => {
                for (member, replies) in members.into_iter().zip(replies) {
                    let alone = M::perform(&self.link, &[member]).await;
                    let only =
                        alone.and_then(|all| all.into_iter().next().ok_or(Failure::Abandoned));
                    answer::<M>(&only, replies);
                }
            }
            Err(failure) => {
                for replies in replies {
                    answer::<M>(&Err(failure.clone()), replies);
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue<M>> {
        // Nothing in between leaves the queue half-changed.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The first is the one whose operation was done. A caller who has left is not told.
fn answer<M: Member>(outcome: &Result<M::Outcome, Failure>, replies: Vec<Reply<M>>) {
    let mut replies = replies.into_iter();
    let first = replies.next();
    for follower in replies {
        let theirs = match (outcome, M::FOLLOW) {
            (Ok(outcome), Some(follow)) => Ok(follow(outcome)),
            // Nobody follows where each is done by itself.
            (Ok(_), None) => Err(Failure::Abandoned),
            (Err(failure), _) => Err(failure.clone()),
        };
        drop(follower.send(theirs));
    }
    if let Some(first) = first {
        drop(first.send(outcome.clone()));
    }
}

/// Does batches until none is left.
struct Worker<M: Member> {
    batches: Arc<Batches<M>>,
    is_counted: bool,
}

impl<M: Member> Worker<M> {
    const fn new(batches: Arc<Batches<M>>) -> Self {
        Self {
            batches,
            is_counted: true,
        }
    }

    async fn work(mut self) {
        while let Some(batch) = self.batches.take() {
            self.batches.perform(batch).await;
        }
        self.is_counted = false;
    }
}

impl<M: Member> Drop for Worker<M> {
    fn drop(&mut self) {
        // A worker that did not end by itself, because its runtime did.
        if self.is_counted {
            self.batches.lock().workers -= 1;
        }
    }
}
