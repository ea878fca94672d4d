//! What happened, in the order of one clock: the history that is judged.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use crate::evidence::Event;

/// A final answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) status: u16,
    pub(crate) replayed: bool,
    /// Whether its record was written down by then: only such an answer says when it expires (P24).
    pub(crate) stored: bool,
    pub(crate) body: String,
    /// Those that every repeat must have as the first answer had them.
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
    pub(crate) fn add(&self, what: impl FnOnce(u64) -> Event) {
        let mut events = lock(&self.events);
        let at_us = self.now_us();
        events.push(what(at_us));
    }

    /// Adds a fault on the world, and counts it.
    pub(crate) fn fault(&self, fault: &str, node: &str) {
        self.count(fault);
        self.add(|at_us| Event::Fault {
            at_us,
            fault: fault.to_owned(),
            node: Some(node.to_owned()),
        });
    }

    /// Adds the end of a fault on the world.
    pub(crate) fn healed(&self, fault: &str, node: &str) {
        self.add(|at_us| Event::Healed {
            at_us,
            fault: Some(fault.to_owned()),
            node: Some(node.to_owned()),
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
