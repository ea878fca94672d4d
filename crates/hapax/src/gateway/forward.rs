//! What a message loses and gains as it passes through (RFC 9110 7.6). Pure functions on header fields and targets.

use http::{
    HeaderMap, HeaderName, HeaderValue, Uri, Version, header,
    uri::{Authority, PathAndQuery},
};
use http_body::SizeHint;
use thiserror::Error;

/// Why a message cannot be passed on.
#[derive(Debug, Error)]
pub(crate) enum ForwardError {
    /// `Connection` names a field that is not the sender's to drop.
    #[error("Connection may not name {0}")]
    Protected(HeaderName),
    /// `Connection` has something that is no field name.
    #[error("Connection is not a list of field names")]
    Connection,
    /// Host is there twice, or names another host than `:authority` (RFC 9113 8.3.1).
    #[error("Host and :authority do not name one host")]
    Host,
    /// The target does not fit behind the upstream's path.
    #[error("the target cannot be joined to the upstream's path")]
    Target(#[from] http::uri::InvalidUri),
    /// The upstream's URL has no scheme or host, or has a query.
    #[error("the upstream's URL must be a scheme and a host with an optional port and path")]
    Base,
}

/// Where requests go: parsed once from the configuration.
#[derive(Clone, Debug)]
pub(crate) struct UpstreamBase {
    authority: Authority,
    /// Without a slash at its end; empty for none.
    prefix: String,
}

impl UpstreamBase {
    /// Takes the parts of the upstream's URL.
    pub(crate) fn new(url: Uri) -> Result<Self, ForwardError> {
        let parts = url.into_parts();
        let (Some(_), Some(authority)) = (parts.scheme, parts.authority) else {
            return Err(ForwardError::Base);
        };
        let path = parts.path_and_query.as_ref();
        if path.is_some_and(|path| path.query().is_some()) || authority.as_str().contains('@') {
            return Err(ForwardError::Base);
        }
        let prefix = path
            .map_or("", |path| path.path())
            .trim_end_matches('/')
            .to_owned();
        Ok(Self { authority, prefix })
    }

    /// The upstream's host and port.
    pub(crate) fn authority(&self) -> &Authority {
        &self.authority
    }

    /// The target to send for a request to `uri`, in origin form and byte for byte: neither `..` nor escapes nor
    /// doubled slashes are touched. `*` stays.
    pub(crate) fn target(&self, uri: &Uri) -> Result<Uri, ForwardError> {
        let asked = uri.path_and_query();
        let target = match asked {
            Some(asked) if self.prefix.is_empty() || asked == "*" => asked.clone(),
            Some(asked) => PathAndQuery::try_from(format!("{}{asked}", self.prefix))?,
            None if self.prefix.is_empty() => PathAndQuery::from_static("/"),
            None => PathAndQuery::try_from(self.prefix.as_str())?,
        };
        Ok(Uri::from(target))
    }
}

/// Takes the hop's own fields from a request. TE survives as `trailers` alone.
///
/// A request whose Connection names a protected field is refused: dropping, say, Authorization on the way to an
/// upstream that trusts its absence is a known attack.
pub(crate) fn strip_request(headers: &mut HeaderMap) -> Result<(), ForwardError> {
    let trailers = headers.get_all(header::TE).iter().any(accepts_trailers);
    if let Some(named) = named_by_connection(headers) {
        for name in named? {
            if is_protected(&name) {
                return Err(ForwardError::Protected(name));
            }
            headers.remove(name);
        }
    }
    remove_where(headers, is_hop_field);
    if trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        // RFC 9110 10.1.4: who sends TE says so in Connection.
        headers.insert(header::CONNECTION, HeaderValue::from_static("te"));
    }
    Ok(())
}

/// Takes the hop's own fields from a response. What Connection names goes too, unless it is protected: the upstream is
/// trusted to err, not to mislead.
pub(crate) fn strip_response(headers: &mut HeaderMap) {
    if let Some(Ok(named)) = named_by_connection(headers) {
        for name in named {
            if !is_protected(&name) {
                headers.remove(name);
            }
        }
    }
    remove_where(headers, is_hop_field);
}

