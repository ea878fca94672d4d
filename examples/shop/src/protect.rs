//! How `POST /create-order` is protected: not at all, in front of the shop, or within its own
//! transaction.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::error_handling::HandleErrorLayer;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, post};
use hapax_core::policy::Policy;
use hapax_sqlx::{DatabaseError, Dialect, Records, TransactionLayer, Tx};
use hapax_store::{AnyStore, EmbeddedStore, Limits, MemoryStore, SystemClock, random_secret};
use hapax_tower::HapaxLayer;
use tower::ServiceBuilder;

use crate::answer::{Refusal, created};
use crate::api::{Payload, create_order, request_of};
use crate::order::{Order, OrderId};
use crate::orders::Orders;
use crate::provider::Provider;
use crate::shop::{Databases, OpenError, Shop};
use crate::steps::Stepwise;

/// How long a duplicate waits for the first attempt.
const WAIT: Duration = Duration::from_secs(10);

/// Which ways of creating an order the shop offers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Mode {
    /// The naive endpoint beside the idempotent one.
    #[default]
    Naive,
    /// `PUT /order/{order-id}` alone.
    Put,
    /// `POST /create-order` behind an idempotency key, whose records are in a store of their own: in
    /// this directory, or in memory. A crash in between leaves an outcome that nobody knows.
    Keyed {
        /// The store's directory.
        directory: Option<PathBuf>,
    },
    /// `POST /create-order` behind an idempotency key that is committed with the order and its
    /// charge. No outcome is ever unknown.
    Transactional,
    /// As `Transactional`, but charges are made by a payment provider over HTTP, which no
    /// transaction can take back: an order is made in steps, each committed with its result.
    Stepwise {
        /// Where the provider is: `http://host:port`. It has to honour `Idempotency-Key`.
        provider: String,
        /// After how long without a step the shop goes on with an order by itself.
        abandoned_for: Duration,
    },
}

/// A mode, with what it needs.
#[derive(Debug, Clone)]
pub(crate) enum Protection {
    Naive,
    Put,
    Keyed(HapaxLayer<AnyStore>),
    Sqlite(TransactionLayer<sqlx::Sqlite>),
    Postgres(TransactionLayer<sqlx::Postgres>),
    SqliteStepwise(Arc<Stepwise<sqlx::Sqlite>>),
    PostgresStepwise(Arc<Stepwise<sqlx::Postgres>>),
}

fn policy() -> Policy {
    Policy {
        wait: WAIT,
        ..Policy::default()
    }
}

impl Protection {
    pub(crate) async fn open(mode: Mode, database: &Databases) -> Result<Self, OpenError> {
        Ok(match (mode, database) {
            (Mode::Naive, _) => Self::Naive,
            (Mode::Put, _) => Self::Put,
            (Mode::Keyed { directory }, _) => Self::Keyed(keyed(directory)?),
            (Mode::Transactional, Databases::Sqlite(pool)) => {
                Self::Sqlite(transactional(pool.clone()).await?)
            }
            (Mode::Transactional, Databases::Postgres(pool)) => {
                Self::Postgres(transactional(pool.clone()).await?)
            }
            (
                Mode::Stepwise {
                    provider,
                    abandoned_for,
                },
                database,
            ) => {
                let provider = Provider::parse(&provider).ok_or(OpenError::Provider)?;
                match database {
                    Databases::Sqlite(pool) => {
                        let opened =
                            Stepwise::open(pool.clone(), policy(), provider, abandoned_for);
                        Self::SqliteStepwise(Arc::new(opened.await?))
                    }
                    Databases::Postgres(pool) => {
                        let opened =
                            Stepwise::open(pool.clone(), policy(), provider, abandoned_for);
                        Self::PostgresStepwise(Arc::new(opened.await?))
                    }
                }
            }
        })
    }

    /// `/create-order`; `None` where it is not offered.
    pub(crate) fn create_order(&self) -> Option<MethodRouter<Shop>> {
        Some(match self {
            Self::Naive => post(create_order),
            Self::Put => return None,
            Self::Keyed(layer) => {
                // The layer answers for the operation itself; what is left to fail is a request
                // that it only passes through.
                let failed = async |_: hapax_tower::BoxError| Refusal::Broken;
                post(create_order).layer(
                    ServiceBuilder::new()
                        .layer(HandleErrorLayer::new(failed))
                        .layer(layer.clone()),
                )
            }
            Self::Sqlite(layer) => post(create_order_once::<sqlx::Sqlite>).layer(layer.clone()),
            Self::Postgres(layer) => post(create_order_once::<sqlx::Postgres>).layer(layer.clone()),
            Self::SqliteStepwise(stepwise) => stepwise.route(),
            Self::PostgresStepwise(stepwise) => stepwise.route(),
        })
    }

    /// Goes on with orders that were abandoned between two steps, where there are steps; does not
    /// end before the shop does.
    pub(crate) async fn complete(&self, shop: Shop) {
        match self {
            Self::SqliteStepwise(stepwise) => stepwise.complete(shop).await,
            Self::PostgresStepwise(stepwise) => stepwise.complete(shop).await,
            Self::Naive | Self::Put | Self::Keyed(_) | Self::Sqlite(_) | Self::Postgres(_) => {}
        }
    }
}

fn keyed(directory: Option<PathBuf>) -> Result<HapaxLayer<AnyStore>, OpenError> {
    let store = match directory {
        Some(directory) => {
            let opened = EmbeddedStore::open(directory, hapax_store::Options::default());
            AnyStore::Embedded(opened.map_err(|error| OpenError::Store(error.into()))?)
        }
        None => {
            let secret = random_secret().map_err(|error| OpenError::Store(error.into()))?;
            let clock = Arc::new(SystemClock::new());
            AnyStore::Memory(MemoryStore::new(clock, Limits::default(), secret))
        }
    };
    let options = hapax_tower::Options::default();
    Ok(HapaxLayer::new(
        store,
        Arc::new(policy()),
        Arc::new(()),
        options,
    ))
}

async fn transactional<D: Dialect>(pool: sqlx::Pool<D>) -> Result<TransactionLayer<D>, OpenError> {
    let records = Records::open(pool)
        .await
        .map_err(|error| OpenError::Store(error.into()))?;
    TransactionLayer::new(
        records,
        policy(),
        Arc::new(()),
        hapax_sqlx::Options::default(),
    )
    .map_err(|error| OpenError::Store(error.into()))
}

/// As [`create_order`], within the transaction that the layer gives: the order, its charge, the
/// key and this answer are one commit, which the layer makes when the answer is there.
async fn create_order_once<D: Orders + Dialect>(
    State(shop): State<Shop>,
    headers: HeaderMap,
    mut tx: Tx<D>,
    Payload(purchase): Payload,
) -> Result<Response, DatabaseError> {
    let Some(id) = OrderId::random() else {
        return Ok(Refusal::Broken.into_response());
    };
    let order = Order::new(&id, &purchase);
    shop.half_of_the_work().await;
    D::insert(&mut **tx, &order, request_of(&headers).as_deref()).await?;
    D::enter(&mut **tx, &order.id, order.total).await?;
    shop.half_of_the_work().await;
    Ok(created(order))
}
