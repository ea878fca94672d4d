//! What a store in Redis can be told.

use std::time::Duration;

use crate::limits::Limits;

/// The server's clock in whole milliseconds since 1970, in Lua.
#[cfg(not(feature = "fault-injection"))]
const SERVER_CLOCK: &str = super::scripts::SERVER_CLOCK;

/// How a gateway's connections are called.
pub(super) const GATEWAY: &str = "hapax";

/// How a store in Redis is set up.
#[derive(Debug, Clone)]
pub struct RedisOptions {
    /// How much it may hold; looked at with every sweep, so that it may be passed by what one
    /// second brings.
    pub limits: Limits,
    /// How long one operation may take. Default 5 s.
    pub operation_timeout: Duration,
    /// Connections to each server. Default 2: enough for one server's one thread.
    pub connections: usize,
    /// How many replicas must say that they have a write (`WAIT`) before it counts. Default 0.
    ///
    /// It narrows what a failover loses and does not end it: a replica that has less may be the
    /// one that is promoted.
    pub replicas: u32,
    /// How connections call themselves at the server, where commands look who else is there:
    /// a word. Default `hapax`.
    pub client_name: &'static str,
    /// The Lua expression whose value is the instant of a script, so that tests can stop it.
    #[cfg(feature = "fault-injection")]
    pub clock: String,
}

impl Default for RedisOptions {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            operation_timeout: Duration::from_secs(5),
            connections: 2,
            replicas: 0,
            client_name: GATEWAY,
            #[cfg(feature = "fault-injection")]
            clock: super::scripts::SERVER_CLOCK.to_owned(),
        }
    }
}

impl RedisOptions {
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
