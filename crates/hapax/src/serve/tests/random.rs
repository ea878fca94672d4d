//! Randomness that a seed repeats, for the run and for the gateways in it.

use std::cell::RefCell;

thread_local! {
    /// Where the claim ids of this thread's run come from.
    static IDS: RefCell<Random> = RefCell::new(Random::new(0));
}

/// xorshift64*: small, fast, and the same everywhere.
#[derive(Debug, Clone)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        // SplitMix64's finalizer, so that neighbouring seeds have nothing in common.
        let mut state = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Self((state ^ (state >> 31)) | 1)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    /// A number below `bound`, which is not zero.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// A number between the two, both included.
    pub(super) fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    /// A position in something of this length, which is not zero.
    pub(super) fn index(&mut self, length: usize) -> usize {
        usize::try_from(self.below(length as u64)).unwrap()
    }

    /// True once in `times`.
    pub(super) fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }
}

/// Begins a run: its claim ids follow from the seed.
pub(super) fn seed_ids(seed: u64) {
    IDS.with_borrow_mut(|ids| *ids = Random::new(seed ^ 0x1d5));
}

/// What the layer of a simulated gateway draws its claim ids from.
pub(super) fn fill(bytes: &mut [u8]) -> Option<()> {
    IDS.with_borrow_mut(|ids| {
        for chunk in bytes.chunks_mut(4) {
            let drawn = ids.next().to_le_bytes();
            chunk.copy_from_slice(&drawn[..chunk.len()]);
        }
    });
    Some(())
}
