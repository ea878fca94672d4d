//! Positive controls: for every rule a server that breaks it, and the checker says so.

use std::collections::BTreeSet;
use std::thread;
use std::time::Duration;

use hapax_check::{Fault, Grade, Options, Outcome, Report, check, rules};
use serde_json::Value;

use crate::flawed::{Flaw, Server};

/// The checker's whole work on a server with a flaw; `faults`: all of them where there is none.
pub(crate) async fn checked(flaw: Flaw, faults: &[Fault]) -> (Report, Value) {
    // Long enough for attempts to meet on a busy machine.
    let server = Server::start(flaw, Duration::from_millis(150));
    let path = match flaw {
        Flaw::ActsOnGet => "catalogue",
        _ => "orders",
    };
    let mut options = Options::new(format!("{}/{path}", server.url), 5);
    if flaw == Flaw::ActsOnGet {
        options.method = Some("GET".into());
    }
    options.faults = faults.to_vec();
    options.count_with = Some(format!("{}/count", server.url));
    options.fail_on = Grade::Practice;
    options.requires_key = true;
    options.restart = Some(format!("curl -sS -X POST {}/restart", server.url));
    let report = check(&options, &|_| {}).await.unwrap();
    let json = serde_json::from_str(&report.to_json()).unwrap();
    (report, json)
}

