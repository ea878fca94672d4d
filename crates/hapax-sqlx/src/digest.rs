//! The hashes of `Content-Digest` (RFC 9530); what they mean is the core's (P11).

use http::HeaderMap;
use sha2::{Digest, Sha256, Sha512};

use hapax_core::digest::{self, Algorithm};

/// Whether every digest of an algorithm that we know matches.
pub(crate) fn content_matches(headers: &HeaderMap, content: &[u8]) -> bool {
    digest::content_matches(headers, |algorithm| match algorithm {
        Algorithm::Sha256 => Sha256::digest(content).to_vec(),
        Algorithm::Sha512 => Sha512::digest(content).to_vec(),
    })
}
