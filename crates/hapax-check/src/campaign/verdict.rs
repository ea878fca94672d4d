//! Holds a round against the guarantees: the judge of evidence, told what this campaign does, and what only it can know.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::caller::NOT_STORED;
use super::deck::Fault;
use super::node::{FILES, MEMORY};
use crate::evidence::{self, Effects, Event, Expect, Guarantee, History};

/// A broken guarantee.
#[derive(Debug, Clone)]
pub(crate) struct Violation {
    /// `G1` to `G16`, or what else was wrong.
    pub(crate) guarantee: String,
    pub(crate) what: String,
}

impl Violation {
    pub(crate) fn new(guarantee: &str, what: String) -> Self {
        Self {
            guarantee: guarantee.to_owned(),
            what,
        }
    }
}

/// What these gateways and this campaign are held to.
fn expect(retention: Option<Duration>) -> Expect {
    let names = |names: &[&str]| -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    };
    Expect {
        retention: retention.unwrap_or(Duration::from_secs(24 * 3600)),
        settles_within: Duration::from_secs(30),
        client_faults: names(&["cut-request", "client-leaves", "client-resets"]),
        store_faults: names(&[
            Fault::DiskFull.name(),
            Fault::IoError.name(),
            Fault::StoreCrash.name(),
            Fault::StorePromotion.name(),
            NOT_STORED,
        ]),
        // Two dozen connections and as many operations at a time need far less, in any build.
        bounds: [(MEMORY, 400), (FILES, 400)]
            .map(|(name, bound)| (name.to_owned(), bound))
            .into(),
        ..Expect::default()
    }
}

/// Every violation, where settled records are kept for `retention`, or for a day. Adds to `checked` how often each guarantee was looked at.
pub(crate) fn judge(
    history: &History,
    effects: &Effects,
    retention: Option<Duration>,
    checked: &mut BTreeMap<String, u64>,
) -> Vec<Violation> {
    let verdict = evidence::judge(history, effects, &expect(retention));
    let mut found = Vec::new();
    for guarantee in Guarantee::ALL {
        let tally = verdict.tally(guarantee);
        if tally.checked > 0 {
            *checked
                .entry(format!("G{}", guarantee.number()))
                .or_default() += tally.checked;
        }
    }
    for finding in &verdict.findings {
        let (scope, key) = &finding.record;
        found.push(Violation {
            guarantee: format!("G{}", finding.guarantee.number()),
            what: format!(
                "{}: key {key:?} of {scope:?}, attempt {:?}, at {} us",
                finding.what, finding.attempt, finding.at_us
            ),
        });
    }
    for unfit in &verdict.unfit {
        found.push(Violation::new("evidence", unfit.clone()));
    }
    for event in &history.events {
        found.extend(unexpected(event));
    }
    found
}

/// Answers that nothing of what was sent deserves, and content that is not of the request that it answers.
fn unexpected(event: &Event) -> Option<Violation> {
    match event {
        Event::Info { op, kind, .. } if kind.starts_with("unexpected") => {
            Some(Violation::new("answer", format!("{kind} to op {op}")))
        }
        Event::Ok { op, fields, .. } => {
            let is_foreign = fields.iter().any(|(name, _)| name == "foreign");
            is_foreign
                .then(|| Violation::new("G8", format!("foreign content in answer to op {op}")))
        }
        _ => None,
    }
}
