//! The methods of HTTP on top of the shop, each with its semantics (RFC 9110 section 9.2).

use std::collections::HashMap;
use std::future::Future;
use std::time::Duration;

use axum::body::{Body, HttpBody, to_bytes};
use axum::extract::{FromRequest, Path, Query, Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderName};
use axum::response::Response;
use axum::routing::get;
use axum::{Json, Router};
use tokio::time::timeout;
use utoipa::OpenApi;

use crate::answer::{Problem, Refusal, created, nothing_left, repeated};
use crate::order::{CATALOGUE, Item, Ledger, NewOrder, Order, OrderId, OrderList, Purchase};
use crate::shop::{Failure, Placed, Shop};

/// The largest content of a request, in bytes: an order has three lines.
const MAX_BODY: usize = 16 * 1024;

/// How long a request's content may take to arrive.
const BODY_PATIENCE: Duration = Duration::from_secs(30);

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The whole service.
pub fn router(shop: Shop) -> Router {
    let mut router = Router::new();
    if let Some(create_order) = shop.protection().create_order() {
        router = router.route("/create-order", create_order);
    }
    router
        .route(
            "/order/{order-id}",
            get(read_order).put(put_order).delete(delete_order),
        )
        .route("/orders", get(list_orders))
        .route("/ledger", get(read_ledger))
        .route("/catalogue", get(read_catalogue))
        .route("/openapi.json", get(read_openapi))
        .route("/healthz", get(read_health))
        .fallback(async || Refusal::NoResource)
        .method_not_allowed_fallback(async || Refusal::NoMethod)
        .with_state(shop)
}

/// What the service is, made from the code below.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "The hapax reference shop",
        description = "A reference order service: how an idempotent API is written."
    ),
    paths(
        create_order,
        put_order,
        read_order,
        delete_order,
        list_orders,
        read_ledger,
        read_catalogue,
        read_health
    )
)]
struct Document;

/// Orders something. **Not idempotent**: every request makes a new order and a charge.
///
/// The server makes the id, so that it cannot tell the repeat of a request whose answer was lost
/// from the wish for a second lamp. This is the endpoint that hapax is put in front of.
#[utoipa::path(
    post,
    path = "/create-order",
    params(("Idempotency-Key" = Option<String>, Header,
        description = "Remembered with the order, so that it can be looked up; protects nothing.")),
    request_body = NewOrder,
    responses(
        (status = 201, body = Order, headers(("Location" = String))),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 413, body = Problem, content_type = "application/problem+json"),
        (status = 415, body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json"),
        (status = 500, body = Problem, content_type = "application/problem+json"),
        (status = 503, body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn create_order(
    State(shop): State<Shop>,
    headers: HeaderMap,
    Payload(purchase): Payload,
) -> Result<Response, Refusal> {
    let id = OrderId::random().ok_or(Refusal::Broken)?;
    let request = request_of(&headers);
    detached(async move { shop.create(&id, &purchase, request.as_deref()).await })
        .await
        .map(created)
}

/// Orders something under an id that the client chose. **Idempotent**: a repeat gets the answer of
/// the first, whatever became of that.
///
/// The client makes the id before its first attempt and keeps it until it has an answer. A repeat
/// gets the same status and content, with `Idempotent-Replayed: true`; another payload under the
/// id is refused.
#[utoipa::path(
    put,
    path = "/order/{order-id}",
    params(("order-id" = String, Path, pattern = "^[A-Za-z0-9_-]{1,64}$")),
    request_body = NewOrder,
    responses(
        (status = 201, body = Order, headers(("Location" = String),
            ("Idempotent-Replayed" = Option<bool>))),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 410, body = Problem, content_type = "application/problem+json",
            description = "The order was cancelled: a late repeat does not make it again."),
        (status = 413, body = Problem, content_type = "application/problem+json"),
        (status = 415, body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json"),
        (status = 500, body = Problem, content_type = "application/problem+json"),
        (status = 503, body = Problem, content_type = "application/problem+json"),
    )
)]
async fn put_order(
    State(shop): State<Shop>,
    InPath(id): InPath,
    headers: HeaderMap,
    Payload(purchase): Payload,
) -> Result<Response, Refusal> {
    let request = request_of(&headers);
    match detached(async move { shop.place(&id, &purchase, request.as_deref()).await }).await? {
        Placed::Created(order) => Ok(created(order)),
        Placed::Repeated(order) => Ok(repeated(order)),
        Placed::Taken => Err(Refusal::Taken),
        Placed::Cancelled => Err(Refusal::Cancelled),
    }
}

/// Shows an order. **Safe**: changes nothing.
#[utoipa::path(
    get,
    path = "/order/{order-id}",
    params(("order-id" = String, Path, pattern = "^[A-Za-z0-9_-]{1,64}$")),
    responses(
        (status = 200, body = Order),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 410, body = Problem, content_type = "application/problem+json"),
    )
)]
async fn read_order(State(shop): State<Shop>, InPath(id): InPath) -> Result<Json<Order>, Refusal> {
    let order = shop.find(&id).await?.ok_or(Refusal::NoOrder)?;
    if order.is_cancelled {
        return Err(Refusal::Cancelled);
    }
    Ok(Json(order))
}

/// Cancels an order and refunds it. **Idempotent**: however often it is asked for, the order is
/// cancelled and refunded once, and each answer is 204.
#[utoipa::path(
    delete,
    path = "/order/{order-id}",
    params(("order-id" = String, Path, pattern = "^[A-Za-z0-9_-]{1,64}$")),
    responses(
        (status = 204, description = "There is no such order any more."),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json",
            description = "There never was such an order."),
        (status = 500, body = Problem, content_type = "application/problem+json"),
        (status = 503, body = Problem, content_type = "application/problem+json"),
    )
)]
async fn delete_order(State(shop): State<Shop>, InPath(id): InPath) -> Result<Response, Refusal> {
    if detached(async move { shop.cancel(&id).await }).await? {
        Ok(nothing_left())
    } else {
        Err(Refusal::NoOrder)
    }
}

