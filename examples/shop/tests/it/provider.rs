//! A payment provider for tests: it honours keys, counts its charges, and can be held at a point.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::client::PATIENCE;

/// Where the next call is held for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hold {
    /// The charge is not made.
    BeforeTheCharge,
    /// The charge is made, and the answer does not go out.
    BeforeTheAnswer,
}

#[derive(Debug, Clone)]
pub(crate) struct Provider {
    pub(crate) address: SocketAddr,
    state: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    books: Mutex<Books>,
    held: Notify,
}

#[derive(Debug, Default)]
struct Books {
    hold: Option<Hold>,
    /// How often each key was sent.
    calls: HashMap<String, usize>,
    /// The charges that were made, by key: for which order.
    charges: HashMap<String, String>,
}

impl Provider {
    pub(crate) async fn start() -> Self {
        let state = Arc::new(Shared::default());
        let router = Router::new()
            .route("/charges", post(charge))
            .with_state(Arc::clone(&state));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { address, state }
    }

    pub(crate) fn hold(&self, hold: Hold) {
        self.state.books().hold = Some(hold);
    }

    /// Waits until a call is held.
    pub(crate) async fn held(&self) {
        timeout(PATIENCE, self.state.held.notified())
            .await
            .expect("a call in time");
    }

    /// How many charges there are, and for how many orders.
    pub(crate) fn charges(&self) -> (usize, usize) {
        let books = self.state.books();
        let mut orders: Vec<&String> = books.charges.values().collect();
        orders.sort();
        orders.dedup();
        (books.charges.len(), orders.len())
    }

    /// How often it was called, and with how many keys.
    pub(crate) fn calls(&self) -> (usize, usize) {
        let books = self.state.books();
        (books.calls.values().sum(), books.calls.len())
    }
}

impl Shared {
    fn books(&self) -> std::sync::MutexGuard<'_, Books> {
        self.books.lock().expect("no panic within")
    }
}

async fn charge(
    State(state): State<Arc<Shared>>,
    headers: HeaderMap,
    Json(wanted): Json<Value>,
) -> (StatusCode, Json<Value>) {
    let key = headers["idempotency-key"]
        .to_str()
        .expect("text")
        .to_owned();
    let order = wanted["order"].as_str().expect("an order").to_owned();
    assert_eq!(wanted["amount"], 4900);
    let hold = {
        let mut books = state.books();
        *books.calls.entry(key.clone()).or_default() += 1;
        let hold = books.hold.take();
        if hold != Some(Hold::BeforeTheCharge) {
            let first = books.charges.entry(key.clone()).or_insert(order.clone());
            assert_eq!(*first, order, "a key is one order's");
        }
        hold
    };
    if hold.is_some() {
        state.held.notify_one();
        std::future::pending::<()>().await;
    }
    (
        StatusCode::CREATED,
        Json(json!({ "id": format!("ch_{key}") })),
    )
}
