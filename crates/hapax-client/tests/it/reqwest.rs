//! The middleware, over a server that loses, cuts and hangs.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use hapax_client::reqwest::{SafeClient, unknown};
use hapax_client::{Config, Decision, Failure, Keys, Limits, Observer, Seen, Settled, Why};
use reqwest_middleware::ClientWithMiddleware;

use crate::server::{Act, CUT, MADE, NO_ENTRY, Server, UNKNOWN};

pub(crate) fn safe(config: Config) -> SafeClient {
    let plain = reqwest::Client::builder().no_proxy().build().unwrap();
    SafeClient::new(plain, config)
}

fn client(config: Config) -> ClientWithMiddleware {
    safe(config).client().clone()
}

/// No waits: the server is scripted, and time is the machine's.
pub(crate) fn quick() -> Config {
    let mut config = Config::default();
    config.timing.random = || 0.0;
    config
}

type Note = (u32, Result<u16, Failure>, Decision);

/// Keeps what it is told.
#[derive(Default)]
struct Notes(Mutex<Vec<Note>>);

impl Observer for Notes {
    fn attempt(&self, seen: &Seen<'_>) {
        let came = seen.came.map(|status| status.as_u16());
        self.0
            .lock()
            .unwrap()
            .push((seen.number, came, seen.decision));
    }
}

#[tokio::test]
async fn every_attempt_sends_the_same_key_and_the_same_bytes() {
    let server = Server::start(&[Act::Hangup, CUT, MADE]).await;
    let notes = Arc::new(Notes::default());
    let config = Config {
        observer: Some(Arc::clone(&notes) as Arc<dyn Observer>),
        ..quick()
    };
    let answer = client(config)
        .post(&server.url)
        .body("{\"item\":\"book\"}")
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 201);
    assert_eq!(answer.extensions().get(), Some(&Settled(true)));
    assert_eq!(answer.url().as_str(), server.url);
    assert_eq!(answer.text().await.unwrap(), "{\"order\":1}");
    assert_eq!(server.asked().len(), 3);
    assert_eq!(server.key().len(), 36);
    let notes = notes.0.lock().unwrap();
    let came: Vec<_> = notes
        .iter()
        .map(|(number, came, _)| (*number, *came))
        .collect();
    assert_eq!(
        came,
        [
            (1, Err(Failure::Reset)),
            (2, Err(Failure::Cut)),
            (3, Ok(201))
        ]
    );
    assert_eq!(notes[2].2, Decision::Final);
}

#[tokio::test]
async fn an_unknown_outcome_is_typed_and_resumed_with_the_same_key() {
    let server = Server::start(&[Act::Hangup, Act::Hangup, Act::Hangup, MADE]).await;
    let client = client(quick());
    let error = client
        .post(&server.url)
        .body("{}")
        .send()
        .await
        .unwrap_err();
    let unknown = unknown(error).unwrap();
    assert_eq!((unknown.why, unknown.attempts), (Why::Attempts, 3));
    assert!(unknown.source.is_some());
    let answer = unknown.resume(&client).await.unwrap();
    assert_eq!(answer.status(), 201);
    assert_eq!(server.asked().len(), 4);
    server.key();
}

#[tokio::test]
async fn an_answer_that_says_unknown_is_not_sent_again() {
    let server = Server::start(&[UNKNOWN]).await;
    let error = client(quick())
        .post(&server.url)
        .body("{}")
        .send()
        .await
        .unwrap_err();
    let unknown = unknown(error).unwrap();
    assert_eq!(unknown.why, Why::Answer);
    assert_eq!(unknown.answer.unwrap().status(), 504);
    assert_eq!(server.asked().len(), 1);
}

#[tokio::test]
async fn an_attempt_that_takes_too_long_is_a_time_out_and_may_have_run() {
    let server = Server::start(&[Act::Silence, NO_ENTRY]).await;
    let mut config = quick();
    config.limits = Limits {
        attempt: Duration::from_millis(200),
        ..Limits::default()
    };
    let error = client(config)
        .post(&server.url)
        .body("{}")
        .send()
        .await
        .unwrap_err();
    // The 401 to the second attempt tells nothing of the first.
    let unknown = unknown(error).unwrap();
    assert_eq!(unknown.answer.unwrap().status(), 401);
}

#[tokio::test]
async fn a_refused_connection_is_handed_over() {
    let error = client(quick())
        .post("http://127.0.0.1:9/")
        .body("{}")
        .send()
        .await
        .unwrap_err();
    assert!(error.is_connect(), "{error:?}");
}

#[tokio::test]
async fn a_post_without_a_key_is_sent_once() {
    let server = Server::start(&[Act::Hangup, MADE]).await;
    let config = Config {
        keys: Keys::Given,
        ..quick()
    };
    let client = client(config);
    let error = client
        .post(&server.url)
        .body("{}")
        .send()
        .await
        .unwrap_err();
    assert!(unknown(error).is_err());
    assert_eq!(server.asked().len(), 1);
    assert_eq!(server.asked()[0].key, None);
    client
        .post(&server.url)
        .header("Idempotency-Key", "mine")
        .send()
        .await
        .unwrap();
    assert_eq!(server.asked()[1].key.as_deref(), Some("mine"));
}

#[tokio::test]
async fn a_body_that_cannot_be_sent_twice_is_refused_before_it_is_sent() {
    let server = Server::start(&[MADE]).await;
    let body = reqwest::Body::wrap(http_body_util::combinators::BoxBody::new(
        http_body_util::Full::new(bytes::Bytes::from_static(b"{}")),
    ));
    let error = client(quick())
        .post(&server.url)
        .body(body)
        .send()
        .await
        .unwrap_err();
    assert!(error.to_string().contains("not a stream"), "{error}");
    assert!(server.asked().is_empty());
}

#[tokio::test]
async fn an_answer_larger_than_the_limit_is_never_held() {
    let mut config = quick();
    config.limits.max_answer = 4;
    config.limits.attempts = 1;
    // It says how large it is: handed over unread.
    let server = Server::start(&[MADE]).await;
    let answer = client(config.clone())
        .post(&server.url)
        .body("{}")
        .send()
        .await
        .unwrap();
    assert_eq!(answer.text().await.unwrap().len(), 11);
    // It does not: broken off.
    let server = Server::start(&[Act::Send(
        "HTTP/1.1 201 Created\r\nconnection: close\r\n\r\n{\"order\":1}",
    )])
    .await;
    let error = client(config)
        .post(&server.url)
        .body("{}")
        .send()
        .await
        .unwrap_err();
    assert!(unknown(error).is_ok());
}
