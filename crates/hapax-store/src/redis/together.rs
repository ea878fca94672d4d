//! Writes that wait together go together: one script for all of them.
//!
//! Nothing waits for company: a write that finds a place free goes at once, and those that come
//! while all places are taken are the next script's. In a Redis Cluster, where a script must stay
//! within its partition, each goes by itself. A caller who leaves takes nothing along: what was
//! sent is finished without him, and what was not is never sent.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use hapax_core::key::RecordKey;
use hapax_core::time::Timestamp;
use redis::Value;
use tokio::sync::oneshot;

use super::cluster::{Asked, Cluster};
use super::error::{Failure, Intent};
use super::layout::Partition;
use super::scripts::{DAMAGED, FULL, HELD, LOST, Program, Scripts};
use super::value::timestamp;

/// Records in one script: few, so that nobody else waits long for the server.
const MAX_CHANGES: usize = 64;

/// Bytes that one script writes, unless they are one record's.
const MAX_BYTES: usize = 1 << 20;

/// Scripts under way at the same time: while the server works at one, the next fills.
const AT_ONCE: usize = 2;

/// The same where each waits for replicas.
const AT_ONCE_WITH_WAIT: usize = 8;

/// A record that is to be written.
pub(super) struct Change {
    partition: Partition,
    key: Vec<u8>,
    /// What the script judges by and puts into the record's head.
    terms: Vec<u8>,
    value: Bytes,
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Became {
    /// It was written at this instant.
    Done(Timestamp),
    /// The claim that was named holds the key no more.
    Stale,
    /// The key is held by these bytes, at this instant.
    Held(Timestamp, Vec<u8>),
    /// What is there is damaged.
    Damaged,
    /// The store's mark is not there.
    Lost,
    /// The server's memory is used up.
    Full,
}

impl Change {
    pub(super) fn new(key: &RecordKey, terms: Vec<u8>, value: Bytes) -> Self {
        let partition = Partition::of(key);
        Self {
            partition,
            key: partition.record(key.as_bytes()),
            terms,
            value,
        }
    }
}

/// The writes of one kind.
pub(super) struct Together {
    cluster: Arc<Cluster>,
    program: fn(&Scripts) -> &Program,
    /// What the script is told before the changes.
    first: Vec<u8>,
    at_once: usize,
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    workers: usize,
}

struct Waiting {
    change: Change,
    reply: oneshot::Sender<Result<Became, Failure>>,
}

impl Together {
    /// For changes that `program` makes, which is told `first` before them.
    pub(super) fn new(
        cluster: &Arc<Cluster>,
        program: fn(&Scripts) -> &Program,
        first: &[u8],
    ) -> Arc<Self> {
        let at_once = match cluster.options().replicas {
            0 => AT_ONCE,
            _ => AT_ONCE_WITH_WAIT,
        };
        Arc::new(Self {
            cluster: Arc::clone(cluster),
            program,
            first: first.to_vec(),
            at_once,
            queue: Mutex::default(),
        })
    }

    /// Has it done.
    pub(super) async fn ask(self: &Arc<Self>, change: Change) -> Result<Became, Failure> {
        if self.cluster.is_cluster() {
            let became = self.perform(&[change]).await?;
            return became.into_iter().next().ok_or(Failure::Strange);
        }
        let (reply, became) = oneshot::channel();
        let is_worker_wanted = {
            let mut queue = self.lock();
            queue.waiting.push_back(Waiting { change, reply });
            let is_wanted = queue.workers < self.at_once;
            queue.workers += usize::from(is_wanted);
            is_wanted
        };
        if is_worker_wanted {
            tokio::spawn(Worker::new(Arc::clone(self)).work());
        }
        // A worker that is gone ended with its runtime: it may have sent the change.
        became.await.unwrap_or(Err(Failure::Strange))
    }

    /// The next to go together; without any, the worker that asks is counted out.
    fn take(&self) -> Vec<Waiting> {
        let mut queue = self.lock();
        let (mut taken, mut bytes) = (Vec::new(), 0);
        while let Some(next) = queue.waiting.pop_front() {
            // Nobody waits for it any more.
            if next.reply.is_closed() {
                continue;
            }
            bytes += next.change.value.len();
            if !taken.is_empty() && (taken.len() >= MAX_CHANGES || bytes > MAX_BYTES) {
                queue.waiting.push_front(next);
                break;
            }
            taken.push(next);
        }
        if taken.is_empty() {
            queue.workers -= 1;
        }
        taken
    }

