//! Content codings of a replay: never one that the retry does not accept (P30, P52).

use std::io::Read;

use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, ETAG};
use http::{HeaderMap, HeaderValue, Response};

/// Decoded content beyond this is not sent: a small stored answer must not become a large one.
const MAX_DECODED: u64 = 64 * 1024 * 1024;

/// The content has a coding that the retry does not accept and that cannot be undone here.
#[derive(Debug)]
pub(crate) struct NotAcceptable;

/// Undoes the content coding of a stored answer if the retry does not accept it.
pub(crate) fn fit_to_retry(
    response: Response<Bytes>,
    retry: &HeaderMap,
) -> Result<Response<Bytes>, NotAcceptable> {
    let Some(coding) = response.headers().get(CONTENT_ENCODING) else {
        return Ok(response);
    };
    let coding = coding
        .to_str()
        .map_err(|_| NotAcceptable)?
        .trim()
        .to_ascii_lowercase();
    if coding.is_empty() || coding == "identity" || accepts(retry, &coding) {
        return Ok(response);
    }
    let (mut parts, content) = response.into_parts();
    let mut decoded = Vec::new();
    let read = match coding.as_str() {
        "gzip" | "x-gzip" => flate2::read::MultiGzDecoder::new(content.as_ref())
            .take(MAX_DECODED + 1)
            .read_to_end(&mut decoded),
        "deflate" => flate2::read::ZlibDecoder::new(content.as_ref())
            .take(MAX_DECODED + 1)
            .read_to_end(&mut decoded),
        _ => return Err(NotAcceptable),
    };
    if read.is_err() || decoded.len() as u64 > MAX_DECODED {
        return Err(NotAcceptable);
    }
    parts.headers.remove(CONTENT_ENCODING);
    // A strong validator names the coded bytes (RFC 9110 section 8.8.3).
    if parts
        .headers
        .get(ETAG)
        .is_some_and(|etag| !etag.as_bytes().starts_with(b"W/"))
    {
        parts.headers.remove(ETAG);
    }
    if parts.headers.contains_key(CONTENT_LENGTH) {
        parts
            .headers
            .insert(CONTENT_LENGTH, HeaderValue::from(decoded.len()));
    }
    Ok(Response::from_parts(parts, decoded.into()))
}

/// Whether `Accept-Encoding` names the coding, or everything, with a weight above zero
/// (RFC 9110 section 12.5.3). A request without the field is taken to accept none: a client
/// that says nothing often decodes nothing.
fn accepts(retry: &HeaderMap, coding: &str) -> bool {
    let items = retry
        .get_all(ACCEPT_ENCODING)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','));
    let mut by_star = false;
    for item in items {
        let mut parts = item.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default().to_ascii_lowercase();
        let weight = parts
            .find_map(|part| part.strip_prefix("q="))
            .unwrap_or("1");
        let is_wanted = weight.parse::<f32>().is_ok_and(|weight| weight > 0.0);
        if name == coding || name.strip_prefix("x-") == Some(coding) {
            return is_wanted;
        }
        by_star |= name == "*" && is_wanted;
    }
    by_star
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn coded(coding: &'static str, content: Vec<u8>) -> Response<Bytes> {
        let mut response = Response::new(Bytes::from(content));
        response
            .headers_mut()
            .insert(CONTENT_ENCODING, HeaderValue::from_static(coding));
        response
    }

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text).expect("memory");
        encoder.finish().expect("memory")
    }

    fn retry(accept: Option<&'static str>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if let Some(accept) = accept {
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static(accept));
        }
        headers
    }

    #[test]
    fn a_coding_that_the_retry_does_not_accept_is_undone() {
        for accept in [None, Some("br"), Some("gzip;q=0"), Some("identity")] {
            let response = fit_to_retry(coded("gzip", gzip(b"hello")), &retry(accept));
            let response = response.expect("it can be decoded");
            assert_eq!(response.body().as_ref(), b"hello");
            assert!(!response.headers().contains_key(CONTENT_ENCODING));
        }
    }

    #[test]
    fn a_coding_that_the_retry_accepts_is_kept() {
        for accept in ["gzip", "br, gzip;q=0.5", "*"] {
            let sent = gzip(b"hello");
            let response = fit_to_retry(coded("gzip", sent.clone()), &retry(Some(accept)));
            assert_eq!(response.expect("kept").body().as_ref(), sent);
        }
    }

    #[test]
    fn a_coding_that_cannot_be_undone_is_not_sent() {
        assert!(fit_to_retry(coded("br", vec![1]), &retry(None)).is_err());
        assert!(fit_to_retry(coded("gzip", vec![1]), &retry(None)).is_err());
    }
}
