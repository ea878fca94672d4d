//! Requests that differ from the first: another payload, caller or path, no key, or none that is one.

use super::{Bench, Verdict};
use crate::answer::Answer;
use crate::history::{Identity, Role, Step};
use crate::rules::{self, Rule};

impl Bench<'_> {
    /// The first request and the one that differs; nothing where the first was not even accepted.
    fn first_and_other(&mut self, rule: Rule) -> Option<(Answer, Option<Answer>)> {
        let first = self.history.steps.first().and_then(Step::answer);
        let Some(first) = first.filter(|answer| answer.is_success()) else {
            let verdict = Verdict::Inconclusive("the first request was not accepted".into());
            self.say(rule, verdict, self.ends());
            return None;
        };
        let other = self
            .history
            .steps
            .iter()
            .find(|step| step.role == Role::Other);
        Some((first.clone(), other.and_then(Step::answer).cloned()))
    }

    pub(super) fn other_payload(&mut self) {
        let Some((first, other)) = self.first_and_other(rules::MISMATCH_EFFECT) else {
            return;
        };
        let is_executed = other.as_ref().is_some_and(|other| {
            other.is_success()
                && self
                    .history
                    .identities
                    .iter()
                    .any(|identity| differs(*identity, &first, other))
        });
        let verdict = match &self.history.counted {
            Ok(counted) if counted.total > 1 => Verdict::Broken(format!(
                "two payloads under one key had {} effects",
                counted.total
            )),
            Ok(_) => Verdict::Kept(None),
            Err(_) if is_executed => {
                Verdict::Broken("another payload under the key made another resource".into())
            }
            Err(_) if other.as_ref().is_some_and(Answer::is_refusal) => {
                Verdict::Kept(Some("inferred from its refusal".into()))
            }
            Err(why) => Verdict::Inconclusive(why.clone()),
        };
        self.say(rules::MISMATCH_EFFECT, verdict, self.ends());
        let is_refused = other
            .as_ref()
            .is_some_and(|other| self.profile.refuses_mismatch(other.status));
        let got = other
            .as_ref()
            .map_or("no answer".into(), |other| other.status.to_string());
        self.expect(
            rules::MISMATCH_STATUS,
            is_refused,
            || format!("another payload under the key got {got}"),
            self.ends(),
        );
        if let Some(other) = other.filter(Answer::is_refusal) {
            self.explained(&other, self.ends());
        }
    }

    pub(super) fn other_caller(&mut self) {
        let Some((first, other)) = self.first_and_other(rules::CALLER) else {
            return;
        };
        let verdict = match other {
            None => Verdict::Inconclusive("the other caller got no answer".into()),
            Some(other) if !other.is_success() => Verdict::Kept(None),
            Some(other) if self.is_same_answer(&first, &other) => {
                Verdict::Broken("another caller got the answer of the first".into())
            }
            Some(other) if self.history.identities.is_empty() && other.body == first.body => {
                Verdict::Inconclusive(
                    "all answers look alike: they have no identity of their own".into(),
                )
            }
            Some(_) => Verdict::Kept(None),
        };
        self.say(rules::CALLER, verdict, self.ends());
    }

    pub(super) fn other_path(&mut self) {
        let Some((first, other)) = self.first_and_other(rules::OTHER_PATH) else {
            return;
        };
        let Some(other) = other else {
            let verdict = Verdict::Inconclusive("the other path got no answer".into());
            return self.say(rules::OTHER_PATH, verdict, self.ends());
        };
        let is_leaked = other.is_success() && self.is_same_answer(&first, &other);
        self.expect(
            rules::OTHER_PATH,
            !is_leaked,
            || "another path got the answer of the first".into(),
            self.ends(),
        );
    }

    /// Whether an answer is that of the first: it says so, or names the same resource.
    fn is_same_answer(&self, first: &Answer, other: &Answer) -> bool {
        other.is_marked()
            || self.history.identities.iter().any(|identity| {
                let (one, two) = (identity.of(first), identity.of(other));
                one.is_some() && one == two
            })
    }

    pub(super) fn no_key(&mut self, requires_key: bool) {
        let Some(answer) = self.history.steps.first().and_then(Step::answer).cloned() else {
            let verdict = Verdict::Inconclusive("the request without a key got no answer".into());
            return self.say(rules::KEY_REQUIRED, verdict, self.ends());
        };
        let status = answer.status;
        if answer.is_success() && !requires_key {
            let note = "a key is optional here; --key-required says that it is not";
            return self.say(
                rules::KEY_REQUIRED,
                Verdict::Kept(Some(note.into())),
                self.ends(),
            );
        }
        let is_refused = self.profile.refuses_key(status);
        self.expect(
            rules::KEY_REQUIRED,
            is_refused,
            || format!("a request without a key got {status}"),
            self.ends(),
        );
        if answer.is_refusal() {
            self.explained(&answer, self.ends());
        }
    }

    pub(super) fn bad_keys(&mut self) {
        let mut worst = None;
        let mut refusal = None;
        for (at, step) in self.history.steps.iter().enumerate() {
            match step.answer() {
                _ if self.profile.is_key(key(step)) => {}
                Some(answer) if self.profile.refuses_key(answer.status) => {
                    refusal = refusal.or_else(|| Some((at, answer.clone())));
                }
                Some(answer) => {
                    let status = answer.status;
                    worst =
                        worst.or_else(|| Some((at, format!("{} got {status}", self.key_of(step)))));
                }
                None => {
                    worst =
                        worst.or_else(|| Some((at, format!("{} got no answer", self.key_of(step)))))
                }
            }
        }
        let at = worst.as_ref().map_or(0, |(at, _)| *at);
        let is_kept = worst.is_none();
        self.expect(
            rules::BAD_KEY,
            is_kept,
            || worst.map(|(_, why)| why).unwrap_or_default(),
            (at, at),
        );
        if let Some((at, refusal)) = refusal {
            self.explained(&refusal, (at, at));
        }
    }

    fn key_of(&self, step: &Step) -> String {
        let key = key(step);
        match key.len() {
            0 => "an empty key".into(),
            length if length > 40 => format!("a key of {length} characters"),
            _ => format!("the key {key}"),
        }
    }

    fn explained(&mut self, refusal: &Answer, pair: (usize, usize)) {
        let is_json = refusal
            .field("content-type")
            .is_some_and(|value| value.contains("json"));
        let is_explained = (is_json && refusal.json().is_some()) || refusal.field("link").is_some();
        let status = refusal.status;
        self.expect(
            rules::PROBLEM,
            is_explained,
            || format!("a {status} does not say why"),
            pair,
        );
    }
}

/// The key of a step: a field that is replaced comes last.
fn key(step: &Step) -> &str {
    let last = step.message.fields.last();
    last.map_or("", |(_, value)| value.as_str())
}

fn differs(identity: Identity, first: &Answer, other: &Answer) -> bool {
    matches!((identity.of(first), identity.of(other)), (Some(one), Some(two)) if one != two)
}
