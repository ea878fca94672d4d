//! Records as operators see them: types of their own, so that nothing is shown by accident.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use utoipa::ToSchema;

use hapax_core::key::RecordKey;
use hapax_core::operate::{Inapplicable, Verdict, Version, rule};
use hapax_core::record::{ClaimId, Content, Held, State, StateKind, StoredResponse};
use hapax_core::time::Timestamp;

use crate::activity::{Moment, Timeline, What};

/// An instant in RFC 3339, UTC, with milliseconds.
pub(crate) fn instant(at: Timestamp) -> String {
    let text = at.to_string();
    let whole = text.trim_end_matches('Z');
    format!("{whole}.{:03}Z", at.as_millis() % 1000)
}

/// A record without its content. Keys and credentials are not in a record; what stands for them
/// are hashes under the store's secret.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RecordSummary {
    /// What log lines call `record`.
    id: String,
    /// `outstanding`, `completed`, `rejected`, `unknown` or `tombstone`.
    state: &'static str,
    /// Why the outcome is unknown.
    reason: Option<&'static str>,
    /// Whether an outstanding record's lease has run out: its outcome is unknown.
    is_lapsed: bool,
    /// The route, as it is configured.
    route: String,
    /// How often the operation has been sent to the upstream.
    attempt: u32,
    /// A hash of who sent the key; the same for all records of one caller.
    scope_id: String,
    /// Of this writing of the record: for `If-Match`.
    version: String,
    /// When the present claim was taken.
    claimed_at: String,
    /// When the record was last written; for a settled record, when it was settled.
    written_at: String,
    /// Until when the claim lives without a heartbeat; outstanding records only.
    lease_until: Option<String>,
    /// Until when the answer is replayed.
    retained_until: Option<String>,
    /// When the key is vacant again.
    expires_at: Option<String>,
    /// The stored answer, without its content.
    response: Option<ResponseSummary>,
    /// The trace of the execution.
    trace_id: Option<String>,
}

/// A stored answer without its content.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ResponseSummary {
    /// What repeats are answered with.
    status: u16,
    /// `stored`, or `withheld`: too large, a stream, or never known; then repeats get 303 to its
    /// `Location` or 409 `response-unavailable`.
    content: &'static str,
    /// How much content is stored.
    bytes: usize,
    /// Its `Content-Type`.
    content_type: Option<String>,
}

/// A stored answer with its content.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ResponseContent {
    /// Name and value of each stored field, in order. A value that is not UTF-8 has replacement
    /// characters.
    headers: Vec<(String, String)>,
    /// The content, where it is UTF-8 text.
    body: Option<String>,
    /// The content, where it is not.
    body_base64: Option<String>,
}

/// A record with all that is known of it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RecordDetail {
    #[serde(flatten)]
    summary: RecordSummary,
    /// A hash of what makes two requests the same.
    fingerprint: String,
    /// Fields and content of the stored answer; only with `?content=show`, which needs the role
    /// operator and is written into the audit log.
    content: Option<ResponseContent>,
    /// What each action would do now.
    actions: BTreeMap<&'static str, ActionPreview>,
    /// What happened to the record.
    timeline: TimelineView,
}

/// What an action would do.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ActionPreview {
    is_allowed: bool,
    /// The state afterwards; `vacant` when the next attempt executes.
    leads_to: Option<&'static str>,
    /// Why it is not allowed.
    because: Option<String>,
}

/// What happened to a record, oldest first.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct TimelineView {
    entries: Vec<MomentView>,
    /// Moments that did not fit and are gone.
    omitted: u64,
    /// Whether this process has seen the record from its claim on and forgot nothing.
    is_complete: bool,
    /// Since when this process remembers. What came before, and what other processes did, is
    /// known from the record alone.
    memory_since: String,
}

/// A moment in a record's life.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct MomentView {
    at: String,
    /// `claimed`, `forwarded`, `upstream_answered`, `upstream_failed`, `stored`, `released`,
    /// `became_unknown`, `probed`, `lease_lost`, `stale_write_refused`, `settlement_abandoned`,
    /// `client_gone`, `answered` or `operator`.
    event: &'static str,
    /// `memory`: this process saw it and will forget it. `record`: the durable record says so.
    source: &'static str,
    #[serde(flatten)]
    facts: Facts,
    /// How often in a row.
    count: u32,
    /// When last, where it happened more than once.
    last_at: Option<String>,
}

