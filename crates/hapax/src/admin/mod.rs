//! The operators' listener: health, metrics, the dashboard, and the API under `/api/v1`.

mod access;
mod actions;
mod bulk;
mod dashboard;
mod events;
mod figures;
mod health;
mod input;
mod journal;
mod openapi;
mod problem;
mod records;
pub(crate) mod tokens;
mod view;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use arc_swap::{ArcSwap, ArcSwapOption};
use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::Instant;

use hapax_store::AnyStore;
use hapax_tower::HapaxLayer;

use crate::activity::Activity;
use crate::audit::AuditLog;
use crate::gateway::proxy::SharedLive;
use crate::telemetry::Metrics;

pub(crate) use access::{Access, names_this_host};
pub(crate) use view::instant;

use problem::{Kind, Problem};

/// Somebody who wants the configuration read again, and to know what came of it.
pub(crate) type ReloadAsked = oneshot::Sender<Result<(), String>>;

/// What the operators' pages look at.
pub(crate) struct Watched {
    pub(crate) layer: HapaxLayer<AnyStore>,
    pub(crate) live: SharedLive,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) activity: Arc<Activity>,
    pub(crate) audit: AuditLog,
    pub(crate) access: Arc<ArcSwap<Access>>,
    pub(crate) reloads: mpsc::Sender<ReloadAsked>,
    pub(crate) event_readers: Arc<Semaphore>,
    pub(crate) is_draining: AtomicBool,
    pub(crate) started: Instant,
    pub(crate) gateway: String,
    pub(crate) last_reload_error: ArcSwapOption<String>,
}

/// Places for readers of events.
pub(crate) fn event_readers() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(events::MOST_READERS))
}

/// All paths of the admin listener. Who may call which is decided in [`access`].
pub(crate) fn router(watched: Arc<Watched>) -> Router {
    let api = Router::new()
        .route("/status", get(figures::status))
        .route("/whoami", get(figures::whoami))
        .route("/routes", get(figures::routes))
        .route("/stats", get(figures::stats))
        .route("/events", get(events::events))
        .route("/records", get(records::list))
        .route("/records:lookup", post(records::lookup))
        .route("/records:resolve", post(bulk::resolve))
        .route(
            "/records/{id}",
            get(records::detail)
                .post(actions::dispatch)
                .fallback(actions::another_method),
        )
        .route("/audit", get(journal::audit))
        .route("/config:reload", post(journal::reload))
        .route("/openapi.json", get(openapi::openapi));
    Router::new()
        .route("/", get(dashboard::index))
        .route("/dashboard/{*name}", get(dashboard::asset))
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(health::ready))
        .route("/metrics", get(health::metrics))
        .nest("/api/v1", api)
        .fallback(|| async { no_such_call() })
        .method_not_allowed_fallback(|| async { another_method() })
        .layer(from_fn_with_state(Arc::clone(&watched), access::guard))
        .with_state(watched)
}

fn another_method() -> Problem {
    Problem::new(Kind::MethodNotAllowed, "This call has another method.")
}

fn no_such_call() -> Problem {
    let detail = "There is no such call; GET /api/v1/openapi.json lists them.";
    Problem::new(Kind::NoSuchCall, detail)
}
