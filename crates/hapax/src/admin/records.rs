//! Finding records: listed, looked up by key, and one with all that is known of it.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use hapax_core::key::{Key, RecordKey};
use hapax_core::operate::Version;
use hapax_core::record::{Held, StateKind};
use hapax_core::scope::ScopePart;
use hapax_core::store::{Cursor, Filter, Store};
use hapax_core::time::Timestamp;

use super::Watched;
use super::input::{Content, Params, Target, instant, limit, malformed};
use super::problem::{Kind, Problem, ProblemBody};
use super::tokens::{Caller, Role};
use super::view::{RecordDetail, RecordSummary, ResponseContent};
use crate::audit::{Entry, Phase};

const DEFAULT_PAGE: usize = 50;
const LARGEST_PAGE: usize = 500;
/// Parts of a scope that one look-up names: more than any route has.
const MOST_PARTS: usize = 16;

/// Which records are listed.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListParams {
    /// `outstanding`, `completed`, `rejected`, `unknown` or `tombstone`.
    state: Option<String>,
    /// A route as it is configured, such as `POST /v1/orders`.
    route: Option<String>,
    /// Written at this instant or later: RFC 3339, or how long ago (`15m`).
    since: Option<String>,
    /// `next` of the page before.
    after: Option<String>,
    /// 1 to 500; 50 when not given.
    limit: Option<usize>,
}

/// A page of records, in the order of their ids.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RecordPage {
    records: Vec<RecordSummary>,
    /// For `after` of the next page; null when this was the last. A page may be shorter than
    /// asked for, even empty, and still not the last.
    next: Option<String>,
}

impl ListParams {
    fn filter(&self, now: Timestamp) -> Result<Filter, Problem> {
        let since = self.since.as_deref();
        let since = since
            .map(|since| instant("since", since, now))
            .transpose()?;
        Ok(Filter {
            state: self.state.as_deref().map(state).transpose()?,
            route: self.route.clone(),
            since,
        })
    }
}

/// Reads the name of a state.
pub(super) fn state(name: &str) -> Result<StateKind, Problem> {
    [
        StateKind::Outstanding,
        StateKind::Completed,
        StateKind::Rejected,
        StateKind::Unknown,
        StateKind::Tombstone,
    ]
    .into_iter()
    .find(|kind| kind.as_str() == name)
    .ok_or_else(|| malformed("`state` is outstanding, completed, rejected, unknown or tombstone."))
}

/// Lists records, content masked.
#[utoipa::path(get, path = "/api/v1/records", params(ListParams), tag = "records", responses(
    (status = 200, body = RecordPage), (status = "4XX", body = ProblemBody), (status = 503, body = ProblemBody),
))]
pub(super) async fn list(
    State(watched): State<Arc<Watched>>,
    Params(params): Params<ListParams>,
) -> Result<Json<RecordPage>, Problem> {
    let store = watched.layer.store();
    let now = store.stats().await?.now;
    let filter = params.filter(now)?;
    let after = params.after.as_deref().map(|after| {
        let key = after
            .parse()
            .map_err(|_| malformed("`after` is no cursor."));
        key.map(Cursor)
    });
    let limit = limit(params.limit, DEFAULT_PAGE, LARGEST_PAGE)?;
    let page = store.list(&filter, after.transpose()?, limit).await?;
    let records = page.records.iter();
    Ok(Json(RecordPage {
        records: records
            .filter_map(|(id, held)| RecordSummary::of(id, held, now))
            .collect(),
        next: page.next.map(|Cursor(key)| key.to_string()),
    }))
}

/// Whose key is looked up.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Lookup {
    /// The parts of the scope and their values, as the request had them; none for a request
    /// that has none of its route's parts, or whose route says `none`.
    #[serde(default)]
    #[schema(max_items = 16)]
    scope: Vec<LookupPart>,
    /// The key itself: without quotes.
    key: String,
}

/// One part of a scope.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct LookupPart {
    /// As the configuration writes it, such as `header:authorization`.
    part: String,
    /// The value in the request; null for a part that it did not have.
    value: Option<String>,
}

/// What was found: nothing, or one record; more only where two routes have scopes of which one
/// is part of the other.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Found {
    records: Vec<RecordSummary>,
}

/// Looks a key up. The key and the scope are in the content, never in a URL, and are not in the
/// answer.
#[utoipa::path(post, path = "/api/v1/records:lookup", request_body = Lookup, tag = "records", responses(
    (status = 200, body = Found), (status = "4XX", body = ProblemBody), (status = 503, body = ProblemBody),
))]
pub(super) async fn lookup(
    State(watched): State<Arc<Watched>>,
    Content(lookup): Content<Lookup>,
) -> Result<Json<Found>, Problem> {
    let key = Key::from_text(&lookup.key)
        .map_err(|error| malformed(format!("`key` is no key: {error}.")))?;
    let (parts, headers) = scope_values(&lookup.scope)?;
    let mut records = Vec::new();
    for scope in candidate_scopes(&watched, &parts) {
        let id = watched.layer.record_of(&scope, &headers, &key);
        let (held, now) = watched.layer.store().read(&id).await?;
        records.extend(held.and_then(|held| RecordSummary::of(&id, &held, now)));
    }
    Ok(Json(Found { records }))
}

