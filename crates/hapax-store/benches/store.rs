//! Claim and complete pairs on a new embedded store: pairs a second and CPU for each.
//!
//! `cargo bench -p hapax-store` prints one line for each number of callers at once;
//! `-- RECORDS` fills the store with that many settled records first.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::cast_precision_loss,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a measurement, not a product"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hapax_core::store::Store;
use hapax_store::conformance::sample;
use hapax_store::{EmbeddedStore, Options};
use tokio::task::JoinSet;

const RUN: Duration = Duration::from_secs(4);
/// With its fields, a stored record of about 600 bytes.
const CONTENT_BYTES: usize = 350;

fn main() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let fill: u64 = std::env::args()
        .find_map(|word| word.parse().ok())
        .unwrap_or(0);
    runtime.block_on(async {
        let directory = tempfile::tempdir_in(".").unwrap();
        let store = Arc::new(EmbeddedStore::open(directory.path(), Options::default()).unwrap());
        let next = Arc::new(AtomicU64::new(0));
        if fill > 0 {
            pairs(&store, &next, 512, move |done, _| done >= fill).await;
            println!("filled with {fill} records");
        }
        for callers in [1, 16, 64, 256] {
            let (cpu, started) = (cpu_us(), Instant::now());
            let mut took = pairs(&store, &next, callers, |_, elapsed| elapsed >= RUN).await;
            let (count, elapsed) = (took.len() as f64, started.elapsed());
            took.sort_unstable();
            println!(
                "{callers:4} in flight: {:8.0} pairs/s, {:5.1} CPU us/pair, p50 {:?}, p99 {:?}, max {:?}",
                count / elapsed.as_secs_f64(),
                (cpu_us() - cpu) / count,
                took[took.len() / 2],
                took[took.len() * 99 / 100],
                took[took.len() - 1],
            );
        }
        let stats = store.stats().await.unwrap();
        println!(
            "{} records, {} bytes on disk, {} bytes a record",
            stats.records,
            stats.bytes,
            stats.bytes / stats.records.max(1)
        );
    });
}

/// Runs pairs until `is_done` of their number and the time; how long each took.
async fn pairs(
    store: &Arc<EmbeddedStore>,
    next: &Arc<AtomicU64>,
    callers: u64,
    is_done: impl Fn(u64, Duration) -> bool + Copy + Send + 'static,
) -> Vec<Duration> {
    let (started, done) = (Instant::now(), Arc::new(AtomicU64::new(0)));
    let mut tasks = JoinSet::new();
    for _ in 0..callers {
        let (store, next, done) = (Arc::clone(store), Arc::clone(next), Arc::clone(&done));
        tasks.spawn(async move {
            let mut took = Vec::new();
            while !is_done(done.fetch_add(1, Ordering::Relaxed), started.elapsed()) {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let pair = Instant::now();
                let (key, claim) = (sample::key(number), sample::claim_id(number));
                store
                    .insert(&key, &sample::outstanding(number))
                    .await
                    .unwrap();
                let settled = sample::completed(number, vec![7; CONTENT_BYTES]);
                store.replace(&key, claim, &settled).await.unwrap();
                took.push(pair.elapsed());
            }
            took
        });
    }
    let mut all = Vec::new();
    while let Some(took) = tasks.join_next().await {
        all.extend(took.unwrap());
    }
    all
}

/// CPU time of this process so far, all threads.
fn cpu_us() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap()
        .split_whitespace()
        .collect();
    let ticks = |index: usize| fields[index].parse::<f64>().unwrap();
    // Fields 14 and 15 of proc(5), in hundredths of a second.
    (ticks(11) + ticks(12)) * 10_000.0
}
