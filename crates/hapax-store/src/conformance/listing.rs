//! What operators and gauges see.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use hapax_core::key::RecordKey;
use hapax_core::record::{Held, State, StateKind};
use hapax_core::store::{Cursor, Filter, Store};

use super::{ClockControl, claim, sample, settle};

/// All pages, in the order in which they come. Fails when a page is longer than asked for or
/// the pages do not come to an end.
async fn list_all<S: Store>(store: &S, filter: &Filter, limit: usize) -> Vec<(RecordKey, Held)> {
    let mut all = Vec::new();
    let mut after: Option<Cursor> = None;
    for _ in 0..10_000 {
        let page = store.list(filter, after, limit).await;
        let page = page.expect("the store works");
        assert!(page.records.len() <= limit, "a page keeps its limit");
        all.extend(page.records);
        if page.next.is_none() {
            return all;
        }
        assert!(
            after.map(|Cursor(key)| key) < page.next.map(|Cursor(key)| key),
            "a cursor moves on"
        );
        after = page.next;
    }
    panic!("the pages do not come to an end");
}

pub(super) async fn pages_are_complete_ordered_and_without_repeats<S: Store>(
    store: Arc<S>,
    _: impl ClockControl,
) {
    let mut expected = BTreeMap::new();
    for number in 0..60 {
        let record = match number % 3 {
            0 => sample::outstanding(number),
            1 => sample::completed(number, "x"),
            _ => sample::unknown(number),
        };
        claim(&*store, sample::key(number), &record).await;
        expected.insert(sample::key(number), record);
    }
    let expected: Vec<_> = expected.into_iter().collect();
    for limit in [1, 7, 60, 1000] {
        let listed = list_all(&*store, &Filter::default(), limit).await;
        let listed: Vec<_> = listed
            .into_iter()
            .map(|(key, held)| (key, held.record))
            .collect();
        assert_eq!(listed, expected, "pages of {limit}");
    }
}

pub(super) async fn a_filter_shows_what_matches_and_nothing_else<S: Store>(
    store: Arc<S>,
    clock: impl ClockControl,
) {
    let mut tombstone = sample::completed(1, "gone");
    tombstone.retention = Duration::ZERO;
    tombstone.tombstone = sample::RETENTION;
    claim(&*store, sample::key(1), &tombstone).await;
    claim(&*store, sample::key(2), &sample::outstanding(2)).await;
    clock.advance(Duration::from_secs(10)).await;
    let since = claim(&*store, sample::key(3), &sample::completed(3, "x")).await;
    let rejected = sample::record(4, State::Rejected(sample::response("no")));
    claim(&*store, sample::key(4), &rejected).await;
    let mut elsewhere = sample::unknown(5);
    elsewhere.route = "POST /refunds".into();
    claim(&*store, sample::key(5), &elsewhere).await;

    let state = |kind| Filter {
        state: Some(kind),
        ..Filter::default()
    };
    let route = Filter {
        route: Some("POST /refunds".to_owned()),
        ..Filter::default()
    };
    let recent = Filter {
        since: Some(since),
        ..Filter::default()
    };
    let nothing = Filter {
        since: Some(since),
        ..state(StateKind::Outstanding)
    };
    for (filter, numbers) in [
        (Filter::default(), vec![1, 2, 3, 4, 5]),
        (state(StateKind::Tombstone), vec![1]),
        (state(StateKind::Outstanding), vec![2]),
        (state(StateKind::Completed), vec![3]),
        (state(StateKind::Rejected), vec![4]),
        (state(StateKind::Unknown), vec![5]),
        (route, vec![5]),
        (recent, vec![3, 4, 5]),
        (nothing, vec![]),
    ] {
        let mut expected: Vec<_> = numbers.into_iter().map(sample::key).collect();
        expected.sort_unstable();
        let listed = list_all(&*store, &filter, 2).await;
        let listed: Vec<_> = listed.into_iter().map(|(key, _)| key).collect();
        assert_eq!(listed, expected, "{filter:?}");
    }
}

pub(super) async fn an_expired_record_is_not_listed<S: Store>(
    store: Arc<S>,
    clock: impl ClockControl,
) {
    claim(&*store, sample::key(1), &sample::completed(1, "x")).await;
    clock.advance(sample::RETENTION).await;
    assert_eq!(list_all(&*store, &Filter::default(), 10).await, vec![]);
    claim(&*store, sample::key(1), &sample::outstanding(2)).await;
    assert_eq!(list_all(&*store, &Filter::default(), 10).await.len(), 1);
}

pub(super) async fn the_gauges_follow_every_change<S: Store>(
    store: Arc<S>,
    clock: impl ClockControl,
) {
    let gauges = async || {
        let stats = store.stats().await.expect("the store works");
        (stats.outstanding, stats.unknown, stats.oldest_unknown)
    };
    assert_eq!(gauges().await, (0, 0, None), "an empty store");
    for number in 0..10 {
        claim(&*store, sample::key(number), &sample::outstanding(number)).await;
    }
    assert_eq!(gauges().await, (10, 0, None));
    let to = async |number, record| {
        settle(
            &*store,
            sample::key(number),
            sample::claim_id(number),
            &record,
        )
        .await
    };
    to(0, sample::outstanding(0)).await;
    let oldest = to(1, sample::unknown(1)).await;
    clock.advance(Duration::from_secs(1)).await;
    let second = to(2, sample::unknown(2)).await;
    to(3, sample::completed(3, "x")).await;
    assert_eq!(gauges().await, (7, 2, Some(oldest)));
    to(1, sample::completed(1, "x")).await;
    assert_eq!(gauges().await, (7, 1, Some(second)));
    let removed = store.remove(&sample::key(4), sample::claim_id(4)).await;
    removed.expect("the store works");
    assert_eq!(gauges().await, (6, 1, Some(second)));
    let removed = store.remove(&sample::key(2), sample::claim_id(2)).await;
    removed.expect("the store works");
    assert_eq!(gauges().await, (6, 0, None));
    let stats = store.stats().await.expect("the store works");
    assert!(stats.bytes > 0, "what is held takes room");
    assert_eq!(stats.damaged, 0);
}
