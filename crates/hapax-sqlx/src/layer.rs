//! The layer: what a set-up says once.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tower_layer::Layer;

use hapax_core::event::Observer;
use hapax_core::policy::{KeyRequirement, Mode, OnStoreFailure, OnUnknown, Policy, UpstreamKey};

use crate::flights::Flights;
use crate::service::TransactionService;
use crate::{Dialect, Records};

/// What becomes of a refusal for good: 400, 404, 422 and others that a repeat cannot change (P25).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Rejections {
    /// The answer is stored and replayed to the same request; a corrected one may claim the key.
    /// Whatever the handler wrote is taken back.
    #[default]
    Remember,
    /// Nothing stays: the key is vacant.
    Forget,
}

/// Under which isolation the handler's transaction runs. SQLite knows only one, the strictest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Isolation {
    /// The database's own default.
    #[default]
    Default,
    /// `REPEATABLE READ`.
    RepeatableRead,
    /// `SERIALIZABLE`.
    Serializable,
}

/// What a set-up can choose besides its policy.
#[derive(Debug, Clone)]
pub struct Options {
    /// The route's name, for metrics and logs: never a raw path. Default `default`.
    pub route: String,
    /// Keeps apart the keys of set-ups that share one database. Default empty.
    pub realm: String,
    /// What becomes of a refusal for good. Default [`Rejections::Remember`].
    pub rejections: Rejections,
    /// Under which isolation the handler's transaction runs. Default the database's.
    pub isolation: Isolation,
    /// Whether handlers go through recovery points ([`Steps`](crate::Steps)) instead of one
    /// transaction ([`Tx`](crate::Tx)). Default no. Needs a policy that requires a key.
    pub recovery_points: bool,
    /// How often a handler runs at most when the database rolls its transaction back. Default 4:
    /// conflicts that three repeats do not solve are contention, which more repeats only feed.
    pub max_runs: u32,
    /// Requests under way, waiting ones included; beyond: 503 `overloaded`. Default 10,000.
    pub max_under_way: usize,
    /// Duplicates that wait for one key; beyond: 409 at once. Default 100.
    pub max_waiters_per_key: usize,
    /// How long the database may take to give a connection and a claim, or to commit; beyond: 503.
    /// Default 5 s.
    pub database_timeout: Duration,
    /// How long a request's content may take to arrive in full; beyond: 408. Default 60 s.
    pub body_timeout: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            route: "default".to_owned(),
            realm: String::new(),
            rejections: Rejections::default(),
            isolation: Isolation::default(),
            recovery_points: false,
            max_runs: 4,
            max_under_way: 10_000,
            max_waiters_per_key: 100,
            database_timeout: Duration::from_secs(5),
            body_timeout: Duration::from_secs(60),
        }
    }
}

/// A policy that the SQL layer cannot keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the SQL layer does not support {setting}: {reason}")]
pub struct SetupError {
    /// The setting.
    pub setting: &'static str,
    /// Why not.
    pub reason: &'static str,
}

/// Everything that the requests of one layer share.
pub(crate) struct Shared<DB: Dialect> {
    pub(crate) records: Records<DB>,
    pub(crate) policy: Arc<Policy>,
    pub(crate) route: Arc<str>,
    pub(crate) observer: Arc<dyn Observer>,
    pub(crate) options: Options,
    pub(crate) flights: Arc<Flights>,
    pub(crate) places: Arc<Semaphore>,
    /// Where the database has one writer: whose turn it is to write.
    pub(crate) writer: Arc<Semaphore>,
}

impl<DB: Dialect> Shared<DB> {
    /// Observed records are kept apart: what was only watched must not answer for a route that is
    /// switched to enforcing later.
    pub(crate) fn realm(&self) -> Cow<'_, str> {
        let realm = &self.options.realm;
        match self.policy.mode {
            Mode::Observe => format!("observed {realm}").into(),
            Mode::Off | Mode::Enforce => realm.into(),
        }
    }

    /// How a transaction begins.
    pub(crate) fn begin(&self) -> &'static str {
        match self.options.isolation {
            _ if DB::HAS_ONE_WRITER => DB::BEGIN,
            Isolation::Default => DB::BEGIN,
            Isolation::RepeatableRead => "BEGIN ISOLATION LEVEL REPEATABLE READ",
            Isolation::Serializable => "BEGIN ISOLATION LEVEL SERIALIZABLE",
        }
    }
}

/// Runs the handlers behind it in the transaction of their key; see the crate's contract.
pub struct TransactionLayer<DB: Dialect> {
    pub(crate) shared: Arc<Shared<DB>>,
}

impl<DB: Dialect> Clone for TransactionLayer<DB> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<DB: Dialect> std::fmt::Debug for TransactionLayer<DB> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TransactionLayer")
            .field("options", &self.shared.options)
            .finish_non_exhaustive()
    }
}

impl<DB: Dialect> TransactionLayer<DB> {
    /// A layer over `records` with one policy, telling `observer` what happens.
    ///
    /// # Errors
    /// [`SetupError`] names a setting that has no meaning here.
    pub fn new(
        records: Records<DB>,
        policy: Policy,
        observer: Arc<dyn Observer>,
        options: Options,
    ) -> Result<Self, SetupError> {
        check(&policy)?;
        if options.recovery_points && policy.key != KeyRequirement::Required {
            let setting = "recovery points on a route whose key is optional";
            let reason = "what has no key cannot be tried again";
            return Err(SetupError { setting, reason });
        }
        if options.recovery_points && policy.mode == Mode::Observe {
            let setting = "recovery points on a route that only observes";
            let reason = "what tells a step of one attempt from that of another is the key";
            return Err(SetupError { setting, reason });
        }
        let shared = Shared {
            records,
            policy: Arc::new(policy),
            route: options.route.as_str().into(),
            observer,
            flights: Flights::new(options.max_waiters_per_key),
            places: Arc::new(Semaphore::new(
                options.max_under_way.min(Semaphore::MAX_PERMITS),
            )),
            writer: Arc::new(Semaphore::new(1)),
            options,
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// How many keys are under way in this process.
    pub fn under_way(&self) -> usize {
        self.shared.flights.count()
    }
}

/// What the gateway can do and a transaction cannot, or need not.
fn check(policy: &Policy) -> Result<(), SetupError> {
    let refused = |setting, reason| Err(SetupError { setting, reason });
    if policy.on_store_failure == OnStoreFailure::FailOpen {
        return refused(
            "fail_open",
            "without its database the handler cannot run either",
        );
    }
    if policy.on_unknown == OnUnknown::Resend {
        return refused("on_unknown = resend", "no outcome is ever unknown");
    }
    if policy.upstream_key == UpstreamKey::Derive {
        return refused("upstream_key = derive", "there is no upstream");
    }
    Ok(())
}

impl<DB: Dialect, I> Layer<I> for TransactionLayer<DB> {
    type Service = TransactionService<DB, I>;

    fn layer(&self, inner: I) -> Self::Service {
        TransactionService::new(Arc::clone(&self.shared), inner)
    }
}
