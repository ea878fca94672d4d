//! What the layer costs: a keyed insert beside the same insert in a bare transaction, and unrelated
//! requests beside a hundred duplicates of one that runs.
//!
//! ```text
//! cargo bench -p hapax-sqlx --bench transaction [-- REQUESTS]
//! ```
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a measurement that cannot go on has failed"
)]

#[path = "../tests/it/postgres.rs"]
mod postgres;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{Request, StatusCode};
use axum::routing::post;
use hapax_core::policy::Policy;
use hapax_sqlx::{DatabaseError, Options, Records, TransactionLayer, Tx};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Database, Pool, Postgres, Sqlite};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tower::ServiceExt;

/// Connections of the pool.
const CONNECTIONS: u32 = 5;

/// How often bare and keyed take turns, so that both see the same machine.
const ROUNDS: usize = 5;

const INSERT: &str = "INSERT INTO lines (line) VALUES ($1)";

macro_rules! handlers {
    ($module:ident, $database:ty, $begin:literal) => {
        mod $module {
            use super::*;

            pub(super) async fn keyed(
                mut tx: Tx<$database>,
                line: String,
            ) -> Result<(StatusCode, String), DatabaseError> {
                sqlx::query(INSERT).bind(&line).execute(&mut **tx).await?;
                Ok((StatusCode::CREATED, line))
            }

            /// As `keyed`, but it holds the transaction until it may go on.
            pub(super) async fn slow(
                State(gate): State<Arc<Semaphore>>,
                mut tx: Tx<$database>,
                line: String,
            ) -> Result<(StatusCode, String), DatabaseError> {
                sqlx::query(INSERT).bind(&line).execute(&mut **tx).await?;
                gate.acquire().await.expect("open").forget();
                Ok((StatusCode::CREATED, line))
            }

            pub(super) async fn bare(
                State(pool): State<Pool<$database>>,
                line: String,
            ) -> Result<(StatusCode, String), DatabaseError> {
                let mut tx = pool.begin_with($begin).await?;
                sqlx::query(INSERT).bind(&line).execute(&mut *tx).await?;
                tx.commit().await?;
                Ok((StatusCode::CREATED, line))
            }

            pub(super) async fn app(pool: Pool<$database>, gate: Arc<Semaphore>) -> Router {
                sqlx::query("CREATE TABLE lines (line TEXT NOT NULL)")
                    .execute(&pool)
                    .await
                    .expect("a table");
                let records = Records::open(pool.clone()).await.expect("records");
                let policy = Policy {
                    wait: Duration::from_secs(60),
                    ..Policy::default()
                };
                let options = Options {
                    max_waiters_per_key: 1_000,
                    ..Options::default()
                };
                let layer = TransactionLayer::new(records, policy, Arc::new(()), options);
                let layer = layer.expect("a layer");
                Router::new()
                    .route("/keyed", post(keyed).layer(layer.clone()))
                    .route("/slow", post(slow).with_state(gate).layer(layer))
                    .route("/bare", post(bare))
                    .with_state(pool)
            }
        }
    };
}

handlers!(on_sqlite, Sqlite, "BEGIN IMMEDIATE");
handlers!(on_postgres, Postgres, "BEGIN");

async fn send(app: Router, target: &'static str, key: String) -> Duration {
    let request = Request::post(target)
        .header("idempotency-key", key)
        .body(Body::from("a lamp"))
        .expect("a request");
    let began = Instant::now();
    let response = app.oneshot(request).await.expect("infallible");
    assert_eq!(response.status(), StatusCode::CREATED);
    began.elapsed()
}

/// Sends `requests` with `at_once` of them under way; how long each took, and all together.
async fn load(
    app: &Router,
    target: &'static str,
    round: usize,
    requests: usize,
    at_once: usize,
) -> (Vec<Duration>, Duration) {
    let began = Instant::now();
    let mut workers = JoinSet::new();
    for worker in 0..at_once {
        let app = app.clone();
        workers.spawn(async move {
            let mut took = Vec::new();
            for number in 0..requests / at_once {
                let key = format!("{target}-{round}-{at_once}-{worker}-{number}");
                took.push(send(app.clone(), target, key).await);
            }
            took
        });
    }
    let took = workers.join_all().await.into_iter().flatten().collect();
    (took, began.elapsed())
}

