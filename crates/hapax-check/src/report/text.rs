//! For a terminal: calm, aligned, the worst first.

use std::fmt::Write as _;

use super::{Finding, Report, curl};

/// How wide the column of names is: the longest name of a fault.
const NAME: usize = 17;

pub(super) fn render(report: &Report) -> String {
    let mut out = String::new();
    // Writing to a string does not fail.
    let mut line = |text: &str| {
        let _ = writeln!(out, "{text}");
    };
    line(&format!(
        "hapax check  {} http://{}{}",
        report.method, report.authority, report.target
    ));
    line(&format!(
        "profile {}, seed {}, effects {}",
        report.profile,
        report.seed,
        curl::one_line(&report.counting)
    ));
    if !report.cases.is_empty() {
        line("");
    }
    for case in &report.cases {
        let state = case.state(report.fail_on);
        let summary = curl::one_line(&case.summary(report.fail_on));
        line(&format!(
            "  {:<NAME$}{:<14}{summary}",
            case.fault.name(),
            state.name()
        ));
    }
    let broken = report.findings(true);
    let (counting, notes): (Vec<_>, Vec<_>) = broken
        .into_iter()
        .partition(|finding| finding.rule.grade >= report.fail_on);
    section(&mut line, "Findings", &counting, true);
    section(&mut line, "Cannot be told", &report.findings(false), false);
    section(
        &mut line,
        "Notes (below --fail-on; the other reports have their commands)",
        &notes,
        false,
    );
    line("");
    line(&curl::one_line(&report.sentence()));
    out
}

fn section(line: &mut impl FnMut(&str), title: &str, findings: &[Finding<'_>], commands: bool) {
    if findings.is_empty() {
        return;
    }
    line("");
    line(title);
    let mut last = None;
    for finding in findings {
        let rule = finding.rule;
        if last != Some(rule.name) {
            line("");
            line(&format!(
                "  {:<10}{}  {}",
                rule.grade.name(),
                rule.name,
                rule.says
            ));
            line(&format!("  {:<10}{}", "", rule.source));
            last = Some(rule.name);
        }
        line(&format!(
            "    {:<NAME$}{}",
            finding.fault.name(),
            curl::one_line(finding.what)
        ));
        if commands {
            for command in &finding.curl {
                line(&format!("      {}", curl::one_line(command)));
            }
            line(&format!("      {}", finding.again));
        }
    }
}
