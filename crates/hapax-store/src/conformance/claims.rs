//! Claiming: one winner, and what the others are shown.

use std::sync::Arc;
use std::time::Duration;

use hapax_core::store::{Insert, Store};
use tokio::task::JoinSet;

use super::{ClockControl, claim, read, sample, settle};

pub(super) async fn a_vacant_key_is_claimed_and_reads_back<S: Store>(
    store: Arc<S>,
    _: impl ClockControl,
) {
    let key = sample::key(1);
    assert_eq!(read(&*store, key).await, None, "an empty store has nothing");
    let record = sample::outstanding(1);
    let now = claim(&*store, key, &record).await;
    let held = read(&*store, key).await.expect("it was written");
    assert_eq!(held.record, record);
    assert_eq!((held.claimed_at, held.written_at), (now, now));
}

pub(super) async fn an_occupied_key_returns_exactly_what_is_held<S: Store>(
    store: Arc<S>,
    clock: impl ClockControl,
) {
    let key = sample::key(1);
    let first = sample::outstanding(1);
    let claimed_at = claim(&*store, key, &first).await;
    clock.advance(Duration::from_millis(7)).await;
    let second = sample::outstanding(2);
    let Ok(Insert::Occupied { held, now }) = store.insert(&key, &second).await else {
        panic!("a claimed key is occupied");
    };
    assert_eq!(held.record, first);
    assert_eq!(
        (held.claimed_at, held.written_at),
        (claimed_at, claimed_at),
        "an attempt that lost changes nothing"
    );
    assert_eq!(now, claimed_at.plus(Duration::from_millis(7)));

    let done = sample::completed(1, "done");
    let settled_at = settle(&*store, key, first.claim, &done).await;
    clock.advance(Duration::from_millis(5)).await;
    let Ok(Insert::Occupied { held, now }) = store.insert(&key, &second).await else {
        panic!("a completed key is occupied");
    };
    assert_eq!(held.record, done);
    assert_eq!(
        (held.claimed_at, held.written_at),
        (claimed_at, settled_at),
        "claimed_at is the claim's, written_at the settlement's"
    );
    assert_eq!(now, settled_at.plus(Duration::from_millis(5)));
}

pub(super) async fn of_200_concurrent_claims_one_wins<S: Store>(
    store: Arc<S>,
    _: impl ClockControl,
) {
    // Several rounds: a store that serialises only some of the time should be caught.
    for round in 0..10 {
        let key = sample::key(round);
        let mut attempts = JoinSet::new();
        for number in 0..200 {
            let store = Arc::clone(&store);
            attempts.spawn(async move {
                let record = sample::outstanding(number);
                let insert = store.insert(&key, &record).await;
                (number, insert.expect("the store works"))
            });
        }
        let mut winners = Vec::new();
        let mut seen = Vec::new();
        while let Some(attempt) = attempts.join_next().await {
            match attempt.expect("no attempt panics") {
                (number, Insert::Claimed { .. }) => winners.push(sample::claim_id(number)),
                (_, Insert::Occupied { held, .. }) => seen.push(held.record.claim),
            }
        }
        assert_eq!(winners.len(), 1, "round {round}: one claim wins");
        assert_eq!(seen.len(), 199);
        for claim in seen {
            assert_eq!(Some(&claim), winners.first(), "all others see the winner");
        }
    }
}

pub(super) async fn of_many_concurrent_settlements_of_one_claim_the_record_is_one_of_them<
    S: Store,
>(
    store: Arc<S>,
    _: impl ClockControl,
) {
    let key = sample::key(1);
    claim(&*store, key, &sample::outstanding(0)).await;
    let mut rivals = JoinSet::new();
    for number in 1..=50 {
        let store = Arc::clone(&store);
        rivals.spawn(async move {
            // Each takes the claim over, so that only the first can find claim 0 there.
            let record = sample::outstanding(number);
            let write = store.replace(&key, sample::claim_id(0), &record).await;
            matches!(write, Ok(hapax_core::store::Write::Applied { .. })).then_some(record)
        });
    }
    let mut applied = Vec::new();
    while let Some(rival) = rivals.join_next().await {
        applied.extend(rival.expect("no rival panics"));
    }
    assert_eq!(applied.len(), 1, "a claim is taken over once");
    let held = read(&*store, key).await.expect("it is there");
    assert_eq!(Some(&held.record), applied.first());
}

pub(super) async fn claims_of_different_keys_do_not_touch_each_other<S: Store>(
    store: Arc<S>,
    _: impl ClockControl,
) {
    let mut claims = JoinSet::new();
    for number in 0..100 {
        let store = Arc::clone(&store);
        claims.spawn(async move {
            claim(&*store, sample::key(number), &sample::outstanding(number)).await;
            let done = sample::completed(number, format!("answer {number}"));
            settle(
                &*store,
                sample::key(number),
                sample::claim_id(number),
                &done,
            )
            .await;
        });
    }
    while let Some(done) = claims.join_next().await {
        done.expect("no claim panics");
    }
    for number in 0..100 {
        let held = read(&*store, sample::key(number)).await;
        let record = held.expect("it is there").record;
        assert_eq!(
            record,
            sample::completed(number, format!("answer {number}"))
        );
    }
}

pub(super) async fn the_secret_and_the_durability_do_not_change<S: Store>(
    store: Arc<S>,
    _: impl ClockControl,
) {
    let secret = *store.secret().as_bytes();
    let durability = store.durability();
    claim(&*store, sample::key(1), &sample::outstanding(1)).await;
    assert_eq!(*store.secret().as_bytes(), secret);
    assert_eq!(store.durability(), durability);
    assert_ne!(secret, [0; 32], "a secret is random");
}