fn percentile(took: &mut [Duration], percent: usize) -> f64 {
    took.sort_unstable();
    took[(took.len() - 1) * percent / 100].as_secs_f64() * 1_000.0
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

async fn compare(name: &str, app: &Router, requests: usize) {
    for at_once in [1, 4] {
        let (mut bare, mut keyed) = (Vec::new(), Vec::new());
        // The first round warms up and does not count.
        for round in 0..=ROUNDS {
            for (target, kept) in [("/bare", &mut bare), ("/keyed", &mut keyed)] {
                let (took, all) = load(app, target, round, requests, at_once).await;
                if round > 0 {
                    kept.push(all.as_secs_f64() * 1e6 / took.len() as f64);
                }
            }
        }
        let ratios = bare.iter().zip(&keyed).map(|(bare, keyed)| keyed / bare);
        let ratio = median(ratios.collect());
        let (bare, keyed) = (median(bare), median(keyed));
        println!("| {name} | {at_once} | {bare:.0} | {keyed:.0} | {ratio:.2} |");
    }
}

async fn beside_duplicates(name: &str, app: &Router, gate: &Semaphore, requests: usize) {
    // Requests of no key, so that SQLite's one writer, which the first attempt is, does not count.
    let target = if name == "SQLite" { "/read" } else { "/bare" };
    let (mut alone, _) = load(app, target, 100, requests, 2).await;
    let mut duplicates = JoinSet::new();
    for _ in 0..100 {
        duplicates.spawn(send(app.clone(), "/slow", "one".to_owned()));
    }
    let (mut beside, _) = load(app, target, 101, requests, 2).await;
    gate.add_permits(1);
    duplicates.join_all().await;
    let (alone, beside) = (percentile(&mut alone, 99), percentile(&mut beside, 99));
    println!(
        "| {name} | {alone:.2} | {beside:.2} | {:.2} |",
        beside / alone
    );
}

fn with_reads<DB>(app: Router, pool: Pool<DB>) -> Router
where
    DB: Database,
    for<'c> &'c Pool<DB>: sqlx::Executor<'c, Database = DB>,
{
    app.route(
        "/read",
        post(async move || {
            sqlx::Executor::execute(&pool, "SELECT COUNT(*) FROM hapax_meta")
                .await
                .expect("a count");
            StatusCode::CREATED
        }),
    )
}

#[tokio::main]
async fn main() {
    let number = std::env::args().find_map(|argument| argument.parse().ok());
    let requests = number.unwrap_or(1_000);
    let folder = tempfile::tempdir().expect("a folder");
    let options = SqliteConnectOptions::new()
        .filename(folder.path().join("bench.db"))
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(Duration::from_secs(60));
    let sqlite = SqlitePoolOptions::new().max_connections(CONNECTIONS);
    let sqlite = sqlite.connect_with(options).await.expect("SQLite");
    let postgres = sqlx::postgres::PgPoolOptions::new().max_connections(CONNECTIONS);
    let url = postgres::database().await;
    let postgres = postgres.connect(&url).await.expect("PostgreSQL");
    let gate = Arc::new(Semaphore::new(0));
    let on_sqlite = on_sqlite::app(sqlite.clone(), Arc::clone(&gate)).await;
    let on_sqlite = with_reads(on_sqlite, sqlite);
    let on_postgres = on_postgres::app(postgres.clone(), Arc::clone(&gate)).await;

    println!(
        "{requests} requests a round, {ROUNDS} rounds in turns, median; {CONNECTIONS} connections\n"
    );
    println!("| Database | at once | bare transaction, µs | keyed, µs | ratio |");
    println!("|---|---|---|---|---|");
    compare("SQLite", &on_sqlite, requests).await;
    compare("PostgreSQL", &on_postgres, requests).await;
    println!("\np99 of unrelated requests, beside 100 duplicates of a request that runs\n");
    println!("| Database | alone, ms | beside them, ms | ratio |");
    println!("|---|---|---|---|");
    beside_duplicates("SQLite", &on_sqlite, &gate, requests).await;
    beside_duplicates("PostgreSQL", &on_postgres, &gate, requests).await;
}
