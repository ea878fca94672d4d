//! The verdict on a case: a pure function of what was sent and what came of it.

mod variants;

use crate::answer::Answer;
use crate::fault::Fault;
use crate::history::{History, Role, Step};
use crate::rules::{self, Profile, Rule};
use crate::template::Kind;

/// What the judge says about one rule in one case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Judgement {
    pub(crate) rule: Rule,
    pub(crate) verdict: Verdict,
    /// The steps that show it: positions in the history.
    pub(crate) pair: (usize, usize),
}

/// Whether a rule was kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Kept; how that is known where it was not plainly seen.
    Kept(Option<String>),
    /// Broken, and how.
    Broken(String),
    /// Nobody can tell, and why.
    Inconclusive(String),
}

/// What the API is held to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Standard {
    pub(crate) profile: Profile,
    /// The operation says that it requires a key.
    pub(crate) requires_key: bool,
}

/// Judges a case.
pub(crate) fn judge(history: &History, standard: Standard) -> Vec<Judgement> {
    let mut bench = Bench {
        history,
        profile: standard.profile,
        judgements: Vec::new(),
    };
    match history.fault {
        _ if history.kind == Kind::Safe => bench.safe(),
        Fault::OtherPayload => bench.other_payload(),
        Fault::OtherCaller => bench.other_caller(),
        Fault::OtherPath => bench.other_path(),
        Fault::NoKey => bench.no_key(standard.requires_key),
        Fault::BadKey => bench.bad_keys(),
        _ => bench.repeats(),
    }
    bench.judgements
}

struct Bench<'a> {
    history: &'a History,
    profile: Profile,
    judgements: Vec<Judgement>,
}

