//! What operators do to a record: resolve, release, expire (P48, P49). What it means is decided
//! in the core; here it is checked, written down, carried out and told.

use std::sync::Arc;

use axum::extract::{FromRequest, Request, State};
use axum::http::header::ALLOW;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::IntoResponse;
use axum::{Extension, Json};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;
use utoipa::ToSchema;

use hapax_core::key::RecordKey;
use hapax_core::operate::{Ruling, Verdict, Version, dictated, rule};
use hapax_core::record::{ClaimId, Held, StoredResponse};
use hapax_core::store::{Store, StoreError, Write};

use super::Watched;
use super::input::{Content, Target, check_version, malformed, reason, stale};
use super::problem::{Kind, Problem, ProblemBody};
use super::records::{find, record_id};
use super::tokens::Caller;
use super::view::{RecordSummary, state_name};
use crate::audit::{AuditError, Entry, Phase};

/// The largest answer that an operator can dictate.
const MAX_ANSWER: usize = 1024 * 1024;

/// How an unknown outcome is resolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum ResolveAs {
    /// The operation ran: it is never sent again.
    Completed,
    /// The operation did not run: the next attempt executes it.
    NotExecuted,
}

/// Resolves an unknown outcome.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Resolve {
    r#as: ResolveAs,
    /// What repeats are answered with; only with `completed`. Without it they get 409
    /// `response-unavailable`.
    response: Option<Answer>,
    /// Why, for the audit log: one line, 1 to 1000 characters.
    #[schema(min_length = 1, max_length = 1000)]
    reason: String,
    /// Say what would happen, and do nothing.
    #[serde(default)]
    dry_run: bool,
}

/// An answer in an operator's words.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Answer {
    /// 200 to 599.
    #[schema(minimum = 200, maximum = 599)]
    status: u16,
    /// Names and values. Fields of one connection or moment are left out, as in any record.
    #[serde(default)]
    headers: Vec<(String, String)>,
    /// The content as text; at most 1 MiB.
    body: Option<String>,
    /// The content in base64, for what is no text.
    body_base64: Option<String>,
}

/// Releases or expires a record.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Because {
    /// Why, for the audit log: one line, 1 to 1000 characters.
    #[schema(min_length = 1, max_length = 1000)]
    reason: String,
    /// Say what would happen, and do nothing.
    #[serde(default)]
    dry_run: bool,
}

/// What was done.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Outcome {
    id: String,
    /// Whether nothing was done because only a preview was asked for.
    dry_run: bool,
    /// The state before.
    was: &'static str,
    /// The state now; `vacant` when the next attempt executes.
    state: &'static str,
    /// The record as it is now; null when the key is vacant, and in a preview.
    record: Option<RecordSummary>,
    /// Set when the action was done and the audit log's second line could not be written.
    #[serde(skip_serializing_if = "Option::is_none")]
    warning: Option<&'static str>,
}

impl From<AuditError> for Problem {
    fn from(error: AuditError) -> Self {
        Self::new(Kind::AuditUnavailable, error.to_string())
    }
}

impl Answer {
    fn stored(self) -> Result<StoredResponse, Problem> {
        let status = StatusCode::from_u16(self.status)
            .ok()
            .filter(|status| status.as_u16() < 600)
            .ok_or_else(|| malformed("`response.status` is 200 to 599."))?;
        let content = match (self.body, self.body_base64) {
            (Some(_), Some(_)) => {
                return Err(malformed("`response` has a body and a body_base64."));
            }
            (Some(text), None) => Bytes::from(text),
            (None, Some(text)) => STANDARD
                .decode(text)
                .map(Bytes::from)
                .map_err(|_| malformed("`response.body_base64` is not base64."))?,
            (None, None) => Bytes::new(),
        };
        if content.len() > MAX_ANSWER {
            return Err(Problem::new(Kind::TooLarge, "The answer is over 1 MiB."));
        }
        let mut headers = HeaderMap::new();
        for (name, value) in self.headers {
            let name: HeaderName = name
                .parse()
                .map_err(|_| malformed("`response.headers` has a name that is none."))?;
            let value = HeaderValue::from_str(&value)
                .map_err(|_| malformed("`response.headers` has a value that cannot be sent."))?;
            headers.append(name, value);
        }
        dictated(status, &headers, content).map_err(|why| malformed(format!("`response`: {why}.")))
    }
}

