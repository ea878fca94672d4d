//! What a store tells while it works.

use std::time::Duration;

/// Is told what a store does; called where it does it, so it must not block.
pub trait StoreObserver: Send + Sync + 'static {
    /// A batch of `operations` was written and synced, or committed, in `took`.
    fn synced(&self, took: Duration, operations: usize);
    /// Writing failed; from now on the store refuses to write.
    fn failed(&self, reason: &str);
    /// A record's bytes are damaged, found for the first time.
    fn damaged(&self, what: &str);
}

/// Does nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoObserver;

impl StoreObserver for NoObserver {
    fn synced(&self, _: Duration, _: usize) {}
    fn failed(&self, _: &str) {}
    fn damaged(&self, _: &str) {}
}
