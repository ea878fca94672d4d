//! The demo's listener: pages and questions to the router, orders to the bad network.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::sleep;
use tower_service::Service as _;

use super::wire::{Cut, Till, carry};
use super::{Demo, api};
use crate::admin::names_this_host;

/// The most connections at once; more wait in the listener's queue.
const MAX_CONNECTIONS: usize = 256;

/// How long a request's head may take.
const HEAD_PATIENCE: Duration = Duration::from_secs(10);

/// How long accepting pauses after the system refused a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves until it is dropped.
pub(super) async fn accept(listener: TcpListener, demo: Arc<Demo>) {
    let router = api::router(Arc::clone(&demo));
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        // Never closed, so that there is always a permit to come.
        let place = Arc::clone(&places).acquire_owned().await.ok();
        let Ok((stream, _)) = listener.accept().await else {
            sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let _ = stream.set_nodelay(true);
        let (demo, router) = (Arc::clone(&demo), router.clone());
        let service = service_fn(move |request| answer(Arc::clone(&demo), router.clone(), request));
        // One request a connection: browsers repeat a request by themselves when a connection that was
        // used before is closed without an answer.
        let connection = http1::Builder::new()
            .keep_alive(false)
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_PATIENCE)
            .serve_connection(TokioIo::new(stream), service);
        tokio::spawn(async move {
            // An error is how an answer is lost.
            let _ = connection.await;
            drop(place);
        });
    }
}

async fn answer(
    demo: Arc<Demo>,
    mut router: Router,
    request: Request<Incoming>,
) -> Result<Response<Body>, Cut> {
    let path_and_query = request.uri().path_and_query();
    let till = path_and_query.and_then(|path| Till::of(path.as_str()));
    let Some((till, target)) = till else {
        let Ok(response) = router.call(request).await;
        return Ok(response);
    };
    let headers = request.headers();
    if !names_this_host(headers, &[]) || !api::is_same_origin(headers) {
        return Err(Cut);
    }
    let target = target.to_owned();
    carry(demo, till, target, request).await
}
