//! The layer, over hyper's client and over services that fail as told.

use std::io;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use hapax_client::tower::{SafeLayer, SendError};
use hapax_client::{BoxError, Config, Settled, Why};
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tower::{Layer as _, ServiceExt as _, service_fn};

use crate::reqwest::quick;
use crate::server::{Act, CUT, MADE, Server};

fn order(url: &str) -> Request<Full<Bytes>> {
    Request::post(url)
        .body(Full::from("{\"item\":\"book\"}"))
        .unwrap()
}

#[tokio::test]
async fn hyper_sends_an_order_over_a_network_that_loses_and_cuts() {
    let server = Server::start(&[Act::Hangup, CUT, MADE]).await;
    let hyper = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let client = SafeLayer::new(quick()).layer(hyper);
    let answer = client.oneshot(order(&server.url)).await.unwrap();
    assert_eq!(answer.extensions().get(), Some(&Settled(true)));
    assert_eq!(
        answer.into_body().collect().await.unwrap().to_bytes(),
        "{\"order\":1}"
    );
    assert_eq!(server.asked().len(), 3);
    server.key();
}

#[tokio::test]
async fn an_unknown_outcome_is_sent_again_as_it_is() {
    let server = Server::start(&[Act::Hangup, Act::Hangup, Act::Hangup, MADE]).await;
    let hyper = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let client = SafeLayer::new(quick()).layer(hyper);
    let Err(SendError::Unknown(unknown)) = client.clone().oneshot(order(&server.url)).await else {
        panic!("known");
    };
    assert_eq!(unknown.why, Why::Attempts);
    let answer = client
        .oneshot(unknown.request.map(Full::new))
        .await
        .unwrap();
    assert_eq!(answer.status(), 201);
    server.key();
}

/// What a service that fails with `error` leads to, and how often it was called.
async fn failed(error: fn() -> BoxError, config: Config) -> (SendError, usize) {
    let calls = Arc::new(Mutex::new(0));
    let count = Arc::clone(&calls);
    let service = service_fn(move |_: Request<Full<Bytes>>| {
        *count.lock().unwrap() += 1;
        async move { Err::<Response<Full<Bytes>>, _>(error()) }
    });
    let error = SafeLayer::new(config)
        .layer(service)
        .oneshot(order("http://shop.test/"))
        .await
        .unwrap_err();
    let calls = *calls.lock().unwrap();
    (error, calls)
}

#[tokio::test]
async fn only_a_refusal_is_known_to_have_sent_nothing() {
    let refused: fn() -> BoxError = || Box::new(io::Error::from(io::ErrorKind::ConnectionRefused));
    let reset: fn() -> BoxError = || Box::new(io::Error::from(io::ErrorKind::ConnectionReset));
    let strange: fn() -> BoxError = || "strange".into();
    assert!(matches!(
        failed(refused, quick()).await,
        (SendError::NothingRan(_), 3)
    ));
    assert!(matches!(
        failed(reset, quick()).await,
        (SendError::Unknown(_), 3)
    ));
    assert!(matches!(
        failed(strange, quick()).await,
        (SendError::Unknown(_), 3)
    ));
}

#[tokio::test]
async fn a_body_too_large_to_keep_is_refused_before_it_is_sent() {
    let mut config = quick();
    config.limits.max_request = 3;
    let (error, calls) = failed(|| "never called".into(), config).await;
    assert!(error.is_body_too_large(), "{error:?}");
    assert_eq!(calls, 0);
}
