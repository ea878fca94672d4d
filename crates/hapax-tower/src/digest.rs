//! `Content-Digest` (RFC 9530): a content that does not match it is refused (P11).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName};
use sha2::{Digest, Sha256, Sha512};

const CONTENT_DIGEST: HeaderName = HeaderName::from_static("content-digest");

/// Whether every digest of an algorithm that we know (sha-256, sha-512) matches. Digests of
/// other algorithms are ignored (RFC 9530 section 2); one that does not parse does not match.
pub(crate) fn content_matches(headers: &HeaderMap, content: &[u8]) -> bool {
    let values = headers.get_all(CONTENT_DIGEST);
    values.iter().all(|value| {
        value.to_str().is_ok_and(|value| {
            value
                .split(',')
                .all(|member| member_matches(member.trim(), content))
        })
    })
}

fn member_matches(member: &str, content: &[u8]) -> bool {
    let Some((algorithm, value)) = member.split_once('=') else {
        return member.is_empty();
    };
    let expected: Vec<u8> = match algorithm.trim() {
        "sha-256" => Sha256::digest(content).to_vec(),
        "sha-512" => Sha512::digest(content).to_vec(),
        _ => return true,
    };
    let said = value
        .trim()
        .strip_prefix(':')
        .and_then(|value| value.strip_suffix(':'));
    said.and_then(|said| STANDARD.decode(said).ok())
        .is_some_and(|said| said == expected)
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
            headers.insert(CONTENT_DIGEST, HeaderValue::from_static(digest));
            assert_eq!(content_matches(&headers, content), matches, "{digest}");
        }
        assert!(content_matches(&HeaderMap::new(), content));
    }
}
