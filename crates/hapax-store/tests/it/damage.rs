//! Flipped bits: every acknowledged record is returned right, or somebody is told.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use hapax_core::store::{Store, StoreError};
use hapax_store::conformance::sample;
use hapax_store::{EmbeddedStore, OpenError};

use crate::support::{Random, answer, campaign, claim, complete, open};

const RECORDS: u64 = 300;

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files(&path, found);
        } else {
            found.push(path);
        }
    }
    found.sort_unstable();
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    let mut found = Vec::new();
    files(from, &mut found);
    for path in found {
        let target = to.join(path.strip_prefix(from).expect("it lies in there"));
        fs::create_dir_all(target.parent().expect("a parent")).expect("a folder");
        // Only the bytes: a segment of the log is mostly zeros.
        let bytes = fs::read(&path).expect("a file");
        let used = bytes
            .iter()
            .rposition(|byte| *byte != 0)
            .map_or(0, |last| last + 1);
        let file = fs::File::create(&target).expect("a file");
        file.write_all_at(&bytes[..used], 0).expect("it fits");
        file.set_len(bytes.len() as u64).expect("it fits");
    }
}

/// A closed store with records in tables and in the log.
async fn make(path: &Path) {
    for part in 0..3 {
        let mut options = crate::support::options(&std::sync::Arc::new(
            hapax_store::ManualClock::new(crate::support::START),
        ));
        // The first part is written out to tables, the last stays in the log.
        options.memtable_bytes = if part == 0 { 16 << 10 } else { 1 << 20 };
        let store = EmbeddedStore::open(path, options).expect("a store");
        for number in part * 100..(part + 1) * 100 {
            claim(&store, number).await;
            if number % 10 != 9 {
                complete(&store, number).await;
            }
        }
        store.close();
    }
}

/// What is wrong with what a damaged store says of record `number`.
async fn verdict(store: &EmbeddedStore, number: u64) -> Option<String> {
    match store.read(&sample::key(number)).await {
        Ok((None, _)) => Some(format!("record {number} is absent")),
        Ok((Some(held), _)) => {
            let is_right = if number % 10 == 9 {
                held.record.claim == sample::claim_id(number)
                    && held.record.state.response().is_none()
            } else {
                held.record == answer(number)
            };
            (!is_right).then(|| format!("record {number} differs: {held:?}"))
        }
        Err(StoreError::Damaged { .. } | StoreError::Refused { .. }) => None,
        Err(error) => Some(format!("record {number}: {error}")),
    }
}

#[tokio::test]
async fn no_flipped_bit_makes_an_acknowledged_record_absent_or_different() {
    let pristine = tempfile::tempdir().expect("a temporary directory");
    make(pristine.path()).await;
    let mut found = Vec::new();
    files(pristine.path(), &mut found);
    let seed = std::env::var("HAPAX_SEED").map_or(1, |seed| seed.parse().expect("a number"));
    let (mut loud, mut wrong) = (0, Vec::new());
    for flip in 0..200 * campaign() {
        let seed = seed + flip;
        let mut random = Random(seed);
        let work = tempfile::tempdir().expect("a temporary directory");
        copy(pristine.path(), work.path());
        // Every file alike, and of a segment only what is written.
        let victim = &found[random.below(found.len() as u64) as usize];
        let name = victim
            .strip_prefix(pristine.path())
            .expect("it lies in there");
        let mut bytes = fs::read(victim).expect("a file");
        let used = bytes
            .iter()
            .rposition(|byte| *byte != 0)
            .map_or(0, |last| last + 1);
        if used == 0 || name.ends_with("LOCK") || name.ends_with("lock") {
            continue;
        }
        let at = random.below(used as u64) as usize;
        let bit = random.below(8);
        bytes[at] ^= 1 << bit;
        let file = fs::OpenOptions::new()
            .write(true)
            .open(work.path().join(name));
        let file = file.expect("a file");
        file.write_all_at(&bytes[at..=at], at as u64)
            .expect("it fits");
        let place = format!("seed {seed}: {} byte {at} bit {bit}", name.display());
        match open(work.path()) {
            Err(_) => loud += 1,
            Ok(store) => {
                for number in 0..RECORDS {
                    if let Some(what) = verdict(&store, number).await {
                        wrong.push(format!("{place}: {what}"));
                        break;
                    }
                }
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert!(loud > 0, "some flips keep a store from opening");
}

/// A store whose last batch has a hole, with a witness that knows of that batch or does not.
async fn open_with_torn_end(
    path: &Path,
    is_acknowledged: bool,
) -> Result<EmbeddedStore, OpenError> {
    let store = open(path).expect("a new store");
    claim(&store, 1).await;
    complete(&store, 1).await;
    let witness = path.join("WITNESS");
    let before = fs::read(&witness).expect("a witness");
    claim(&store, 2).await;
    store.close();
    if !is_acknowledged {
        fs::write(&witness, before).expect("it fits");
    }
    let segment = path.join("log/000000000001.log");
    let bytes = fs::read(&segment).expect("a segment");
    let route = b"POST /orders";
    let at = bytes
        .windows(route.len())
        .rposition(|window| window == route);
    let file = fs::OpenOptions::new()
        .write(true)
        .open(&segment)
        .expect("a segment");
    let at = at.expect("the last claim") as u64;
    file.write_all_at(&[0; 4], at).expect("it fits");
    open(path)
}

#[tokio::test]
async fn a_torn_batch_that_nobody_was_told_of_is_cut_off() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let store = open_with_torn_end(directory.path(), false)
        .await
        .expect("a power cut leaves this");
    assert_eq!(verdict(&store, 1).await, None);
    claim(&store, 2).await;
}

#[tokio::test]
async fn a_torn_batch_that_was_acknowledged_is_damage() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let error = open_with_torn_end(directory.path(), true)
        .await
        .expect_err("it was acknowledged");
    assert!(matches!(error, OpenError::Damaged { .. }), "{error}");
}
