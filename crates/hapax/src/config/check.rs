//! Limits, and settings that do not go together.
//!
//! A value is checked where it is written: what a route inherits was checked in `[defaults]`.

use std::fmt::Display;

use hapax_core::policy::{KeySource, is_never_keyed};

use super::diagnose::{At, Findings};
use super::file::{
    Admin, Cors, Fingerprint, Key, Limits, Mode, OnUnknown, Rules, Server, Store, StoreKind,
};
use super::pattern::{Pattern, Segment};
use super::raw::{RawRoute, Table};
use super::value::{AllowedOrigin, Period, ScopeText, Size};

const MILLISECOND: Period = Period(std::time::Duration::from_millis(1));
const SECOND: Period = Period::seconds(1);
const MINUTE: Period = Period::seconds(60);
const HOUR: Period = Period::seconds(3_600);
const DAY: Period = Period::seconds(86_400);
/// Ten years: longer is a slip of the unit, and instants far beyond would overflow in stores.
const LONGEST_RETENTION: Period = Period::seconds(3_650 * 86_400);
/// What one request may hold in memory.
const LARGEST_CONTENT: Size = Size::mebibytes(64);
/// More sockets or tasks than one process serves well.
const LARGEST_COUNT: u32 = 1_000_000;
/// More replicas than anybody has.
const MOST_REPLICAS: u32 = 16;

/// Notes a value that was written and is out of its limits.
fn within<T: PartialOrd + Display>(
    table: &Table<'_>,
    name: &str,
    value: &T,
    limits: (&T, &T),
    findings: &mut Findings<'_>,
) {
    let (least, most) = limits;
    let Some(entry) = table.get(name).filter(|_| value < least || value > most) else {
        return;
    };
    let message = format!("`{name}` must be {least} to {most}, not {value}");
    findings.error(&entry.at(), message);
}

/// The position of a setting, when it is in `table`.
fn at(table: &Table<'_>, name: &str) -> At {
    table.get(name).map_or(At::Nowhere, super::raw::Entry::at)
}

/// The position of a setting whose value may be a secret: its name, in a file.
fn secret_at(table: &Table<'_>, name: &str) -> At {
    match at(table, name) {
        At::Value(span) => At::Name(span),
        elsewhere => elsewhere,
    }
}

/// Checks `[server]`.
pub(crate) fn server(table: &Table<'_>, server: &Server, findings: &mut Findings<'_>) {
    let zero = Period::seconds(0);
    for (name, value, least, most) in [
        (
            "upstream_timeout",
            server.upstream_timeout,
            MILLISECOND,
            HOUR,
        ),
        (
            "connect_timeout",
            server.connect_timeout,
            MILLISECOND,
            Period::seconds(300),
        ),
        ("drain_timeout", server.drain_timeout, zero, HOUR),
        (
            "head_timeout",
            server.head_timeout,
            MILLISECOND,
            Period::seconds(300),
        ),
        ("body_timeout", server.body_timeout, MILLISECOND, HOUR),
        ("idle_timeout", server.idle_timeout, MILLISECOND, HOUR),
        ("answer_timeout", server.answer_timeout, MILLISECOND, HOUR),
    ] {
        within(table, name, &value, (&least, &most), findings);
    }
    let connections = server.max_connections;
    within(
        table,
        "max_connections",
        &connections,
        (&1, &LARGEST_COUNT),
        findings,
    );
    let head = (&Size(4 * 1024), &Size::mebibytes(1));
    within(table, "max_head", &server.max_head, head, findings);
    let over_tls = |scheme| scheme == super::upstream::Scheme::Https;
    let is_http = server
        .upstream
        .as_ref()
        .is_some_and(|upstream| !over_tls(upstream.scheme));
    if is_http && server.upstream_ca_file.is_some() {
        let message = "`upstream_ca_file` has no effect: the upstream is not https";
        findings.warning(&at(table, "upstream_ca_file"), message);
    }
}

