//! A server that is down is not made worse: what retries add stays within the budget.

use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use hapax_client::Config;
use hapax_client::tower::SafeLayer;
use http::{Request, Response};
use http_body_util::Full;
use tokio::time::Instant;
use tower::{Layer as _, ServiceExt as _, service_fn};

type Answer = Result<Response<Full<Bytes>>, io::Error>;

/// 200 callers of one process, a request a second each, for 30 s in which the server is down. Time is virtual.
async fn storm(answer: fn() -> Answer) -> (u32, u32) {
    let (sent, intents) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let count = Arc::clone(&sent);
    let service = service_fn(move |_: Request<Full<Bytes>>| {
        count.fetch_add(1, Ordering::Relaxed);
        async move { answer() }
    });
    let client = SafeLayer::new(Config::default()).layer(service);
    let end = Instant::now() + Duration::from_secs(30);
    let callers: Vec<_> = (0..200)
        .map(|number| {
            let (client, intents) = (client.clone(), Arc::clone(&intents));
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(number * 5)).await;
                while Instant::now() < end {
                    intents.fetch_add(1, Ordering::Relaxed);
                    let order = Request::post("http://shop.test/create-order")
                        .body(Full::<Bytes>::default());
                    assert!(client.clone().oneshot(order.unwrap()).await.is_err());
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            })
        })
        .collect();
    for caller in callers {
        caller.await.unwrap();
    }
    (
        intents.load(Ordering::Relaxed),
        sent.load(Ordering::Relaxed),
    )
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_down_gets_at_most_a_tenth_more_requests() {
    let refused: fn() -> Answer = || Err(ErrorKind::ConnectionRefused.into());
    let reset: fn() -> Answer = || Err(ErrorKind::ConnectionReset.into());
    let busy: fn() -> Answer = || {
        let mut answer = Response::new(Full::default());
        *answer.status_mut() = http::StatusCode::SERVICE_UNAVAILABLE;
        Ok(answer)
    };
    for (name, answer) in [("refused", refused), ("reset", reset), ("503", busy)] {
        let (intents, sent) = storm(answer).await;
        eprintln!("{name}: {intents} intents, {sent} requests");
        assert!(intents > 5000);
        assert!(sent > intents, "retries were made at all");
        assert!(
            sent - intents <= intents / 10,
            "{name}: {sent} requests for {intents} intents"
        );
    }
}
