//! Connections to PostgreSQL that break: at the commit, and at every message of a keyed request.

use std::time::Duration;

use hapax_core::policy::Policy;
use hapax_sqlx::{Options, Records};
use sqlx::{Pool, Postgres};
use tokio::time::{Instant, interval};

use crate::app::{App, Base, patient};
use crate::flows::{Flow, Outside};
use crate::wire::{At, Fault, Wire};

/// The application behind a wire, and the database itself.
async fn app(options: Options) -> (App<Postgres>, Wire, Pool<Postgres>) {
    let (pool, wire, direct) = wired().await;
    let app = App::on(pool, None, patient(), options).await;
    (app, wire, direct)
}

async fn wired() -> (Pool<Postgres>, Wire, Pool<Postgres>) {
    wired_with(5).await
}

async fn wired_with(connections: u32) -> (Pool<Postgres>, Wire, Pool<Postgres>) {
    let url = crate::postgres::database().await;
    let connect = async |url: &str, connections| {
        let pool = sqlx::postgres::PgPoolOptions::new().max_connections(connections);
        pool.connect(url).await.expect("a database")
    };
    let direct = connect(&url, 1).await;
    Postgres::make_table(&direct).await;
    let wire = Wire::to(&url).await;
    (connect(&wire.url(), connections).await, wire, direct)
}

