//! What has to hold on either database.

use std::time::Duration;

use hapax_core::policy::{KeyRequirement, Policy};
use hapax_core::secret::Secret;
use hapax_sqlx::{Options, Records, RecordsError, Rejections};
use tokio::task::JoinSet;
use tokio::time::{Instant, interval};

use crate::app::{Answer, App, Base, patient};

const PATIENCE: Duration = Duration::from_secs(30);

async fn app<DB: Base>() -> App<DB> {
    App::start(patient(), Options::default()).await
}

/// Tries until it holds.
async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let deadline = Instant::now() + PATIENCE;
    let mut ticks = interval(Duration::from_millis(10));
    while !holds().await {
        assert!(Instant::now() < deadline, "{what}");
        ticks.tick().await;
    }
}

pub(crate) async fn a_repeat_gets_the_first_answer_byte_for_byte<DB: Base>() {
    let app = app::<DB>().await;
    let first = app.send(Some("k"), "succeed", "a").await;
    assert_eq!(
        (first.status, first.content.as_str()),
        (201, "line a, run 1")
    );
    assert_eq!(first.header("idempotency-status"), Some("executed"));
    assert_eq!(first.header("idempotency-key"), Some("k"));
    assert!(first.header("idempotency-expires").is_some() && !first.is_replayed());
    // By another process, too: nothing of it is in memory only.
    let other = app.beside(patient(), Options::default()).await;
    for app in [&app, &other, &app] {
        let repeat = app.send(Some("\"k\""), "succeed", "a").await;
        assert_eq!(
            (repeat.status, &repeat.content),
            (first.status, &first.content)
        );
        assert!(repeat.is_replayed());
        assert_eq!(repeat.header("idempotency-status"), Some("replayed"));
        for field in ["location", "x-kept", "content-type"] {
            assert_eq!(repeat.header(field), first.header(field), "{field}");
        }
    }
    assert_eq!((app.lines().await, app.runs(), other.runs()), (1, 1, 0));
    assert_eq!(app.send(Some("l"), "succeed", "a").await.status, 201);
    assert_eq!(app.lines().await, 2);
}

pub(crate) async fn another_payload_under_a_key_is_refused<DB: Base>() {
    let app = app::<DB>().await;
    app.send(Some("k"), "succeed", "a").await;
    let other = app.send(Some("k"), "succeed", "b").await;
    assert_eq!(
        (other.status, other.problem().as_str()),
        (422, "key-reused")
    );
    assert_eq!((app.lines().await, app.runs()), (1, 1));
}

pub(crate) async fn what_fails_leaves_neither_effect_nor_record_and_the_key_is_vacant<DB: Base>() {
    let app = app::<DB>().await;
    for (orders, status) in [
        ("panic", 500),
        ("answer 500", 500),
        ("answer 502", 502),
        ("answer 503", 503),
        ("answer 409", 409),
        ("answer 401", 401),
        ("roll-back", 201),
        ("break", 500),
    ] {
        let failed = app.send(Some("k"), orders, "a").await;
        assert_eq!(failed.status, status, "{orders}: {failed:?}");
        assert_eq!(failed.header("idempotency-status"), None, "{orders}");
        if orders == "panic" || orders == "break" {
            assert_eq!(failed.problem(), "rolled-back", "{orders}");
        }
        assert_eq!(app.lines().await, 0, "{orders}");
        assert_eq!(DB::count(&app.pool, "records").await, 0, "{orders}");
        assert_eq!(app.layer.under_way(), 0, "{orders}");
    }
    let runs = app.runs();
    let first = app.send(Some("k"), "succeed", "a").await;
    assert_eq!((first.status, first.is_replayed()), (201, false));
    assert_eq!((app.lines().await, app.runs()), (1, runs + 1));
}

pub(crate) async fn a_refusal_for_good_takes_its_effects_back_and_is_remembered<DB: Base>() {
    let app = app::<DB>().await;
    let refused = app.send(Some("k"), "answer 422", "a").await;
    assert_eq!((refused.status, refused.content.as_str()), (422, "run 1"));
    assert_eq!(
        (app.lines().await, DB::count(&app.pool, "records").await),
        (0, 1)
    );
    let repeat = app.send(Some("k"), "answer 422", "a").await;
    assert_eq!((repeat.status, &repeat.content), (422, &refused.content));
    assert!(repeat.is_replayed());
    // Another refusal under the key, a failure that leaves the refusal, and then a success.
    let again = app.send(Some("k"), "answer 404", "b").await;
    assert_eq!((again.status, again.is_replayed()), (404, false));
    let failed = app.send(Some("k"), "panic", "c").await;
    assert_eq!(failed.status, 500);
    assert!(app.send(Some("k"), "answer 404", "b").await.is_replayed());
    let corrected = app.send(Some("k"), "succeed", "d").await;
    assert_eq!((corrected.status, corrected.is_replayed()), (201, false));
    assert_eq!(app.lines().await, 1);
    assert!(app.send(Some("k"), "succeed", "d").await.is_replayed());
    let old = app.send(Some("k"), "answer 422", "a").await;
    assert_eq!((old.status, old.problem().as_str()), (422, "key-reused"));
}

