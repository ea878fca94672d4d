//! What runs and how it fares: status, routes with the origin of every rule, figures over time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::extract::State;
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::{IntoParams, ToSchema};

use hapax_core::event::Outcome;
use hapax_core::store::{Durability, Stats, Store};
use hapax_store::{AnyStore, Health};

use super::Watched;
use super::input::{Params, duration, malformed};
use super::problem::{Problem, ProblemBody};
use super::tokens::Caller;
use super::view::instant;
use crate::activity::{LONGEST_WINDOW, STEP};

/// Says what runs: state, version, requests by outcome, the store and the last reload.
#[utoipa::path(get, path = "/api/v1/status", tag = "gateway", responses(
    (status = 200, body = Object), (status = "4XX", body = ProblemBody),
))]
pub(super) async fn status(State(watched): State<Arc<Watched>>) -> Json<Value> {
    let stats = watched.layer.store().stats().await;
    let live = watched.live.load();
    let routes: Vec<String> = live
        .routes()
        .iter()
        .map(|route| route.name.to_string())
        .collect();
    let (outcomes, stopped) = watched.metrics.totals(&routes);
    let outcomes: serde_json::Map<String, Value> = outcomes
        .into_iter()
        .map(|(name, count)| (name.to_owned(), count.into()))
        .collect();
    let reload_error = watched.last_reload_error.load();
    Json(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "pid": std::process::id(),
        "uptime_s": watched.started.elapsed().as_secs(),
        "state": if watched.is_draining.load(Ordering::Relaxed) { "draining" } else { "serving" },
        "gateway": watched.gateway,
        "upstream": live.settings.server.upstream.as_ref().map(|upstream| {
            format!("{}://{}{}", upstream.scheme.as_str(), upstream.authority(), upstream.path_prefix)
        }),
        "routes": routes,
        "under_way": watched.layer.outstanding(),
        "duplicates_stopped": stopped,
        "requests": outcomes,
        "reload": match reload_error.as_deref() {
            None => json!({ "ok": true }),
            Some(error) => json!({ "ok": false, "error": error }),
        },
        "store": store_status(watched.layer.store(), stats.ok().as_ref()),
        "audit": {
            "durability": if watched.audit.path().is_some() { "durable" } else { "memory" },
            "path": watched.audit.path().map(|path| path.display().to_string()),
        },
    }))
}

fn store_status(store: &AnyStore, stats: Option<&Stats>) -> Value {
    let failure = match store {
        AnyStore::Embedded(store) => match store.health() {
            Health::Healthy => None,
            Health::Failed { reason } => Some(reason),
        },
        // A shared store is asked anew every time: its failures pass.
        _ => None,
    };
    let durability = match store.durability() {
        Durability::Durable => "durable",
        Durability::BestEffort => "best-effort",
    };
    json!({
        "kind": store.kind(),
        "durability": durability,
        "at_failover": store.at_failover(),
        "failure": failure,
        "records": stats.map(|stats| stats.records),
        "bytes": stats.map(|stats| stats.bytes),
        "outstanding": stats.map(|stats| stats.outstanding),
        "unknown": stats.map(|stats| stats.unknown),
        "unknown_oldest_age_s": stats.and_then(|stats| {
            stats.oldest_unknown.map(|at| stats.now.since(at).as_secs())
        }),
        "damaged": stats.map(|stats| stats.damaged),
    })
}

/// Whoever calls.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct WhoAmI {
    /// As the audit log has it.
    name: String,
    /// `viewer` or `operator`.
    role: &'static str,
}

/// Says as whom the caller is known.
#[utoipa::path(get, path = "/api/v1/whoami", tag = "gateway", responses(
    (status = 200, body = WhoAmI), (status = "4XX", body = ProblemBody),
))]
pub(super) async fn whoami(Extension(caller): Extension<Caller>) -> Json<WhoAmI> {
    Json(WhoAmI {
        name: caller.name.to_string(),
        role: caller.role.as_str(),
    })
}

/// The routes in force.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RouteList {
    /// In the order of the configuration; the first is `default`, for all that match no other.
    routes: Vec<RouteView>,
}

/// A route and its rules.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RouteView {
    /// `METHOD /path` as it is configured, or `default`.
    name: String,
    /// Where it is written.
    origin: String,
    /// Every rule in force, by name.
    settings: BTreeMap<String, SettingView>,
}

/// A rule of a route.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct SettingView {
    /// As the configuration writes it; null when it is not set.
    value: Value,
    /// Where it comes from: `default`, a line of the file, a variable or a flag.
    origin: String,
}