/// Checks `[limits]`.
pub(crate) fn limits(table: &Table<'_>, limits: &Limits, findings: &mut Findings<'_>) {
    for (name, value, least) in [
        ("max_waiters", limits.max_waiters, 0),
        ("max_waiters_per_key", limits.max_waiters_per_key, 0),
        ("max_waiters_per_scope", limits.max_waiters_per_scope, 0),
        ("max_outstanding", limits.max_outstanding, 1),
        (
            "max_outstanding_per_scope",
            limits.max_outstanding_per_scope,
            0,
        ),
    ] {
        within(table, name, &value, (&least, &LARGEST_COUNT), findings);
    }
}

/// Checks `[cors]`.
pub(crate) fn cors(table: &Table<'_>, cors: &Cors, findings: &mut Findings<'_>) {
    let origins = &cors.allow_origins;
    let is_any = origins.contains(&AllowedOrigin::Any);
    if is_any && origins.len() > 1 {
        let message = "`*` must stand alone in `allow_origins`";
        findings.error(&at(table, "allow_origins"), message);
    }
    if is_any && cors.allow_credentials {
        let message = "`allow_credentials` needs origins by name: every page could read what it \
                       makes its visitors' browsers ask";
        findings.error(&at(table, "allow_credentials"), message);
    }
    if origins.is_empty() && cors.allow_credentials {
        let message = "`allow_credentials` has no effect: `allow_origins` is empty";
        findings.warning(&at(table, "allow_credentials"), message);
    }
}

/// Checks `[admin]`.
pub(crate) fn admin(
    table: &Table<'_>,
    admin: &Admin,
    server: &Server,
    findings: &mut Findings<'_>,
) {
    let listen = admin.listen.0;
    if !listen.ip().is_loopback() && admin.token_file.is_none() {
        let message = format!(
            "the admin listener is on {}: off loopback (127.0.0.1 or [::1]) `token_file` is \
             mandatory",
            listen.ip()
        );
        findings.error(&at(table, "listen"), message);
    }
    for host in &admin.hosts {
        let is_name = !host.is_empty()
            && host
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(&byte));
        if !is_name {
            let message = format!("{host:?} in `hosts` is not the name of a host without a port");
            findings.error(&at(table, "hosts"), message);
        }
    }
    let gateway = server.listen.0;
    let same_ip = gateway.ip() == listen.ip() || gateway.ip().is_unspecified();
    if listen.port() != 0 && gateway.port() == listen.port() && same_ip {
        let message = format!("the admin listener cannot share {gateway} with the gateway");
        findings.error(&at(table, "listen"), message);
    }
}

/// Checks `[store]`.
pub(crate) fn store(table: &Table<'_>, store: &Store, findings: &mut Findings<'_>) {
    let timeout = store.operation_timeout;
    within(
        table,
        "operation_timeout",
        &timeout,
        (&MILLISECOND, &MINUTE),
        findings,
    );
    let replicas = (&0, &MOST_REPLICAS);
    within(table, "redis_wait", &store.redis_wait, replicas, findings);
    if store.kind != StoreKind::Redis && table.contains_key("redis_wait") {
        let message = "`redis_wait` has no effect: the store is not `redis`";
        findings.warning(&at(table, "redis_wait"), message);
    }
    if store.path.as_os_str().is_empty() {
        findings.error(&at(table, "path"), "`path` is empty: name a directory");
    }
    place(table, store, findings);
    if store.kind == StoreKind::Memory {
        let message = "the memory store forgets every key at a restart: a retry after one \
                       executes again";
        findings.warning(&at(table, "kind"), message);
        if table.contains_key("path") {
            let message = "`path` has no effect: the store is `memory`";
            findings.warning(&at(table, "path"), message);
        }
    }
}

