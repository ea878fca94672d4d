//! What is refused before anything is claimed, and in which order it is judged (section C).

use std::borrow::Cow;

use http::header::{CONTENT_LENGTH, UPGRADE};
use http::request::Parts;

use crate::event::Outcome;
use crate::fingerprint::{Fingerprint, Subject};
use crate::identify::Carried;
use crate::key::KeyError;
use crate::policy::{Anonymous, KeyRequirement, Policy};
use crate::problem::{Problem, ProblemKind};
use crate::scope::{Scope, scope_of};
use crate::secret::HashKeys;

/// A refusal before the store is touched. The key is not used.
#[derive(Debug)]
pub struct Refusal {
    /// What the client is told.
    pub problem: Problem,
    /// What the request counts as.
    pub outcome: Outcome,
}

impl Refusal {
    fn new(kind: ProblemKind, detail: impl Into<Cow<'static, str>>, outcome: Outcome) -> Self {
        Self {
            problem: Problem::new(kind, detail),
            outcome,
        }
    }

    fn refused(kind: ProblemKind, detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(kind, detail, Outcome::Refused)
    }

    /// The key is not one (P4, P5).
    pub fn invalid_key(error: KeyError) -> Self {
        let detail = format!("The key was not used: {error}.");
        Self::new(ProblemKind::KeyInvalid, detail, Outcome::KeyInvalid)
    }

    /// The content is larger than the route takes (P20).
    pub fn too_large(limit: usize) -> Self {
        let detail =
            format!("The content of a keyed request may have {limit} bytes. The key was not used.");
        Self::refused(ProblemKind::BodyTooLarge, detail)
    }

    /// The content did not arrive in full (P20).
    pub fn cut_short() -> Self {
        let detail = "The content did not arrive in full. The key was not used.";
        Self::refused(ProblemKind::RequestMalformed, detail)
    }

    /// The content did not arrive in time (P20).
    pub fn too_slow() -> Self {
        let detail = "The content did not arrive in time. The key was not used.";
        Self::refused(ProblemKind::RequestTimeout, detail)
    }

    /// The content is not the one that `Content-Digest` names (P11).
    pub fn other_digest() -> Self {
        let detail = "The content is not the one that Content-Digest names. The key was not used.";
        Self::refused(ProblemKind::DigestMismatch, detail)
    }

    /// Too many operations are under way (G13).
    pub fn overloaded() -> Self {
        let detail = "Too many operations are under way. Nothing was executed.";
        Self::refused(ProblemKind::Overloaded, detail)
    }

    /// The system has no random numbers for a claim.
    pub fn no_random_numbers() -> Self {
        let detail = "No random numbers are to be had. Nothing was executed.";
        Self::new(ProblemKind::StoreUnavailable, detail, Outcome::StoreError)
    }
}

/// The problem of a key that belongs to another request: names the parts in which this one
/// differs, in the caller's own words (P8). Without `subject`, or without the first one's outline,
/// nothing more is known.
pub fn mismatch(
    first: &Fingerprint,
    keys: &HashKeys,
    policy: &Policy,
    subject: Option<&Subject<'_>>,
) -> Problem {
    let names = subject.map_or_else(Vec::new, |subject| first.differences(keys, policy, subject));
    let what = if names.is_empty() {
        "content".to_owned()
    } else {
        names.join(", ")
    };
    let detail = format!(
        "The first request with this key was another one; this one differs in: {what}. Use a \
         new key for a new operation."
    );
    Problem::new(ProblemKind::KeyReused, detail)
}

/// The refusal of a request without a key, where the route needs one (P3).
pub fn without_key(policy: &Policy) -> Option<Refusal> {
    (policy.key == KeyRequirement::Required).then(|| {
        let detail = "Send an Idempotency-Key: a value that is new for every operation and the \
                      same for every attempt at it.";
        Refusal::new(ProblemKind::KeyMissing, detail, Outcome::KeyMissing)
    })
}

/// What can be judged before the content is there: limits, key, scope, in this order.
///
/// # Errors
/// The refusal.
pub fn judge_head(
    keys: &HashKeys,
    policy: &Policy,
    parts: &Parts,
    carried: Result<Option<Carried>, KeyError>,
) -> Result<(Option<Carried>, Scope), Refusal> {
    if parts.headers.contains_key(UPGRADE) {
        let detail = "A keyed request cannot ask for an upgrade of its connection.";
        return Err(Refusal::refused(ProblemKind::RequestMalformed, detail));
    }
    let length = parts
        .headers
        .get(CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok());
    let length = length.and_then(|value| value.parse::<u64>().ok());
    if length.is_some_and(|length| length > policy.max_body as u64) {
        return Err(Refusal::too_large(policy.max_body));
    }
    let carried = carried.map_err(Refusal::invalid_key)?;
    let scope = scope_of(keys, &policy.scope, &parts.headers);
    if scope.is_anonymous && policy.anonymous == Anonymous::Refuse {
        let names: Vec<String> = policy.scope.iter().map(ToString::to_string).collect();
        let detail = format!("The request has none of: {}.", names.join(", "));
        return Err(Refusal::refused(ProblemKind::ScopeMissing, detail));
    }
    Ok((carried, scope))
}
