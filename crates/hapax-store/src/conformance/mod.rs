//! The suite that every [`Store`] passes before it is merged.
//!
//! A backend's test calls [`run`] with a function that makes an empty store and the control
//! of its clock. The suite panics with the sentence that does not hold.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "a test suite: a panic is how it reports"
)]

mod claims;
mod expiry;
mod listing;
pub mod sample;
mod settlement;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use hapax_core::key::RecordKey;
use hapax_core::record::{ClaimId, Held, Record};
use hapax_core::store::{Insert, Store, Write};
use hapax_core::time::Timestamp;

use crate::clock::ManualClock;

/// Moves the clock by which a store under test judges.
pub trait ClockControl: Send + Sync + 'static {
    /// Moves the store's clock forward by `by`. The clock must not move by itself.
    fn advance(&self, by: Duration) -> impl Future<Output = ()> + Send;
}

impl ClockControl for Arc<ManualClock> {
    async fn advance(&self, by: Duration) {
        ManualClock::advance(self, by);
    }
}

/// Runs the whole suite. `make` is called once a case and returns a store that is empty, with
/// its clock. Needs a tokio runtime, a multi-threaded one for the races to mean something.
pub async fn run<S, C, F>(make: impl Fn() -> F)
where
    S: Store,
    C: ClockControl,
    F: Future<Output = (S, C)>,
{
    macro_rules! cases {
        ($($module:ident :: $case:ident),* $(,)?) => {
            $({
                let (store, clock) = make().await;
                $module::$case(Arc::new(store), clock).await;
            })*
        };
    }
    cases!(
        claims::a_vacant_key_is_claimed_and_reads_back,
        claims::an_occupied_key_returns_exactly_what_is_held,
        claims::of_200_concurrent_claims_one_wins,
        claims::of_many_concurrent_settlements_of_one_claim_the_record_is_one_of_them,
        claims::claims_of_different_keys_do_not_touch_each_other,
        claims::the_secret_and_the_durability_do_not_change,
        settlement::the_right_claim_replaces_and_a_stale_one_does_not,
        settlement::the_right_claim_removes_and_a_stale_one_does_not,
        settlement::a_vacant_key_is_held_by_nobody,
        settlement::an_expired_record_is_held_by_nobody,
        settlement::a_heartbeat_keeps_claimed_at_and_a_new_claim_stamps_it,
        settlement::an_old_holder_is_stale_after_the_key_was_claimed_anew,
        settlement::every_state_reads_back_as_written,
        settlement::binary_fields_and_a_content_of_1_mib_read_back_byte_for_byte,
        expiry::a_settled_record_expires_to_the_millisecond,
        expiry::an_outstanding_record_never_expires,
        expiry::an_unknown_record_is_kept_for_at_least_seven_days,
        expiry::a_tombstone_stays_for_its_window_and_not_longer,
        expiry::a_replacement_starts_its_retention_anew,
        expiry::a_sweep_is_bounded_and_removes_only_what_has_expired,
        expiry::a_sweep_and_a_claim_that_race_lose_no_claim,
        listing::pages_are_complete_ordered_and_without_repeats,
        listing::a_filter_shows_what_matches_and_nothing_else,
        listing::an_expired_record_is_not_listed,
        listing::the_gauges_follow_every_change,
    );
}

/// Claims `key`, which must be vacant; the store's clock at the write.
async fn claim<S: Store>(store: &S, key: RecordKey, record: &Record) -> Timestamp {
    match store.insert(&key, record).await.expect("the store works") {
        Insert::Claimed { now } => now,
        Insert::Occupied { held, .. } => panic!("{key} should be vacant, is {held:?}"),
    }
}

/// Replaces the record of `claim`, which must hold `key`; the store's clock at the write.
async fn settle<S: Store>(store: &S, key: RecordKey, claim: ClaimId, record: &Record) -> Timestamp {
    match store.replace(&key, claim, record).await {
        Ok(Write::Applied { now }) => now,
        other => panic!("{key} should be held by {claim:?}: {other:?}"),
    }
}

async fn read<S: Store>(store: &S, key: RecordKey) -> Option<Held> {
    store.read(&key).await.expect("the store works").0
}
