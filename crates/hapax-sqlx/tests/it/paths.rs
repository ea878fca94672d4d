//! `PUT /lines/{line-id}`: the client's id in the path is the key.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderName, Method, Request, StatusCode};
use axum::routing::put;
use hapax_core::policy::{KeyRequirement, KeySource, Policy};
use hapax_sqlx::{DatabaseError, Options, Records, TransactionLayer, Tx};
use tokio::task::JoinSet;

use crate::app::{Answer, Base, exchange, patient};

type Runs = Arc<AtomicU32>;

async fn put_line<DB: Base>(
    State(runs): State<Runs>,
    Path(id): Path<String>,
    mut tx: Tx<DB>,
    content: String,
) -> Result<(StatusCode, String), DatabaseError> {
    let run = runs.fetch_add(1, Ordering::SeqCst) + 1;
    DB::add_line(&mut **tx, &content).await?;
    Ok((StatusCode::CREATED, format!("{id}: {content}, run {run}")))
}

struct Lines<DB: Base> {
    pool: sqlx::Pool<DB>,
    router: Router,
    runs: Runs,
    _folder: Option<Arc<tempfile::TempDir>>,
}

impl<DB: Base> Lines<DB> {
    async fn start(key: KeyRequirement, key_from: Vec<KeySource>) -> Self {
        let (pool, folder) = DB::pool().await;
        let records = Records::open(pool.clone()).await.expect("records");
        let policy = Policy {
            methods: vec![Method::PUT],
            key,
            key_from,
            ..patient()
        };
        let options = Options {
            max_waiters_per_key: 1_000,
            ..Options::default()
        };
        let layer = TransactionLayer::new(records, policy, Arc::new(()), options).expect("a layer");
        let runs = Runs::default();
        // Within another router, and over all its routes: the parameters are there all the same.
        let within = Router::new()
            .route("/{line-id}", put(put_line::<DB>))
            .layer(layer.clone());
        let router = Router::new()
            .nest("/lines", within)
            .route("/of-one/{line-id}", put(put_line::<DB>).layer(layer))
            .with_state(Arc::clone(&runs));
        Self {
            pool,
            router,
            runs,
            _folder: folder,
        }
    }

    async fn put(&self, target: &str, key: Option<&str>, content: &str) -> Answer {
        put_to(self.router.clone(), target, key, content).await
    }

    async fn lines(&self) -> i64 {
        DB::count(&self.pool, "lines").await
    }
}

async fn put_to(router: Router, target: &str, key: Option<&str>, content: &str) -> Answer {
    let mut request = Request::put(target);
    if let Some(key) = key {
        request = request.header("idempotency-key", key);
    }
    let request = request.body(Body::from(content.to_owned()));
    exchange(router, request.expect("a request")).await
}

fn by_id() -> Vec<KeySource> {
    vec![KeySource::Path("line-id".to_owned())]
}

pub(crate) async fn the_id_in_the_path_is_the_key<DB: Base>() {
    for requirement in [KeyRequirement::Required, KeyRequirement::Optional] {
        let lines = Lines::<DB>::start(requirement, by_id()).await;
        for (number, folder) in ["/lines", "/of-one"].into_iter().enumerate() {
            let before = 2 * number as i64;
            let target = |id: &str| format!("{folder}/{number}-{id}");
            let first = lines.put(&target("a"), None, "x").await;
            assert_eq!(first.status, 201, "{first:?}");
            assert!(first.content.starts_with(&format!("{number}-a: x, run")));
            assert_eq!(first.header("idempotency-status"), Some("executed"));
            let echoed = format!("\"{number}-a\"");
            assert_eq!(first.header("idempotency-key"), Some(echoed.as_str()));
            let repeat = lines.put(&target("a"), None, "x").await;
            assert_eq!((repeat.status, &repeat.content), (201, &first.content));
            assert!(repeat.is_replayed());
            let other = lines.put(&target("a"), None, "y").await;
            assert_eq!(
                (other.status, other.problem().as_str()),
                (422, "key-reused")
            );
            let another = lines.put(&target("b"), None, "x").await;
            assert_eq!((another.status, another.is_replayed()), (201, false));
            assert_eq!(lines.lines().await, before + 2);
        }
        let bad = lines.put("/lines/a%20b", None, "x").await;
        assert_eq!((bad.status, bad.problem().as_str()), (400, "key-invalid"));
        let bad = lines.put("/lines/%ff", None, "x").await;
        assert_eq!((bad.status, bad.problem().as_str()), (400, "key-invalid"));
        assert_eq!(lines.runs.load(Ordering::SeqCst), 4);
    }
}

pub(crate) async fn a_hundred_puts_of_one_id_at_once_make_one_commit<DB: Base>() {
    let lines = Lines::<DB>::start(KeyRequirement::Required, by_id()).await;
    let mut requests = JoinSet::new();
    for _ in 0..100 {
        let router = lines.router.clone();
        requests.spawn(async move { put_to(router, "/lines/a", None, "x").await });
    }
    for answer in requests.join_all().await {
        assert_eq!(
            (answer.status, answer.content.as_str()),
            (201, "a: x, run 1")
        );
    }
    assert_eq!(
        (lines.lines().await, lines.runs.load(Ordering::SeqCst)),
        (1, 1)
    );
}

pub(crate) async fn a_path_and_a_header_have_to_agree<DB: Base>() {
    let header = KeySource::Header(HeaderName::from_static("idempotency-key"));
    let both = [vec![header], by_id()].concat();
    let lines = Lines::<DB>::start(KeyRequirement::Required, both).await;
    let other = lines.put("/lines/a", Some("b"), "x").await;
    assert_eq!(
        (other.status, other.problem().as_str()),
        (400, "key-invalid")
    );
    let same = lines.put("/lines/a", Some("a"), "x").await;
    assert_eq!(same.status, 201);
    assert!(lines.put("/lines/a", None, "x").await.is_replayed());
    assert_eq!(lines.lines().await, 1);
}

/// Whether the key is optional or not: a name that is misspelt in the set-up must not mean that
/// everything runs unprotected.
pub(crate) async fn a_route_without_the_parameter_runs_nothing<DB: Base>() {
    for requirement in [KeyRequirement::Required, KeyRequirement::Optional] {
        let misspelt = vec![KeySource::Path("line_id".to_owned())];
        let lines = Lines::<DB>::start(requirement, misspelt).await;
        let refused = lines.put("/lines/a", None, "x").await;
        assert_eq!(
            (refused.status, refused.problem().as_str()),
            (500, "rolled-back")
        );
        assert!(refused.content.contains("line_id"), "{refused:?}");
        assert_eq!(
            (lines.lines().await, lines.runs.load(Ordering::SeqCst)),
            (0, 0)
        );
    }
}
