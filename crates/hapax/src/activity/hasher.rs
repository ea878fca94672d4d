//! Hashing for the maps of what happened: their keys are hashes already, or names from the configuration.

use std::hash::{BuildHasherDefault, Hasher};

/// A few instructions a key. No client chooses one: a record key is a keyed hash, a route's name is the operator's, so
/// that nobody can make them meet.
pub(super) type Quick = BuildHasherDefault<Folded>;

/// Folds eight bytes at a time by a multiplication.
#[derive(Debug, Default)]
pub(super) struct Folded(u64);

/// Odd and without a pattern: the golden ratio's digits.
const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

impl Folded {
    fn fold(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(FACTOR);
    }
}

impl Hasher for Folded {
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.fold(u64::from_le_bytes(*word));
        }
        if !rest.is_empty() {
            let mut last = [0; 8];
            for (into, from) in last.iter_mut().zip(rest) {
                *into = *from;
            }
            self.fold(u64::from_le_bytes(last));
        }
    }

    fn write_u8(&mut self, byte: u8) {
        self.fold(u64::from(byte));
    }

    fn write_usize(&mut self, number: usize) {
        self.fold(number as u64);
    }

    /// A product carries upwards only, and maps look at both ends: what is above comes down, twice.
    fn finish(&self) -> u64 {
        let mixed = (self.0 ^ (self.0 >> 32)).wrapping_mul(FACTOR);
        mixed ^ (mixed >> 32)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::hash::BuildHasher;

    use super::*;

    #[test]
    fn keys_that_differ_little_spread_over_a_map() {
        for length in [1, 7, 8, 9, 16, 24] {
            let hashes: HashSet<u64> = (0..=255_u8)
                .map(|last| {
                    let mut name = vec![b'a'; length];
                    name[length - 1] = last;
                    Quick::default().hash_one(name) % 1024
                })
                .collect();
            // 256 balls in 1024 boxes leave some 226 boxes taken.
            assert!(hashes.len() > 180, "{length}: {}", hashes.len());
        }
    }
}
