//! Who the client was, as the upstream is told: `Forwarded` (RFC 7239) and the `X-Forwarded-*` fields.

use std::net::IpAddr;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use ipnet::IpNet;

use super::{connection::Origin, forward::remove_where};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// The proxies whose word about the client is passed on.
#[derive(Clone, Debug, Default)]
pub(crate) struct TrustedProxies(Vec<IpNet>);

impl From<Vec<IpNet>> for TrustedProxies {
    fn from(networks: Vec<IpNet>) -> Self {
        Self(networks)
    }
}

impl TrustedProxies {
    /// Whether `peer` is one of them. An IPv4 address that came over an IPv6 socket counts as what it is.
    pub(crate) fn contains(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        self.0.iter().any(|network| network.contains(&peer))
    }
}

/// Tells the upstream about the client at `peer`. What a peer that is not trusted says about itself is dropped first.
///
/// A trusted proxy's chain grows by one; its word on scheme and host stands, because it saw the client and we did not.
pub(crate) fn append_forwarded(headers: &mut HeaderMap, trusted: &TrustedProxies, origin: &Origin) {
    if !trusted.contains(origin.peer.ip()) {
        remove_where(headers, |name| {
            matches!(name, "forwarded" | "x-real-ip") || name.starts_with("x-forwarded-")
        });
    }
    let host = headers.get(header::HOST).cloned();
    append_to_list(
        headers,
        header::FORWARDED,
        forwarded_element(origin, host.as_ref()),
    );
    append_to_list(headers, X_FORWARDED_FOR, Some(origin.peer_value.clone()));
    headers
        .entry(X_FORWARDED_PROTO)
        .or_insert_with(|| HeaderValue::from_static(origin.scheme.as_str()));
    if let Some(host) = host {
        headers.entry(X_FORWARDED_HOST).or_insert(host);
    }
}

fn forwarded_element(origin: &Origin, host: Option<&HeaderValue>) -> Option<HeaderValue> {
    // A quote in a Host never passes the framing; from elsewhere it would break out of the element.
    let host = host
        .and_then(|host| host.to_str().ok())
        .filter(|host| !host.contains(['"', '\\']));
    let (open, close): (&[u8], &[u8]) = match origin.peer.ip().to_canonical() {
        IpAddr::V4(_) => (b"for=", b""),
        IpAddr::V6(_) => (b"for=\"[", b"]\""),
    };
    let named: [&[u8]; 3] = match host {
        Some(host) => [b";host=\"", host.as_bytes(), b"\""],
        None => [b"", b"", b""],
    };
    let [before, host, after] = named;
    let (peer, scheme) = (
        origin.peer_value.as_bytes(),
        origin.scheme.as_str().as_bytes(),
    );
    let element = [open, peer, close, before, host, after, b";proto=", scheme].concat();
    // A value between visible bytes is a value.
    HeaderValue::from_maybe_shared(Bytes::from(element)).ok()
}

/// Adds an element to a list field, on one line: receivers that know only one line are common.
fn append_to_list(headers: &mut HeaderMap, name: HeaderName, element: Option<HeaderValue>) {
    let Some(mut element) = element else { return };
    if headers.contains_key(&name) {
        let mut list = Vec::new();
        for line in headers.get_all(&name) {
            list.extend_from_slice(line.as_bytes());
            list.extend_from_slice(b", ");
        }
        list.extend_from_slice(element.as_bytes());
        // Lines that were values and an element that is one are a value.
        let Ok(joined) = HeaderValue::from_maybe_shared(Bytes::from(list)) else {
            return;
        };
        element = joined;
    }
    headers.insert(name, element);
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::gateway::connection::Scheme;

    fn check(
        trusted: &str,
        peer: &str,
        given: &[(&'static str, &'static str)],
        expected: &[(&str, &str)],
    ) {
        let mut headers = HeaderMap::new();
        for (name, value) in given {
            headers.append(*name, HeaderValue::from_static(value));
        }
        let networks = trusted.split(' ').filter(|entry| !entry.is_empty());
        let networks: Vec<IpNet> = networks
            .map(|entry| match entry.parse::<IpAddr>() {
                Ok(address) => IpNet::from(address),
                Err(_) => entry.parse().unwrap(),
            })
            .collect();
        let trusted = TrustedProxies::from(networks);
        let peer = SocketAddr::new(peer.parse().unwrap(), 1);
        append_forwarded(&mut headers, &trusted, &Origin::new(peer, Scheme::Http));
        headers.remove(header::HOST);
        let mut found: Vec<_> = headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.to_str().unwrap()))
            .collect();
        found.sort_unstable();
        assert_eq!(found, expected, "{given:?}");
    }

    #[test]
    fn a_stranger_cannot_say_who_the_client_was() {
        let expected = [
            ("forwarded", "for=192.0.2.1;host=\"shop\";proto=http"),
            ("x-forwarded-for", "192.0.2.1"),
            ("x-forwarded-host", "shop"),
            ("x-forwarded-proto", "http"),
        ];
        check("10.0.0.0/8", "192.0.2.1", &[("host", "shop")], &expected);
        let lies = [
            ("host", "shop"),
            ("forwarded", "for=127.0.0.1"),
            ("x-forwarded-for", "127.0.0.1"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "admin"),
            ("x-forwarded-port", "1"),
            ("x-forwarded-prefix", "/x"),
            ("x-real-ip", "127.0.0.1"),
        ];
        check("10.0.0.0/8", "192.0.2.1", &lies, &expected);
    }

    #[test]
    fn a_trusted_proxy_extends_the_chain_and_keeps_its_word() {
        let given = [
            ("host", "inner:80"),
            ("forwarded", "for=198.51.100.7;proto=https"),
            ("x-forwarded-for", "198.51.100.7"),
            ("x-forwarded-for", "10.1.1.1"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "shop"),
        ];
        let expected = [
            (
                "forwarded",
                "for=198.51.100.7;proto=https, for=10.0.0.9;host=\"inner:80\";proto=http",
            ),
            ("x-forwarded-for", "198.51.100.7, 10.1.1.1, 10.0.0.9"),
            ("x-forwarded-host", "shop"),
            ("x-forwarded-proto", "https"),
        ];
        check("10.0.0.0/8", "10.0.0.9", &given, &expected);
        check("10.0.0.9 ::1", "::ffff:10.0.0.9", &given, &expected);
    }

    #[test]
    fn an_ipv6_client_is_quoted_in_brackets() {
        let expected = [
            ("forwarded", "for=\"[2001:db8::1]\";proto=http"),
            ("x-forwarded-for", "2001:db8::1"),
            ("x-forwarded-proto", "http"),
        ];
        check("", "2001:db8::1", &[], &expected);
    }
}
