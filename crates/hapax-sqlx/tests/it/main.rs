//! The layer on real databases: each scenario on SQLite and on PostgreSQL.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on has failed"
)]

mod app;
mod guide;
mod postgres;
mod postgres_only;
mod scenarios;

/// Every scenario as a test on each database.
macro_rules! on_both {
    ($($scenario:ident)*) => {
        mod on_sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $scenario() {
                crate::scenarios::$scenario::<sqlx::Sqlite>().await;
            })*
        }
        mod on_postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $scenario() {
                crate::scenarios::$scenario::<sqlx::Postgres>().await;
            })*
        }
    };
}

on_both! {
    a_repeat_gets_the_first_answer_byte_for_byte
    another_payload_under_a_key_is_refused
    what_fails_leaves_neither_effect_nor_record_and_the_key_is_vacant
    a_refusal_for_good_takes_its_effects_back_and_is_remembered
    a_refusal_is_forgotten_where_the_set_up_says_so
    a_handler_that_takes_too_long_is_stopped_and_rolled_back
    a_client_that_hangs_up_changes_nothing
    a_hundred_duplicates_at_once_make_one_commit
    a_duplicate_of_a_running_request_is_told_so_at_once_where_it_may_not_wait
    waiting_duplicates_hold_no_connection
    an_expired_record_leaves_the_key_vacant_and_is_swept
    a_damaged_record_is_an_alarm_and_never_an_answer
    a_request_without_a_key_runs_in_a_transaction_all_the_same
    an_answer_too_large_to_keep_is_sent_in_full_and_pointed_to_later
    what_is_refused_before_the_claim_does_not_run
    tables_that_are_there_are_used_and_a_newer_version_is_refused
}
