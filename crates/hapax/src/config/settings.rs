//! The configuration as the program uses it: plain typed values, everything decided.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use super::file::{self, LogFormat, StoreKind};
use super::route::RouteTable;
use super::show::ShownSection;
use super::store_url::StoreUrl;
use super::upstream::Upstream;
use super::value::AllowedOrigin;

/// Everything that is configured.
#[derive(Debug)]
pub(crate) struct Settings {
    /// The listener for callers and the upstream.
    pub(crate) server: ServerSettings,
    /// Caps on what waits and runs.
    pub(crate) limits: LimitSettings,
    /// Which pages may read problems.
    pub(crate) cors: CorsSettings,
    /// The listener for operators.
    pub(crate) admin: AdminSettings,
    /// Where records are kept.
    pub(crate) store: StoreSettings,
    /// The routes with their rules.
    pub(crate) routes: RouteTable,
    /// Logs.
    pub(crate) telemetry: TelemetrySettings,
    /// Every setting but the routes' as text, with its origin.
    pub(crate) sections: Vec<ShownSection>,
}

/// `[server]`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ServerSettings {
    pub(crate) listen: SocketAddr,
    /// `None` only where nothing is served: see `Loaded::upstream`.
    pub(crate) upstream: Option<Upstream>,
    /// The system's authorities when `None`.
    pub(crate) upstream_ca_file: Option<PathBuf>,
    pub(crate) upstream_timeout: Duration,
    pub(crate) connect_timeout: Duration,
    pub(crate) drain_timeout: Duration,
    pub(crate) trusted_proxies: Vec<IpNet>,
    pub(crate) tls: Option<TlsFiles>,
    pub(crate) head_timeout: Duration,
    pub(crate) body_timeout: Duration,
    pub(crate) idle_timeout: Duration,
    pub(crate) answer_timeout: Duration,
    pub(crate) max_connections: usize,
    /// In bytes.
    pub(crate) max_head: usize,
}

/// A certificate chain and its key, both PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TlsFiles {
    pub(crate) cert_file: PathBuf,
    pub(crate) key_file: PathBuf,
}

/// `[limits]`. `None` is no cap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LimitSettings {
    /// 0 switches waiting off.
    pub(crate) max_waiters: usize,
    pub(crate) max_waiters_per_key: Option<usize>,
    pub(crate) max_waiters_per_scope: Option<usize>,
    pub(crate) max_outstanding: usize,
    pub(crate) max_outstanding_per_scope: Option<usize>,
    pub(crate) max_records_per_scope: Option<u64>,
    pub(crate) max_bytes_per_scope: Option<u64>,
}

/// `[cors]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CorsSettings {
    /// With `Any`, that alone.
    pub(crate) allow_origins: Vec<AllowedOrigin>,
    pub(crate) allow_credentials: bool,
}

/// `[admin]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AdminSettings {
    /// Loopback, or there is a token file.
    pub(crate) listen: SocketAddr,
    pub(crate) token_file: Option<PathBuf>,
    pub(crate) hosts: Vec<String>,
    /// The store's own place when `None`.
    pub(crate) audit_file: Option<PathBuf>,
}

/// `[store]`. `None` is no cap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoreSettings {
    pub(crate) kind: StoreKind,
    pub(crate) path: PathBuf,
    pub(crate) url: Option<StoreUrl>,
    pub(crate) url_file: Option<PathBuf>,
    pub(crate) max_bytes: Option<u64>,
    pub(crate) max_records: Option<u64>,
    /// In bytes.
    pub(crate) min_free_disk: Option<u64>,
    pub(crate) operation_timeout: Duration,
    pub(crate) redis_wait: u32,
}

/// `[telemetry]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TelemetrySettings {
    /// A filter in the notation of `tracing`, known to be valid.
    pub(crate) log: String,
    pub(crate) log_format: LogFormat,
    /// Where spans go; `None` for nowhere.
    pub(crate) otlp_endpoint: Option<Upstream>,
}