/// A shared store has one URL of its kind, any other has none.
fn place(table: &Table<'_>, store: &Store, findings: &mut Findings<'_>) {
    let kind = match store.kind {
        StoreKind::Postgres => "postgres",
        StoreKind::Redis => "redis",
        StoreKind::Embedded | StoreKind::Memory => {
            for name in ["url", "url_file"] {
                if table.contains_key(name) {
                    let message = format!("`{name}` belongs to the kinds `postgres` and `redis`");
                    findings.error(&secret_at(table, name), message);
                }
            }
            return;
        }
    };
    match (&store.url, &store.url_file) {
        (None, None) => {
            let message = format!("the store `{kind}` needs a `url_file` (or a `url`)");
            findings.error(&at(table, "kind"), message);
        }
        (Some(_), Some(_)) => {
            let message = "`url` and `url_file` are both set: remove one";
            findings.error(&secret_at(table, "url"), message);
        }
        (Some(url), None) if url.kind() != Some(store.kind) => {
            let message = format!("the `url` does not lead to a store of the kind `{kind}`");
            findings.error(&secret_at(table, "url"), message);
        }
        (Some(_), None) | (None, Some(_)) => {}
    }
    for name in ["path", "min_free_disk"] {
        if table.contains_key(name) {
            let message = format!("`{name}` has no effect: the store is `{kind}`");
            findings.warning(&at(table, name), message);
        }
    }
}

/// Checks rules as far as `table` has them itself. `rules` is the whole they belong to.
pub(crate) fn rules(table: &Table<'_>, rules: &Rules, findings: &mut Findings<'_>) {
    let zero = Period::seconds(0);
    for (name, value, least, most) in [
        ("wait", rules.wait, zero, MINUTE),
        ("retention", rules.retention, SECOND, LONGEST_RETENTION),
        ("tombstone", rules.tombstone, zero, LONGEST_RETENTION),
        ("lease", rules.lease, SECOND, HOUR),
    ] {
        within(table, name, &value, (&least, &most), findings);
    }
    let content = (&Size(1), &LARGEST_CONTENT);
    within(table, "max_body", &rules.max_body, content, findings);
    let content = (&Size(0), &LARGEST_CONTENT);
    within(
        table,
        "max_stored_response",
        &rules.max_stored_response,
        content,
        findings,
    );
    lists(table, rules, findings);
    dangers(table, rules, findings);
}

fn lists(table: &Table<'_>, rules: &Rules, findings: &mut Findings<'_>) {
    if table.contains_key("methods") {
        let at = at(table, "methods");
        if rules.methods.is_empty() {
            findings.error(
                &at,
                "`methods` is empty: to key nothing, write mode = \"off\"",
            );
        }
        if let Some(method) = rules
            .methods
            .iter()
            .find(|method| is_never_keyed(&method.0))
        {
            findings.error(&at, format!("{method} is never keyed: it passes through"));
        }
    }
    if rules.key_from.is_empty() && table.contains_key("key_from") {
        let message = "`key_from` is empty: to key nothing, write mode = \"off\"";
        findings.error(&at(table, "key_from"), message);
    }
    if table.contains_key("scope") {
        let at = at(table, "scope");
        if rules.scope.is_empty() {
            let message = "`scope` is empty: to let all callers share their keys, write \
                           scope = [\"none\"]";
            findings.error(&at, message);
        }
        match rules.scope.contains(&ScopeText::None) {
            true if rules.scope.len() > 1 => {
                findings.error(&at, "`none` must stand alone in `scope`");
            }
            true => findings.warning(
                &at,
                "all callers share their keys: one who guesses another's key gets its answer",
            ),
            false => {}
        }
    }
}

fn dangers(table: &Table<'_>, rules: &Rules, findings: &mut Findings<'_>) {
    let own = |name: &str| table.contains_key(name);
    if own("fail_open") && rules.fail_open {
        let message = "while the store is unreachable, requests are executed unprotected: a \
                       retry may execute twice";
        findings.warning(&at(table, "fail_open"), message);
    }
    if own("on_unknown") && rules.on_unknown == OnUnknown::Resend {
        let message = "an unknown outcome is sent again: the upstream must itself be idempotent \
                       by the key it gets";
        findings.warning(&at(table, "on_unknown"), message);
    }
    let is_off = own("mode") && rules.mode == Mode::Off;
    if is_off && own("key") && rules.key == Key::Required {
        let message = "`key = \"required\"` has no effect here: the mode is `off`";
        findings.warning(&at(table, "key"), message);
    }
    if own("ignore") && !rules.ignore.is_empty() && rules.fingerprint != Fingerprint::Json {
        let message = "`ignore` has no effect here: it needs fingerprint = \"json\"";
        findings.warning(&at(table, "ignore"), message);
    }
    let credential = rules
        .fingerprint_headers
        .iter()
        .find(|name| name.0 == http::header::AUTHORIZATION || name.0 == http::header::COOKIE);
    if let Some(name) = credential.filter(|_| own("fingerprint_headers")) {
        let message = format!("a retry with renewed credentials in `{name}` will be refused");
        findings.warning(&at(table, "fingerprint_headers"), message);
    }
}

