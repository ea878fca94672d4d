//! What a store may hold, and where its secret comes from.

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
    /// Which limit is reached by a store that holds this much.
    pub(crate) fn reached(&self, records: u64, bytes: u64) -> Option<&'static str> {
        if self.max_records != 0 && records >= self.max_records {
            return Some("max_records is reached");
        }
        if self.max_bytes != 0 && bytes >= self.max_bytes {
            return Some("max_bytes is reached");
        }
        None
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
