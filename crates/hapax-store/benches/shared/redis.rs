//! The store in Redis beside a loop of `SET NX` and `SET` of as many bytes on the same server.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use hapax_core::store::Store;
use hapax_store::conformance::sample;
use hapax_store::{RedisOptions, RedisStore};
use redis::aio::MultiplexedConnection;
use redis::cmd;

use crate::redis_servers::RedisServer;
use crate::{ROUNDS, claim_and_complete, pairs, report};

/// Bytes of a claim and of a settled record, as the store writes them for the sample.
const CLAIM_BYTES: usize = 180;
const RECORD_BYTES: usize = 600;

/// Measures with every write synced, and with a sync every second.
pub(crate) async fn run() {
    for fsync in ["always", "everysec"] {
        let server = RedisServer::with(&["--appendfsync", fsync]);
        let store = RedisStore::open(&server.url(), RedisOptions::default()).await;
        let store = Arc::new(store.unwrap());
        let client = redis::Client::open(server.url()).unwrap();
        // As many connections as the store has.
        let mut connections = Vec::new();
        for _ in 0..RedisOptions::default().connections {
            connections.push(client.get_multiplexed_async_connection().await.unwrap());
        }
        let connections = Arc::new(connections);
        let next = Arc::new(AtomicU64::new(0));
        let (mut ours, mut bare) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let store = Arc::clone(&store);
            let through = move |number| {
                let store = Arc::clone(&store);
                async move { claim_and_complete(&*store, number).await }
            };
            ours.push(pairs(&next, through).await);
            let connections = Arc::clone(&connections);
            let plain = move |number: u64| {
                let turn = usize::try_from(number).unwrap_or(0) % connections.len();
                let connection = connections.get(turn).cloned();
                async move { set_twice(connection.unwrap(), number).await }
            };
            bare.push(pairs(&next, plain).await);
        }
        report(&format!("redis, appendfsync {fsync}"), ours, bare);
        sizes(&server, &next).await;
    }
}

/// The least that a claim and its completion could be: no checks, no index, no clock.
async fn set_twice(mut connection: MultiplexedConnection, number: u64) {
    let mut key = b"bare:".to_vec();
    key.extend_from_slice(sample::key(number).as_bytes());
    let mut claim = cmd("SET");
    claim
        .arg(&key)
        .arg([7_u8; CLAIM_BYTES].as_slice())
        .arg("NX");
    let claimed: bool = claim.query_async(&mut connection).await.unwrap();
    assert!(claimed);
    let mut settle = cmd("SET");
    settle.arg(&key).arg([7_u8; RECORD_BYTES].as_slice());
    settle.query_async::<()>(&mut connection).await.unwrap();
}

/// What a settled record costs a server that has nothing else.
async fn sizes(server: &RedisServer, next: &Arc<AtomicU64>) {
    let mut client = server.client();
    client.command(&["FLUSHALL"]);
    let store = RedisStore::open(&server.url(), RedisOptions::default()).await;
    let store = Arc::new(store.unwrap());
    let mut memory = || {
        let info = client.command(&["INFO", "memory"]);
        let used = info
            .lines()
            .find_map(|line| line.strip_prefix("used_memory:"));
        used.and_then(|used| used.trim().parse::<f64>().ok())
    };
    let before = memory().unwrap();
    let filled = Arc::clone(&store);
    let through = move |number| {
        let store = Arc::clone(&filled);
        async move { claim_and_complete(&*store, number).await }
    };
    pairs(next, through).await;
    let records = store.stats().await.unwrap().records;
    let each = (memory().unwrap() - before) / records as f64;
    println!("  {each:.0} bytes of memory a settled record, of {records}");
}
