//! For build servers: JUnit's XML, a test a case.

use std::fmt::Write as _;

use super::{Case, Finding, Report, State};

pub(super) fn render(report: &Report) -> String {
    let count = |state| {
        report
            .cases
            .iter()
            .filter(|case| case.state(report.fail_on) == state)
            .count()
    };
    let baseline_errors = usize::from(report.baseline.is_some());
    let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    // Writing to a string does not fail.
    let _ = writeln!(
        out,
        "<testsuite name=\"hapax check {}\" tests=\"{}\" failures=\"{}\" errors=\"{}\" skipped=\"{}\">",
        escape(&report.url),
        report.cases.len() + baseline_errors,
        count(State::Broken),
        count(State::Inconclusive) + baseline_errors,
        count(State::Skipped),
    );
    if let Some(why) = &report.baseline {
        let _ = writeln!(
            out,
            "  <testcase classname=\"hapax.check\" name=\"baseline\"><error message=\"{}\"/></testcase>",
            escape(why)
        );
    }
    let (broken, open) = (report.findings(true), report.findings(false));
    for case in &report.cases {
        let _ = writeln!(
            out,
            "  <testcase classname=\"hapax.check\" name=\"{}\">",
            case.fault.name()
        );
        let summary = escape(&case.summary(report.fail_on));
        let _ = match case.state(report.fail_on) {
            State::Kept => Ok(()),
            State::Skipped => writeln!(out, "    <skipped message=\"{summary}\"/>"),
            State::Broken => element(&mut out, "failure", &summary, &lines(case, &broken)),
            State::Inconclusive => element(&mut out, "error", &summary, &lines(case, &open)),
            State::Note => writeln!(
                out,
                "    <system-out>{}</system-out>",
                escape(&lines(case, &broken))
            ),
        };
        out.push_str("  </testcase>\n");
    }
    out.push_str("</testsuite>\n");
    out
}

fn element(out: &mut String, name: &str, summary: &str, text: &str) -> std::fmt::Result {
    writeln!(
        out,
        "    <{name} message=\"{summary}\">{}</{name}>",
        escape(text)
    )
}

fn lines(case: &Case, findings: &[Finding<'_>]) -> String {
    findings
        .iter()
        .filter(|finding| finding.fault == case.fault)
        .map(|finding| {
            format!(
                "{} {}: {}\n  {}\n  {}\n",
                finding.rule.grade.name(),
                finding.rule.name,
                finding.what,
                finding.curl.join("\n  "),
                finding.again
            )
        })
        .collect()
}

/// For XML; characters that XML cannot say become a mark.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\n' | '\t' => out.push(c),
            c if c.is_control() || ('\u{fffe}'..='\u{ffff}').contains(&c) => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}
