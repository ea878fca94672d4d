//! What the page asks the demo itself: how everything is, what to kill, how bad the network shall be.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::Demo;
use super::children::{Role, StartError, WORK};
use super::fate::Weather;
use super::pages;
use super::wire::{Till, ask_shop, ledger};
use crate::admin::names_this_host;

/// The longest time that a killed process stays away, in milliseconds.
const MAX_AWAY_MS: u64 = 60_000;

/// All paths but the tills'.
pub(super) fn router(demo: Arc<Demo>) -> Router {
    pages::add_to(Router::new())
        .route("/demo/state", get(state))
        .route("/demo/orders/{till}", get(orders))
        .route("/demo/weather", post(weather))
        .route("/demo/kill/{role}", post(kill))
        .route("/demo/kill-shops-mid-order", post(kill_mid_order))
        .route("/demo/start/{role}", post(start))
        .route("/demo/start-over", post(start_over))
        .layer(from_fn(only_this_page))
        .with_state(demo)
}

/// Other pages of the browser can send requests to a loopback address; they are not listened to.
async fn only_this_page(request: Request, next: Next) -> Response {
    let is_ours = names_this_host(request.headers(), &[])
        && (request.method() == Method::GET || is_same_origin(request.headers()));
    if !is_ours {
        let text = "this listener answers to its address and to its own page only\n";
        return (StatusCode::MISDIRECTED_REQUEST, text).into_response();
    }
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let nosniff = HeaderValue::from_static("nosniff");
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, nosniff);
    response
}

/// Programs send no `Origin`; pages cannot leave it out.
pub(super) fn is_same_origin(headers: &HeaderMap) -> bool {
    let Some(origin) = headers.get(header::ORIGIN) else {
        return true;
    };
    let host = headers.get(header::HOST);
    let host = host.and_then(|host| host.to_str().ok());
    host.is_some_and(|host| origin.as_bytes() == format!("http://{host}").as_bytes())
}

#[derive(Debug, Deserialize)]
struct After {
    /// The last entry of the wire's record that the page has.
    #[serde(default)]
    after: u64,
}

async fn state(State(demo): State<Arc<Demo>>, Query(After { after }): Query<After>) -> Json<Value> {
    let (bare, with_hapax) =
        tokio::join!(ledger(&demo, Till::Bare), ledger(&demo, Till::WithHapax));
    let condition = |role| demo.children.condition(role);
    Json(json!({
        "seed": demo.options.seed,
        "autoplay": demo.options.autoplay,
        "weather": demo.weather(),
        "work_ms": WORK.as_millis(),
        "processes": {
            "bare-shop": condition(Role::BareShop),
            "shop": condition(Role::Shop),
            "hapax": condition(Role::Hapax),
        },
        "ledgers": { "bare": bare, "hapax": with_hapax },
        "wire": demo.record.after(after),
    }))
}

#[derive(Debug, Deserialize)]
struct OrdersOf {
    /// The key of the request whose orders are looked for.
    request: String,
}

/// What the shop knows of a key: asked for at the shop itself.
async fn orders(
    State(demo): State<Arc<Demo>>,
    Path(till): Path<String>,
    Query(OrdersOf { request }): Query<OrdersOf>,
) -> Response {
    let till = match till.as_str() {
        "bare" => Till::Bare,
        "hapax" => Till::WithHapax,
        _ => return StatusCode::NOT_FOUND.into_response(),
    };
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    if !request.bytes().all(is_plain) {
        return StatusCode::BAD_REQUEST.into_response();
    }
    match ask_shop(&demo, till, &format!("/orders?request={request}")).await {
        Some(orders) => Json(orders).into_response(),
        None => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}

async fn weather(State(demo): State<Arc<Demo>>, Json(weather): Json<Weather>) -> StatusCode {
    if !weather.is_possible() {
        return StatusCode::UNPROCESSABLE_ENTITY;
    }
    demo.set_weather(weather);
    StatusCode::NO_CONTENT
}

#[derive(Debug, Deserialize)]
struct Away {
    /// When it is started again; not by itself without.
    back_after_ms: Option<u64>,
}

async fn kill(
    State(demo): State<Arc<Demo>>,
    Path(role): Path<String>,
    Query(Away { back_after_ms }): Query<Away>,
) -> StatusCode {
    let Some(role) = Role::parse(&role) else {
        return StatusCode::NOT_FOUND;
    };
    demo.children.kill(role).await;
    if let Some(away) = back_after_ms {
        let away = Duration::from_millis(away.min(MAX_AWAY_MS));
        tokio::spawn(async move {
            sleep(away).await;
            // One that does not come back is shown as away, with a button to start it.
            let _ = demo.children.start(role).await;
        });
    }
    StatusCode::NO_CONTENT
}

/// The next order at each till kills its shop between commit and answer.
async fn kill_mid_order(State(demo): State<Arc<Demo>>) -> StatusCode {
    demo.arm();
    StatusCode::NO_CONTENT
}

async fn start(State(demo): State<Arc<Demo>>, Path(role): Path<String>) -> Response {
    let Some(role) = Role::parse(&role) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    done(demo.children.start(role).await)
}

/// Empty ledgers, an empty store, a network of the first moment.
async fn start_over(State(demo): State<Arc<Demo>>) -> Response {
    for till in [Till::Bare, Till::WithHapax] {
        demo.disarm(till);
    }
    demo.set_weather(Weather::default());
    let started = demo.children.start_over().await;
    demo.record.clear();
    done(started)
}

fn done(started: Result<(), StartError>) -> Response {
    match started {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")).into_response(),
    }
}
