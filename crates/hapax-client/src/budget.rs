//! Tokens for retries, per host (P43): when a server is down they run out, and with them the extra load.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Tokens of a full budget.
pub const FULL: u32 = 500;
/// Hosts that are remembered.
const MAX_HOSTS: usize = 1000;

/// The tokens of one host.
#[derive(Debug)]
pub struct Budget {
    tokens: AtomicU32,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            tokens: AtomicU32::new(FULL),
        }
    }
}

impl Budget {
    /// What is left.
    pub fn tokens(&self) -> u32 {
        self.tokens.load(Ordering::Relaxed)
    }

    /// Takes the cost of a retry, or nothing if too little is left. Returns whether it was there.
    pub fn take(&self, cost: u32) -> bool {
        self.tokens
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |tokens| {
                tokens.checked_sub(cost)
            })
            .is_ok()
    }

    /// A final answer came: gives back what its last retry took, or one token (`cost` 0).
    pub fn success(&self, cost: u32) {
        let back = cost.max(1);
        let _ = self
            .tokens
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |tokens| {
                Some(tokens.saturating_add(back).min(FULL))
            });
    }
}

/// The budgets of all hosts that a client talks to. Share one among clients that share servers.
#[derive(Debug, Default)]
pub struct Budgets {
    hosts: Mutex<HashMap<String, Arc<Budget>>>,
}

impl Budgets {
    /// The budget of a host (name and port). At most 1,000 are remembered: full ones are forgotten first.
    pub fn of(&self, host: &str) -> Arc<Budget> {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(budget) = hosts.get(host) {
            return Arc::clone(budget);
        }
        if hosts.len() >= MAX_HOSTS {
            hosts.retain(|_, budget| budget.tokens() < FULL);
        }
        if hosts.len() >= MAX_HOSTS {
            hosts.clear();
        }
        Arc::clone(hosts.entry(host.to_owned()).or_default())
    }
}
