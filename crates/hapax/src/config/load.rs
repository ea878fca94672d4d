//! Where settings come from: defaults < file < environment < flags.

use std::borrow::Cow;
use std::ffi::OsString;
use std::io::Read;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::DeValue;

use super::diagnose::{At, ConfigError, Diagnostic, Findings, SourceText, suggestion};
use super::names::{self, SECTIONS};
use super::raw::{Entry, Origin, Raw, check_entry};
use super::resolve::resolve;
use super::settings::Settings;
use super::upstream::Upstream;

/// The file that is read when it exists and no other is named.
pub(crate) const DEFAULT_FILE: &str = "hapax.toml";
/// Far above any configuration; stops a wrong path (a log, a device) from filling memory.
const LARGEST_FILE_BYTES: u64 = 1024 * 1024;
const PREFIX: &str = "HAPAX_";

/// What `serve` can set on the command line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Flags {
    /// `--upstream URL`.
    pub(crate) upstream: Option<String>,
    /// `--listen ADDR`.
    pub(crate) listen: Option<String>,
    /// `--admin ADDR`.
    pub(crate) admin: Option<String>,
    /// `--store DIR|URL`.
    pub(crate) store: Option<String>,
}

/// Everything that a configuration is made of, so that it can be read again.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sources {
    /// `-c FILE`.
    pub(crate) file: Option<PathBuf>,
    /// The environment; only names that begin with `HAPAX_` matter.
    pub(crate) environment: Vec<(OsString, OsString)>,
    /// The command line.
    pub(crate) flags: Flags,
}

/// A configuration without errors.
#[derive(Debug)]
pub(crate) struct Loaded {
    /// What it says.
    pub(crate) settings: Settings,
    /// What is legal and dangerous, or without effect.
    pub(crate) warnings: Vec<Diagnostic>,
    /// The file that was read.
    pub(crate) file: Option<PathBuf>,
    sources: Sources,
}

impl Loaded {
    /// What it says, and where to read it again.
    pub(crate) fn into_parts(self) -> (Settings, Sources) {
        (self.settings, self.sources)
    }

    /// Where to forward to: what `serve` cannot do without.
    pub(crate) fn upstream(&self) -> Result<&Upstream, ConfigError> {
        let upstream = self.settings.server.upstream.as_ref();
        upstream.ok_or(ConfigError::UpstreamMissing)
    }
}

/// Reads a configuration.
pub(crate) fn load(sources: Sources) -> Result<Loaded, ConfigError> {
    let file = match &sources.file {
        Some(path) => Some(path.clone()),
        None => Some(PathBuf::from(DEFAULT_FILE)).filter(|path| path.exists()),
    };
    let source = file.as_deref().map(read_file).transpose()?;
    let (settings, warnings) = interpret(source.as_ref(), &sources.environment, &sources.flags)?;
    Ok(Loaded {
        settings,
        warnings,
        file,
        sources,
    })
}

/// Settings and warnings of a text, an environment and flags.
pub(super) fn interpret(
    source: Option<&SourceText>,
    environment: &[(OsString, OsString)],
    flags: &Flags,
) -> Result<(Settings, Vec<Diagnostic>), ConfigError> {
    let mut findings = Findings::new(source);
    let environment = readable(environment, &mut findings);
    let mut raw = Raw::parse(&mut findings);
    overlay_environment(&mut raw, &environment, &mut findings);
    overlay_flags(&mut raw, flags, &mut findings);
    let settings = resolve(&mut raw, &mut findings);
    Ok((settings, findings.finish()?))
}

fn read_file(path: &Path) -> Result<SourceText, ConfigError> {
    let failed = |source| ConfigError::Read {
        path: path.to_owned(),
        source,
    };
    let file = std::fs::File::open(path).map_err(failed)?;
    let mut text = String::new();
    let read = file.take(LARGEST_FILE_BYTES + 1).read_to_string(&mut text);
    read.map_err(failed)?;
    if text.len() as u64 > LARGEST_FILE_BYTES {
        return Err(ConfigError::TooLarge {
            path: path.to_owned(),
            limit: LARGEST_FILE_BYTES,
        });
    }
    Ok(SourceText {
        path: path.display().to_string(),
        text,
    })
}

/// The variables that are meant for hapax. `HAPAX_LOG` is not a setting.
fn readable(
    environment: &[(OsString, OsString)],
    findings: &mut Findings<'_>,
) -> Vec<(String, String)> {
    let mut read = Vec::new();
    for (name, value) in environment {
        let name = name.to_string_lossy().into_owned();
        if !name.starts_with(PREFIX) || name == "HAPAX_LOG" {
            continue;
        }
        match value.to_str() {
            Some(value) => read.push((name, value.to_owned())),
            None => findings.error(&At::Environment(name), "the value is not UTF-8"),
        }
    }
    read.sort();
    read
}

