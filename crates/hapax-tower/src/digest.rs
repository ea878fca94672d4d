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

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn only_a_content_that_matches_every_known_digest_passes() {
        // RFC 9530, appendix B.1.
        let content = b"{\"hello\": \"world\"}\n";
        for (digest, matches) in [
            (
                "sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:",
                true,
            ),
            (
                "sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDh=:",
                false,
            ),
            ("sha-256=RK/0", false),
            ("md5=:AAAA:", true),
            (
                "md5=:AAAA:, sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:",
                true,
            ),
            ("sha-512=:AAAA:", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("content-digest", HeaderValue::from_static(digest));
            assert_eq!(content_matches(&headers, content), matches, "{digest}");
        }
        assert!(content_matches(&HeaderMap::new(), content));
    }
}
