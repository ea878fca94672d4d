//! The shop as its clients see it: over real sockets.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test that cannot go on has failed"
)]

mod check;
mod client;
mod kills;
mod modes;
#[path = "../../../../crates/hapax-sqlx/tests/it/postgres.rs"]
mod postgres;
mod process;
mod provider;
mod steps;
#[path = "../../../../crates/hapax-sqlx/tests/it/wire.rs"]
mod wire;

use std::time::Duration;

use client::{Answer, Client};
use hapax_shop::Shop;
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// A shop of its own on a free port; it ends with the test's runtime.
async fn shop() -> Client {
    start(Shop::in_memory().await.expect("a shop")).await
}

async fn start(shop: Shop) -> Client {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(hapax_shop::serve(listener, shop, std::future::pending()));
    Client { address }
}

fn lamp() -> Value {
    json!({ "item": "a lamp", "quantity": 1 })
}

async fn charges(client: &Client) -> i64 {
    let ledger = client.get("/ledger").await.json();
    let entries = ledger["entries"].as_array().expect("entries").len();
    assert_eq!(
        entries as i64,
        ledger["charges"].as_i64().expect("a number") + ledger["refunds"].as_i64().expect("one")
    );
    ledger["charges"].as_i64().expect("a number")
}

fn assert_problem(answer: &Answer, status: u16, name: &str) {
    assert_eq!(answer.status, status, "{answer:?}");
    assert_eq!(
        answer.header("content-type"),
        Some("application/problem+json")
    );
    let problem = answer.json();
    assert_eq!(problem["type"], format!("urn:hapax-shop:problems#{name}"));
    assert_eq!(problem["status"], status);
    assert!(problem["title"].is_string() && problem["detail"].is_string());
}

#[tokio::test]
async fn the_naive_endpoint_orders_and_charges_at_every_request() {
    let client = shop().await;
    let key = [("Idempotency-Key", "\"k-1\"")];
    let first = client
        .send("POST", "/create-order", &key, Some(&lamp()))
        .await;
    let second = client
        .send("POST", "/create-order", &key, Some(&lamp()))
        .await;
    for answer in [&first, &second] {
        assert_eq!(answer.status, 201);
        let order = answer.json();
        let location = format!("/order/{}", order["id"].as_str().expect("an id"));
        assert_eq!(answer.header("location"), Some(location.as_str()));
        assert_eq!(client.get(&location).await.json(), order);
    }
    assert_ne!(first.json()["id"], second.json()["id"]);
    let ledger = client.get("/ledger").await.json();
    assert_eq!(ledger["charges"], 2);
    assert_eq!(ledger["total"], 9_800);
    assert_eq!(ledger["currency"], "EUR");
    let made = client.get("/orders?request=k-1").await.json();
    assert_eq!(made["orders"].as_array().expect("a list").len(), 2);
}

#[tokio::test]
async fn a_repeated_put_gets_the_first_answer_and_charges_nothing() {
    let client = shop().await;
    let first = client.send("PUT", "/order/o-1", &[], Some(&lamp())).await;
    assert_eq!(first.status, 201);
    assert_eq!(first.header("location"), Some("/order/o-1"));
    assert_eq!(first.header("idempotent-replayed"), None);
    for _ in 0..3 {
        let repeat = client.send("PUT", "/order/o-1", &[], Some(&lamp())).await;
        assert_eq!((repeat.status, &repeat.content), (201, &first.content));
        assert_eq!(repeat.header("location"), Some("/order/o-1"));
        assert_eq!(repeat.header("idempotent-replayed"), Some("true"));
    }
    assert_eq!(charges(&client).await, 1);
}

#[tokio::test]
async fn fifty_puts_at_once_under_one_id_make_one_order() {
    let folder = tempfile::tempdir().expect("a folder");
    let shop = Shop::open(folder.path().join("shop.db")).await;
    let client = start(shop.expect("a shop")).await;
    let mut requests = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let client = client.clone();
        requests.spawn(async move { client.send("PUT", "/order/o-1", &[], Some(&lamp())).await });
    }
    let answers = requests.join_all().await;
    assert!(answers.iter().all(|answer| answer.status == 201));
    let firsts = answers
        .iter()
        .filter(|answer| answer.header("idempotent-replayed").is_none());
    assert_eq!(firsts.count(), 1);
    assert_eq!(charges(&client).await, 1);
}

