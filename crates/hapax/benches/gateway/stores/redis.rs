//! `SET NX` and then `SET XX`, which checks nothing of who has the key.

use redis::aio::MultiplexedConnection;
use redis::cmd;

use super::{Bare, CLAIM_BYTES, QUIET, RECORD_BYTES, key};
use crate::proxies::Proxy;
use crate::redis_servers::RedisServer;
use crate::upstream::Upstream;

/// A server of this program's own, and a gateway whose store is in it.
pub(super) fn start(upstream: &Upstream, fsync: &str) -> (RedisServer, Proxy) {
    let server = RedisServer::with(&["--appendfsync", fsync]);
    let section = format!("kind = \"redis\"\nurl = \"{}\"", server.url());
    let hapax = Proxy::hapax_over(&section, upstream.address, QUIET);
    (server, hapax)
}

impl Bare for RedisServer {
    type Worker = MultiplexedConnection;

    async fn workers(&self, count: u64) -> Vec<MultiplexedConnection> {
        let client = redis::Client::open(self.url()).unwrap();
        let mut workers = Vec::new();
        for _ in 0..count {
            workers.push(client.get_multiplexed_async_connection().await.unwrap());
        }
        workers
    }

    async fn pair(worker: &mut MultiplexedConnection, number: u64) {
        let key = [b"bare:".as_slice(), &key(number)].concat();
        for (bytes, only) in [(CLAIM_BYTES, "NX"), (RECORD_BYTES, "XX")] {
            let mut set = cmd("SET");
            set.arg(&key).arg(vec![7_u8; bytes]).arg(only);
            let is_set: bool = set.query_async(worker).await.unwrap();
            assert!(is_set);
        }
    }
}
