//! The effective settings as text: TOML or JSON, with or without their origins.

use std::fmt::Write;

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::names::settings_of;
use super::raw::Origin;
use super::route::Route;
use super::settings::Settings;

/// A setting as it is shown.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Shown {
    /// Its name in its section.
    pub(crate) name: String,
    /// Its value; `null` when it is not set.
    pub(crate) value: Value,
    /// Where it comes from.
    pub(crate) origin: Origin,
}

/// A section as it is shown.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct ShownSection {
    /// The name in brackets.
    pub(crate) name: &'static str,
    /// In the order of the documentation.
    pub(crate) settings: Vec<Shown>,
}

/// All settings of a section with their origins.
pub(crate) fn shown<S: Serialize>(
    section: &S,
    name: &str,
    origin: impl Fn(&str) -> Option<Origin>,
) -> Vec<Shown> {
    // A section serialises to an object: its types are texts, numbers, lists and tables.
    let values = serde_json::to_value(section).unwrap_or_default();
    settings_of(name)
        .into_iter()
        .map(|(name, _)| Shown {
            value: values.get(&name).cloned().unwrap_or_default(),
            origin: origin(&name).unwrap_or(Origin::Default),
            name,
        })
        .collect()
}

/// Whether origins are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origins {
    /// With every setting.
    Shown,
    /// Not at all.
    Hidden,
}

impl Settings {
    /// A file that means the same. A route has its own rules only; with origins, what it
    /// inherits stands beside them as comments.
    pub(crate) fn to_toml(&self, origins: Origins) -> String {
        let mut out = String::new();
        for section in &self.sections {
            if section.name == "telemetry" {
                self.routes
                    .iter()
                    .skip(1)
                    .for_each(|route| write_route(&mut out, route, origins));
            }
            open(&mut out, &format!("[{}]", section.name));
            for setting in &section.settings {
                write_setting(&mut out, setting, origins, setting.value.is_null());
            }
        }
        out
    }

    /// The same as JSON; with origins, a setting is `{ "value": …, "origin": … }`.
    pub(crate) fn to_json(&self, origins: Origins) -> Value {
        let object = |settings: &[Shown]| -> Map<String, Value> {
            settings
                .iter()
                .map(|setting| {
                    let value = match origins {
                        Origins::Hidden => setting.value.clone(),
                        Origins::Shown => json!({
                            "value": setting.value,
                            "origin": setting.origin,
                        }),
                    };
                    (setting.name.clone(), value)
                })
                .collect()
        };
        let mut root = Map::new();
        for section in &self.sections {
            root.insert(section.name.to_owned(), object(&section.settings).into());
        }
        let routes = self.routes.iter().skip(1).map(|route| {
            let mut entry = Map::new();
            entry.insert("match".to_owned(), route.name.to_string().into());
            entry.extend(object(&route.settings));
            Value::Object(entry)
        });
        root.insert("route".to_owned(), routes.collect());
        root.into()
    }
}

fn write_route(out: &mut String, route: &Route, origins: Origins) {
    open(out, "[[route]]");
    let own = Shown {
        name: "match".to_owned(),
        value: route.name.to_string().into(),
        origin: route.origin.clone(),
    };
    write_setting(out, &own, origins, false);
    for setting in &route.settings {
        let is_own = route.own_names().contains(&setting.name);
        if is_own || origins == Origins::Shown {
            write_setting(out, setting, origins, !is_own);
        }
    }
}

fn open(out: &mut String, header: &str) {
    if !out.is_empty() {
        out.push('\n');
    }
    out.push_str(header);
    out.push('\n');
}

fn write_setting(out: &mut String, setting: &Shown, origins: Origins, is_comment: bool) {
    let lead = if is_comment { "# " } else { "" };
    let line = match &setting.value {
        Value::Null => format!("# {} is not set", setting.name),
        value => format!("{lead}{} = {}", setting.name, to_toml(value)),
    };
    // Writing to a string cannot fail.
    let _ = match origins {
        Origins::Shown => writeln!(out, "{line}  # {}", setting.origin),
        Origins::Hidden => writeln!(out, "{line}"),
    };
}

/// A value in TOML, on one line.
pub(crate) fn to_toml(value: &Value) -> String {
    match value {
        Value::Null => "\"\"".to_owned(),
        Value::Bool(flag) => flag.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => toml::Value::String(text.clone()).to_string(),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(to_toml).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Object(entries) => {
            let entries: Vec<String> = entries
                .iter()
                .map(|(name, value)| format!("{name} = {}", to_toml(value)))
                .collect();
            format!("{{ {} }}", entries.join(", "))
        }
    }
}
