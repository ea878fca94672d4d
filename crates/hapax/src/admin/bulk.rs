//! Resolving many unknown outcomes at once, by id or by filter, with a preview.

use std::sync::Arc;

use axum::extract::State;
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use hapax_core::key::RecordKey;
use hapax_core::operate::{Ruling, Verdict, Version, rule};
use hapax_core::record::{Held, StateKind};
use hapax_core::store::{Cursor, Filter, Store};
use hapax_core::time::Timestamp;

use super::Watched;
use super::actions::{ResolveAs, apply, new_claim};
use super::input::{Content, instant, limit, malformed, reason};
use super::problem::{Kind, Problem, ProblemBody};
use super::records::{record_id, state};
use super::tokens::Caller;
use super::view::state_name;
use crate::audit::{Entry, Phase};

/// Records of one call.
const MOST: usize = 1_000;
/// Pages of the store that a filter looks through in one call.
const MOST_PAGES: usize = 200;

/// Which unknown records are resolved, and how.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct BulkResolve {
    r#as: ResolveAs,
    /// Why, for the audit log: one line, 1 to 1000 characters.
    #[schema(min_length = 1, max_length = 1000)]
    reason: String,
    /// These records; at most 1000.
    #[schema(max_items = 1000)]
    ids: Option<Vec<String>>,
    /// Or all unknown records that match.
    filter: Option<BulkFilter>,
    /// Say what would happen, and do nothing. Must be said where a filter is given.
    dry_run: Option<bool>,
    /// The most records that a filter finds: 1 to 1000; 1000 when not given.
    limit: Option<usize>,
    /// `next` of the call before; for a filter.
    after: Option<String>,
}

/// A filter of unknown records.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct BulkFilter {
    /// `unknown`, or not given.
    state: Option<String>,
    /// A route as it is configured.
    route: Option<String>,
    /// Unknown since this instant or later: RFC 3339, or how long ago.
    since: Option<String>,
}

/// What became of each record.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct BulkOutcome {
    dry_run: bool,
    /// Records that were looked at.
    matched: usize,
    /// Records that were resolved, or would be.
    done: usize,
    results: Vec<BulkResult>,
    /// For `after` of the next call, where a filter has more.
    next: Option<String>,
    /// Set when the actions were done and the audit log's second lines could not be written.
    #[serde(skip_serializing_if = "Option::is_none")]
    warning: Option<&'static str>,
}

/// What became of one record.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct BulkResult {
    id: String,
    /// `done`, `would_be_done` or `refused`.
    result: &'static str,
    /// The state afterwards.
    state: Option<&'static str>,
    /// Why it was refused: the kind of the problem.
    because: Option<&'static str>,
}

/// Resolves many unknown outcomes. There is no `If-Match`: every record is written only if it
/// has not changed since this very call looked at it. Answers stay unknown: give one with a
/// record's own `:resolve`.
#[utoipa::path(post, path = "/api/v1/records:resolve", request_body = BulkResolve, tag = "actions", responses(
    (status = 200, body = BulkOutcome), (status = "4XX", body = ProblemBody), (status = 503, body = ProblemBody),
))]
pub(super) async fn resolve(
    State(watched): State<Arc<Watched>>,
    Extension(caller): Extension<Caller>,
    Content(asked): Content<BulkResolve>,
) -> Result<Json<BulkOutcome>, Problem> {
    let why = reason(&asked.reason)?;
    let verdict = match asked.r#as {
        ResolveAs::Completed => Verdict::Completed(None),
        ResolveAs::NotExecuted => Verdict::NotExecuted,
    };
    let (found, next, dry_run) = match (&asked.ids, &asked.filter) {
        (Some(ids), None) => {
            let found = by_id(&watched, ids).await?;
            (found, None, asked.dry_run.unwrap_or(false))
        }
        (None, Some(filter)) => {
            let dry_run = asked.dry_run.ok_or_else(|| {
                malformed("With a `filter`, `dry_run` must be said: look first, then act.")
            })?;
            let (found, next) = by_filter(&watched, filter, &asked).await?;
            (found, next, dry_run)
        }
        _ => return Err(malformed("Give either `ids` or a `filter`.")),
    };
    let mut cases = Vec::new();
    for (id, found) in found {
        cases.push(Case::judge(id, found, &verdict, &why, &caller)?);
    }
    let next = next.map(|Cursor(key)| key.to_string());
    if dry_run {
        return Ok(Json(BulkOutcome::of(cases, true, next, None)));
    }
    let doing = tokio::spawn(carry_out(watched, cases, next));
    doing.await.map_err(|_| {
        let detail = "The call ended early; look at the records and the audit log.";
        Problem::new(Kind::StoreUnavailable, detail)
    })?
}

type Found = Vec<(RecordKey, Option<(Held, Timestamp)>)>;

