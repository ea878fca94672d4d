//! The embedded store's log: what of it may be missing or torn, and what not.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use hapax_core::store::Store;
use hapax_store::conformance::sample;
use hapax_store::{EmbeddedStore, OpenError};

use crate::support::{START, answer, claim, complete, open, options, read};

const PAGE: u64 = 4096;

fn segments(store: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(store.join("log")).expect("a log");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let mut paths: Vec<PathBuf> = paths
        .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .collect();
    paths.sort_unstable();
    paths
}

/// A closed store with a memory of 16 KiB, so that much of it is in tables.
async fn make(path: &Path, numbers: std::ops::Range<u64>) {
    let mut options = options(&std::sync::Arc::new(hapax_store::ManualClock::new(START)));
    options.memtable_bytes = 16 << 10;
    let store = EmbeddedStore::open(path, options).expect("a store");
    for number in numbers {
        claim(&store, number).await;
        complete(&store, number).await;
    }
    store.close();
}

async fn check(path: &Path, numbers: std::ops::Range<u64>) {
    let store = open(path).expect("a whole store");
    for number in numbers {
        let held = read(&store, number).await;
        assert_eq!(held.expect("it is there").record, answer(number));
    }
}

fn overwrite(path: &Path, at: u64, bytes: &[u8]) {
    let file = fs::OpenOptions::new().write(true).open(path);
    let file = file.expect("a segment");
    file.write_all_at(bytes, at).expect("it fits");
}

fn is_damage(opened: &Result<EmbeddedStore, OpenError>) -> bool {
    matches!(opened, Err(OpenError::Damaged { .. }))
}

#[tokio::test]
async fn a_segment_that_is_missing_in_between_or_in_front_is_damage() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    // Each start goes on in a new segment.
    for part in 0..4 {
        let store = open(directory.path()).expect("a store");
        claim(&store, part).await;
        complete(&store, part).await;
        store.close();
    }
    let segments = segments(directory.path());
    assert!(segments.len() >= 4, "{segments:?}");
    for path in &segments[..3] {
        let away = directory.path().join("away");
        fs::rename(path, &away).expect("it moves");
        assert!(is_damage(&open(directory.path())), "without {path:?}");
        fs::rename(&away, path).expect("it moves");
    }
    check(directory.path(), 0..4).await;
}

#[tokio::test]
async fn a_batch_that_does_not_fit_with_whole_ones_behind_it_is_damage_whatever_the_witness_says() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let store = open(directory.path()).expect("a store");
    let witness = directory.path().join("WITNESS");
    let nothing = fs::read(&witness).expect("a witness");
    for number in 0..3 {
        claim(&store, number).await;
    }
    store.close();
    fs::write(&witness, nothing).expect("it fits");
    let segment = segments(directory.path()).remove(0);
    overwrite(&segment, 2 * PAGE + 100, &[0xff; 8]);
    assert!(is_damage(&open(directory.path())));
    // With nothing whole behind it, it is what a power cut leaves.
    overwrite(&segment, 3 * PAGE, &[0; 8]);
    let store = open(directory.path()).expect("a torn end that nobody was told of");
    assert!(read(&store, 0).await.is_some());
    for number in 1..3 {
        claim(&store, number).await;
    }
}

#[tokio::test]
async fn what_a_file_held_in_an_earlier_life_is_not_read() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    // Files are used again many times over, and each start reads the end of one that was.
    for part in 0..8 {
        make(directory.path(), 100 * part..100 * (part + 1)).await;
        check(directory.path(), 0..100 * (part + 1)).await;
    }
}

#[tokio::test]
async fn many_starts_leave_a_bounded_log() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    for number in 0..60 {
        let store = open(directory.path()).expect("a store");
        claim(&store, number).await;
        complete(&store, number).await;
        store.close();
        let count = segments(directory.path()).len();
        assert!(count <= 20, "{count} segments after {number} starts");
    }
    check(directory.path(), 0..60).await;
}

#[tokio::test]
async fn a_store_without_its_format_is_damage_and_nothing_is_made_anew() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    make(directory.path(), 0..50).await;
    let (format, away) = (
        directory.path().join("FORMAT"),
        directory.path().join("away"),
    );
    fs::rename(&format, &away).expect("it moves");
    assert!(is_damage(&open(directory.path())));
    fs::rename(&away, &format).expect("it moves");
    check(directory.path(), 0..50).await;
}

#[tokio::test]
async fn files_that_a_crash_left_beside_the_log_are_removed() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    make(directory.path(), 0..5).await;
    let spare = directory.path().join("log/9.spare");
    fs::write(&spare, b"half a segment").expect("it fits");
    check(directory.path(), 0..5).await;
    assert!(!spare.exists());
}

#[tokio::test]
async fn pages_of_a_listing_come_from_memory_and_tables_without_a_gap() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    make(directory.path(), 0..150).await;
    let store = open(directory.path()).expect("a store");
    for number in 150..200 {
        claim(&store, number).await;
    }
    for number in 0..10 {
        let claim = answer(number).claim;
        store
            .remove(&sample::key(number), claim)
            .await
            .expect("it works");
    }
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let page = store
            .list(&hapax_core::store::Filter::default(), after, 7)
            .await;
        let page = page.expect("it works");
        seen.extend(page.records.into_iter().map(|(key, _)| key));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert!(seen.is_sorted(), "in the order of their keys");
    let mut expected: Vec<_> = (10..200).map(sample::key).collect();
    expected.sort_unstable();
    assert_eq!(seen, expected);
}
