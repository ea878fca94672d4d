//! Sends the spans of requests to a collector: OTLP over HTTP, in its JSON encoding. The only place that names spans and their
//! attributes.
//!
//! Requests never wait for it. What the queue cannot take, and what the collector does not take in time, is dropped and counted.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST};
use http::{HeaderValue, Method, Request, Uri};
use http_body_util::{BodyExt, Full, Limited};
use prometheus_client::metrics::counter::Counter;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};

use hapax_core::event::{Answered, Event, Observer};
use hapax_core::key::RecordKey;
use hapax_core::time::Clock;
use hapax_core::trace::{Place, Spans, Work};
use hapax_store::SystemClock;

use crate::config;
use crate::upstream::{TlsRoots, Upstream, UpstreamSettings, UpstreamSetupError};

/// Requests whose spans wait to be sent; beyond, they are dropped.
const QUEUE: usize = 2_048;
/// Requests whose spans are sent together.
const AT_ONCE: usize = 256;
/// How long the first of them waits for others.
const COLLECT_FOR: Duration = Duration::from_secs(1);
/// How long the collector may take; then what was sent counts as dropped.
const SEND_TIMEOUT: Duration = Duration::from_secs(5);
/// How long what is left may take at the end of the process.
const LAST_SEND_TIMEOUT: Duration = Duration::from_secs(2);
/// The most of a collector's answer that is read.
const MAX_ANSWER: usize = 64 * 1024;

/// The spans of one request on their way.
struct Told {
    spans: Spans,
    route: String,
    method: Method,
    status: u16,
    outcome: &'static str,
    record: Option<RecordKey>,
    attempt: Option<u32>,
    age: Option<Duration>,
    total: Duration,
    ended_ms: u64,
}

impl Told {
    fn count(&self) -> u64 {
        1 + self.spans.parts.len() as u64
    }
}

/// Counts what became of spans.
#[derive(Debug, Clone, Default)]
pub(crate) struct SpanCounts {
    pub(crate) sent: Counter,
    pub(crate) dropped: Counter,
}

/// Tells another observer what happens, and hands the spans of requests to the sender.
pub(crate) struct Traced {
    inner: Arc<dyn Observer>,
    queue: mpsc::Sender<Told>,
    counts: SpanCounts,
    clock: SystemClock,
}

impl Observer for Traced {
    fn observe(&self, event: &Event<'_>) {
        self.inner.observe(event);
        if let Event::Answered(answered) = event
            && let Some(spans) = answered.spans
            && spans.place.is_sampled
        {
            self.tell(answered, spans);
        }
    }

    fn wants_spans(&self) -> bool {
        true
    }
}

impl Traced {
    fn tell(&self, answered: &Answered<'_>, spans: &Spans) {
        let Ok(place) = self.queue.try_reserve() else {
            self.counts.dropped.inc_by(1 + spans.parts.len() as u64);
            return;
        };
        place.send(Told {
            spans: spans.clone(),
            route: answered.route.to_owned(),
            method: answered.method.clone(),
            status: answered.status.as_u16(),
            outcome: answered.outcome.as_str(),
            record: answered.record,
            attempt: answered.attempt,
            age: answered.age,
            total: answered.total,
            ended_ms: self.clock.now().as_millis(),
        });
    }
}

/// The task that sends.
pub(crate) struct Sending {
    stop: watch::Sender<bool>,
    running: JoinHandle<()>,
}

impl Sending {
    /// Sends what is left, as far as the collector takes it, and ends.
    pub(crate) async fn stop(self) {
        // A receiver that is gone has ended already.
        let _ = self.stop.send(true);
        let _ = timeout(LAST_SEND_TIMEOUT, self.running).await;
    }
}

