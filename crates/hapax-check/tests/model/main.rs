//! The rules themselves, checked in every order of things: the whole space of the safe policies holds, and each unsafe
//! one is refuted by an example.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    reason = "all of it is a test: what does not fit ends it"
)]

mod gateway;

use stateright::{Checker, HasDiscoveries, Model};

use gateway::{Gateways, OnUnknown, Policy, Proof};

const REFUSE: Policy = Policy {
    runs_lapsed_again: false,
    on_unknown: OnUnknown::Refuse,
    compares_claims: true,
};

const SAFE: [(&str, Policy); 3] = [
    ("refuse", REFUSE),
    ("probe with a fence", probe(Proof::Fence)),
    ("probe after quiescence", probe(Proof::Quiescence)),
];

const fn probe(proof: Proof) -> Policy {
    Policy {
        on_unknown: OnUnknown::Probe(proof),
        ..REFUSE
    }
}

fn gateways(
    policy: Policy,
    (nodes, keys): (usize, usize),
    (attempts, crashes): (u8, u8),
) -> Gateways {
    Gateways {
        policy,
        nodes,
        keys,
        attempts,
        crashes,
    }
}

/// Goes through every state that can be reached, and says how many there are.
fn check_holds(name: &str, model: Gateways) {
    let about = format!(
        "{name}: {} nodes, {} keys, {} attempts, {} crashes",
        model.nodes, model.keys, model.attempts, model.crashes
    );
    let checker = model.checker().spawn_bfs().join();
    println!(
        "{about}: {} states, {} steps deep, all hold",
        checker.unique_state_count(),
        checker.max_depth()
    );
    assert!(checker.is_done(), "{about}: not all of it was seen");
    checker.assert_properties();
}

/// Finds the shortest way to break `property`.
fn check_refuted(name: &str, policy: Policy, property: &'static str) {
    let model = gateways(policy, (2, 1), (3, 1));
    let checker = model.checker();
    let until = HasDiscoveries::AnyOf([property].into());
    let checker = checker.finish_when(until).spawn_bfs().join();
    let is_kept = checker.model().property(property).condition;
    let path = checker.discovery(property);
    let path = path.unwrap_or_else(|| panic!("{name}: {property} holds"));
    println!(
        "{name} breaks {property}, in {} states:",
        checker.unique_state_count()
    );
    for (world, action) in path.into_vec() {
        // The checker goes a little beyond what it was looking for.
        if !is_kept(checker.model(), &world) {
            println!("    {world:?}");
            return;
        }
        println!(
            "    {}",
            action.map_or_else(String::new, |action| format!("{action:?}"))
        );
    }
    panic!("{name}: the example does not break {property}");
}

#[test]
fn two_nodes_and_one_key_keep_every_safe_policy() {
    for (name, policy) in SAFE {
        check_holds(name, gateways(policy, (2, 1), (4, 2)));
    }
}

#[test]
fn three_nodes_and_one_key_keep_every_safe_policy() {
    for (name, policy) in SAFE {
        check_holds(name, gateways(policy, (3, 1), (3, 1)));
    }
}

#[test]
fn two_nodes_and_two_keys_keep_every_safe_policy() {
    for (name, policy) in SAFE {
        check_holds(name, gateways(policy, (2, 2), (3, 1)));
    }
}

#[test]
fn a_lapsed_lease_that_is_run_again_is_refuted() {
    let policy = Policy {
        runs_lapsed_again: true,
        ..REFUSE
    };
    check_refuted("running lapsed claims again", policy, "one effect");
}

#[test]
fn a_write_that_does_not_compare_the_claim_is_refuted() {
    for (name, safe) in [SAFE[1], SAFE[2]] {
        let policy = Policy {
            compares_claims: false,
            ..safe
        };
        let name = format!("{name}, without comparing claims");
        check_refuted(&name, policy, "no loss");
        check_refuted(&name, policy, "one effect");
    }
}

#[test]
fn a_probe_without_fence_or_quiescence_is_refuted() {
    check_refuted("probing without a fence", probe(Proof::None), "one effect");
}
