//! The configuration before it means anything: settings by name, each with its origin.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use serde::{Serialize, Serializer};
use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::diagnose::{At, Findings, suggestion};
use super::names::{self, SECTIONS};

/// Where a setting comes from. Shown as `default`, `hapax.toml:12`, `environment HAPAX_…` or
/// the flag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Nobody said anything.
    Default,
    /// A line of the file.
    File {
        /// As it was named.
        path: String,
        /// From 1.
        line: usize,
    },
    /// A variable.
    Environment(String),
    /// A flag.
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line } => write!(f, "{path}:{line}"),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::Flag(name) => f.write_str(name),
        }
    }
}

impl Serialize for Origin {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A setting as it was written.
#[derive(Debug, Clone)]
pub(crate) struct Entry<'s> {
    /// Its value; the span means something for a value from the file only.
    pub(crate) value: Spanned<DeValue<'s>>,
    /// Where it comes from.
    pub(crate) origin: Origin,
}

impl Entry<'_> {
    /// The position of the value.
    pub(crate) fn at(&self) -> At {
        self.part(self.value.span())
    }

    /// The position of a part of the value.
    pub(crate) fn part(&self, span: Range<usize>) -> At {
        match &self.origin {
            Origin::Default => At::Nowhere,
            Origin::File { .. } => At::Value(span),
            Origin::Environment(name) => At::Environment(name.clone()),
            Origin::Flag(name) => At::Flag(name),
        }
    }
}

/// The settings of a section.
pub(crate) type Table<'s> = BTreeMap<String, Entry<'s>>;

/// A `[[route]]`: its `match` apart from its rules.
#[derive(Debug, Clone)]
pub(crate) struct RawRoute<'s> {
    /// The position of the route's table.
    pub(crate) at: At,
    /// The line of `match`, or of the table without one.
    pub(crate) line: usize,
    /// `match`, when it is a string.
    pub(crate) pattern: Option<(String, At)>,
    /// The rules it has itself.
    pub(crate) rules: Table<'s>,
}

/// Everything that was written. Holds only settings with a known name and a value of its type.
#[derive(Debug, Default)]
pub(crate) struct Raw<'s> {
    sections: BTreeMap<&'static str, Table<'s>>,
    /// The routes in the order of the file.
    pub(crate) routes: Vec<RawRoute<'s>>,
}

impl<'s> Raw<'s> {
    /// The settings of a section.
    pub(crate) fn section(&mut self, name: &'static str) -> &mut Table<'s> {
        self.sections.entry(name).or_default()
    }

    /// Reads the file that `findings` is about.
    pub(crate) fn parse(findings: &mut Findings<'s>) -> Self {
        let mut raw = Self::default();
        let Some(source) = findings.source() else {
            return raw;
        };
        let (root, errors) = DeTable::parse_recoverable(&source.text);
        if !errors.is_empty() {
            // What follows a broken line may be read wrongly: say only what is certain.
            for error in errors {
                let span = error.span().unwrap_or_default();
                findings.error(&At::Syntax(span), error.message());
            }
            return raw;
        }
        for (name, value) in root.into_inner() {
            match SECTIONS
                .iter()
                .find(|known| **known == name.get_ref().as_ref())
            {
                Some(section) => raw.read_section(section, &name, value, findings),
                None if name.get_ref() == "route" => raw.read_routes(value, findings),
                None => findings.error(&At::Name(name.span()), unknown_section(name.get_ref())),
            }
        }
        raw
    }

    fn read_section(
        &mut self,
        section: &'static str,
        name: &Spanned<DeString<'s>>,
        value: Spanned<DeValue<'s>>,
        findings: &mut Findings<'s>,
    ) {
        let DeValue::Table(table) = value.into_inner() else {
            let message = format!("`{section}` is a table: write [{section}]");
            return findings.error(&At::Name(name.span()), message);
        };
        let read = read_table(section, &format!("[{section}]"), table, findings);
        self.sections.insert(section, read);
    }

    fn read_routes(&mut self, value: Spanned<DeValue<'s>>, findings: &mut Findings<'s>) {
        let at = At::Value(value.span());
        let DeValue::Array(routes) = value.into_inner() else {
            return findings.error(&at, "routes are a list: write [[route]]");
        };
        for route in routes {
            let span = route.span();
            let at = At::Value(span.clone());
            match route.into_inner() {
                DeValue::Table(table) => {
                    let route = read_route(span, table, findings);
                    self.routes.push(route);
                }
                _ => findings.error(&at, "a route is a table: write [[route]]"),
            }
        }
    }
}

/// Keeps a setting with a known name when its value fits, and notes why when not.
pub(crate) fn check_entry<'s>(
    section: &'static str,
    name: &str,
    entry: Entry<'s>,
    findings: &mut Findings<'s>,
) -> Option<Entry<'s>> {
    if let Some(message) = names::unsupported(section, name) {
        findings.error(&entry.at(), message);
        return None;
    }
    match names::try_value(section, name, &entry.value) {
        Ok(()) => Some(entry),
        Err(fault) => {
            findings.error(&entry.part(fault.span), fault.message);
            None
        }
    }
}

fn read_route<'s>(
    span: Range<usize>,
    mut table: DeTable<'s>,
    findings: &mut Findings<'s>,
) -> RawRoute<'s> {
    let at = At::Value(span.clone());
    let mut route = RawRoute {
        line: findings.line_of(span.start),
        at,
        pattern: None,
        rules: Table::new(),
    };
    match table.remove("match") {
        None => findings.error(
            &route.at,
            "this route has no `match`: write match = \"METHOD /path\"",
        ),
        Some(value) => {
            let at = At::Value(value.span());
            route.line = findings.line_of(value.span().start);
            match value.into_inner() {
                DeValue::String(text) => route.pattern = Some((text.into_owned(), at)),
                _ => findings.error(&at, "`match` is a text: \"METHOD /path\""),
            }
        }
    }
    route.rules = read_table("defaults", "[[route]]", table, findings);
    route
}

/// Keeps what has a known name and a fitting value, and notes the rest.
fn read_table<'s>(
    section: &'static str,
    shown: &str,
    table: DeTable<'s>,
    findings: &mut Findings<'s>,
) -> Table<'s> {
    let known = names::settings_of(section);
    let mut read = Table::new();
    for (key, value) in table {
        let name = key.get_ref().as_ref();
        let at = At::Name(key.span());
        if let Some(message) = names::unsupported(section, name) {
            findings.error(&at, message);
        } else if !known.contains_key(name) {
            findings.error(&at, names::unknown(section, shown, name));
        } else {
            let origin = Origin::File {
                path: findings
                    .source()
                    .map(|s| s.path.clone())
                    .unwrap_or_default(),
                line: findings.line_of(key.span().start),
            };
            let entry = check_entry(section, name, Entry { value, origin }, findings);
            read.extend(entry.map(|entry| (name.to_owned(), entry)));
        }
    }
    read
}

fn unknown_section(name: &str) -> String {
    if let Some(home) = names::section_with(name) {
        return format!("unknown name `{name}` at the top; it belongs in [{home}]");
    }
    let known = SECTIONS.iter().copied().chain(["route"]);
    format!("unknown name `{name}`{}", suggestion(name, known))
}
