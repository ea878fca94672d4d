//! The configuration: read from four places, checked as a whole, explained where it is wrong.
//!
//! [`load()`] lays defaults, file, environment and flags over each other by name ([`raw`]), reads
//! every setting into its type ([`mod@file`], [`value`]), checks what goes together ([`check`]) and
//! gives out plain typed [`Settings`]. The names, types, defaults and explanations stand in
//! [`mod@file`] alone; the schema, the documentation and the suggestions for misspelt names are made
//! from there.

mod check;
mod diagnose;
mod document;
mod file;
mod load;
#[cfg(test)]
mod markdown;
mod names;
mod pattern;
mod raw;
mod resolve;
mod route;
#[cfg(test)]
mod route_tests;
mod settings;
mod show;
mod store_url;
#[cfg(test)]
mod tests;
mod upstream;
mod value;

pub(crate) use diagnose::{ConfigError, Diagnostic};
pub(crate) use document::{init, schema};
pub(crate) use file::{LogFormat, StoreKind};
pub(crate) use load::{DEFAULT_FILE, Flags, Loaded, Sources, load};
pub(crate) use route::{Route, RouteTable};
pub(crate) use settings::{
    AdminSettings, CorsSettings, Settings, StoreSettings, TelemetrySettings,
};
pub(crate) use show::Origins;
pub(crate) use store_url::StoreUrl;
pub(crate) use upstream::{Scheme, Upstream};
pub(crate) use value::AllowedOrigin;