pub(crate) async fn a_refusal_is_forgotten_where_the_set_up_says_so<DB: Base>() {
    let options = Options {
        rejections: Rejections::Forget,
        ..Options::default()
    };
    let app = App::<DB>::start(patient(), options).await;
    for run in 1..3 {
        let refused = app.send(Some("k"), "answer 422", "a").await;
        assert_eq!(
            (refused.status, refused.is_replayed(), app.runs()),
            (422, false, run)
        );
    }
    assert_eq!(
        (app.lines().await, DB::count(&app.pool, "records").await),
        (0, 0)
    );
}

pub(crate) async fn a_handler_that_takes_too_long_is_stopped_and_rolled_back<DB: Base>() {
    let policy = Policy {
        upstream_timeout: Duration::from_millis(50),
        ..patient()
    };
    let app = App::<DB>::start(policy, Options::default()).await;
    let late = app.send(Some("k"), "wait", "a").await;
    assert_eq!((late.status, late.problem().as_str()), (500, "rolled-back"));
    assert_eq!((app.lines().await, app.layer.under_way()), (0, 0));
    app.controls.gate.add_permits(1);
    assert_eq!(app.send(Some("k"), "wait", "a").await.status, 201);
    assert_eq!(app.lines().await, 1);
}

pub(crate) async fn a_client_that_hangs_up_changes_nothing<DB: Base>() {
    let app = app::<DB>().await;
    let request = tokio::spawn({
        let app = app.clone();
        async move { app.send(Some("k"), "wait", "a").await }
    });
    app.until_entered().await;
    // What a server does when the connection ends: the future is dropped.
    request.abort();
    assert!(request.await.is_err());
    assert_eq!(app.lines().await, 0);
    app.controls.gate.add_permits(1);
    until("the order of a client that left", || async {
        app.lines().await == 1
    })
    .await;
    assert!(app.send(Some("k"), "wait", "a").await.is_replayed());
    assert_eq!((app.lines().await, app.runs()), (1, 1));
}

pub(crate) async fn a_hundred_duplicates_at_once_make_one_commit<DB: Base>() {
    let options = Options {
        max_waiters_per_key: 1_000,
        ..Options::default()
    };
    let app = App::<DB>::start(patient(), options).await;
    let mut requests = JoinSet::new();
    for _ in 0..100 {
        let app = app.clone();
        requests.spawn(async move { app.send(Some("k"), "succeed", "a").await });
    }
    let answers = requests.join_all().await;
    let wrong: Vec<&Answer> = answers
        .iter()
        .filter(|answer| answer.status != 201)
        .collect();
    assert!(wrong.is_empty(), "{wrong:?}");
    let replayed = answers.iter().filter(|answer| answer.is_replayed());
    assert_eq!(replayed.count(), 99);
    assert!(
        answers
            .iter()
            .all(|answer| answer.content == "line a, run 1")
    );
    assert_eq!(
        (app.lines().await, app.runs(), app.layer.under_way()),
        (1, 1, 0)
    );
}

pub(crate) async fn a_duplicate_of_a_running_request_is_told_so_at_once_where_it_may_not_wait<
    DB: Base,
>() {
    let app = App::<DB>::start(Policy::default(), Options::default()).await;
    let first = tokio::spawn({
        let app = app.clone();
        async move { app.send(Some("k"), "wait", "a").await }
    });
    app.until_entered().await;
    let second = app.send(Some("k"), "wait", "a").await;
    assert_eq!(
        (second.status, second.problem().as_str()),
        (409, "in-progress")
    );
    assert!(second.header("retry-after").is_some());
    // Judged before "in progress" (P12): a reused key is a client's bug.
    let other = app.send(Some("k"), "wait", "b").await;
    assert_eq!(
        (other.status, other.problem().as_str()),
        (422, "key-reused")
    );
    app.controls.gate.add_permits(1);
    assert_eq!(first.await.expect("no panic").status, 201);
    assert!(app.send(Some("k"), "wait", "a").await.is_replayed());
    assert_eq!((app.lines().await, app.runs()), (1, 1));
}

pub(crate) async fn waiting_duplicates_hold_no_connection<DB: Base>() {
    let options = Options {
        max_waiters_per_key: 1_000,
        ..Options::default()
    };
    let app = App::<DB>::start(patient(), options).await;
    let mut requests = JoinSet::new();
    for _ in 0..100 {
        let app = app.clone();
        requests.spawn(async move { app.send(Some("k"), "wait", "a").await });
    }
    app.until_entered().await;
    // Of five connections one is the first attempt's; four can be had at once, again and again.
    for _ in 0..20 {
        let mut held = Vec::new();
        for _ in 0..4 {
            let acquired = tokio::time::timeout(PATIENCE, app.pool.acquire()).await;
            held.push(acquired.expect("in time").expect("a connection"));
        }
    }
    app.controls.gate.add_permits(1);
    let answers = requests.join_all().await;
    assert!(answers.iter().all(|answer| answer.status == 201));
    assert_eq!((app.lines().await, app.runs()), (1, 1));
}

