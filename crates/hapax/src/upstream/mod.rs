//! The sending side: one upstream, a pool of kept-alive connections to it, and certainty about what was sent.
//!
//! A connection has no task of its own: whoever sends a request or reads its answer drives it. That saves a wake-up
//! across tasks on both ways, and a connection that died in the pool is noticed by the very poll that would send on it.

mod connect;
mod error;
mod lane;
mod pool;
mod relay;

pub(crate) use connect::{Dial, Tcp, TlsRoots, UpstreamSettings, UpstreamSetupError};
#[cfg(test)]
pub(crate) use error::ConnectError;
pub(crate) use error::UpstreamError;
pub(crate) use pool::{PooledBody, Upstream};

#[cfg(test)]
mod tests;
