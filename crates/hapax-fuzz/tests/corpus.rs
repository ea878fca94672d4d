//! Every target over its corpus, and over mutations of it: the same ones every time, others with `HAPAX_SEED`, more of
//! them with `HAPAX_CAMPAIGN`.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "all of it is tests"
)]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use hapax_fuzz::{Mutator, TARGETS, Target};

/// What an environment variable says.
fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn files(folder: &Path, ending: &str) -> Vec<Vec<u8>> {
    let entries =
        std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    // The order of a directory is no order, and mutations depend on it.
    paths.sort();
    let fit = paths
        .iter()
        .filter(|path| path.to_string_lossy().ends_with(ending));
    fit.map(|path| std::fs::read(path).expect("a file"))
        .collect()
}

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut inputs = files(&here.join("corpus").join(name), "");
    if name == "config" {
        inputs.extend(files(&here.join("../hapax/src/config/testdata"), ".toml"));
    }
    assert!(inputs.len() >= 8, "{name}: {} inputs", inputs.len());
    inputs
}

/// Runs a target; what it broke on, if it did.
fn broken(target: &Target, inputs: &[Vec<u8>], seed: u64, mutations: usize) -> Option<String> {
    let mut mutator = Mutator::new(seed, target.words);
    let mutated = (0..mutations).map(|_| mutator.mutate(inputs));
    for (number, input) in inputs.iter().cloned().chain(mutated).enumerate() {
        if catch_unwind(AssertUnwindSafe(|| (target.run)(&input))).is_err() {
            let name = target.name;
            return Some(format!(
                "{name} does not hold for input {number} of HAPAX_SEED={seed}: {:?}",
                input.escape_ascii().to_string()
            ));
        }
    }
    None
}

fn check(name: &str) {
    let target = TARGETS
        .iter()
        .find(|target| target.name == name)
        .expect("a target");
    let inputs = corpus(name);
    let seed = number("HAPAX_SEED").unwrap_or(1);
    let more = usize::try_from(number("HAPAX_CAMPAIGN").unwrap_or(1)).expect("a count");
    let mutations = target.mutations * more;
    if let Some(told) = broken(target, &inputs, seed, mutations) {
        panic!("{told}");
    }
    eprintln!("{name}: {} inputs and {mutations} mutations", inputs.len());
}

#[test]
fn a_key_is_read_as_the_standard_says_or_refused() {
    check("key");
}

#[test]
fn equal_values_have_equal_canonical_forms() {
    check("canonical");
}

#[test]
fn a_record_comes_back_as_it_was_written_or_as_an_error() {
    check("codec");
}

#[test]
fn a_replay_has_no_field_of_another_moment_connection_or_caller() {
    check("fields");
}

#[test]
fn what_passes_the_framing_has_one_reading() {
    check("framing");
}

#[test]
fn a_faulty_configuration_is_refused_at_a_place_that_it_has() {
    check("config");
}

#[test]
fn what_an_operator_writes_is_never_our_fault() {
    check("admin");
}

#[test]
fn every_target_has_a_test_here_and_a_program_in_fuzz() {
    let here = include_str!("corpus.rs");
    let programs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/fuzz_targets");
    for target in TARGETS {
        let name = target.name;
        assert!(
            here.contains(&format!("check(\"{name}\")")),
            "{name}: no test"
        );
        let program = std::fs::read_to_string(programs.join(format!("{name}.rs")));
        let program = program.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(
            program.contains(&format!("hapax_fuzz::{name}(")),
            "{name}: {program}"
        );
    }
}

/// The control: mutations reach what no input of the corpus has, and a property that does not hold is told with its input.
#[test]
fn a_target_that_does_not_hold_is_told_with_the_input_that_broke_it() {
    fn no_seven(data: &[u8]) {
        assert!(
            !data.windows(2).any(|pair| pair == b"77"),
            "a pair of sevens"
        );
    }
    let target = Target {
        name: "no-seven",
        run: no_seven,
        words: &["7"],
        mutations: 0,
    };
    let inputs = [b"no such digit".to_vec()];
    assert_eq!(broken(&target, &inputs, 1, 0), None);
    let told = broken(&target, &inputs, 1, 20_000).expect("it is found");
    assert!(
        told.contains("77") && told.contains("HAPAX_SEED=1"),
        "{told}"
    );
}
