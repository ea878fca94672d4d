//! The configuration file: every name, its type, its default and why.
//!
//! The doc comments of this file are user documentation: they become `docs/configuration.md`
//! and the descriptions of `hapax config schema`. They say what, the unit, the limits and the
//! reason for the default.

use std::path::PathBuf;

use hapax_core::{key, policy};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::store_url::StoreUrl;
use super::upstream::{Collector, Upstream};
use super::value::{
    Address, AllowedOrigin, FieldName, JsonPointer, LogFilter, MethodName, Network, Period, Probe,
    ScopeText, Size, Source,
};

/// The listener that callers reach, and the upstream behind it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Server {
    /// The address callers connect to. Port 0 picks a free one. The default is loopback, so that
    /// trying hapax out opens nothing to the network. Restart to change it.
    pub(crate) listen: Address,
    /// Where requests are forwarded to: `http://HOST[:PORT][/PREFIX]` or `https://…`. There is no
    /// default: `hapax serve` refuses to start without one (or `--upstream URL`). Credentials,
    /// queries and fragments are refused. Restart to change it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) upstream: Option<Upstream>,
    /// A PEM file of the certificate authorities that may vouch for an `https` upstream. Unset:
    /// the system's. Set it for an upstream with a private authority. Restart to change it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) upstream_ca_file: Option<PathBuf>,
    /// How long the upstream may take to answer in full before the caller is told 504
    /// `outcome-unknown`; the operation goes on and its answer is still stored. 1ms to 1h. The
    /// default is what most callers' own time-outs are.
    pub(crate) upstream_timeout: Period,
    /// How long connecting to the upstream may take, TLS included; then 504
    /// `upstream-unreachable`, and the key is free again because nothing was sent. 1ms to 5m. The
    /// default is far above any healthy network's. Restart to change it.
    pub(crate) connect_timeout: Period,
    /// How long a stop waits for operations that are under way. What is not done by then is
    /// unknown to the next start. 0s to 1h. The default leaves `upstream_timeout` its full length.
    pub(crate) drain_timeout: Period,
    /// Networks of the proxies in front of hapax whose `X-Forwarded-For` and `Forwarded` fields
    /// are believed. Empty by default: nobody's are. Addresses never take part in the scope.
    pub(crate) trusted_proxies: Vec<Network>,
    /// Serve TLS with this certificate chain and private key, both PEM files. Unset: plain HTTP,
    /// right behind a proxy that ends TLS. Restart to change it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tls: Option<Tls>,
    /// How long a caller may take to send a request's head. 1ms to 5m. A slow sender is cut off
    /// before it can hold a connection for free. Restart to change it.
    pub(crate) head_timeout: Period,
    /// How long a caller may take to send a keyed request's whole content; then 408, the key is
    /// not consumed and the upstream has seen nothing. 1ms to 1h. Restart to change it.
    pub(crate) body_timeout: Period,
    /// How long a connection without a request is kept. 1ms to 1h. The default is above the 60s
    /// of common load balancers, so that they close first and never send into a closing one.
    /// Restart to change it.
    pub(crate) idle_timeout: Period,
    /// How long a caller may take none of the answer's bytes before the connection is closed.
    /// The record is complete by then: a retry gets the answer. 1ms to 1h. Restart to change it.
    pub(crate) answer_timeout: Period,
    /// The most connections of callers at once; more wait in the system's accept queue. 1 to
    /// 1000000. The default fits the usual limit of open files once raised to 32768. Restart to
    /// change it.
    pub(crate) max_connections: u32,
    /// The largest head of a request: request line and fields together; then 431. 4KiB to 1MiB.
    /// The default is generous to large cookies. Restart to change it.
    pub(crate) max_head: Size,
}

/// A certificate and its key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Tls {
    /// The certificate chain, PEM, the server's own certificate first.
    pub(crate) cert_file: PathBuf,
    /// The private key, PEM.
    pub(crate) key_file: PathBuf,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            listen: Address(([127, 0, 0, 1], 8080).into()),
            upstream: None,
            upstream_ca_file: None,
            upstream_timeout: Period(policy::Policy::default().upstream_timeout),
            connect_timeout: Period::seconds(5),
            drain_timeout: Period::seconds(30),
            trusted_proxies: Vec::new(),
            tls: None,
            head_timeout: Period::seconds(10),
            body_timeout: Period::seconds(30),
            idle_timeout: Period::seconds(75),
            answer_timeout: Period::seconds(30),
            max_connections: 10_000,
            max_head: Size(64 * 1024),
        }
    }
}

