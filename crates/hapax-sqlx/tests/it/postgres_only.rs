//! What only PostgreSQL can show: transactions that the server rolls back, and two processes that
//! have the same key at once.

use hapax_core::policy::Policy;
use hapax_sqlx::{Isolation, Options};
use sqlx::Postgres;
use tokio::task::JoinSet;

use crate::app::{App, Base, patient};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_serialization_failure_is_run_again_within_bounds() {
    let app = App::<Postgres>::start(patient(), Options::default()).await;
    let answer = app.send(Some("k"), "fail-until 3", "a").await;
    assert_eq!((answer.status, app.runs(), app.lines().await), (201, 3, 1));

    let app = App::<Postgres>::start(patient(), Options::default()).await;
    let answer = app.send(Some("k"), "fail-until 100", "a").await;
    assert_eq!(
        (answer.status, answer.problem().as_str()),
        (503, "store-unavailable")
    );
    assert!(answer.header("retry-after").is_some());
    assert_eq!(
        (app.runs(), app.lines().await, app.layer.under_way()),
        (4, 0, 0)
    );
    // The key is vacant.
    assert_eq!(app.send(Some("k"), "succeed", "b").await.status, 201);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_another_process_has_is_in_progress_and_then_replayed() {
    let app = App::<Postgres>::start(patient(), Options::default()).await;
    let other = app.beside(Policy::default(), Options::default()).await;
    let waiting = app.beside(patient(), Options::default()).await;
    let first = tokio::spawn({
        let app = app.clone();
        async move { app.send(Some("k"), "wait", "a").await }
    });
    app.until_entered().await;
    let second = other.send(Some("k"), "wait", "a").await;
    assert_eq!(
        (second.status, second.problem().as_str()),
        (409, "in-progress")
    );
    let mut waiters = JoinSet::new();
    for _ in 0..20 {
        let waiting = waiting.clone();
        waiters.spawn(async move { waiting.send(Some("k"), "wait", "a").await });
    }
    app.controls.gate.add_permits(1);
    assert_eq!(first.await.expect("no panic").status, 201);
    let answers = waiters.join_all().await;
    assert!(
        answers
            .iter()
            .all(|answer| answer.status == 201 && answer.is_replayed())
    );
    assert_eq!((app.lines().await, other.runs(), waiting.runs()), (1, 0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_the_server_ends_leaves_nothing_behind() {
    let app = App::<Postgres>::start(patient(), Options::default()).await;
    let first = tokio::spawn({
        let app = app.clone();
        async move { app.send(Some("k"), "wait", "a").await }
    });
    app.until_entered().await;
    sqlx::query(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
         WHERE pid <> pg_backend_pid() AND datname = current_database() AND state LIKE 'idle in%'",
    )
    .execute(&app.pool)
    .await
    .expect("a superuser");
    app.controls.gate.add_permits(1);
    let first = first.await.expect("no panic");
    assert_eq!(
        (first.status, first.problem().as_str()),
        (503, "store-unavailable")
    );
    assert_eq!(app.lines().await, 0);
    assert_eq!(app.send(Some("k"), "succeed", "b").await.status, 201);
}

/// Two requests at once that the server cannot let both through: `max_runs` and whether both were
/// answered with success in the end.
async fn collide(isolation: Isolation, orders: [&'static str; 2], max_runs: u32) {
    let options = Options {
        isolation,
        max_runs,
        ..Options::default()
    };
    let app = App::<Postgres>::start(patient(), options).await;
    for statement in [
        "CREATE TABLE cells (id INTEGER PRIMARY KEY, touched INTEGER NOT NULL)",
        "INSERT INTO cells VALUES (1, 0), (2, 0)",
    ] {
        Postgres::run(&app.pool, statement).await;
    }
    let mut requests = JoinSet::new();
    for (key, orders) in ["k", "l"].into_iter().zip(orders) {
        let app = app.clone();
        requests.spawn(async move { (key, orders, app.send(Some(key), orders, key).await) });
    }
    app.until_entered().await;
    app.until_entered().await;
    app.controls.gate.add_permits(2);
    let mut refused = Vec::new();
    for (key, orders, answer) in requests.join_all().await {
        if answer.status != 201 {
            assert_eq!(
                (answer.status, answer.problem().as_str()),
                (503, "store-unavailable"),
                "{answer:?}"
            );
            refused.push((key, orders));
        }
    }
    let expected = usize::from(max_runs == 1);
    assert_eq!(refused.len(), expected, "{orders:?}, {max_runs} runs");
    assert_eq!(app.lines().await, 2 - refused.len() as i64);
    assert!(
        max_runs == 1 || app.runs() > 2,
        "{orders:?} did not collide"
    );
    // The key is vacant: a repeat runs, and does what the first did not.
    for (key, orders) in refused {
        let repeat = app.send(Some(key), orders, key).await;
        assert_eq!((repeat.status, repeat.is_replayed()), (201, false));
    }
    assert_eq!((app.lines().await, app.layer.under_way()), (2, 0));
    if orders[0].starts_with("cross") {
        let touched: i64 = sqlx::query_scalar("SELECT SUM(touched) FROM cells WHERE touched = 2")
            .fetch_one(&app.pool)
            .await
            .expect("a sum");
        assert_eq!(touched, 4, "each row once by each request");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadlock_is_run_again_within_bounds_and_each_effect_is_there_once() {
    for max_runs in [4, 1] {
        collide(Isolation::Default, ["cross 1 2", "cross 2 1"], max_runs).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_that_cannot_be_put_in_an_order_are_run_one_after_the_other() {
    for max_runs in [10, 1] {
        collide(Isolation::Serializable, ["sum", "sum"], max_runs).await;
    }
}

/// The server answers the COMMIT of a failed transaction with a rollback, and no error.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_that_goes_on_after_a_failed_statement_is_not_called_a_success() {
    let app = App::<Postgres>::start(patient(), Options::default()).await;
    for key in [Some("k"), None] {
        let answer = app.send(key, "go-on-after-a-failure", "a").await;
        assert!(answer.status >= 500, "{key:?}: {answer:?}");
        assert_eq!(app.lines().await, 0);
    }
    assert_eq!(app.send(Some("k"), "succeed", "b").await.status, 201);
}