#[tokio::test]
async fn another_payload_under_an_id_is_refused() {
    let client = shop().await;
    client.send("PUT", "/order/o-1", &[], Some(&lamp())).await;
    for other in [
        json!({ "item": "a chair" }),
        json!({ "item": "a lamp", "quantity": 2 }),
    ] {
        let answer = client.send("PUT", "/order/o-1", &[], Some(&other)).await;
        assert_problem(&answer, 422, "order-id-reused");
    }
    assert_eq!(charges(&client).await, 1);
}

#[tokio::test]
async fn a_cancelled_order_is_refunded_once_and_not_made_again_by_a_late_repeat() {
    let client = shop().await;
    assert_problem(
        &client.send("DELETE", "/order/o-1", &[], None).await,
        404,
        "no-such-order",
    );
    client.send("PUT", "/order/o-1", &[], Some(&lamp())).await;
    for _ in 0..3 {
        let answer = client.send("DELETE", "/order/o-1", &[], None).await;
        assert_eq!((answer.status, answer.content.as_str()), (204, ""));
    }
    assert_problem(&client.get("/order/o-1").await, 410, "order-cancelled");
    let late = client.send("PUT", "/order/o-1", &[], Some(&lamp())).await;
    assert_problem(&late, 410, "order-cancelled");
    let ledger = client.get("/ledger").await.json();
    assert_eq!(
        [&ledger["charges"], &ledger["refunds"], &ledger["total"]],
        [1, 1, 0]
    );
}

#[tokio::test]
async fn a_probe_learns_whether_a_request_made_an_order() {
    let client = shop().await;
    assert_problem(
        &client.get("/orders?request=k-1").await,
        404,
        "no-such-order",
    );
    assert_eq!(client.get("/orders").await.json(), json!({ "orders": [] }));
    let key = [("Idempotency-Key", "k-1")];
    client.send("PUT", "/order/o-1", &key, Some(&lamp())).await;
    for query in ["k-1", "%22k-1%22"] {
        let found = client.get(&format!("/orders?request={query}")).await;
        assert_eq!(found.status, 200);
        assert_eq!(found.json()["orders"][0]["id"], "o-1");
    }
    assert_problem(
        &client.get("/orders?requst=k-1").await,
        400,
        "query-invalid",
    );
}