async fn counts(direct: &Pool<Postgres>) -> (i64, i64) {
    let lines = Postgres::count(direct, "lines").await;
    (lines, Postgres::count(direct, "records").await)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_whose_answer_is_lost_is_found_out() {
    for (fault, is_committed) in [
        (Fault::CutBefore, false),
        (Fault::CutAfter, true),
        (Fault::CutAnswer, true),
    ] {
        let (app, wire, direct) = app(Options::default()).await;
        wire.arm(At::Commit, fault);
        let first = app.send(Some("k"), "succeed", "a").await;
        assert!(wire.disarm(), "there was a commit");
        if is_committed {
            assert_eq!(first.status, 201, "{fault:?}");
            assert_eq!(first.header("idempotency-status"), Some("executed"));
            assert_eq!(counts(&direct).await, (1, 1), "{fault:?}");
        } else {
            assert_eq!(
                (first.status, first.problem().as_str()),
                (503, "store-unavailable")
            );
            assert!(first.header("retry-after").is_some() && first.is_retryable());
            assert_eq!(counts(&direct).await, (0, 0), "{fault:?}");
        }
        assert_eq!((app.runs(), app.layer.under_way()), (1, 0), "{fault:?}");
        let repeat = app.send(Some("k"), "succeed", "a").await;
        assert_eq!(
            (repeat.status, repeat.is_replayed()),
            (201, is_committed),
            "{fault:?}"
        );
        assert_eq!(counts(&direct).await, (1, 1), "{fault:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_begin_that_nobody_waits_for_any_more_leaves_no_open_transaction_in_the_pool() {
    let options = Options {
        database_timeout: Duration::from_millis(300),
        ..Options::default()
    };
    let (pool, wire, direct) = wired_with(1).await;
    let app = App::on(pool.clone(), None, patient(), options).await;
    wire.arm(At::Begin, Fault::DelayAnswer);
    let first = app.send(Some("k"), "succeed", "a").await;
    assert!(wire.disarm(), "there was a begin");
    assert_eq!(
        (first.status, first.problem().as_str()),
        (503, "store-unavailable")
    );
    wire.release();
    // The application's own write, on the one connection that there is.
    sqlx::query("INSERT INTO lines (line) VALUES ('own')")
        .execute(&pool)
        .await
        .expect("it is written");
    assert_eq!(counts(&direct).await, (1, 0), "it was acknowledged");
    let repeat = app.send(Some("k"), "succeed", "a").await;
    assert_eq!((repeat.status, repeat.is_replayed()), (201, false));
    assert_eq!((counts(&direct).await, app.runs()), ((2, 1), 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_nobody_can_be_asked_about_is_no_failure_and_a_repeat_finds_out() {
    let options = Options {
        database_timeout: Duration::from_millis(500),
        ..Options::default()
    };
    let (app, wire, direct) = app(options).await;
    wire.arm(At::Commit, Fault::CutAll);
    let first = app.send(Some("k"), "succeed", "a").await;
    assert_eq!(
        (first.status, first.problem().as_str()),
        (504, "outcome-unknown")
    );
    assert!(first.is_retryable(), "{first:?}");
    assert_eq!(counts(&direct).await, (1, 1));
    // While the database is away, nothing runs.
    let away = app.send(Some("k"), "succeed", "a").await;
    assert_eq!(
        (away.status, away.problem().as_str()),
        (503, "store-unavailable")
    );
    wire.heal();
    let repeat = app.send(Some("k"), "succeed", "a").await;
    assert_eq!(
        (repeat.status, repeat.content.as_str()),
        (201, "line a, run 1")
    );
    assert!(repeat.is_replayed());
    assert_eq!((counts(&direct).await, app.runs()), ((1, 1), 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_cut_at_any_message_leaves_one_effect_or_none_and_no_key_stuck() {
    let (app, wire, direct) = app(Options::default()).await;
    let (mut cuts, mut succeeded) = (0, 0);
    for fault in [Fault::CutBefore, Fault::CutAfter, Fault::CutAnswer] {
        for number in 0.. {
            let before = counts(&direct).await.0;
            let key = format!("{fault:?}-{number}");
            wire.arm(At::Message(number), fault);
            let first = app.send(Some(&key), "succeed", &key).await;
            let is_struck = wire.disarm();
            let effects = counts(&direct).await.0 - before;
            assert_eq!(app.layer.under_way(), 0, "{key}");
            if first.status == 201 {
                assert_eq!(effects, 1, "{key}");
            } else {
                assert!(matches!(first.status, 500 | 503), "{key}: {first:?}");
                assert_eq!(effects, 0, "{key}: {first:?}");
            }
            let repeat = app.send(Some(&key), "succeed", &key).await;
            assert_eq!(
                (repeat.status, repeat.is_replayed()),
                (201, effects == 1),
                "{key}: {first:?}"
            );
            assert_eq!(counts(&direct).await.0, before + 1, "{key}");
            cuts += u32::from(is_struck);
            succeeded += u32::from(is_struck && first.status == 201);
            if !is_struck {
                break;
            }
        }
    }
    println!("{cuts} cuts: {succeeded} of them behind a commit, or noticed in time");
    // The least that a keyed request says: a begin, four statements, a commit.
    assert!(cuts >= 3 * 6 && succeeded > 0 && succeeded < cuts);
}

/// Each step is committed once, and what is outside is asked with one key, wherever the connection is
/// cut; no failure on the way says that nothing has happened.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_cut_at_any_round_trip_of_a_request_in_steps_lets_a_repeat_go_on() {
    let (pool, wire, direct) = wired().await;
    let outside = Outside::default();
    let flow = Flow::<Postgres>::on(pool, None, outside.clone()).await;
    let (mut requests, mut cuts, mut stopped) = (0, 0, 0);
    for fault in [Fault::CutBefore, Fault::CutAnswer] {
        for number in 0.. {
            let key = format!("{fault:?}-{number}");
            wire.arm(At::RoundTrip(number), fault);
            let first = flow.send(&key, "go", &key).await;
            let is_struck = wire.disarm();
            match (first.status, first.content.as_str()) {
                (201, _) => {}
                // Before the handler ran at all.
                (503, _) => assert_eq!(first.problem(), "store-unavailable"),
                _ => {
                    assert_eq!(
                        (first.status, first.problem().as_str()),
                        (504, "outcome-unknown"),
                        "{key}"
                    );
                    stopped += 1;
                }
            }
            assert!(first.status == 201 || first.is_retryable(), "{key}");
            let repeat = flow.send(&key, "go", &key).await;
            let expected = format!("order {key}, charged");
            assert_eq!((repeat.status, &repeat.content), (201, &expected), "{key}");
            assert!(repeat.is_replayed() || first.status != 201, "{key}");
            requests += 1;
            assert_eq!(counts(&direct).await, (requests, requests), "{key}");
            let mut keys = outside.keys();
            keys.sort();
            keys.dedup();
            assert_eq!(keys.len() as i64, requests, "{key}: one key a request");
            assert_eq!(Postgres::count(&direct, "flows").await, 0, "{key}");
            if !is_struck {
                break;
            }
            cuts += 1;
        }
    }
    println!("{cuts} cuts, {stopped} of them on the way");
    assert!(cuts > 20 && stopped > 0 && stopped < cuts);
}

/// A commit that waits for a synchronous standby is in nobody's sight, and may still come true.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_waits_for_a_standby_is_no_failure_and_a_repeat_finds_out() {
    let url = crate::postgres::database().await;
    let connect = async || {
        let pool = sqlx::postgres::PgPoolOptions::new().max_connections(5);
        pool.connect(&url).await.expect("a database")
    };
    let direct = connect().await;
    Postgres::make_table(&direct).await;
    Records::open(direct.clone()).await.expect("records");
    Postgres::run(
        &direct,
        "DO $$ BEGIN EXECUTE format(
             'ALTER DATABASE %I SET synchronous_commit = on', current_database()); END $$",
    )
    .await;
    let options = Options {
        database_timeout: Duration::from_millis(500),
        ..Options::default()
    };
    let impatient = Policy::default();
    let app = App::<Postgres>::on(connect().await, None, impatient, options).await;
    let first = app.send(Some("k"), "succeed", "a").await;
    assert_eq!(
        (first.status, first.problem().as_str()),
        (504, "outcome-unknown")
    );
    assert!(first.is_retryable(), "{first:?}");
    assert_eq!(counts(&direct).await, (0, 0));
    let early = app.send(Some("k"), "succeed", "a").await;
    assert_eq!(
        (early.status, early.problem().as_str()),
        (409, "in-progress")
    );
    // An operator ends the wait: the server commits here, warns, and answers with success.
    Postgres::run(
        &direct,
        "SELECT pg_cancel_backend(pid) FROM pg_stat_activity
         WHERE wait_event = 'SyncRep' AND datname = current_database()",
    )
    .await;
    let deadline = Instant::now() + Duration::from_secs(30);
    let mut ticks = interval(Duration::from_millis(10));
    let repeat = loop {
        let repeat = app.send(Some("k"), "succeed", "a").await;
        if repeat.status != 409 {
            break repeat;
        }
        assert!(Instant::now() < deadline, "the key is stuck");
        ticks.tick().await;
    };
    assert_eq!(
        (repeat.status, repeat.content.as_str()),
        (201, "line a, run 1")
    );
    assert!(repeat.is_replayed());
    assert_eq!((counts(&direct).await, app.runs()), ((1, 1), 1));
}
