//! The rules of the tree, on the tree.
#![allow(clippy::expect_used, clippy::panic, reason = "all of it is tests")]

use std::process::Command;

use hapax_core::problem::ProblemKind;
use tidy::source::Source;
use tidy::tree::{File, files, root};
use tidy::{docs, homes, map, packages, style};

fn read(endings: &[&str]) -> Vec<File> {
    let found = files(&root(), endings).expect("the tree can be read");
    assert!(
        !found.is_empty(),
        "no file ends in {endings:?}: the checks would see nothing"
    );
    found
}

fn document(path: &str) -> File {
    let text = std::fs::read_to_string(root().join(path));
    File::new(
        path,
        &text.unwrap_or_else(|error| panic!("{path}: {error}")),
    )
}

fn cargo(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO"))
        .args(arguments)
        .current_dir(root())
        .output()
        .expect("cargo can be started");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("text")
}

#[track_caller]
fn none(findings: impl IntoIterator<Item = String>) {
    let findings: Vec<String> = findings.into_iter().collect();
    assert!(findings.is_empty(), "\n{}\n", findings.join("\n"));
}

/// `check` finds nothing in any Rust file.
#[track_caller]
fn no_source(check: impl Fn(&Source) -> Vec<String>) {
    none(
        read(&[".rs"])
            .iter()
            .flat_map(|file| check(&Source::parse(file))),
    );
}

#[test]
fn crates_depend_only_on_what_the_architecture_allows() {
    let metadata = cargo(&["metadata", "--locked", "--no-deps", "--format-version", "1"]);
    none(packages::dependencies(
        &serde_json::from_str(&metadata).expect("JSON"),
    ));
}

#[test]
fn the_product_has_no_feature_that_is_for_tests() {
    let product = cargo(&[
        "tree",
        "--locked",
        "--package",
        "hapax",
        "--edges",
        "features,no-dev",
    ]);
    assert!(
        product.contains("hapax-store feature"),
        "the check would see nothing:\n{product}"
    );
    none(packages::test_features(&product));
    // The control: where the feature is on, the same check sees it.
    let tests = cargo(&[
        "tree",
        "--locked",
        "--package",
        "hapax-store",
        "--edges",
        "features",
    ]);
    assert!(!packages::test_features(&tests).is_empty(), "{tests}");
}

#[test]
fn every_crate_takes_over_the_lints() {
    none(
        read(&["Cargo.toml"])
            .iter()
            .filter_map(|file| packages::lints(&file.path, &file.text)),
    );
}

#[test]
fn no_file_is_too_long() {
    let files = read(&[".rs"]);
    none(
        files
            .iter()
            .filter_map(style::sizes)
            .chain(style::stale_exceptions(&files)),
    );
}

#[test]
fn no_code_is_unfinished_ignored_or_sleeping() {
    none(read(&[".rs"]).iter().flat_map(style::unfinished));
}

#[test]
fn no_file_has_notes_to_nobody() {
    none(
        read(&[".rs", ".md", ".toml", "scripts/test"])
            .iter()
            .flat_map(style::notes),
    );
}

#[test]
fn statuses_are_chosen_in_one_place() {
    no_source(homes::statuses);
    let stale = homes::STATUS_EXCEPTIONS
        .iter()
        .filter(|(path, _)| !root().join(path).exists());
    none(stale.map(|(path, _)| format!("{path} is an exception and does not exist")));
}

#[test]
fn metrics_are_named_in_one_place() {
    no_source(homes::metric_names);
}

#[test]
fn only_an_attempt_asks_for_the_decision() {
    no_source(homes::decisions);
}

#[test]
fn clocks_are_read_in_one_place() {
    no_source(homes::clocks);
}

#[test]
fn the_core_is_not_asynchronous() {
    no_source(homes::asynchronous_core);
}

#[test]
fn every_link_leads_somewhere() {
    let target = |path: &str| {
        let path = root().join(path);
        // A folder and a picture have no text, and no anchors in it.
        let is_there = path.exists();
        std::fs::read_to_string(path)
            .ok()
            .or_else(|| is_there.then(String::new))
    };
    none(
        read(&[".md"])
            .iter()
            .flat_map(|file| docs::links(file, target)),
    );
}

#[test]
fn every_path_in_a_document_exists() {
    let exists = |path: &str| root().join(path).exists();
    none(
        read(&[".md"])
            .iter()
            .flat_map(|file| docs::paths(file, exists)),
    );
}

#[test]
fn every_test_in_a_document_exists() {
    let code: String = read(&[".rs"]).into_iter().map(|file| file.text).collect();
    none(
        read(&[".md"])
            .iter()
            .flat_map(|file| docs::tests(file, &code)),
    );
}

#[test]
fn every_problem_is_documented_with_its_status_and_advice() {
    let rows: Vec<String> = ProblemKind::ALL
        .into_iter()
        .map(|kind| {
            let is_retryable = if kind.is_retryable() { "yes" } else { "no" };
            format!(
                "| `{}` | {} | {is_retryable} |",
                kind.fragment(),
                kind.status().as_u16()
            )
        })
        .collect();
    let problems = document("docs/problems.md");
    none(docs::rows(&problems, &rows));
    let documented = problems
        .text
        .lines()
        .filter(|line| line.starts_with("| `"))
        .count();
    assert_eq!(
        documented,
        rows.len(),
        "a documented problem no longer exists"
    );
}

#[test]
fn every_metric_is_documented_and_no_other() {
    let telemetry = document("crates/hapax/src/telemetry.rs");
    none(docs::metrics(&document("docs/metrics.md"), &telemetry.text));
}

/// With `HAPAX_BLESS` set, writes the map instead.
#[test]
fn the_code_map_is_that_of_the_tree() {
    let files = read(&[".rs"]);
    none(map::speechless(&files));
    let architecture = document("ARCHITECTURE.md");
    let fresh =
        map::with_map(&architecture.text, &map::code_map(&files)).expect("marks for the map");
    if std::env::var_os("HAPAX_BLESS").is_some() {
        std::fs::write(root().join("ARCHITECTURE.md"), &fresh).expect("it can be written");
    }
    let is_fresh = document("ARCHITECTURE.md").text == fresh;
    assert!(is_fresh, "run HAPAX_BLESS=1 cargo test -p tidy");
}