    /// One script; what became of each change, in their order.
    async fn perform(&self, changes: &[Change]) -> Result<Vec<Became>, Failure> {
        let Some(partition) = changes.first().map(|change| change.partition) else {
            return Ok(Vec::new());
        };
        let (mut beside, mut keys) = (Vec::new(), Vec::new());
        for change in changes {
            let of = change.partition;
            beside.push([of.mark(), of.index(), of.unknown()]);
        }
        let mut arguments: Vec<&[u8]> = vec![&self.first];
        for (change, beside) in changes.iter().zip(&beside) {
            keys.push(change.key.as_slice());
            keys.extend(beside.iter().map(String::as_bytes));
            arguments.push(&change.terms);
            arguments.push(&change.value);
        }
        let program = (self.program)(self.cluster.scripts());
        let asked = Asked {
            partition,
            keys: &keys,
            arguments: &arguments,
        };
        let ask = self.cluster.ask(program, &asked);
        let answer = self.cluster.run(Intent::Write, &ask).await;
        let outcomes = answer.map_err(of_script)?.into_rest();
        if outcomes.len() != changes.len() {
            return Err(Failure::Strange);
        }
        outcomes.into_iter().map(became).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        // Nothing in between leaves the queue half-changed.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The scripts look at each record before they write it, and expect that something else may stand
/// there. Where something else stands in place of an index, records have been written.
fn of_script(failure: Failure) -> Failure {
    match failure {
        Failure::Server(error) if error.code() == Some("WRONGTYPE") => Failure::Lost(error),
        failure => failure,
    }
}

fn became(outcome: Value) -> Result<Became, Failure> {
    match outcome {
        Value::Int(HELD) => Ok(Became::Stale),
        Value::Int(number) if number == -DAMAGED => Ok(Became::Damaged),
        Value::Int(number) if number == -LOST => Ok(Became::Lost),
        Value::Int(number) if number == -FULL => Ok(Became::Full),
        Value::Int(now) if now > 0 => Ok(Became::Done(timestamp(now))),
        Value::Array(parts) => {
            let mut parts = parts.into_iter();
            match (parts.next(), parts.next()) {
                (Some(Value::Int(now)), Some(Value::BulkString(bytes))) => {
                    Ok(Became::Held(timestamp(now), bytes))
                }
                _ => Err(Failure::Strange),
            }
        }
        _ => Err(Failure::Strange),
    }
}

/// Sends scripts until nothing waits.
struct Worker {
    together: Arc<Together>,
    is_counted: bool,
}

impl Worker {
    const fn new(together: Arc<Together>) -> Self {
        Self {
            together,
            is_counted: true,
        }
    }

    async fn work(mut self) {
        loop {
            let (changes, replies): (Vec<_>, Vec<_>) = self
                .together
                .take()
                .into_iter()
                .map(|waiting| (waiting.change, waiting.reply))
                .unzip();
            if changes.is_empty() {
                break;
            }
            // A caller who has left is not told.
            match self.together.perform(&changes).await {
                Ok(became) => {
                    for (became, reply) in became.into_iter().zip(replies) {
                        drop(reply.send(Ok(became)));
                    }
                }
                Err(failure) => {
                    for reply in replies {
                        drop(reply.send(Err(failure.clone())));
                    }
                }
            }
        }
        self.is_counted = false;
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // A worker that did not end by itself, because its runtime did.
        if self.is_counted {
            self.together.lock().workers -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_script_says_of_a_record_is_taken_or_is_strange() {
        let held = |parts: Vec<Value>| became(Value::Array(parts));
        let now = Value::Int(1_700_000_000_000);
        let at = Timestamp::from_millis(1_700_000_000_000);
        assert!(matches!(became(now.clone()), Ok(Became::Done(done)) if done == at));
        assert!(matches!(became(Value::Int(0)), Ok(Became::Stale)));
        assert!(matches!(became(Value::Int(-2)), Ok(Became::Damaged)));
        assert!(matches!(became(Value::Int(-3)), Ok(Became::Lost)));
        assert!(matches!(became(Value::Int(-5)), Ok(Became::Full)));
        let bytes = Value::BulkString(b"x".to_vec());
        assert!(matches!(
            held(vec![now.clone(), bytes]),
            Ok(Became::Held(..))
        ));
        for strange in [
            became(Value::Int(-9)),
            became(Value::Nil),
            held(vec![now]),
            held(vec![]),
        ] {
            assert!(matches!(strange, Err(Failure::Strange)), "{strange:?}");
        }
    }
}