impl Settings {
    /// The settings that differ in `new` and are read at the start only. A reload that changes
    /// one is refused as a whole: half a configuration would be worse than an old one.
    pub(crate) fn restart_only_changes(&self, new: &Self) -> Vec<&'static str> {
        let mut changes = Vec::new();
        macro_rules! compare {
            ($($section:ident . $($field:ident),+;)*) => {
                $($(if self.$section.$field != new.$section.$field {
                    changes.push(concat!(stringify!($section), ".", stringify!($field)));
                })+)*
            };
        }
        compare! {
            server.listen, upstream, upstream_ca_file, connect_timeout, tls, head_timeout,
                body_timeout, idle_timeout, answer_timeout, max_connections, max_head;
            limits.max_waiters, max_waiters_per_key, max_waiters_per_scope, max_outstanding,
                max_outstanding_per_scope, max_records_per_scope, max_bytes_per_scope;
            admin.listen, token_file, audit_file;
            store.kind, path, url, url_file, max_bytes, max_records, min_free_disk, operation_timeout,
                redis_wait;
            telemetry.log_format, otlp_endpoint;
        }
        changes
    }
}

impl From<file::Server> for ServerSettings {
    fn from(server: file::Server) -> Self {
        Self {
            listen: server.listen.0,
            upstream: server.upstream,
            upstream_ca_file: server.upstream_ca_file,
            upstream_timeout: server.upstream_timeout.0,
            connect_timeout: server.connect_timeout.0,
            drain_timeout: server.drain_timeout.0,
            trusted_proxies: server
                .trusted_proxies
                .iter()
                .map(|network| network.0)
                .collect(),
            tls: server.tls.map(|tls| TlsFiles {
                cert_file: tls.cert_file,
                key_file: tls.key_file,
            }),
            head_timeout: server.head_timeout.0,
            body_timeout: server.body_timeout.0,
            idle_timeout: server.idle_timeout.0,
            answer_timeout: server.answer_timeout.0,
            max_connections: count(server.max_connections),
            max_head: bytes(server.max_head.0),
        }
    }
}

impl From<file::Limits> for LimitSettings {
    fn from(limits: file::Limits) -> Self {
        let cap = |limit: u32| Some(count(limit)).filter(|limit| *limit > 0);
        Self {
            max_waiters: count(limits.max_waiters),
            max_waiters_per_key: cap(limits.max_waiters_per_key),
            max_waiters_per_scope: cap(limits.max_waiters_per_scope),
            max_outstanding: count(limits.max_outstanding),
            max_outstanding_per_scope: cap(limits.max_outstanding_per_scope),
            max_records_per_scope: Some(limits.max_records_per_scope).filter(|limit| *limit > 0),
            max_bytes_per_scope: Some(limits.max_bytes_per_scope.0).filter(|limit| *limit > 0),
        }
    }
}

impl From<file::Cors> for CorsSettings {
    fn from(cors: file::Cors) -> Self {
        Self {
            allow_origins: cors.allow_origins,
            allow_credentials: cors.allow_credentials,
        }
    }
}

impl From<file::Admin> for AdminSettings {
    fn from(admin: file::Admin) -> Self {
        Self {
            listen: admin.listen.0,
            token_file: admin.token_file,
            hosts: admin.hosts,
            audit_file: admin.audit_file,
        }
    }
}

impl From<file::Store> for StoreSettings {
    fn from(store: file::Store) -> Self {
        let cap = |limit: u64| Some(limit).filter(|limit| *limit > 0);
        Self {
            kind: store.kind,
            path: store.path,
            url: store.url,
            url_file: store.url_file,
            max_bytes: cap(store.max_bytes.0),
            max_records: cap(store.max_records),
            min_free_disk: cap(store.min_free_disk.0),
            operation_timeout: store.operation_timeout.0,
            redis_wait: store.redis_wait,
        }
    }
}

impl From<file::Telemetry> for TelemetrySettings {
    fn from(telemetry: file::Telemetry) -> Self {
        Self {
            log: telemetry.log.0,
            log_format: telemetry.log_format,
            otlp_endpoint: telemetry.otlp_endpoint.map(|collector| collector.0),
        }
    }
}

/// A count as the program counts; saturates on machines whose words are too small for it.
fn count(value: u32) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

/// A size in memory; saturates likewise.
pub(super) fn bytes(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}
