//! A small application behind the layer: it writes a line, and then does as it is told.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Request, Response, StatusCode};
use axum::response::IntoResponse;
use axum::routing::post;
use hapax_core::event::Observer;
use hapax_core::policy::Policy;
use hapax_sqlx::{DatabaseError, Dialect, Options, Records, TransactionLayer, Tx};
use serde_json::Value;
use sqlx::Pool;
use tempfile::TempDir;
use tokio::sync::Semaphore;
use tower::ServiceExt;

/// A database that the tests run on.
pub(crate) trait Base: Dialect {
    /// A new database, and the folder that it is in.
    async fn pool() -> (Pool<Self>, Option<Arc<TempDir>>);
    /// The table of lines.
    async fn make_table(pool: &Pool<Self>);
    fn add_line(
        connection: &mut Self::Connection,
        line: &str,
    ) -> impl Future<Output = sqlx::Result<()>> + Send;
    async fn count(pool: &Pool<Self>, table: &'static str) -> i64;
    async fn run(pool: &Pool<Self>, statement: &'static str);
    /// Runs a statement within a transaction.
    fn run_within(
        connection: &mut Self::Connection,
        statement: &'static str,
    ) -> impl Future<Output = sqlx::Result<()>> + Send;
}

macro_rules! base {
    ($database:ty, $pool:expr) => {
        impl Base for $database {
            async fn pool() -> (Pool<Self>, Option<Arc<TempDir>>) {
                let (pool, folder) = $pool;
                Self::make_table(&pool).await;
                (pool, folder)
            }

            async fn make_table(pool: &Pool<Self>) {
                sqlx::query("CREATE TABLE lines (line TEXT NOT NULL)")
                    .execute(pool)
                    .await
                    .expect("a table");
            }

            async fn add_line(connection: &mut Self::Connection, line: &str) -> sqlx::Result<()> {
                sqlx::query("INSERT INTO lines (line) VALUES ($1)")
                    .bind(line)
                    .execute(connection)
                    .await
                    .map(|_| ())
            }

            async fn count(pool: &Pool<Self>, table: &'static str) -> i64 {
                let statement = match table {
                    "lines" => "SELECT COUNT(*) FROM lines",
                    "flows" => "SELECT COUNT(*) FROM hapax_flows",
                    "steps" => "SELECT COUNT(*) FROM hapax_steps",
                    "outbox" => "SELECT COUNT(*) FROM hapax_outbox",
                    _ => "SELECT COUNT(*) FROM hapax_records",
                };
                sqlx::query_scalar(statement)
                    .fetch_one(pool)
                    .await
                    .expect("a count")
            }

            async fn run(pool: &Pool<Self>, statement: &'static str) {
                sqlx::query(statement).execute(pool).await.expect(statement);
            }

            async fn run_within(
                connection: &mut Self::Connection,
                statement: &'static str,
            ) -> sqlx::Result<()> {
                sqlx::query(statement).execute(connection).await.map(|_| ())
            }
        }
    };
}

base!(sqlx::Sqlite, {
    use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions};
    let folder = tempfile::tempdir().expect("a folder");
    let options = SqliteConnectOptions::new()
        .filename(folder.path().join("test.db"))
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .busy_timeout(Duration::from_secs(10));
    let pool = SqlitePoolOptions::new().max_connections(5);
    let pool = pool.connect_with(options).await.expect("a database");
    (pool, Some(Arc::new(folder)))
});

base!(sqlx::Postgres, {
    let url = crate::postgres::database().await;
    let pool = sqlx::postgres::PgPoolOptions::new().max_connections(5);
    let pool = pool.connect(&url).await.expect("a database");
    (pool, None)
});

/// What the handler and the test share.
#[derive(Clone)]
pub(crate) struct Controls {
    /// How often the handler has run.
    pub(crate) runs: Arc<AtomicU32>,
    /// A permit for every handler that has written and waits.
    pub(crate) entered: Arc<Semaphore>,
    /// A permit for every handler that may go on.
    pub(crate) gate: Arc<Semaphore>,
}

impl Controls {
    /// The first two runs wait here until they are let go together.
    async fn meet(&self, run: u32) {
        if run <= 2 {
            self.entered.add_permits(1);
            self.gate.acquire().await.expect("open").forget();
        }
    }
}

/// The application on its database.
pub(crate) struct App<DB: Base> {
    pub(crate) pool: Pool<DB>,
    pub(crate) layer: TransactionLayer<DB>,
    pub(crate) router: Router,
    pub(crate) controls: Controls,
    /// Where the database is, for as long as anybody uses it.
    _folder: Option<Arc<TempDir>>,
}

impl<DB: Base> Clone for App<DB> {
    fn clone(&self) -> Self {
        Self {
            pool: self.pool.clone(),
            layer: self.layer.clone(),
            router: self.router.clone(),
            controls: self.controls.clone(),
            _folder: self._folder.clone(),
        }
    }
}

/// What it answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) content: String,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    pub(crate) fn is_replayed(&self) -> bool {
        self.header("idempotent-replayed") == Some("true")
    }

    /// Whether the problem says that a repeat makes sense.
    pub(crate) fn is_retryable(&self) -> bool {
        let problem: Value = serde_json::from_str(&self.content).expect("a problem");
        problem["retryable"].as_bool().expect("a word on it")
    }

    pub(crate) fn problem(&self) -> String {
        let problem: Value = serde_json::from_str(&self.content).expect("a problem");
        let kind = problem["type"].as_str().expect("a type");
        kind.split_once('#').expect("a fragment").1.to_owned()
    }
}