/// Shows every route with its effective rules and where each comes from.
#[utoipa::path(get, path = "/api/v1/routes", tag = "gateway", responses(
    (status = 200, body = RouteList), (status = "4XX", body = ProblemBody),
))]
pub(super) async fn routes(State(watched): State<Arc<Watched>>) -> Json<RouteList> {
    let live = watched.live.load();
    let view = |route: &Arc<crate::config::Route>| RouteView {
        name: route.name.to_string(),
        origin: route.origin.to_string(),
        settings: route
            .settings
            .iter()
            .map(|setting| {
                let view = SettingView {
                    value: setting.value.clone(),
                    origin: setting.origin.to_string(),
                };
                (setting.name.clone(), view)
            })
            .collect(),
    };
    Json(RouteList {
        routes: live.routes().iter().map(view).collect(),
    })
}

/// Which figures are wanted.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct StatsParams {
    /// How far back: `10s` to `1h`; `15m` when not given.
    window: Option<String>,
    /// One route only, as it is configured.
    route: Option<String>,
}

/// Figures over time: a column a figure, a row a step, oldest first. The last step is the
/// present one and goes on.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct StatsView {
    /// The length of the window in seconds, rounded up to whole steps.
    window_s: u64,
    /// The length of a step in seconds.
    step_s: u64,
    /// Since when this process counts: earlier steps are empty because nobody counted.
    counting_since: String,
    /// When each step begins, in seconds since 1970.
    at: Vec<u64>,
    /// Requests answered in each step, by outcome; only outcomes that occurred.
    requests: BTreeMap<&'static str, Vec<u64>>,
    /// Duplicates stopped in each step.
    duplicates_stopped: Vec<u64>,
    /// Half of the step's requests were answered within so many milliseconds; an upper bound, at
    /// most 1.42 times the true figure. Null without requests.
    p50_ms: Vec<Option<f64>>,
    /// The same for 99 of 100.
    p99_ms: Vec<Option<f64>>,
    /// What hapax added to half of the step's executed requests at most: their time less the
    /// upstream's.
    added_p50_ms: Vec<Option<f64>>,
    /// The same for 99 of 100.
    added_p99_ms: Vec<Option<f64>>,
    /// Sums over the window by route, the busiest first.
    routes: Vec<RouteSum>,
    /// Outstanding records now.
    outstanding: Option<u64>,
    /// Unknown records now.
    unknown: Option<u64>,
}

/// A route's sums over the window.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RouteSum {
    route: String,
    requests: u64,
    duplicates_stopped: u64,
}

/// Shows figures over time, from memory.
#[utoipa::path(get, path = "/api/v1/stats", params(StatsParams), tag = "gateway", responses(
    (status = 200, body = StatsView), (status = "4XX", body = ProblemBody),
))]
pub(super) async fn stats(
    State(watched): State<Arc<Watched>>,
    Params(params): Params<StatsParams>,
) -> Result<Json<StatsView>, Problem> {
    let window = duration("window", params.window.as_deref().unwrap_or("15m"))?;
    if window < STEP || window > LONGEST_WINDOW {
        return Err(malformed("`window` is 10s to 1h."));
    }
    let snapshot = watched.activity.snapshot(window, params.route.as_deref());
    let stats = watched.layer.store().stats().await.ok();
    let occurred = Outcome::ALL
        .into_iter()
        .zip(snapshot.outcomes)
        .filter(|(_, counts)| counts.iter().any(|count| *count > 0))
        .map(|(outcome, counts)| (outcome.as_str(), counts));
    let sum = |(route, requests, duplicates_stopped): (Arc<str>, u64, u64)| RouteSum {
        route: route.to_string(),
        requests,
        duplicates_stopped,
    };
    Ok(Json(StatsView {
        window_s: snapshot.at.len() as u64 * STEP.as_secs(),
        step_s: STEP.as_secs(),
        counting_since: instant(watched.activity.started),
        at: snapshot.at.iter().map(|at| at.as_millis() / 1000).collect(),
        requests: occurred.collect(),
        duplicates_stopped: snapshot.stopped,
        p50_ms: snapshot.p50_ms,
        p99_ms: snapshot.p99_ms,
        added_p50_ms: snapshot.added_p50_ms,
        added_p99_ms: snapshot.added_p99_ms,
        routes: snapshot.routes.into_iter().map(sum).collect(),
        outstanding: stats.map(|stats| stats.outstanding),
        unknown: stats.map(|stats| stats.unknown),
    }))
}
