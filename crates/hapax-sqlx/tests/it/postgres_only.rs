//! What only PostgreSQL can show: transactions that the server rolls back, and two processes that
//! have the same key at once.

use hapax_core::policy::Policy;
use hapax_sqlx::Options;
use sqlx::Postgres;
use tokio::task::JoinSet;

use crate::app::{App, patient};

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