fn broken(json: &Value) -> BTreeSet<String> {
    let findings = json["findings"].as_array().unwrap().iter();
    findings
        .map(|finding| finding["rule"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn a_server_that_keeps_every_rule_is_clean() {
    let (report, json) = checked(Flaw::None, &[]).await;
    assert_eq!(report.outcome(), Outcome::Clean, "{json:#}");
    let cases = json["cases"].as_array().unwrap();
    assert_eq!(cases.len(), Fault::ALL.len());
    // All but the one that needs a target of the checker's own.
    let idle: Vec<_> = cases.iter().filter(|case| case["state"] != "ok").collect();
    assert!(
        matches!(&*idle, [case] if case["name"] == "kill_target"),
        "{json:#}"
    );
    // All but the one about safe methods were judged: a rule that nothing applies to is not kept.
    let idle: Vec<&str> = json["rules"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|rule| rule["result"] != "kept")
        .map(|rule| rule["rule"].as_str().unwrap())
        .collect();
    assert_eq!(idle, ["safe-has-no-effect"]);
}

/// A flaw, the fault that shows it, the rule that is broken, and the rules that may be broken with it.
type Control = (Flaw, Fault, &'static str, &'static [&'static str]);

/// How many controls run at once: most of a check is waiting for a count to come to rest.
const AT_ONCE: usize = 8;

const ANSWERS: &[&str] = &["same-content", "same-fields", "replay-is-marked"];

const CONTROLS: &[Control] = &[
    (
        Flaw::NoRecords,
        Fault::ReplayFidelity,
        "one-effect",
        ANSWERS,
    ),
    (
        Flaw::LooksBeforeItWrites,
        Fault::Concurrent,
        "one-effect",
        ANSWERS,
    ),
    (
        Flaw::LooksBeforeItWrites,
        Fault::Duplicate,
        "one-effect",
        ANSWERS,
    ),
    (Flaw::ForgetsWhoHangsUp, Fault::HangUp, "one-effect", &[]),
    (
        Flaw::ForgetsAtRestart,
        Fault::AfterRestart,
        "one-effect",
        ANSWERS,
    ),
    (
        Flaw::ForgetsWhoResets,
        Fault::ResetMidReply,
        "one-effect",
        ANSWERS,
    ),
    (
        Flaw::LooksWhenTheyConnect,
        Fault::Delay,
        "one-effect",
        ANSWERS,
    ),
    (
        Flaw::ActsOnHalfAHead,
        Fault::LoseRequest,
        "incomplete-has-no-effect",
        &["one-effect"],
    ),
    (
        Flaw::AnswersWithoutEffect,
        Fault::ReplayFidelity,
        "acknowledged-effect",
        &[],
    ),
    (
        Flaw::ActsOnTheHead,
        Fault::CutBody,
        "incomplete-has-no-effect",
        &["one-effect"],
    ),
    (
        Flaw::RunsOtherPayloads,
        Fault::OtherPayload,
        "mismatch-has-no-effect",
        &["mismatch-is-refused"],
    ),
    (
        Flaw::SharesKeysBetweenCallers,
        Fault::OtherCaller,
        "callers-are-apart",
        &[],
    ),
    (
        Flaw::ActsOnGet,
        Fault::ReplayFidelity,
        "safe-has-no-effect",
        &[],
    ),
    (
        Flaw::LocksTheKey,
        Fault::LoseReply,
        "repeat-gets-result",
        &[],
    ),
    (
        Flaw::ReplaysAnotherStatus,
        Fault::ReplayFidelity,
        "same-status",
        &[],
    ),
    (
        Flaw::ReplaysOtherContent,
        Fault::ReplayFidelity,
        "same-content",
        &[],
    ),
    (Flaw::ReplaysNoLocation, Fault::SlowBody, "same-fields", &[]),
    (
        Flaw::MarksNoReplay,
        Fault::ReplayFidelity,
        "replay-is-marked",
        &[],
    ),
    (
        Flaw::FailsConcurrentRepeats,
        Fault::Concurrent,
        "concurrent-answer",
        &[],
    ),
    (
        Flaw::SaysNotWhen,
        Fault::Concurrent,
        "conflict-says-when",
        &[],
    ),
    (
        Flaw::ReplaysForOtherPayloads,
        Fault::OtherPayload,
        "mismatch-is-refused",
        &[],
    ),
    (
        Flaw::NeedsNoKey,
        Fault::NoKey,
        "missing-key-is-refused",
        &[],
    ),
    (Flaw::TakesAnyKey, Fault::BadKey, "bad-key-is-refused", &[]),
    (
        Flaw::KeepsTheKeyOfHalfARequest,
        Fault::CutBody,
        "incomplete-uses-no-key",
        &["repeat-gets-result", "mismatch-is-refused"],
    ),
    (
        Flaw::SharesKeysBetweenPaths,
        Fault::OtherPath,
        "paths-are-apart",
        &[],
    ),
    (
        Flaw::RefusesInSilence,
        Fault::OtherPayload,
        "refusals-are-explained",
        &[],
    ),
];

fn is_caught((flaw, fault, rule, others): &Control) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let (report, json) = runtime.block_on(checked(*flaw, &[*fault]));
    assert_eq!(report.outcome(), Outcome::Finding, "{flaw:?}: {json:#}");
    let mut found = broken(&json);
    assert!(
        found.remove(*rule),
        "{flaw:?}: {rule} is not in {found:?}: {json:#}"
    );
    // It is blamed for nothing else.
    found.retain(|name| !others.contains(&name.as_str()));
    assert!(found.is_empty(), "{flaw:?}: {found:?}");
}

#[test]
fn every_rule_and_every_fault_has_a_server_that_is_caught_by_it() {
    for some in CONTROLS.chunks(AT_ONCE) {
        thread::scope(|scope| {
            for control in some {
                scope.spawn(|| is_caught(control));
            }
        });
    }
    let controlled: BTreeSet<&str> = CONTROLS.iter().map(|(_, _, rule, _)| *rule).collect();
    let all: BTreeSet<&str> = rules::ALL.iter().map(|rule| rule.name).collect();
    assert_eq!(controlled, all, "a rule without a control");
    let faults: BTreeSet<Fault> = CONTROLS.iter().map(|(_, fault, ..)| *fault).collect();
    // The one that needs a target of the checker's own is tried on the shop.
    let missing: Vec<Fault> = Fault::ALL
        .into_iter()
        .filter(|fault| !faults.contains(fault))
        .collect();
    assert_eq!(missing, [Fault::KillTarget], "a fault without a control");
}
