//! Events as they happen, as server-sent events.
//!
//! A reader takes pieces of the feed at its own pace, a tenth of a second apart. Whoever lags
//! behind what the feed holds is told how much it missed; whoever takes nothing is dropped.

use std::fmt::Write;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http_body::Frame;
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use utoipa::{IntoParams, ToSchema};

use super::Watched;
use super::input::{Params, malformed};
use super::problem::{Kind, Problem, ProblemBody};
use super::records::record_id;
use super::view::{Facts, instant};
use crate::activity::{Activity, FEED_EVENTS, Happening};

/// Readers at once.
pub(super) const MOST_READERS: usize = 32;
/// How often a reader looks at the feed.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Events a reader takes at once.
const AT_ONCE: usize = 512;
/// A comment is sent when nothing else was for so long, so that proxies keep the connection.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// A reader that takes nothing for so long is dropped.
const PATIENCE: Duration = Duration::from_secs(30);

/// Which events are wanted.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct EventParams {
    /// Names of events with commas, such as `answered,became_unknown`; all when not given.
    types: Option<String>,
    /// One route only, as it is configured.
    route: Option<String>,
    /// One record only.
    record: Option<String>,
    /// Like the header `Last-Event-ID`, for whoever cannot send it.
    last_event_id: Option<String>,
}

/// The data of an event.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct EventView {
    at: String,
    event: &'static str,
    /// What log lines call `record`; left out for requests that have none.
    #[serde(skip_serializing_if = "Option::is_none")]
    record: Option<String>,
    /// The route, where it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    route: Option<String>,
    #[serde(flatten)]
    facts: Facts,
}

/// What a reader wants of the feed.
struct Wanted {
    types: Option<Vec<String>>,
    route: Option<String>,
    record: Option<hapax_core::key::RecordKey>,
}

impl Wanted {
    fn has(&self, event: &Happening) -> bool {
        let name = event.what.name();
        let types = self.types.as_ref();
        types.is_none_or(|types| types.iter().any(|wanted| wanted == name))
            && (self.route.is_none() || self.route.as_deref() == event.route.as_deref())
            && (self.record.is_none() || self.record == event.record)
    }
}

/// Streams what happens from now on, or from after `Last-Event-ID` on: outcomes and changes of
/// state. Besides the events there are `hello` at the beginning, `lag` with the number of events
/// that were missed, and `reset` when `Last-Event-ID` is of another process.
#[utoipa::path(get, path = "/api/v1/events", tag = "gateway", params(EventParams,
    ("Last-Event-ID" = Option<String>, Header, description = "The id of the last event received.")), responses(
    (status = 200, body = EventView, content_type = "text/event-stream"),
    (status = "4XX", body = ProblemBody), (status = 503, body = ProblemBody),
))]
pub(super) async fn events(
    State(watched): State<Arc<Watched>>,
    Params(params): Params<EventParams>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let last_id = match headers.get("last-event-id") {
        Some(value) => value.to_str().ok().map(str::to_owned),
        None => params.last_event_id,
    };
    let record = params.record.as_deref().map(record_id).transpose();
    let wanted = Wanted {
        types: params
            .types
            .map(|types| types.split(',').map(str::to_owned).collect()),
        route: params.route,
        record: record.map_err(|_| malformed("`record` is not the id of a record."))?,
    };
    let Ok(place) = Arc::clone(&watched.event_readers).try_acquire_owned() else {
        let detail = format!("{MOST_READERS} readers of events are connected.");
        return Err(Problem::new(Kind::TooManyReaders, detail));
    };
    let (to, from) = mpsc::channel(2);
    let reader = Reader {
        activity: Arc::clone(&watched.activity),
        wanted,
        to,
        _place: place,
    };
    tokio::spawn(reader.run(last_id));
    let kind = HeaderValue::from_static("text/event-stream");
    Ok(([(header::CONTENT_TYPE, kind)], Body::new(Stream(from))).into_response())
}

/// The answer's content: pieces as the reader's task hands them over.
struct Stream(mpsc::Receiver<Bytes>);

impl http_body::Body for Stream {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.0
            .poll_recv(cx)
            .map(|piece| piece.map(|piece| Ok(Frame::data(piece))))
    }
}

struct Reader {
    activity: Arc<Activity>,
    wanted: Wanted,
    to: mpsc::Sender<Bytes>,
    _place: OwnedSemaphorePermit,
}

impl Reader {
    /// Ends when the client has gone, or takes nothing for too long.
    async fn run(self, last_id: Option<String>) {
        let process = self.activity.started.as_millis();
        let (mut after, mut text) = self.greet(process, last_id.as_deref());
        let mut looks = interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut spoke_at = Instant::now();
        loop {
            if !text.is_empty() {
                let piece = Bytes::from(std::mem::take(&mut text));
                match timeout(PATIENCE, self.to.send(piece)).await {
                    Ok(Ok(())) => spoke_at = Instant::now(),
                    _ => return,
                }
            }
            tokio::select! {
                () = self.to.closed() => return,
                _ = looks.tick() => {}
            }
            let read = self.activity.read_feed(after, AT_ONCE);
            if read.missed > 0 {
                after += read.missed;
                push(
                    &mut text,
                    process,
                    after,
                    "lag",
                    &format!("{{\"missed\":{}}}", read.missed),
                );
            }
            for (number, event) in &read.events {
                after = *number;
                if self.wanted.has(event) {
                    push(
                        &mut text,
                        process,
                        after,
                        event.what.name(),
                        &data_of(event),
                    );
                }
            }
            if read.events.len() == AT_ONCE {
                looks.reset_immediately();
            }
            if text.is_empty() && spoke_at.elapsed() >= KEEP_ALIVE {
                text.push_str(":\n\n");
            }
        }
    }

    /// Where to begin, and what to say first.
    fn greet(&self, process: u64, last_id: Option<&str>) -> (u64, String) {
        let last = self.activity.last_event();
        let mut text = String::from("retry: 1000\n\n");
        let resumed = last_id.and_then(|id| {
            let (of, number) = id.split_once('-')?;
            Some((of == process.to_string(), number.parse::<u64>().ok()?))
        });
        let after = match resumed {
            None => last,
            Some((true, number)) => number.min(last),
            Some((false, _)) => {
                // What this process still has of its beginning is all there is to make up for it.
                let from = last.saturating_sub(FEED_EVENTS as u64);
                push(
                    &mut text,
                    process,
                    from,
                    "reset",
                    "{\"because\":\"another process\"}",
                );
                from
            }
        };
        push(
            &mut text,
            process,
            after,
            "hello",
            &format!("{{\"last_event\":{last}}}"),
        );
        (after, text)
    }
}

fn data_of(event: &Happening) -> String {
    let view = EventView {
        at: instant(event.at),
        event: event.what.name(),
        record: event.record.map(|record| record.to_string()),
        route: event.route.as_deref().map(str::to_owned),
        facts: event.what.into(),
    };
    // It has texts and numbers only: it always has a JSON form, on one line.
    serde_json::to_string(&view).unwrap_or_default()
}

fn push(text: &mut String, process: u64, number: u64, name: &str, data: &str) {
    // Writing to a string does not fail.
    let _ = write!(
        text,
        "id: {process}-{number}\nevent: {name}\ndata: {data}\n\n"
    );
}
