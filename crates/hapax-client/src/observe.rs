//! What a client tells of itself, for metrics.

use std::time::Duration;

use crate::policy::{Decision, Failure};

/// An attempt that was judged.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    /// Name and port of the server.
    pub host: &'a str,
    /// From 1.
    pub number: u32,
    /// The status of the answer, or how it failed.
    pub came: Result<http::StatusCode, Failure>,
    /// What follows.
    pub decision: Decision,
    /// How long it took, the answer included.
    pub took: Duration,
    /// What is left of the host's budget.
    pub tokens: u32,
}

/// Is told of every attempt. Called in the way of the request: count, and return.
pub trait Observer: Send + Sync {
    /// An attempt was judged.
    fn attempt(&self, seen: &Seen<'_>);
}
