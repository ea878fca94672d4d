//! Everything that varies between two runs, from one seed.

use std::fmt::Write as _;

/// Numbers that look random and are the same for the same seed (splitmix64).
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    /// A stream of its own for every case, so that leaving one case out changes no other.
    pub(crate) fn for_case(seed: u64, case: &str) -> Self {
        // FNV-1a: the name only has to tell the streams apart.
        let name = case.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        let mut random = Self(seed ^ name);
        random.next();
        random
    }

    /// The next 64 bits.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from `low` to `high`, both included.
    pub(crate) fn within(&mut self, low: usize, high: usize) -> usize {
        let span = u64::try_from(high.saturating_sub(low)).unwrap_or(0) + 1;
        low.saturating_add(usize::try_from(self.next() % span).unwrap_or(0))
    }

    /// A UUID in the form of version 4.
    pub(crate) fn uuid(&mut self) -> String {
        let high = (self.next() & 0xffff_ffff_ffff_0fff) | 0x4000;
        let low = (self.next() & 0x3fff_ffff_ffff_ffff) | 0x8000_0000_0000_0000;
        let digits = format!("{high:016x}{low:016x}");
        let mut uuid = String::with_capacity(36);
        for (at, digit) in digits.chars().enumerate() {
            if [8, 12, 16, 20].contains(&at) {
                uuid.push('-');
            }
            let _ = uuid.write_char(digit);
        }
        uuid
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_and_case_give_the_same_values() {
        let of = |seed, case| Random::for_case(seed, case).uuid();
        assert_eq!(of(7, "delay"), of(7, "delay"));
        assert_ne!(of(7, "delay"), of(8, "delay"));
        assert_ne!(of(7, "delay"), of(7, "duplicate"));
    }

    #[test]
    fn a_uuid_has_the_form_of_version_4() {
        let uuid = Random::for_case(1, "x").uuid();
        assert_eq!(uuid.len(), 36);
        assert_eq!(uuid.as_bytes()[14], b'4');
        assert!("89ab".contains(char::from(uuid.as_bytes()[19])));
    }

    #[test]
    fn a_number_stays_within_its_bounds() {
        let mut random = Random::for_case(3, "x");
        assert!((0..1000).all(|_| (2..=5).contains(&random.within(2, 5))));
        assert_eq!(random.within(4, 4), 4);
    }
}
