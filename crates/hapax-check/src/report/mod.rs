//! The report: what was found, for people, for programs, and for the colleague who has to be convinced.

mod curl;
mod html;
mod json;
mod junit;
mod text;

use crate::fault::Fault;
use crate::history::{History, Step};
use crate::judge::{Judgement, Verdict};
use crate::options::Options;
use crate::rules::{self, Grade, Profile, Rule};

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Every rule that counts was kept.
    Clean,
    /// A rule was broken.
    Finding,
    /// No rule was seen broken, and at least one could not be judged.
    Inconclusive,
}

impl Outcome {
    fn name(self) -> &'static str {
        match self {
            Self::Clean => "clean",
            Self::Finding => "finding",
            Self::Inconclusive => "inconclusive",
        }
    }
}

/// All that a check found.
#[derive(Debug)]
pub struct Report {
    pub(crate) url: String,
    pub(crate) method: String,
    pub(crate) authority: String,
    pub(crate) target: String,
    pub(crate) profile: Profile,
    pub(crate) seed: u64,
    pub(crate) fail_on: Grade,
    again: String,
    /// Why no case was played.
    pub(crate) baseline: Option<String>,
    pub(crate) counting: String,
    pub(crate) cases: Vec<Case>,
}

/// One case of the report.
#[derive(Debug)]
pub(crate) struct Case {
    pub(crate) fault: Fault,
    skipped: Option<String>,
    steps: Vec<Step>,
    judgements: Vec<Judgement>,
}

/// A broken rule, or one that nobody can judge.
pub(crate) struct Finding<'a> {
    pub(crate) rule: Rule,
    pub(crate) fault: Fault,
    pub(crate) what: &'a str,
    /// The two commands that show it; one where the two requests are one.
    pub(crate) curl: Vec<String>,
    pub(crate) again: String,
}

/// How a case came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Kept,
    Broken,
    /// Broken, but below `--fail-on`.
    Note,
    Inconclusive,
    Skipped,
}

impl State {
    fn name(self) -> &'static str {
        match self {
            Self::Kept => "ok",
            Self::Broken => "finding",
            Self::Note => "note",
            Self::Inconclusive => "inconclusive",
            Self::Skipped => "skipped",
        }
    }
}

impl Case {
    pub(crate) fn skipped(fault: Fault, why: String) -> Self {
        Self {
            fault,
            skipped: Some(why),
            steps: Vec::new(),
            judgements: Vec::new(),
        }
    }

    pub(crate) fn judged(history: History, judgements: Vec<Judgement>) -> Self {
        Self {
            fault: history.fault,
            skipped: None,
            steps: history.steps,
            judgements,
        }
    }

    fn state(&self, fail_on: Grade) -> State {
        let any = |wanted: &dyn Fn(&Judgement) -> bool| self.judgements.iter().any(wanted);
        let is_broken = |judgement: &Judgement| matches!(judgement.verdict, Verdict::Broken(_));
        let is_open = |judgement: &Judgement| matches!(judgement.verdict, Verdict::Inconclusive(_));
        if self.skipped.is_some() {
            State::Skipped
        } else if any(&|judgement| is_broken(judgement) && judgement.rule.grade >= fail_on) {
            State::Broken
        } else if any(&|judgement| is_open(judgement) && judgement.rule.grade >= fail_on) {
            State::Inconclusive
        } else if any(&|judgement| is_broken(judgement) || is_open(judgement)) {
            State::Note
        } else {
            State::Kept
        }
    }

    /// What matters most about it, in one line.
    fn summary(&self, fail_on: Grade) -> String {
        if let Some(why) = &self.skipped {
            return why.clone();
        }
        let wants_broken = matches!(self.state(fail_on), State::Broken | State::Note);
        let mut worst: Vec<&Judgement> = self
            .judgements
            .iter()
            .filter(|judgement| match judgement.verdict {
                Verdict::Broken(_) => true,
                Verdict::Inconclusive(_) => !wants_broken || self.state(fail_on) == State::Note,
                Verdict::Kept(_) => false,
            })
            .collect();
        worst.sort_by_key(|judgement| std::cmp::Reverse(judgement.rule.grade));
        match worst.first().map(|judgement| &judgement.verdict) {
            Some(Verdict::Broken(why) | Verdict::Inconclusive(why)) => why.clone(),
            _ => {
                let note = self
                    .judgements
                    .iter()
                    .find_map(|judgement| match &judgement.verdict {
                        Verdict::Kept(note) => note.clone(),
                        _ => None,
                    });
                note.unwrap_or_else(|| self.fault.title().to_owned())
            }
        }
    }
}