impl Resolve {
    fn verdict(self) -> Result<(Verdict, String, bool), Problem> {
        let why = reason(&self.reason)?;
        let verdict = match (self.r#as, self.response) {
            (ResolveAs::Completed, response) => {
                Verdict::Completed(response.map(Answer::stored).transpose()?)
            }
            (ResolveAs::NotExecuted, None) => Verdict::NotExecuted,
            (ResolveAs::NotExecuted, Some(_)) => {
                return Err(malformed("What was not executed has no `response`."));
            }
        };
        Ok((verdict, why, self.dry_run))
    }
}

/// `POST /api/v1/records/{id}:{action}`: a path's parameter is a whole segment here.
pub(super) async fn dispatch(
    State(watched): State<Arc<Watched>>,
    Extension(caller): Extension<Caller>,
    Target(target): Target,
    headers: HeaderMap,
    request: Request,
) -> Result<Json<Outcome>, Problem> {
    let Some((id, action)) = target.split_once(':') else {
        let detail = "A record is shown with GET; actions are ID:resolve, ID:release, ID:expire.";
        return Err(Problem::new(Kind::MethodNotAllowed, detail));
    };
    let call = Call {
        watched,
        caller,
        id: record_id(id)?,
        headers,
    };
    match action {
        "resolve" => resolve(call, Content::from_request(request, &()).await?).await,
        "release" => release(call, Content::from_request(request, &()).await?).await,
        "expire" => expire(call, Content::from_request(request, &()).await?).await,
        _ => Err(super::no_such_call()),
    }
}

/// A record is read, an action is posted: what the path allows depends on which it names.
pub(super) async fn another_method(Target(target): Target) -> impl IntoResponse {
    let allowed = if target.contains(':') {
        "POST"
    } else {
        "GET,HEAD"
    };
    ([(ALLOW, allowed)], super::another_method())
}

/// An action under way.
struct Call {
    watched: Arc<Watched>,
    caller: Caller,
    id: RecordKey,
    headers: HeaderMap,
}

/// Says what came of an unknown outcome: the operation ran, with or without a known answer, or
/// it did not.
#[utoipa::path(post, path = "/api/v1/records/{id}:resolve", request_body = Resolve, tag = "actions",
    params(("id" = String, Path), ("If-Match" = Option<String>, Header, description = "The record's version, in quotes.")), responses(
    (status = 200, body = Outcome), (status = "4XX", body = ProblemBody), (status = 503, body = ProblemBody),
))]
async fn resolve(call: Call, Content(resolve): Content<Resolve>) -> Result<Json<Outcome>, Problem> {
    let (verdict, reason, dry_run) = resolve.verdict()?;
    call.act("resolve", verdict, reason, dry_run).await
}

/// Forgets a record: the key is vacant and the next attempt executes, whatever ran before.
#[utoipa::path(post, path = "/api/v1/records/{id}:release", request_body = Because, tag = "actions",
    params(("id" = String, Path), ("If-Match" = Option<String>, Header, description = "The record's version, in quotes.")), responses(
    (status = 200, body = Outcome), (status = "4XX", body = ProblemBody), (status = 503, body = ProblemBody),
))]
async fn release(call: Call, Content(asked): Content<Because>) -> Result<Json<Outcome>, Problem> {
    let reason = reason(&asked.reason)?;
    call.act("release", Verdict::Release, reason, asked.dry_run)
        .await
}

/// Ends a record's retention now: a tombstone is left where its route has one, else the key is
/// vacant.
#[utoipa::path(post, path = "/api/v1/records/{id}:expire", request_body = Because, tag = "actions",
    params(("id" = String, Path), ("If-Match" = Option<String>, Header, description = "The record's version, in quotes.")), responses(
    (status = 200, body = Outcome), (status = "4XX", body = ProblemBody), (status = 503, body = ProblemBody),
))]
async fn expire(call: Call, Content(asked): Content<Because>) -> Result<Json<Outcome>, Problem> {
    let reason = reason(&asked.reason)?;
    call.act("expire", Verdict::Expire, reason, asked.dry_run)
        .await
}

