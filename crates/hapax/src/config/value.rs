//! The values of the configuration as people write them, parsed at the edge.
//!
//! Every type here reads and writes the same text, says in `EXPECTED` what that text looks like,
//! and describes itself to the JSON Schema.

use std::borrow::Cow;
use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use hapax_core::json::Pointer;
use hapax_core::policy::KeySource;
use hapax_core::probe::Template;
use hapax_core::scope::ScopePart;
use http::{HeaderName, Method};
use ipnet::IpNet;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};

/// A text with a grammar of its own.
trait Text: FromStr<Err = String> + fmt::Display {
    /// The type's name in the documentation and the `format` of the schema.
    const FORMAT: &'static str;
    /// What is expected, for an error message.
    const EXPECTED: &'static str;
}

/// Reads a [`Text`], or a whole number where `from_number` has a meaning for one.
struct TextVisitor<T>(std::marker::PhantomData<T>);

impl<T: Text> Visitor<'_> for TextVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::EXPECTED)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }
}

macro_rules! text {
    ($name:ident, $format:literal, $expected:literal) => {
        impl Text for $name {
            const FORMAT: &'static str = $format;
            const EXPECTED: &'static str = $expected;
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_str(TextVisitor(std::marker::PhantomData))
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn inline_schema() -> bool {
                true
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "format": <$name as Text>::FORMAT })
            }
        }
    };
}

/// A length of time with its unit: `500ms`, `30s`, `5m`, `24h`, `30d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Period(pub(crate) Duration);

text!(
    Period,
    "duration",
    "a duration with its unit, such as \"30s\""
);

impl Period {
    /// A number of whole seconds.
    pub(crate) const fn seconds(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }
}

impl FromStr for Period {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        humantime::parse_duration(text)
            .map(Self)
            .map_err(|error| format!("{text:?} is not {} ({error})", Self::EXPECTED))
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(u128, u128, &str); 4] = [
            // A day reads as 24h; from two days on, days are easier.
            (86_400_000, 2 * 86_400_000, "d"),
            (3_600_000, 3_600_000, "h"),
            (60_000, 120_000, "m"),
            (1_000, 1_000, "s"),
        ];
        let millis = self.0.as_millis();
        if !self.0.subsec_nanos().is_multiple_of(1_000_000) {
            return write!(f, "{}", humantime::format_duration(self.0));
        }
        match UNITS
            .iter()
            .find(|(unit, from, _)| millis >= *from && millis.is_multiple_of(*unit))
        {
            Some((unit, _, name)) => write!(f, "{}{name}", millis / unit),
            None if millis == 0 => f.write_str("0s"),
            None => write!(f, "{millis}ms"),
        }
    }
}

/// A number of bytes: `512KiB`, `1MiB`, `1MB`, or a plain number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Size(pub(crate) u64);

impl Size {
    const EXPECTED: &'static str = "a size in bytes, such as \"1MiB\" or 1048576";

    /// A number of mebibytes.
    pub(crate) const fn mebibytes(count: u64) -> Self {
        Self(count * 1024 * 1024)
    }
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse::<bytesize::ByteSize>()
            .map(|size| Self(size.as_u64()))
            .map_err(|_| format!("{text:?} is not {}", Self::EXPECTED))
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(u64, &str); 4] = [
            (1 << 40, "TiB"),
            (1 << 30, "GiB"),
            (1 << 20, "MiB"),
            (1 << 10, "KiB"),
        ];
        let fits = |(unit, _): &&(u64, &str)| self.0 > 0 && self.0.is_multiple_of(*unit);
        match UNITS.iter().find(fits) {
            Some((unit, name)) => write!(f, "{}{name}", self.0 / unit),
            None => write!(f, "{}B", self.0),
        }
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct SizeVisitor;
        impl Visitor<'_> for SizeVisitor {
            type Value = Size;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(Size::EXPECTED)
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Size, E> {
                text.parse().map_err(E::custom)
            }
            fn visit_i64<E: de::Error>(self, bytes: i64) -> Result<Size, E> {
                u64::try_from(bytes)
                    .map(Size)
                    .map_err(|_| E::custom(format!("{bytes} is not {}", Size::EXPECTED)))
            }
        }
        deserializer.deserialize_any(SizeVisitor)
    }
}

impl JsonSchema for Size {
    fn schema_name() -> Cow<'static, str> {
        "Size".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["string", "integer"], "format": "size", "minimum": 0 })
    }
}

/// An IP address and a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Address(pub(crate) SocketAddr);

text!(
    Address,
    "address",
    "an IP address and a port, such as \"127.0.0.1:8080\""
);

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse()
            .map(Self)
            .map_err(|_| format!("{text:?} is not {}", Self::EXPECTED))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A network in CIDR notation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Network(pub(crate) IpNet);

text!(
    Network,
    "network",
    "a network or an address, such as \"10.0.0.0/8\""
);

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse()
            .or_else(|_| text.parse::<std::net::IpAddr>().map(IpNet::from))
            .map(Self)
            .map_err(|_| format!("{text:?} is not {}", Self::EXPECTED))
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An origin whose pages may read what hapax answers itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum AllowedOrigin {
    /// `*`.
    Any,
    /// One, as browsers write it (RFC 6454 section 6.2).
    One(String),
}

text!(
    AllowedOrigin,
    "origin",
    "an origin as browsers send it, such as \"https://shop.example\" or \"http://localhost:3000\", or \"*\""
);