/// Refuses a request that names two hosts. Over HTTP/2 `:authority` is the host, and whoever routes by it must not be
/// told another one by Host; RFC 9113 8.3.1 lets a server call that malformed.
pub(crate) fn check_host(headers: &HeaderMap, uri: &Uri) -> Result<(), ForwardError> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let Some(host) = hosts.next() else {
        return Ok(());
    };
    let is_authority = uri.authority().is_none_or(|authority| {
        let authority = authority.as_str().as_bytes();
        host.as_bytes().eq_ignore_ascii_case(authority)
    });
    if hosts.next().is_none() && is_authority {
        Ok(())
    } else {
        Err(ForwardError::Host)
    }
}

/// Makes a request that came over any version of HTTP fit for HTTP/1.1: it has a Host, and one Cookie field
/// (RFC 9113 8.2.3).
pub(crate) fn fit_for_http1(headers: &mut HeaderMap, uri: &Uri, base: &UpstreamBase) {
    if !headers.contains_key(header::HOST) {
        let authority = uri.authority().unwrap_or(base.authority());
        // An authority has no byte that a field value may not have.
        if let Ok(host) = HeaderValue::from_str(authority.as_str()) {
            headers.insert(header::HOST, host);
        }
    }
    let mut cookies = headers.get_all(header::COOKIE).iter();
    if let (Some(first), Some(_)) = (cookies.next(), cookies.next()) {
        let mut joined = first.as_bytes().to_vec();
        for cookie in headers.get_all(header::COOKIE).iter().skip(1) {
            joined.extend_from_slice(b"; ");
            joined.extend_from_slice(cookie.as_bytes());
        }
        // Values joined by visible bytes are a value.
        if let Ok(value) = HeaderValue::from_bytes(&joined) {
            headers.insert(header::COOKIE, value);
        }
    }
}

/// Frames a request's content anew (RFC 9112 6.3): a length that is known is written as a plain number, whatever its
/// zeros were (C's `strtol` reads `010` as eight), and what has no length is chunked, by whatever method. Left alone,
/// hyper sends a GET or HEAD of unknown length without its content, and the upstream would act on another request.
pub(crate) fn frame(headers: &mut HeaderMap, size: &SizeHint) {
    let sized = headers.contains_key(header::CONTENT_LENGTH);
    match size.exact() {
        Some(0) if !sized => {}
        Some(length) if says_plainly(headers, length) => {}
        Some(length) => {
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        }
        None if sized => {}
        None => {
            headers.insert(
                header::TRANSFER_ENCODING,
                HeaderValue::from_static("chunked"),
            );
        }
    }
}

