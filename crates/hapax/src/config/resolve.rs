//! From what was written to what it means: defaults filled in, rules laid over each other.

use hapax_core::policy::{KeySource, Policy};

use super::check;
use super::diagnose::{At, Findings};
use super::file::{Admin, Cors, Limits, Rules, Server, Store, Telemetry};
use super::names::{self, Section};
use super::pattern::Pattern;
use super::raw::{Origin, Raw, RawRoute, Table};
use super::route::{DEFAULT_ROUTE, Route, RouteTable};
use super::settings::{Settings, bytes};
use super::show::{ShownSection, shown};
use super::value::ScopeText;

/// Works out the settings. They mean something only when `findings` has no errors.
pub(crate) fn resolve(raw: &mut Raw<'_>, findings: &mut Findings<'_>) -> Settings {
    let mut sections = Vec::new();
    let server: Server = section(raw, &mut sections, findings);
    let limits: Limits = section(raw, &mut sections, findings);
    let cors: Cors = section(raw, &mut sections, findings);
    let admin: Admin = section(raw, &mut sections, findings);
    let store: Store = section(raw, &mut sections, findings);
    let rules: Rules = section(raw, &mut sections, findings);
    let telemetry: Telemetry = section(raw, &mut sections, findings);
    check::server(raw.section("server"), &server, findings);
    check::limits(raw.section("limits"), &limits, findings);
    check::cors(raw.section("cors"), &cors, findings);
    check::admin(raw.section("admin"), &admin, &server, findings);
    check::store(raw.section("store"), &store, findings);
    check::rules(raw.section("defaults"), &rules, findings);
    check::probe(raw.section("defaults"), &rules, &server, None, findings);
    let routes = routes(raw, &server, &rules, findings);
    Settings {
        server: server.into(),
        limits: limits.into(),
        cors: cors.into(),
        admin: admin.into(),
        store: store.into(),
        routes,
        telemetry: telemetry.into(),
        sections,
    }
}

fn section<S: Section>(
    raw: &mut Raw<'_>,
    sections: &mut Vec<ShownSection>,
    findings: &mut Findings<'_>,
) -> S {
    let table = raw.section(S::NAME);
    let read = read_all(table, findings);
    sections.push(ShownSection {
        name: S::NAME,
        settings: shown(&read, S::NAME, |name| {
            table.get(name).map(|entry| entry.origin.clone())
        }),
    });
    read
}

/// Reads settings each of which is known to be readable.
fn read_all<S: Section>(table: &Table<'_>, findings: &mut Findings<'_>) -> S {
    let values = table
        .iter()
        .map(|(name, entry)| (name.as_str(), &entry.value));
    names::read(values).unwrap_or_else(|error| {
        findings.error(&At::Nowhere, error.message());
        S::default()
    })
}

fn routes(
    raw: &mut Raw<'_>,
    server: &Server,
    rules: &Rules,
    findings: &mut Findings<'_>,
) -> RouteTable {
    let defaults = raw.section("defaults").clone();
    let settings = shown(rules, "defaults", |name| {
        defaults.get(name).map(|entry| entry.origin.clone())
    });
    default_paths(&defaults, rules, findings);
    let policy = policy(rules, server);
    let default = Route::new(
        DEFAULT_ROUTE.to_owned(),
        policy,
        Origin::Default,
        settings,
        None,
    );
    let mut table = RouteTable::new(default);
    for route in &raw.routes {
        add_route(route, &defaults, server, &mut table, findings);
    }
    table
}

/// The default route has no parameters.
fn default_paths(defaults: &Table<'_>, rules: &Rules, findings: &mut Findings<'_>) {
    let path = rules
        .key_from
        .iter()
        .find(|source| matches!(source.0, KeySource::Path(_)));
    if let (Some(path), Some(entry)) = (path, defaults.get("key_from")) {
        let message = format!("`{path}` needs a route whose `match` has that parameter");
        findings.error(&entry.at(), message);
    }
}

fn add_route(
    raw: &RawRoute<'_>,
    defaults: &Table<'_>,
    server: &Server,
    table: &mut RouteTable,
    findings: &mut Findings<'_>,
) {
    let mut merged = defaults.clone();
    merged.extend(raw.rules.clone());
    let mut rules: Rules = read_all(&merged, findings);
    check::rules(&raw.rules, &rules, findings);
    let Some((text, at)) = &raw.pattern else {
        return;
    };
    let pattern = match Pattern::parse(text) {
        Ok(pattern) => pattern,
        Err(message) => return findings.error(at, message),
    };
    check::route(raw, &pattern, &rules, findings);
    check::probe(&raw.rules, &rules, server, Some(&pattern), findings);
    if let Some(method) = &pattern.method {
        let listed = rules.methods.iter().any(|other| other.0 == *method);
        if !listed && !hapax_core::policy::is_never_keyed(method) {
            rules.methods.push(super::value::MethodName(method.clone()));
        }
    }
    let settings = shown(&rules, "defaults", |name| {
        merged.get(name).map(|entry| entry.origin.clone())
    });
    let name = text.split_ascii_whitespace().collect::<Vec<_>>().join(" ");
    let origin = Origin::File {
        path: findings
            .source()
            .map(|source| source.path.clone())
            .unwrap_or_default(),
        line: raw.line,
    };
    let own = raw.rules.keys().cloned().collect();
    let route = Route::new(
        name,
        policy(&rules, server),
        origin,
        settings,
        Some(pattern),
    )
    .with_own(own);
    if let Err(other) = table.insert(route) {
        let message = format!(
            "this route matches like \"{}\" at {}: no request could tell them apart",
            other.name, other.origin
        );
        findings.error(at, message);
    }
}

fn policy(rules: &Rules, server: &Server) -> Policy {
    let scope = rules.scope.iter().filter_map(|part| match part {
        ScopeText::None => None,
        ScopeText::Part(part) => Some(part.clone()),
    });
    Policy {
        mode: rules.mode.into(),
        methods: rules
            .methods
            .iter()
            .map(|method| method.0.clone())
            .collect(),
        key: rules.key.into(),
        key_from: rules
            .key_from
            .iter()
            .map(|source| source.0.clone())
            .collect(),
        key_syntax: rules.key_syntax.into(),
        scope: scope.collect(),
        anonymous: rules.anonymous.into(),
        wait: rules.wait.0,
        retention: rules.retention.0,
        tombstone: rules.tombstone.0,
        lease: rules.lease.0,
        on_unknown: rules.on_unknown.clone().into(),
        probe_after: (rules.probe_after.unwrap_or(server.upstream_timeout)).0,
        upstream_key: rules.upstream_key.into(),
        fingerprint: rules.fingerprint.into(),
        ignore: rules
            .ignore
            .iter()
            .map(|pointer| pointer.0.clone())
            .collect(),
        fingerprint_headers: rules
            .fingerprint_headers
            .iter()
            .map(|name| name.0.clone())
            .collect(),
        max_body: bytes(rules.max_body.0),
        max_stored_response: bytes(rules.max_stored_response.0),
        on_store_failure: match rules.fail_open {
            true => hapax_core::policy::OnStoreFailure::FailOpen,
            false => hapax_core::policy::OnStoreFailure::FailClosed,
        },
        upstream_timeout: server.upstream_timeout.0,
    }
}
