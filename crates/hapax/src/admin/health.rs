//! Is it alive, is it ready, and the metrics: what probes and collectors ask for.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use tokio::time::timeout;

use hapax_core::fingerprint::Fingerprint;
use hapax_core::key::RecordKey;
use hapax_core::record::{ClaimId, Content, Record, State as RecordState, StoredResponse};
use hapax_core::scope::ScopeId;
use hapax_core::store::{Insert, Store};
use hapax_store::AnyStore;

use super::Watched;
use super::problem::Kind;

/// How long a probe of the store may take before the gateway counts as not ready.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// Whether the gateway should get requests. A line of text, for probes and people.
pub(super) async fn ready(State(watched): State<Arc<Watched>>) -> Response {
    let unready = |why: &str| (Kind::Unready.status(), format!("{why}\n")).into_response();
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
        asked_by: None,
        retention: PROBE_TIMEOUT,
        tombstone: Duration::ZERO,
        // Settled, not outstanding: should this process end before it gives the key back, the
        // record expires and is swept like any other. An outstanding one is kept for ever.
        state: RecordState::Rejected(StoredResponse {
            status: Kind::Unready.status(),
            headers: HeaderMap::new(),
            content: Content::Withheld,
        }),
    };
    match store.insert(&key, &record).await? {
        Insert::Claimed { .. } => store.remove(&key, claim).await.map(drop)?,
        Insert::Occupied { .. } => return Err("a random key was taken".into()),
    }
    Ok(())
}

/// The figures as Prometheus text.
pub(super) async fn metrics(State(watched): State<Arc<Watched>>) -> Response {
    let stats = watched.layer.store().stats().await.ok();
    let text = watched.metrics.text(stats.as_ref());
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}
