//! Reading the audit log, and asking for a reload.

use std::sync::Arc;

use axum::extract::State;
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use utoipa::{IntoParams, ToSchema};

use super::Watched;
use super::input::{Content, Params, limit, malformed, reason};
use super::problem::{Kind, Problem, ProblemBody};
use super::tokens::Caller;
use crate::audit::{Entry, Phase};

const DEFAULT_PAGE: usize = 50;
const LARGEST_PAGE: usize = 500;

/// Which entries are wanted.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct AuditParams {
    /// `next` of the page before: entries older than its last.
    after: Option<String>,
    /// 1 to 500; 50 when not given.
    limit: Option<usize>,
}

/// Entries of the audit log, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct AuditView {
    entries: Vec<Entry>,
    /// For `after` of the next page; null at the log's beginning.
    next: Option<String>,
    /// `durable`: synced before an action is answered. `memory`: gone with the process, as the
    /// records of a memory store are.
    durability: &'static str,
    /// Lines of this page that are not entries: torn by a crash, or changed by somebody.
    damaged: u64,
}

/// Shows who did what, and why.
#[utoipa::path(get, path = "/api/v1/audit", params(AuditParams), tag = "actions", responses(
    (status = 200, body = AuditView), (status = "4XX", body = ProblemBody), (status = 503, body = ProblemBody),
))]
pub(super) async fn audit(
    State(watched): State<Arc<Watched>>,
    Params(params): Params<AuditParams>,
) -> Result<Json<AuditView>, Problem> {
    let limit = limit(params.limit, DEFAULT_PAGE, LARGEST_PAGE)?;
    let before = params.after.as_deref().map(str::parse).transpose();
    let before = before.map_err(|_| malformed("`after` is no cursor."))?;
    let page = watched.audit.read(before, limit).await?;
    let is_durable = watched.audit.path().is_some();
    Ok(Json(AuditView {
        entries: page.entries,
        next: page.next.map(|next| next.to_string()),
        durability: if is_durable { "durable" } else { "memory" },
        damaged: page.damaged,
    }))
}

/// Asks for a reload of the configuration.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Reload {
    /// Why, for the audit log: one line, 1 to 1000 characters.
    #[schema(min_length = 1, max_length = 1000)]
    reason: String,
}

/// The configuration was taken.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Reloaded {
    ok: bool,
}

/// Reads the configuration again, as SIGHUP does. A faulty one is refused as a whole, with 409.
#[utoipa::path(post, path = "/api/v1/config:reload", request_body = Reload, tag = "gateway", responses(
    (status = 200, body = Reloaded), (status = "4XX", body = ProblemBody), (status = 503, body = ProblemBody),
))]
pub(super) async fn reload(
    State(watched): State<Arc<Watched>>,
    Extension(caller): Extension<Caller>,
    Content(asked): Content<Reload>,
) -> Result<Json<Reloaded>, Problem> {
    let entry = Entry {
        reason: Some(reason(&asked.reason)?),
        ..Entry::new(Phase::Requested, &caller, "reload")
    };
    watched.audit.append(vec![entry.clone()]).await?;
    let (reply_to, answer) = oneshot::channel();
    let stopping = || Problem::new(Kind::ReloadFailed, "The gateway is stopping.");
    let asked = watched.reloads.send(reply_to).await;
    asked.map_err(|_| stopping())?;
    let taken = answer.await.map_err(|_| stopping())?;
    let taken = taken.map_err(|error| Problem::new(Kind::ReloadFailed, error));
    watched.audit.append(vec![entry.ended(&taken)]).await?;
    taken?;
    Ok(Json(Reloaded { ok: true }))
}
