//! What a store in PostgreSQL can be told.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::limits::Limits;
use crate::observer::{NoObserver, StoreObserver};

/// How the connections of gateways are called.
pub(super) const GATEWAY: &str = "hapax";

/// The instant of a statement, in milliseconds since 1970 by the server's clock.
const SERVER_CLOCK: &str = "floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint";

/// How a store in PostgreSQL is set up.
#[derive(Clone)]
pub struct PostgresOptions {
    /// How much it may hold; looked at with every sweep, so that it may be passed by what one
    /// second brings.
    pub limits: Limits,
    /// The most connections to the server. Default 16.
    pub connections: usize,
    /// How long one operation may take; the server gives up on a statement after it, too.
    /// Default 5 s.
    pub operation_timeout: Duration,
    /// What connections are called at the server, where the URL does not say. Default `hapax`, which means a gateway.
    pub application_name: &'static str,
    /// Who is told about commits and damage.
    pub observer: Arc<dyn StoreObserver>,
    /// The SQL expression whose value is the instant of a statement, so that tests can stop it.
    #[cfg(feature = "fault-injection")]
    pub clock: String,
}

impl Default for PostgresOptions {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            connections: 16,
            operation_timeout: Duration::from_secs(5),
            application_name: GATEWAY,
            observer: Arc::new(NoObserver),
            #[cfg(feature = "fault-injection")]
            clock: SERVER_CLOCK.to_owned(),
        }
    }
}

impl fmt::Debug for PostgresOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresOptions")
            .field("limits", &self.limits)
            .field("connections", &self.connections)
            .field("operation_timeout", &self.operation_timeout)
            .finish_non_exhaustive()
    }
}

impl PostgresOptions {
    #[cfg(feature = "fault-injection")]
    pub(super) fn clock(&self) -> &str {
        &self.clock
    }

    #[cfg(not(feature = "fault-injection"))]
    #[expect(clippy::unused_self, reason = "tests put another clock here")]
    pub(super) fn clock(&self) -> &str {
        SERVER_CLOCK
    }
}
