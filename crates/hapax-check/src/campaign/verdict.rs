//! Holds the history of a round, and the upstream's own account, against the guarantees.

use std::collections::BTreeMap;

use super::effects::Effect;
use super::event::{Event, Seen, What};

/// A broken guarantee.
#[derive(Debug, Clone)]
pub(crate) struct Violation {
    /// `G1` to `G16`.
    pub(crate) guarantee: &'static str,
    pub(crate) what: String,
}

/// What a round was, as far as it matters for judging.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Expect {
    /// Nothing was broken: nothing may be unknown (G9).
    pub(crate) is_calm: bool,
}

/// What became of one attempt, and when it was sent.
struct Attempt<'a> {
    invoked_us: u64,
    payload: &'a str,
    ended_us: u64,
    end: Option<&'a What>,
}

/// Everything about one key of one caller.
#[derive(Default)]
struct Record<'a> {
    attempts: Vec<Attempt<'a>>,
    effects: Vec<&'a Effect>,
}

/// Every violation.
pub(crate) fn judge(events: &[Event], effects: &[Effect], expect: Expect) -> Vec<Violation> {
    let mut ends: BTreeMap<u64, (u64, &What)> = BTreeMap::new();
    for event in events {
        if let What::Ok { op, .. } | What::Fail { op, .. } | What::Info { op, .. } = &event.what {
            ends.insert(*op, (event.at_us, &event.what));
        }
    }
    let mut records: BTreeMap<(&str, &str), Record<'_>> = BTreeMap::new();
    for event in events {
        let What::Invoke {
            op,
            key,
            scope,
            payload,
            ..
        } = &event.what
        else {
            continue;
        };
        let end = ends.get(op);
        let record = records.entry((scope, key)).or_default();
        record.attempts.push(Attempt {
            invoked_us: event.at_us,
            payload,
            ended_us: end.map_or(u64::MAX, |end| end.0),
            end: end.map(|end| end.1),
        });
    }
    for effect in effects {
        let record = records.entry((&effect.scope, &effect.key)).or_default();
        record.effects.push(effect);
    }
    let mut found = Vec::new();
    for ((scope, key), record) in &records {
        let mut tell = |guarantee, what: String| {
            found.push(Violation {
                guarantee,
                what: format!("key {key} of {scope}: {what}"),
            });
        };
        judge_record(record, expect, &mut tell);
    }
    found
}

fn judge_record(record: &Record<'_>, expect: Expect, tell: &mut dyn FnMut(&'static str, String)) {
    if record.effects.len() > 1 {
        let numbers: Vec<u64> = record.effects.iter().map(|effect| effect.effect).collect();
        tell("G1", format!("{} effects: {numbers:?}", numbers.len()));
    }
    let finals: Vec<(&Attempt<'_>, &Seen)> = record
        .attempts
        .iter()
        .filter_map(|attempt| match attempt.end {
            Some(What::Ok { seen, .. }) => Some((attempt, seen)),
            _ => None,
        })
        .collect();
    if let Some((_, first)) = finals.first() {
        for (attempt, seen) in &finals {
            let is_same = (seen.status, &seen.body, &seen.fields)
                == (first.status, &first.body, &first.fields);
            if !is_same {
                tell(
                    "G2",
                    format!("at {} us {seen:?}, first {first:?}", attempt.ended_us),
                );
            }
        }
    }
    for (attempt, seen) in &finals {
        let number = field(seen, "x-effect").and_then(|text| text.parse().ok());
        let of_it = record
            .effects
            .iter()
            .find(|effect| Some(effect.effect) == number);
        match of_it {
            None => tell("G3", format!("an answer without its effect: {seen:?}")),
            Some(effect) if effect.payload != attempt.payload => {
                tell("G7", format!("an answer to another payload: {seen:?}"));
            }
            Some(_) => {}
        }
        if field(seen, "foreign").is_some() {
            tell("G8", format!("somebody else's content: {seen:?}"));
        }
    }
    judge_refusals(record, &finals, expect, tell);
}

/// What is not a final answer must not be one, and must not lie.
fn judge_refusals(
    record: &Record<'_>,
    finals: &[(&Attempt<'_>, &Seen)],
    expect: Expect,
    tell: &mut dyn FnMut(&'static str, String),
) {
    let acknowledged = finals
        .iter()
        .filter(|(_, seen)| seen.stored)
        .min_by_key(|(attempt, _)| attempt.ended_us);
    for attempt in &record.attempts {
        if let Some(What::Info { kind, status, .. }) = attempt.end {
            if kind.starts_with("unexpected") {
                tell("unexpected", format!("{kind} {status:?}"));
            }
            if expect.is_calm && kind == "outcome-unknown" {
                tell("G9", "unknown without a fault".into());
            }
        }
        let Some((first, _)) = acknowledged else {
            continue;
        };
        if attempt.payload != first.payload || attempt.invoked_us <= first.ended_us {
            continue;
        }
        let lost = match attempt.end {
            Some(What::Ok { seen, .. }) => !seen.replayed,
            Some(What::Info { kind, .. }) => kind == "outcome-unknown",
            Some(What::Fail { kind, .. }) => [
                "in-progress",
                "key-reused",
                "released",
                "upstream-unreachable",
            ]
            .contains(&kind.as_str()),
            _ => false,
        };
        if lost {
            tell(
                "G4",
                format!(
                    "acknowledged at {} us; the repeat at {} us got {:?}",
                    first.ended_us, attempt.invoked_us, attempt.end
                ),
            );
        }
    }
    let is_refused = |attempt: &Attempt<'_>| matches!(attempt.end, Some(What::Fail { .. }));
    for effect in &record.effects {
        let mut of_it = record
            .attempts
            .iter()
            .filter(|attempt| attempt.payload == effect.payload);
        if of_it.all(is_refused) {
            tell(
                "G14",
                format!(
                    "effect {} although every attempt was refused",
                    effect.effect
                ),
            );
        }
    }
}

fn field<'a>(seen: &'a Seen, name: &str) -> Option<&'a str> {
    let mut fields = seen.fields.iter();
    let (_, value) = fields.find(|(field, _)| field == name)?;
    Some(value)
}
