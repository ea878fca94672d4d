//! For programs: everything, secrets masked.

use serde_json::{Value, json};

use super::{Case, Finding, Report, curl, repro, table};
use crate::answer::Answer;
use crate::history::Step;
use crate::judge::Verdict;

/// How much of an answer's content is shown, in bytes.
pub(super) const MAX_EXCERPT: usize = 2048;

pub(super) fn render(report: &Report) -> String {
    let findings = |broken| -> Vec<Value> { report.findings(broken).iter().map(finding).collect() };
    let value = json!({
        "format": "hapax-check/1",
        "version": env!("CARGO_PKG_VERSION"),
        "outcome": report.outcome().name(),
        "summary": report.sentence(),
        "url": report.url,
        "method": report.method,
        "profile": report.profile.name(),
        "seed": report.seed,
        "fail_on": report.fail_on.name().to_ascii_lowercase(),
        "counting": report.counting,
        "baseline": report.baseline,
        "rules": table::rows(report).iter().map(rule).collect::<Vec<_>>(),
        "findings": findings(true),
        "inconclusive": findings(false),
        "cases": report.cases.iter().map(|case| one_case(case, report)).collect::<Vec<_>>(),
    });
    format!("{value:#}\n")
}

fn rule(row: &table::Row) -> Value {
    json!({
        "rule": row.rule.name,
        "grade": row.rule.grade.name().to_ascii_lowercase(),
        "says": row.rule.says,
        "source": row.rule.source,
        "result": row.result.name(),
        "cases": row.cases,
    })
}

fn finding(finding: &Finding<'_>) -> Value {
    json!({
        "rule": finding.rule.name,
        "grade": finding.rule.grade.name().to_ascii_lowercase(),
        "says": finding.rule.says,
        "source": finding.rule.source,
        "case": finding.fault.name(),
        "what": finding.what,
        "curl": finding.curl,
        "again": finding.again,
    })
}

fn one_case(case: &Case, report: &Report) -> Value {
    let rules: Vec<Value> = case
        .judgements
        .iter()
        .map(|judgement| {
            let (verdict, note) = match &judgement.verdict {
                Verdict::Kept(note) => ("kept", note.as_deref()),
                Verdict::Broken(why) => ("broken", Some(why.as_str())),
                Verdict::Inconclusive(why) => ("inconclusive", Some(why.as_str())),
            };
            json!({ "rule": judgement.rule.name, "verdict": verdict, "note": note })
        })
        .collect();
    json!({
        "name": case.fault.name(),
        "title": case.fault.title(),
        "state": case.state(report.fail_on).name(),
        "skipped": case.skipped,
        "rules": rules,
        "steps": case.steps.iter().map(step).collect::<Vec<_>>(),
    })
}

fn step(step: &Step) -> Value {
    let fields: Vec<[String; 2]> = curl::fields(&step.message)
        .map(|(name, value)| [name.to_owned(), value])
        .collect();
    json!({
        "method": step.message.method,
        "target": step.message.target,
        "fields": fields,
        "body": step.message.body,
        "from_ms": milliseconds(step.span.from),
        "to_ms": milliseconds(step.span.to),
        "fate": repro::fate(step),
        "answer": step.seen().map(|answer| json!({
            "status": answer.status,
            "fields": shown_fields(answer),
            "body": excerpt(answer),
        })),
    })
}

fn milliseconds(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// The fields of an answer that matter here; no cookies and the like.
pub(super) fn shown_fields(answer: &Answer) -> Vec<[&str; 2]> {
    [
        "location",
        "etag",
        "content-type",
        "link",
        "retry-after",
        "idempotent-replayed",
        "idempotency-status",
    ]
    .into_iter()
    .filter_map(|name| answer.field(name).map(|value| [name, value]))
    .collect()
}

/// The beginning of the content.
pub(super) fn excerpt(answer: &Answer) -> String {
    let end = answer.body.len().min(MAX_EXCERPT);
    let text = String::from_utf8_lossy(answer.body.get(..end).unwrap_or(&[])).into_owned();
    if answer.body.len() > MAX_EXCERPT {
        format!("{text}…")
    } else {
        text
    }
}