/// Starts sending to `endpoint`; the observer takes the place of `inner` alone.
pub(crate) fn start(
    endpoint: &config::Upstream,
    inner: Arc<dyn Observer>,
    counts: SpanCounts,
) -> Result<(Arc<Traced>, Sending), UpstreamSetupError> {
    let tls = match endpoint.scheme {
        config::Scheme::Https => Some(TlsRoots { extra: None }),
        config::Scheme::Http => None,
    };
    let client = Upstream::new(&UpstreamSettings {
        tls,
        max_idle: 1,
        ..UpstreamSettings::new(endpoint.host.clone(), endpoint.port)
    })?;
    let (queue, told) = mpsc::channel(QUEUE);
    let (stop, stopped) = watch::channel(false);
    let sender = Sender {
        client,
        target: format!("{}/v1/traces", endpoint.path_prefix),
        host: endpoint.authority(),
        counts: counts.clone(),
        is_failing: false,
    };
    let observer = Traced {
        inner,
        queue,
        counts,
        clock: SystemClock::new(),
    };
    let running = tokio::spawn(sender.run(told, stopped));
    Ok((Arc::new(observer), Sending { stop, running }))
}

struct Sender {
    client: Upstream<Full<Bytes>>,
    target: String,
    host: String,
    counts: SpanCounts,
    /// So that a collector that is away is one line in the log, and not one a second.
    is_failing: bool,
}

impl Sender {
    async fn run(mut self, mut told: mpsc::Receiver<Told>, mut stopped: watch::Receiver<bool>) {
        let mut batch = Vec::with_capacity(AT_ONCE);
        loop {
            let is_last = tokio::select! {
                biased;
                got = told.recv_many(&mut batch, AT_ONCE) => got == 0,
                // An error is the end, too.
                _ = stopped.wait_for(|is_over| *is_over) => true,
            };
            let until = Instant::now() + if is_last { Duration::ZERO } else { COLLECT_FOR };
            while batch.len() < AT_ONCE {
                let room = AT_ONCE - batch.len();
                let more = told.recv_many(&mut batch, room);
                let over = stopped.wait_for(|is_over| *is_over);
                let waited = timeout_at(until, async {
                    tokio::select! {
                        biased;
                        got = more => got,
                        _ = over => 0,
                    }
                });
                if !waited.await.is_ok_and(|got| got > 0) {
                    break;
                }
            }
            if !batch.is_empty() {
                self.send(&batch).await;
                batch.clear();
            } else if is_last {
                return;
            }
        }
    }

    async fn send(&mut self, batch: &[Told]) {
        let spans: u64 = batch.iter().map(Told::count).sum();
        let failure = match timeout(SEND_TIMEOUT, self.post(batch)).await {
            Ok(Ok(())) => None,
            Ok(Err(failure)) => Some(failure),
            Err(_) => Some("no answer in time".to_owned()),
        };
        match failure {
            None => {
                self.counts.sent.inc_by(spans);
                self.is_failing = false;
            }
            Some(failure) => {
                self.counts.dropped.inc_by(spans);
                if !std::mem::replace(&mut self.is_failing, true) {
                    tracing::warn!(
                        failure,
                        "the trace collector takes no spans; they are dropped until it does"
                    );
                }
            }
        }
    }

    async fn post(&self, batch: &[Told]) -> Result<(), String> {
        let body = Full::new(Bytes::from(document(batch).to_string()));
        let mut request = Request::new(body);
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self
            .target
            .parse::<Uri>()
            .map_err(|error| error.to_string())?;
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let host = HeaderValue::from_str(&self.host).map_err(|error| error.to_string())?;
        headers.insert(HOST, host);
        let sending = self.client.send(Box::new(request), None).await;
        let response = sending.map_err(|error| error.root().to_string())?;
        let status = response.status();
        // Read to its end, so that the connection serves again.
        let _ = Limited::new(response.into_body(), MAX_ANSWER)
            .collect()
            .await;
        if status.is_success() {
            Ok(())
        } else {
            Err(format!("it answers {status}"))
        }
    }
}