/// The policy of most tests: duplicates wait longer than anything takes.
pub(crate) fn patient() -> Policy {
    Policy {
        wait: Duration::from_secs(30),
        ..Policy::default()
    }
}

impl<DB: Base> App<DB> {
    pub(crate) async fn start(policy: Policy, options: Options) -> Self {
        let (pool, folder) = DB::pool().await;
        Self::on(pool, folder, policy, options).await
    }

    /// Another process on the same database, as far as the layer can tell.
    pub(crate) async fn beside(&self, policy: Policy, options: Options) -> Self {
        Self::on(self.pool.clone(), self._folder.clone(), policy, options).await
    }

    pub(crate) async fn on(
        pool: Pool<DB>,
        folder: Option<Arc<TempDir>>,
        policy: Policy,
        options: Options,
    ) -> Self {
        Self::watched(pool, folder, policy, options, Arc::new(())).await
    }

    pub(crate) async fn watched(
        pool: Pool<DB>,
        folder: Option<Arc<TempDir>>,
        policy: Policy,
        options: Options,
        observer: Arc<dyn Observer>,
    ) -> Self {
        let records = Records::open(pool.clone()).await.expect("records");
        let layer = TransactionLayer::new(records, policy, observer, options).expect("a layer");
        let controls = Controls {
            runs: Arc::default(),
            entered: Arc::new(Semaphore::new(0)),
            gate: Arc::new(Semaphore::new(0)),
        };
        let router = Router::new()
            .route("/lines", post(handler::<DB>))
            .with_state(controls.clone())
            .layer(layer.clone());
        Self {
            pool,
            layer,
            router,
            controls,
            _folder: folder,
        }
    }

    pub(crate) async fn send(&self, key: Option<&str>, orders: &str, content: &str) -> Answer {
        send(self.router.clone(), key, orders, content).await
    }

    pub(crate) async fn lines(&self) -> i64 {
        DB::count(&self.pool, "lines").await
    }

    pub(crate) fn runs(&self) -> u32 {
        self.controls.runs.load(Ordering::SeqCst)
    }

