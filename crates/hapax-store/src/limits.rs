//! What a store may hold, and where its secret comes from.

#[cfg(any(feature = "postgres", feature = "redis"))]
use std::sync::atomic::{AtomicU8, Ordering};

use hapax_core::secret::Secret;

/// How much a store may hold before it takes no new claims (P36). Settling a claim is never
/// refused for want of room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// Records, expired ones that still take room included; 0 for no limit.
    pub max_records: u64,
    /// Bytes; 0 for no limit.
    pub max_bytes: u64,
}

impl Limits {
    /// Whether there is none.
    #[cfg(feature = "postgres")]
    pub(crate) fn are_none(&self) -> bool {
        *self == Self::default()
    }

    /// Which limit is reached by a store that holds this much.
    pub(crate) fn reached(&self, records: u64, bytes: u64) -> Option<&'static str> {
        if self.max_records != 0 && records >= self.max_records {
            return Some(RECORDS);
        }
        if self.max_bytes != 0 && bytes >= self.max_bytes {
            return Some(BYTES);
        }
        None
    }
}

const RECORDS: &str = "max_records is reached";
const BYTES: &str = "max_bytes is reached";

/// The limit that a store had reached when somebody last looked, for stores in which looking
/// costs a question to a server.
#[cfg(any(feature = "postgres", feature = "redis"))]
#[derive(Debug, Default)]
pub(crate) struct Fullness(AtomicU8);

#[cfg(any(feature = "postgres", feature = "redis"))]
impl Fullness {
    /// Holds until the next look.
    pub(crate) fn note(&self, reached: Option<&'static str>) {
        let full = match reached {
            None => 0,
            Some(RECORDS) => 1,
            Some(_) => 2,
        };
        self.0.store(full, Ordering::Release);
    }

    /// Which limit it was.
    pub(crate) fn reached(&self) -> Option<&'static str> {
        match self.0.load(Ordering::Acquire) {
            0 => None,
            1 => Some(RECORDS),
            _ => Some(BYTES),
        }
    }
}

/// A new secret from the operating system's generator.
///
/// # Errors
/// The operating system has no randomness to give.
pub fn random_secret() -> Result<Secret, getrandom::Error> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)?;
    Ok(Secret::from_bytes(bytes))
}
