//! The report: what was found, for people, for programs, and for the colleague who has to be convinced.

mod curl;
mod html;
mod json;
mod junit;
mod repro;
mod table;
mod text;
mod timeline;

use std::time::Duration;

use crate::fault::Fault;
use crate::history::{History, Step};
use crate::judge::{Judgement, Verdict};
use crate::options::Options;
use crate::rules::{self, Grade, Profile, Rule};
use crate::template::Values;
use repro::Scene;

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

/// What a word of the report for a terminal is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// All is well.
    Good,
    /// Nobody can tell, or it matters less.
    Open,
    /// Something is wrong.
    Bad,
    /// Nothing in particular.
    Quiet,
}

/// All that a check found.
#[derive(Debug)]
pub struct Report {
    pub(crate) url: String,
    pub(crate) method: String,
    pub(crate) origin: String,
    pub(crate) target: String,
    pub(crate) profile: Profile,
    pub(crate) seed: u64,
    pub(crate) fail_on: Grade,
    again: String,
    scene: Scene,
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
    values: Values,
    steps: Vec<Step>,
    killed_after: Option<Duration>,
    judgements: Vec<Judgement>,
}

/// A broken rule, or one that nobody can judge.
pub(crate) struct Finding<'a> {
    pub(crate) rule: Rule,
    pub(crate) fault: Fault,
    pub(crate) what: &'a str,
    /// The commands that show it.
    pub(crate) curl: Vec<String>,
    /// What was sent, and when.
    pub(crate) steps: &'a [Step],
    /// The steps that show it.
    pub(crate) pair: (usize, usize),
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
            values: Values::default(),
            steps: Vec::new(),
            killed_after: None,
            judgements: Vec::new(),
        }
    }

    pub(crate) fn judged(history: History, judgements: Vec<Judgement>) -> Self {
        Self {
            fault: history.fault,
            skipped: None,
            values: history.values,
            steps: history.steps,
            killed_after: history.killed_after,
            judgements,
        }
    }

    pub(crate) fn is_skipped(&self) -> bool {
        self.skipped.is_some()
    }

    /// How bad it is: what was broken, then what could not be done or judged. Of two that are equal the first is as good.
    pub(crate) fn weight(&self) -> (u8, Option<Grade>) {
        let worst = |is: &dyn Fn(&Verdict) -> bool| {
            let judgements = self.judgements.iter();
            judgements
                .filter(|judgement| is(&judgement.verdict))
                .map(|judgement| judgement.rule.grade)
                .max()
        };
        let broken = worst(&|verdict| matches!(verdict, Verdict::Broken(_)));
        let open = worst(&|verdict| matches!(verdict, Verdict::Inconclusive(_)));
        match (broken, open) {
            (Some(_), _) => (3, broken),
            (None, _) if self.is_skipped() => (2, None),
            (None, Some(_)) => (1, open),
            (None, None) => (0, None),
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
        let what = self.what_matters(fail_on);
        match self.killed_after {
            Some(_) if self.state(fail_on) == State::Kept => {
                format!("{what}: {} times, at other moments", self.fault.orders())
            }
            Some(after) => format!(
                "{what} (killed {:.1} ms after it was sent)",
                after.as_secs_f64() * 1e3
            ),
            None => what,
        }
    }

    fn what_matters(&self, fail_on: Grade) -> String {
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
    pub(crate) fn new(options: &Options, method: &str, origin: &str, target: &str) -> Self {
        Self {
            url: options.url.clone(),
            method: method.to_owned(),
            origin: origin.to_owned(),
            target: target.to_owned(),
            profile: options.profile,
            seed: options.seed,
            fail_on: options.fail_on,
            again: again(options),
            scene: Scene {
                origin: origin.to_owned(),
                needs_ca: options.ca.is_some(),
                count_with: options.count_with.clone(),
                restart: options.restart.clone(),
                start: options.start.clone(),
            },
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

    /// For a terminal; `paint` colours what it is given, or leaves it as it is.
    pub fn to_text(&self, paint: &dyn Fn(Tone, &str) -> String) -> String {
        text::render(self, paint)
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
                    curl: self.scene.script(
                        case.fault,
                        &case.values,
                        &case.steps,
                        judgement.pair,
                        judgement.rule.is_about_effects(),
                    ),
                    steps: &case.steps,
                    pair: judgement.pair,
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
            Outcome::Finding => self.finding_sentence(&of),
            Outcome::Inconclusive if played == 0 => "No case fits this request.".into(),
            Outcome::Inconclusive => format!(
                "Nobody can tell: {} could not be judged.",
                of(count(State::Inconclusive))
            ),
        }
    }
}

impl Report {
    /// "Not safe" is said of broken MUST rules alone: the others do not repeat effects.
    fn finding_sentence(&self, of: &dyn Fn(usize) -> String) -> String {
        let broken = |is: &dyn Fn(Grade) -> bool| {
            let has = |case: &&Case| {
                case.judgements.iter().any(|judgement| {
                    matches!(judgement.verdict, Verdict::Broken(_)) && is(judgement.rule.grade)
                })
            };
            self.cases.iter().filter(has).count()
        };
        let unsafe_cases = broken(&|grade| grade == Grade::Must);
        let open = self.findings(false);
        let is_open = open.iter().any(|finding| finding.rule.grade == Grade::Must);
        if unsafe_cases > 0 {
            return format!("Not safe to retry: {} broke a MUST rule.", of(unsafe_cases));
        }
        let broken = of(broken(&|grade| grade >= self.fail_on));
        let effects = if is_open {
            "whether effects repeat could not always be judged"
        } else {
            "no MUST rule was broken"
        };
        let grade = self.fail_on.name();
        format!("{broken} broke a rule of {grade} or above; {effects}.")
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
    if let Some(openapi) = &options.openapi {
        add("openapi", &curl::quote(&openapi.location));
        add("operation", &curl::quote(&openapi.operation));
    } else if options.request.is_some() {
        let name = options.request_name.as_deref().unwrap_or("FILE");
        add("request", &curl::quote(name));
    }
    if options.authorization.is_some() {
        add("authorization-file", "FILE");
    }
    if options.other_authorization.is_some() {
        add("other-authorization-file", "FILE");
    }
    if options.ca.is_some() {
        add("ca-file", "FILE");
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
    if let Some(command) = &options.start {
        add("start", &curl::quote(command));
    }
    add("profile", options.profile.name());
    if options.fail_on != Grade::Should {
        add("fail-on", &options.fail_on.name().to_ascii_lowercase());
    }
    add("seed", &options.seed.to_string());
    line
}

#[cfg(test)]
mod tests;