/// Lists the newest orders that are not cancelled, or those of one request. **Safe**.
///
/// With `request`, a question that a probe asks: did the request with this `Idempotency-Key` have
/// its effect? 404 says that it did not (yet): one that is still under way may.
#[utoipa::path(
    get,
    path = "/orders",
    params(("request" = Option<String>, Query,
        description = "The Idempotency-Key of the request that made the order.")),
    responses(
        (status = 200, body = OrderList),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json",
            description = "No order was made by this request."),
    )
)]
async fn list_orders(
    State(shop): State<Shop>,
    query: Result<Query<HashMap<String, String>>, axum::extract::rejection::QueryRejection>,
) -> Result<Json<OrderList>, Refusal> {
    let Query(query) = query.map_err(|error| Refusal::Query(error.body_text()))?;
    if query.keys().any(|name| name != "request") {
        let why = "The only parameter is request.".to_owned();
        return Err(Refusal::Query(why));
    }
    let request = query.get("request").map(|value| unquoted(value));
    let orders = shop.list(request).await?;
    if request.is_some() && orders.is_empty() {
        return Err(Refusal::NoOrder);
    }
    Ok(Json(OrderList { orders }))
}

/// Shows what was charged: the honest count of effects. **Safe**.
#[utoipa::path(get, path = "/ledger", responses((status = 200, body = Ledger)))]
async fn read_ledger(State(shop): State<Shop>) -> Result<Json<Ledger>, Refusal> {
    Ok(Json(shop.ledger().await?))
}

/// Shows what can be ordered. **Safe**.
#[utoipa::path(get, path = "/catalogue", responses((status = 200, body = [Item])))]
async fn read_catalogue() -> Json<[Item; 3]> {
    Json(CATALOGUE)
}

/// Says that the service and its database answer. **Safe**.
#[utoipa::path(
    get,
    path = "/healthz",
    responses(
        (status = 204),
        (status = 503, body = Problem, content_type = "application/problem+json"),
    )
)]
async fn read_health(State(shop): State<Shop>) -> Result<Response, Refusal> {
    shop.ping().await?;
    Ok(nothing_left())
}

async fn read_openapi() -> Json<utoipa::openapi::OpenApi> {
    Json(Document::openapi())
}

/// Runs a change to its end, whether or not the client waits for it: the server drops a handler's
/// future when the client hangs up.
async fn detached<T: Send + 'static>(
    change: impl Future<Output = Result<T, Failure>> + Send + 'static,
) -> Result<T, Refusal> {
    match tokio::spawn(change).await {
        Ok(done) => Ok(done?),
        Err(_) => Err(Refusal::Broken),
    }
}

/// The `Idempotency-Key`, with or without its quotes (RFC 9651 strings have some).
pub(crate) fn request_of(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(IDEMPOTENCY_KEY)?.to_str().ok()?;
    Some(unquoted(value).to_owned())
}

fn unquoted(value: &str) -> &str {
    value
        .strip_prefix('"')
        .and_then(|value| value.strip_suffix('"'))
        .unwrap_or(value)
}

/// The order's id in the path.
struct InPath(OrderId);

impl<S: Send + Sync> axum::extract::FromRequestParts<S> for InPath {
    type Rejection = Refusal;

    async fn from_request_parts(
        parts: &mut axum::http::request::Parts,
        state: &S,
    ) -> Result<Self, Refusal> {
        let path = Path::<String>::from_request_parts(parts, state).await;
        let Path(text) = path.map_err(|_| Refusal::OrderId)?;
        OrderId::parse(&text).map(Self).ok_or(Refusal::OrderId)
    }
}

/// The payload of an order: within bounds, JSON, and something that can be bought.
pub(crate) struct Payload(pub(crate) Purchase);

impl<S: Send + Sync> FromRequest<S> for Payload {
    type Rejection = Refusal;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Refusal> {
        let is_json = request
            .headers()
            .get(CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.split(';').next())
            .is_some_and(|value| value.trim().eq_ignore_ascii_case("application/json"));
        if !is_json {
            return Err(Refusal::MediaType);
        }
        let content = read(request.into_body()).await?;
        let order: NewOrder = serde_json::from_slice(&content).map_err(|error| {
            let why = error.to_string();
            if error.is_data() {
                Refusal::NotAnOrder(why)
            } else {
                Refusal::NotJson(why)
            }
        })?;
        order.purchase().map(Self).map_err(Refusal::Purchase)
    }
}

async fn read(body: Body) -> Result<axum::body::Bytes, Refusal> {
    if body.size_hint().lower() > MAX_BODY as u64 {
        return Err(Refusal::TooLarge(MAX_BODY));
    }
    match timeout(BODY_PATIENCE, to_bytes(body, MAX_BODY)).await {
        Ok(Ok(content)) => Ok(content),
        Ok(Err(error)) if is_over_limit(&error) => Err(Refusal::TooLarge(MAX_BODY)),
        Ok(Err(_)) => Err(Refusal::CutShort),
        Err(_) => Err(Refusal::TooSlow),
    }
}

fn is_over_limit(error: &axum::Error) -> bool {
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        if error.is::<http_body_util::LengthLimitError>() {
            return true;
        }
        cause = error.source();
    }
    false
}
