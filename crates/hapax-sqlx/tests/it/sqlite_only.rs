//! What only SQLite can show: its one writer is somebody else.

use std::time::Duration;

use hapax_sqlx::Options;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions};
use sqlx::{Connection, Sqlite, SqliteConnection};
use tokio::time::{Instant, interval, timeout};

use crate::app::{App, Base, patient};

/// The application, and a connection of somebody else who has the write lock.
async fn busy(busy_timeout: Duration, options: Options) -> (App<Sqlite>, SqliteConnection) {
    let folder = tempfile::tempdir().expect("a folder");
    let connect = SqliteConnectOptions::new()
        .filename(folder.path().join("test.db"))
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .busy_timeout(busy_timeout);
    let pool = SqlitePoolOptions::new().max_connections(5);
    let pool = pool.connect_with(connect.clone()).await;
    let pool = pool.expect("a database");
    Sqlite::make_table(&pool).await;
    let app = App::on(pool, Some(folder.into()), patient(), options).await;
    let other = SqliteConnection::connect_with(&connect).await;
    let mut other = other.expect("a connection");
    Sqlite::run_within(&mut other, "BEGIN IMMEDIATE")
        .await
        .expect("the lock");
    (app, other)
}

async fn is_refused_and_vacant(app: &App<Sqlite>, mut other: SqliteConnection) {
    let refused = app.send(Some("k"), "succeed", "a").await;
    assert_eq!(
        (refused.status, refused.problem().as_str()),
        (503, "store-unavailable")
    );
    assert!(refused.header("retry-after").is_some());
    assert_eq!((app.runs(), app.layer.under_way()), (0, 0));
    Sqlite::run_within(&mut other, "ROLLBACK")
        .await
        .expect("free");
    assert_eq!(
        (app.lines().await, Sqlite::count(&app.pool, "records").await),
        (0, 0)
    );
    // Another payload may have it: the key was not used.
    let next = app.send(Some("k"), "succeed", "b").await;
    assert_eq!((next.status, next.is_replayed()), (201, false));
    assert_eq!((app.lines().await, app.runs()), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_busy_database_is_tried_again_within_bounds_and_then_503_with_the_key_vacant() {
    const BUSY: Duration = Duration::from_millis(60);
    let options = Options {
        max_runs: 3,
        ..Options::default()
    };
    let (app, other) = busy(BUSY, options).await;
    let began = Instant::now();
    is_refused_and_vacant(&app, other).await;
    let took = began.elapsed();
    assert!(took >= 3 * BUSY, "three times: {took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_stays_busy_is_waited_for_as_long_as_the_set_up_says() {
    let options = Options {
        database_timeout: Duration::from_millis(100),
        ..Options::default()
    };
    let (app, other) = busy(Duration::from_secs(10), options).await;
    let refused = timeout(Duration::from_secs(5), is_refused_and_vacant(&app, other)).await;
    assert!(
        refused.is_ok(),
        "it waited for the lock and not for the time"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_runs_once_when_the_lock_is_free_again() {
    const BUSY: Duration = Duration::from_millis(20);
    let options = Options {
        max_runs: 1_000,
        ..Options::default()
    };
    let (app, mut other) = busy(BUSY, options).await;
    let mut requests = tokio::task::JoinSet::new();
    for _ in 0..10 {
        let app = app.clone();
        requests.spawn(async move { app.send(Some("k"), "succeed", "a").await });
    }
    // Until SQLite has said more than once that it is busy.
    let (began, mut ticks) = (Instant::now(), interval(Duration::from_millis(10)));
    while began.elapsed() < 10 * BUSY {
        ticks.tick().await;
    }
    assert_eq!((app.runs(), requests.try_join_next().is_none()), (0, true));
    Sqlite::run_within(&mut other, "ROLLBACK")
        .await
        .expect("free");
    for answer in requests.join_all().await {
        assert_eq!(answer.status, 201, "{answer:?}");
    }
    assert_eq!((app.lines().await, app.runs()), (1, 1));
}
