//! What happened lately, in memory: a feed of events, timelines of records, series of figures.
//!
//! Everything is bounded and forgotten when the process ends. Taking note of an event takes two
//! short locks and no await; whoever reads copies a bounded piece out of them.

mod feed;
mod hasher;
mod series;
mod timeline;

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hapax_core::event::{Answered, Event, Observer, Outcome};
use hapax_core::key::RecordKey;
use hapax_core::probe::ProbeOutcome;
use hapax_core::record::{StateKind, UnknownReason};
use hapax_core::time::{Clock, Timestamp};

pub(crate) use feed::{FEED_EVENTS, Read};
pub(crate) use series::{LONGEST_WINDOW, STEP, Snapshot};
pub(crate) use timeline::{Moment, Timeline};

use feed::Feed;
use hasher::Quick;
use series::Series;
use timeline::Timelines;

/// Names of routes beyond these are shown as `other`: far more than anybody configures.
const MOST_ROUTES: usize = 256;

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Happening {
    pub(crate) at: Timestamp,
    pub(crate) record: Option<RecordKey>,
    pub(crate) route: Option<Arc<str>>,
    pub(crate) what: What,
}

/// What happened. Small and `Copy`: thousands are held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    Claimed {
        attempt: u32,
    },
    Forwarded {
        attempt: u32,
    },
    UpstreamAnswered {
        status: u16,
        took_ms: u32,
    },
    UpstreamFailed {
        took_ms: u32,
    },
    Settled {
        state: StateKind,
        status: u16,
    },
    Released,
    BecameUnknown {
        reason: UnknownReason,
    },
    Probed {
        outcome: ProbeOutcome,
    },
    LeaseLost,
    StaleWriteRefused,
    SettlementAbandoned,
    ClientGone,
    Answered {
        outcome: Outcome,
        status: u16,
        took_ms: u32,
    },
    Operator {
        action: &'static str,
    },
}

impl What {
    /// The event's name in the API.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Claimed { .. } => "claimed",
            Self::Forwarded { .. } => "forwarded",
            Self::UpstreamAnswered { .. } => "upstream_answered",
            Self::UpstreamFailed { .. } => "upstream_failed",
            Self::Settled { .. } => "stored",
            Self::Released => "released",
            Self::BecameUnknown { .. } => "became_unknown",
            Self::Probed { .. } => "probed",
            Self::LeaseLost => "lease_lost",
            Self::StaleWriteRefused => "stale_write_refused",
            Self::SettlementAbandoned => "settlement_abandoned",
            Self::ClientGone => "client_gone",
            Self::Answered { .. } => "answered",
            Self::Operator { .. } => "operator",
        }
    }

    /// Whether the feed has it. What lies between a claim and its end is for timelines only, and
    /// unkeyed requests are for the figures only.
    const fn is_for_feed(self) -> bool {
        !matches!(
            self,
            Self::Forwarded { .. }
                | Self::UpstreamAnswered { .. }
                | Self::UpstreamFailed { .. }
                | Self::Answered {
                    outcome: Outcome::Unkeyed,
                    ..
                }
        )
    }
}

/// Everything that is remembered.
pub(crate) struct Activity {
    clock: Arc<dyn Clock>,
    pub(crate) started: Timestamp,
    shared: Mutex<Shared>,
    timelines: Timelines,
}

struct Shared {
    routes: HashSet<Arc<str>, Quick>,
    feed: Feed,
    series: Series,
}

impl Activity {
    /// Nothing yet.
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        let started = clock.now();
        Self {
            clock,
            started,
            shared: Mutex::new(Shared {
                routes: HashSet::default(),
                feed: Feed::new(),
                series: Series::default(),
            }),
            timelines: Timelines::default(),
        }
    }

    /// Up to `most` events after the one numbered `after`.
    pub(crate) fn read_feed(&self, after: u64, most: usize) -> Read {
        self.lock().feed.read(after, most)
    }

    /// The number of the last event.
    pub(crate) fn last_event(&self) -> u64 {
        self.lock().feed.last()
    }

    /// The figures of the last `window`, of one route or of all.
    pub(crate) fn snapshot(&self, window: Duration, route: Option<&str>) -> Snapshot {
        let now = self.clock.now();
        self.lock().series.snapshot(now, window, route)
    }

    /// What is remembered of a record.
    pub(crate) fn timeline(&self, record: &RecordKey) -> Option<Timeline> {
        self.timelines.of(record)
    }

    /// Notes what an operator did to a record.
    pub(crate) fn operator(&self, record: RecordKey, route: &str, action: &'static str) {
        self.note(Some(record), Some(route), What::Operator { action }, None);
    }

    /// One look at the clock and at most two locks, whatever it is.
    fn note(
        &self,
        record: Option<RecordKey>,
        route: Option<&str>,
        what: What,
        answered: Option<&Answered<'_>>,
    ) {
        let at = self.clock.now();
        if let Some(record) = record {
            self.timelines.note(record, at, what);
        }
        let is_for_feed = what.is_for_feed();
        if !is_for_feed && answered.is_none() {
            return;
        }
        let mut shared = self.lock();
        let route = route.map(|route| shared.route(route));
        if let (Some(answered), Some(route)) = (answered, &route) {
            shared.series.answered(at, route, answered);
        }
        if is_for_feed {
            shared.feed.push(Happening {
                at,
                record,
                route,
                what,
            });
        }
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        // Every change is a single push or addition: a panic elsewhere cannot have torn it.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    /// The shared copy of a route's name.
    fn route(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.routes.get(name) {
            return Arc::clone(known);
        }
        let name: Arc<str> = if self.routes.len() < MOST_ROUTES {
            name.into()
        } else {
            "other".into()
        };
        self.routes.insert(Arc::clone(&name));
        name
    }
}

