//! Full stores refuse new claims and keep what lives.

use std::sync::Arc;

use hapax_core::store::{Insert, Store, StoreError};
use hapax_store::conformance::sample;
use hapax_store::{EmbeddedStore, Limits, ManualClock, MemoryStore, random_secret};

use crate::support::{START, claim, complete, options, read};

async fn check_full(store: &impl Store) {
    for number in 0..10 {
        claim(store, number).await;
    }
    let insert = store
        .insert(&sample::key(10), &sample::outstanding(10))
        .await;
    assert!(matches!(insert, Err(StoreError::Full { .. })), "{insert:?}");
    assert_eq!(
        read(store, 10).await,
        None,
        "it was refused before the claim"
    );
    let insert = store
        .insert(&sample::key(3), &sample::outstanding(11))
        .await;
    assert!(matches!(insert, Ok(Insert::Occupied { .. })), "{insert:?}");
    complete(store, 3).await;
    let removed = store.remove(&sample::key(4), sample::claim_id(4)).await;
    removed.expect("a full store still settles");
    claim(store, 10).await;
}

const TEN_RECORDS: Limits = Limits {
    max_records: 10,
    max_bytes: 0,
};

#[tokio::test]
async fn a_full_memory_store_refuses_claims_and_settles_the_rest() {
    let clock = Arc::new(ManualClock::new(START));
    let store = MemoryStore::new(clock, TEN_RECORDS, random_secret().expect("randomness"));
    check_full(&store).await;
}

#[tokio::test]
async fn a_full_embedded_store_refuses_claims_and_settles_the_rest() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut options = options(&Arc::new(ManualClock::new(START)));
    options.limits = TEN_RECORDS;
    let store = EmbeddedStore::open(directory.path(), options).expect("a new store");
    check_full(&store).await;
}

#[tokio::test]
async fn a_full_disk_is_refused_before_the_claim_and_live_records_settle() {
    if crate::image::skip_reason().is_some() {
        return;
    }
    let disk = crate::image::Image::new(160);
    let mut options = options(&Arc::new(ManualClock::new(START)));
    options.min_free_disk = 32 << 20;
    let store = EmbeddedStore::open(disk.path().join("store"), options).expect("a new store");
    for number in 0..20 {
        claim(&store, number).await;
    }
    complete(&store, 0).await;
    let filler = disk.path().join("filler");
    std::fs::write(&filler, vec![1; 90 << 20]).expect("it fits");
    // The free space is sampled once a second: claims go on for so long, and then stop.
    let mut number = 20;
    let what = loop {
        match store
            .insert(&sample::key(number), &sample::outstanding(number))
            .await
        {
            Ok(_) => number += 1,
            Err(StoreError::Full { what }) => break what,
            Err(error) => panic!("{error}"),
        }
        assert!(number < 1_000_000, "the disk is full and nobody says so");
    };
    assert!(what.contains("disk"), "{what}");
    assert_eq!(
        read(&store, number).await,
        None,
        "it was refused before the claim"
    );
    assert!(read(&store, 0).await.is_some(), "live records stay");
    for number in 1..20 {
        complete(&store, number).await;
    }
    std::fs::remove_file(&filler).expect("it is there");
    let mut tries = 0_u64;
    while store
        .insert(&sample::key(number), &sample::outstanding(number))
        .await
        .is_err()
    {
        tries += 1;
        assert!(
            tries < 100_000_000,
            "there is room again and nobody notices"
        );
    }
}
