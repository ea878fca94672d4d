//! Why bytes were refused, and the synthetic request that carries the reason through hyper.
//!
//! A refusal must be answered in order, after the answers to the requests pipelined before it. So the wire hands hyper
//! a request of its own making in place of the offending head; the service recognises it by a secret path and answers.

use std::{fmt, hash::BuildHasher, sync::OnceLock};

use http::Request;

/// The method of the synthetic request. A client may send it too; only the nonce in the path is proof.
const METHOD: &str = "REFUSED";

macro_rules! refusals {
    ($($(#[doc = $doc:literal])+ $name:ident = $code:literal, $clause:literal, $sentence:literal;)+) => {
        /// A reason to refuse a connection's bytes.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub(crate) enum Refusal { $($(#[doc = $doc])+ $name,)+ }

        impl Refusal {
            /// Every reason, for tables and documentation.
            pub(crate) const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// The stable code, fit for a log line or a label.
            pub(crate) const fn code(self) -> &'static str {
                match self { $(Self::$name => $code,)+ }
            }

            /// The clause of the standard that the bytes broke or that permits the refusal.
            pub(crate) const fn clause(self) -> &'static str {
                match self { $(Self::$name => $clause,)+ }
            }

            /// One sentence for the client.
            pub(crate) const fn sentence(self) -> &'static str {
                match self { $(Self::$name => $sentence,)+ }
            }
        }
    };
}

refusals! {
    /// A line ended in LF without CR.
    BareLf = "bare-lf", "RFC 9112 2.2", "Lines end in CRLF; a bare LF is not accepted.";
    /// CR not followed by LF.
    BareCr = "bare-cr", "RFC 9112 2.2", "A CR that is not followed by LF is not accepted.";
    /// NUL or another control byte in the head.
    ControlByte = "control-byte", "RFC 9110 5.5", "The head contains a control byte.";
    /// More than one empty line before a request line.
    EmptyLine = "empty-line", "RFC 9112 2.2", "More than one empty line came before the request line.";
    /// White space before the first field or the request line.
    LeadingWhitespace = "leading-whitespace", "RFC 9112 2.2", "White space came before the first field.";
    /// A field continued on the next line.
    ObsFold = "obs-fold", "RFC 9112 5.2", "Fields may not be folded over several lines.";
    /// White space between a field's name and its colon.
    SpaceBeforeColon = "space-before-colon", "RFC 9112 5.1", "White space stands between a field name and its colon.";
    /// A field line without a colon.
    MissingColon = "missing-colon", "RFC 9112 5", "A field line has no colon.";
    /// An empty field name or one with bytes that are no token.
    FieldName = "field-name", "RFC 9110 5.1", "A field name is empty or has invalid bytes.";
    /// The head is larger than the limit.
    HeadTooLarge = "head-too-large", "RFC 9110 5.4", "The request head is larger than this gateway accepts.";
    /// Too many field lines.
    TooManyFields = "too-many-fields", "RFC 9110 5.4", "The request has more fields than this gateway accepts.";
    /// The request line is not three parts parted by one space each.
    RequestLine = "request-line", "RFC 9112 3", "The request line is not method, target and version parted by single spaces.";
    /// The method is no token or too long.
    Method = "method", "RFC 9110 9.1", "The method is not a token or is too long.";
    /// The target has bytes that a URI cannot have.
    Target = "target", "RFC 9112 3.2", "The request target has invalid bytes.";
    /// The target has a fragment.
    Fragment = "fragment", "RFC 9112 3.2", "The request target has a fragment.";
    /// A target with a scheme and an authority.
    AbsoluteForm = "absolute-form", "RFC 9112 3.2.2", "This gateway is no forward proxy: the target must start with a slash.";
    /// `CONNECT`, or a target that is an authority alone.
    AuthorityForm = "authority-form", "RFC 9112 3.2.3", "This gateway opens no tunnels to other hosts.";
    /// `*` with another method than OPTIONS.
    AsteriskForm = "asterisk-form", "RFC 9112 3.2.4", "The target * is for OPTIONS alone.";
    /// Neither HTTP/1.0 nor HTTP/1.1.
    Version = "version", "RFC 9112 2.3", "The version is neither HTTP/1.0 nor HTTP/1.1.";
    /// An HTTP/1.1 request without Host.
    HostMissing = "host-missing", "RFC 9112 3.2", "An HTTP/1.1 request must have a Host field.";
    /// More than one Host.
    HostRepeated = "host-repeated", "RFC 9112 3.2", "The request has more than one Host field.";
    /// Host is no host with an optional port.
    HostInvalid = "host-invalid", "RFC 9112 3.2", "The Host field is not a host with an optional port.";
    /// Content-Length is not a plain decimal number.
    LengthInvalid = "length-invalid", "RFC 9112 6.3", "Content-Length is not one plain decimal number.";
    /// More than one Content-Length, even if they agree.
    LengthRepeated = "length-repeated", "RFC 9112 6.3", "The request has more than one Content-Length.";
    /// Content-Length beside Transfer-Encoding.
    LengthAndCoding = "length-and-coding", "RFC 9112 6.1", "The request has both Content-Length and Transfer-Encoding.";
    /// Transfer-Encoding is not exactly one `chunked`.
    CodingInvalid = "coding-invalid", "RFC 9112 6.1", "Transfer-Encoding must be exactly one chunked.";
    /// Transfer-Encoding on HTTP/1.0.
    CodingOnHttp10 = "coding-on-http10", "RFC 9112 6.1", "HTTP/1.0 has no Transfer-Encoding.";
    /// Upgrade beside a body.
    UpgradeWithBody = "upgrade-with-body", "RFC 9110 7.8", "A request that asks for an upgrade may not have a body.";
    /// A chunk size that is no plain hexadecimal number of sane length.
    ChunkSize = "chunk-size", "RFC 9112 7.1", "A chunk size is not a plain hexadecimal number.";
    /// A malformed or huge chunk extension.
    ChunkExtension = "chunk-extension", "RFC 9112 7.1.1", "A chunk extension is malformed or too long.";
    /// Chunk data without CRLF after it.
    ChunkEnd = "chunk-end", "RFC 9112 7.1", "Chunk data is not followed by CRLF.";
    /// A trailer field that may not stand in a trailer section.
    TrailerForbidden = "trailer-forbidden", "RFC 9110 6.5.1", "A trailer field may not frame, route or authenticate the request.";
    /// The trailer section is larger than the limit.
    TrailersTooLarge = "trailers-too-large", "RFC 9110 6.5", "The trailer section is larger than this gateway accepts.";
    /// The head did not arrive in time.
    HeadTimeout = "head-timeout", "RFC 9110 15.5.9", "The request head did not arrive in time.";
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.sentence(), self.clause())
    }
}

