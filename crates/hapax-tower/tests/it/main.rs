//! The layer around an inner service that is scripted, over the memory store.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

mod support;

use std::time::Duration;

use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};

use hapax_core::policy::{KeyRequirement, Mode, OnUnknown, Policy};
use hapax_tower::Limits;
use support::{Act, Shop, keyed, read};

#[tokio::test(start_paused = true)]
async fn a_repeat_gets_the_first_answer_byte_for_byte() {
    let shop = Shop::new(Policy::default());
    let first = read(shop.send(keyed("k", "book")).await).await;
    let second = read(shop.send(keyed("k", "book")).await).await;
    assert_eq!(shop.effects(), 1);
    assert_eq!(
        (first.status, &first.content),
        (second.status, &second.content)
    );
    assert!(!first.headers.contains_key("idempotent-replayed"));
    assert_eq!(first.headers["idempotency-status"], "executed");
    assert_eq!(second.headers["idempotent-replayed"], "true");
    assert_eq!(second.headers["idempotency-status"], "replayed");
    assert_eq!(second.headers["idempotency-key"], "k");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_cancels_nothing_and_its_retry_is_answered() {
    let shop = Shop::new(Policy::default());
    let hold = shop.next(Act::Hold);
    let left = tokio::spawn({
        let shop = shop.clone();
        async move { shop.send(keyed("k", "book")).await }
    });
    shop.until_called(1).await;
    left.abort();
    assert!(left.await.expect_err("it was aborted").is_cancelled());
    hold.notify_one();
    let retry = shop.until_settled("k", "book").await;
    assert_eq!(retry.headers["idempotent-replayed"], "true");
    assert_eq!(shop.effects(), 1);
}

#[tokio::test(start_paused = true)]
async fn two_hundred_at_once_run_once_and_all_get_the_answer_when_they_may_wait() {
    let shop = Shop::with_limits(
        Policy {
            wait: Duration::from_secs(5),
            ..Policy::default()
        },
        Limits {
            waiters_per_key: 1_000,
            ..Limits::default()
        },
    );
    let hold = shop.next(Act::Hold);
    let sends: Vec<_> = (0..200)
        .map(|_| {
            let shop = shop.clone();
            tokio::spawn(async move { read(shop.send(keyed("k", "book")).await).await })
        })
        .collect();
    shop.until_called(1).await;
    hold.notify_one();
    let mut replayed = 0;
    for send in sends {
        let answer = send.await.expect("no panic");
        assert_eq!(answer.status, StatusCode::CREATED);
        replayed += usize::from(answer.headers.contains_key("idempotent-replayed"));
    }
    assert_eq!((shop.effects(), replayed), (1, 199));
}

#[tokio::test(start_paused = true)]
async fn a_duplicate_that_may_not_wait_gets_409() {
    let shop = Shop::new(Policy::default());
    let hold = shop.next(Act::Hold);
    let first = tokio::spawn({
        let shop = shop.clone();
        async move { shop.send(keyed("k", "book")).await }
    });
    shop.until_called(1).await;
    let second = read(shop.send(keyed("k", "book")).await).await;
    assert_eq!(second.status, StatusCode::CONFLICT);
    assert_eq!(second.headers["retry-after"], "1");
    assert!(!second.headers.contains_key("idempotency-status"));
    hold.notify_one();
    assert_eq!(first.await.expect("no panic").status(), StatusCode::CREATED);
}

#[tokio::test(start_paused = true)]
async fn waiters_beyond_the_bound_are_sent_away_at_once() {
    let shop = Shop::with_limits(
        Policy {
            wait: Duration::from_secs(60),
            ..Policy::default()
        },
        Limits {
            waiters_per_key: 2,
            ..Limits::default()
        },
    );
    let hold = shop.next(Act::Hold);
    let sends: Vec<_> = (0..6)
        .map(|_| {
            let shop = shop.clone();
            tokio::spawn(async move { shop.send(keyed("k", "book")).await.status().as_u16() })
        })
        .collect();
    shop.until_called(1).await;
    hold.notify_one();
    let mut statuses = Vec::new();
    for send in sends {
        statuses.push(send.await.expect("no panic"));
    }
    assert_eq!(shop.effects(), 1);
    assert!(
        statuses.iter().filter(|status| **status == 201).count() >= 3,
        "{statuses:?}"
    );
    assert!(statuses.contains(&409), "{statuses:?}");
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_the_inner_service_leaves_the_outcome_unknown() {
    let shop = Shop::new(Policy::default());
    shop.next(Act::Panic);
    let first = read(shop.send(keyed("k", "book")).await).await;
    assert_eq!(first.status, StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(first.headers["idempotency-status"], "unknown");
    let retry = read(shop.send(keyed("k", "book")).await).await;
    assert_eq!(retry.status, StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(shop.effects(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_error_before_anything_was_sent_frees_the_key() {
    let shop = Shop::new(Policy::default());
    shop.next(Act::NotSent);
    let first = read(shop.send(keyed("k", "book")).await).await;
    assert_eq!(first.status, StatusCode::BAD_GATEWAY);
    assert_eq!(
        first.headers["proxy-status"],
        "hapax; error=destination_unavailable"
    );
    let retry = read(shop.send(keyed("k", "book")).await).await;
    assert_eq!((retry.status, shop.effects()), (StatusCode::CREATED, 1));
    assert!(!retry.headers.contains_key("idempotent-replayed"));
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_comes_too_late_for_its_client_is_kept_for_the_retry() {
    let shop = Shop::new(Policy {
        upstream_timeout: Duration::from_secs(1),
        ..Policy::default()
    });
    let hold = shop.next(Act::Hold);
    let first = read(shop.send(keyed("k", "book")).await).await;
    assert_eq!(first.status, StatusCode::GATEWAY_TIMEOUT);
    let between = read(shop.send(keyed("k", "book")).await).await;
    assert_eq!(between.status, StatusCode::GATEWAY_TIMEOUT);
    hold.notify_one();
    let retry = shop.until_settled("k", "book").await;
    assert_eq!((retry.status, shop.effects()), (StatusCode::CREATED, 1));
}

#[tokio::test(start_paused = true)]
async fn an_operation_longer_than_its_lease_keeps_its_claim() {
    let policy = Policy {
        lease: Duration::from_secs(3),
        upstream_timeout: Duration::from_secs(600),
        ..Policy::default()
    };
    let shop = Shop::new(policy);
    let hold = shop.next(Act::Hold);
    let first = tokio::spawn({
        let shop = shop.clone();
        async move { shop.send(keyed("k", "book")).await }
    });
    shop.until_called(1).await;
    for _ in 0..30 {
        shop.pass(Duration::from_secs(1)).await;
        let duplicate = shop.send(keyed("k", "book")).await;
        assert_eq!(duplicate.status(), StatusCode::CONFLICT);
    }
    hold.notify_one();
    assert_eq!(first.await.expect("no panic").status(), StatusCode::CREATED);
    assert_eq!(shop.effects(), 1);
}

#[tokio::test(start_paused = true)]
async fn another_payload_is_refused_and_the_difference_is_named() {
    let shop = Shop::new(Policy::default());
    shop.send(keyed("k", "book")).await;
    let other = read(shop.send(keyed("k", "pen")).await).await;
    assert_eq!(other.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(
        other.text().contains("differs in: content"),
        "{}",
        other.text()
    );
    assert_eq!(shop.effects(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_required_key_that_is_missing_is_asked_for() {
    let shop = Shop::new(Policy {
        key: KeyRequirement::Required,
        ..Policy::default()
    });
    let answer = read(
        shop.send(
            Request::post("/orders")
                .body(Full::from("book"))
                .expect("a request"),
        )
        .await,
    )
    .await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert!(answer.text().contains("#key-missing"));
    assert_eq!(
        answer.headers["link"],
        "<urn:hapax:problems#key-missing>; rel=\"describedby\""
    );
    assert_eq!(shop.effects(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_content_over_the_bound_never_reaches_the_service_nor_uses_the_key() {
    let shop = Shop::new(Policy {
        max_body: 4,
        ..Policy::default()
    });
    let answer = shop.send(keyed("k", "book!")).await;
    assert_eq!(answer.status(), StatusCode::PAYLOAD_TOO_LARGE);
    let within = shop.send(keyed("k", "book")).await;
    assert_eq!((within.status(), shop.effects()), (StatusCode::CREATED, 1));
}

#[tokio::test(start_paused = true)]
async fn observing_changes_nothing() {
    let shop = Shop::new(Policy {
        mode: Mode::Observe,
        max_body: 4,
        ..Policy::default()
    });
    for content in ["book", "book", "pen", "far more than the bound"] {
        let answer = read(shop.send(keyed("k", content)).await).await;
        assert_eq!(answer.status, StatusCode::CREATED);
        assert!(answer.text().ends_with(content));
        assert!(!answer.headers.contains_key("idempotent-replayed"));
    }
    assert_eq!(shop.effects(), 4);
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_dedupes_is_asked_again_where_the_route_says_so() {
    let shop = Shop::new(Policy {
        on_unknown: OnUnknown::Resend,
        ..Policy::default()
    });
    shop.next(Act::Answer(500));
    let first = read(shop.send(keyed("k", "book")).await).await;
    assert_eq!(first.headers["idempotency-status"], "unknown");
    let second = read(shop.send(keyed("k", "book")).await).await;
    assert_eq!(second.status, StatusCode::CREATED);
    assert_eq!(second.headers["x-attempt-seen"], "2");
    assert_eq!(shop.effects(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_failure_of_the_service_is_stored_and_replayed_as_unknown() {
    let shop = Shop::new(Policy::default());
    shop.next(Act::Answer(500));
    let first = read(shop.send(keyed("k", "book")).await).await;
    let second = read(shop.send(keyed("k", "book")).await).await;
    assert_eq!((first.status.as_u16(), second.status.as_u16()), (500, 500));
    assert_eq!(first.content, second.content);
    assert_eq!(second.headers["idempotency-status"], "unknown");
    assert_eq!(second.headers["idempotent-replayed"], "true");
    assert_eq!(shop.effects(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_answer_over_the_bound_streams_through_and_its_retry_is_told_so() {
    let shop = Shop::new(Policy {
        max_stored_response: 8,
        ..Policy::default()
    });
    let first = read(shop.send(keyed("k", "a long story")).await).await;
    assert!(first.text().ends_with("a long story"));
    let second = read(shop.send(keyed("k", "a long story")).await).await;
    assert_eq!(second.status, StatusCode::CONFLICT);
    assert!(second.text().contains("#response-unavailable"));
    assert!(!second.headers.contains_key("idempotency-status"));
    assert_eq!(shop.effects(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_preflight_may_use_the_key_where_the_service_allows_the_origin() {
    let shop = Shop::new(Policy::default());
    let request = Request::options("/orders")
        .header("origin", "https://shop.example")
        .header("access-control-request-method", "POST")
        .header(
            "access-control-request-headers",
            "content-type, idempotency-key",
        )
        .body(Full::default())
        .expect("a request");
    let answer = shop.send(request).await;
    let allowed: Vec<&HeaderValue> = answer
        .headers()
        .get_all("access-control-allow-headers")
        .iter()
        .collect();
    assert_eq!(allowed, ["content-type", "idempotency-key"]);
}

#[tokio::test(start_paused = true)]
async fn requests_under_way_are_bounded_before_the_claim() {
    let shop = Shop::with_limits(
        Policy::default(),
        Limits {
            outstanding: 1,
            ..Limits::default()
        },
    );
    let hold = shop.next(Act::Hold);
    let first = tokio::spawn({
        let shop = shop.clone();
        async move { shop.send(keyed("k", "book")).await }
    });
    shop.until_called(1).await;
    let second = read(shop.send(keyed("other", "book")).await).await;
    assert_eq!(second.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(second.text().contains("#overloaded"));
    hold.notify_one();
    first.await.expect("no panic");
    assert_eq!(
        shop.until_settled("other", "book").await.status,
        StatusCode::CREATED
    );
}

#[tokio::test(start_paused = true)]
async fn nobody_but_hapax_speaks_to_the_service_as_hapax() {
    let shop = Shop::new(Policy::default());
    for method in ["GET", "POST"] {
        let request = Request::builder().method(method).uri("/orders");
        let request = request.header("hapax-attempt", "9").body(Full::default());
        let answer = shop.send(request.expect("a request")).await;
        assert!(!answer.headers().contains_key("x-attempt-seen"), "{method}");
        assert!(!answer.headers().contains_key("hapax-outcome"), "{method}");
    }
}

#[tokio::test]
async fn an_axum_router_fits_inside_the_layer() {
    use axum::routing::post;
    use tower::{Layer, ServiceExt};
    let router = axum::Router::new().route("/", post(|body: String| async move { body }));
    let layer = support::layer(Policy::default(), Limits::default());
    let send = async |service: hapax_tower::HapaxService<_, axum::Router>| -> Response<_> {
        let request = keyed("k", "book");
        let (mut parts, body) = request.into_parts();
        parts.uri = "/".parse().expect("a path");
        service
            .oneshot(Request::from_parts(parts, body))
            .await
            .expect("an answer")
    };
    let service = layer.layer(router);
    let first = send(service.clone())
        .await
        .into_body()
        .collect()
        .await
        .expect("whole")
        .to_bytes();
    let second = send(service).await;
    assert_eq!(second.headers()["idempotent-replayed"], "true");
    let second = second
        .into_body()
        .collect()
        .await
        .expect("whole")
        .to_bytes();
    assert_eq!(
        (first.as_ref(), first.clone()),
        (b"book".as_slice(), second)
    );
}
