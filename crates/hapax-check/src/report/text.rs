//! For a terminal: calm, aligned, the worst first, and the verdict last, where the cursor is.

use std::fmt::Write as _;

use super::{Finding, Outcome, Report, State, Tone, curl, repro, table};
use crate::rules::Grade;

/// How wide the column of names is: the longest name of a fault.
const NAME: usize = 17;
/// How wide the column of states is: the longest state.
const STATE: usize = 14;

type Paint<'a> = &'a dyn Fn(Tone, &str) -> String;

pub(super) fn render(report: &Report, paint: Paint<'_>) -> String {
    let mut out = Text {
        out: String::new(),
        paint,
    };
    out.line(&format!(
        "hapax check  {} {}{}",
        report.method, report.origin, report.target
    ));
    out.line(&format!(
        "profile {}, seed {}, effects {}",
        report.profile,
        report.seed,
        curl::one_line(&report.counting)
    ));
    out.cases(report);
    let (counting, notes): (Vec<_>, Vec<_>) = report
        .findings(true)
        .into_iter()
        .partition(|finding| finding.rule.grade >= report.fail_on);
    out.section("Findings", &counting, true);
    out.section("Cannot be told", &report.findings(false), false);
    let below = "Notes (below --fail-on, whose lower grades print their commands)";
    out.section(below, &notes, false);
    out.verdict(report);
    out.out
}

struct Text<'a> {
    out: String,
    paint: Paint<'a>,
}

impl Text<'_> {
    fn line(&mut self, text: &str) {
        // Writing to a string does not fail.
        let _ = writeln!(self.out, "{}", text.trim_end());
    }

    fn cases(&mut self, report: &Report) {
        if !report.cases.is_empty() {
            self.line("");
        }
        for case in &report.cases {
            let state = case.state(report.fail_on);
            let tone = match state {
                State::Kept => Tone::Good,
                State::Broken => Tone::Bad,
                State::Note | State::Inconclusive => Tone::Open,
                State::Skipped => Tone::Quiet,
            };
            let name = (self.paint)(tone, &format!("{:<STATE$}", state.name()));
            let summary = curl::one_line(&case.summary(report.fail_on));
            self.line(&format!("  {:<NAME$}{name}{summary}", case.fault.name()));
        }
    }

    /// Findings by rule; each in full, if `commands`, unless another has shown the same.
    fn section(&mut self, title: &str, findings: &[Finding<'_>], commands: bool) {
        if findings.is_empty() {
            return;
        }
        self.line("");
        self.line(title);
        let mut last = None;
        let mut shown: Vec<&Finding<'_>> = Vec::new();
        for finding in findings {
            let rule = finding.rule;
            let is_first = last != Some(rule.name);
            if is_first {
                let tone = if commands && rule.grade == Grade::Must {
                    Tone::Bad
                } else {
                    Tone::Open
                };
                let grade = (self.paint)(tone, &format!("{:<10}", rule.grade.name()));
                self.line("");
                self.line(&format!("  {grade}{}  {}", rule.name, rule.says));
                self.line(&format!("  {:<10}{}", "", rule.source));
                last = Some(rule.name);
            }
            self.line(&format!(
                "    {:<NAME$}{}",
                finding.fault.name(),
                curl::one_line(finding.what)
            ));
            if !commands {
                continue;
            }
            let has_the_same = |other: &&&Finding<'_>| {
                let mut lines = finding.curl.iter();
                other.fault == finding.fault && lines.all(|line| other.curl.contains(line))
            };
            match shown.iter().find(has_the_same) {
                Some(other) => self.line(&format!(
                    "      by the commands of {} under {}",
                    other.fault.name(),
                    other.rule.name
                )),
                None => {
                    self.in_full(finding);
                    shown.push(finding);
                }
            }
        }
    }

    /// When what was sent, what came of it, and the commands.
    fn in_full(&mut self, finding: &Finding<'_>) {
        for (at, step) in finding.steps.iter().enumerate() {
            let is_shown = at == finding.pair.0 || at == finding.pair.1 || finding.steps.len() <= 4;
            if is_shown {
                self.line(&format!(
                    "      {:>5} ms  request {}  {}",
                    step.span.from.as_millis(),
                    at + 1,
                    repro::fate(step)
                ));
            }
        }
        for command in &finding.curl {
            self.line(&format!("      $ {}", curl::one_line(command)));
        }
        self.line(&format!("      $ {}", finding.again));
    }

    fn verdict(&mut self, report: &Report) {
        let tone = match report.outcome() {
            Outcome::Clean => Tone::Good,
            Outcome::Finding => Tone::Bad,
            Outcome::Inconclusive => Tone::Open,
        };
        self.line("");
        let sentence = (self.paint)(tone, &curl::one_line(&report.sentence()));
        self.line(&sentence);
        if report.baseline.is_some() {
            return;
        }
        let rows = table::rows(report);
        let kept: Vec<String> = [Grade::Must, Grade::Should, Grade::Practice]
            .into_iter()
            .map(|grade| {
                let (kept, of) = table::kept_of(&rows, grade);
                format!("{} {kept} of {of}", grade.name())
            })
            .collect();
        self.line(&format!("Rules kept: {}.", kept.join(", ")));
    }
}
