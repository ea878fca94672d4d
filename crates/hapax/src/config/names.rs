//! Which names there are, taken from the types of the file: nothing is listed twice.

use schemars::JsonSchema;
use serde::Serialize;
use serde::de::{DeserializeOwned, IntoDeserializer};
use serde_json::{Map, Value};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::diagnose::suggestion;
use super::file::{Admin, Cors, Limits, Rules, Server, Store, Telemetry};

/// A table of the file with a name, all of whose settings have defaults.
pub(crate) trait Section: Serialize + DeserializeOwned + JsonSchema + Default {
    /// The name in brackets.
    const NAME: &'static str;
}

macro_rules! sections {
    ($($type:ty => $name:literal),* $(,)?) => {
        $(impl Section for $type {
            const NAME: &'static str = $name;
        })*

        /// The names of all sections, in the order in which they are shown.
        pub(crate) const SECTIONS: &[&str] = &[$($name),*];

        /// The schemas of a section's settings by name.
        pub(crate) fn settings_of(section: &str) -> Map<String, Value> {
            match section {
                $($name => properties::<$type>(),)*
                _ => Map::new(),
            }
        }

        /// Whether `value` can be the value of this setting.
        pub(crate) fn try_value(
            section: &str,
            name: &str,
            value: &Spanned<DeValue<'_>>,
        ) -> Result<(), Fault> {
            let table = [(name, value)];
            let result = match section {
                $($name => read::<$type>(table).map(drop),)*
                _ => Ok(()),
            };
            result.map_err(|error| Fault::new(section, name, value, &error))
        }
    };
}

sections! {
    Server => "server",
    Limits => "limits",
    Cors => "cors",
    Admin => "admin",
    Store => "store",
    Rules => "defaults",
    Telemetry => "telemetry",
}

/// Why a value is not accepted.
#[derive(Debug)]
pub(crate) struct Fault {
    /// In a sentence.
    pub(crate) message: String,
    /// The faulty part of the value.
    pub(crate) span: std::ops::Range<usize>,
}

/// Reads a section from its settings; what is missing has its default.
pub(crate) fn read<'a, 's: 'a, S: Section>(
    settings: impl IntoIterator<Item = (&'a str, &'a Spanned<DeValue<'s>>)>,
) -> Result<S, toml::de::Error> {
    let table: DeTable<'s> = settings
        .into_iter()
        .map(|(name, value)| (Spanned::new(0..0, name.to_owned().into()), value.clone()))
        .collect();
    S::deserialize(Spanned::new(0..0, DeValue::Table(table)).into_deserializer())
}

/// Whether any section has a setting of this name.
pub(crate) fn is_setting(name: &str) -> bool {
    section_with(name).is_some() || matches!(name, "match" | "cert_file" | "key_file")
}

/// The message for a name that `section` does not have.
pub(crate) fn unknown(section: &str, shown: &str, name: &str) -> String {
    let known = settings_of(section);
    let near = suggestion(name, known.keys().map(String::as_str));
    match section_with(name) {
        Some(home) if near.is_empty() => {
            format!("unknown name `{name}` in {shown}; it belongs in [{home}]")
        }
        _ => format!("unknown name `{name}` in {shown}{near}"),
    }
}

/// The section that has a setting of this name.
pub(crate) fn section_with(name: &str) -> Option<&'static str> {
    let has = |section: &&&str| settings_of(section).contains_key(name);
    SECTIONS.iter().find(has).copied()
}

/// Names that are settled but not built: refused by name, never silently taken.
pub(crate) fn unsupported(section: &str, name: &str) -> Option<String> {
    let because = match (section, name) {
        ("store", "encryption_key_file") => "protect the store instead",
        ("defaults", "authorize") => "a replay needs only the key and its scope",
        _ => return None,
    };
    Some(format!(
        "`{name}` is not supported by this version: {because}"
    ))
}

/// The words a setting may have, when it has only those.
pub(crate) fn words(schema: &Value) -> Vec<&str> {
    let listed = schema.get("enum").and_then(Value::as_array);
    let described = schema.get("oneOf").and_then(Value::as_array);
    let constants = described.into_iter().flatten().map(|one| one.get("const"));
    let plain = listed.into_iter().flatten().map(Some);
    plain
        .chain(constants)
        .flatten()
        .filter_map(Value::as_str)
        .collect()
}

impl Fault {
    fn new(
        section: &str,
        name: &str,
        value: &Spanned<DeValue<'_>>,
        error: &toml::de::Error,
    ) -> Self {
        // An error of the whole one-setting table has the span of nothing.
        let span = error.span().filter(|span| !span.is_empty());
        let schemas = settings_of(section);
        let words = schemas.get(name).map(words).unwrap_or_default();
        let message = match value.get_ref().as_str() {
            Some("probe") if name == "on_unknown" => {
                "a probe is written `on_unknown = { probe = \"GET /orders?request={key}\" }`"
                    .to_owned()
            }
            Some(word) if !words.is_empty() => {
                let near = suggestion(word, words.iter().copied());
                let listed: Vec<_> = words.iter().map(|word| format!("`{word}`")).collect();
                format!(
                    "`{name}` is one of {}, not {word:?}{near}",
                    listed.join(", ")
                )
            }
            _ => {
                let message = error.message();
                let message = message.replace("expected u32", "expected a whole number");
                format!(
                    "`{name}`: {}",
                    message.replace("expected u64", "expected a whole number")
                )
            }
        };
        Self {
            message,
            span: span.unwrap_or_else(|| value.span()),
        }
    }
}

/// The properties of a type's schema, with references resolved and `null` left out.
fn properties<S: Section>() -> Map<String, Value> {
    let generator = schemars::generate::SchemaSettings::draft2020_12()
        .with(|settings| settings.inline_subschemas = true)
        .into_generator();
    let mut schema = Value::from(generator.into_root_schema_for::<S>());
    plain(&mut schema);
    match schema.get_mut("properties").map(Value::take) {
        Some(Value::Object(properties)) => properties,
        _ => Map::new(),
    }
}

/// Takes `null` out of a schema: TOML has none, and what is optional is left out.
pub(crate) fn plain(schema: &mut Value) {
    if let Some(Value::Array(choices)) = schema.get_mut("anyOf") {
        choices.retain(|choice| choice.get("type").and_then(Value::as_str) != Some("null"));
        if let [Value::Object(only)] = choices.as_mut_slice() {
            let only = std::mem::take(only);
            if let Some(outer) = schema.as_object_mut() {
                outer.remove("anyOf");
                // The setting's own description says more than its type's.
                only.into_iter().for_each(|(name, value)| {
                    outer.entry(name).or_insert(value);
                });
            }
        }
    }
    if let Some(Value::Array(types)) = schema.get_mut("type") {
        types.retain(|kind| kind.as_str() != Some("null"));
        if let [only] = types.as_slice() {
            let only = only.clone();
            schema
                .as_object_mut()
                .map(|schema| schema.insert("type".to_owned(), only));
        }
    }
    match schema {
        Value::Object(members) => {
            members.retain(|name, value| name != "default" || !value.is_null());
            members.values_mut().for_each(plain);
        }
        Value::Array(items) => items.iter_mut().for_each(plain),
        _ => {}
    }
}