/// Caps on what waits and what runs. Beyond a cap a request is refused before it claims its key.
/// All counts; 0 in a `per` setting means that there is no such cap. Restart to change them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Limits {
    /// The most duplicates that wait for a first attempt at once, in all (see `wait`); the next
    /// is answered 409 at once. 0 switches waiting off. At most 1000000.
    pub(crate) max_waiters: u32,
    /// The most duplicates that wait for one key. 0: no such cap. The default stops one stuck
    /// key from using up all the waiting there is.
    pub(crate) max_waiters_per_key: u32,
    /// The most duplicates that wait within one scope. 0: no such cap. The default keeps a tenth
    /// for everybody else.
    pub(crate) max_waiters_per_scope: u32,
    /// The most keyed operations under way at once; the next is answered 503 with `Retry-After`.
    /// 1 to 1000000. Each holds its request's content and later its answer in memory.
    pub(crate) max_outstanding: u32,
    /// The most keyed operations under way within one scope. 0, the default: no such cap,
    /// because hapax cannot know how callers are spread over credentials.
    pub(crate) max_outstanding_per_scope: u32,
    /// The most keys that one scope may have in use: those that this process has claimed and that are not free again, be they
    /// under way, settled, unknown or tombstones. Beyond, a request with a new key is answered 429 `quota-exceeded`; keys in use are answered
    /// as ever. 0, the default: no such cap. What counts exactly is in docs/operating.md#quotas.
    pub(crate) max_records_per_scope: u64,
    /// The most bytes that the records of those keys may take: content and fields of stored answers, and 512 a record. Once they are
    /// reached, as above. 0B, the default: no such cap.
    pub(crate) max_bytes_per_scope: Size,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_waiters: 10_000,
            max_waiters_per_key: 100,
            max_waiters_per_scope: 1_000,
            max_outstanding: 10_000,
            max_outstanding_per_scope: 0,
            max_records_per_scope: 0,
            max_bytes_per_scope: Size(0),
        }
    }
}

/// Which pages of other origins may read the answers that hapax makes itself (its problems, such as 409 `in-progress`). Without
/// it, a script of another origin sees a network error instead, and cannot tell a conflict from a lost answer. The upstream's
/// answers are not touched: what they allow holds for them and for their replays. A preflight (`OPTIONS`) goes to the upstream,
/// which alone knows what it takes, and must be allowed there, too.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Cors {
    /// The origins, each as browsers send it: `https://shop.example`, with a port where it is not the usual one. Compared as
    /// a whole; no patterns. `["*"]`, alone: every origin. The default is none. Name those that the upstream allows.
    pub(crate) allow_origins: Vec<AllowedOrigin>,
    /// Whether their pages may read such an answer to a request that was sent with cookies or another credential of the browser
    /// (`credentials: "include"`). Not needed for an `Authorization` field that the script sets. Impossible with `["*"]`.
    pub(crate) allow_credentials: bool,
}

/// The listener for operators: API, metrics and health.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Admin {
    /// The address operators connect to. Off loopback a `token_file` is mandatory: whoever
    /// reaches it could free and resolve keys. There is no TLS here: off loopback, put a proxy or
    /// a private network in front. Port 0 picks a free one. Restart to change it.
    pub(crate) listen: Address,
    /// A file of bearer tokens, one a line: `viewer:TOKEN`, `operator:TOKEN` or
    /// `operator:NAME:TOKEN`; only its owner may have access to it (`chmod 600`). A viewer reads
    /// everything but stored content, an operator may also read that and settle records. Unset:
    /// whoever reaches the loopback address is an operator. What is in it is read again at a
    /// reload. Restart to change it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) token_file: Option<PathBuf>,
    /// Names besides addresses and `localhost` that the listener answers to, without a port. All
    /// others are refused, because a web page could make a browser use them (DNS rebinding).
    pub(crate) hosts: Vec<String>,
    /// Where operators' actions are written down: a file that is appended to and synced before
    /// an action is answered. Unset: `audit.log` in the embedded store's directory, or memory
    /// with the memory store. Mandatory with a shared store. Restart to change it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) audit_file: Option<PathBuf>,
}

impl Default for Admin {
    fn default() -> Self {
        Self {
            listen: Address(([127, 0, 0, 1], 9090).into()),
            token_file: None,
            hosts: Vec::new(),
            audit_file: None,
        }
    }
}

