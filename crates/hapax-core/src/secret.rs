//! The store's secret and the keyed hashes derived from it.
//!
//! Every digest that leaves memory is keyed, so that a stolen store or log does not reveal
//! payloads or keys of low entropy (P7, P10).

use std::fmt;

/// 32 random bytes that belong to a store. Whoever has them can test guesses against digests.
#[derive(Clone)]
pub struct Secret([u8; 32]);

impl Secret {
    /// Takes bytes from a cryptographic generator or from the store's file.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes, for the store to keep.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Hash keys derived from one [`Secret`], one a purpose, so that a digest of one kind can
/// never stand for another.
#[derive(Clone)]
pub struct HashKeys {
    pub(crate) record_key: [u8; 32],
    pub(crate) scope: [u8; 32],
    pub(crate) fingerprint: [u8; 32],
    pub(crate) tag: [u8; 32],
    pub(crate) upstream_key: [u8; 32],
}

impl HashKeys {
    /// Derives every hash key. The context strings are part of the stored format.
    pub fn derive(secret: &Secret) -> Self {
        let derive = |context: &str| blake3::derive_key(context, secret.as_bytes());
        Self {
            record_key: derive("hapax 2026-11 record key"),
            scope: derive("hapax 2026-11 scope"),
            fingerprint: derive("hapax 2026-11 fingerprint"),
            tag: derive("hapax 2026-11 record tag"),
            upstream_key: derive("hapax 2026-11 upstream key"),
        }
    }
}

impl fmt::Debug for HashKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HashKeys(..)")
    }
}

/// Adds `bytes` to a hash behind their length, so that no two lists of parts hash alike.
pub(crate) fn update_framed(hasher: &mut blake3::Hasher, bytes: &[u8]) {
    hasher.update(&(bytes.len() as u64).to_le_bytes());
    hasher.update(bytes);
}

/// The first `N` bytes of a digest (`N` is at most 32).
pub(crate) fn truncated<const N: usize>(hash: &blake3::Hash) -> [u8; N] {
    let mut out = [0; N];
    for (to, from) in out.iter_mut().zip(hash.as_bytes()) {
        *to = *from;
    }
    out
}

/// Lower-case hexadecimal, as record ids are shown.
pub(crate) fn write_hex(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}
