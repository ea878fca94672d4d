//! What the types of the file say about themselves: the JSON Schema, `docs/configuration.md`
//! and the file of `hapax config init`.

use std::fmt::Write;

use serde_json::{Map, Value, json};

use super::file::File;
use super::names::{SECTIONS, plain, settings_of, words};
use super::show::to_toml;

/// The width of the comments in the file of [`init`].
const COMMENT_WIDTH: usize = 96;

/// The JSON Schema (2020-12) of `hapax.toml`.
pub(crate) fn schema() -> Value {
    let generator = schemars::generate::SchemaSettings::draft2020_12()
        .with(|settings| settings.inline_subschemas = true)
        .into_generator();
    let mut schema = Value::from(generator.into_root_schema_for::<File>());
    plain(&mut schema);
    close(&mut schema, &[]);
    if let Some(route) = schema.pointer_mut("/properties/route/items") {
        close(route, &["match"]);
        let rules = route.get_mut("properties").and_then(Value::as_object_mut);
        for rule in rules.into_iter().flat_map(Map::values_mut) {
            // What a route does not say is as in [defaults].
            rule.as_object_mut().map(|rule| rule.remove("default"));
        }
    }
    schema
}

/// Allows the named properties only, and asks for `required` alone.
fn close(schema: &mut Value, required: &[&str]) {
    if let Some(schema) = schema.as_object_mut() {
        schema.remove("unevaluatedProperties");
        schema.insert("additionalProperties".to_owned(), json!(false));
        schema.insert("required".to_owned(), json!(required));
    }
}

/// The file of `hapax config init`: everything there is, all of it commented out but the
/// upstream.
pub(crate) fn init() -> String {
    let mut out = String::from(INIT_INTRODUCTION);
    for section in SECTIONS {
        if *section == "telemetry" {
            out.push_str(INIT_ROUTES);
        }
        let _ = writeln!(out, "\n[{section}]");
        for (name, setting) in settings_of(section) {
            write_comment(&mut out, &first_sentence(&description(&setting)));
            let words = words(&setting);
            if !words.is_empty() {
                write_comment(&mut out, &words.join(" | "));
            }
            let _ = match (default_of(section, &name), name.as_str()) {
                (Some(value), _) => writeln!(out, "# {name} = {}", to_toml(&value)),
                (None, "upstream") => writeln!(out, "{name} = \"http://127.0.0.1:3000\""),
                (None, "tls") => writeln!(
                    out,
                    "# {name} = {{ cert_file = \"cert.pem\", key_file = \"key.pem\" }}"
                ),
                (None, "otlp_endpoint") => writeln!(out, "# {name} = \"http://127.0.0.1:4318\""),
                (None, "probe_after") => writeln!(out, "# {name} = \"30s\""),
                (None, "url") => writeln!(out, "# {name} = \"postgres://hapax@127.0.0.1/hapax\""),
                (None, "url_file") => writeln!(out, "# {name} = \"store.url\""),
                (None, _) => writeln!(out, "# {name} = \"ca.pem\""),
            };
        }
    }
    out
}

fn write_comment(out: &mut String, text: &str) {
    let mut line = String::from("#");
    for word in text.split(' ') {
        if line.len() > 1 && line.len() + 1 + word.len() > COMMENT_WIDTH {
            out.push_str(&line);
            out.push('\n');
            line = String::from("#");
        }
        line.push(' ');
        line.push_str(word);
    }
    out.push_str(&line);
    out.push('\n');
}

/// The default as it would be written.
pub(super) fn default_of(section: &str, name: &str) -> Option<Value> {
    let setting = settings_of(section).remove(name)?;
    setting
        .get("default")
        .cloned()
        .filter(|value| !value.is_null())
}

pub(super) fn description(schema: &Value) -> String {
    one_line(
        schema
            .get("description")
            .and_then(Value::as_str)
            .unwrap_or_default(),
    )
}

pub(super) fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn first_sentence(text: &str) -> String {
    match text.split_once(". ") {
        Some((first, _)) => format!("{first}."),
        None => text.to_owned(),
    }
}

const INIT_INTRODUCTION: &str = "\
# hapax.toml: what is commented out is the default.
# `hapax config validate` checks this file, `hapax config show --origin` says what is in force.
";

const INIT_ROUTES: &str = r#"
# A route has rules of its own for the requests that match; all else is as in [defaults].
# [[route]]
# match = "POST /v1/orders"
# key = "required"
# fingerprint = "json"
# ignore = ["/client_time"]

# [[route]]
# match = "PUT /order/{order_id}"
# key_from = ["path:order_id"]
"#;
