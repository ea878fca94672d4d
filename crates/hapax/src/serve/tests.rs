//! The whole gateway in a simulated world: real hyper, the real layer, the gateway's own handling of connections, one to
//! three of them over one simulated store, with partitions, held and lost messages, cut connections and crashes.
//!
//! Everything follows from a seed. `HAPAX_CAMPAIGN=n` runs n times as many; a failing run prints its seed, and
//! `HAPAX_SEED=n cargo nextest run -p hapax -E 'test(/^serve::tests/)' --no-capture` repeats it alone and prints its
//! history. Exactly so where each test has a process of its own, as under nextest: tokio counts tasks by process, and their
//! numbers decide in which order those of a crashed host go.

mod client;
mod evidence;
mod network;
mod random;
mod store;
mod trouble;
mod upstream;
mod world;

use std::collections::BTreeMap;

use hapax_check::evidence::{Counts, Event, Guarantee};

use store::Flaw;
use world::{Run, Wrong, broken, run};

/// Runs of every test run, spread over tests that run side by side.
const RUNS: u64 = 2_000;
const TESTS: u64 = 4;
/// A control that is not caught in so many runs is not caught.
const CONTROL_RUNS: u64 = 1_000;

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// What happened in many runs.
#[derive(Debug, Default)]
struct Tally {
    runs: u64,
    counts: Counts,
    in_progress: u64,
    /// Runs with no fault, one, two, and a storm of them.
    weather: [u64; 4],
    /// Attempts in runs that were no storm, their final answers, and what nobody knows the outcome of.
    calmer: [u64; 3],
    faults: BTreeMap<String, u64>,
    checked: BTreeMap<u8, u64>,
}

impl Tally {
    fn add(&mut self, run: &Run) {
        let counts = &run.verdict.counts;
        self.runs += 1;
        self.counts.attempts += counts.attempts;
        self.counts.ok += counts.ok;
        self.counts.replayed += counts.replayed;
        self.counts.fail += counts.fail;
        self.counts.info += counts.info;
        self.counts.effects += counts.effects;
        self.counts.records += counts.records;
        self.in_progress += run.in_progress;
        let weather = match (run.weather.is_storm, run.weather.faults) {
            (false, faults) => usize::try_from(faults).unwrap(),
            (true, _) => 3,
        };
        self.weather[weather] += 1;
        if weather < 3 {
            for (sum, count) in
                self.calmer
                    .iter_mut()
                    .zip([counts.attempts, counts.ok, counts.info])
            {
                *sum += count;
            }
        }
        for event in &run.history.events {
            if let Event::Fault { fault, .. }
            | Event::Invoke {
                fault: Some(fault), ..
            } = event
            {
                *self.faults.entry(fault.clone()).or_default() += 1;
            }
        }
        for guarantee in Guarantee::ALL {
            let checked = run.verdict.tally(guarantee).checked;
            *self.checked.entry(guarantee.number()).or_default() += checked;
        }
    }

    /// Against vacuous runs: of everything that makes a run interesting there was enough.
    fn is_enough(&self) {
        let (runs, counts) = (self.runs, &self.counts);
        for (what, least) in [
            (counts.attempts, runs * 8),
            (counts.ok, counts.attempts / 2),
            (self.calmer[1], self.calmer[0] / 2),
            (self.weather[0], runs / 10),
            (self.weather[1], runs / 4),
            (self.weather[2], runs / 4),
            (self.weather[3], runs / 10),
            (counts.replayed, runs * 2),
            (counts.info, runs / 4),
            (counts.effects, runs),
            (self.in_progress, runs / 20),
        ] {
            assert!(what >= least, "too little happened: {self:?}");
        }
        for fault in [
            "client-leaves",
            "client-resets",
            "cut",
            "hold",
            "kill-9",
            "loss",
            "partition",
            "partition-one-way",
            "power-cut",
            "reset",
            "store-down",
            "store-loses",
            "store-restarts",
            "store-slow",
            "upstream-breaks",
            "upstream-cuts",
            "upstream-fails",
            "upstream-slow",
        ] {
            let times = self.faults.get(fault).copied().unwrap_or_default();
            assert!(times >= runs / 50, "{fault} fired {times} times: {self:?}");
        }
        for number in [1, 2, 3, 4, 5, 6, 7, 9, 10, 16] {
            let checked = self.checked[&number];
            assert!(
                checked >= runs / 25,
                "G{number} was not looked at: {self:?}"
            );
        }
    }
}

