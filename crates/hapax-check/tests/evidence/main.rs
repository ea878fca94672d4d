//! The judge of evidence, judged: good histories pass, and every way of corrupting one is caught by its name.
//!
//! `HAPAX_SEED=n` makes the first history that of this seed.

#![allow(
    clippy::cast_possible_truncation,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "all of it is a test: what does not fit ends it"
)]

mod corrupt;
mod corruptions;
mod good;
mod once;
mod random;

use std::collections::BTreeSet;

use good::Run;
use hapax_check::evidence::{Event, Guarantee, History, judge};
use proptest::prelude::*;

use corrupt::Corruption;
use corruptions::CORRUPTIONS;

/// The first seed of a test that tries many.
fn first_seed() -> u64 {
    let seed = std::env::var("HAPAX_SEED").ok();
    seed.and_then(|seed| seed.parse().ok()).unwrap_or(1)
}

fn check_upheld(run: &Run, seed: u64) {
    let verdict = judge(&run.history, &run.effects, &run.expect);
    assert!(verdict.is_upheld(), "HAPAX_SEED={seed}:\n{verdict}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn good_histories_pass(seed in any::<u64>(), records in 1_u64..60) {
        check_upheld(&Run::good(seed, records), seed);
    }

    #[test]
    fn the_clock_of_the_effects_may_be_off_by_its_slack(seed in any::<u64>(), slack_us in 0_u64..500, is_ahead: bool) {
        let mut run = Run::good(seed, 30);
        run.expect.clock_slack = std::time::Duration::from_micros(slack_us);
        for effect in &mut run.effects.effects {
            effect.at_us = if is_ahead { effect.at_us + slack_us } else { effect.at_us - slack_us };
        }
        check_upheld(&run, seed);
    }
}

#[test]
fn a_good_history_shows_something_of_every_guarantee() {
    let run = Run::good(first_seed(), 400);
    let verdict = judge(&run.history, &run.effects, &run.expect);
    assert!(verdict.is_upheld(), "{verdict}");
    for guarantee in Guarantee::ALL {
        assert!(
            verdict.tally(guarantee).checked > 0,
            "{guarantee}\n{verdict}"
        );
    }
}

#[test]
fn a_history_survives_its_file() {
    let run = Run::good(first_seed(), 50);
    let (mut history, mut effects) = (Vec::new(), Vec::new());
    run.history.write(&mut history).unwrap();
    run.effects.write(&mut effects).unwrap();
    let read = History::read(&history[..]).unwrap();
    assert_eq!(read, run.history);
    let effects = hapax_check::evidence::Effects::read(&effects[..]).unwrap();
    assert_eq!(effects, run.effects);
}

/// Applies a corruption to good histories of many seeds. Says where the judge does not name the guarantee that it
/// breaks, or names one that it has nothing to do with.
fn try_corruption(corruption: &Corruption, seen: &mut BTreeSet<&'static str>) -> Option<String> {
    const TIMES: u32 = 25;
    const SEEDS: u64 = 2_000;
    let (expected, besides) = (corruption.expected, corruption.besides);
    let mut applied = 0;
    for seed in first_seed()..first_seed() + SEEDS {
        let mut run = Run::good(seed, 60);
        if !corruption.apply(&mut run, seed) {
            continue;
        }
        let verdict = judge(&run.history, &run.effects, &run.expect);
        let broken = verdict.broken();
        let is_about = |named: &Guarantee| *named == expected || besides.contains(named);
        if !broken.contains(&expected) || !broken.iter().all(is_about) {
            let name = corruption.name;
            return Some(format!(
                "HAPAX_SEED={seed}: {name}, which breaks {expected}:\n{verdict}"
            ));
        }
        seen.extend(verdict.findings.iter().map(|finding| finding.what));
        applied += 1;
        if applied == TIMES {
            return None;
        }
    }
    Some(format!("{}: hardly ever applies", corruption.name))
}

#[test]
fn every_corruption_is_caught_and_named() {
    let mut seen = BTreeSet::new();
    let tries = CORRUPTIONS
        .iter()
        .map(|corruption| try_corruption(corruption, &mut seen));
    let uncaught: Vec<String> = tries.flatten().collect();
    assert!(uncaught.is_empty(), "{}", uncaught.join("\n"));
    assert!(CORRUPTIONS.len() >= 20);
    println!(
        "{} ways of corrupting a history, all caught",
        CORRUPTIONS.len()
    );
    for guarantee in Guarantee::ALL {
        let is_meant = |corruption: &Corruption| corruption.expected == guarantee;
        assert!(
            CORRUPTIONS.iter().any(is_meant),
            "nothing breaks {guarantee}"
        );
    }
    // Nothing that the judge can say is left untried.
    let unseen: Vec<&str> = sentences().filter(|what| !seen.contains(what)).collect();
    assert!(unseen.is_empty(), "no corruption shows {unseen:#?}");
}

