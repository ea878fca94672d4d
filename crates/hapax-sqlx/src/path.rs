//! Keys in the path (P4): the parameters that axum's router found there.

use std::sync::Arc;

use axum::extract::RawPathParams;
use axum::extract::rejection::RawPathParamsRejection;
use axum_core::extract::FromRequestParts;
use http::request::Parts;

use hapax_core::event::Outcome;
use hapax_core::identify::Params;
use hapax_core::key::KeyError;
use hapax_core::policy::{KeySource, Policy};
use hapax_core::problem::{Problem, ProblemKind};
use hapax_core::refusal::Refusal;

/// The parameters, decoded, where the policy looks for a key among them.
pub(crate) async fn params(
    policy: &Policy,
    parts: &mut Parts,
) -> Result<Vec<(Arc<str>, String)>, Refusal> {
    if names(policy).next().is_none() {
        return Ok(Vec::new());
    }
    match RawPathParams::from_request_parts(parts, &()).await {
        Ok(params) => Ok(params
            .iter()
            .map(|(name, value)| (name.into(), value.to_owned()))
            .collect()),
        Err(RawPathParamsRejection::InvalidUtf8InPathParam(_)) => {
            Err(Refusal::invalid_key(KeyError::Character))
        }
        // No router stands before the layer, or the route has no parameters.
        Err(_) => Ok(Vec::new()),
    }
}

/// The refusal of a request without a key on a route that lacks the parameter which should be one:
/// a fault of the set-up, which must not turn into running without protection.
pub(crate) fn not_routed(policy: &Policy, params: &Params) -> Option<Refusal> {
    let is_there = |name: &str| params.iter().any(|(param, _)| **param == *name);
    let missing = names(policy).find(|name| !is_there(name))?;
    let detail = format!(
        "The route has no path parameter {missing}, of which its key is to be taken. Nothing was \
         executed."
    );
    Some(Refusal {
        problem: Problem::new(ProblemKind::RolledBack, detail),
        outcome: Outcome::Refused,
    })
}

fn names(policy: &Policy) -> impl Iterator<Item = &str> {
    policy.key_from.iter().filter_map(|source| match source {
        KeySource::Path(name) => Some(name.as_str()),
        _ => None,
    })
}
