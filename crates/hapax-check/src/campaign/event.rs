//! What happened, in the order of one clock: the history that is judged.

use std::collections::BTreeMap;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use tokio::time::Instant;

/// One line of a history.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Event {
    /// Since the round began, by one monotonic clock.
    pub(crate) at_us: u64,
    #[serde(flatten)]
    pub(crate) what: What,
}

/// What a line says.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub(crate) enum What {
    /// A request is about to be sent.
    Invoke {
        client: u64,
        op: u64,
        key: String,
        scope: String,
        payload: String,
        fault: Option<&'static str>,
    },
    /// It got a final answer.
    Ok {
        client: u64,
        op: u64,
        #[serde(flatten)]
        seen: Seen,
        node: String,
    },
    /// It was surely not executed by this attempt.
    Fail {
        client: u64,
        op: u64,
        status: u16,
        kind: String,
    },
    /// Nobody knows.
    Info {
        client: u64,
        op: u64,
        status: Option<u16>,
        kind: String,
    },
    /// The world was broken.
    Fault { fault: String, node: String },
    /// The world is whole again.
    Healed,
}

/// A final answer, as far as every repeat must have the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Seen {
    pub(crate) status: u16,
    pub(crate) replayed: bool,
    /// Whether its record was written down by then: only such an answer says when it expires (P24).
    pub(crate) stored: bool,
    pub(crate) body: String,
    pub(crate) fields: Vec<(String, String)>,
}

/// Takes down what happens in a round.
#[derive(Debug)]
pub(crate) struct Recorder {
    start: Instant,
    events: Mutex<Vec<Event>>,
    ops: AtomicU64,
    fired: Mutex<BTreeMap<String, u64>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Recorder {
    pub(crate) fn new() -> Self {
        Self {
            start: Instant::now(),
            events: Mutex::default(),
            ops: AtomicU64::new(1),
            fired: Mutex::default(),
        }
    }

    /// Microseconds since the round began.
    pub(crate) fn now_us(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// The number of a new attempt.
    pub(crate) fn next_op(&self) -> u64 {
        self.ops.fetch_add(1, Ordering::Relaxed)
    }

    /// Adds a line. The instant is taken under the lock, so that lines are in order.
    pub(crate) fn add(&self, what: What) {
        let mut events = lock(&self.events);
        let at_us = self.now_us();
        events.push(Event { at_us, what });
    }

    /// Adds a fault on the world, and counts it.
    pub(crate) fn fault(&self, fault: &str, node: &str) {
        self.count(fault);
        self.add(What::Fault {
            fault: fault.to_owned(),
            node: node.to_owned(),
        });
    }

    /// Counts a fault that is no event of its own.
    pub(crate) fn count(&self, fault: &str) {
        *lock(&self.fired).entry(fault.to_owned()).or_default() += 1;
    }

    /// How often each fault fired.
    pub(crate) fn fired(&self) -> BTreeMap<String, u64> {
        lock(&self.fired).clone()
    }

    /// Everything so far.
    pub(crate) fn events(&self) -> Vec<Event> {
        lock(&self.events).clone()
    }
}

/// Writes a history as JSON lines.
pub(crate) fn write(events: &[Event], path: &Path) -> io::Result<()> {
    let mut file = BufWriter::new(std::fs::File::create(path)?);
    for event in events {
        serde_json::to_writer(&mut file, event)?;
        file.write_all(b"\n")?;
    }
    file.flush()
}

/// A digest that tells contents apart: nobody chooses them to collide.
pub(crate) fn digest(bytes: &[u8]) -> String {
    let fnv = |start: u64| {
        bytes.iter().fold(start, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
        })
    };
    format!(
        "{:016x}{:016x}",
        fnv(0xcbf2_9ce4_8422_2325),
        fnv(0x9ae1_6a3b_2f90_404f)
    )
}