fn overlay_environment<'s>(
    raw: &mut Raw<'s>,
    environment: &'s [(String, String)],
    findings: &mut Findings<'s>,
) {
    for (variable, text) in environment {
        let at = At::Environment(variable.clone());
        match setting_of(variable) {
            Err(message) => findings.error(&at, message),
            Ok((section, name)) => {
                let origin = Origin::Environment(variable.clone());
                let value = typed(section, &name, text);
                let entry = check_entry(section, &name, Entry { value, origin }, findings);
                raw.section(section)
                    .extend(entry.map(|entry| (name, entry)));
            }
        }
    }
}

/// The section and the name that `HAPAX_SECTION__NAME` means.
fn setting_of(variable: &str) -> Result<(&'static str, String), String> {
    let rest = variable.strip_prefix(PREFIX).unwrap_or(variable);
    let Some((section, name)) = rest.split_once("__") else {
        // A service called `hapax` in the same namespace makes these, in every pod.
        let is_link = rest == "PORT" || rest.starts_with("PORT_") || rest.starts_with("SERVICE_");
        return Err(match is_link {
            true => format!(
                "unknown setting {variable}; Kubernetes sets it for a service named `hapax`: set \
                 enableServiceLinks: false in the pod"
            ),
            false => format!("unknown setting {variable}: settings are {PREFIX}SECTION__NAME"),
        });
    };
    let (section, name) = (section.to_lowercase(), name.to_lowercase());
    if section == "route" {
        return Err(format!("{variable}: routes are set in the file only"));
    }
    let Some(section) = SECTIONS.iter().find(|known| **known == section) else {
        let near = suggestion(&section, SECTIONS.iter().copied());
        return Err(format!("unknown section `{section}` in {variable}{near}"));
    };
    let is_settled = names::unsupported(section, &name).is_some();
    match is_settled || names::settings_of(section).contains_key(&name) {
        true => Ok((section, name)),
        false => Err(names::unknown(section, variable, &name)),
    }
}

/// A variable's value: TOML where that is what the setting takes, else the text as it is.
fn typed<'s>(section: &str, name: &str, text: &'s str) -> Spanned<DeValue<'s>> {
    let plain = Spanned::new(0..text.len(), DeValue::String(Cow::Borrowed(text)));
    let Ok(value) = DeValue::parse(text) else {
        return plain;
    };
    let fits = |value: &Spanned<DeValue<'s>>| names::try_value(section, name, value).is_ok();
    // `store.path = 2024` is a text, and `wait = true` an error about a truth value.
    match !fits(&value) && fits(&plain) {
        true => plain,
        false => value,
    }
}

fn overlay_flags<'s>(raw: &mut Raw<'s>, flags: &Flags, findings: &mut Findings<'s>) {
    let mut set = |section, name: &str, flag, text: &str| {
        let value = DeValue::String(Cow::Owned(text.to_owned()));
        let entry = Entry {
            value: Spanned::new(0..text.len(), value),
            origin: Origin::Flag(flag),
        };
        let entry = check_entry(section, name, entry, findings);
        raw.section(section)
            .extend(entry.map(|entry| (name.to_owned(), entry)));
    };
    if let Some(text) = &flags.upstream {
        set("server", "upstream", "--upstream", text);
    }
    if let Some(text) = &flags.listen {
        set("server", "listen", "--listen", text);
    }
    if let Some(text) = &flags.admin {
        set("admin", "listen", "--admin", text);
    }
    match flags
        .store
        .as_deref()
        .map(|text| (text, text.split_once(':')))
    {
        None => {}
        Some((_, Some(("memory", "" | "//")))) => set("store", "kind", "--store", "memory"),
        Some((url, Some(("postgres" | "postgresql", _)))) => {
            set("store", "kind", "--store", "postgres");
            set("store", "url", "--store", url);
            raw.section("store").remove("url_file");
        }
        Some((url, Some(("redis" | "rediss" | "valkey" | "valkeys", _)))) => {
            set("store", "kind", "--store", "redis");
            set("store", "url", "--store", url);
            raw.section("store").remove("url_file");
        }
        Some((directory, _)) => {
            set("store", "kind", "--store", "embedded");
            set("store", "path", "--store", directory);
        }
    }
}
