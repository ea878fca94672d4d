//! A route that only observes: every request runs, and what would have been stopped is told.

use std::sync::{Arc, Mutex};

use hapax_core::event::{Event, Observer, Outcome};
use hapax_core::policy::{KeyRequirement, Mode, Policy};
use hapax_sqlx::{Options, Records, TransactionLayer};
use sqlx::Postgres;
use tokio::task::JoinSet;

use crate::app::{App, Base, patient};

/// What enforcing would have done.
#[derive(Debug, Default)]
struct WouldHave(Mutex<Vec<Outcome>>);

impl Observer for WouldHave {
    fn observe(&self, event: &Event<'_>) {
        if let Event::WouldHave { outcome, .. } = event {
            self.0.lock().expect("no panic within").push(*outcome);
        }
    }
}

impl WouldHave {
    fn take(&self) -> Vec<Outcome> {
        std::mem::take(&mut *self.0.lock().expect("no panic within"))
    }
}

async fn observed<DB: Base>() -> (App<DB>, Arc<WouldHave>) {
    let policy = Policy {
        mode: Mode::Observe,
        key: KeyRequirement::Required,
        max_body: 10,
        ..patient()
    };
    let (pool, folder) = DB::pool().await;
    let watch = Arc::new(WouldHave::default());
    let observer = Arc::clone(&watch) as Arc<dyn Observer>;
    let app = App::watched(pool, folder, policy, Options::default(), observer).await;
    (app, watch)
}

pub(crate) async fn an_observing_route_runs_everything_and_says_what_it_would_have_stopped<
    DB: Base,
>() {
    let (app, watch) = observed::<DB>().await;
    let mut lines = 0;
    for (key, orders, content, status, would_have) in [
        (Some("k"), "succeed", "a", 201, Outcome::Executed),
        (Some("k"), "succeed", "a", 201, Outcome::Replayed),
        (Some("k"), "succeed", "b", 201, Outcome::Mismatch),
        (None, "succeed", "a", 201, Outcome::KeyMissing),
        (Some("a b"), "succeed", "a", 201, Outcome::KeyInvalid),
        (Some("l"), "succeed", "more than ten", 201, Outcome::Refused),
        (Some("m"), "panic", "a", 500, Outcome::Executed),
        (Some("m"), "succeed", "a", 201, Outcome::Executed),
        (Some("m"), "panic", "a", 500, Outcome::Replayed),
        (Some("n"), "answer 422", "a", 422, Outcome::Executed),
        (Some("n"), "answer 422", "a", 422, Outcome::RejectedReplayed),
    ] {
        lines += i64::from(status == 201);
        let answer = app.send(key, orders, content).await;
        let case = format!("{key:?}, {orders}, {content}: {answer:?}");
        assert_eq!(
            (answer.status, answer.is_replayed()),
            (status, false),
            "{case}"
        );
        if status == 201 {
            assert_eq!(
                answer.content,
                format!("line {content}, run {}", app.runs())
            );
        }
        // What is no keyed request at all is passed on as it is.
        if !matches!(
            would_have,
            Outcome::KeyMissing | Outcome::KeyInvalid | Outcome::Refused
        ) {
            assert_eq!(
                answer.header("idempotency-status"),
                Some("observed"),
                "{case}"
            );
        }
        assert_eq!(app.lines().await, lines, "{case}");
        assert_eq!(watch.take(), [would_have], "{case}");
    }
    assert_eq!((app.runs(), app.layer.under_way()), (11, 0));
    // What was only watched does not answer for a route that enforces.
    let enforcing = app.beside(patient(), Options::default()).await;
    let first = enforcing.send(Some("k"), "succeed", "a").await;
    assert_eq!((first.status, first.is_replayed()), (201, false));
    assert!(
        enforcing
            .send(Some("k"), "succeed", "a")
            .await
            .is_replayed()
    );
}

pub(crate) async fn recovery_points_cannot_be_only_observed<DB: Base>() {
    let (pool, _folder) = DB::pool().await;
    let records = Records::open(pool).await.expect("records");
    let policy = Policy {
        mode: Mode::Observe,
        key: KeyRequirement::Required,
        ..Policy::default()
    };
    let options = Options {
        recovery_points: true,
        ..Options::default()
    };
    let refused = TransactionLayer::new(records, policy, Arc::new(()), options);
    assert!(
        refused
            .expect_err("refused")
            .to_string()
            .contains("observes")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn duplicates_at_once_all_run_on_an_observing_route() {
    let (app, watch) = observed::<Postgres>().await;
    let mut requests = JoinSet::new();
    for _ in 0..3 {
        let app = app.clone();
        requests.spawn(async move { app.send(Some("k"), "wait", "a").await });
    }
    for _ in 0..3 {
        app.until_entered().await;
    }
    app.controls.gate.add_permits(3);
    let answers = requests.join_all().await;
    assert!(answers.iter().all(|answer| answer.status == 201));
    assert_eq!((app.lines().await, app.runs()), (3, 3));
    let mut told = watch.take();
    told.sort();
    assert_eq!(
        told,
        [Outcome::Executed, Outcome::InProgress, Outcome::InProgress]
    );
}
