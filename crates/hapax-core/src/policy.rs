//! What a route wants, with the reason for every default.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, Method};

use crate::json::Pointer;
use crate::key::KeySyntax;
use crate::probe::Template;
use crate::scope::ScopePart;

/// The rules of one route. [`Policy::default`] is what a route gets that says nothing.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// Whether hapax acts. Default `enforce`: who puts hapax in front of an API wants it.
    pub mode: Mode,
    /// Which methods are keyed (P2). Default POST and PATCH, the methods HTTP itself does not
    /// make idempotent. Safe methods never are, listed or not (P1).
    pub methods: Vec<Method>,
    /// Whether a request without a key is refused (P3). Default `optional`: switching hapax on
    /// must not break callers that have no keys yet.
    pub key: KeyRequirement,
    /// Where the key may be; all places that have one must agree (P4).
    pub key_from: Vec<KeySource>,
    /// How the header is read (P5). Default lenient: most keys in the world are bare UUIDs.
    pub key_syntax: KeySyntax,
    /// What tells callers apart (P7). Empty means `none`: all callers share their keys, and
    /// that has to be written out. Default `header:authorization`.
    pub scope: Vec<ScopePart>,
    /// What happens to a request that has none of the scope's parts. Default `share`: an API
    /// without credentials is one caller.
    pub anonymous: Anonymous,
    /// How long a concurrent duplicate waits for the first to settle. Default zero: a 409 is
    /// answered at once and holds nothing.
    pub wait: Duration,
    /// How long a settled record is kept (P34). Default 24 h, the practice of payment APIs.
    pub retention: Duration,
    /// How long an expired key is remembered as used. Default zero.
    pub tombstone: Duration,
    /// How long a claim lives without a heartbeat. Default 60 s: longer than any pause of a
    /// healthy process, short enough that a dead node's keys do not stay in progress for long.
    pub lease: Duration,
    /// What a retry of an unknown outcome does. Default `refuse`: the only safe one.
    pub on_unknown: OnUnknown,
    /// How long after an outcome became unknown a probe must be asked for its "no such thing" to free the key (P47): until
    /// then the first request may still be on its way. Default: as long as the upstream may take to answer.
    pub probe_after: Duration,
    /// Which key the upstream sees (P26). Default `pass`.
    pub upstream_key: UpstreamKey,
    /// How content is compared (P10). Default `raw`: bytes.
    pub fingerprint: ContentMode,
    /// JSON members left out of a `json` fingerprint (a client's clock, say).
    pub ignore: Vec<Pointer>,
    /// Header fields that also make two requests different (P9).
    pub fingerprint_headers: Vec<HeaderName>,
    /// The largest request content of a keyed request, in bytes (P20). Default 1 MiB.
    pub max_body: usize,
    /// The largest answer content that is stored, in bytes (P19). Default 1 MiB.
    pub max_stored_response: usize,
    /// Whether a request is executed unprotected when the store is unreachable (P17). Default
    /// `closed`: 503 and nothing executed.
    pub on_store_failure: OnStoreFailure,
    /// How long the upstream may take to answer in full before the caller is told that the
    /// outcome is unknown (P45). The operation goes on. Default 30 s.
    pub upstream_timeout: Duration,
}

/// Whether hapax acts on a route (P6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Mode {
    /// Pass through.
    Off,
    /// Work out and record what would have happened, change nothing.
    Observe,
    /// Act.
    #[default]
    Enforce,
}

/// Whether a route needs a key (P3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum KeyRequirement {
    /// A request without one passes through unprotected and is counted.
    #[default]
    Optional,
    /// A request without one is refused with 400 `key-missing`.
    Required,
}

/// A place in a request where the key can be (P4).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum KeySource {
    /// `header:NAME`.
    Header(HeaderName),
    /// `path:PARAM`: a parameter of the route's path, percent-decoded.
    Path(String),
    /// `json:/POINTER`: a string in the JSON body.
    Json(Pointer),
    /// `query:NAME`: a query parameter, decoded as a form.
    Query(String),
}

/// What to do with a request that has none of the scope's parts (P7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Anonymous {
    /// All of them are one caller.
    #[default]
    Share,
    /// Refuse it: 400 `scope-missing`.
    Refuse,
}

/// What a retry of an unknown outcome does.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum OnUnknown {
    /// Replay the stored answer if there is one, else 504 `outcome-unknown`.
    #[default]
    Refuse,
    /// Send the operation again: only for an upstream that is itself idempotent under the key
    /// it gets (P23).
    Resend,
    /// Ask the upstream whether the operation happened (P47).
    Probe(Arc<Template>),
}

/// Which key the upstream gets (P26).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum UpstreamKey {
    /// The client's, unchanged.
    #[default]
    Pass,
    /// A hash of scope and key.
    Derive,
}

/// How content is compared (P10).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum ContentMode {
    /// Byte for byte.
    #[default]
    Raw,
    /// As JSON: member order and white space do not count, number text does.
    Json,
    /// Not at all.
    Off,
}

/// What an unreachable store means for a request (P17).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum OnStoreFailure {
    /// `fail_open = false`: 503, nothing executed.
    #[default]
    FailClosed,
    /// `fail_open = true`: executed without protection.
    FailOpen,
}

impl Default for Policy {
    fn default() -> Self {
        const DAY: Duration = Duration::from_secs(24 * 3600);
        const MIB: usize = 1024 * 1024;
        Self {
            mode: Mode::default(),
            methods: vec![Method::POST, Method::PATCH],
            key: KeyRequirement::default(),
            key_from: vec![KeySource::Header(HeaderName::from_static(
                "idempotency-key",
            ))],
            key_syntax: KeySyntax::default(),
            scope: vec![ScopePart::Header(http::header::AUTHORIZATION)],
            anonymous: Anonymous::default(),
            wait: Duration::ZERO,
            retention: DAY,
            tombstone: Duration::ZERO,
            lease: Duration::from_secs(60),
            on_unknown: OnUnknown::default(),
            probe_after: Duration::from_secs(30),
            upstream_key: UpstreamKey::default(),
            fingerprint: ContentMode::default(),
            ignore: Vec::new(),
            fingerprint_headers: Vec::new(),
            max_body: MIB,
            max_stored_response: MIB,
            on_store_failure: OnStoreFailure::default(),
            upstream_timeout: Duration::from_secs(30),
        }
    }
}

impl Policy {
    /// How this route asks the upstream about an unknown outcome, if it does. A route that only observes changes nothing, so
    /// it asks nothing.
    pub fn probe(&self) -> Option<&Arc<Template>> {
        match &self.on_unknown {
            OnUnknown::Probe(template) if self.mode == Mode::Enforce => Some(template),
            _ => None,
        }
    }

    /// Whether a request with `method` is keyed when it carries a key (P1, P2).
    pub fn covers(&self, method: &Method) -> bool {
        self.mode != Mode::Off && !is_never_keyed(method) && self.methods.contains(method)
    }
}

/// Safe methods and CONNECT are never keyed, whatever a route says (P1).
pub fn is_never_keyed(method: &Method) -> bool {
    method.is_safe() || *method == Method::CONNECT
}
