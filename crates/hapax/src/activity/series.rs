//! Figures over time: what became of requests in every ten seconds of the last hour, by route.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use hapax_core::event::{Answered, Outcome};
use hapax_core::time::Timestamp;

use super::hasher::Quick;

/// The length of a step.
pub(crate) const STEP: Duration = Duration::from_secs(10);
/// How far back the figures go.
pub(crate) const LONGEST_WINDOW: Duration = Duration::from_secs(STEPS * STEP.as_secs());

const STEPS: u64 = 360;
const OUTCOMES: usize = Outcome::ALL.len();
/// Upper bounds of latency grow by the square root of two from 50 µs: the last is about 50 s.
const LATENCIES: usize = 40;
const SHORTEST_LATENCY_US: f64 = 50.0;

/// The figures of all routes. A route takes about 140 KB, and their number is bounded.
#[derive(Debug, Default)]
pub(crate) struct Series {
    routes: HashMap<Arc<str>, Box<[Step]>, Quick>,
}

/// One step of one route.
#[derive(Debug, Clone, Copy)]
struct Step {
    /// Which step since 1970 the figures are of.
    number: u64,
    outcomes: [u32; OUTCOMES],
    stopped: u32,
    latencies: [u32; LATENCIES],
    /// What hapax added to requests that were executed.
    added: [u32; LATENCIES],
}

impl Default for Step {
    fn default() -> Self {
        Self {
            number: 0,
            outcomes: [0; OUTCOMES],
            stopped: 0,
            latencies: [0; LATENCIES],
            added: [0; LATENCIES],
        }
    }
}

/// The figures of a window: a column a figure, a row a step, oldest first. The last step is the
/// present one and goes on.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Snapshot {
    /// When each step begins.
    pub(crate) at: Vec<Timestamp>,
    /// Requests by outcome, in the order of [`Outcome::ALL`].
    pub(crate) outcomes: Vec<Vec<u64>>,
    /// Duplicates stopped.
    pub(crate) stopped: Vec<u64>,
    /// Half of the requests took at most this many milliseconds.
    pub(crate) p50_ms: Vec<Option<f64>>,
    /// 99 of 100 did.
    pub(crate) p99_ms: Vec<Option<f64>>,
    /// The same of what hapax added to requests that were executed: their time less the upstream's.
    pub(crate) added_p50_ms: Vec<Option<f64>>,
    /// 99 of 100 of these.
    pub(crate) added_p99_ms: Vec<Option<f64>>,
    /// Requests and duplicates stopped in the window, by route.
    pub(crate) routes: Vec<(Arc<str>, u64, u64)>,
}

fn step_of(at: Timestamp) -> u64 {
    at.as_millis() / 1000 / STEP.as_secs()
}

fn slot(number: u64) -> usize {
    usize::try_from(number % STEPS).unwrap_or_default()
}

impl Series {
    pub(super) fn answered(&mut self, at: Timestamp, route: &Arc<str>, answered: &Answered<'_>) {
        let number = step_of(at);
        let steps = match self.routes.get_mut(route) {
            Some(steps) => steps,
            None => {
                let steps = vec![Step::default(); slot(STEPS - 1) + 1];
                self.routes.entry(Arc::clone(route)).or_insert(steps.into())
            }
        };
        let Some(step) = steps.get_mut(slot(number)) else {
            return;
        };
        if step.number != number {
            *step = Step {
                number,
                ..Step::default()
            };
        }
        let add = |count: Option<&mut u32>| {
            if let Some(count) = count {
                *count = count.saturating_add(1);
            }
        };
        add(step.outcomes.get_mut(answered.outcome as usize));
        add(step.latencies.get_mut(latency_of(answered.total)));
        if let Some(upstream) = answered.upstream {
            let added = answered.total.saturating_sub(upstream);
            add(step.added.get_mut(latency_of(added)));
        }
        if answered.outcome.is_duplicate_stopped() {
            add(Some(&mut step.stopped));
        }
    }

    pub(super) fn snapshot(&self, now: Timestamp, window: Duration, of: Option<&str>) -> Snapshot {
        let steps = window.as_secs().div_ceil(STEP.as_secs()).clamp(1, STEPS);
        let last = step_of(now);
        let first = last.saturating_sub(steps - 1);
        let mut snapshot = Snapshot {
            outcomes: vec![Vec::new(); OUTCOMES],
            ..Snapshot::default()
        };
        let routes: Vec<_> = self
            .routes
            .iter()
            .filter(|(name, _)| of.is_none_or(|of| of == &***name))
            .collect();
        for number in first..=last {
            let mut sum = Step::default();
            for (_, steps) in &routes {
                let step = steps.get(slot(number));
                if let Some(step) = step.filter(|step| step.number == number) {
                    sum.add(step);
                }
            }
            snapshot.push(number, &sum);
        }
        for (name, steps) in routes {
            let in_window = steps
                .iter()
                .filter(|step| step.number >= first && step.number > 0);
            let (mut requests, mut stopped) = (0, 0);
            for step in in_window {
                requests += step
                    .outcomes
                    .iter()
                    .map(|count| u64::from(*count))
                    .sum::<u64>();
                stopped += u64::from(step.stopped);
            }
            snapshot.routes.push((Arc::clone(name), requests, stopped));
        }
        snapshot
            .routes
            .sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        snapshot
    }
}