/// Everything that the judge can find, from its source.
fn sentences() -> impl Iterator<Item = &'static str> {
    const SOURCES: [&str; 3] = [
        include_str!("../../src/evidence/ends.rs"),
        include_str!("../../src/evidence/mod.rs"),
        include_str!("../../src/evidence/record.rs"),
    ];
    let lines = SOURCES.iter().flat_map(|source| source.lines());
    let quoted = lines.filter_map(|line| line.trim().strip_prefix("let what = \""));
    quoted.filter_map(|line| line.strip_suffix("\";"))
}

#[test]
fn the_document_says_what_is_taken_for_evidence() {
    let document = include_str!("../../../../docs/proof.md");
    for guarantee in Guarantee::ALL {
        let (number, name) = (guarantee.number(), guarantee.name());
        let line = format!("| G{number} | {name} | {} |", guarantee.evidence());
        assert!(document.contains(&line), "docs/proof.md lacks {line}");
    }
}

#[test]
fn what_the_configuration_gives_up_is_not_judged() {
    let drop = CORRUPTIONS
        .iter()
        .find(|corruption| corruption.name == "an effect twice");
    let mut run = Run::good(first_seed(), 60);
    assert!(drop.unwrap().apply(&mut run, first_seed()));
    run.expect.given_up = [Guarantee::OneEffect].into();
    check_upheld(&run, first_seed());
}

/// Evidence that shows nothing is not taken for a proof.
#[test]
fn a_run_in_which_too_little_happened_is_not_upheld() {
    let run = Run::good(first_seed(), 60);
    let check_missed = |change: &dyn Fn(&mut Run), what: &str| {
        let mut run = run.clone();
        change(&mut run);
        let verdict = judge(&run.history, &run.effects, &run.expect);
        assert!(
            !verdict.is_upheld() && verdict.findings.is_empty(),
            "{what}:\n{verdict}"
        );
        assert!(
            verdict.missed.iter().any(|line| line.contains(what)),
            "{what}:\n{verdict}"
        );
    };
    check_missed(&|run| run.expect.floors.attempts = 1_000_000, "attempts");
    check_missed(&|run| run.expect.floors.replays = 1_000_000, "replays");
    check_missed(&|run| run.expect.floors.effects = 1_000_000, "effects");
    check_missed(&|run| run.expect.floors.ok_share = 0.999, "final answers");
    check_missed(
        &|run| {
            run.expect.floors.faults.insert("promotion".to_owned(), 1);
        },
        "fault promotion",
    );
    check_missed(
        &|run| {
            run.expect
                .floors
                .figures
                .insert("stale-writes".to_owned(), 1);
        },
        "figure stale-writes",
    );
    check_missed(
        &|run| {
            run.expect.bounds.insert("waiters".to_owned(), 1);
        },
        "measurements of waiters",
    );
}

#[test]
fn evidence_that_contradicts_itself_is_unfit() {
    let check_unfit = |change: &dyn Fn(&mut Vec<Event>), what: &str| {
        let mut run = Run::good(first_seed(), 20);
        change(&mut run.history.events);
        let verdict = judge(&run.history, &run.effects, &run.expect);
        assert!(
            verdict.unfit.iter().any(|line| line.contains(what)),
            "{what}:\n{verdict}"
        );
    };
    check_unfit(&|events| events.swap(0, 9), "the clock went back");
    check_unfit(
        &|events| {
            let end = events
                .iter()
                .find(|event| matches!(event, Event::Ok { .. }));
            let end = end.unwrap().clone();
            events.push(end);
        },
        "ends twice",
    );
    check_unfit(
        &|events| {
            let at = events
                .iter()
                .position(|event| matches!(event, Event::Invoke { .. }));
            events.remove(at.unwrap());
        },
        "never began",
    );
    check_unfit(
        &|events| {
            let begin = events
                .iter()
                .find(|event| matches!(event, Event::Invoke { .. }));
            let begin = begin.unwrap().clone();
            events.insert(1, begin);
        },
        "begins twice",
    );
}

/// Counts steps and comparisons instead of time: they do not depend on the machine.
#[test]
fn judging_takes_n_log_n_steps() {
    const SIZES: [u64; 4] = [250, 1_000, 4_000, 16_000];
    let check = |shape: &str, make: &dyn Fn(u64) -> Run| {
        let mut costs = Vec::new();
        for size in SIZES {
            let run = make(size);
            let events = run.history.events.len() + run.effects.effects.len();
            let verdict = judge(&run.history, &run.effects, &run.expect);
            assert!(verdict.findings.is_empty(), "{shape}:\n{verdict}");
            let n = events as f64;
            let cost = verdict.work as f64 / (n * n.log2());
            println!(
                "{shape}: {events} events and effects, {} steps, {cost:.2} n log n",
                verdict.work
            );
            costs.push(cost);
        }
        // Anything quadratic would be 64 times as much between the ends.
        let (least, most) = costs
            .iter()
            .fold((f64::MAX, 0.0_f64), |(least, most), cost| {
                (least.min(*cost), most.max(*cost))
            });
        assert!(most < 2.0 * least && most < 8.0, "{shape}: {costs:?}");
    };
    check("many records", &|size| Run::good(7, size));
    check("one record", &|size| Run::of_one_record(7, size));
    check("one record, many payloads", &|size| {
        Run::of_many_payloads(7, size)
    });
}
