//! The layer on real databases: each scenario on SQLite and on PostgreSQL.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test that cannot go on has failed"
)]

mod app;
mod flows;
mod guide;
mod lost;
mod observing;
mod outbox;
mod paths;
mod postgres;
mod postgres_only;
mod scenarios;
mod sqlite_only;
mod wire;

/// Every scenario as a test on each database.
macro_rules! on_both {
    ($($module:ident::$scenario:ident)*) => {
        mod on_sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $scenario() {
                crate::$module::$scenario::<sqlx::Sqlite>().await;
            })*
        }
        mod on_postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $scenario() {
                crate::$module::$scenario::<sqlx::Postgres>().await;
            })*
        }
    };
}

on_both! {
    scenarios::a_repeat_gets_the_first_answer_byte_for_byte
    scenarios::another_payload_under_a_key_is_refused
    scenarios::what_fails_leaves_neither_effect_nor_record_and_the_key_is_vacant
    scenarios::a_refusal_for_good_takes_its_effects_back_and_is_remembered
    scenarios::a_refusal_is_forgotten_where_the_set_up_says_so
    scenarios::a_handler_that_takes_too_long_is_stopped_and_rolled_back
    scenarios::a_client_that_hangs_up_changes_nothing
    scenarios::a_hundred_duplicates_at_once_make_one_commit
    scenarios::a_duplicate_of_a_running_request_is_told_so_at_once_where_it_may_not_wait
    scenarios::waiting_duplicates_hold_no_connection
    scenarios::an_expired_record_leaves_the_key_vacant_and_is_swept
    scenarios::a_damaged_record_is_an_alarm_and_never_an_answer
    scenarios::a_request_without_a_key_runs_in_a_transaction_all_the_same
    scenarios::an_answer_too_large_to_keep_is_sent_in_full_and_pointed_to_later
    scenarios::what_is_refused_before_the_claim_does_not_run
    scenarios::tables_that_are_there_are_used_and_a_newer_version_is_refused
    flows::a_crash_between_two_steps_goes_on_after_the_last_that_is_committed
    flows::another_payload_cannot_have_a_key_of_which_a_step_is_committed
    flows::a_refusal_after_a_committed_step_is_final
    flows::the_completer_finishes_what_was_abandoned
    flows::a_request_left_before_its_first_step_binds_its_key_only_for_a_while
    flows::two_processes_at_once_commit_each_step_once
    observing::an_observing_route_runs_everything_and_says_what_it_would_have_stopped
    observing::recovery_points_cannot_be_only_observed
    paths::the_id_in_the_path_is_the_key
    paths::a_hundred_puts_of_one_id_at_once_make_one_commit
    paths::a_path_and_a_header_have_to_agree
    paths::a_route_without_the_parameter_runs_nothing
    outbox::an_event_is_sent_if_and_only_if_its_cause_was_committed
    outbox::an_event_that_was_not_sent_is_due_again_with_the_same_id
    outbox::two_at_once_send_each_event_once
}
