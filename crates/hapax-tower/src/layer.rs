//! The layer: what a set-up says once.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Method};
use tower_layer::Layer;

use hapax_core::event::Observer;
use hapax_core::key::{Key, RecordKey};
use hapax_core::policy::Policy;
use hapax_core::scope::{ScopePart, scope_of};
use hapax_core::secret::HashKeys;
use hapax_core::store::Store;

use crate::service::HapaxService;
use crate::waiters::{Bounds, Waiters};

/// Which rules a request falls under.
pub trait Routing: Send + Sync + 'static {
    /// The route of a request, by its method and path.
    fn route(&self, method: &Method, path: &str) -> Routed;
}

/// A matched route.
#[derive(Debug, Clone)]
pub struct Routed {
    /// Its name, for metrics and logs: never a raw path.
    pub name: Arc<str>,
    /// Its rules.
    pub policy: Arc<Policy>,
    /// The path parameters that a `path:` key or a probe needs, decoded.
    pub params: Vec<(Arc<str>, String)>,
}

/// One policy for everything, as a library's user often wants it.
impl Routing for Arc<Policy> {
    fn route(&self, _method: &Method, _path: &str) -> Routed {
        Routed {
            name: Arc::from("default"),
            policy: Arc::clone(self),
            params: Vec::new(),
        }
    }
}

/// Bounds on what the layer holds in memory. Refusal comes before the claim (G13).
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Keyed requests under way, waiting ones included; beyond: 503 `overloaded`.
    pub outstanding: usize,
    /// Duplicates waiting in all; beyond: 409 at once.
    pub waiters: usize,
    /// Duplicates waiting for one key.
    pub waiters_per_key: usize,
    /// Duplicates of one scope waiting.
    pub waiters_per_scope: usize,
    /// Keyed requests of one scope under way; beyond: 503 `overloaded`.
    pub outstanding_per_scope: usize,
    /// Keys of one scope in use that this process has claimed, whatever became of them; beyond: 429 `quota-exceeded` for
    /// vacant keys. `u64::MAX`: no such limit.
    pub records_per_scope: u64,
    /// Bytes of the records of those keys: once they are reached, 429 `quota-exceeded` for vacant keys. `u64::MAX`: no such
    /// limit.
    pub bytes_per_scope: u64,
}

impl Default for Limits {
    /// 10,000 under way, each with at most `max_body` + `max_stored_response` of content; a
    /// tenth of that for one scope's waiters, a hundredth for one key's.
    fn default() -> Self {
        Self {
            outstanding: 10_000,
            waiters: 10_000,
            waiters_per_key: 100,
            waiters_per_scope: 1_000,
            outstanding_per_scope: usize::MAX,
            records_per_scope: u64::MAX,
            bytes_per_scope: u64::MAX,
        }
    }
}

/// Fills bytes with random numbers; `None` when there are none to be had.
pub type RandomNumbers = fn(&mut [u8]) -> Option<()>;

/// What a set-up can choose besides its routes.
#[derive(Debug, Clone)]
pub struct Options {
    /// Keeps apart the keys of set-ups that share one store.
    pub realm: String,
    /// Bounds on memory.
    pub limits: Limits,
    /// How long one operation of the store may take before it counts as unreachable (P17).
    pub store_timeout: Duration,
    /// How long a keyed request's content may take to arrive in full; beyond: 408.
    pub body_timeout: Duration,
    /// Where claim ids come from; the system's generator by default. Ids must never repeat: a holder whose id came twice
    /// could write over another's record. Only a simulation, which a seed has to repeat, replaces it.
    pub random: RandomNumbers,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            realm: String::new(),
            limits: Limits::default(),
            store_timeout: Duration::from_secs(5),
            body_timeout: Duration::from_secs(60),
            random: |bytes| getrandom::fill(bytes).ok(),
        }
    }
}

/// Everything that the requests of one layer share.
pub(crate) struct Shared<S> {
    pub(crate) store: S,
    pub(crate) keys: HashKeys,
    pub(crate) routing: Box<dyn Routing>,
    pub(crate) observer: Arc<dyn Observer>,
    pub(crate) options: Options,
    pub(crate) waiters: Waiters,
    pub(crate) places: crate::places::Places,
    pub(crate) probes: crate::probes::Probes,
    pub(crate) quotas: crate::quotas::Quotas,
}

/// Makes an HTTP service safe to retry; see the crate's contract.
pub struct HapaxLayer<S> {
    pub(crate) shared: Arc<Shared<S>>,
}

impl<S> Clone for HapaxLayer<S> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<S> std::fmt::Debug for HapaxLayer<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HapaxLayer")
            .field("options", &self.shared.options)
            .finish_non_exhaustive()
    }
}

impl<S: Store> HapaxLayer<S> {
    /// A layer over `store` with the routes of `routing`, telling `observer` what happens.
    pub fn new(
        store: S,
        routing: impl Routing,
        observer: Arc<dyn Observer>,
        options: Options,
    ) -> Self {
        let keys = HashKeys::derive(store.secret());
        let limits = options.limits;
        let waiters = Waiters::new(Bounds {
            in_all: limits.waiters,
            per_key: limits.waiters_per_key,
            per_scope: limits.waiters_per_scope,
        });
        let places = crate::places::Places::new(limits);
        let quotas = crate::quotas::Quotas::new(&limits);
        let routing = Box::new(routing);
        let shared = Shared {
            store,
            keys,
            routing,
            observer,
            options,
            waiters,
            places,
            probes: crate::probes::Probes::default(),
            quotas,
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// The store, for sweeping and figures.
    pub fn store(&self) -> &S {
        &self.shared.store
    }

    /// The record that a key has for a caller: `parts` are the scope's parts and `headers` has
    /// their values.
    pub fn record_of(&self, parts: &[ScopePart], headers: &HeaderMap, key: &Key) -> RecordKey {
        let scope = scope_of(&self.shared.keys, parts, headers);
        RecordKey::new(&self.shared.keys, &self.shared.options.realm, scope.id, key)
    }

    /// Wakes the duplicates that wait for a record: somebody else than its attempt has changed it.
    pub fn wake(&self, record: &RecordKey) {
        self.shared.waiters.wake(record);
    }

    /// How many keyed requests are under way.
    pub fn outstanding(&self) -> usize {
        self.shared.places.taken()
    }
}

impl<S, I> Layer<I> for HapaxLayer<S> {
    type Service = HapaxService<S, I>;

    fn layer(&self, inner: I) -> Self::Service {
        HapaxService::new(Arc::clone(&self.shared), inner)
    }
}