/// Where records are kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Store {
    /// Which store. The default needs nothing else. Restart to change it.
    pub(crate) kind: StoreKind,
    /// The directory of the embedded store, relative to the working directory; made when it does
    /// not exist. One process at a time. Restart to change it.
    pub(crate) path: PathBuf,
    /// Where a shared store is: `postgres://USER:PASSWORD@HOST,HOST/DATABASE?sslmode=verify-full`, or
    /// `redis://USER:PASSWORD@HOST:PORT/DATABASE` (`rediss://` for TLS). For
    /// development: a password is better kept in `url_file`. Exactly one of the two for the kinds
    /// `postgres` and `redis`; never shown. Restart to change it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) url: Option<StoreUrl>,
    /// A file whose first line is that URL. Restart to change it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) url_file: Option<PathBuf>,
    /// The most bytes the store may take; beyond, new claims are refused with 503 and nothing is
    /// dropped. 0 means no cap. The default is a small disk's worth. Restart to change it.
    pub(crate) max_bytes: Size,
    /// The most records the store may hold; beyond, new claims are refused with 503. 0 means no
    /// cap. Restart to change it.
    pub(crate) max_records: u64,
    /// New claims are refused with 503 when the file system has less than this left, so that
    /// what was claimed can still be completed. 0 switches the check off. Embedded store only.
    /// Restart to change it.
    pub(crate) min_free_disk: Size,
    /// How long one operation of the store may take before it counts as failed: at claim time
    /// 503 `store-unavailable` with nothing executed. 1ms to 60s. The default is a hundred times
    /// a slow disk's sync. Restart to change it.
    pub(crate) operation_timeout: Period,
    /// How many replicas must say that they have what was written (`WAIT`) before it counts; 0 to
    /// 16. It narrows what a failover loses, and does not make it safe: another replica may be
    /// promoted. Kind `redis` only. Restart to change it.
    pub(crate) redis_wait: u32,
}

impl Default for Store {
    fn default() -> Self {
        Self {
            kind: StoreKind::Embedded,
            path: PathBuf::from("hapax-data"),
            url: None,
            url_file: None,
            max_bytes: Size::mebibytes(8 * 1024),
            max_records: 10_000_000,
            min_free_disk: Size::mebibytes(256),
            operation_timeout: Period::seconds(5),
            redis_wait: 0,
        }
    }
}

/// Which store keeps the records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum StoreKind {
    /// In a directory of this machine; durable.
    Embedded,
    /// In PostgreSQL, shared by several gateways; durable. `hapax store migrate` prepares it.
    Postgres,
    /// In Redis 7, Valkey or a cluster of either, shared by several gateways; as durable as the
    /// servers are set up to be, and less at a failover.
    Redis,
    /// In this process only. A restart forgets every key: for trying out and for tests.
    Memory,
}