pub(crate) async fn an_expired_record_leaves_the_key_vacant_and_is_swept<DB: Base>() {
    let policy = Policy {
        retention: Duration::from_millis(300),
        ..patient()
    };
    let app = App::<DB>::start(policy, Options::default()).await;
    assert!(!app.send(Some("k"), "succeed", "a").await.is_replayed());
    until("the key is vacant", || async {
        !app.send(Some("k"), "succeed", "a").await.is_replayed()
    })
    .await;
    assert_eq!(app.runs(), 2);

    let lasting = app.beside(patient(), Options::default()).await;
    lasting.send(Some("l"), "succeed", "a").await;
    let records = Records::open(app.pool.clone()).await.expect("records");
    until("the expired record is swept", || async {
        records.sweep(10_000).await.expect("a sweep") == 1
    })
    .await;
    assert_eq!(DB::count(&app.pool, "records").await, 1);
    assert!(lasting.send(Some("l"), "succeed", "a").await.is_replayed());
}

pub(crate) async fn a_damaged_record_is_an_alarm_and_never_an_answer<DB: Base>() {
    for damage in [
        "UPDATE hapax_records SET record = substr(record, 1, length(record) - 1)",
        "UPDATE hapax_records SET written_at = written_at + 1",
        "UPDATE hapax_records SET claim = key",
    ] {
        let app = app::<DB>().await;
        app.send(Some("k"), "succeed", "a").await;
        DB::run(&app.pool, damage).await;
        let repeat = app.send(Some("k"), "succeed", "a").await;
        assert_eq!(
            (repeat.status, repeat.problem().as_str()),
            (503, "store-unavailable")
        );
        assert_eq!((app.lines().await, app.runs()), (1, 1), "{damage}");
    }
}

pub(crate) async fn a_request_without_a_key_runs_in_a_transaction_all_the_same<DB: Base>() {
    let app = app::<DB>().await;
    for (orders, status, lines) in [
        ("succeed", 201, 1),
        ("succeed", 201, 2),
        ("answer 422", 422, 2),
        ("answer 500", 500, 2),
        ("panic", 500, 2),
        ("roll-back", 201, 2),
    ] {
        let answer = app.send(None, orders, "a").await;
        assert_eq!(
            (answer.status, app.lines().await),
            (status, lines),
            "{orders}"
        );
        assert_eq!(answer.header("idempotency-status"), None);
    }
    assert_eq!(DB::count(&app.pool, "records").await, 0);
}

pub(crate) async fn an_answer_too_large_to_keep_is_sent_in_full_and_pointed_to_later<DB: Base>() {
    let policy = Policy {
        max_stored_response: 1_000,
        ..patient()
    };
    let app = App::<DB>::start(policy, Options::default()).await;
    let first = app.send(Some("k"), "large 5000", "a").await;
    assert_eq!((first.status, first.content.len()), (201, 5_000));
    let repeat = app.send(Some("k"), "large 5000", "a").await;
    assert_eq!(
        (repeat.status, repeat.header("location")),
        (303, Some("/lines/1"))
    );
    assert_eq!((app.lines().await, app.runs()), (1, 1));
}

pub(crate) async fn what_is_refused_before_the_claim_does_not_run<DB: Base>() {
    let policy = Policy {
        key: KeyRequirement::Required,
        max_body: 10,
        ..patient()
    };
    let app = App::<DB>::start(policy, Options::default()).await;
    for (key, content, status, problem) in [
        (None, "a", 400, "key-missing"),
        (Some("a b"), "a", 400, "key-invalid"),
        (Some("k"), "more than ten", 413, "body-too-large"),
    ] {
        let answer = app.send(key, "succeed", content).await;
        assert_eq!(
            (answer.status, answer.problem().as_str()),
            (status, problem)
        );
    }
    assert_eq!((app.runs(), DB::count(&app.pool, "records").await), (0, 0));
}

pub(crate) async fn tables_that_are_there_are_used_and_a_newer_version_is_refused<DB: Base>() {
    let (pool, _folder) = DB::pool().await;
    Records::open(pool.clone()).await.expect("the first");
    Records::open(pool.clone()).await.expect("the second");
    DB::run(&pool, "UPDATE hapax_meta SET version = 2").await;
    let error = Records::open(pool).await.expect_err("from the future");
    assert!(
        matches!(error, RecordsError::Version { found: 2 }),
        "{error}"
    );

    // A secret of the application's own is not written down, and cannot be forgotten.
    let (pool, _folder) = DB::pool().await;
    let secret = || Secret::from_bytes([7; 32]);
    Records::open_with(pool.clone(), secret())
        .await
        .expect("with a secret");
    Records::open_with(pool.clone(), secret())
        .await
        .expect("again");
    let error = Records::open(pool).await.expect_err("without it");
    assert!(matches!(error, RecordsError::Secret), "{error}");
}
