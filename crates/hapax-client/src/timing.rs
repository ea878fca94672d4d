//! Where a client's wall clock, dice and keys come from.

use std::time::SystemTime;

/// The wall clock and the dice. Waits are tokio's, and stand still where its time is paused.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// The wall clock.
    pub now: fn() -> SystemTime,
    /// A number in [0, 1).
    pub random: fn() -> f64,
}

impl Default for Timing {
    fn default() -> Self {
        Self { now, random }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the one place where a client reads the wall clock"
)]
fn now() -> SystemTime {
    SystemTime::now()
}

/// Without randomness there is no jitter: half of the longest wait.
fn random() -> f64 {
    let sample = getrandom::u32().unwrap_or(u32::MAX / 2);
    f64::from(sample) / (f64::from(u32::MAX) + 1.0)
}

/// A random UUID (version 4), as text.
///
/// # Errors
/// The system has no randomness to give: then there can be no key.
pub fn random_key() -> Result<String, getrandom::Error> {
    let mut bytes = [0_u8; 16];
    getrandom::fill(&mut bytes)?;
    let number = u128::from_be_bytes(bytes);
    // Version 4 and the variant of RFC 9562, in their places.
    let number = (number & !(0xf << 76)) | (0x4 << 76);
    let number = (number & !(0x3 << 62)) | (0x2 << 62);
    let hex = format!("{number:032x}");
    let mut text = String::with_capacity(36);
    for (at, digit) in hex.chars().enumerate() {
        if matches!(at, 8 | 12 | 16 | 20) {
            text.push('-');
        }
        text.push(digit);
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_a_uuid_of_version_4_and_never_the_same() {
        let (one, other) = (random_key().unwrap(), random_key().unwrap());
        assert_ne!(one, other);
        assert_eq!(one.len(), 36);
        assert_eq!(one.as_bytes()[14], b'4');
        assert!(matches!(one.as_bytes()[19], b'8' | b'9' | b'a' | b'b'));
    }

    #[test]
    fn the_dice_stay_below_one() {
        assert!((0..1000).all(|_| (0.0..1.0).contains(&random())));
    }
}
