//! One page that needs nothing else: no script, no font, no request to anywhere.

use std::fmt::Write as _;

use super::junit::escape;
use super::{Case, Finding, Outcome, Report, State, curl, json, table, timeline};
use crate::judge::Verdict;
use crate::rules::Grade;

const STYLE: &str = include_str!("report.css");

pub(super) fn render(report: &Report) -> String {
    let mut out = String::new();
    head(&mut out, report);
    let (counting, notes): (Vec<_>, Vec<_>) = report
        .findings(true)
        .into_iter()
        .partition(|finding| finding.rule.grade >= report.fail_on);
    if report.baseline.is_none() {
        scores(&mut out, report);
        rules_table(&mut out, report);
    }
    findings(&mut out, "Findings", &counting);
    findings(&mut out, "Cannot be told", &report.findings(false));
    findings(&mut out, "Notes", &notes);
    cases(&mut out, report);
    how(&mut out, report);
    out
}

/// The verdict, before anything else.
fn head(out: &mut String, report: &Report) {
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
         <p class=\"target\"><b>{}</b> {}{}</p></header>",
        escape(&report.method),
        escape(&report.target),
        outcome.name(),
        escape(&report.sentence()),
        escape(&report.method),
        escape(&report.origin),
        escape(&report.target),
    );
}

/// How many rules were kept, by grade, and how many requests that took.
fn scores(out: &mut String, report: &Report) {
    let rows = table::rows(report);
    out.push_str("<dl class=\"scores\">");
    for (grade, means) in [
        (Grade::Must, "without it a retry is not safe"),
        (Grade::Should, "a specification recommends it"),
        (Grade::Practice, "good to have"),
    ] {
        let (kept, of) = table::kept_of(&rows, grade);
        let tone = match (kept == of, grade >= report.fail_on) {
            (true, _) => "good",
            (false, true) => "bad",
            (false, false) => "open",
        };
        let _ = write!(
            out,
            "<div class=\"{tone}\"><dt>{}</dt><dd><b>{kept}</b> of {of} kept</dd><dd class=\"source\">{means}</dd></div>",
            grade.name(),
        );
    }
    let played = report
        .cases
        .iter()
        .filter(|case| case.skipped.is_none())
        .count();
    let requests: usize = report.cases.iter().map(|case| case.steps.len()).sum();
    let _ = write!(
        out,
        "<div><dt>Evidence</dt><dd><b>{played}</b> cases</dd><dd class=\"source\">{requests} requests, {} skipped</dd></div></dl>",
        report.cases.len() - played
    );
}

fn rules_table(out: &mut String, report: &Report) {
    out.push_str(
        "<section><h2>Rules</h2><div class=\"card scroll\"><table><thead><tr><th>Result</th><th>Grade</th>\
         <th>Rule</th><th>Seen in</th></tr></thead><tbody>",
    );
    let rows = table::rows(report);
    let (applied, others): (Vec<_>, Vec<_>) = rows
        .iter()
        .partition(|row| row.result != table::Result::NotApplicable);
    for row in applied {
        let is_below = row.result == table::Result::Broken && row.rule.grade < report.fail_on;
        let tone = match row.result {
            table::Result::Kept => "ok",
            table::Result::Inconclusive => "inconclusive",
            _ if is_below => "note",
            _ => "finding",
        };
        let cases = match row.result {
            table::Result::Kept => match row.cases.len() {
                1 => row.cases.join(""),
                n => format!("{n} cases"),
            },
            _ => row.cases.join(", "),
        };
        let _ = write!(
            out,
            "<tr><td><span class=\"state {tone}\">{}</span></td><td><span class=\"grade {}\">{}</span></td>\
             <td>{}<br><span class=\"source\"><code>{}</code> · {}</span></td><td class=\"seen\">{cases}</td></tr>",
            row.result.name(),
            row.rule.grade.name().to_ascii_lowercase(),
            row.rule.grade.name(),
            escape(row.rule.says),
            row.rule.name,
            escape(row.rule.source),
        );
    }
    out.push_str("</tbody></table></div>");
    if !others.is_empty() {
        let names: Vec<String> = others
            .iter()
            .map(|row| format!("<code>{}</code>", row.rule.name))
            .collect();
        let _ = write!(
            out,
            "<p class=\"source\">Not applicable to this request and these faults: {}.</p>",
            names.join(", ")
        );
    }
    out.push_str("</section>");
}