impl Step {
    fn add(&mut self, other: &Self) {
        let add = |into: &mut [u32], from: &[u32]| {
            for (into, from) in into.iter_mut().zip(from) {
                *into = into.saturating_add(*from);
            }
        };
        add(&mut self.outcomes, &other.outcomes);
        add(&mut self.latencies, &other.latencies);
        add(&mut self.added, &other.added);
        self.stopped = self.stopped.saturating_add(other.stopped);
    }

    fn percentile(&self, percent: u64) -> Option<f64> {
        percentile_of(&self.latencies, percent)
    }
}

/// A latency that the share `percent` of requests kept within; `None` without requests.
fn percentile_of(latencies: &[u32], percent: u64) -> Option<f64> {
    let all: u64 = latencies.iter().map(|count| u64::from(*count)).sum();
    let wanted = (all * percent).div_ceil(100).max(1);
    let mut seen = 0;
    latencies
        .iter()
        .zip(upper_bounds_us())
        .find_map(|(count, bound)| {
            seen += u64::from(*count);
            (seen >= wanted).then_some(bound / 1000.0)
        })
}

impl Snapshot {
    fn push(&mut self, number: u64, step: &Step) {
        let at = number.saturating_mul(STEP.as_secs()).saturating_mul(1000);
        self.at.push(Timestamp::from_millis(at));
        for (column, count) in self.outcomes.iter_mut().zip(step.outcomes) {
            column.push(u64::from(count));
        }
        self.stopped.push(u64::from(step.stopped));
        self.p50_ms.push(step.percentile(50));
        self.p99_ms.push(step.percentile(99));
        self.added_p50_ms.push(percentile_of(&step.added, 50));
        self.added_p99_ms.push(percentile_of(&step.added, 99));
    }
}

fn upper_bounds_us() -> impl Iterator<Item = f64> {
    std::iter::successors(Some(SHORTEST_LATENCY_US), |bound| {
        Some(bound * std::f64::consts::SQRT_2)
    })
}

fn latency_of(took: Duration) -> usize {
    let micros = took.as_secs_f64() * 1e6;
    let fits = upper_bounds_us().position(|bound| micros <= bound);
    fits.unwrap_or(LATENCIES).min(LATENCIES - 1)
}

#[cfg(test)]
mod tests {
    use http::{Method, StatusCode};

    use super::*;

    fn answered(outcome: Outcome, millis: u64) -> Answered<'static> {
        Answered {
            route: "r",
            method: &Method::POST,
            status: StatusCode::OK,
            outcome,
            record: None,
            attempt: None,
            age: None,
            upstream: None,
            total: Duration::from_millis(millis),
            trace_id: None,
            spans: None,
        }
    }

    #[test]
    fn every_outcome_has_its_own_column() {
        for (place, outcome) in Outcome::ALL.into_iter().enumerate() {
            assert_eq!(outcome as usize, place);
        }
    }

    #[test]
    fn figures_are_in_the_step_in_which_they_came_and_leave_with_it() {
        let mut series = Series::default();
        let route: Arc<str> = "r".into();
        let at = |seconds: u64| Timestamp::from_millis(seconds * 1000);
        series.answered(at(100_000), &route, &answered(Outcome::Executed, 1));
        series.answered(at(100_009), &route, &answered(Outcome::Replayed, 1));
        series.answered(at(100_010), &route, &answered(Outcome::Replayed, 1));
        let window = Duration::from_secs(30);
        let snapshot = series.snapshot(at(100_010), window, None);
        assert_eq!(snapshot.at, [at(99_990), at(100_000), at(100_010)]);
        assert_eq!(snapshot.outcomes[Outcome::Replayed as usize], [0, 1, 1]);
        assert_eq!(snapshot.outcomes[Outcome::Executed as usize], [0, 1, 0]);
        assert_eq!(snapshot.stopped, [0, 1, 1]);
        assert_eq!(snapshot.routes, [(Arc::clone(&route), 3, 2)]);
        assert!(
            series
                .snapshot(at(100_010), window, Some("s"))
                .routes
                .is_empty()
        );
        // An hour later the ring has come round: nothing old is shown as new.
        let later = at(100_000 + LONGEST_WINDOW.as_secs());
        let snapshot = series.snapshot(later, LONGEST_WINDOW, None);
        assert_eq!(snapshot.at.len(), 360);
        assert_eq!(snapshot.stopped.iter().sum::<u64>(), 1);
    }

    #[test]
    fn percentiles_are_upper_bounds_within_the_square_root_of_two() {
        let mut series = Series::default();
        let route: Arc<str> = "r".into();
        let now = Timestamp::from_millis(50_000_000);
        for millis in 1..=100 {
            series.answered(now, &route, &answered(Outcome::Executed, millis));
        }
        let snapshot = series.snapshot(now, STEP, None);
        let (p50, p99) = (snapshot.p50_ms[0].unwrap(), snapshot.p99_ms[0].unwrap());
        assert!((50.0..=50.0 * 1.42).contains(&p50), "{p50}");
        assert!((99.0..=99.0 * 1.42).contains(&p99), "{p99}");
        let empty = series.snapshot(Timestamp::from_millis(90_000_000), STEP, None);
        assert_eq!(empty.p50_ms, [None]);
    }
}