    /// Waits until a handler has written and waits.
    pub(crate) async fn until_entered(&self) {
        let entered = self.controls.entered.acquire();
        let entered = tokio::time::timeout(Duration::from_secs(30), entered).await;
        entered.expect("in time").expect("open").forget();
    }
}

/// Writes a line, and then does what `X-Do` says.
async fn handler<DB: Base>(
    State(controls): State<Controls>,
    headers: HeaderMap,
    mut tx: Tx<DB>,
    content: Bytes,
) -> Result<Response<Body>, DatabaseError> {
    let run = controls.runs.fetch_add(1, Ordering::SeqCst) + 1;
    let line = String::from_utf8_lossy(&content).into_owned();
    DB::add_line(&mut **tx, &line).await?;
    let orders = headers["x-do"].to_str().expect("text");
    match orders.split_once(' ').unwrap_or((orders, "")) {
        ("succeed", _) => {}
        ("panic", _) => panic!("as told"),
        ("answer", status) => {
            let status = StatusCode::from_bytes(status.as_bytes()).expect("a status");
            return Ok((status, format!("run {run}")).into_response());
        }
        ("roll-back", _) => tx.roll_back(),
        ("keep", _) => {
            std::mem::forget(tx);
            return Ok(StatusCode::CREATED.into_response());
        }
        ("wait", _) => {
            controls.entered.add_permits(1);
            controls.gate.acquire().await.expect("open").forget();
        }
        ("fail-until", times) if run < times.parse().expect("a number") => {
            let raise = "DO $$ BEGIN RAISE EXCEPTION 'as told' USING ERRCODE = '40001'; END $$";
            DB::run_within(&mut **tx, raise).await?;
        }
        ("fail-until", _) => {}
        ("cross", rows) => {
            let touch = |row| match row {
                "1" => "UPDATE cells SET touched = touched + 1 WHERE id = 1",
                _ => "UPDATE cells SET touched = touched + 1 WHERE id = 2",
            };
            let (first, second) = rows.split_once(' ').expect("two rows");
            DB::run_within(&mut **tx, touch(first)).await?;
            controls.meet(run).await;
            DB::run_within(&mut **tx, touch(second)).await?;
        }
        ("sum", _) => {
            DB::run_within(&mut **tx, "SELECT COUNT(*) FROM lines").await?;
            controls.meet(run).await;
        }
        ("go-on-after-a-failure", _) => {
            let failed = DB::run_within(&mut **tx, "SELECT nothing FROM nowhere").await;
            failed.expect_err("there is no such table");
        }
        ("break", _) => DB::run_within(&mut **tx, "SELECT nothing FROM nowhere").await?,
        ("large", bytes) => {
            let bytes = bytes.parse().expect("a number");
            let location = [("location", "/lines/1")];
            return Ok((StatusCode::CREATED, location, "x".repeat(bytes)).into_response());
        }
        (other, _) => panic!("what is {other}?"),
    }
    let fields = [("location", "/lines/1"), ("x-kept", "yes")];
    Ok((
        StatusCode::CREATED,
        fields,
        format!("line {line}, run {run}"),
    )
        .into_response())
}

/// Sends a request through a router and reads the answer.
pub(crate) async fn send(router: Router, key: Option<&str>, orders: &str, content: &str) -> Answer {
    let mut request = Request::post("/lines").header("x-do", orders);
    if let Some(key) = key {
        request = request.header("idempotency-key", key);
    }
    let request = request.body(Body::from(content.to_owned()));
    exchange(router, request.expect("a request")).await
}

/// Sends any request, and reads the answer.
pub(crate) async fn exchange(router: Router, request: Request<Body>) -> Answer {
    let response = router.oneshot(request).await;
    let (parts, body) = response.expect("infallible").into_parts();
    let content = axum::body::to_bytes(body, usize::MAX)
        .await
        .expect("a body");
    Answer {
        status: parts.status.as_u16(),
        headers: parts.headers,
        content: String::from_utf8(content.to_vec()).expect("text"),
    }
}
