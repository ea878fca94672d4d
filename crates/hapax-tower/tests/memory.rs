//! What an operation under way takes in memory beside its request, counted at the allocator.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test that cannot go on has failed, and one that measures says what it found"
)]

#[path = "it/support.rs"]
#[allow(dead_code, reason = "the other tests use more of it")]
mod support;

use std::alloc::System;

use bytes::Bytes;
use cap::Cap;
use http::Request;
use http_body_util::Full;

use hapax_core::policy::Policy;
use hapax_tower::Limits;
use support::{Act, Shop};

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

const HELD: usize = 1_000;

/// The most that an operation under way may take beyond what an unkeyed request takes.
const MOST_BYTES: usize = 4_096;

/// Bytes in use for each of [`HELD`] requests that the inner service has not answered yet.
async fn bytes_of_held(is_keyed: bool) -> usize {
    let limits = Limits {
        outstanding: HELD,
        ..Limits::default()
    };
    let shop = Shop::with_limits(Policy::default(), limits);
    let releases: Vec<_> = (0..HELD).map(|_| shop.next(Act::Hold)).collect();
    let before = ALLOCATOR.allocated();
    let sends: Vec<_> = (0..HELD)
        .map(|number| {
            let shop = shop.clone();
            let mut request = Request::post("/orders");
            if is_keyed {
                request = request.header("idempotency-key", format!("key-{number}"));
            }
            let request = request.body(Full::from(Bytes::from(vec![b'x'; 300])));
            let request = request.expect("a request");
            tokio::spawn(async move { shop.send(request).await.status() })
        })
        .collect();
    shop.until_called(HELD).await;
    let each = (ALLOCATOR.allocated() - before) / HELD;
    for release in releases {
        release.notify_one();
    }
    for send in sends {
        assert_eq!(send.await.expect("no panic"), 201);
    }
    each
}

#[tokio::test]
async fn an_operation_under_way_takes_at_most_4_kib_beside_its_request() {
    // What is made once is there before the first look.
    bytes_of_held(true).await;
    let (unkeyed, keyed) = (bytes_of_held(false).await, bytes_of_held(true).await);
    let beside = keyed - unkeyed;
    println!("{unkeyed} bytes unkeyed, {keyed} keyed: {beside} beside the request");
    assert!(beside <= MOST_BYTES, "{beside} bytes");
    // It holds a key, a claim, a record and a task of its own: less would be a mistake of the measurement.
    assert!(beside > 500, "{beside} bytes");
}
