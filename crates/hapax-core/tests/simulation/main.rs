//! Many seeded histories of one key under a faulty store, crashes, frozen holders and an
//! upstream that fails around its effect; and controls that must be caught.
//!
//! `HAPAX_CAMPAIGN=n` runs n times as many. A failure prints its seed, and
//! `HAPAX_SEED=n cargo nextest run -p hapax-core --test simulation` repeats it alone.

mod judge;
mod random;
mod setting;
mod store;
mod upstream;
mod world;

use judge::Rule;
use setting::Fault;
use store::Flaw;
use world::{Tally, World};

/// Histories of a normal run, spread over the tests so that they run side by side.
const HISTORIES: u64 = 2_000_000;
/// A control that is not caught in so many histories is not caught.
const CONTROL_HISTORIES: u64 = 20_000;

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Runs the histories of a part of the seeds and adds up what was in them.
fn check_all(part: u64) {
    if let Some(seed) = from_environment("HAPAX_SEED") {
        let result = World::new().run_traced(seed, Fault::None);
        assert!(result.is_ok(), "seed {seed}: {result:?}");
        return;
    }
    let count = HISTORIES / 2 * from_environment("HAPAX_CAMPAIGN").unwrap_or(1);
    let mut sum = Tally::default();
    let mut world = World::new();
    for seed in (0..count).map(|number| 2 * number + part) {
        let result = world.run(seed, Fault::None);
        let broken = result
            .as_ref()
            .err()
            .map(|broken| (broken.rule, broken.what));
        assert_eq!(broken, None, "HAPAX_SEED={seed} repeats it");
        let tally = result.unwrap_or_default();
        sum.steps += tally.steps;
        sum.calls += tally.calls;
        sum.effects += tally.effects;
        sum.faults += tally.faults;
        sum.unknown += tally.unknown;
        sum.recorded += tally.recorded;
        sum.unrecorded += tally.unrecorded;
        sum.resolved += tally.resolved;
        sum.probed_happened += tally.probed_happened;
        sum.probed_absent += tally.probed_absent;
        sum.restarts += tally.restarts;
        sum.expired += tally.expired;
        sum.observed += tally.observed;
    }
    #[allow(clippy::print_stdout, reason = "N beside every zero")]
    {
        println!("{count} histories, 0 violations: {sum:?}");
    }
    // Against vacuous runs: of everything that makes a history interesting there was enough.
    for (what, least) in [
        (sum.calls, count / 2),
        (sum.effects, count / 3),
        (sum.faults, count / 4),
        (sum.recorded, count / 4),
        (sum.unknown, count / 50),
        (sum.unrecorded, count / 2000),
        (sum.resolved, count / 100),
        (sum.probed_happened, count / 100),
        (sum.probed_absent, count / 500),
        (sum.restarts, count / 20),
        (sum.expired, count / 50),
        (sum.observed, count / 20),
    ] {
        assert!(what >= least, "too little happened: {sum:?}");
    }
}

#[test]
fn no_history_breaks_a_guarantee_even_seeds() {
    check_all(0);
}

#[test]
fn no_history_breaks_a_guarantee_odd_seeds() {
    check_all(1);
}

/// Runs histories with something broken on purpose until the judge says `expected`; what else
/// it says on the way only shows that the fault has more than one face.
fn check_caught(fault: Fault, expected: Rule) {
    let mut world = World::new();
    let is_caught = |seed: &u64| {
        let result = world.run(*seed, fault);
        result.is_err_and(|violation| violation.rule == expected)
    };
    let caught = (0..CONTROL_HISTORIES).find(is_caught);
    assert!(
        caught.is_some(),
        "{fault:?} is not caught by {expected:?} in {CONTROL_HISTORIES} histories"
    );
}

#[test]
fn a_store_that_does_not_compare_before_it_swaps_is_caught() {
    for rule in [Rule::NoLoss, Rule::OneEffect] {
        check_caught(Fault::Store(Flaw::ReplaceIgnoresExpected), rule);
    }
}

#[test]
fn a_store_that_removes_whatever_is_there_is_caught() {
    check_caught(Fault::Store(Flaw::RemoveIgnoresExpected), Rule::OneEffect);
}

#[test]
fn a_store_whose_claim_overwrites_is_caught() {
    check_caught(Fault::Store(Flaw::InsertOverwrites), Rule::OneEffect);
}

#[test]
fn a_settled_record_that_keeps_its_claim_id_is_caught() {
    check_caught(Fault::Store(Flaw::SealIsNotRotated), Rule::NoLoss);
}

#[test]
fn a_lease_that_frees_the_key_is_caught() {
    check_caught(Fault::Store(Flaw::LapsedIsVacant), Rule::OneEffect);
}

#[test]
fn a_store_that_forgets_what_it_acknowledged_is_caught() {
    check_caught(Fault::Store(Flaw::SettlementIsForgotten), Rule::NoLoss);
    check_caught(Fault::Store(Flaw::ClaimIsForgotten), Rule::ClaimFirst);
}

#[test]
fn a_transport_that_sends_twice_is_caught() {
    check_caught(Fault::SentTwice, Rule::OneEffect);
}

#[test]
fn a_route_that_sends_unknown_operations_again_is_caught() {
    check_caught(Fault::Resends, Rule::OneEffect);
}

#[test]
fn a_route_that_fails_open_is_caught() {
    check_caught(Fault::FailsOpen, Rule::ClaimFirst);
}

#[test]
fn a_probe_that_frees_the_key_while_the_first_request_may_be_on_its_way_is_caught() {
    check_caught(Fault::ProbesWithoutFence, Rule::OneEffect);
}

#[test]
fn a_restart_that_frees_keys_is_caught() {
    check_caught(Fault::Store(Flaw::RestartFreesClaims), Rule::OneEffect);
}

#[test]
fn a_sweep_of_unsettled_records_is_caught() {
    check_caught(Fault::Store(Flaw::SweepsUnsettled), Rule::OneEffect);
}

#[test]
fn a_route_that_observes_and_refuses_is_caught() {
    check_caught(Fault::Enforces, Rule::Observing);
}
