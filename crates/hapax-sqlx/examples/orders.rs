//! An idempotent API on SQLite, as `docs/guide.md` explains it.
//!
//! ```text
//! cargo run -p hapax-sqlx --example orders
//! ```

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::Router;
use axum::extract::{Path, State};
use axum::http::{Method, StatusCode};
use axum::routing::{get, post, put};
use hapax_core::policy::{KeyRequirement, KeySource, Policy};
use hapax_sqlx::{DatabaseError, Options, Records, TransactionLayer, Tx};
use serde_json::{Value, json};
use sqlx::{Sqlite, SqlitePool};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

async fn create_order(
    mut tx: Tx<Sqlite>,
    Json(order): Json<Value>,
) -> Result<(StatusCode, Json<Value>), DatabaseError> {
    let item = order.get("item").and_then(Value::as_str).unwrap_or("");
    if item.is_empty() {
        let problem = json!({ "error": "say which item" });
        return Ok((StatusCode::UNPROCESSABLE_ENTITY, Json(problem)));
    }
    let number: i64 = sqlx::query_scalar("INSERT INTO orders (item) VALUES ($1) RETURNING number")
        .bind(item)
        .fetch_one(&mut **tx)
        .await?;
    sqlx::query("INSERT INTO charges (order_number, cents) VALUES ($1, 4900)")
        .bind(number)
        .execute(&mut **tx)
        .await?;
    Ok((
        StatusCode::CREATED,
        Json(json!({ "order": number, "item": item })),
    ))
}

async fn put_order(
    Path(id): Path<String>,
    mut tx: Tx<Sqlite>,
    Json(order): Json<Value>,
) -> Result<(StatusCode, Json<Value>), DatabaseError> {
    let item = order.get("item").and_then(Value::as_str).unwrap_or("");
    let made: Option<i64> = sqlx::query_scalar(
        "INSERT INTO orders (id, item) VALUES ($1, $2) ON CONFLICT (id) DO NOTHING RETURNING number",
    )
    .bind(&id)
    .bind(item)
    .fetch_optional(&mut **tx)
    .await?;
    let Some(number) = made else {
        let problem = json!({ "error": "somebody's order has this id" });
        return Ok((StatusCode::UNPROCESSABLE_ENTITY, Json(problem)));
    };
    sqlx::query("INSERT INTO charges (order_number, cents) VALUES ($1, 4900)")
        .bind(number)
        .execute(&mut **tx)
        .await?;
    Ok((StatusCode::CREATED, Json(json!({ "id": id, "item": item }))))
}

async fn count_charges(State(pool): State<SqlitePool>) -> Result<Json<Value>, DatabaseError> {
    let (count, cents): (i64, i64) =
        sqlx::query_as("SELECT COUNT(*), COALESCE(SUM(cents), 0) FROM charges")
            .fetch_one(&pool)
            .await?;
    Ok(Json(json!({ "charges": count, "cents": cents })))
}

/// The whole API on a database.
pub async fn api(database: &str) -> Result<Router, BoxError> {
    let options = database.parse::<sqlx::sqlite::SqliteConnectOptions>()?;
    let pool = SqlitePool::connect_with(options.create_if_missing(true)).await?;
    for table in [
        "CREATE TABLE IF NOT EXISTS orders (number INTEGER PRIMARY KEY, id TEXT UNIQUE, item TEXT NOT NULL)",
        "CREATE TABLE IF NOT EXISTS charges (order_number INTEGER NOT NULL UNIQUE, cents INTEGER NOT NULL)",
    ] {
        sqlx::query(table).execute(&pool).await?;
    }

    let records = Records::open(pool.clone()).await?;
    let policy = Policy {
        key: KeyRequirement::Required,
        wait: Duration::from_secs(5),
        ..Policy::default()
    };
    let once = TransactionLayer::new(records, policy, Arc::new(()), Options::default())?;

    let records = Records::open(pool.clone()).await?;
    let policy = Policy {
        methods: vec![Method::PUT],
        key: KeyRequirement::Required,
        key_from: vec![KeySource::Path("order-id".to_owned())],
        wait: Duration::from_secs(5),
        ..Policy::default()
    };
    let once_by_id = TransactionLayer::new(records, policy, Arc::new(()), Options::default())?;

    Ok(Router::new()
        .route("/orders", post(create_order).layer(once))
        .route("/order/{order-id}", put(put_order).layer(once_by_id))
        .route("/charges", get(count_charges))
        .with_state(pool))
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let api = api("sqlite://orders.db").await?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    axum::serve(listener, api).await?;
    Ok(())
}
