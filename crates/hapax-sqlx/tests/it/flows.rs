//! Recovery points: a handler that calls the outside in between.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Request, Response, StatusCode};
use axum::response::IntoResponse;
use axum::routing::post;
use hapax_core::policy::{KeyRequirement, Policy};
use hapax_sqlx::{DatabaseError, Options, Records, Step, Steps, TransactionLayer};
use tokio::task::JoinSet;
use tower::{Layer, Service};

use crate::app::{Answer, Base, patient, send};

/// Where the outside is told what was asked of it, and with which key.
#[derive(Clone, Default)]
pub(crate) struct Outside {
    runs: Arc<AtomicU32>,
    keys: Arc<Mutex<Vec<String>>>,
}

impl Outside {
    pub(crate) fn keys(&self) -> Vec<String> {
        self.keys.lock().expect("no panic within").clone()
    }
}

/// An order and a charge, each a step. `X-Do` is `crash N`: the first run panics at point N.
async fn handler<DB: Base>(
    State(outside): State<Outside>,
    steps: Steps<DB>,
    headers: HeaderMap,
    content: Bytes,
) -> Result<Response<Body>, DatabaseError> {
    let run = outside.runs.fetch_add(1, Ordering::SeqCst) + 1;
    let orders = headers["x-do"].to_str().expect("text").to_owned();
    let reach = |point: &str| assert!(run > 1 || orders != format!("crash {point}"), "as told");
    reach("before any step");
    let line = String::from_utf8_lossy(&content).into_owned();
    let order = match steps.step("order").await? {
        Step::Done(order) => order,
        Step::Due(due) => {
            let mut tx = due.begin().await?;
            DB::add_line(&mut **tx, &line).await?;
            reach("before a commit");
            tx.commit(format!("order {line}")).await?
        }
    };
    reach("between two steps");
    if orders == "refuse" {
        return Ok((StatusCode::UNPROCESSABLE_ENTITY, "no").into_response());
    }
    let charge = match steps.step("charge").await? {
        Step::Done(charge) => charge,
        Step::Due(due) => {
            let key = due.key().to_owned();
            outside.keys.lock().expect("no panic within").push(key);
            reach("between a call and its result");
            due.done("charged").await?
        }
    };
    reach("after the last step");
    Ok((StatusCode::CREATED, format!("{order}, {charge}")).into_response())
}

pub(crate) struct Flow<DB: Base> {
    pool: sqlx::Pool<DB>,
    pub(crate) outside: Outside,
    layer: TransactionLayer<DB>,
    behind: Router,
    _folder: Option<Arc<tempfile::TempDir>>,
}

impl<DB: Base> Flow<DB> {
    async fn start() -> Self {
        let (pool, folder) = DB::pool().await;
        Self::on(pool, folder, Outside::default()).await
    }

    pub(crate) async fn on(
        pool: sqlx::Pool<DB>,
        folder: Option<Arc<tempfile::TempDir>>,
        outside: Outside,
    ) -> Self {
        let records = Records::open(pool.clone()).await.expect("records");
        let policy = Policy {
            key: KeyRequirement::Required,
            ..patient()
        };
        let options = Options {
            recovery_points: true,
            ..Options::default()
        };
        let layer = TransactionLayer::new(records, policy, Arc::new(()), options).expect("a layer");
        let behind = Router::new()
            .route("/lines", post(handler::<DB>))
            .with_state(outside.clone());
        Self {
            pool,
            outside,
            layer,
            behind,
            _folder: folder,
        }
    }

    pub(crate) async fn send(&self, key: &str, orders: &str, content: &str) -> Answer {
        let router = self.behind.clone().layer(self.layer.clone());
        send(router, Some(key), orders, content).await
    }

    async fn count(&self, table: &'static str) -> i64 {
        DB::count(&self.pool, table).await
    }

    fn runs(&self) -> u32 {
        self.outside.runs.load(Ordering::SeqCst)
    }
}

pub(crate) async fn a_crash_between_two_steps_goes_on_after_the_last_that_is_committed<DB: Base>() {
    for (point, lines, calls) in [
        ("before any step", 0, 1),
        ("before a commit", 0, 1),
        ("between two steps", 1, 1),
        ("between a call and its result", 1, 2),
        ("after the last step", 1, 1),
    ] {
        let flow = Flow::<DB>::start().await;
        let orders = format!("crash {point}");
        let crashed = flow.send("k", &orders, "a").await;
        assert_eq!(
            (crashed.status, crashed.problem().as_str()),
            (504, "outcome-unknown"),
            "{point}"
        );
        assert!(crashed.is_retryable(), "{point}: a repeat goes on");
        assert_eq!(
            (flow.count("lines").await, flow.count("records").await),
            (lines, 0),
            "{point}"
        );
        assert_eq!(
            flow.count("flows").await,
            lines,
            "{point}: what did nothing is forgotten"
        );

        let repeat = flow.send("k", &orders, "a").await;
        assert_eq!(
            (repeat.status, repeat.content.as_str()),
            (201, "order a, charged"),
            "{point}"
        );
        assert!(!repeat.is_replayed());
        assert_eq!(
            flow.count("lines").await,
            1,
            "{point}: each step is committed once"
        );
        let keys = flow.outside.keys();
        assert_eq!(keys.len(), calls, "{point}");
        assert!(
            keys.iter().all(|key| *key == keys[0] && key.len() == 32),
            "{point}"
        );
        assert_eq!(
            (flow.count("flows").await, flow.count("steps").await),
            (0, 0),
            "{point}"
        );

        let again = flow.send("k", &orders, "a").await;
        assert_eq!(
            (&again.content, again.is_replayed()),
            (&repeat.content, true),
            "{point}"
        );
        assert_eq!(flow.runs(), 2, "{point}");
        // Another request's call has another key.
        flow.send("l", "go", "a").await;
        assert_ne!(flow.outside.keys().last(), keys.first(), "{point}");
    }
}