/// What is known of an event besides its name; what does not apply is left out.
#[derive(Debug, Default, Serialize, ToSchema)]
#[serde(default)]
pub(super) struct Facts {
    /// The how-manieth execution.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) attempt: Option<u32>,
    /// What became of the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) outcome: Option<&'static str>,
    /// The answer's status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) status: Option<u16>,
    /// The record's state from then on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) state: Option<&'static str>,
    /// Why the outcome is unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reason: Option<&'static str>,
    /// What an operator did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) action: Option<&'static str>,
    /// How long it took, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) took_ms: Option<u32>,
}

impl From<What> for Facts {
    fn from(what: What) -> Self {
        let mut facts = Self::default();
        match what {
            What::Claimed { attempt } | What::Forwarded { attempt } => {
                facts.attempt = Some(attempt);
            }
            What::UpstreamAnswered { status, took_ms } => {
                (facts.status, facts.took_ms) = (Some(status), Some(took_ms));
            }
            What::UpstreamFailed { took_ms } => facts.took_ms = Some(took_ms),
            What::Settled { state, status } => {
                (facts.state, facts.status) = (Some(state.as_str()), Some(status));
            }
            What::BecameUnknown { reason } => {
                (facts.state, facts.reason) = (Some("unknown"), Some(reason.as_str()));
            }
            What::Answered {
                outcome,
                status,
                took_ms,
            } => {
                (facts.outcome, facts.status) = (Some(outcome.as_str()), Some(status));
                facts.took_ms = Some(took_ms);
            }
            What::Probed { outcome } => facts.outcome = Some(outcome.as_str()),
            What::Operator { action } => facts.action = Some(action),
            What::Released
            | What::LeaseLost
            | What::StaleWriteRefused
            | What::SettlementAbandoned
            | What::ClientGone => {}
        }
        facts
    }
}

/// The name of a state, or of the absence of a record.
pub(super) fn state_name(state: Option<StateKind>) -> &'static str {
    state.map_or("vacant", StateKind::as_str)
}

impl RecordSummary {
    /// A record at `now`; `None` when it has expired.
    pub(super) fn of(id: &RecordKey, held: &Held, now: Timestamp) -> Option<Self> {
        let kind = held.kind_at(now)?;
        let record = &held.record;
        let lease_until = match &record.state {
            State::Outstanding { lease } => Some(instant(held.written_at.plus(*lease))),
            _ => None,
        };
        let reason = match &record.state {
            State::Unknown { reason, .. } => Some(reason.as_str()),
            _ => None,
        };
        let trace = record.trace.as_deref();
        Some(Self {
            id: id.to_string(),
            state: kind.as_str(),
            reason,
            is_lapsed: held.is_lapsed(now),
            route: record.route.to_string(),
            attempt: record.attempt,
            scope_id: record.scope.to_string(),
            version: Version::of(held).to_string(),
            claimed_at: instant(held.claimed_at),
            written_at: instant(held.written_at),
            lease_until,
            retained_until: held.retained_until().map(instant),
            expires_at: held.expires_at().map(instant),
            // A tombstone answers nothing any more.
            response: record
                .state
                .response()
                .filter(|_| kind != StateKind::Tombstone)
                .map(ResponseSummary::of),
            trace_id: trace.and_then(|trace| trace.split('-').nth(1).map(str::to_owned)),
        })
    }
}

impl ResponseSummary {
    fn of(response: &StoredResponse) -> Self {
        let (content, bytes) = match &response.content {
            Content::Stored(content) => ("stored", content.len()),
            Content::Withheld => ("withheld", 0),
        };
        let content_type = response.headers.get(axum::http::header::CONTENT_TYPE);
        Self {
            status: response.status.as_u16(),
            content,
            bytes,
            content_type: content_type
                .and_then(|value| value.to_str().ok())
                .map(str::to_owned),
        }
    }
}

impl ResponseContent {
    pub(super) fn of(response: &StoredResponse) -> Self {
        let fields = response.headers.iter();
        let headers = fields.map(|(name, value)| {
            let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
            (name.as_str().to_owned(), value)
        });
        let (body, body_base64) = match &response.content {
            Content::Withheld => (None, None),
            Content::Stored(content) => match std::str::from_utf8(content) {
                Ok(text) => (Some(text.to_owned()), None),
                Err(_) => (None, Some(STANDARD.encode(content))),
            },
        };
        Self {
            headers: headers.collect(),
            body,
            body_base64,
        }
    }
}

