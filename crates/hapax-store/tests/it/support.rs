//! What the tests of the embedded store share.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use hapax_core::record::{Held, Record};
use hapax_core::store::{Insert, Store, Write};
use hapax_core::time::Timestamp;
use hapax_store::conformance::sample;
use hapax_store::{EmbeddedStore, ManualClock, OpenError, Options};

/// The instant at which the tests' clocks start: some time in 2023.
pub(crate) const START: Timestamp = Timestamp::from_millis(1_700_000_000_000);

pub(crate) fn options(clock: &Arc<ManualClock>) -> Options {
    Options {
        clock: Arc::clone(clock) as _,
        min_free_disk: 1 << 20,
        ..Options::default()
    }
}

pub(crate) fn open(path: &Path) -> Result<EmbeddedStore, OpenError> {
    EmbeddedStore::open(path, options(&Arc::new(ManualClock::new(START))))
}

pub(crate) async fn claim(store: &impl Store, number: u64) {
    let insert = store
        .insert(&sample::key(number), &sample::outstanding(number))
        .await;
    assert!(matches!(insert, Ok(Insert::Claimed { .. })), "{insert:?}");
}

pub(crate) async fn complete(store: &impl Store, number: u64) {
    let key = sample::key(number);
    let write = store
        .replace(&key, sample::claim_id(number), &answer(number))
        .await;
    assert!(matches!(write, Ok(Write::Applied { .. })), "{write:?}");
}

pub(crate) async fn read(store: &impl Store, number: u64) -> Option<Held> {
    let read = store.read(&sample::key(number)).await;
    read.expect("the store works").0
}

/// The answer that claim `number` completes with: 0 to 2 KiB that differ for each.
pub(crate) fn answer(number: u64) -> Record {
    let len = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 53;
    let content: Bytes = (0..len)
        .map(|index| (index ^ number).to_le_bytes()[0])
        .collect();
    sample::completed(number, content)
}

/// How many times longer a campaign runs than in the ordinary run.
pub(crate) fn campaign() -> u64 {
    std::env::var("HAPAX_CAMPAIGN")
        .ok()
        .and_then(|times| times.parse().ok())
        .unwrap_or(1)
}

/// A small generator with a seed, so that a failure can be repeated.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        // splitmix64
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}
