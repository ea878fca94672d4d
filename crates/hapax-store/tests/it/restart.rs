//! What survives an ordinary end of the process, and what a new one makes of it.

use std::sync::Arc;
use std::time::Duration;

use hapax_core::record::{StateKind, UnknownReason};
use hapax_core::store::{Insert, Store, StoreError, Write};
use hapax_store::conformance::sample;
use hapax_store::{EmbeddedStore, Health, ManualClock, OpenError};

use crate::support::{START, answer, claim, complete, open, options, read};

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_restart_and_claims_are_unknown() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let store = open(directory.path()).expect("a new store");
    let secret = *store.secret().as_bytes();
    for number in 0..50 {
        claim(&store, number).await;
    }
    for number in 0..30 {
        complete(&store, number).await;
    }
    store
        .remove(&sample::key(40), sample::claim_id(40))
        .await
        .expect("it works");
    store.close();

    // Twice: what recovery itself wrote must last too.
    for round in 0..2 {
        let store = open(directory.path()).expect("an old store");
        assert_eq!(*store.secret().as_bytes(), secret);
        assert_eq!(store.interrupted(), if round == 0 { 19 } else { 0 });
        for number in 0..30 {
            let held = read(&store, number).await.expect("it was acknowledged");
            assert_eq!(held.record, answer(number));
        }
        for number in (30..50).filter(|number| *number != 40) {
            let held = read(&store, number).await.expect("it was acknowledged");
            assert_eq!(held.record.state.kind(), StateKind::Unknown);
            assert_eq!(held.record.claim, sample::claim_id(number));
            assert!(matches!(
                held.record.state,
                hapax_core::record::State::Unknown {
                    reason: UnknownReason::Restarted,
                    ..
                }
            ));
        }
        assert_eq!(read(&store, 40).await, None, "it was released");
        let stats = store.stats().await.expect("it works");
        assert_eq!((stats.outstanding, stats.unknown), (0, 19));
    }
    let store = open(directory.path()).expect("an old store");
    complete(&store, 35).await;
}

#[tokio::test]
async fn a_second_store_on_a_directory_is_told_who_has_it() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let first = open(directory.path()).expect("a new store");
    let error = open(directory.path()).expect_err("it is taken");
    let OpenError::Locked { by } = &error else {
        panic!("{error}");
    };
    assert!(by.contains(&std::process::id().to_string()), "{by}");
    first.close();
    open(directory.path()).expect("it is free again");
}

#[tokio::test]
async fn a_machine_set_back_between_two_runs_brings_no_expired_record_back() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let clock = Arc::new(ManualClock::new(START));
    let store = EmbeddedStore::open(directory.path(), options(&clock)).expect("a new store");
    claim(&store, 1).await;
    complete(&store, 1).await;
    clock.advance(sample::RETENTION);
    claim(&store, 2).await;
    store.close();
    clock.set(START);
    let store = EmbeddedStore::open(directory.path(), options(&clock)).expect("an old store");
    assert_eq!(read(&store, 1).await, None, "it had expired");
    let stats = store.stats().await.expect("it works");
    assert!(stats.now >= START.plus(sample::RETENTION), "{}", stats.now);
}

#[tokio::test]
async fn after_a_failed_sync_nothing_is_written_and_replays_go_on() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let options = options(&Arc::new(ManualClock::new(START)));
    let faults = Arc::clone(&options.faults);
    let store = EmbeddedStore::open(directory.path(), options).expect("a new store");
    for number in 0..3 {
        claim(&store, number).await;
    }
    complete(&store, 0).await;
    assert_eq!(store.health(), Health::Healthy);
    faults
        .fail_next_sync
        .store(true, std::sync::atomic::Ordering::Release);
    let write = store
        .replace(&sample::key(1), sample::claim_id(1), &answer(1))
        .await;
    assert!(
        matches!(write, Err(StoreError::Uncertain { .. })),
        "{write:?}"
    );
    // The fault is over; the store must not try again all the same.
    for _ in 0..3 {
        let insert = store.insert(&sample::key(9), &sample::outstanding(9)).await;
        assert!(
            matches!(insert, Err(StoreError::Refused { .. })),
            "{insert:?}"
        );
        let write = store
            .replace(&sample::key(2), sample::claim_id(2), &answer(2))
            .await;
        assert!(
            matches!(write, Err(StoreError::Refused { .. })),
            "{write:?}"
        );
    }
    assert!(matches!(store.health(), Health::Failed { .. }));
    store.stats().await.expect("figures go on");
    let insert = store.insert(&sample::key(0), &sample::outstanding(8)).await;
    let Ok(Insert::Occupied { held, .. }) = insert else {
        panic!("what was synced is replayed: {insert:?}");
    };
    assert_eq!(held.record, answer(0));
    store.close();
    let store = open(directory.path()).expect("a restart recovers");
    assert_eq!(
        read(&store, 0).await.expect("it was synced").record,
        answer(0)
    );
    claim(&store, 9).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dropping_expired_records_brings_no_older_version_back() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let clock = Arc::new(ManualClock::new(START));
    let mut options = options(&clock);
    // Many small tables, so that versions of a key lie in several levels.
    options.memtable_bytes = 64 << 10;
    let store = EmbeddedStore::open(directory.path(), options.clone()).expect("a new store");
    let lived = async |generation: u64, keep: Duration| {
        for number in 0..500 {
            let key = sample::key(number);
            let id = generation * 1000 + number;
            let insert = store.insert(&key, &sample::outstanding(id)).await;
            assert!(matches!(insert, Ok(Insert::Claimed { .. })), "{insert:?}");
            let mut done = sample::completed(id, vec![1; 500]);
            done.retention = keep;
            let write = store.replace(&key, sample::claim_id(id), &done).await;
            write.expect("it works");
        }
    };
    // A first generation that would still be live if it came back, settled anew by its own
    // claim with a short retention, and then several short ones on top.
    lived(0, Duration::from_secs(10 * 24 * 3600)).await;
    for number in 0..500 {
        let mut short = sample::completed(number, vec![2; 500]);
        short.retention = Duration::from_secs(10);
        let write = store
            .replace(&sample::key(number), short.claim, &short)
            .await;
        assert!(matches!(write, Ok(Write::Applied { .. })), "{write:?}");
    }
    clock.advance(Duration::from_secs(10));
    for generation in 1..6 {
        lived(generation, Duration::from_secs(10)).await;
        clock.advance(Duration::from_secs(10));
    }
    store.close();
    let store = EmbeddedStore::open(directory.path(), options).expect("an old store");
    for number in 0..500 {
        assert_eq!(read(&store, number).await, None, "key {number} has expired");
    }
}