impl RecordDetail {
    pub(super) fn of(
        summary: RecordSummary,
        held: &Held,
        now: Timestamp,
        memory: (Option<Timeline>, Timestamp),
        content: Option<ResponseContent>,
    ) -> Self {
        let digest = held.record.fingerprint.digest;
        Self {
            summary,
            fingerprint: digest.iter().map(|byte| format!("{byte:02x}")).collect(),
            content,
            actions: previews(held, now),
            timeline: TimelineView::of(held, memory.0, memory.1),
        }
    }
}

/// What each action would do to a record; asked of the very rule that would be applied.
fn previews(held: &Held, now: Timestamp) -> BTreeMap<&'static str, ActionPreview> {
    let verdicts = [
        ("resolve_completed", Verdict::Completed(None)),
        ("resolve_not_executed", Verdict::NotExecuted),
        ("release", Verdict::Release),
        ("expire", Verdict::Expire),
    ];
    let preview = |(name, verdict): (&'static str, Verdict)| {
        // Nothing is written: the claim id is a stand-in.
        let ruling = rule(held, now, &verdict, ClaimId::from_bytes([0; 16]));
        let because = |why: &Inapplicable| why.to_string();
        let preview = ActionPreview {
            is_allowed: ruling.is_ok(),
            leads_to: ruling
                .as_ref()
                .ok()
                .map(|ruling| state_name(ruling.leads_to())),
            because: ruling.as_ref().err().map(because),
        };
        (name, preview)
    };
    verdicts.into_iter().map(preview).collect()
}

impl TimelineView {
    fn of(held: &Held, memory: Option<Timeline>, since: Timestamp) -> Self {
        let memory = memory.unwrap_or_default();
        let claims = |moment: &Moment| matches!(moment.what, What::Claimed { attempt } if attempt == held.record.attempt);
        let has_claim = memory.moments.iter().any(claims);
        let begins_at_first = memory
            .moments
            .first()
            .is_some_and(|moment| matches!(moment.what, What::Claimed { attempt: 1 }));
        let mut entries: Vec<(Timestamp, MomentView)> = Vec::new();
        if !has_claim {
            entries.extend(from_record(held));
        }
        let remembered = memory.moments.iter();
        entries.extend(remembered.map(|moment| (moment.at, MomentView::of(moment))));
        // Stable: what the record says of an instant comes before what is remembered of it.
        entries.sort_by_key(|(at, _)| *at);
        Self {
            entries: entries.into_iter().map(|(_, entry)| entry).collect(),
            omitted: memory.omitted,
            is_complete: begins_at_first && memory.omitted == 0,
            memory_since: instant(since),
        }
    }
}

/// What the durable record itself says of its life, for one whose claim nobody here remembers.
fn from_record(held: &Held) -> impl Iterator<Item = (Timestamp, MomentView)> {
    let record = &held.record;
    let at_end = match &record.state {
        State::Outstanding { .. } => None,
        State::Completed(response) | State::Rejected(response) => Some(What::Settled {
            state: record.state.kind(),
            status: response.status.as_u16(),
        }),
        State::Unknown { reason, .. } => Some(What::BecameUnknown { reason: *reason }),
    };
    let claimed = What::Claimed {
        attempt: record.attempt,
    };
    // A settling write has a claim id of its own, so the claim's instant is only known while
    // the record still has the claim it was executed under.
    let is_claim_known = held.claimed_at < held.written_at || at_end.is_none();
    let claim = is_claim_known.then_some((held.claimed_at, claimed));
    let end = at_end.map(|what| (held.written_at, what));
    claim.into_iter().chain(end).map(|(at, what)| {
        let view = MomentView::at(at, what, "record");
        (at, view)
    })
}

impl MomentView {
    fn at(at: Timestamp, what: What, source: &'static str) -> Self {
        Self {
            at: instant(at),
            event: what.name(),
            source,
            facts: what.into(),
            count: 1,
            last_at: None,
        }
    }

    fn of(moment: &Moment) -> Self {
        Self {
            count: moment.count,
            last_at: (moment.count > 1).then(|| instant(moment.last)),
            ..Self::at(moment.at, moment.what, "memory")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instant_has_milliseconds() {
        let at = Timestamp::from_millis(1_700_000_000_007);
        assert_eq!(instant(at), "2023-11-14T22:13:20.007Z");
    }
}