/// Whether there is one Content-Length, and it is `length` as we would write it.
fn says_plainly(headers: &HeaderMap, length: u64) -> bool {
    let mut said = headers.get_all(header::CONTENT_LENGTH).iter();
    let (Some(value), None) = (said.next(), said.next()) else {
        return false;
    };
    let digits = value.as_bytes();
    let is_plain = match digits {
        [b'0'] => true,
        [b'1'..=b'9', rest @ ..] => rest.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    let number = std::str::from_utf8(digits).map(str::parse::<u64>);
    is_plain && matches!(number, Ok(Ok(number)) if number == length)
}

/// Says that the request came through us (RFC 9110 7.6.3), and how it came.
pub(crate) fn append_via(headers: &mut HeaderMap, received: Version) {
    let via = match received {
        Version::HTTP_10 => "1.0 hapax",
        Version::HTTP_2 => "2.0 hapax",
        _ => "1.1 hapax",
    };
    headers.append(header::VIA, HeaderValue::from_static(via));
}

/// Removes every field whose name `doomed` picks. Nothing is allocated when there is none.
pub(crate) fn remove_where(headers: &mut HeaderMap, doomed: impl Fn(&str) -> bool) {
    let names: Vec<HeaderName> = headers
        .keys()
        .filter(|name| doomed(name.as_str()))
        .cloned()
        .collect();
    for name in names {
        headers.remove(name);
    }
}

/// The fields Connection names, if there is one; options that are no fields are left out.
fn named_by_connection(headers: &HeaderMap) -> Option<Result<Vec<HeaderName>, ForwardError>> {
    headers.get(header::CONNECTION)?;
    let mut names = Vec::new();
    for value in headers.get_all(header::CONNECTION) {
        for option in value
            .as_bytes()
            .split(|byte| *byte == b',')
            .map(<[u8]>::trim_ascii)
        {
            let plain =
                option.eq_ignore_ascii_case(b"close") || option.eq_ignore_ascii_case(b"keep-alive");
            if option.is_empty() || plain {
                continue;
            }
            match HeaderName::from_bytes(option) {
                Ok(name) => names.push(name),
                Err(_) => return Some(Err(ForwardError::Connection)),
            }
        }
    }
    Some(Ok(names))
}

fn accepts_trailers(value: &HeaderValue) -> bool {
    value
        .as_bytes()
        .split(|byte| *byte == b',')
        .any(|coding| coding.trim_ascii().eq_ignore_ascii_case(b"trailers"))
}

/// Fields that belong to one connection. `Proxy-Status` alone of its family is for the client (RFC 9209).
fn is_hop_field(name: &str) -> bool {
    match name {
        "connection" | "keep-alive" | "te" | "transfer-encoding" | "upgrade" | "trailer"
        | "http2-settings" => true,
        _ => name.starts_with("proxy-") && name != "proxy-status",
    }
}

/// Fields that a sender may not have dropped on the way: they frame, route, authenticate or identify a message.
fn is_protected(name: &HeaderName) -> bool {
    let name = name.as_str();
    matches!(
        name,
        "host"
            | "content-length"
            | "content-type"
            | "content-encoding"
            | "content-digest"
            | "content-range"
            | "transfer-encoding"
            | "authorization"
            | "cookie"
            | "set-cookie"
            | "date"
            | "expect"
            | "forwarded"
            | "idempotency-key"
            | "if-match"
            | "if-none-match"
            | "location"
            | "origin"
            | "via"
    ) || ["hapax-", "idempoten", "x-forwarded-"]
        .iter()
        .any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[&str]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for line in lines {
            let (name, value) = line.split_once(": ").unwrap();
            map.append(
                HeaderName::from_bytes(name.as_bytes()).unwrap(),
                value.parse().unwrap(),
            );
        }
        map
    }

    fn lines(map: &HeaderMap) -> Vec<String> {
        map.iter()
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
            .collect()
    }

    #[test]
    fn the_fields_of_one_hop_do_not_reach_the_next() {
        let table: [(&[&str], &[&str]); 9] = [
            (&["host: a", "connection: close"], &["host: a"]),
            (
                &["connection: keep-alive", "keep-alive: timeout=5", "x: 1"],
                &["x: 1"],
            ),
            (
                &["connection: X-Secret, close", "x-secret: 1", "y: 2"],
                &["y: 2"],
            ),
            (
                &["connection: a", "connection: , b ,", "a: 1", "b: 2", "c: 3"],
                &["c: 3"],
            ),
            (
                &[
                    "transfer-encoding: chunked",
                    "trailer: x",
                    "upgrade: h2c",
                    "http2-settings: AA",
                ],
                &[],
            ),
            (
                &[
                    "proxy-authorization: b",
                    "proxy-connection: close",
                    "proxy-anything: 1",
                ],
                &[],
            ),
            (&["proxy-status: hapax"], &["proxy-status: hapax"]),
            (
                &["te: gzip, Trailers", "connection: te"],
                &["te: trailers", "connection: te"],
            ),
            (&["te: gzip"], &[]),
        ];
        for (given, expected) in table {
            let mut map = headers(given);
            assert!(strip_request(&mut map).is_ok(), "{given:?}");
            assert_eq!(lines(&map), expected, "{given:?}");
        }
    }

    #[test]
    fn a_request_that_has_connection_name_a_protected_field_is_refused() {
        for name in [
            "Host",
            "Content-Length",
            "Content-Type",
            "Authorization",
            "Cookie",
            "Idempotency-Key",
            "Hapax-Outcome",
            "Transfer-Encoding",
            "X-Forwarded-For",
            "Forwarded",
            "Idempotent-Replayed",
            "If-Match",
        ] {
            let mut map = headers(&[&format!("connection: close, {name}")]);
            assert!(
                matches!(strip_request(&mut map), Err(ForwardError::Protected(_))),
                "{name}"
            );
        }
        assert!(matches!(
            strip_request(&mut headers(&["connection: a b"])),
            Err(ForwardError::Connection)
        ));
    }

    #[test]
    fn a_response_loses_its_hop_fields_and_keeps_protected_ones() {
        let mut map = headers(&[
            "connection: x, set-cookie",
            "x: 1",
            "set-cookie: a=b",
            "trailer: t",
            "proxy-status: u",
        ]);
        strip_response(&mut map);
        assert_eq!(lines(&map), ["set-cookie: a=b", "proxy-status: u"]);
    }

    #[test]
    fn targets_reach_the_upstream_byte_for_byte() {
        let table = [
            ("http://u", "/", "/"),
            ("http://u/", "/a", "/a"),
            ("http://u/api", "/a?b=c", "/api/a?b=c"),
            ("http://u/api/", "/a", "/api/a"),
            ("http://u/api", "/", "/api/"),
            ("http://u/api", "*", "*"),
            ("http://u", "/a/../b/./c", "/a/../b/./c"),
            ("http://u", "//evil.example/x", "//evil.example/x"),
            ("http://u", "/%2e%2E/%00?x=%zz", "/%2e%2E/%00?x=%zz"),
            ("http://u", "/a?", "/a?"),
            (
                "http://u/api",
                "/?expand[]=x&y=1|2",
                "/api/?expand[]=x&y=1|2",
            ),
            ("http://u", "https://client.example/from/h2?q", "/from/h2?q"),
        ];
        for (base, asked, sent) in table {
            let base = UpstreamBase::new(base.parse().unwrap()).unwrap();
            assert_eq!(
                base.target(&asked.parse().unwrap()).unwrap().to_string(),
                sent,
                "{asked}"
            );
        }
    }

    #[test]
    fn an_upstream_url_that_is_no_base_is_refused() {
        for url in ["/path", "u:80", "http://u/?q=1", "http://name:secret@u/"] {
            assert!(
                matches!(
                    UpstreamBase::new(url.parse().unwrap()),
                    Err(ForwardError::Base)
                ),
                "{url}"
            );
        }
    }

    #[test]
    fn a_request_from_http2_gets_a_host_and_one_cookie_field() {
        let base = UpstreamBase::new("http://up:81/".parse().unwrap()).unwrap();
        let mut map = headers(&["cookie: a=1", "cookie: b=2", "cookie: c=3"]);
        fit_for_http1(&mut map, &"https://shop.example/x".parse().unwrap(), &base);
        assert_eq!(lines(&map), ["cookie: a=1; b=2; c=3", "host: shop.example"]);
        let mut map = headers(&["host: kept"]);
        fit_for_http1(&mut map, &"/x".parse().unwrap(), &base);
        assert_eq!(lines(&map), ["host: kept"]);
        let mut map = HeaderMap::new();
        fit_for_http1(&mut map, &"/x".parse().unwrap(), &base);
        assert_eq!(lines(&map), ["host: up:81"]);
    }

    #[test]
    fn content_of_known_length_gets_a_plain_one_and_the_rest_is_chunked() {
        let table: [(&[&str], Option<u64>, &[&str]); 10] = [
            (&[], Some(0), &[]),
            (&["content-length: 0"], Some(0), &["content-length: 0"]),
            (&["content-length: 0010"], Some(10), &["content-length: 10"]),
            (&["content-length: 00"], Some(0), &["content-length: 0"]),
            (&["content-length: 10"], Some(10), &["content-length: 10"]),
            (&["content-length: 9"], Some(10), &["content-length: 10"]),
            (
                &["content-length: 5", "content-length: 5"],
                Some(5),
                &["content-length: 5"],
            ),
            (&[], Some(5), &["content-length: 5"]),
            (&[], None, &["transfer-encoding: chunked"]),
            (&["content-length: 5"], None, &["content-length: 5"]),
        ];
        for (given, content, expected) in table {
            let mut map = headers(given);
            let size = content.map_or_else(SizeHint::default, SizeHint::with_exact);
            frame(&mut map, &size);
            assert_eq!(lines(&map), expected, "{given:?}");
        }
    }

    #[test]
    fn via_is_appended_with_the_version_the_request_came_in() {
        let mut map = headers(&["via: 1.0 edge"]);
        append_via(&mut map, Version::HTTP_11);
        append_via(&mut map, Version::HTTP_2);
        assert_eq!(
            lines(&map),
            ["via: 1.0 edge", "via: 1.1 hapax", "via: 2.0 hapax"]
        );
    }
}