fn findings(out: &mut String, title: &str, findings: &[Finding<'_>]) {
    if findings.is_empty() {
        return;
    }
    let _ = write!(out, "<section><h2>{title}</h2>");
    let mut last = None;
    for finding in findings {
        let rule = finding.rule;
        let is_first = last != Some(rule.name);
        if is_first {
            if last.is_some() {
                out.push_str("</article>");
            }
            let _ = write!(
                out,
                "<article class=\"card\"><h3><span class=\"grade {}\">{}</span> {}</h3><p class=\"source\"><code>{}</code> · {}</p>",
                rule.grade.name().to_ascii_lowercase(),
                rule.grade.name(),
                escape(rule.says),
                rule.name,
                escape(rule.source)
            );
            last = Some(rule.name);
        }
        one_finding(out, finding, is_first && title == "Findings");
    }
    out.push_str("</article></section>");
}

fn one_finding(out: &mut String, finding: &Finding<'_>, is_open: bool) {
    let _ = write!(
        out,
        "<details{}><summary><code>{}</code> {}</summary><p class=\"source\">{}</p>",
        if is_open { " open" } else { "" },
        finding.fault.name(),
        escape(finding.what),
        escape(finding.fault.title()),
    );
    timeline::draw(out, finding.steps, Some(finding.pair));
    let commands: Vec<String> = finding
        .curl
        .iter()
        .map(String::as_str)
        .map(escape)
        .collect();
    let _ = write!(
        out,
        "<p class=\"label\">See it by hand</p><pre>{}</pre><p class=\"label\">Or again with the same seed</p><pre>{}</pre></details>",
        commands.join("\n"),
        escape(&finding.again)
    );
}

fn cases(out: &mut String, report: &Report) {
    if report.cases.is_empty() {
        return;
    }
    out.push_str("<section><h2>Cases</h2><div class=\"card cases\">");
    for case in &report.cases {
        let state = case.state(report.fail_on);
        let _ = write!(
            out,
            "<details class=\"case\"><summary><span class=\"state {0}\">{0}</span>\
             <code>{1}</code><span class=\"what\">{2}</span></summary>",
            state.name(),
            case.fault.name(),
            escape(&case.summary(report.fail_on))
        );
        if state != State::Skipped {
            one_case(out, case);
        }
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
    timeline::draw(out, &case.steps, None);
    out.push_str("<ul>");
    for judgement in &case.judgements {
        let (word, note) = match &judgement.verdict {
            Verdict::Kept(note) => ("kept", note.as_deref().unwrap_or("")),
            Verdict::Broken(why) => ("broken", why.as_str()),
            Verdict::Inconclusive(why) => ("not known", why.as_str()),
        };
        let _ = write!(
            out,
            "<li><b class=\"{}\">{word}</b> <code>{}</code> <i>{}</i></li>",
            word.replace(' ', "-"),
            judgement.rule.name,
            escape(note)
        );
    }
    out.push_str("</ul>");
    for (at, step) in case.steps.iter().enumerate() {
        let message = &step.message;
        let mut text = format!("{} {}\n", message.method, message.target);
        for (name, value) in curl::fields(message) {
            let _ = writeln!(text, "{name}: {value}");
        }
        if !message.body.is_empty() {
            let _ = write!(text, "\n{}\n", message.body);
        }
        let _ = writeln!(
            out,
            "<div class=\"exchange\"><pre aria-label=\"request {}\">{}</pre><pre aria-label=\"answer\">{}",
            at + 1,
            escape(&text),
            escape(&super::repro::fate(step))
        );
        if let Some(answer) = step.seen() {
            let mut text = String::new();
            for [name, value] in json::shown_fields(answer) {
                let _ = writeln!(text, "{name}: {value}");
            }
            let _ = write!(text, "\n{}", json::excerpt(answer));
            out.push_str(&escape(&text));
        }
        out.push_str("</pre></div>");
    }
}

/// How the verdict came about, and how to get it again.
fn how(out: &mut String, report: &Report) {
    let _ = write!(
        out,
        "<section><h2>How this was judged</h2><dl class=\"facts\"><div><dt>Effects</dt><dd>{}</dd></div>\
         <div><dt>Profile</dt><dd>{}</dd></div><div><dt>Fails on</dt><dd>{} and above</dd></div>\
         <div><dt>Seed</dt><dd>{}</dd></div></dl><pre>{}</pre>\
         <p class=\"source\">The same seed sends the same keys, payloads and cuts. A rule kept in one run is evidence, not proof. \
         Secrets are written as variables.</p></section>",
        escape(&report.counting),
        report.profile,
        report.fail_on.name(),
        report.seed,
        escape(&report.again),
    );
    let _ = writeln!(
        out,
        "<footer>hapax check {}</footer></main></body></html>",
        env!("CARGO_PKG_VERSION")
    );
}