pub(crate) async fn another_payload_cannot_have_a_key_of_which_a_step_is_committed<DB: Base>() {
    let flow = Flow::<DB>::start().await;
    flow.send("k", "crash between two steps", "a").await;
    let other = flow.send("k", "go", "b").await;
    assert_eq!(
        (other.status, other.problem().as_str()),
        (422, "key-reused")
    );
    assert_eq!(flow.count("lines").await, 1);
    assert_eq!(flow.send("k", "go", "a").await.status, 201);

    let flow = Flow::<DB>::start().await;
    flow.send("k", "crash before any step", "a").await;
    assert_eq!(flow.send("k", "go", "b").await.status, 201);
}

pub(crate) async fn a_refusal_after_a_committed_step_is_final<DB: Base>() {
    let flow = Flow::<DB>::start().await;
    let refused = flow.send("k", "refuse", "a").await;
    assert_eq!(refused.status, 422);
    let repeat = flow.send("k", "refuse", "a").await;
    assert_eq!(
        (&repeat.content, repeat.is_replayed()),
        (&refused.content, true)
    );
    let other = flow.send("k", "go", "b").await;
    assert_eq!(
        (other.status, other.problem().as_str()),
        (422, "key-reused")
    );
    assert_eq!((flow.count("lines").await, flow.runs()), (1, 1));
}

pub(crate) async fn the_completer_finishes_what_was_abandoned<DB: Base>() {
    let flow = Flow::<DB>::start().await;
    flow.send("k", "crash between a call and its result", "a")
        .await;
    flow.send("l", "go", "b").await;
    let complete = |age| flow.layer.complete(flow.behind.clone(), age, 10);
    let completed = complete(Duration::from_secs(3600)).await;
    assert_eq!(completed.expect("a database"), 0, "nothing is that old");
    assert_eq!(complete(Duration::ZERO).await.expect("a database"), 1);
    assert_eq!(complete(Duration::ZERO).await.expect("a database"), 0);
    let runs = flow.runs();
    let answer = flow.send("k", "go", "a").await;
    assert_eq!(
        (answer.status, answer.content.as_str()),
        (201, "order a, charged")
    );
    assert!(answer.is_replayed());
    assert_eq!((flow.count("lines").await, flow.runs()), (2, runs));
    let keys = flow.outside.keys();
    assert_eq!((keys.len(), &keys[0]), (3, &keys[2]), "{keys:?}");
}

/// As a process leaves it that is killed between noting the request and its first step.
pub(crate) async fn a_request_left_before_its_first_step_binds_its_key_only_for_a_while<
    DB: Base,
>() {
    let flow = Flow::<DB>::start().await;
    flow.send("k", "crash between two steps", "a").await;
    DB::run(&flow.pool, "DELETE FROM hapax_steps").await;
    let other = flow.send("k", "go", "b").await;
    assert_eq!(
        (other.status, other.problem().as_str()),
        (422, "key-reused")
    );
    let complete = |age| flow.layer.complete(flow.behind.clone(), age, 10);
    complete(Duration::from_secs(3600))
        .await
        .expect("a database");
    assert_eq!(flow.count("flows").await, 1, "it is not that old");
    assert_eq!(complete(Duration::ZERO).await.expect("a database"), 0);
    assert_eq!(flow.count("flows").await, 0);
    assert_eq!(flow.send("k", "go", "b").await.status, 201);
}

pub(crate) async fn two_processes_at_once_commit_each_step_once<DB: Base>() {
    let flow = Flow::<DB>::start().await;
    let folder = flow._folder.clone();
    let other = Flow::on(flow.pool.clone(), folder, flow.outside.clone()).await;
    for round in 0..10 {
        let key = format!("k-{round}");
        let mut requests = JoinSet::new();
        for flow in [&flow, &other, &flow, &other] {
            let router = flow.behind.clone().layer(flow.layer.clone());
            let key = key.clone();
            requests.spawn(async move { send(router, Some(&key), "go", "a").await });
        }
        for answer in requests.join_all().await {
            assert_eq!(
                (answer.status, answer.content.as_str()),
                (201, "order a, charged")
            );
        }
        assert_eq!(flow.count("lines").await, round + 1);
        assert_eq!(flow.count("flows").await, 0);
    }
    let mut keys = flow.outside.keys();
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), 10, "one derived key a request");
}

/// That the layer can stand before a single handler as well.
#[allow(dead_code, reason = "compiling it is the test")]
fn a_layer_fits_a_service<S>(layer: &TransactionLayer<sqlx::Sqlite>, inner: S)
where
    S: Service<Request<Body>, Response = Response<Body>, Error = std::convert::Infallible>
        + Clone
        + Send
        + Sync
        + 'static,
    S::Future: Send,
{
    fn is_a_service(_: impl Service<Request<Body>>) {}
    is_a_service(layer.layer(inner));
}
