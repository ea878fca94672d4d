//! Waiting for conditions, and other small things that every subject needs.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What takes longer hangs: far above anything that a busy machine needs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// How often a condition is looked at that nothing announces.
const LOOK_EVERY: Duration = Duration::from_millis(15);

/// Asks until there is an answer.
pub(crate) fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "it never came: {what}");
        std::thread::park_timeout(LOOK_EVERY);
    }
}

/// A value that several threads change and wait on.
#[derive(Debug)]
pub(crate) struct Watched<T>(Arc<(Mutex<T>, Condvar)>);

impl<T> Clone for Watched<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Watched<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(Arc::new((Mutex::new(value), Condvar::new())))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn change<R>(&self, change: impl FnOnce(&mut T) -> R) -> R {
        let result = change(&mut self.lock());
        self.0.1.notify_all();
        result
    }

    /// Waits until `is_so`; whether it ever was.
    pub(crate) fn wait_until(&self, is_so: impl Fn(&T) -> bool) -> bool {
        let (guard, timeout) = self
            .0
            .1
            .wait_timeout_while(self.lock(), PATIENCE, |value| !is_so(value))
            .unwrap_or_else(PoisonError::into_inner);
        drop(guard);
        !timeout.timed_out()
    }
}

/// Holds whoever comes until it is opened.
#[derive(Debug, Clone)]
pub(crate) struct Gate(Watched<bool>);

impl Gate {
    pub(crate) fn new() -> Self {
        Self(Watched::new(false))
    }

    pub(crate) fn open(&self) {
        self.0.change(|open| *open = true);
    }

    pub(crate) fn pass(&self) {
        self.0.wait_until(|open| *open);
    }
}

/// How many times the usual length a campaign has.
pub(crate) fn campaign() -> usize {
    std::env::var("HAPAX_CAMPAIGN")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(1)
}

/// Numbers that look random and are the same every time (splitmix64).
#[derive(Debug, Clone)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}
