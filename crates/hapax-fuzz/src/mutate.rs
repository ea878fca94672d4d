//! Mutations of an input, the same for the same seed.

/// Makes inputs out of other inputs.
#[derive(Debug, Clone)]
pub struct Mutator {
    state: u64,
    words: &'static [&'static str],
}

/// Longer inputs find nothing more, only later.
const MAX_LEN: usize = 4096;

impl Mutator {
    /// One whose choices follow from `seed`, and that puts in `words`.
    pub fn new(seed: u64, words: &'static [&'static str]) -> Self {
        Self { state: seed, words }
    }

    /// A number below `bound` (splitmix64); 0 if that is 0.
    pub fn below(&mut self, bound: usize) -> usize {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        usize::try_from(mixed % (bound.max(1) as u64)).unwrap_or(0)
    }

    /// A mutation of one of `inputs`: one to eight changes, sometimes with a part of another one.
    pub fn mutate(&mut self, inputs: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = self.one_of(inputs);
        for _ in 0..=self.below(8) {
            self.change(&mut bytes, inputs);
        }
        bytes.truncate(MAX_LEN);
        bytes
    }

    fn one_of(&mut self, inputs: &[Vec<u8>]) -> Vec<u8> {
        let index = self.below(inputs.len());
        inputs.get(index).cloned().unwrap_or_default()
    }

    fn change(&mut self, bytes: &mut Vec<u8>, inputs: &[Vec<u8>]) {
        let at = self.below(bytes.len() + 1);
        let end = at + self.below((bytes.len() - at).min(16) + 1);
        match self.below(8) {
            0 => {
                let bit = self.below(8);
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << bit;
                }
            }
            1 => {
                let byte = u8::try_from(self.below(256)).unwrap_or(0);
                bytes.insert(at, byte);
            }
            2 => drop(bytes.drain(at..end)),
            3 => {
                let part: Vec<u8> = bytes.get(at..end).unwrap_or_default().to_vec();
                let to = self.below(bytes.len() + 1);
                bytes.splice(to..to, part);
            }
            4 => bytes.truncate(at),
            5 => {
                let other = self.one_of(inputs);
                let from = self.below(other.len() + 1);
                let part = other.get(from..).unwrap_or_default();
                bytes.splice(at..end, part.iter().copied());
            }
            6 if self.words.is_empty() => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = byte.wrapping_add(1);
                }
            }
            _ => {
                let word = self.below(self.words.len());
                let word = self.words.get(word).copied().unwrap_or_default();
                bytes.splice(at..end, word.bytes());
            }
        }
    }
}