impl Call {
    async fn act(
        self,
        action: &'static str,
        verdict: Verdict,
        reason: String,
        dry_run: bool,
    ) -> Result<Json<Outcome>, Problem> {
        let (held, now) = find(&self.watched, &self.id).await?;
        let version = Version::of(&held);
        check_version(&self.headers, version)?;
        let ruling = rule(&held, now, &verdict, new_claim()?)?;
        let was = state_name(held.kind_at(now));
        let leads_to = state_name(ruling.leads_to());
        let outcome = Outcome {
            id: self.id.to_string(),
            dry_run,
            was,
            state: leads_to,
            record: None,
            warning: None,
        };
        if dry_run {
            return Ok(Json(outcome));
        }
        let entry = Entry {
            record: Some(self.id.to_string()),
            version: Some(version.to_string()),
            leads_to: Some(leads_to.to_owned()),
            reason: Some(reason),
            ..Entry::new(Phase::Requested, &self.caller, action)
        };
        // In a task of its own: an operator whose connection breaks does not leave half an action.
        let doing = tokio::spawn(self.carry_out(action, held, ruling, entry, outcome));
        doing.await.map_err(|_| {
            let detail = "The action ended early; look at the record and the audit log.";
            Problem::new(Kind::StoreUnavailable, detail)
        })?
    }

    async fn carry_out(
        self,
        action: &'static str,
        held: Held,
        ruling: Ruling,
        entry: Entry,
        mut outcome: Outcome,
    ) -> Result<Json<Outcome>, Problem> {
        let watched = &self.watched;
        watched.audit.append(vec![entry.clone()]).await?;
        let applied = apply(watched, &self.id, &held, &ruling, action).await;
        let written = watched.audit.append(vec![entry.ended(&applied)]).await;
        applied?;
        if let Err(error) = written {
            tracing::error!(%error, record = %self.id, "an action was done and its end is not in the audit log");
            outcome.warning = Some("done, but the audit log has only that it was requested");
        }
        let (now_held, now) = watched.layer.store().read(&self.id).await?;
        outcome.record = now_held.and_then(|held| RecordSummary::of(&self.id, &held, now));
        Ok(Json(outcome))
    }
}

/// A claim id that was never used.
pub(super) fn new_claim() -> Result<ClaimId, Problem> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)
        .map_err(|_| Problem::new(Kind::StoreUnavailable, "No random numbers are to be had."))?;
    Ok(ClaimId::from_bytes(bytes))
}

/// Writes a ruling under the claim that the operator saw, wakes who waits for the key, and tells.
pub(super) async fn apply(
    watched: &Watched,
    id: &RecordKey,
    held: &Held,
    ruling: &Ruling,
    action: &'static str,
) -> Result<(), Problem> {
    let store = watched.layer.store();
    let expected = held.record.claim;
    let patience = watched.live.load().settings.store.operation_timeout;
    let writing = async {
        match ruling {
            Ruling::Replace(record) => store.replace(id, expected, record).await,
            Ruling::Remove => store.remove(id, expected).await,
        }
    };
    let written = timeout(patience, writing).await.unwrap_or_else(|_| {
        let reason = "the operation took too long";
        Err(StoreError::Uncertain {
            reason,
            source: None,
        })
    });
    watched.layer.wake(id);
    match written {
        Ok(Write::Applied { .. }) => {}
        Ok(Write::Stale) => return Err(stale()),
        Err(error) if error.may_have_written() && is_there(store, id, ruling).await => {}
        Err(error) => return Err(error.into()),
    }
    watched.activity.operator(*id, &held.record.route, action);
    tracing::info!(record = %id, action, "an operator changed a record");
    Ok(())
}

/// Whether a write that nobody confirmed has arrived (P51).
async fn is_there(store: &impl Store, id: &RecordKey, ruling: &Ruling) -> bool {
    match (store.read(id).await, ruling) {
        (Ok((Some(held), _)), Ruling::Replace(record)) => held.record.claim == record.claim,
        (Ok((None, _)), Ruling::Remove) => true,
        _ => false,
    }
}

impl Entry {
    /// The entry that ends an action.
    pub(super) fn ended(&self, applied: &Result<(), Problem>) -> Self {
        let (phase, because) = match applied {
            Ok(()) => (Phase::Done, None),
            Err(problem) if problem.kind == Kind::StoreUnavailable => {
                (Phase::Uncertain, Some(problem.detail.clone().into_owned()))
            }
            Err(problem) => (Phase::Refused, Some(problem.fragment().to_owned())),
        };
        Self {
            phase,
            because,
            ..self.clone()
        }
    }
}