/// Milliseconds, at most 49 days of them.
fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}

impl Observer for Activity {
    #[allow(clippy::too_many_lines, reason = "a table, one arm an event")]
    fn observe(&self, event: &Event<'_>) {
        let mut counted = None;
        let (record, route, what) = match event {
            Event::Answered(answered) => {
                counted = Some(answered);
                let what = What::Answered {
                    outcome: answered.outcome,
                    status: answered.status.as_u16(),
                    took_ms: millis(answered.total),
                };
                (answered.record, Some(answered.route), what)
            }
            Event::Claimed {
                record,
                route,
                attempt,
            } => {
                let attempt = *attempt;
                (Some(*record), Some(*route), What::Claimed { attempt })
            }
            Event::Forwarded { record, attempt } => {
                let attempt = *attempt;
                (Some(*record), None, What::Forwarded { attempt })
            }
            Event::UpstreamCalled {
                record,
                route,
                status,
                took,
            } => {
                let took_ms = millis(*took);
                let what = match status.map(|status| status.as_u16()) {
                    Some(status) => What::UpstreamAnswered { status, took_ms },
                    None => What::UpstreamFailed { took_ms },
                };
                (Some(*record), Some(*route), what)
            }
            Event::Settled {
                record,
                state,
                status,
            } => {
                let (state, status) = (*state, status.as_u16());
                (Some(*record), None, What::Settled { state, status })
            }
            Event::BecameUnknown {
                record,
                route,
                reason,
                ..
            } => {
                let reason = *reason;
                (Some(*record), Some(*route), What::BecameUnknown { reason })
            }
            Event::Probed {
                record,
                route,
                outcome,
            } => {
                let outcome = *outcome;
                (Some(*record), Some(*route), What::Probed { outcome })
            }
            Event::Released { record } => (Some(*record), None, What::Released),
            Event::LeaseLost { record } => (Some(*record), None, What::LeaseLost),
            Event::StaleWriteRefused { record } => (Some(*record), None, What::StaleWriteRefused),
            Event::SettlementAbandoned { record, .. } => {
                (Some(*record), None, What::SettlementAbandoned)
            }
            Event::ClientGone { record } => (Some(*record), None, What::ClientGone),
            // Figures alone: they are in the metrics.
            Event::WouldHave { .. }
            | Event::StoreCalled { .. }
            | Event::QuotaExceeded { .. }
            | Event::QuotaNotCounted { .. } => return,
        };
        self.note(record, route, what, counted);
    }
}

/// Two observers: the metrics and what is remembered.
pub(crate) struct Both<A, B>(pub(crate) Arc<A>, pub(crate) Arc<B>);

impl<A: Observer, B: Observer> Observer for Both<A, B> {
    fn observe(&self, event: &Event<'_>) {
        self.0.observe(event);
        self.1.observe(event);
    }
}

#[cfg(test)]
mod tests {
    use hapax_store::ManualClock;

    use super::*;

    fn activity() -> Activity {
        Activity::new(Arc::new(ManualClock::new(Timestamp::from_millis(1_000))))
    }

    #[test]
    fn an_event_is_in_the_feed_and_in_its_records_timeline() {
        let activity = activity();
        let record = RecordKey::from_bytes([1; 16]);
        let event = Event::Claimed {
            record,
            route: "r",
            attempt: 1,
        };
        activity.observe(&event);
        activity.observe(&Event::Forwarded { record, attempt: 1 });
        let read = activity.read_feed(0, 10);
        assert_eq!(read.events.len(), 1, "what lies between is for timelines");
        assert_eq!(read.events[0].1.route.as_deref(), Some("r"));
        let timeline = activity.timeline(&record).expect("it is remembered");
        let names: Vec<_> = timeline.moments.iter().map(|m| m.what.name()).collect();
        assert_eq!(names, ["claimed", "forwarded"]);
        assert!(activity.timeline(&RecordKey::from_bytes([2; 16])).is_none());
    }

    #[test]
    fn names_of_routes_are_bounded() {
        let activity = activity();
        for number in 0..MOST_ROUTES + 50 {
            activity.operator(
                RecordKey::from_bytes([1; 16]),
                &format!("route {number}"),
                "release",
            );
        }
        assert!(activity.lock().routes.len() <= MOST_ROUTES + 1);
        let last = activity.read_feed(activity.last_event() - 1, 1);
        assert_eq!(last.events[0].1.route.as_deref(), Some("other"));
    }
}
