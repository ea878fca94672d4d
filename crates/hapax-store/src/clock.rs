//! Clocks of stores. The only file of the workspace that reads the machine's clocks.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use hapax_core::time::{Clock, Timestamp};

/// The wall clock as it was at construction, plus the time that has passed since by the
/// monotonic clock: somebody who sets the machine's clock moves no lease and no retention.
#[derive(Debug)]
pub struct SystemClock {
    start_ms: u64,
    started: Instant,
}

impl SystemClock {
    /// Starts a clock at the machine's present time.
    #[expect(clippy::disallowed_methods, reason = "the one place that reads clocks")]
    pub fn new() -> Self {
        // A machine whose clock stands before 1970 starts at 1970 and counts from there.
        let since_epoch = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Self {
            start_ms: millis(since_epoch),
            started: Instant::now(),
        }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.start_ms.saturating_add(millis(self.started.elapsed())))
    }
}

/// A clock that never shows an instant before one it has shown, nor before a floor.
///
/// The floor is the last instant that a previous process wrote down. When the inner clock
/// stands before it (somebody set the machine back between two runs), this clock starts at
/// the floor and runs on from there: a clock that stood still until the machine catches up
/// would let no lease end, and one that went back would let retention begin anew.
#[cfg(feature = "embedded")]
#[derive(Debug)]
pub(crate) struct Monotonic<C> {
    inner: C,
    ahead_ms: u64,
    shown_ms: AtomicU64,
}

#[cfg(feature = "embedded")]
impl<C: AsRef<dyn Clock> + Send + Sync + 'static> Monotonic<C> {
    /// Wraps `inner`, raised to `floor`.
    pub(crate) fn new(inner: C, floor: Timestamp) -> Self {
        let ahead_ms = floor
            .as_millis()
            .saturating_sub(inner.as_ref().now().as_millis());
        Self {
            inner,
            ahead_ms,
            shown_ms: AtomicU64::new(floor.as_millis()),
        }
    }
}

#[cfg(feature = "embedded")]
impl<C: AsRef<dyn Clock> + Send + Sync + 'static> Clock for Monotonic<C> {
    fn now(&self) -> Timestamp {
        let now = self.inner.as_ref().now().as_millis();
        let now = now.saturating_add(self.ahead_ms);
        let before = self.shown_ms.fetch_max(now, Ordering::AcqRel);
        Timestamp::from_millis(before.max(now))
    }
}

/// A clock that stands still until it is moved; for tests.
#[derive(Debug, Default)]
pub struct ManualClock(AtomicU64);

impl ManualClock {
    /// A clock that shows `start`.
    pub const fn new(start: Timestamp) -> Self {
        Self(AtomicU64::new(start.as_millis()))
    }

    /// Moves the clock forward.
    pub fn advance(&self, by: Duration) {
        self.0.fetch_add(millis(by), Ordering::AcqRel);
    }

    /// Sets the clock, backwards too: as the machine's clock may be between two processes.
    pub fn set(&self, to: Timestamp) {
        self.0.store(to.as_millis(), Ordering::Release);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0.load(Ordering::Acquire))
    }
}

/// Measures how long work takes, for metrics; never an instant that anything is judged by.
#[cfg(any(feature = "embedded", feature = "postgres"))]
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stopwatch(Instant);

#[cfg(any(feature = "embedded", feature = "postgres"))]
impl Stopwatch {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads clocks")]
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(all(test, feature = "embedded"))]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn a_machine_set_back_between_two_runs_does_not_set_the_store_back() {
        let machine = Arc::new(ManualClock::new(Timestamp::from_millis(1_000)));
        let clock = Monotonic::new(
            Arc::clone(&machine) as Arc<dyn Clock>,
            Timestamp::from_millis(5_000),
        );
        assert_eq!(clock.now(), Timestamp::from_millis(5_000));
        machine.advance(Duration::from_millis(1));
        assert_eq!(clock.now(), Timestamp::from_millis(5_001));
        machine.set(Timestamp::from_millis(0));
        assert_eq!(clock.now(), Timestamp::from_millis(5_001));
    }

    #[test]
    fn the_system_clock_shows_this_century_and_never_goes_back() {
        let clock = SystemClock::new();
        let first = clock.now();
        assert!(first > Timestamp::from_millis(1_700_000_000_000), "{first}");
        assert!(first <= clock.now());
    }
}