impl FromStr for AllowedOrigin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not {}", Self::EXPECTED);
        if text == "*" {
            return Ok(Self::Any);
        }
        if text == "null" {
            return Err("\"null\" is the origin of every sandboxed page and local file".to_owned());
        }
        let (scheme, authority) = text.split_once("://").ok_or_else(wrong)?;
        let is_scheme = scheme.starts_with(|first: char| first.is_ascii_lowercase())
            && scheme
                .bytes()
                .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'+' | b'-' | b'.'));
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
            _ => (authority, None),
        };
        let address = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        let is_host = match address.map(str::parse::<std::net::Ipv6Addr>) {
            Some(address) => address.is_ok_and(|address| format!("[{address}]") == host),
            None => {
                let is_part = |byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_');
                !host.is_empty() && host.bytes().all(is_part)
            }
        };
        let is_port = port.is_none_or(|port| {
            let number = port.parse::<u16>();
            number.is_ok_and(|number| number.to_string() == port)
        });
        if !is_scheme || !is_host || !is_port {
            return Err(wrong());
        }
        if matches!(
            (scheme, port),
            ("http", Some("80")) | ("https", Some("443"))
        ) {
            return Err(format!("{text:?}: browsers leave the usual port out"));
        }
        Ok(Self::One(text.to_owned()))
    }
}

impl fmt::Display for AllowedOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Any => "*",
            Self::One(origin) => origin,
        })
    }
}

/// A request method.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MethodName(pub(crate) Method);

text!(
    MethodName,
    "method",
    "a method in capital letters, such as \"POST\""
);

impl FromStr for MethodName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // Methods are case-sensitive (RFC 9110, 9.1): `post` would be another method, never met.
        if text.bytes().any(|byte| byte.is_ascii_lowercase()) {
            return Err(format!("{text:?} is not {}", Self::EXPECTED));
        }
        text.parse()
            .map(Self)
            .map_err(|_| format!("{text:?} is not {}", Self::EXPECTED))
    }
}

impl fmt::Display for MethodName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The name of a header field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FieldName(pub(crate) HeaderName);

text!(FieldName, "header", "the name of a header field");

impl FromStr for FieldName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse()
            .map(Self)
            .map_err(|_| format!("{text:?} is not {}", Self::EXPECTED))
    }
}

impl fmt::Display for FieldName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A JSON pointer (RFC 6901).
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct JsonPointer(pub(crate) Pointer);

text!(
    JsonPointer,
    "JSON pointer",
    "a JSON pointer, such as \"/client_time\""
);

impl FromStr for JsonPointer {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse()
            .map(Self)
            .map_err(|error| format!("{text:?}: {error}"))
    }
}

impl fmt::Display for JsonPointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A place where the key may be.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Source(pub(crate) KeySource);

text!(
    Source,
    "key source",
    "\"header:NAME\", \"path:PARAM\", \"json:/POINTER\" or \"query:NAME\""
);

impl FromStr for Source {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not {}", Self::EXPECTED);
        let (kind, rest) = text.split_once(':').ok_or_else(wrong)?;
        let source = match kind {
            "header" => KeySource::Header(rest.parse::<FieldName>()?.0),
            "json" => KeySource::Json(rest.parse::<JsonPointer>()?.0),
            "path" if !rest.is_empty() => KeySource::Path(rest.to_owned()),
            "query" if !rest.is_empty() => KeySource::Query(rest.to_owned()),
            _ => return Err(wrong()),
        };
        Ok(Self(source))
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            KeySource::Header(name) => write!(f, "header:{name}"),
            KeySource::Path(name) => write!(f, "path:{name}"),
            KeySource::Json(pointer) => write!(f, "json:{pointer}"),
            KeySource::Query(name) => write!(f, "query:{name}"),
        }
    }
}

/// A part of the scope, or the written-out absence of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ScopeText {
    /// `none`.
    None,
    /// A part.
    Part(ScopePart),
}

text!(ScopeText, "scope part", "\"header:NAME\" or \"none\"");

impl FromStr for ScopeText {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "none" => Ok(Self::None),
            Some(("header", name)) => {
                let name = name.parse::<FieldName>()?.0;
                Ok(Self::Part(ScopePart::Header(name)))
            }
            Some(("claim" | "tls", _)) => Err(format!(
                "the scope {text:?} is not supported by this version; use {}",
                Self::EXPECTED
            )),
            _ => Err(format!("{text:?} is not {}", Self::EXPECTED)),
        }
    }
}

impl fmt::Display for ScopeText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Part(part) => part.fmt(f),
        }
    }
}

/// How the upstream is asked whether an operation happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Probe(pub(crate) Arc<Template>);

text!(
    Probe,
    "probe",
    "a probe, such as \"GET /orders?request={key}\""
);

impl FromStr for Probe {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Template::parse(text)
            .map(|template| Self(Arc::new(template)))
            .map_err(|error| format!("{text:?}: {error}"))
    }
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Which events are logged, in the notation of `tracing`: a level, or `module=level` pairs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LogFilter(pub(crate) String);

text!(
    LogFilter,
    "log filter",
    "a log filter, such as \"info\" or \"warn,hapax=debug\""
);

impl FromStr for LogFilter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // A lone word would be taken for the name of a module and switch every log line off.
        const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
        let lone_word = |part: &str| !part.contains(['=', ':', '[']) && !LEVELS.contains(&part);
        let filter = tracing_subscriber::EnvFilter::try_new(text);
        if filter.is_err() || text.split(',').any(|part| lone_word(part.trim())) {
            return Err(format!("{text:?} is not {}", Self::EXPECTED));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for LogFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