/// Checks what a probe names and when it counts. Without a `pattern`, there are no parameters.
pub(crate) fn probe(
    table: &Table<'_>,
    rules: &Rules,
    server: &Server,
    pattern: Option<&Pattern>,
    findings: &mut Findings<'_>,
) {
    if let Some(after) = rules.probe_after {
        let limits = (&Period::seconds(0), &DAY);
        within(table, "probe_after", &after, limits, findings);
    }
    let OnUnknown::Probe(probe) = &rules.on_unknown else {
        if table.contains_key("probe_after") && rules.probe_after.is_some() {
            let message = "`probe_after` has no effect here: it needs on_unknown = { probe = … }";
            findings.warning(&at(table, "probe_after"), message);
        }
        return;
    };
    let is_own = table.contains_key("on_unknown") || table.contains_key("probe_after");
    let too_soon = rules
        .probe_after
        .filter(|after| *after < server.upstream_timeout && is_own);
    if let Some(after) = too_soon {
        let message = format!(
            "a 404 frees the key {after} after the outcome became unknown, and the upstream may take {}: a request that is \
             still on its way may then act beside its retry",
            server.upstream_timeout
        );
        let name = if table.contains_key("probe_after") {
            "probe_after"
        } else {
            "on_unknown"
        };
        findings.warning(&at(table, name), message);
    }
    if !table.contains_key("on_unknown") {
        return;
    }
    let segments = pattern.iter().flat_map(|pattern| &pattern.segments);
    let known: Vec<&str> = segments.filter_map(Segment::parameter).collect();
    let is_unknown = |name: &&str| *name != hapax_core::probe::KEY && !known.contains(name);
    if let Some(name) = probe.0.names().find(is_unknown) {
        let known = known.into_iter().chain([hapax_core::probe::KEY]);
        let near = super::diagnose::suggestion(name, known);
        let message = match pattern {
            Some(_) => {
                format!("the probe names `{{{name}}}`, and `match` has no such parameter{near}")
            }
            None => format!("the probe names `{{{name}}}`: here it can only name `{{key}}`{near}"),
        };
        findings.error(&at(table, "on_unknown"), message);
    }
}

/// Checks a route's `match` against its rules.
pub(crate) fn route(
    raw: &RawRoute<'_>,
    pattern: &Pattern,
    rules: &Rules,
    findings: &mut Findings<'_>,
) {
    let safe = pattern
        .method
        .as_ref()
        .filter(|method| is_never_keyed(method));
    for name in ["key", "key_from", "key_syntax", "methods"] {
        if let (Some(method), Some(entry)) = (safe, raw.rules.get(name)) {
            let message = format!("`{name}` has no meaning here: {method} is never keyed");
            findings.error(&entry.at(), message);
        }
    }
    if !raw.rules.contains_key("key_from") {
        return;
    }
    for source in &rules.key_from {
        let KeySource::Path(name) = &source.0 else {
            continue;
        };
        let known: Vec<&str> = pattern
            .segments
            .iter()
            .filter_map(Segment::parameter)
            .collect();
        if !known.contains(&name.as_str()) {
            let near = super::diagnose::suggestion(name, known);
            let message = format!("`match` has no parameter `{{{name}}}`{near}");
            findings.error(&at(&raw.rules, "key_from"), message);
        }
    }
}
