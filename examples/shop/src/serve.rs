//! Serving the shop on a listener, within bounds and with deadlines, until told to stop.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::{Shop, router};

/// The most connections at once; more wait in the listener's queue.
pub const MAX_CONNECTIONS: usize = 1_024;

/// How long the head of a request may take to arrive.
const HEAD_PATIENCE: Duration = Duration::from_secs(10);

/// How long requests under way are waited for at the end.
const DRAIN_PATIENCE: Duration = Duration::from_secs(10);

/// How long accepting pauses after the system refused a connection (it is out of files, say).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves `shop` until `shutdown` is ready; then answers what is under way and returns.
///
/// Connections are built by hand because `axum::serve` sets no deadline for a request's head: one
/// client that sends half a line would hold a connection for ever.
///
/// # Errors
/// None at present: a connection that fails ends by itself.
pub async fn serve(
    listener: TcpListener,
    shop: Shop,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let completing = tokio::spawn({
        let shop = shop.clone();
        async move { shop.protection().complete(shop.clone()).await }
    });
    let service = TowerToHyperService::new(router(shop));
    let connections = GracefulShutdown::new();
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut shutdown = pin!(shutdown);
    loop {
        let accepting = async {
            // Never closed, so that there is always a permit to come.
            let place = Arc::clone(&places).acquire_owned().await.ok();
            (listener.accept().await, place)
        };
        let (accepted, place) = tokio::select! {
            () = &mut shutdown => break,
            accepted = accepting => accepted,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let _ = stream.set_nodelay(true);
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_PATIENCE)
            .serve_connection(TokioIo::new(stream), service.clone());
        let connection = connections.watch(connection);
        tokio::spawn(async move {
            let _ = connection.await;
            drop(place);
        });
    }
    drop(listener);
    completing.abort();
    let _ = timeout(DRAIN_PATIENCE, connections.shutdown()).await;
    Ok(())
}