impl std::error::Error for Refusal {}

/// The head that stands in for a refused one.
pub(crate) fn synthetic_head(refusal: Refusal) -> Vec<u8> {
    format!(
        "{METHOD} /{}/{} HTTP/1.1\r\nHost: refused\r\nConnection: close\r\n\r\n",
        nonce(),
        refusal.code()
    )
    .into_bytes()
}

/// The refusal that a request stands for, if the wire made it.
///
/// Nothing a client sends is taken for one: the path must begin with this process's secret.
pub(crate) fn refusal_of<B>(request: &Request<B>) -> Option<Refusal> {
    if request.method().as_str() != METHOD {
        return None;
    }
    let code = request
        .uri()
        .path()
        .strip_prefix('/')?
        .strip_prefix(nonce())?
        .strip_prefix('/')?;
    Refusal::ALL
        .iter()
        .copied()
        .find(|refusal| refusal.code() == code)
}

/// 128 random bits in hexadecimal, drawn once a process.
fn nonce() -> &'static str {
    static NONCE: OnceLock<String> = OnceLock::new();
    NONCE.get_or_init(|| {
        let mut bytes = [0; 16];
        let number = match getrandom::fill(&mut bytes) {
            Ok(()) => u128::from_ne_bytes(bytes),
            // The system refuses randomness: the keys of std's hashers came from it earlier, and forging a refusal
            // only yields an error answer.
            Err(_) => {
                let half = |part: u8| u128::from(std::hash::RandomState::new().hash_one(part));
                half(0) << 64 | half(1)
            }
        };
        format!("{number:032x}")
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn parsed(head: &[u8]) -> Request<()> {
        let text = std::str::from_utf8(head).unwrap();
        let mut words = text.split(' ');
        Request::builder()
            .method(words.next().unwrap())
            .uri(words.next().unwrap())
            .body(())
            .unwrap()
    }

    #[test]
    fn every_refusal_survives_the_trip_through_its_synthetic_head() {
        for refusal in Refusal::ALL {
            assert_eq!(
                refusal_of(&parsed(&synthetic_head(*refusal))),
                Some(*refusal)
            );
        }
        let codes: HashSet<_> = Refusal::ALL.iter().map(|refusal| refusal.code()).collect();
        assert_eq!(codes.len(), Refusal::ALL.len());
    }

    #[test]
    fn a_request_with_the_synthetic_method_and_a_guessed_nonce_is_no_refusal() {
        let forged = format!("/{}/bare-lf", "0".repeat(32));
        let request = Request::builder()
            .method("REFUSED")
            .uri(forged)
            .body(())
            .unwrap();
        assert_eq!(refusal_of(&request), None);
        let request = Request::builder()
            .uri(format!("/{}/bare-lf", nonce()))
            .body(())
            .unwrap();
        assert_eq!(refusal_of(&request), None);
    }
}
