//! Where a shared store is. Holds a password more often than not, and is never shown.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserializer};
use serde::{Deserialize, Serialize, Serializer};

use super::file::StoreKind;

/// The URL of a shared store.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct StoreUrl(String);

impl StoreUrl {
    /// Takes a URL by its scheme; the rest is for the store's client to judge.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        match kind_of(text) {
            Some(_) => Ok(Self(text.to_owned())),
            None => Err("a store's URL begins with postgres:// or redis://".to_owned()),
        }
    }

    /// The kind of store it leads to.
    pub(crate) fn kind(&self) -> Option<StoreKind> {
        kind_of(&self.0)
    }

    /// The URL itself: for connecting, never for showing.
    pub(crate) fn secret(&self) -> &str {
        &self.0
    }
}

fn kind_of(text: &str) -> Option<StoreKind> {
    match text.split_once("://")?.0 {
        "postgres" | "postgresql" => Some(StoreKind::Postgres),
        "redis" | "rediss" | "valkey" | "valkeys" => Some(StoreKind::Redis),
        _ => None,
    }
}

/// The scheme, and nothing else.
impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = self.0.split_once("://").map_or("", |(scheme, _)| scheme);
        write!(f, "{scheme}://…")
    }
}

impl fmt::Debug for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for StoreUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for StoreUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(de::Error::custom)
    }
}

impl JsonSchema for StoreUrl {
    fn schema_name() -> Cow<'static, str> {
        "StoreUrl".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "url" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_url_says_its_kind_and_shows_nothing_else() {
        for (text, kind) in [
            ("postgres://u:hunter2@db/x", StoreKind::Postgres),
            ("postgresql://u:hunter2@db/x", StoreKind::Postgres),
            ("redis://u:hunter2@db/1", StoreKind::Redis),
            ("rediss://u:hunter2@db", StoreKind::Redis),
            ("valkey://u:hunter2@db", StoreKind::Redis),
            ("valkeys://u:hunter2@db", StoreKind::Redis),
        ] {
            let url = StoreUrl::parse(text).unwrap();
            assert_eq!(url.kind(), Some(kind));
            assert_eq!(url.secret(), text);
            let shown = format!("{url} {url:?} {}", serde_json::to_string(&url).unwrap());
            assert!(
                !shown.contains("hunter2") && !shown.contains("db"),
                "{shown}"
            );
        }
        for text in ["hunter2", "http://hunter2", "mysql://hunter2"] {
            let error = StoreUrl::parse(text).unwrap_err();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
