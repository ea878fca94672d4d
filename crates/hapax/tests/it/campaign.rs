//! The short form of live campaigns: every fault once, on each store, and controls that must be caught.

use std::path::Path;
use std::time::Duration;

use hapax_check::campaign::{self, Control, Options, Store, Totals};

/// Enough for every fault to have its turn.
const EMBEDDED_ROUNDS: u64 = 3;
const POSTGRES_ROUNDS: u64 = 2;

fn play(store: Store, rounds: u64, control: Option<Control>) -> (Options, Totals) {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let seed = std::env::var("HAPAX_SEED").ok();
    let options = Options {
        hapax: Path::new(env!("CARGO_BIN_EXE_hapax")).to_path_buf(),
        store,
        time: Duration::from_secs(3600),
        rounds,
        only_round: None,
        clients: 16,
        seed: seed.and_then(|text| text.parse().ok()).unwrap_or(7),
        state: folder.path().to_path_buf(),
        control,
        keep: false,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let totals = runtime.block_on(campaign::run(&options, &|totals| eprintln!("{totals}")));
    let totals = totals.expect("it runs");
    if totals.violated() > 0 && control.is_none() {
        // What it was judged by is worth more than a clean temporary directory.
        eprintln!("its files are in {}", folder.keep().display());
    }
    (options, totals)
}

fn holds(store: Store, rounds: u64) {
    let (options, totals) = play(store, rounds, None);
    assert_eq!(
        totals.findings,
        Vec::<String>::new(),
        "seed {}",
        options.seed
    );
    let (faults, left_out) = campaign::faults(&options);
    for reason in left_out {
        let is_allowed = reason.contains("needs root") && std::env::var_os("CI").is_none();
        assert!(is_allowed, "{reason}");
        eprintln!("skipped: {reason}");
    }
    assert_eq!(totals.shortcomings(&faults), Vec::<String>::new());
    assert!(
        totals.short_rounds > 0,
        "in no round did a record expire: {totals:?}"
    );
}

fn is_caught(control: Control) {
    let (_, totals) = play(Store::Embedded, 2, Some(control));
    assert!(totals.is_caught(), "{totals}");
    for guarantee in totals.violations.keys() {
        assert!(guarantee.starts_with('G'), "{:?}", totals.findings);
    }
    assert!(totals.violations.contains_key("G1"), "{totals:?}");
}

#[test]
fn a_short_campaign_on_the_embedded_store_breaks_no_guarantee() {
    holds(Store::Embedded, EMBEDDED_ROUNDS);
}

#[test]
fn a_short_campaign_on_three_gateways_over_postgresql_breaks_no_guarantee() {
    holds(Store::Postgres, POSTGRES_ROUNDS);
}

#[test]
fn control_a_campaign_catches_a_store_in_memory() {
    is_caught(Control::Memory);
}

#[test]
fn control_a_campaign_catches_a_route_that_sends_again() {
    is_caught(Control::Resend);
}

#[test]
fn control_a_campaign_catches_records_that_expire_early() {
    is_caught(Control::Early);
}
