//! The reports: nothing of the target's text is taken for markup, and no secret is shown.

use super::*;
use crate::answer::Answer;
use crate::history::{Counted, Role, Span};
use crate::judge::{Standard, judge};
use crate::message::Message;
use crate::template::Kind;
use crate::wire::Fate;

const EVIL: &str = "<script>alert('x')</script>&\u{1b}[31m";

fn plain(_: Tone, text: &str) -> String {
    text.to_owned()
}

fn report(fail_on: Grade) -> Report {
    let mut options = Options::new("http://127.0.0.1:1/o?<b>", 9);
    options.fail_on = fail_on;
    let mut report = Report::new(&options, "POST", "http://127.0.0.1:1", "/o");
    let message = Message {
        method: "POST".into(),
        target: "/o".into(),
        fields: vec![
            ("Authorization".into(), "Bearer hunter2".into()),
            ("Idempotency-Key".into(), "\"it's\"".into()),
        ],
        body: "{\"a\":1}".into(),
    };
    let step = |role, body: &str| Step {
        role,
        message: message.clone(),
        span: Span::default(),
        fate: Fate::Answered(Answer {
            status: 201,
            fields: vec![
                ("location".into(), format!("/{EVIL}")),
                ("set-cookie".into(), "session=hunter2".into()),
            ],
            body: body.into(),
        }),
    };
    let history = History {
        fault: Fault::Duplicate,
        kind: Kind::Field,
        values: Values::default(),
        steps: vec![step(Role::First, EVIL), step(Role::Repeat, "other")],
        counted: Ok(Counted {
            of_incomplete: None,
            total: 2,
        }),
        killed_after: None,
        identities: Vec::new(),
    };
    let standard = Standard {
        profile: Profile::Ietf,
        requires_key: false,
    };
    let judgements = judge(&history, standard);
    report.cases.push(Case::judged(history, judgements));
    report.cases.push(Case::skipped(Fault::NoKey, EVIL.into()));
    report
}

#[test]
fn text_of_the_target_is_never_markup() {
    let report = report(Grade::Should);
    for page in [report.to_html(), report.to_junit()] {
        assert!(page.contains("&lt;script&gt;alert(&#39;x&#39;)"), "{page}");
        assert!(
            !page.contains("<script") && !page.contains('\u{1b}') && !page.contains("<b>\""),
            "{page}"
        );
    }
    assert!(!report.to_text(&plain).contains('\u{1b}'));
    let json: serde_json::Value = serde_json::from_str(&report.to_json()).unwrap();
    assert_eq!(json["cases"][0]["steps"][0]["answer"]["body"], EVIL);
}

#[test]
fn the_page_fetches_and_runs_nothing() {
    let page = report(Grade::Should).to_html();
    assert!(page.contains("default-src 'none'"));
    for part in [" src=", " href=", "url(", "@import", "<link", "onclick"] {
        assert!(!page.contains(part), "{part}");
    }
}

#[test]
fn secrets_are_in_no_report() {
    let report = report(Grade::Should);
    for text in [
        report.to_text(&plain),
        report.to_json(),
        report.to_junit(),
        report.to_html(),
    ] {
        assert!(!text.contains("hunter2"), "{text}");
    }
    assert!(
        report
            .to_text(&plain)
            .contains("\"Authorization: $AUTHORIZATION\"")
    );
}

#[test]
fn a_finding_has_its_pair_of_commands_and_its_seed() {
    let text = report(Grade::Should).to_text(&plain);
    let pasted = text
        .lines()
        .filter(|line| line.trim_start().starts_with("$ "));
    let commands: usize = pasted.map(|line| line.matches("curl -sS").count()).sum();
    // Twice at once, and once more.
    assert_eq!(commands, 3, "{text}");
    assert!(text.contains("--seed 9 --faults duplicate"), "{text}");
    assert!(text.contains(r#"'Idempotency-Key: "it'\''s"'"#), "{text}");
}

#[test]
fn every_finding_has_its_commands_or_says_which_show_it() {
    let mut report = report(Grade::Practice);
    // The same under another fault: one rule, two findings.
    let (first, again) = (report.cases.remove(0), self::report(Grade::Practice));
    let mut other = again.cases.into_iter().next().unwrap();
    other.fault = Fault::LoseReply;
    report.cases.extend([first, other]);
    let text = report.to_text(&plain);
    let findings = report.findings(true);
    let lines: Vec<&str> = text.lines().collect();
    for finding in &findings {
        let name = finding.fault.name();
        let heads = |line: &&str| line.starts_with(&format!("    {name}"));
        assert!(lines.iter().any(heads), "{text}");
    }
    let again = |fault: &str| {
        let wanted = format!("--seed 9 --faults {fault}");
        lines.iter().filter(|line| line.ends_with(&wanted)).count()
    };
    assert_eq!((again("duplicate"), again("lose_reply")), (1, 1), "{text}");
    let referring = |fault: &str| {
        let wanted = format!("by the commands of {fault} under one-effect");
        lines.iter().filter(|line| line.trim() == wanted).count()
    };
    let of = |fault| findings.iter().filter(|found| found.fault == fault).count();
    assert!(
        of(Fault::Duplicate) > 1 && of(Fault::LoseReply) > 1,
        "{text}"
    );
    assert_eq!(referring("duplicate"), of(Fault::Duplicate) - 1, "{text}");
    assert_eq!(referring("lose_reply"), of(Fault::LoseReply) - 1, "{text}");
}

#[test]
fn the_outcome_follows_the_grade_that_counts() {
    assert_eq!(report(Grade::Must).outcome(), Outcome::Finding);
    let mut mild = report(Grade::Must);
    mild.cases[0]
        .judgements
        .retain(|judgement| judgement.rule.grade < Grade::Must);
    assert_eq!(mild.outcome(), Outcome::Clean);
    mild.fail_on = Grade::Should;
    assert_eq!(mild.outcome(), Outcome::Finding);
    mild.cases.remove(0);
    assert_eq!(mild.outcome(), Outcome::Inconclusive, "nothing was played");
}

#[test]
fn every_rule_and_fault_is_documented_with_its_grade() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/check.md");
    let document = std::fs::read_to_string(path).unwrap();
    for rule in rules::ALL {
        let row = format!("| `{}` | {} |", rule.name, rule.grade.name());
        assert!(document.contains(&row), "{row}");
    }
    for fault in Fault::ALL {
        let row = format!("| `{}` |", fault.name());
        assert!(document.contains(&row), "{row}");
    }
}