/// The body of an `ExportTraceServiceRequest`.
fn document(batch: &[Told]) -> Value {
    let spans: Vec<Value> = batch.iter().flat_map(spans_of).collect();
    let version = env!("CARGO_PKG_VERSION");
    json!({ "resourceSpans": [{
        "resource": { "attributes": [
            text("service.name", "hapax"),
            text("service.version", version),
            number("process.pid", u64::from(std::process::id())),
        ]},
        "scopeSpans": [{ "scope": { "name": "hapax", "version": version }, "spans": spans }],
    }]})
}

fn spans_of(told: &Told) -> Vec<Value> {
    let end = u128::from(told.ended_ms) * 1_000_000;
    let start = end.saturating_sub(told.total.as_nanos());
    let place = told.spans.place;
    let at = |after: Duration| (start + after.as_nanos()).to_string();
    let mut all = vec![server_span(told, start, end)];
    all.extend(told.spans.parts.iter().map(|part| {
        let (name, kind) = match part.work {
            Work::Claim => ("idempotency claim", INTERNAL),
            Work::Upstream => ("upstream request", CLIENT),
            Work::Probe => ("idempotency probe", CLIENT),
            Work::Complete => ("idempotency complete", INTERNAL),
        };
        json!({
            "traceId": hex(&place.trace),
            "spanId": hex(&part.span),
            "parentSpanId": hex(&place.span),
            "name": name,
            "kind": kind,
            "startTimeUnixNano": at(part.from),
            "endTimeUnixNano": at(part.from + part.took),
        })
    }));
    all
}

/// Kinds of spans, as OTLP numbers them.
const INTERNAL: u32 = 1;
const SERVER: u32 = 2;
const CLIENT: u32 = 3;
/// The status of a span that failed.
const ERROR: u32 = 2;

fn server_span(told: &Told, start: u128, end: u128) -> Value {
    let place = told.spans.place;
    // `POST /v1/orders`; the default route has no path, and a request's own is never told.
    let path = told.route.split_once(' ').map(|(_, path)| path);
    let mut attributes = vec![
        text("http.request.method", told.method.as_str()),
        number("http.response.status_code", u64::from(told.status)),
        text("idempotency.outcome", told.outcome),
        text("idempotency.route", &told.route),
    ];
    attributes.extend(path.map(|path| text("http.route", path)));
    attributes.extend(
        told.record
            .map(|record| text("idempotency.record", &record.to_string())),
    );
    attributes.extend(
        told.attempt
            .map(|attempt| number("idempotency.attempt", attempt.into())),
    );
    let millis = |age: Duration| u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
    attributes.extend(
        told.age
            .map(|age| number("idempotency.age_ms", millis(age))),
    );
    let mut span = json!({
        "traceId": hex(&place.trace),
        "spanId": hex(&place.span),
        "name": path.map_or(told.method.to_string(), |path| format!("{} {path}", told.method)),
        "kind": SERVER,
        "startTimeUnixNano": start.to_string(),
        "endTimeUnixNano": end.to_string(),
        "attributes": attributes,
    });
    let mut set = |name: &str, value: Value| {
        if let Some(members) = span.as_object_mut() {
            members.insert(name.to_owned(), value);
        }
    };
    if let Some(parent) = told.spans.parent {
        set("parentSpanId", hex(&parent).into());
    }
    if let Some(state) = told
        .spans
        .state
        .as_ref()
        .and_then(|state| state.to_str().ok())
    {
        set("traceState", state.into());
    }
    // A replay leads to where the operation ran.
    if let Some(first) = told.spans.first.as_deref().and_then(Place::parse) {
        let link = json!({
            "traceId": hex(&first.trace),
            "spanId": hex(&first.span),
            "attributes": [text("idempotency.link", "first execution")],
        });
        set("links", json!([link]));
    }
    if told.status >= 500 {
        set("status", json!({ "code": ERROR, "message": told.outcome }));
    }
    span
}

fn text(key: &str, value: &str) -> Value {
    json!({ "key": key, "value": { "stringValue": value } })
}

/// 64-bit numbers are texts in this encoding.
fn number(key: &str, value: u64) -> Value {
    json!({ "key": key, "value": { "intValue": value.to_string() } })
}

/// Ids are in hexadecimal, unlike other bytes in this encoding.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