/// The parts that a look-up names, and a head that has their values.
fn scope_values(named: &[LookupPart]) -> Result<(Vec<ScopePart>, HeaderMap), Problem> {
    if named.len() > MOST_PARTS {
        return Err(malformed("`scope` has more than 16 parts."));
    }
    let (mut parts, mut headers) = (Vec::new(), HeaderMap::new());
    for LookupPart { part, value } in named {
        let name = part
            .strip_prefix("header:")
            .and_then(|name| name.parse::<HeaderName>().ok())
            .ok_or_else(|| malformed("A part of `scope` is header:NAME."))?;
        if let Some(value) = value {
            let value = HeaderValue::from_bytes(value.as_bytes())
                .map_err(|_| malformed("A value of `scope` cannot stand in a header field."))?;
            headers.append(&name, value);
        }
        let part = ScopePart::Header(name);
        if !parts.contains(&part) {
            parts.push(part);
        }
    }
    Ok((parts, headers))
}

/// The scopes that a request with these parts can have had: those of routes that have all of
/// them, and the parts as they stand, for a route that is gone.
fn candidate_scopes(watched: &Watched, named: &[ScopePart]) -> Vec<Vec<ScopePart>> {
    let live = watched.live.load();
    let mut scopes: Vec<Vec<ScopePart>> = Vec::new();
    let of_routes = live.routes().iter().map(|route| route.policy.scope.clone());
    let fitting = of_routes.filter(|scope| named.iter().all(|part| scope.contains(part)));
    for scope in fitting.chain([named.to_vec()]) {
        if !scopes.contains(&scope) {
            scopes.push(scope);
        }
    }
    scopes
}

/// How a record is shown.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct DetailParams {
    /// `show`: with fields and content of the stored answer. Needs the role operator and is
    /// written into the audit log.
    content: Option<String>,
}

/// Reads a record's id.
pub(super) fn record_id(text: &str) -> Result<RecordKey, Problem> {
    text.parse()
        .map_err(|_| Problem::new(Kind::NoSuchRecord, "That is not the id of a record."))
}

/// Reads the record with an id; the instant is the store's.
pub(super) async fn find(watched: &Watched, id: &RecordKey) -> Result<(Held, Timestamp), Problem> {
    let (held, now) = watched.layer.store().read(id).await?;
    let held = held.ok_or_else(|| Problem::new(Kind::NoSuchRecord, "The key is vacant."))?;
    Ok((held, now))
}

/// Shows a record with the timeline of its attempts. Its version is the answer's `ETag`.
#[utoipa::path(get, path = "/api/v1/records/{id}", tag = "records",
    params(("id" = String, Path, description = "What log lines call `record`."), DetailParams), responses(
    (status = 200, body = RecordDetail), (status = "4XX", body = ProblemBody), (status = 503, body = ProblemBody),
))]
pub(super) async fn detail(
    State(watched): State<Arc<Watched>>,
    Extension(caller): Extension<Caller>,
    Target(id): Target,
    Params(params): Params<DetailParams>,
) -> Result<Response, Problem> {
    let id = record_id(&id)?;
    let is_content_asked = match params.content.as_deref() {
        None => false,
        Some("show") => true,
        Some(_) => return Err(malformed("`content` is show, or not given.")),
    };
    if is_content_asked && caller.role < Role::Operator {
        let detail = "Stored content is for operators; the token's role is viewer.";
        return Err(Problem::new(Kind::Forbidden, detail));
    }
    let (held, now) = find(&watched, &id).await?;
    let content = if is_content_asked {
        let entry = Entry {
            record: Some(id.to_string()),
            ..Entry::new(Phase::Done, &caller, "show_content")
        };
        watched.audit.append(vec![entry]).await?;
        held.record.state.response().map(ResponseContent::of)
    } else {
        None
    };
    let summary = RecordSummary::of(&id, &held, now)
        .ok_or_else(|| Problem::new(Kind::NoSuchRecord, "The key is vacant."))?;
    let memory = (watched.activity.timeline(&id), watched.activity.started);
    let detail = RecordDetail::of(summary, &held, now, memory, content);
    let mut response = Json(detail).into_response();
    let tag = format!("\"{}\"", Version::of(&held));
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    Ok(response)
}
