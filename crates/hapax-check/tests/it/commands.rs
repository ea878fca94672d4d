//! The commands of a finding, pasted into a shell, show what the checker saw.

use std::process::Command;
use std::thread;
use std::time::Duration;

use hapax_check::{Fault, Options, check};
use serde_json::Value;

use crate::flawed::{Flaw, Server};

/// Every count that the commands print.
fn counts(output: &str) -> Vec<i64> {
    output
        .split("{\"count\":")
        .skip(1)
        .map(|rest| rest.split('}').next().unwrap().parse().unwrap())
        .collect()
}

type Finding = (Flaw, Fault, &'static str, i64);

const FINDINGS: &[Finding] = &[
    (Flaw::NoRecords, Fault::ReplayFidelity, "one-effect", 2),
    (Flaw::NoRecords, Fault::Duplicate, "one-effect", 3),
    (Flaw::NoRecords, Fault::LoseReply, "one-effect", 2),
    (Flaw::NoRecords, Fault::ResetMidReply, "one-effect", 2),
    (Flaw::NoRecords, Fault::Delay, "one-effect", 3),
    (Flaw::NoRecords, Fault::SlowBody, "one-effect", 2),
    (
        Flaw::LooksBeforeItWrites,
        Fault::Concurrent,
        "one-effect",
        8,
    ),
    (Flaw::ForgetsWhoHangsUp, Fault::HangUp, "one-effect", 2),
    (Flaw::ForgetsAtRestart, Fault::AfterRestart, "one-effect", 2),
    (Flaw::LooksWhenTheyConnect, Fault::Delay, "one-effect", 2),
    (
        Flaw::ActsOnHalfAHead,
        Fault::LoseRequest,
        "incomplete-has-no-effect",
        2,
    ),
    (
        Flaw::ActsOnTheHead,
        Fault::CutBody,
        "incomplete-has-no-effect",
        2,
    ),
    (
        Flaw::RunsOtherPayloads,
        Fault::OtherPayload,
        "mismatch-has-no-effect",
        2,
    ),
];

fn have_the_effects((flaw, fault, rule, effects): &Finding) {
    let server = Server::start(*flaw, Duration::from_millis(300));
    let mut options = Options::new(format!("{}/orders", server.url), 5);
    options.faults = vec![*fault];
    options.count_with = Some(format!("{}/count", server.url));
    options.restart = Some(format!("curl -sS -X POST {}/restart", server.url));
    let script = script_of(&options, rule);
    // On a busy machine curl may hang up before it has sent anything: the commands show it when they are pasted again.
    let tries = if *fault == Fault::HangUp { 5 } else { 1 };
    let mut seen = Vec::new();
    for _ in 0..tries {
        let text = pasted(&script);
        let counts = counts(&text);
        let grown = counts.last().unwrap() - counts.first().unwrap();
        // Of the racing ones, how many is the target's chance; that it is more than one is the finding.
        let is_shown = match fault {
            Fault::Concurrent => (2..=*effects).contains(&grown),
            _ => grown == *effects,
        };
        if is_shown {
            return;
        }
        seen.push(format!("{grown} effects by\n{script}\n{text}"));
    }
    panic!("{fault:?}: {}", seen.join("\n"));
}

/// The commands of the finding under `rule`, which there has to be.
fn script_of(options: &Options, rule: &str) -> String {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let report = runtime.block_on(check(options, &|_| {})).unwrap();
    let json: Value = serde_json::from_str(&report.to_json()).unwrap();
    let findings = json["findings"].as_array().unwrap();
    let found = findings.iter().find(|found| found["rule"] == rule);
    lines(found.unwrap_or_else(|| panic!("{:?}: {json:#}", options.faults)))
}

fn lines(finding: &Value) -> String {
    let lines = finding["curl"].as_array().unwrap().iter();
    let lines: Vec<&str> = lines.map(|line| line.as_str().unwrap()).collect();
    lines.join("\n")
}

fn pasted(script: &str) -> String {
    let output = Command::new("sh").arg("-c").arg(script).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn the_commands_of_a_finding_have_the_effects_that_the_checker_counted() {
    for some in FINDINGS.chunks(6) {
        thread::scope(|scope| {
            for finding in some {
                scope.spawn(|| have_the_effects(finding));
            }
        });
    }
}

/// A flaw that shows in what is answered, and the statuses that the commands print.
type Shown = (Flaw, Fault, &'static str, &'static [&'static str]);

const SHOWN: &[Shown] = &[
    (
        Flaw::SharesKeysBetweenCallers,
        Fault::OtherCaller,
        "callers-are-apart",
        &["201", "201"],
    ),
    (
        Flaw::SharesKeysBetweenPaths,
        Fault::OtherPath,
        "paths-are-apart",
        &["201", "201"],
    ),
    (
        Flaw::ReplaysForOtherPayloads,
        Fault::OtherPayload,
        "mismatch-is-refused",
        &["201", "201"],
    ),
    (
        Flaw::NeedsNoKey,
        Fault::NoKey,
        "missing-key-is-refused",
        &["201"],
    ),
    (
        Flaw::TakesAnyKey,
        Fault::BadKey,
        "bad-key-is-refused",
        &["201"],
    ),
    (
        Flaw::LocksTheKey,
        Fault::LoseReply,
        "repeat-gets-result",
        &["409"],
    ),
    (
        Flaw::KeepsTheKeyOfHalfARequest,
        Fault::CutBody,
        "incomplete-uses-no-key",
        &["409"],
    ),
];

fn have_the_answers((flaw, fault, rule, statuses): &Shown) {
    let server = Server::start(*flaw, Duration::from_millis(100));
    let mut options = Options::new(format!("{}/orders", server.url), 5);
    options.faults = vec![*fault];
    options.count_with = Some(format!("{}/count", server.url));
    options.requires_key = true;
    let script = script_of(&options, rule);
    let text = pasted(&script);
    let shown: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("HTTP/1.1 "))
        .filter_map(|line| line.split(' ').next())
        .collect();
    assert_eq!(shown, *statuses, "{fault:?}:\n{script}\n{text}");
    // Two successes under one key are one answer, given to whom it is not for.
    let orders: Vec<&str> = text
        .lines()
        .filter(|line| line.contains("\"id\""))
        .collect();
    let is_one = orders.windows(2).all(|pair| pair[0] == pair[1]);
    assert!(is_one, "{fault:?}:\n{script}\n{text}");
}

#[test]
fn the_commands_of_a_finding_about_answers_have_those_answers() {
    thread::scope(|scope| {
        for shown in SHOWN {
            scope.spawn(|| have_the_answers(shown));
        }
    });
}

#[tokio::test]
async fn a_key_that_a_target_remembers_is_fresh_every_time_the_commands_are_pasted() {
    let server = Server::start(Flaw::ReplaysAnotherStatus, Duration::ZERO);
    let mut options = Options::new(format!("{}/orders", server.url), 5);
    options.faults = vec![Fault::ReplayFidelity];
    let report = check(&options, &|_| {}).await.unwrap();
    let json: Value = serde_json::from_str(&report.to_json()).unwrap();
    let script = lines(&json["findings"][0]);
    for _ in 0..2 {
        let text = pasted(&script);
        let statuses: Vec<&str> = text
            .lines()
            .filter(|line| line.contains("HTTP/1.1"))
            .collect();
        assert_eq!(statuses, ["HTTP/1.1 201 X", "HTTP/1.1 200 X"], "{text}");
    }
}
