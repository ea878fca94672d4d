//! Expiry: judged by the store's clock, to the millisecond, and swept within bounds.

use std::sync::Arc;
use std::time::Duration;

use hapax_core::record::{MIN_UNKNOWN_RETENTION, Record, StateKind};
use hapax_core::store::{Insert, Store, Write};
use tokio::task::JoinSet;

use super::{ClockControl, claim, read, sample, settle};

const MILLISECOND: Duration = Duration::from_millis(1);

/// Checks that `record` is live until just before `lifetime` has passed, and then vacant.
async fn check_lifetime<S: Store>(
    store: &S,
    clock: &impl ClockControl,
    record: &Record,
    lifetime: Duration,
) {
    let key = sample::key(1);
    claim(store, key, record).await;
    clock.advance(lifetime - MILLISECOND).await;
    assert!(read(store, key).await.is_some(), "one millisecond is left");
    let insert = store.insert(&key, &sample::outstanding(9)).await;
    assert!(matches!(insert, Ok(Insert::Occupied { .. })), "{insert:?}");
    clock.advance(MILLISECOND).await;
    assert_eq!(read(store, key).await, None, "its time is over");
    claim(store, key, &sample::outstanding(9)).await;
}

pub(super) async fn a_settled_record_expires_to_the_millisecond<S: Store>(
    store: Arc<S>,
    clock: impl ClockControl,
) {
    let record = sample::completed(1, "x");
    check_lifetime(&*store, &clock, &record, sample::RETENTION).await;
}

pub(super) async fn an_outstanding_record_never_expires<S: Store>(
    store: Arc<S>,
    clock: impl ClockControl,
) {
    let (key, record) = (sample::key(1), sample::outstanding(1));
    claim(&*store, key, &record).await;
    clock.advance(Duration::from_secs(10 * 365 * 86_400)).await;
    let swept = store.sweep(100).await.expect("the store works");
    assert_eq!(swept.removed, 0);
    let held = read(&*store, key).await.expect("it never expires");
    assert_eq!(held.record, record);
    settle(&*store, key, record.claim, &sample::completed(1, "late")).await;
}

pub(super) async fn an_unknown_record_is_kept_for_at_least_seven_days<S: Store>(
    store: Arc<S>,
    clock: impl ClockControl,
) {
    let mut record = sample::unknown(1);
    record.retention = Duration::from_secs(1);
    record.tombstone = Duration::from_secs(3600);
    check_lifetime(&*store, &clock, &record, MIN_UNKNOWN_RETENTION).await;
}

pub(super) async fn a_tombstone_stays_for_its_window_and_not_longer<S: Store>(
    store: Arc<S>,
    clock: impl ClockControl,
) {
    let mut record = sample::completed(1, "x");
    record.tombstone = Duration::from_millis(1500);
    let key = sample::key(2);
    let settled_at = claim(&*store, key, &record).await;
    clock.advance(sample::RETENTION).await;
    let held = read(&*store, key).await.expect("the tombstone is there");
    let now = settled_at.plus(sample::RETENTION);
    assert_eq!(held.kind_at(now), Some(StateKind::Tombstone));
    let lifetime = sample::RETENTION + record.tombstone;
    check_lifetime(&*store, &clock, &record, lifetime).await;
}

pub(super) async fn a_replacement_starts_its_retention_anew<S: Store>(
    store: Arc<S>,
    clock: impl ClockControl,
) {
    let (key, record) = (sample::key(1), sample::completed(1, "x"));
    claim(&*store, key, &record).await;
    clock.advance(sample::RETENTION - MILLISECOND).await;
    settle(&*store, key, record.claim, &record).await;
    clock.advance(sample::RETENTION - MILLISECOND).await;
    store.sweep(100).await.expect("the store works");
    assert!(read(&*store, key).await.is_some(), "it was settled again");
    clock.advance(MILLISECOND).await;
    assert_eq!(read(&*store, key).await, None);
}

pub(super) async fn a_sweep_is_bounded_and_removes_only_what_has_expired<S: Store>(
    store: Arc<S>,
    clock: impl ClockControl,
) {
    for number in 0..30 {
        claim(&*store, sample::key(number), &sample::completed(1, "old")).await;
    }
    let mut gone_unknown = sample::unknown(1);
    gone_unknown.retention = Duration::ZERO;
    claim(&*store, sample::key(30), &gone_unknown).await;
    clock.advance(MIN_UNKNOWN_RETENTION).await;
    for number in 100..110 {
        claim(&*store, sample::key(number), &sample::completed(2, "new")).await;
        claim(&*store, sample::key(number + 100), &sample::outstanding(2)).await;
        claim(&*store, sample::key(number + 200), &sample::unknown(2)).await;
    }
    let mut rounds = 0;
    loop {
        let swept = store.sweep(7).await.expect("the store works");
        assert!(swept.removed <= 7, "a sweep keeps its bound");
        rounds += 1;
        assert!(rounds < 1000, "a sweep comes to an end");
        if !swept.more_due {
            break;
        }
    }
    for number in 100..110 {
        for number in [number, number + 100, number + 200] {
            assert!(read(&*store, sample::key(number)).await.is_some());
        }
    }
    for number in 0..=30 {
        assert_eq!(read(&*store, sample::key(number)).await, None);
    }
    let stats = store.stats().await.expect("the store works");
    assert_eq!((stats.outstanding, stats.unknown), (10, 10));
}

pub(super) async fn a_sweep_and_a_claim_that_race_lose_no_claim<S: Store>(
    store: Arc<S>,
    clock: impl ClockControl,
) {
    const KEYS: u64 = 200;
    for number in 0..KEYS {
        claim(&*store, sample::key(number), &sample::completed(1, "old")).await;
    }
    clock.advance(sample::RETENTION).await;
    let mut racers = JoinSet::new();
    for _ in 0..4 {
        let store = Arc::clone(&store);
        racers.spawn(async move {
            for _ in 0..50 {
                store.sweep(10).await.expect("the store works");
                tokio::task::yield_now().await;
            }
        });
    }
    for number in 0..KEYS {
        let store = Arc::clone(&store);
        racers.spawn(async move {
            let key = sample::key(number);
            claim(&*store, key, &sample::outstanding(2)).await;
            let done = sample::completed(2, "new");
            let write = store.replace(&key, sample::claim_id(2), &done).await;
            assert!(matches!(write, Ok(Write::Applied { .. })), "{write:?}");
        });
    }
    while let Some(racer) = racers.join_next().await {
        racer.expect("no racer panics");
    }
    for number in 0..KEYS {
        let held = read(&*store, sample::key(number)).await;
        let record = held.expect("a sweep takes no live record").record;
        assert_eq!(record, sample::completed(2, "new"));
    }
}
