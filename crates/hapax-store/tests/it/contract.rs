//! Every store passes the public suite.

use std::sync::Arc;

use hapax_core::secret::Secret;
use hapax_store::conformance;
use hapax_store::{EmbeddedStore, Limits, ManualClock, MemoryStore, Options};

use crate::support::START;

#[tokio::test(flavor = "multi_thread")]
async fn the_memory_store_keeps_the_contract() {
    conformance::run(async || {
        let clock = Arc::new(ManualClock::new(START));
        let secret = Secret::from_bytes([7; 32]);
        let store = MemoryStore::new(Arc::clone(&clock) as _, Limits::default(), secret);
        (store, clock)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_embedded_store_keeps_the_contract() {
    let directories = std::sync::Mutex::new(Vec::new());
    conformance::run(async || {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let clock = Arc::new(ManualClock::new(START));
        let options = Options {
            clock: Arc::clone(&clock) as _,
            ..Options::default()
        };
        let store = EmbeddedStore::open(directory.path(), options).expect("a new store");
        directories.lock().expect("no panic").push(directory);
        (store, clock)
    })
    .await;
}