/// The rules of every route that does not say otherwise, and of requests that match no route.
/// Each of them can be set in a `[[route]]` too.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Rules {
    /// Whether hapax acts. The default acts: who puts hapax in front of an API wants it.
    pub(crate) mode: Mode,
    /// Which methods are keyed when they carry a key. The default is those that HTTP itself does
    /// not make idempotent. A route's own method is always added. Safe methods (GET, HEAD,
    /// OPTIONS, TRACE) and CONNECT never are, and naming one is an error.
    pub(crate) methods: Vec<MethodName>,
    /// Whether a request without a key is refused. The default does not break callers that have
    /// no keys yet.
    pub(crate) key: Key,
    /// Where the key may be: `header:NAME`, `path:PARAM` (a parameter of the route's `match`),
    /// `json:/POINTER` (a member of a JSON body) or `query:NAME`. All places that have one must
    /// agree, else 400 `key-invalid`. At least one.
    pub(crate) key_from: Vec<Source>,
    /// How a key in a header is read. The default takes the bare UUIDs that most callers send.
    pub(crate) key_syntax: KeySyntax,
    /// What tells callers apart, so that two callers' equal keys never meet: `header:NAME`, all
    /// of them together. `["none"]`, alone, puts all callers into one scope: only for an API
    /// with one caller, or keys that cannot be guessed.
    pub(crate) scope: Vec<ScopeText>,
    /// What happens to a request that has none of the scope's parts. The default takes an API
    /// without credentials for one with a single caller.
    pub(crate) anonymous: Anonymous,
    /// How long a duplicate waits for the first attempt to settle; then 409 `in-progress`. 0s to
    /// 60s. The default answers at once and holds nothing.
    pub(crate) wait: Period,
    /// How long a settled record is kept, counted from settlement. 1s to 3650d. The default is
    /// the practice of payment APIs. Longer than callers retry, or a late retry executes again.
    pub(crate) retention: Period,
    /// How long an expired key is remembered as used; a request with it gets 422 `key-expired`.
    /// 0s to 3650d. The default, 0s, makes an expired key a new one.
    pub(crate) tombstone: Period,
    /// How long a claim lives without a heartbeat; then its outcome is unknown. 1s to 1h. The
    /// default is longer than a healthy process ever pauses, and short enough that a dead
    /// process's keys are not in progress for long.
    pub(crate) lease: Period,
    /// What a retry of an unknown outcome does. The default is the only safe one.
    pub(crate) on_unknown: OnUnknown,
    /// How long after an outcome became unknown a probe's 404 or 410 counts. This is an assumption about time: an upstream that
    /// has not acted on a request by then never will. 0s to 24h. Unset: `upstream_timeout`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) probe_after: Option<Period>,
    /// Which key the upstream sees. `derive` is for an upstream account that many callers share.
    pub(crate) upstream_key: UpstreamKey,
    /// How content is compared when a key comes back. The default compares bytes and needs no
    /// trust in a parser.
    pub(crate) fingerprint: Fingerprint,
    /// JSON pointers left out of a `json` fingerprint: members that differ in every attempt,
    /// such as a caller's clock. No effect with another `fingerprint`.
    pub(crate) ignore: Vec<JsonPointer>,
    /// Header fields that also make two requests different, beyond method, target, content type,
    /// content coding and preconditions. Not credentials: a renewed token is not another payload.
    pub(crate) fingerprint_headers: Vec<FieldName>,
    /// The largest content of a keyed request; beyond, 413 `body-too-large` and the key is not
    /// consumed. It is held in memory. 1B to 64MiB.
    pub(crate) max_body: Size,
    /// The largest answer content that is stored. A larger answer is passed through, and a retry
    /// gets no copy of it (303 to its `Location`, or 409 `response-unavailable`). 0B to 64MiB.
    pub(crate) max_stored_response: Size,
    /// Whether a request is executed WITHOUT protection while the store is unreachable. The
    /// default refuses it with 503: a payment made twice costs more than one made late.
    pub(crate) fail_open: bool,
}

impl Default for Rules {
    fn default() -> Self {
        let policy = policy::Policy::default();
        Self {
            mode: Mode::Enforce,
            methods: policy.methods.into_iter().map(MethodName).collect(),
            key: Key::Optional,
            key_from: policy.key_from.into_iter().map(Source).collect(),
            key_syntax: KeySyntax::Lenient,
            scope: policy.scope.into_iter().map(ScopeText::Part).collect(),
            anonymous: Anonymous::Share,
            wait: Period(policy.wait),
            retention: Period(policy.retention),
            tombstone: Period(policy.tombstone),
            lease: Period(policy.lease),
            on_unknown: OnUnknown::Refuse,
            probe_after: None,
            upstream_key: UpstreamKey::Pass,
            fingerprint: Fingerprint::Raw,
            ignore: policy.ignore.into_iter().map(JsonPointer).collect(),
            fingerprint_headers: policy
                .fingerprint_headers
                .into_iter()
                .map(FieldName)
                .collect(),
            max_body: Size(policy.max_body as u64),
            max_stored_response: Size(policy.max_stored_response as u64),
            fail_open: false,
        }
    }
}