impl Bench<'_> {
    fn say(&mut self, rule: Rule, verdict: Verdict, pair: (usize, usize)) {
        self.judgements.push(Judgement {
            rule,
            verdict,
            pair,
        });
    }

    fn expect(
        &mut self,
        rule: Rule,
        is_kept: bool,
        why: impl FnOnce() -> String,
        pair: (usize, usize),
    ) {
        let verdict = if is_kept {
            Verdict::Kept(None)
        } else {
            Verdict::Broken(why())
        };
        self.say(rule, verdict, pair);
    }

    /// The attempts of one request, with their positions.
    fn attempts(&self) -> Vec<(usize, &Step)> {
        let is_attempt = |(_, step): &(usize, &Step)| step.role != Role::Other;
        self.history
            .steps
            .iter()
            .enumerate()
            .filter(is_attempt)
            .collect()
    }

    /// The first of the case and the last.
    fn ends(&self) -> (usize, usize) {
        (0, self.history.steps.len().saturating_sub(1))
    }

    fn safe(&mut self) {
        let verdict = match &self.history.counted {
            Ok(counted) if counted.total == 0 => Verdict::Kept(None),
            Ok(counted) => Verdict::Broken(format!("the count changed by {}", counted.total)),
            Err(why) => Verdict::Inconclusive(format!(
                "{why}; an effect of a safe method shows in a count alone"
            )),
        };
        self.say(rules::SAFE, verdict, self.ends());
    }

    /// One request, several attempts.
    fn repeats(&mut self) {
        if self.history.fault.is_incomplete() {
            self.incomplete();
        }
        let verdict = self.one_effect();
        self.say(rules::ONE_EFFECT, verdict, self.ends());
        self.acknowledged();
        self.result();
        if self.history.kind == Kind::Natural {
            return;
        }
        if self.profile.replays() {
            self.same_answer();
        }
        if self.history.fault.is_racing() {
            self.concurrent_answers();
        }
    }

    fn one_effect(&self) -> Verdict {
        let attempts = self.attempts();
        let why = match &self.history.counted {
            Ok(counted) if counted.total > 1 => {
                return Verdict::Broken(format!(
                    "{} attempts of one request had {} effects",
                    attempts.len(),
                    counted.total
                ));
            }
            Ok(counted) if counted.total < 0 => {
                return Verdict::Inconclusive(
                    "the count went down: somebody else uses the target".into(),
                );
            }
            Ok(_) => return Verdict::Kept(None),
            Err(why) => why,
        };
        self.inferred_effect(why)
    }

    /// Effects by the identity of what the answers name; `why` there is no count.
    fn inferred_effect(&self, why: &str) -> Verdict {
        let attempts = self.attempts();
        let seen: Vec<&Answer> = attempts
            .iter()
            .filter_map(|(_, step)| step.seen())
            .filter(|answer| answer.is_success())
            .collect();
        for identity in &self.history.identities {
            let mut names: Vec<String> = seen
                .iter()
                .filter_map(|answer| identity.of(answer))
                .collect();
            names.sort();
            names.dedup();
            if let [one, other, ..] = names.as_slice() {
                return Verdict::Broken(format!(
                    "{} names {} resources for one request: {one} and {other}",
                    identity.name(),
                    names.len()
                ));
            }
        }
        if self.history.identities.is_empty() {
            return Verdict::Inconclusive(format!(
                "{why}, and the answers have no identity of their own"
            ));
        }
        let is_named = |answer: &&Answer| {
            self.history
                .identities
                .iter()
                .any(|identity| identity.of(answer).is_some())
        };
        if !seen.iter().all(is_named) || seen.is_empty() {
            return Verdict::Inconclusive(format!(
                "{why}, and not every answer names its resource"
            ));
        }
        let is_open = attempts.iter().any(|(_, step)| step.seen().is_none());
        let is_marked = seen.iter().any(|answer| answer.is_marked());
        if is_open && !is_marked {
            return Verdict::Inconclusive(format!(
                "{why}, and the lost answer might have named another resource"
            ));
        }
        let named: Vec<&str> = self
            .history
            .identities
            .iter()
            .map(|identity| identity.name())
            .collect();
        let said = if is_open {
            " and the target's own mark of a replay"
        } else {
            ""
        };
        Verdict::Kept(Some(format!("inferred from {}{said}", named.join(", "))))
    }

    fn acknowledged(&mut self) {
        let success = self
            .attempts()
            .iter()
            .find(|(_, step)| step.answer().is_some_and(Answer::is_success))
            .map(|(at, _)| *at);
        let (Ok(counted), Some(at)) = (&self.history.counted, success) else {
            return;
        };
        // A DELETE of what is not there succeeds without an effect, as it may.
        let is_delete = self
            .history
            .steps
            .iter()
            .any(|step| step.message.method == "DELETE");
        if !is_delete {
            let total = counted.total;
            self.expect(
                rules::ACKNOWLEDGED,
                total != 0,
                || "a success was answered, and the count did not change".into(),
                (0, at),
            );
        }
    }

    fn result(&mut self) {
        let Some((at, last)) = self
            .attempts()
            .last()
            .map(|(at, step)| (*at, step.fate.clone()))
        else {
            return;
        };
        let gone = [404, 410];
        let (is_kept, why) = match &last {
            crate::wire::Fate::Answered(answer) => {
                let is_gone = self.history.kind == Kind::Natural && gone.contains(&answer.status);
                let status = answer.status;
                (
                    answer.is_success() || is_gone,
                    format!("the last repeat got {status}"),
                )
            }
            crate::wire::Fate::Failed(why) => {
                (false, format!("the last repeat got no answer: {why}"))
            }
            _ => (false, "the last repeat got no whole answer".into()),
        };
        self.expect(rules::RESULT, is_kept, || why, (0, at));
    }

    /// Compares every final answer with the first one.
    fn same_answer(&mut self) {
        let remembers_errors = self.profile.remembers_errors();
        let transient = [401, 403, 408, 409, 423, 425, 429];
        let is_final = |answer: &Answer| {
            answer.is_success()
                || (remembers_errors && answer.is_refusal() && !transient.contains(&answer.status))
        };
        let finals: Vec<(usize, Answer)> = self
            .attempts()
            .iter()
            .filter_map(|(at, step)| step.answer().map(|answer| (*at, answer.clone())))
            .filter(|(_, answer)| is_final(answer))
            .collect();
        let Some(((first_at, first), others)) = finals.split_first() else {
            return;
        };
        if others.is_empty() {
            return;
        }
        let mut compare = |rule: Rule, differ: &dyn Fn(&Answer) -> Option<String>| {
            let found = others
                .iter()
                .find_map(|(at, other)| differ(other).map(|why| (*at, why)));
            match found {
                Some((at, why)) => self.say(rule, Verdict::Broken(why), (*first_at, at)),
                None => {
                    let at = others.last().map_or(*first_at, |(at, _)| *at);
                    self.say(rule, Verdict::Kept(None), (*first_at, at));
                }
            }
        };
        compare(rules::SAME_STATUS, &|other| {
            (other.status != first.status).then(|| {
                format!(
                    "the first answer was {}, a later one {}",
                    first.status, other.status
                )
            })
        });
        compare(rules::SAME_BODY, &|other| {
            (other.body != first.body).then(|| difference(&first.body, &other.body))
        });
        compare(rules::SAME_FIELDS, &|other| different_field(first, other));
        if self.history.fault == Fault::ReplayFidelity {
            let marked = others.iter().all(|(_, other)| other.is_marked()) && !first.is_marked();
            let at = others.last().map_or(*first_at, |(at, _)| *at);
            let why = if first.is_marked() {
                "the first answer is marked as a replay"
            } else {
                "the replay is not marked"
            };
            self.expect(rules::MARKED, marked, || why.into(), (*first_at, at));
        }
    }

    /// What attempts that met were told.
    fn concurrent_answers(&mut self) {
        let mut odd = None;
        let mut silent = None;
        let mut deferred = false;
        for (at, step) in self.attempts() {
            match step.answer() {
                None => odd = odd.or(Some((at, "an attempt got no answer".to_owned()))),
                Some(answer) if answer.is_success() => {}
                Some(answer) if self.profile.may_defer(answer.status) => {
                    if answer.status == 409 {
                        deferred = true;
                        if answer.field("retry-after").is_none() {
                            silent = silent.or(Some(at));
                        }
                    }
                }
                Some(answer) => {
                    odd = odd.or(Some((at, format!("an attempt got {}", answer.status))))
                }
            }
        }
        let at = odd.as_ref().map_or(self.ends().1, |(at, _)| *at);
        let is_kept = odd.is_none();
        self.expect(
            rules::CONCURRENT_ANSWER,
            is_kept,
            || odd.map(|(_, why)| why).unwrap_or_default(),
            (0, at),
        );
        if deferred {
            let at = silent.unwrap_or(self.ends().1);
            self.expect(
                rules::RETRY_AFTER,
                silent.is_none(),
                || "a 409 has no Retry-After".into(),
                (0, at),
            );
        }
    }

    fn incomplete(&mut self) {
        match &self.history.counted {
            Ok(counted) => {
                let effects = counted.of_incomplete.unwrap_or(0);
                self.expect(
                    rules::INCOMPLETE,
                    effects <= 0,
                    || format!("a request that was cut short had {effects} effects"),
                    self.ends(),
                );
            }
            Err(why) => {
                let verdict = Verdict::Inconclusive(format!(
                    "{why}; an effect of half a request shows in a count alone"
                ));
                self.say(rules::INCOMPLETE, verdict, self.ends());
            }
        }
        let success = self
            .attempts()
            .iter()
            .any(|(_, step)| step.answer().is_some_and(Answer::is_success));
        self.expect(
            rules::INCOMPLETE_KEY,
            success,
            || "after half a request, the whole one was refused under the same key".into(),
            self.ends(),
        );
    }
}

fn different_field(first: &Answer, other: &Answer) -> Option<String> {
    ["location", "etag", "content-type", "link"]
        .into_iter()
        .find(|name| first.field(name) != other.field(name))
        .map(|name| {
            let of = |answer: &Answer| answer.field(name).unwrap_or("absent").to_owned();
            format!("{name} was {}, then {}", of(first), of(other))
        })
}

/// How much of two contents is shown where they begin to differ, in bytes.
const SHOWN: usize = 24;

fn difference(first: &[u8], other: &[u8]) -> String {
    let same = first
        .iter()
        .zip(other)
        .take_while(|(one, two)| one == two)
        .count();
    let from = same.saturating_sub(SHOWN / 3);
    let shown = |body: &[u8]| {
        let rest = body.get(from..).unwrap_or(&[]);
        let piece = rest.get(..SHOWN).unwrap_or(rest);
        String::from_utf8_lossy(piece).into_owned()
    };
    format!(
        "the content differs from byte {same} on: {}… then {}…",
        shown(first),
        shown(other)
    )
}

#[cfg(test)]
mod tests;
