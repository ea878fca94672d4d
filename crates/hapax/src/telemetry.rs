//! The only place that names metrics, labels and log lines. No label and no line ever holds a
//! key, credentials, a raw path or content.

use std::fmt::Write;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, text::encode};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use tracing_subscriber::EnvFilter;

use hapax_core::event::{Answered, Event, Observer, Outcome, StoreOperation};
use hapax_core::key::RecordKey;
use hapax_core::probe::ProbeOutcome;
use hapax_core::record::UnknownReason;
use hapax_core::store::{Stats, StoreError};
use hapax_store::StoreObserver;

use crate::config::{LogFormat, TelemetrySettings};
use crate::traces::SpanCounts;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteOutcome {
    route: String,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabel {
    route: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OperationLabel {
    operation: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BuildLabels {
    version: &'static str,
}

type Seconds = Gauge<f64, AtomicU64>;

/// Every figure.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<RouteOutcome, Counter>,
    duplicates_stopped: Family<RouteLabel, Counter>,
    observed: Family<RouteOutcome, Counter>,
    probes: Family<RouteOutcome, Counter>,
    quota_exceeded: Family<RouteLabel, Counter>,
    quota_not_counted: Counter,
    request_seconds: Histogram,
    upstream_seconds: Histogram,
    overhead_seconds: Histogram,
    outstanding: Gauge,
    unknown: Gauge,
    unknown_oldest_age: Seconds,
    store_seconds: Family<OperationLabel, Histogram>,
    store_errors: Family<OperationLabel, Counter>,
    sync_seconds: Histogram,
    batch_size: Histogram,
    store_records: Gauge,
    store_bytes: Gauge,
    store_damaged: Gauge,
    lease_lost: Counter,
    stale_write_refused: Counter,
    settlement_abandoned: Counter,
    client_gone: Counter,
    reload_success: Gauge,
    spans: SpanCounts,
}

/// 50 µs to some 100 s: a memory look-up and a slow upstream both lie well inside.
fn latency() -> Histogram {
    Histogram::new(exponential_buckets(0.000_05, 2.0, 22))
}

impl Metrics {
    /// All figures at zero.
    pub(crate) fn new() -> Self {
        let metrics = Self {
            registry: Registry::default(),
            requests: Family::default(),
            duplicates_stopped: Family::default(),
            observed: Family::default(),
            probes: Family::default(),
            quota_exceeded: Family::default(),
            quota_not_counted: Counter::default(),
            request_seconds: latency(),
            upstream_seconds: latency(),
            overhead_seconds: latency(),
            outstanding: Gauge::default(),
            unknown: Gauge::default(),
            unknown_oldest_age: Seconds::default(),
            store_seconds: Family::new_with_constructor(latency),
            store_errors: Family::default(),
            sync_seconds: latency(),
            batch_size: Histogram::new(exponential_buckets(1.0, 2.0, 10)),
            store_records: Gauge::default(),
            store_bytes: Gauge::default(),
            store_damaged: Gauge::default(),
            lease_lost: Counter::default(),
            stale_write_refused: Counter::default(),
            settlement_abandoned: Counter::default(),
            client_gone: Counter::default(),
            reload_success: Gauge::default(),
            spans: SpanCounts::default(),
        };
        metrics.reload_success.set(1);
        // A family shows nothing until it has a member: zeros are what alerts are written for.
        for operation in StoreOperation::ALL {
            let operation = operation.as_str();
            drop(
                metrics
                    .store_errors
                    .get_or_create(&OperationLabel { operation }),
            );
        }
        metrics.registered()
    }

    fn registered(mut self) -> Self {
        let registry = &mut self.registry;
        macro_rules! register {
            ($($name:literal, $help:literal, $metric:expr;)*) => {
                $(registry.register($name, $help, $metric.clone());)*
            };
        }
        // Counters get `_total` from the text format.
        register! {
            "hapax_requests", "Requests answered, by route and outcome", self.requests;
            "hapax_duplicates_stopped", "Requests that would have run an operation again", self.duplicates_stopped;
            "hapax_observed", "On routes that only observe: what enforcing would have done", self.observed;
            "hapax_probes", "Questions to the upstream about unknown outcomes, by route and answer", self.probes;
            "hapax_quota_exceeded", "Requests with a new key of a scope that has as many records as it may", self.quota_exceeded;
            "hapax_quota_not_counted", "Claims that no quota counts: too many scopes have records", self.quota_not_counted;
            "hapax_request_duration_seconds", "From a request's head to its answer's head", self.request_seconds;
            "hapax_upstream_duration_seconds", "Time a keyed request spent in the upstream", self.upstream_seconds;
            "hapax_overhead_seconds", "Time hapax added to a keyed request", self.overhead_seconds;
            "hapax_outstanding", "Claimed records that are not settled", self.outstanding;
            "hapax_unknown", "Records whose outcome nobody can know", self.unknown;
            "hapax_unknown_oldest_age_seconds", "Age of the oldest unknown record", self.unknown_oldest_age;
            "hapax_store_operation_duration_seconds", "Duration of store operations", self.store_seconds;
            "hapax_store_errors", "Store operations that failed", self.store_errors;
            "hapax_store_sync_duration_seconds", "Duration of a synced batch", self.sync_seconds;
            "hapax_store_batch_size", "Operations in a synced batch", self.batch_size;
            "hapax_store_records", "Records held, an estimate", self.store_records;
            "hapax_store_bytes", "Bytes the store takes", self.store_bytes;
            "hapax_store_damaged_records", "Records found damaged: an operator has to look", self.store_damaged;
            "hapax_lease_lost", "Heartbeats that found the claim gone", self.lease_lost;
            "hapax_stale_write_refused", "Writes refused because the claim no longer held the key", self.stale_write_refused;
            "hapax_settlement_abandoned", "Answers that could not be stored while the lease lived", self.settlement_abandoned;
            "hapax_client_gone", "Keyed requests whose client left before the answer", self.client_gone;
            "hapax_spans_sent", "Spans that the trace collector took", self.spans.sent;
            "hapax_spans_dropped", "Spans that were dropped: the queue was full or the collector did not take them", self.spans.dropped;
            "hapax_config_reload_success", "Whether the last reload was taken", self.reload_success;
        }
        let build = Family::<BuildLabels, Gauge>::default();
        build
            .get_or_create(&BuildLabels {
                version: env!("CARGO_PKG_VERSION"),
            })
            .set(1);
        registry.register("hapax_build_info", "The version that runs", build);
        self
    }

    /// The Prometheus text, with gauges from the store's own figures.
    pub(crate) fn text(&self, stats: Option<&Stats>) -> String {
        if let Some(stats) = stats {
            let count = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
            self.outstanding.set(count(stats.outstanding));
            self.unknown.set(count(stats.unknown));
            self.store_records.set(count(stats.records));
            self.store_bytes.set(count(stats.bytes));
            self.store_damaged.set(count(stats.damaged));
            let age = stats
                .oldest_unknown
                .map(|at| stats.now.since(at))
                .unwrap_or_default();
            self.unknown_oldest_age.set(age.as_secs_f64());
        }
        let mut text = String::new();
        if encode(&mut text, &self.registry).is_err() {
            // Writing to a string fails only where a metric cannot be written at all.
            let _ = writeln!(text, "# a metric could not be encoded");
        }
        text
    }

    /// What became of spans.
    pub(crate) fn span_counts(&self) -> SpanCounts {
        self.spans.clone()
    }

    /// Notes whether a reload was taken.
    pub(crate) fn reloaded(&self, is_taken: bool) {
        self.reload_success.set(i64::from(is_taken));
    }

    /// Requests answered and duplicates stopped so far, over all routes and by outcome.
    pub(crate) fn totals(&self, routes: &[String]) -> (Vec<(&'static str, u64)>, u64) {
        let of = |outcome: Outcome| {
            let outcome = outcome.as_str();
            let of_route = |route: &String| {
                let labels = RouteOutcome {
                    route: route.clone(),
                    outcome,
                };
                self.requests
                    .get(&labels)
                    .map_or(0, |counter| counter.get())
            };
            (outcome, routes.iter().map(of_route).sum::<u64>())
        };
        let stopped = |route: &String| {
            let labels = RouteLabel {
                route: route.clone(),
            };
            self.duplicates_stopped
                .get(&labels)
                .map_or(0, |counter| counter.get())
        };
        (
            Outcome::ALL.map(of).to_vec(),
            routes.iter().map(stopped).sum(),
        )
    }

    fn answered(&self, answered: &Answered<'_>) {
        let route = answered.route.to_owned();
        let labels = RouteOutcome {
            route,
            outcome: answered.outcome.as_str(),
        };
        self.requests.get_or_create(&labels).inc();
        if answered.outcome.is_duplicate_stopped() {
            self.duplicates_stopped
                .get_or_create(&RouteLabel {
                    route: labels.route,
                })
                .inc();
        }
        self.request_seconds.observe(answered.total.as_secs_f64());
        if let Some(upstream) = answered.upstream {
            let overhead = answered.total.saturating_sub(upstream);
            self.overhead_seconds.observe(overhead.as_secs_f64());
        }
        if answered.record.is_some() || is_worth_a_line(answered.outcome) {
            log_request(answered);
        }
    }
}

/// Refusals before a record exists are logged as well: somebody's caller has a bug.
fn is_worth_a_line(outcome: Outcome) -> bool {
    !matches!(outcome, Outcome::Unkeyed | Outcome::Observed)
}

/// One line a keyed request.
fn log_request(answered: &Answered<'_>) {
    let record = answered.record.map(tracing::field::display);
    let millis = |duration: Duration| duration.as_secs_f64() * 1000.0;
    tracing::info!(
        target: "hapax::request",
        route = answered.route,
        method = answered.method.as_str(),
        status = answered.status.as_u16(),
        outcome = answered.outcome.as_str(),
        record,
        attempt = answered.attempt,
        age_ms = answered.age.map(millis),
        upstream_ms = answered.upstream.map(millis),
        total_ms = millis(answered.total),
        trace_id = answered.trace_id,
        "request"
    );
}

impl Metrics {
    fn store_called(&self, operation: StoreOperation, took: Duration, error: Option<&StoreError>) {
        let labels = OperationLabel {
            operation: operation.as_str(),
        };
        self.store_seconds
            .get_or_create(&labels)
            .observe(took.as_secs_f64());
        if let Some(error) = error {
            self.store_errors.get_or_create(&labels).inc();
            tracing::error!(operation = labels.operation, %error, "the store failed");
        }
    }

    fn probed(&self, record: &RecordKey, route: &str, outcome: ProbeOutcome) {
        let labels = RouteOutcome {
            route: route.to_owned(),
            outcome: outcome.as_str(),
        };
        tracing::info!(%record, route, outcome = labels.outcome, "the upstream was asked about an unknown outcome");
        self.probes.get_or_create(&labels).inc();
    }
}

/// Says what to do about it, because this line is what somebody is woken with.
fn log_unknown(record: RecordKey, route: &str, reason: UnknownReason, is_probed: bool) {
    let reason = reason.as_str();
    if is_probed {
        tracing::warn!(%record, route, reason, "the outcome is unknown: it is not sent again; the upstream is asked whether it happened, see docs/operating.md#unknown-outcomes");
    } else {
        tracing::warn!(%record, route, reason, "the outcome is unknown: it is not sent again; ask the upstream whether it happened, see docs/operating.md#unknown-outcomes");
    }
}

impl Observer for Metrics {
    fn observe(&self, event: &Event<'_>) {
        match event {
            Event::Answered(answered) => self.answered(answered),
            Event::UpstreamCalled { took, .. } => self.upstream_seconds.observe(took.as_secs_f64()),
            Event::StoreCalled {
                operation,
                took,
                error,
            } => self.store_called(*operation, *took, *error),
            Event::WouldHave { route, outcome } => {
                let route = (*route).to_owned();
                let labels = RouteOutcome {
                    route,
                    outcome: outcome.as_str(),
                };
                self.observed.get_or_create(&labels).inc();
            }
            Event::QuotaExceeded { route } => {
                let route = (*route).to_owned();
                self.quota_exceeded
                    .get_or_create(&RouteLabel { route })
                    .inc();
            }
            Event::QuotaNotCounted { .. } => {
                self.quota_not_counted.inc();
            }
            Event::BecameUnknown {
                record,
                route,
                reason,
                is_probed,
            } => log_unknown(*record, route, *reason, *is_probed),
            Event::Probed {
                record,
                route,
                outcome,
            } => self.probed(record, route, *outcome),
            Event::LeaseLost { record } => {
                self.lease_lost.inc();
                tracing::warn!(%record, "the claim no longer holds its key");
            }
            Event::StaleWriteRefused { record } => {
                self.stale_write_refused.inc();
                tracing::warn!(%record, "a write under an old claim was refused");
            }
            Event::SettlementAbandoned { record, error } => {
                self.settlement_abandoned.inc();
                tracing::error!(%record, %error, "an answer could not be stored; its outcome will be unknown");
            }
            Event::ClientGone { record } => {
                self.client_gone.inc();
                tracing::debug!(%record, "the client left before its answer");
            }
            Event::Claimed {
                record,
                route,
                attempt,
            } => {
                tracing::debug!(%record, route, attempt, "claimed");
            }
            Event::Forwarded { record, attempt } => tracing::debug!(%record, attempt, "forwarded"),
            Event::Released { record } => tracing::debug!(%record, "released"),
            Event::Settled {
                record,
                state,
                status,
            } => {
                tracing::debug!(%record, state = state.as_str(), status = status.as_u16(), "settled");
            }
        }
    }
}

/// The metrics as a store's observer.
#[derive(Debug, Clone)]
pub(crate) struct StoreMetrics(pub(crate) std::sync::Arc<Metrics>);

impl StoreObserver for StoreMetrics {
    fn synced(&self, took: Duration, operations: usize) {
        self.0.sync_seconds.observe(took.as_secs_f64());
        // Batches are far below the precision of a double.
        #[allow(
            clippy::cast_precision_loss,
            reason = "a batch has at most some hundred operations"
        )]
        self.0.batch_size.observe(operations as f64);
    }

    fn failed(&self, reason: &str) {
        tracing::error!(
            reason,
            "the store cannot write any more: no new claims are taken; restart to recover"
        );
    }

    fn damaged(&self, what: &str) {
        tracing::error!(
            what,
            "a stored record is damaged: its key is refused until an operator has looked"
        );
    }
}

/// Changes the log filter while running.
pub(crate) type LogFilter =
    tracing_subscriber::reload::Handle<EnvFilter, tracing_subscriber::Registry>;

/// Starts logging to standard error.
pub(crate) fn start_logging(settings: &TelemetrySettings) -> LogFilter {
    use std::io::IsTerminal;
    use tracing_subscriber::layer::SubscriberExt;
    use tracing_subscriber::util::SubscriberInitExt;

    let (filter, handle) = tracing_subscriber::reload::Layer::new(filter_of(settings));
    let is_text = match settings.log_format {
        LogFormat::Text => true,
        LogFormat::Json => false,
        LogFormat::Auto => std::io::stderr().is_terminal(),
    };
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let registry = tracing_subscriber::registry().with(filter);
    if is_text {
        let is_coloured = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        registry.with(lines.with_ansi(is_coloured).compact()).init();
    } else {
        registry
            .with(lines.json().flatten_event(true).with_current_span(false))
            .init();
    }
    handle
}

/// The filter that the settings name; they were checked when they were read. The engine under
/// the embedded store tells of its housekeeping at level info: only its warnings concern an
/// operator, unless the settings name it.
pub(crate) fn filter_of(settings: &TelemetrySettings) -> EnvFilter {
    EnvFilter::try_new(format!("lsm_tree=warn,{}", settings.log))
        .unwrap_or_else(|_| EnvFilter::new("info"))
}