/// A word of the file and the core's value that it stands for.
macro_rules! words {
    ($(#[doc = $about:literal])* $name:ident => $core:ty {
        $($(#[doc = $doc:literal])* $variant:ident => $value:ident),* $(,)?
    }) => {
        $(#[doc = $about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
        #[serde(rename_all = "lowercase")]
        pub(crate) enum $name {
            $($(#[doc = $doc])* $variant,)*
        }

        impl From<$name> for $core {
            fn from(word: $name) -> Self {
                match word {
                    $($name::$variant => Self::$value,)*
                }
            }
        }
    };
}

words! {
    /// Whether hapax acts.
    Mode => policy::Mode {
        /// Pass through.
        Off => Off,
        /// Work out and record what would have happened, change nothing.
        Observe => Observe,
        /// Act.
        Enforce => Enforce,
    }
}

words! {
    /// Whether a request needs a key.
    Key => policy::KeyRequirement {
        /// Without a key it passes through unprotected and is counted.
        Optional => Optional,
        /// Without a key: 400 `key-missing`.
        Required => Required,
    }
}

words! {
    /// How a key in a header is read.
    KeySyntax => key::KeySyntax {
        /// `"abc"` or `abc`; both are the same key.
        Lenient => Lenient,
        /// Only the quoted form, `"abc"`.
        Strict => Strict,
    }
}

words! {
    /// What happens to a request that has none of the scope's parts.
    Anonymous => policy::Anonymous {
        /// All such requests are one caller's.
        Share => Share,
        /// 400 `scope-missing`.
        Refuse => Refuse,
    }
}

/// What a retry of an unknown outcome does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum OnUnknown {
    /// It gets the stored answer if there is one, else 504 `outcome-unknown`.
    Refuse,
    /// It is sent to the upstream again: only for one that is itself idempotent by the key.
    Resend,
    /// The upstream is asked whether the operation happened, `GET` or `HEAD` and a path of the upstream with `{key}` (as the
    /// upstream saw it) or parameters of the route's `match`, percent-encoded. 2xx completes the record with that answer. 404 or
    /// 410 frees the key once `probe_after` has passed. Anything else leaves it unknown. The question must find this
    /// caller's operation and no other's: a retry's is asked with the retry's credentials; hapax asks by itself, too, where
    /// it needs none.
    Probe(Probe),
}

impl From<OnUnknown> for policy::OnUnknown {
    fn from(on_unknown: OnUnknown) -> Self {
        match on_unknown {
            OnUnknown::Refuse => Self::Refuse,
            OnUnknown::Resend => Self::Resend,
            OnUnknown::Probe(probe) => Self::Probe(probe.0),
        }
    }
}

words! {
    /// Which key the upstream sees.
    UpstreamKey => policy::UpstreamKey {
        /// The caller's, unchanged.
        Pass => Pass,
        /// A hash of scope and key.
        Derive => Derive,
    }
}

words! {
    /// How content is compared.
    Fingerprint => policy::ContentMode {
        /// Byte for byte.
        Raw => Raw,
        /// As JSON: the order of members and white space do not count, the text of numbers does.
        Json => Json,
        /// Not at all.
        Off => Off,
    }
}

/// Logs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Telemetry {
    /// Which log lines are written to standard error: `error`, `warn`, `info`, `debug`, `trace`,
    /// `off`, or `module=level` pairs with commas. Keys and contents never are.
    pub(crate) log: LogFilter,
    /// How log lines are written. The default suits both a terminal and a log collector. Restart
    /// to change it.
    pub(crate) log_format: LogFormat,
    /// Where the spans of requests are sent, as OTLP over HTTP (JSON): `http://HOST:4318`; `/v1/traces` is added. Unset, there
    /// are none, and requests pass with the trace context they came with. Restart to change it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) otlp_endpoint: Option<Collector>,
}

impl Default for Telemetry {
    fn default() -> Self {
        Self {
            log: LogFilter("info".to_owned()),
            log_format: LogFormat::Auto,
            otlp_endpoint: None,
        }
    }
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    Auto,
    /// Text.
    Text,
    /// One JSON object a line.
    Json,
}

/// A route: the rules of the requests that match. What it does not say is as in `[defaults]`.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct RouteTableEntry {
    /// `METHOD /path`: a method in capital letters or `*`, then a path whose segments are text,
    /// `{name}` for one segment, or, at the end, `{*name}` for the rest. The most specific path
    /// wins: text before `{name}` before `{*name}`, judged from the left; on the same path a
    /// method wins over `*`. Two routes that match alike are an error. The method is added to
    /// the route's `methods`.
    #[serde(rename = "match")]
    pub(crate) pattern: String,
    /// The rules.
    #[serde(flatten)]
    pub(crate) rules: Rules,
}

/// The file as a whole, for its schema.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(title = "hapax.toml")]
pub(crate) struct File {
    pub(crate) server: Server,
    pub(crate) limits: Limits,
    pub(crate) cors: Cors,
    pub(crate) admin: Admin,
    pub(crate) store: Store,
    pub(crate) defaults: Rules,
    pub(crate) route: Vec<RouteTableEntry>,
    pub(crate) telemetry: Telemetry,
}
