//! `Content-Digest` (RFC 9530): a content that does not match it is refused (P11).

use http::{HeaderMap, HeaderName};

const CONTENT_DIGEST: HeaderName = HeaderName::from_static("content-digest");

/// An algorithm whose digests are checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// `sha-256`.
    Sha256,
    /// `sha-512`.
    Sha512,
}

/// Whether every digest of an algorithm that we know (sha-256, sha-512) matches. Digests of
/// other algorithms are ignored (RFC 9530 section 2); one that does not parse does not match.
/// `digest_of` works out the content's digest.
pub fn content_matches(headers: &HeaderMap, digest_of: impl Fn(Algorithm) -> Vec<u8>) -> bool {
    let values = headers.get_all(CONTENT_DIGEST);
    values.iter().all(|value| {
        value.to_str().is_ok_and(|value| {
            value
                .split(',')
                .all(|member| member_matches(member.trim(), &digest_of))
        })
    })
}

fn member_matches(member: &str, digest_of: &impl Fn(Algorithm) -> Vec<u8>) -> bool {
    let Some((name, value)) = member.split_once('=') else {
        return member.is_empty();
    };
    let algorithm = match name.trim() {
        "sha-256" => Algorithm::Sha256,
        "sha-512" => Algorithm::Sha512,
        _ => return true,
    };
    let said = value
        .trim()
        .strip_prefix(':')
        .and_then(|value| value.strip_suffix(':'));
    // A byte sequence has one spelling (RFC 9651 section 4.1.8), so texts can be compared.
    said.is_some_and(|said| said == base64(&digest_of(algorithm)))
}

/// Base64 with padding (RFC 4648 section 4).
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digit = |group: u32, place: u32| {
        let index = (group >> (18 - 6 * place)) & 63;
        ALPHABET
            .get(index as usize)
            .map_or('=', |byte| char::from(*byte))
    };
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |at: usize| u32::from(chunk.get(at).copied().unwrap_or(0));
        let group = byte(0) << 16 | byte(1) << 8 | byte(2);
        text.push(digit(group, 0));
        text.push(digit(group, 1));
        text.push(if chunk.len() > 1 {
            digit(group, 2)
        } else {
            '='
        });
        text.push(if chunk.len() > 2 {
            digit(group, 3)
        } else {
            '='
        });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_rfc_4648() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
        assert_eq!(base64(&[0xfb, 0xff, 0xbf]), "+/+/");
    }
}
