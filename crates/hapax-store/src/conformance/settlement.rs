//! Settling: who may write, and what is stamped.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hapax_core::record::{Content, State, UnknownReason};
use hapax_core::store::{Insert, Store, Write};
use http::HeaderValue;

use super::{ClockControl, claim, read, sample, settle};

pub(super) async fn the_right_claim_replaces_and_a_stale_one_does_not<S: Store>(
    store: Arc<S>,
    _: impl ClockControl,
) {
    let key = sample::key(1);
    let record = sample::outstanding(1);
    claim(&*store, key, &record).await;
    let stale = store
        .replace(&key, sample::claim_id(2), &sample::completed(2, "theirs"))
        .await;
    assert_eq!(stale.expect("the store works"), Write::Stale);
    let held = read(&*store, key).await.expect("it is there");
    assert_eq!(held.record, record, "a stale write changes nothing");
    let done = sample::completed(1, "ours");
    settle(&*store, key, record.claim, &done).await;
    assert_eq!(read(&*store, key).await.expect("it is there").record, done);
}

pub(super) async fn the_right_claim_removes_and_a_stale_one_does_not<S: Store>(
    store: Arc<S>,
    _: impl ClockControl,
) {
    for state in 0..3 {
        let key = sample::key(state);
        claim(&*store, key, &sample::outstanding(1)).await;
        match state {
            1 => drop(settle(&*store, key, sample::claim_id(1), &sample::unknown(1)).await),
            2 => {
                let done = sample::completed(1, "done");
                settle(&*store, key, sample::claim_id(1), &done).await;
            }
            _ => {}
        }
        let stale = store.remove(&key, sample::claim_id(2)).await;
        assert_eq!(stale.expect("the store works"), Write::Stale);
        assert!(read(&*store, key).await.is_some(), "nothing was removed");
        let removed = store.remove(&key, sample::claim_id(1)).await;
        assert!(matches!(removed, Ok(Write::Applied { .. })), "{removed:?}");
        assert_eq!(read(&*store, key).await, None);
        claim(&*store, key, &sample::outstanding(3)).await;
    }
}

pub(super) async fn a_vacant_key_is_held_by_nobody<S: Store>(store: Arc<S>, _: impl ClockControl) {
    let (key, record) = (sample::key(1), sample::completed(1, "x"));
    let replaced = store.replace(&key, record.claim, &record).await;
    assert_eq!(replaced.expect("the store works"), Write::Stale);
    let removed = store.remove(&key, record.claim).await;
    assert_eq!(removed.expect("the store works"), Write::Stale);
    assert_eq!(read(&*store, key).await, None, "nothing came to be");
}

pub(super) async fn an_expired_record_is_held_by_nobody<S: Store>(
    store: Arc<S>,
    clock: impl ClockControl,
) {
    let (key, record) = (sample::key(1), sample::completed(1, "x"));
    claim(&*store, key, &record).await;
    clock.advance(sample::RETENTION).await;
    let replaced = store.replace(&key, record.claim, &record).await;
    assert_eq!(replaced.expect("the store works"), Write::Stale);
    let removed = store.remove(&key, record.claim).await;
    assert_eq!(removed.expect("the store works"), Write::Stale);
    assert_eq!(read(&*store, key).await, None);
}

pub(super) async fn a_heartbeat_keeps_claimed_at_and_a_new_claim_stamps_it<S: Store>(
    store: Arc<S>,
    clock: impl ClockControl,
) {
    let key = sample::key(1);
    let record = sample::outstanding(1);
    let claimed_at = claim(&*store, key, &record).await;
    clock.advance(Duration::from_secs(20)).await;
    let renewed_at = settle(&*store, key, record.claim, &record).await;
    let held = read(&*store, key).await.expect("it is there");
    assert_eq!((held.claimed_at, held.written_at), (claimed_at, renewed_at));
    assert_eq!(renewed_at, claimed_at.plus(Duration::from_secs(20)));

    clock.advance(Duration::from_secs(3)).await;
    let rebound_at = settle(&*store, key, record.claim, &sample::outstanding(2)).await;
    let held = read(&*store, key).await.expect("it is there");
    assert_eq!((held.claimed_at, held.written_at), (rebound_at, rebound_at));
}

pub(super) async fn an_old_holder_is_stale_after_the_key_was_claimed_anew<S: Store>(
    store: Arc<S>,
    clock: impl ClockControl,
) {
    let key = sample::key(1);
    claim(&*store, key, &sample::completed(1, "old")).await;
    clock.advance(sample::RETENTION).await;
    let claimed_at = claim(&*store, key, &sample::outstanding(2)).await;
    let late = sample::completed(1, "late");
    let replaced = store.replace(&key, late.claim, &late).await;
    assert_eq!(replaced.expect("the store works"), Write::Stale);
    let removed = store.remove(&key, late.claim).await;
    assert_eq!(removed.expect("the store works"), Write::Stale);
    let held = read(&*store, key).await.expect("it is there");
    assert_eq!(held.record, sample::outstanding(2));
    assert_eq!(held.claimed_at, claimed_at, "the new claim's own instant");
}

pub(super) async fn every_state_reads_back_as_written<S: Store>(
    store: Arc<S>,
    _: impl ClockControl,
) {
    let withheld = || {
        let mut response = sample::response("");
        response.content = Content::Withheld;
        response
    };
    let reason = UnknownReason::UpstreamAnswered;
    let states = [
        State::Outstanding {
            lease: Duration::from_millis(1),
        },
        State::Completed(sample::response("yes")),
        State::Completed(withheld()),
        State::Rejected(sample::response("no")),
        State::Unknown {
            reason,
            response: Some(sample::response("oops")),
        },
        State::Unknown {
            reason: UnknownReason::LeaseLapsed,
            response: None,
        },
    ];
    // From every state to every state, by the claim that holds it.
    let mut number = 0;
    for from in &states {
        for to in &states {
            number += 1;
            let key = sample::key(number);
            let mut record = sample::record(1, from.clone());
            record.trace = Some("00-ab-cd-01".into());
            record.tombstone = Duration::from_secs(5);
            claim(&*store, key, &record).await;
            assert_eq!(
                read(&*store, key).await.expect("it is there").record,
                record
            );
            record.state = to.clone();
            record.attempt = 2;
            settle(&*store, key, record.claim, &record).await;
            let Ok(Insert::Occupied { held, .. }) =
                store.insert(&key, &sample::outstanding(9)).await
            else {
                panic!("a live record occupies its key");
            };
            assert_eq!(held.record, record);
        }
    }
}

pub(super) async fn binary_fields_and_a_content_of_1_mib_read_back_byte_for_byte<S: Store>(
    store: Arc<S>,
    _: impl ClockControl,
) {
    let content: Bytes = (0..1 << 20)
        .map(|index: u32| index.wrapping_mul(0x9e37_79b1).to_be_bytes()[0])
        .collect();
    let mut response = sample::response(content);
    let value = HeaderValue::from_bytes(b"\xff\xfe caf\xe9\t").expect("a field value");
    response.headers.append("x-binary", value);
    let record = sample::record(1, State::Completed(response));
    let key = sample::key(1);
    claim(&*store, key, &sample::outstanding(1)).await;
    settle(&*store, key, record.claim, &record).await;
    let held = read(&*store, key).await.expect("it is there");
    assert!(held.record == record, "some byte differs");
}
