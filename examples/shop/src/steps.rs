//! `POST /create-order` where the money is somebody else's: an order is made in steps, each
//! committed with its result, because no transaction can take back a call to a payment provider.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, post};
use axum::{Extension, Router};
use hapax_core::policy::{KeyRequirement, Policy};
use hapax_sqlx::{DatabaseError, Dialect, Options, Records, Step, Steps, TransactionLayer};
use sqlx::Pool;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use crate::answer::{Refusal, created};
use crate::api::{Payload, request_of};
use crate::order::{Order, OrderId};
use crate::orders::Orders;
use crate::provider::Provider;
use crate::shop::{OpenError, Shop};

/// How many abandoned orders are gone on with at a time.
const AT_ONCE: u32 = 100;

/// The layer, the provider, and when an order counts as abandoned.
#[derive(Debug)]
pub(crate) struct Stepwise<D: Dialect> {
    layer: TransactionLayer<D>,
    provider: Provider,
    abandoned_for: Duration,
}

impl<D: Orders + Dialect> Stepwise<D> {
    pub(crate) async fn open(
        pool: Pool<D>,
        policy: Policy,
        provider: Provider,
        abandoned_for: Duration,
    ) -> Result<Self, OpenError> {
        let records = Records::open(pool)
            .await
            .map_err(|error| OpenError::Store(error.into()))?;
        let policy = Policy {
            key: KeyRequirement::Required,
            ..policy
        };
        let options = Options {
            recovery_points: true,
            ..Options::default()
        };
        let layer = TransactionLayer::new(records, policy, Arc::new(()), options)
            .map_err(|error| OpenError::Store(error.into()))?;
        Ok(Self {
            layer,
            provider,
            abandoned_for,
        })
    }

    /// `/create-order`, behind the layer.
    pub(crate) fn route(&self) -> MethodRouter<Shop> {
        self.handler().layer(self.layer.clone())
    }

    fn handler(&self) -> MethodRouter<Shop> {
        post(create_order_in_steps::<D>).layer(Extension(self.provider.clone()))
    }

    /// Again and again goes on with orders whose process ended between two steps and whose clients
    /// did not come back.
    pub(crate) async fn complete(&self, shop: Shop) {
        let behind = Router::new()
            .route("/create-order", self.handler())
            .with_state(shop);
        let every = self.abandoned_for.max(Duration::from_millis(1));
        let mut ticks = interval_at(Instant::now() + every, every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            // One that fails is tried again at the next tick.
            let _ = self
                .layer
                .complete(behind.clone(), self.abandoned_for, AT_ONCE)
                .await;
        }
    }
}

/// The order, its charge at the provider, and the charge in the ledger. Every attempt begins at the
/// top, and passes by what is done.
async fn create_order_in_steps<D: Orders + Dialect>(
    State(shop): State<Shop>,
    Extension(provider): Extension<Provider>,
    headers: HeaderMap,
    steps: Steps<D>,
    Payload(purchase): Payload,
) -> Result<Response, DatabaseError> {
    let id = match steps.step("order").await? {
        Step::Done(id) => OrderId::parse(&id),
        Step::Due(due) => {
            shop.half_of_the_work().await;
            let id = OrderId::random();
            if let Some(id) = &id {
                let mut tx = due.begin().await?;
                let order = Order::new(id, &purchase);
                D::insert(&mut **tx, &order, request_of(&headers).as_deref()).await?;
                tx.commit(order.id).await?;
            }
            id
        }
    };
    let Some(id) = id else {
        return Ok(Refusal::Broken.into_response());
    };
    let order = Order::new(&id, &purchase);
    if let Step::Due(due) = steps.step("charge").await? {
        // From here until the commit below the charge may have been made without our knowing it.
        // The next attempt asks with the same key, so that there is one.
        let Ok(charge) = provider.charge(&order, due.key()).await else {
            return Ok(Refusal::NoProvider.into_response());
        };
        let mut tx = due.begin().await?;
        D::enter(&mut **tx, &order.id, order.total).await?;
        tx.commit(charge).await?;
    }
    shop.half_of_the_work().await;
    Ok(created(order))
}
