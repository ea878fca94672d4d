//! Claim and complete pairs through a shared store, beside the least that its server could be
//! asked for the same: pairs a second, and their ratio.
//!
//! `cargo bench -p hapax-store --bench shared -- redis postgres` starts servers of its own.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a measurement, not a product"
)]

mod postgres;
mod redis;
#[path = "../../tests/it/redis_servers.rs"]
#[allow(dead_code, reason = "the tests use more of it")]
mod redis_servers;
#[path = "../../tests/it/servers.rs"]
#[allow(dead_code, reason = "the tests use more of it")]
mod servers;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hapax_core::store::{Insert, Store, Write};
use hapax_store::conformance::sample;
use tokio::task::JoinSet;

/// How long each measurement lasts.
const RUN: Duration = Duration::from_secs(3);
/// Measurements of each kind, alternated; the middle one counts.
const ROUNDS: usize = 5;
/// Pairs under way at once.
const AT_ONCE: usize = 64;
/// With its fields, a stored record of about 600 bytes.
const CONTENT_BYTES: usize = 350;

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let wants = |name: &str| wanted.iter().any(|word| word == name);
    if wants("redis") {
        runtime.block_on(redis::run());
    }
    if wants("postgres") {
        runtime.block_on(postgres::run());
    }
    if !wants("redis") && !wants("postgres") {
        println!("name a store: redis, postgres");
    }
}

/// Does `pair` over and over, [`AT_ONCE`] at a time, with numbers of its own; pairs a second.
async fn pairs<F, P>(next: &Arc<AtomicU64>, pair: F) -> f64
where
    F: Fn(u64) -> P + Clone + Send + 'static,
    P: Future<Output = ()> + Send,
{
    let started = Instant::now();
    let mut callers = JoinSet::new();
    for _ in 0..AT_ONCE {
        let (next, pair) = (Arc::clone(next), pair.clone());
        callers.spawn(async move {
            let mut done = 0_u64;
            while started.elapsed() < RUN {
                pair(next.fetch_add(1, Ordering::Relaxed)).await;
                done += 1;
            }
            done
        });
    }
    let mut done = 0;
    while let Some(of_one) = callers.join_next().await {
        done += of_one.unwrap();
    }
    done as f64 / started.elapsed().as_secs_f64()
}

/// Claims and completes a key.
async fn claim_and_complete(store: &impl Store, number: u64) {
    let (key, claim) = (sample::key(number), sample::claim_id(number));
    let inserted = store.insert(&key, &sample::outstanding(number)).await;
    assert!(
        matches!(inserted, Ok(Insert::Claimed { .. })),
        "{inserted:?}"
    );
    let settled = sample::completed(number, vec![7; CONTENT_BYTES]);
    let replaced = store.replace(&key, claim, &settled).await;
    assert!(
        matches!(replaced, Ok(Write::Applied { .. })),
        "{replaced:?}"
    );
}

/// The middle of some measurements.
fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(0.0)
}

/// Prints what was measured side by side.
fn report(what: &str, ours: Vec<f64>, bare: Vec<f64>) {
    let (ours, bare) = (median(ours), median(bare));
    println!(
        "{what}: {ours:8.0} pairs/s through the store, {bare:8.0} bare, ratio {:.2}",
        ours / bare
    );
}
