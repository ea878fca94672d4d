//! The upstream's address.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The origin that requests are forwarded to, and the path that goes in front of theirs.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Upstream {
    /// How to speak to it.
    pub(crate) scheme: Scheme,
    /// A name or an address; an IPv6 address without its brackets.
    pub(crate) host: String,
    /// The port, that of the scheme when none was written.
    pub(crate) port: u16,
    /// What is put before every path: empty, or `/base` without a slash at its end.
    pub(crate) path_prefix: String,
}

/// How to speak to the upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Scheme {
    /// In the clear.
    Http,
    /// Over TLS.
    Https,
}

impl Scheme {
    /// As it stands in a URL.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    const fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

impl Upstream {
    /// `host` or `host:port` as it stands in a `Host` field; the scheme's own port is left out.
    pub(crate) fn authority(&self) -> String {
        let host = match self.host.contains(':') {
            true => Cow::Owned(format!("[{}]", self.host)),
            false => Cow::Borrowed(self.host.as_str()),
        };
        match self.port == self.scheme.default_port() {
            true => host.into_owned(),
            false => format!("{host}:{}", self.port),
        }
    }
}

impl FromStr for Upstream {
    type Err = String;

    /// No message holds the text: it may have a password in it.
    fn from_str(text: &str) -> Result<Self, String> {
        const EXPECTED: &str = "write the upstream as \"http://HOST:PORT\" or \"https://HOST\"";
        let uri = text
            .parse::<http::Uri>()
            .map_err(|_| format!("this is not a URL: {EXPECTED}"))?;
        let scheme = match uri.scheme_str() {
            Some("http") => Scheme::Http,
            Some("https") => Scheme::Https,
            Some(_) => return Err(format!("the scheme must be http or https: {EXPECTED}")),
            None => return Err(format!("this is not an absolute URL: {EXPECTED}")),
        };
        let authority = uri
            .authority()
            .ok_or_else(|| format!("this URL has no host: {EXPECTED}"))?;
        if authority.as_str().contains('@') {
            return Err("a user and password do not belong in the upstream's URL: \
                        callers' credentials are passed on as they are"
                .to_owned());
        }
        if uri.query().is_some() || text.contains('#') {
            return Err("the upstream's URL cannot have a query or a fragment".to_owned());
        }
        let port = match authority.as_str().rsplit_once(':') {
            Some((_, tail)) if !tail.contains(']') => tail
                .parse::<u16>()
                .ok()
                .filter(|port| *port != 0)
                .ok_or_else(|| format!("the port must be 1 to 65535: {EXPECTED}"))?,
            _ => scheme.default_port(),
        };
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        if host.is_empty() {
            return Err(format!("this URL has no host: {EXPECTED}"));
        }
        let path_prefix = uri.path().trim_end_matches('/').to_owned();
        Ok(Self {
            scheme,
            host,
            port,
            path_prefix,
        })
    }
}

impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, authority) = (self.scheme.as_str(), self.authority());
        write!(f, "{scheme}://{authority}{}", self.path_prefix)
    }
}

impl Serialize for Upstream {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Upstream {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Upstream {
    fn schema_name() -> Cow<'static, str> {
        "Upstream".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "URL" })
    }
}

/// Where spans are sent: a URL of the same form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Collector(pub(crate) Upstream);

impl Serialize for Collector {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Collector {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        // The upstream's messages, about another server.
        let renamed = |message: String| message.replace("upstream", "collector");
        let parsed = text.parse::<Upstream>().map_err(renamed);
        parsed.map(Self).map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Collector {
    fn schema_name() -> Cow<'static, str> {
        "Collector".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        Upstream::json_schema(generator)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upstream_is_split_into_scheme_host_port_and_prefix() {
        let check = |text: &str, host: &str, port: u16, prefix: &str, shown: &str| {
            let upstream: Upstream = text.parse().unwrap();
            assert_eq!(upstream.host, host, "{text}");
            assert_eq!(upstream.port, port, "{text}");
            assert_eq!(upstream.path_prefix, prefix, "{text}");
            assert_eq!(upstream.to_string(), shown, "{text}");
        };
        check("http://a", "a", 80, "", "http://a");
        check("http://a:3000/", "a", 3000, "", "http://a:3000");
        check("https://a/x/y/", "a", 443, "/x/y", "https://a/x/y");
        check("https://a:443", "a", 443, "", "https://a");
        check("http://[::1]:81/v", "::1", 81, "/v", "http://[::1]:81/v");
        check("http://[::1]", "::1", 80, "", "http://[::1]");
    }

    #[test]
    fn a_faulty_upstream_is_refused_without_repeating_it() {
        for text in [
            "http://user:hunter2@a",
            "ftp://hunter2",
            "hunter2:3000",
            "/hunter2",
            "http://hunter2:0",
            "http://hunter2:99999",
            "http://a/?hunter2",
            "http://a/#hunter2",
            "http://",
            "http:// hunter2",
        ] {
            let error = text.parse::<Upstream>().unwrap_err();
            assert!(!error.contains("hunter2"), "{text}: {error}");
        }
    }
}
