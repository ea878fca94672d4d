//! One page that needs nothing else: no script, no font, no request to anywhere.

use std::fmt::Write as _;

use super::junit::escape;
use super::{Case, Finding, Outcome, Report, curl, json};
use crate::judge::Verdict;
use crate::rules;

const STYLE: &str = include_str!("report.css");

pub(super) fn render(report: &Report) -> String {
    let mut out = String::new();
    let outcome = report.outcome();
    let mark = match outcome {
        Outcome::Clean => "Clean",
        Outcome::Finding => "Findings",
        Outcome::Inconclusive => "Inconclusive",
    };
    // Writing to a string does not fail.
    let _ = write!(
        out,
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <meta name=\"color-scheme\" content=\"light dark\">\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\
         <title>{mark}: {} {}</title><style>{STYLE}</style></head><body><main>\
         <header class=\"{}\"><p class=\"mark\">{mark}</p><h1>{}</h1>\
         <p class=\"target\"><b>{}</b> http://{}{}</p></header>",
        escape(&report.method),
        escape(&report.target),
        outcome.name(),
        escape(&report.sentence()),
        escape(&report.method),
        escape(&report.authority),
        escape(&report.target),
    );
    let _ = write!(
        out,
        "<dl><div><dt>Profile</dt><dd>{}</dd></div><div><dt>Seed</dt><dd>{}</dd></div>\
         <div><dt>Fails on</dt><dd>{}</dd></div><div class=\"wide\"><dt>Effects</dt><dd>{}</dd></div></dl>",
        report.profile,
        report.seed,
        report.fail_on.name(),
        escape(&report.counting),
    );
    let (counting, notes): (Vec<_>, Vec<_>) = report
        .findings(true)
        .into_iter()
        .partition(|finding| finding.rule.grade >= report.fail_on);
    findings(&mut out, "Findings", &counting);
    cases(&mut out, report);
    findings(&mut out, "Cannot be told", &report.findings(false));
    findings(&mut out, "Notes", &notes);
    all_rules(&mut out);
    let _ = writeln!(
        out,
        "<footer>hapax check {} · the same seed sends the same keys, payloads and cuts</footer></main></body></html>",
        env!("CARGO_PKG_VERSION")
    );
    out
}

fn findings(out: &mut String, title: &str, findings: &[Finding<'_>]) {
    if findings.is_empty() {
        return;
    }
    let _ = write!(out, "<section><h2>{title}</h2>");
    let mut last = None;
    for finding in findings {
        let rule = finding.rule;
        if last != Some(rule.name) {
            if last.is_some() {
                out.push_str("</article>");
            }
            let _ = write!(
                out,
                "<article><h3><span class=\"grade {}\">{}</span> {}</h3><p class=\"source\">{} · {}</p>",
                rule.grade.name().to_ascii_lowercase(),
                rule.grade.name(),
                escape(rule.says),
                rule.name,
                escape(rule.source)
            );
            last = Some(rule.name);
        }
        let _ = write!(
            out,
            "<details><summary><code>{}</code> {}</summary><pre>{}\n\n{}</pre></details>",
            finding.fault.name(),
            escape(finding.what),
            escape(&finding.curl.join("\n\n")),
            escape(&finding.again)
        );
    }
    out.push_str("</article></section>");
}

fn cases(out: &mut String, report: &Report) {
    if report.cases.is_empty() {
        return;
    }
    out.push_str("<section><h2>Cases</h2><div class=\"cases\">");
    for case in &report.cases {
        let state = case.state(report.fail_on).name();
        let _ = write!(
            out,
            "<details class=\"case\"><summary><span class=\"state {state}\">{state}</span>\
             <code>{}</code><span class=\"what\">{}</span></summary>",
            case.fault.name(),
            escape(&case.summary(report.fail_on))
        );
        one_case(out, case);
        out.push_str("</details>");
    }
    out.push_str("</div></section>");
}

fn one_case(out: &mut String, case: &Case) {
    let _ = write!(
        out,
        "<p class=\"source\">{}</p>",
        escape(case.fault.title())
    );
    if !case.judgements.is_empty() {
        out.push_str("<ul>");
    }
    for judgement in &case.judgements {
        let (word, note) = match &judgement.verdict {
            Verdict::Kept(note) => ("kept", note.as_deref().unwrap_or("")),
            Verdict::Broken(why) => ("broken", why.as_str()),
            Verdict::Inconclusive(why) => ("not known", why.as_str()),
        };
        let _ = write!(
            out,
            "<li><b class=\"{}\">{word}</b> {} <i>{}</i></li>",
            word.replace(' ', "-"),
            judgement.rule.name,
            escape(note)
        );
    }
    if !case.judgements.is_empty() {
        out.push_str("</ul>");
    }
    for step in &case.steps {
        let message = &step.message;
        let mut text = format!("{} {}\n", message.method, message.target);
        for (name, value) in curl::fields(message) {
            let _ = writeln!(text, "{name}: {value}");
        }
        let _ = write!(text, "\n{}\n\n→ {}\n", message.body, curl::fate(step));
        if let Some(answer) = step.seen() {
            for [name, value] in json::shown_fields(answer) {
                let _ = writeln!(text, "{name}: {value}");
            }
            let _ = write!(text, "\n{}", json::excerpt(answer));
        }
        let _ = write!(out, "<pre>{}</pre>", escape(&text));
    }
}

fn all_rules(out: &mut String) {
    out.push_str("<section><details><summary>All rules, with their sources</summary><table>");
    for rule in rules::ALL {
        let _ = write!(
            out,
            "<tr><td><span class=\"grade {}\">{}</span></td><td><b>{}</b><br>{}<br><span class=\"source\">{}</span></td></tr>",
            rule.grade.name().to_ascii_lowercase(),
            rule.grade.name(),
            rule.name,
            escape(rule.says),
            escape(rule.source)
        );
    }
    out.push_str("</table></details></section>");
}