impl Report {
    pub(crate) fn new(options: &Options, method: &str, authority: &str, target: &str) -> Self {
        Self {
            url: options.url.clone(),
            method: method.to_owned(),
            authority: authority.to_owned(),
            target: target.to_owned(),
            profile: options.profile,
            seed: options.seed,
            fail_on: options.fail_on,
            again: again(options),
            baseline: None,
            counting: "not counted".into(),
            cases: Vec::new(),
        }
    }

    /// How the check ended.
    pub fn outcome(&self) -> Outcome {
        let any = |wanted| {
            self.cases
                .iter()
                .any(|case| case.state(self.fail_on) == wanted)
        };
        let is_empty = self.cases.iter().all(|case| case.skipped.is_some());
        if any(State::Broken) {
            Outcome::Finding
        } else if any(State::Inconclusive) || self.baseline.is_some() || is_empty {
            Outcome::Inconclusive
        } else {
            Outcome::Clean
        }
    }

    /// For a terminal.
    pub fn to_text(&self) -> String {
        text::render(self)
    }

    /// For programs.
    pub fn to_json(&self) -> String {
        json::render(self)
    }

    /// For build servers.
    pub fn to_junit(&self) -> String {
        junit::render(self)
    }

    /// One page that needs nothing else.
    pub fn to_html(&self) -> String {
        html::render(self)
    }

    /// The rules that were broken (`true`) or could not be judged, worst first.
    fn findings(&self, broken: bool) -> Vec<Finding<'_>> {
        let mut found = Vec::new();
        for case in &self.cases {
            for judgement in &case.judgements {
                let what = match &judgement.verdict {
                    Verdict::Broken(what) if broken => what,
                    Verdict::Inconclusive(what) if !broken => what,
                    _ => continue,
                };
                found.push(Finding {
                    rule: judgement.rule,
                    fault: case.fault,
                    what,
                    curl: curl::pair(&self.authority, &case.steps, judgement.pair),
                    again: format!("{} --faults {}", self.again, case.fault.name()),
                });
            }
        }
        // By rule within a grade, in the order of the rules' table.
        let place = |rule: Rule| rules::ALL.iter().position(|other| *other == rule);
        found.sort_by_key(|finding| {
            (
                std::cmp::Reverse(finding.rule.grade),
                place(finding.rule),
                finding.fault,
            )
        });
        found
    }

    /// One sentence that says it all.
    fn sentence(&self) -> String {
        if let Some(why) = &self.baseline {
            return format!("Nothing could be checked: {why}.");
        }
        let count = |state| {
            self.cases
                .iter()
                .filter(|case| case.state(self.fail_on) == state)
                .count()
        };
        let played = self.cases.len() - count(State::Skipped);
        let of = |n: usize| format!("{n} of {played} case{}", if played == 1 { "" } else { "s" });
        match self.outcome() {
            // No more than was seen: a check is evidence, not proof.
            Outcome::Clean => format!(
                "No finding: {} kept every rule of {} and above, profile {}.",
                of(played),
                self.fail_on.name(),
                self.profile
            ),
            Outcome::Finding => format!(
                "Not safe to retry: {} broke a rule.",
                of(count(State::Broken))
            ),
            Outcome::Inconclusive if played == 0 => "No case fits this request.".into(),
            Outcome::Inconclusive => format!(
                "Nobody can tell: {} could not be judged.",
                of(count(State::Inconclusive))
            ),
        }
    }
}

/// The command that does it again, without the faults.
fn again(options: &Options) -> String {
    let mut line = format!("hapax check {}", curl::quote(&options.url));
    let mut add = |flag: &str, value: &str| {
        line.push_str(" --");
        line.push_str(flag);
        if !value.is_empty() {
            line.push(' ');
            line.push_str(value);
        }
    };
    if options.request.is_some() {
        add("request", "FILE");
    }
    if let Some(method) = &options.method {
        add("method", &curl::quote(method));
    }
    if options.key_field != "Idempotency-Key" {
        add("key-field", &curl::quote(&options.key_field));
    }
    if let Some(url) = &options.count_with {
        add("count-with", &curl::quote(url));
    }
    if options.requires_key {
        add("key-required", "");
    }
    if options.allow_remote {
        add("allow-remote", "");
    }
    if let Some(command) = &options.restart {
        add("restart", &curl::quote(command));
    }
    add("profile", options.profile.name());
    add("seed", &options.seed.to_string());
    line
}

#[cfg(test)]
mod tests;
