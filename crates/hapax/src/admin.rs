//! The operators' listener: is it alive, is it ready, what are the figures.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

use hapax_core::fingerprint::Fingerprint;
use hapax_core::key::RecordKey;
use hapax_core::record::{ClaimId, Record, State as RecordState};
use hapax_core::scope::ScopeId;
use hapax_core::store::{Durability, Insert, Stats, Store};
use hapax_store::{AnyStore, Health};
use hapax_tower::HapaxLayer;

use crate::gateway::proxy::SharedLive;
use crate::telemetry::Metrics;

/// How long a probe of the store may take before the gateway counts as not ready.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// What the operators' pages look at.
pub(crate) struct Watched {
    pub(crate) layer: HapaxLayer<AnyStore>,
    pub(crate) live: SharedLive,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) is_draining: AtomicBool,
    pub(crate) started: Instant,
    pub(crate) gateway: String,
    pub(crate) last_reload_error: arc_swap::ArcSwapOption<String>,
}

/// All paths of the admin listener.
pub(crate) fn router(watched: Arc<Watched>) -> Router {
    Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .route("/api/v1/status", get(status))
        .layer(from_fn(only_this_host))
        .with_state(watched)
}

/// A page elsewhere can make a browser send requests to a loopback address under a name of its
/// own (DNS rebinding); such a name is not answered.
async fn only_this_host(request: Request, next: Next) -> Response {
    if names_this_host(request.headers()) {
        let mut response = next.run(request).await;
        let headers = response.headers_mut();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(
            header::X_CONTENT_TYPE_OPTIONS,
            HeaderValue::from_static("nosniff"),
        );
        return response;
    }
    (
        StatusCode::MISDIRECTED_REQUEST,
        "this listener answers to its address only\n",
    )
        .into_response()
}

/// Whether `Host` is an address or `localhost`, and not a name that somebody else may have made up.
pub(crate) fn names_this_host(headers: &HeaderMap) -> bool {
    let Some(host) = headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok())
    else {
        return false;
    };
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let name = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

async fn ready(State(watched): State<Arc<Watched>>) -> Response {
    let unready = |why: &str| (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response();
    if watched.is_draining.load(Ordering::Relaxed) {
        return unready("draining");
    }
    match timeout(PROBE_TIMEOUT, claim_and_release(watched.layer.store())).await {
        Ok(Ok(())) => "ready\n".into_response(),
        Ok(Err(error)) => unready(&format!("the store cannot claim: {error}")),
        Err(_) => unready("the store did not claim in time"),
    }
}

/// Claims a key that nobody can have and gives it back: the very thing requests need.
async fn claim_and_release(
    store: &AnyStore,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let (mut key, mut claim) = ([0; 16], [0; 16]);
    getrandom::fill(&mut key)?;
    getrandom::fill(&mut claim)?;
    let (key, claim) = (RecordKey::from_bytes(key), ClaimId::from_bytes(claim));
    let record = Record {
        claim,
        scope: ScopeId::from_bytes([0; 16]),
        fingerprint: Fingerprint {
            digest: [0; 16],
            outline: [].into(),
        },
        attempt: 0,
        route: "readiness probe".into(),
        trace: None,
        retention: Duration::ZERO,
        tombstone: Duration::ZERO,
        state: RecordState::Outstanding {
            lease: PROBE_TIMEOUT,
        },
    };
    match store.insert(&key, &record).await? {
        Insert::Claimed { .. } => store.remove(&key, claim).await.map(drop)?,
        Insert::Occupied { .. } => return Err("a random key was taken".into()),
    }
    Ok(())
}

async fn metrics(State(watched): State<Arc<Watched>>) -> Response {
    let stats = watched.layer.store().stats().await.ok();
    let text = watched.metrics.text(stats.as_ref());
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}

async fn status(State(watched): State<Arc<Watched>>) -> Response {
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
    axum::Json(json!({
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
    }))
    .into_response()
}

fn store_status(store: &AnyStore, stats: Option<&Stats>) -> Value {
    let (kind, failure) = match store {
        AnyStore::Memory(_) => ("memory", None),
        AnyStore::Embedded(store) => match store.health() {
            Health::Healthy => ("embedded", None),
            Health::Failed { reason } => ("embedded", Some(reason)),
        },
    };
    let durability = match store.durability() {
        Durability::Durable => "durable",
        Durability::BestEffort => "best-effort",
    };
    json!({
        "kind": kind,
        "durability": durability,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_and_localhost_are_answered() {
        for (host, is_ours) in [
            ("127.0.0.1:9090", true),
            ("localhost", true),
            ("[::1]:9090", true),
            ("evil.example:9090", false),
            ("127.0.0.1.evil.example", false),
            ("", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, HeaderValue::from_str(host).expect("a host"));
            assert_eq!(names_this_host(&headers), is_ours, "{host}");
        }
        assert!(!names_this_host(&HeaderMap::new()));
    }
}