async fn by_id(watched: &Watched, ids: &[String]) -> Result<Found, Problem> {
    if ids.is_empty() || ids.len() > MOST {
        return Err(malformed("`ids` has 1 to 1000 records."));
    }
    let mut found: Found = Vec::new();
    for text in ids {
        let id = record_id(text).map_err(|_| malformed("`ids` has one that is no id."))?;
        if found.iter().any(|(known, _)| *known == id) {
            return Err(malformed("`ids` names a record twice."));
        }
        let (held, now) = watched.layer.store().read(&id).await?;
        found.push((id, held.map(|held| (held, now))));
    }
    Ok(found)
}

async fn by_filter(
    watched: &Watched,
    filter: &BulkFilter,
    asked: &BulkResolve,
) -> Result<(Found, Option<Cursor>), Problem> {
    let is_unknown = |name: &String| state(name).is_ok_and(|kind| kind == StateKind::Unknown);
    if filter
        .state
        .as_ref()
        .is_some_and(|state| !is_unknown(state))
    {
        return Err(malformed(
            "Only unknown records are resolved: `state` is unknown.",
        ));
    }
    let store = watched.layer.store();
    let now = store.stats().await?.now;
    let since = filter.since.as_deref();
    let wanted = Filter {
        state: Some(StateKind::Unknown),
        route: filter.route.clone(),
        since: since
            .map(|since| instant("since", since, now))
            .transpose()?,
    };
    let limit = limit(asked.limit, MOST, MOST)?;
    let after = asked.after.as_deref().map(str::parse).transpose();
    let mut after = after
        .map_err(|_| malformed("`after` is no cursor."))?
        .map(Cursor);
    let mut found: Found = Vec::new();
    for _ in 0..MOST_PAGES {
        let page = store.list(&wanted, after, limit - found.len()).await?;
        let records = page.records.into_iter();
        found.extend(records.map(|(id, held)| (id, Some((held, now)))));
        after = page.next;
        if after.is_none() || found.len() >= limit {
            break;
        }
    }
    Ok((found, after))
}

/// One record of a call.
struct Case {
    id: RecordKey,
    judged: Result<Judged, Problem>,
}

struct Judged {
    held: Held,
    ruling: Ruling,
    entry: Entry,
}

impl Case {
    fn judge(
        id: RecordKey,
        found: Option<(Held, Timestamp)>,
        verdict: &Verdict,
        why: &str,
        caller: &Caller,
    ) -> Result<Self, Problem> {
        let Some((held, now)) = found else {
            let judged = Err(Problem::new(Kind::NoSuchRecord, "The key is vacant."));
            return Ok(Self { id, judged });
        };
        let ruling = rule(&held, now, verdict, new_claim()?).map_err(Problem::from);
        let judged = ruling.map(|ruling| Judged {
            entry: Entry {
                record: Some(id.to_string()),
                version: Some(Version::of(&held).to_string()),
                leads_to: Some(state_name(ruling.leads_to()).to_owned()),
                reason: Some(why.to_owned()),
                ..Entry::new(Phase::Requested, caller, "resolve")
            },
            held,
            ruling,
        });
        Ok(Self { id, judged })
    }
}

async fn carry_out(
    watched: Arc<Watched>,
    mut cases: Vec<Case>,
    next: Option<String>,
) -> Result<Json<BulkOutcome>, Problem> {
    let judged = cases.iter().filter_map(|case| case.judged.as_ref().ok());
    let requested: Vec<Entry> = judged.map(|judged| judged.entry.clone()).collect();
    watched.audit.append(requested).await?;
    let mut ended = Vec::new();
    for case in &mut cases {
        let Ok(judged) = &case.judged else { continue };
        let applied = apply(&watched, &case.id, &judged.held, &judged.ruling, "resolve").await;
        ended.push(judged.entry.ended(&applied));
        if let Err(problem) = applied {
            case.judged = Err(problem);
        }
    }
    let warning = match watched.audit.append(ended).await {
        Ok(()) => None,
        Err(error) => {
            tracing::error!(%error, "actions were done and their end is not in the audit log");
            Some("done, but the audit log has only that it was requested")
        }
    };
    Ok(Json(BulkOutcome::of(cases, false, next, warning)))
}

impl BulkOutcome {
    fn of(
        cases: Vec<Case>,
        dry_run: bool,
        next: Option<String>,
        warning: Option<&'static str>,
    ) -> Self {
        let results: Vec<_> = cases
            .into_iter()
            .map(|Case { id, judged }| BulkResult {
                id: id.to_string(),
                result: match &judged {
                    Ok(_) if dry_run => "would_be_done",
                    Ok(_) => "done",
                    Err(_) => "refused",
                },
                state: judged
                    .as_ref()
                    .ok()
                    .map(|judged| state_name(judged.ruling.leads_to())),
                because: judged.as_ref().err().map(Problem::fragment),
            })
            .collect();
        let is_done = |result: &&BulkResult| result.because.is_none();
        Self {
            dry_run,
            matched: results.len(),
            done: results.iter().filter(is_done).count(),
            results,
            next,
            warning,
        }
    }
}
