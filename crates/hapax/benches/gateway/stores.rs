//! The gateway over each store, beside a bare loop that remembers as durably: by turns, over as
//! many connections.
//!
//! The bare loop is what a handler written by hand would do to its database, and nothing else:
//! no HTTP, no fingerprint, no clock, no index, nobody waiting. It says what the machine's disk
//! and the store's server can do in that minute.

mod embedded;
mod postgres;
mod redis;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::compare::{Figures, measure, median};
use crate::load::{CONNECTIONS, Keys, Load};
use crate::proxies::Proxy;
use crate::upstream::Upstream;

const QUIET: &str = "[telemetry]\nlog = \"warn\"\n";
const WARM_UP: u64 = 3_000;
const REQUESTS: u64 = 10_000;
/// Pairs of runs a row; odd, for a median.
const ROUNDS: usize = 5;
/// What we want of the bare loop's operations.
const LEAST: f64 = 0.8;

/// Bytes of a claim, and of the record that follows it, as the stores write them for this load.
const CLAIM_BYTES: usize = 170;
const RECORD_BYTES: usize = 570;

/// A loop without a gateway, with a worker for each connection.
trait Bare {
    /// What each worker has for itself.
    type Worker: Send + 'static;

    /// As many workers as there are connections.
    async fn workers(&self, count: u64) -> Vec<Self::Worker>;

    /// Claims a key that nobody has and completes it, each durable before the next.
    fn pair(worker: &mut Self::Worker, number: u64) -> impl Future<Output = ()> + Send;
}

pub(crate) fn run(upstream: &Upstream, wanted: &dyn Fn(&str) -> bool) {
    let names = ["embedded", "postgres", "redis"];
    let is_any = names.into_iter().any(wanted);
    let wants = |name: &str| !is_any || wanted(name);
    println!(
        "{REQUESTS} keyed first requests a run, {ROUNDS} pairs of runs a row, {CONNECTIONS} connections, 300 bytes \
         each way; medians.\nThe bare loop: {CLAIM_BYTES} bytes and then {RECORD_BYTES}, {CONNECTIONS} workers, \
         a connection each, and no HTTP."
    );
    println!(
        "{:<26}{:>9}{:>9}{:>13}   bare: {:>9}{:>9}   of bare   upstream alone",
        "hapax over", "req/s", "p99 ms", "CPU us/req", "pairs/s", "p99 ms"
    );
    if wants("embedded") {
        let hapax = Proxy::hapax(upstream.address, QUIET);
        row(
            "embedded, both syncs",
            upstream,
            &hapax,
            &embedded::Log::new(),
        );
    }
    if wants("postgres") {
        let (server, hapax) = postgres::start(upstream);
        row("postgres, fsync on", upstream, &hapax, &server);
    }
    if wants("redis") {
        for fsync in ["always", "everysec"] {
            let (server, hapax) = redis::start(upstream, fsync);
            row(&format!("redis, {fsync}"), upstream, &hapax, &server);
        }
    }
}

fn row<B: Bare>(name: &str, upstream: &Upstream, hapax: &Proxy, bare: &B) {
    Load::new(hapax.address, Keys::Fresh, WARM_UP).run();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(bare_run(bare, WARM_UP));
    let (mut ours, mut theirs, mut passed) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        theirs.push(runtime.block_on(bare_run(bare, REQUESTS)));
        let before = upstream.served();
        let (figures, replayed) = measure(hapax, Load::new(hapax.address, Keys::Fresh, REQUESTS));
        assert_eq!((replayed, upstream.served() - before), (0, REQUESTS));
        ours.push(figures);
        let unkeyed = Load::new(hapax.address, Keys::None, REQUESTS);
        passed.push(measure(hapax, unkeyed).0.per_second);
    }
    let of = |figure: fn(&Figures) -> f64| median(ours.iter().map(figure));
    let ratio = median(
        ours.iter()
            .zip(&theirs)
            .map(|(our, their)| our.per_second / their.0),
    );
    println!(
        "{name:<26}{:>9.0}{:>9.2}{:>13.1}   {:>15.0}{:>9.2}{ratio:>10.2}{}{:>16.0}",
        of(|run| run.per_second),
        of(|run| run.p99_ms),
        of(|run| run.cpu_us),
        median(theirs.iter().map(|their| their.0)),
        median(theirs.iter().map(|their| their.1)),
        if ratio < LEAST { "!" } else { " " },
        median(passed.into_iter()),
    );
}

/// Pairs a second, and the 99th percentile of how long one takes, in milliseconds.
async fn bare_run<B: Bare>(bare: &B, pairs: u64) -> (f64, f64) {
    /// Numbers keys across runs, so that each is new.
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let workers = bare.workers(CONNECTIONS).await;
    let left = Arc::new(AtomicU64::new(pairs));
    let started = Instant::now();
    let mut tasks = JoinSet::new();
    for mut worker in workers {
        let left = Arc::clone(&left);
        tasks.spawn(async move {
            let mut took = Vec::new();
            let take = |left: u64| left.checked_sub(1);
            while left
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)
                .is_ok()
            {
                let begun = Instant::now();
                B::pair(&mut worker, NEXT.fetch_add(1, Ordering::Relaxed)).await;
                took.push(begun.elapsed());
            }
            took
        });
    }
    let mut took = Vec::new();
    while let Some(of_one) = tasks.join_next().await {
        took.extend(of_one.unwrap());
    }
    let rate = took.len() as f64 / started.elapsed().as_secs_f64();
    took.sort_unstable();
    (rate, took[took.len() * 99 / 100].as_secs_f64() * 1000.0)
}

/// Sixteen bytes that look like a record key: spread over all of them.
fn key(number: u64) -> [u8; 16] {
    let spread = u128::from(number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    (spread << 64 | u128::from(number)).to_be_bytes()
}