#[tokio::test]
async fn what_is_not_an_order_is_refused_and_charges_nothing() {
    let client = shop().await;
    let json = "application/json";
    for (media_type, content, status, name) in [
        (json, "{", 400, "not-json"),
        (json, "", 400, "not-json"),
        ("text/plain", r#"{"item":"a lamp"}"#, 415, "media-type"),
        (json, "[]", 422, "order-invalid"),
        (json, "{}", 422, "order-invalid"),
        (json, r#"{"item":"a yacht"}"#, 422, "order-invalid"),
        (
            json,
            r#"{"item":"a lamp","quantity":0}"#,
            422,
            "order-invalid",
        ),
        (
            json,
            r#"{"item":"a lamp","quantity":101}"#,
            422,
            "order-invalid",
        ),
        (
            json,
            r#"{"item":"a lamp","quantity":-1}"#,
            422,
            "order-invalid",
        ),
        (
            json,
            r#"{"item":"a lamp","quantity":1.5}"#,
            422,
            "order-invalid",
        ),
        (
            json,
            r#"{"item":"a lamp","quantity":"1"}"#,
            422,
            "order-invalid",
        ),
        (
            json,
            r#"{"item":"a lamp","quantity":null}"#,
            422,
            "order-invalid",
        ),
        (
            json,
            r#"{"item":"a lamp","quantity":1,"quantity":2}"#,
            422,
            "order-invalid",
        ),
        (json, r#"{"item":"a lamp","price":1}"#, 422, "order-invalid"),
    ] {
        for (method, target) in [("POST", "/create-order"), ("PUT", "/order/o-1")] {
            let answer = client
                .send_raw(method, target, &[("Content-Type", media_type)], content)
                .await;
            assert_eq!(answer.status, status, "{content}");
            assert_problem(&answer, status, name);
        }
    }
    let large = format!(r#"{{"item":"{}"}}"#, "x".repeat(20_000));
    let answer = client
        .send_raw("POST", "/create-order", &[("Content-Type", json)], &large)
        .await;
    assert_problem(&answer, 413, "too-large");
    assert_eq!(charges(&client).await, 0);
}

#[tokio::test]
async fn what_is_not_an_order_id_is_refused() {
    let client = shop().await;
    let long = "a".repeat(65);
    for id in ["a%20b", "a.b", "%2e%2e", "%ff", "%C3%A4", &long] {
        for method in ["PUT", "GET", "DELETE"] {
            let answer = client
                .send(method, &format!("/order/{id}"), &[], Some(&lamp()))
                .await;
            assert_problem(&answer, 400, "order-id-invalid");
        }
    }
}

#[tokio::test]
async fn each_resource_takes_its_methods_and_safe_ones_change_nothing() {
    let client = shop().await;
    for (method, target, allow) in [
        ("GET", "/create-order", "POST"),
        ("PUT", "/create-order", "POST"),
        ("POST", "/order/o-1", "GET,HEAD,PUT,DELETE"),
        ("DELETE", "/ledger", "GET,HEAD"),
    ] {
        let answer = client.send(method, target, &[], Some(&lamp())).await;
        assert_problem(&answer, 405, "no-such-method");
        assert_eq!(answer.header("allow"), Some(allow), "{method} {target}");
    }
    assert_problem(&client.get("/nothing").await, 404, "no-such-resource");
    client.send("PUT", "/order/o-1", &[], Some(&lamp())).await;
    for target in [
        "/order/o-1",
        "/orders",
        "/ledger",
        "/catalogue",
        "/openapi.json",
    ] {
        let get = client.get(target).await;
        assert_eq!(get.status, 200, "{target}");
        let head = client.send("HEAD", target, &[], None).await;
        assert_eq!((head.status, head.content.as_str()), (200, ""), "{target}");
        assert_eq!(head.header("content-length"), get.header("content-length"));
    }
    assert_eq!(client.get("/healthz").await.status, 204);
    assert_eq!(charges(&client).await, 1);
}

#[tokio::test]
async fn the_openapi_document_names_every_operation() {
    let client = shop().await;
    let document = client.get("/openapi.json").await.json();
    assert!(
        document["openapi"]
            .as_str()
            .expect("a version")
            .starts_with("3.1")
    );
    for (path, method) in [
        ("/create-order", "post"),
        ("/order/{order-id}", "put"),
        ("/order/{order-id}", "get"),
        ("/order/{order-id}", "delete"),
        ("/orders", "get"),
        ("/ledger", "get"),
        ("/catalogue", "get"),
        ("/healthz", "get"),
    ] {
        let operation = &document["paths"][path][method];
        assert!(
            operation["responses"].is_object(),
            "{method} {path}: {operation}"
        );
    }
    let lamp = &client.get("/catalogue").await.json()[0];
    assert_eq!(
        lamp,
        &json!({ "item": "a lamp", "price": 4900, "currency": "EUR" })
    );
}

#[tokio::test]
async fn a_client_that_hangs_up_gets_its_order_all_the_same() {
    let shop = Shop::in_memory().await.expect("a shop");
    let client = start(shop.work(Duration::from_secs(4))).await;
    let connection = client.send_only("PUT", "/order/o-1", &lamp()).await;
    // This connection came second, so when it is answered the first one's request was read; and its
    // order is not there for a long time yet.
    assert_eq!(client.get("/order/o-1").await.status, 404);
    drop(connection);
    client.until("/order/o-1", 200).await;
    assert_eq!(charges(&client).await, 1);
}