fn print(run: &Run) {
    for event in &run.history.events {
        println!("{event:?}");
    }
    for effect in &run.effects.effects {
        println!("{effect:?}");
    }
    println!("{}", run.verdict);
}

/// Runs a part of the seeds; each must keep every guarantee.
fn keeps_every_guarantee(part: u64) {
    if let Some(seed) = from_environment("HAPAX_SEED") {
        let run = run(seed, Wrong::Nothing);
        print(&run);
        assert!(run.verdict.is_upheld(), "HAPAX_SEED={seed}");
        return;
    }
    let runs = RUNS / TESTS * from_environment("HAPAX_CAMPAIGN").unwrap_or(1);
    let mut tally = Tally::default();
    for seed in (0..runs).map(|number| TESTS * number + part) {
        let run = run(seed, Wrong::Nothing);
        if !run.verdict.is_upheld() {
            print(&run);
            panic!("HAPAX_SEED={seed} repeats it:\n{}", run.verdict);
        }
        tally.add(&run);
    }
    println!("0 violations in {tally:?}");
    tally.is_enough();
}

#[test]
fn no_simulated_run_breaks_a_guarantee_first_quarter() {
    keeps_every_guarantee(0);
}

#[test]
fn no_simulated_run_breaks_a_guarantee_second_quarter() {
    keeps_every_guarantee(1);
}

#[test]
fn no_simulated_run_breaks_a_guarantee_third_quarter() {
    keeps_every_guarantee(2);
}

#[test]
fn no_simulated_run_breaks_a_guarantee_last_quarter() {
    keeps_every_guarantee(3);
}

#[test]
fn a_seed_repeats_its_run_event_by_event() {
    for seed in 0..12 {
        let (one, other) = (run(seed, Wrong::Nothing), run(seed, Wrong::Nothing));
        assert_eq!(one.effects, other.effects, "seed {seed}");
        for (one, other) in one.history.events.iter().zip(&other.history.events) {
            assert_eq!(one, other, "seed {seed}");
        }
        assert_eq!(one.history.events.len(), other.history.events.len());
    }
}

/// Runs with something wrong on purpose until the judge says `expected`.
fn check_caught(wrong: Wrong, expected: Guarantee) {
    let is_caught = |seed: &u64| broken(&run(*seed, wrong)).contains(&expected);
    let caught = (0..CONTROL_RUNS).find(is_caught);
    assert!(
        caught.is_some(),
        "{wrong:?} is not caught by {expected} in {CONTROL_RUNS} runs"
    );
    println!("{wrong:?} is caught by {expected} with seed {caught:?}");
}

#[test]
fn a_route_that_sends_unknown_operations_again_is_caught() {
    check_caught(Wrong::Resends, Guarantee::OneEffect);
}

#[test]
fn a_layer_that_claims_nothing_is_caught() {
    check_caught(Wrong::ClaimsNothing, Guarantee::OneEffect);
}

#[test]
fn gateways_with_a_store_each_are_caught() {
    check_caught(Wrong::StoresApart, Guarantee::OneEffect);
}

#[test]
fn a_store_whose_claims_do_not_look_is_caught() {
    check_caught(
        Wrong::Store(Flaw::ClaimsWithoutLooking),
        Guarantee::OneEffect,
    );
}

#[test]
fn a_store_that_does_not_sync_is_caught() {
    check_caught(Wrong::Store(Flaw::DoesNotSync), Guarantee::NoLoss);
}
