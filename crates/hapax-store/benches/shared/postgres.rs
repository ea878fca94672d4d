//! The store in PostgreSQL beside bare statements: same server, same table, same connections.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hapax_core::store::{Insert, Store, Write};
use hapax_store::conformance::sample;
use hapax_store::{PostgresOptions, PostgresStore, migrate_postgres};
use tokio::task::JoinSet;
use tokio_postgres::{Client, NoTls, Statement};

use crate::servers::PostgresServer;

/// Of each of two measurements, of which there are [`ROUNDS`] in turn.
const RUN: Duration = Duration::from_secs(2);
const ROUNDS: usize = 5;
/// With its fields, a stored record of about 600 bytes.
const CONTENT_BYTES: usize = 350;

pub(crate) async fn run() {
    let server = PostgresServer::start();
    let observer = connect(&server.url()).await;
    let options = PostgresOptions::default();
    migrate_postgres(&server.url(), &options).await.unwrap();
    let store = PostgresStore::open(&server.url(), options.clone()).await;
    let store = Arc::new(store.unwrap());
    let mut bare = Vec::new();
    for _ in 0..options.connections {
        bare.push(Arc::new(Bare::new(&server.url()).await));
    }
    let next = Arc::new(AtomicU64::new(0));
    println!(
        "{} connections, fsync on, pairs a second",
        options.connections
    );
    for callers in [1, 16, 64, 256] {
        let (mut through, mut beside) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let empty = "TRUNCATE hapax_store_records";
            observer.batch_execute(empty).await.unwrap();
            let pair = |number| pair(Arc::clone(&store), number);
            through.push(pairs(&next, callers, pair).await);
            observer.batch_execute(empty).await.unwrap();
            let pair = |number: u64| {
                let one = &bare[number as usize % bare.len()];
                bare_pair(Arc::clone(one), number)
            };
            beside.push(pairs(&next, callers, pair).await);
        }
        let (through, beside) = (median(through), median(beside));
        println!(
            "{callers:4} at once: store {:7.0} (p99 {:6.1} ms), bare statements {:7.0} (p99 {:6.1} ms), {:.2}x",
            through.0,
            through.1,
            beside.0,
            beside.1,
            through.0 / beside.0
        );
    }
}

fn median(mut rounds: Vec<(f64, f64)>) -> (f64, f64) {
    rounds.sort_by(|left, right| left.0.total_cmp(&right.0));
    rounds[rounds.len() / 2]
}

async fn connect(url: &str) -> Client {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        match tokio_postgres::connect(url, NoTls).await {
            Ok((client, connection)) => {
                tokio::spawn(connection);
                return client;
            }
            Err(error) => assert!(Instant::now() < deadline, "no PostgreSQL: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn pair(store: Arc<PostgresStore>, number: u64) {
    let (key, claim) = (sample::key(number), sample::claim_id(number));
    let outstanding = sample::outstanding(number);
    let claimed = store.insert(&key, &outstanding).await.unwrap();
    assert!(matches!(claimed, Insert::Claimed { .. }));
    let settled = sample::completed(number, vec![7; CONTENT_BYTES]);
    let completed = store.replace(&key, claim, &settled).await.unwrap();
    assert!(matches!(completed, Write::Applied { .. }));
}

/// What is there without hapax: a row, and what its key protects.
struct Bare {
    client: Client,
    insert: Statement,
    update: Statement,
}

impl Bare {
    async fn new(url: &str) -> Self {
        let client = connect(url).await;
        let insert = "INSERT INTO hapax_store_records
            (key, claim, state, claimed_at, written_at, expires_at, value)
            VALUES ($1, $2, 0, 0, 0, NULL, $3) ON CONFLICT (key) DO NOTHING";
        let update = "UPDATE hapax_store_records
            SET state = 1, written_at = 1, expires_at = 1, value = $3
            WHERE key = $1 AND claim = $2";
        Self {
            insert: client.prepare(insert).await.unwrap(),
            update: client.prepare(update).await.unwrap(),
            client,
        }
    }
}

async fn bare_pair(bare: Arc<Bare>, number: u64) {
    let (key, claim) = (sample::key(number), sample::claim_id(number));
    let (key, claim) = (key.as_bytes().as_slice(), claim.as_bytes().as_slice());
    // What an outstanding and a completed record of the store take.
    let (outstanding, settled) = ([7_u8; 110], [7_u8; CONTENT_BYTES + 250]);
    let outstanding = outstanding.as_slice();
    let client = &bare.client;
    let inserted = client
        .execute(&bare.insert, &[&key, &claim, &outstanding])
        .await;
    assert_eq!(inserted.unwrap(), 1);
    let settled = settled.as_slice();
    let updated = client
        .execute(&bare.update, &[&key, &claim, &settled])
        .await;
    assert_eq!(updated.unwrap(), 1);
}

/// Pairs a second and the 99th percentile of what one takes, in milliseconds.
async fn pairs<F: Future<Output = ()> + Send + 'static>(
    next: &Arc<AtomicU64>,
    callers: usize,
    pair: impl Fn(u64) -> F + Clone,
) -> (f64, f64) {
    let started = Instant::now();
    let mut tasks = JoinSet::new();
    let mut took = Vec::new();
    for _ in 0..callers {
        spawn(&mut tasks, pair(next.fetch_add(1, Ordering::Relaxed)));
    }
    while let Some(one) = tasks.join_next().await {
        took.push(one.unwrap());
        if started.elapsed() < RUN {
            spawn(&mut tasks, pair(next.fetch_add(1, Ordering::Relaxed)));
        }
    }
    let rate = took.len() as f64 / started.elapsed().as_secs_f64();
    took.sort_unstable();
    (rate, took[took.len() * 99 / 100].as_secs_f64() * 1000.0)
}

fn spawn(tasks: &mut JoinSet<Duration>, pair: impl Future<Output = ()> + Send + 'static) {
    tasks.spawn(async move {
        let started = Instant::now();
        pair.await;
        started.elapsed()
    });
}
