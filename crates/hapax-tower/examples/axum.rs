//! An axum service that is safe to retry.
//!
//! ```text
//! cargo run -p hapax-tower --example axum
//! curl -i -X POST 127.0.0.1:3000/orders -H 'Idempotency-Key: 7e1a' -d 'one book'
//! curl -i -X POST 127.0.0.1:3000/orders -H 'Idempotency-Key: 7e1a' -d 'one book'   # replayed
//! ```
//!
//! The memory store forgets when the process ends; a service that takes money uses the embedded
//! store (`hapax_store::EmbeddedStore`) or commits the key with its own transaction.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Router;
use axum::error_handling::HandleErrorLayer;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use hapax_core::policy::Policy;
use hapax_store::{Limits, MemoryStore, SystemClock, random_secret};
use hapax_tower::{HapaxLayer, Options};
use tower::ServiceBuilder;

async fn order(State(orders): State<Arc<AtomicU64>>, body: String) -> (StatusCode, String) {
    let number = orders.fetch_add(1, Ordering::Relaxed) + 1;
    (StatusCode::CREATED, format!("order {number}: {body}\n"))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let store = MemoryStore::new(
        Arc::new(SystemClock::new()),
        Limits::default(),
        random_secret()?,
    );
    let policy = Arc::new(Policy::default());
    let layer = HapaxLayer::new(store, policy, Arc::new(()), Options::default());
    // The layer answers for the operation itself; what is left to fail is a request that it only
    // passes through.
    let failed = async |error: hapax_tower::BoxError| (StatusCode::BAD_GATEWAY, error.to_string());
    let app = Router::new()
        .route("/orders", post(order))
        .with_state(Arc::new(AtomicU64::new(0)))
        .layer(
            ServiceBuilder::new()
                .layer(HandleErrorLayer::new(failed))
                .layer(layer),
        );
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    axum::serve(listener, app).await?;
    Ok(())
}
