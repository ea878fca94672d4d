//! Two prepared statements, as a handler written by hand would have them.

use tokio_postgres::{Client, NoTls, Statement};

use super::{Bare, CLAIM_BYTES, QUIET, RECORD_BYTES, key};
use crate::proxies::Proxy;
use crate::servers::PostgresServer;
use crate::upstream::Upstream;

/// A table of its own beside the store's, in the same database.
const TABLE: &str =
    "CREATE TABLE bare (key bytea PRIMARY KEY, done boolean NOT NULL, value bytea NOT NULL)";
const CLAIM: &str =
    "INSERT INTO bare (key, done, value) VALUES ($1, false, $2) ON CONFLICT (key) DO NOTHING";
const COMPLETE: &str = "UPDATE bare SET done = true, value = $2 WHERE key = $1 AND NOT done";

/// A server of this program's own, and a gateway whose store is in it.
pub(super) fn start(upstream: &Upstream) -> (PostgresServer, Proxy) {
    let server = PostgresServer::start();
    crate::proxies::wait_for("PostgreSQL", || server.query("SELECT 1").is_some());
    server.query(TABLE).expect("a table");
    let url = server.url();
    crate::proxies::migrate(&url);
    let section = format!("kind = \"postgres\"\nurl = \"{url}\"");
    let hapax = Proxy::hapax_over(&section, upstream.address, QUIET);
    (server, hapax)
}

/// A connection with its statements.
pub(super) struct Worker {
    client: Client,
    claim: Statement,
    complete: Statement,
}

impl Bare for PostgresServer {
    type Worker = Worker;

    async fn workers(&self, count: u64) -> Vec<Worker> {
        let mut workers = Vec::new();
        for _ in 0..count {
            let (client, connection) = tokio_postgres::connect(&self.url(), NoTls).await.unwrap();
            tokio::spawn(connection);
            workers.push(Worker {
                claim: client.prepare(CLAIM).await.unwrap(),
                complete: client.prepare(COMPLETE).await.unwrap(),
                client,
            });
        }
        workers
    }

    async fn pair(worker: &mut Worker, number: u64) {
        let key = key(number);
        let (key, claim, record) = (
            &key[..],
            &[7_u8; CLAIM_BYTES][..],
            &[7_u8; RECORD_BYTES][..],
        );
        let Worker {
            client,
            claim: claiming,
            complete,
        } = worker;
        let claimed = client.execute(claiming, &[&key, &claim]).await;
        assert_eq!(claimed.unwrap(), 1);
        let completed = client.execute(complete, &[&key, &record]).await;
        assert_eq!(completed.unwrap(), 1);
    }
}
