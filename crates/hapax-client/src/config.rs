//! What a client is set to.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Method};

use crate::budget::Budgets;
use crate::observe::Observer;
use crate::timing::{Timing, random_key};

/// How often and how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// How often a request is sent at most; 3.
    pub attempts: u32,
    /// Time for one attempt, its answer included; 30 s.
    pub attempt: Duration,
    /// Time for everything, waits included; 90 s.
    pub deadline: Duration,
    /// The largest request body that is kept for a repeat, in bytes; 1 MiB, which is hapax's own `max_body` (tower only).
    pub max_request: usize,
    /// The largest answer to a keyed request, in bytes; 16 MiB. One that says it is larger is handed over unread; one that
    /// turns out to be counts as broken off.
    pub max_answer: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            attempts: 3,
            attempt: Duration::from_secs(30),
            deadline: Duration::from_secs(90),
            max_request: 1024 * 1024,
            max_answer: 16 * 1024 * 1024,
        }
    }
}

/// Which requests get a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Keys {
    /// A POST or PATCH without a key gets a random one, held over the retries of that call.
    #[default]
    Each,
    /// Only requests that carry a key are keyed; a POST or PATCH without one is sent once.
    Given,
}

/// What a client is set to. Cheap to clone; clones share the budgets.
#[derive(Clone)]
pub struct Config {
    /// How often and how long.
    pub limits: Limits,
    /// Which requests get a key.
    pub keys: Keys,
    /// The field that carries it; `idempotency-key`.
    pub header: HeaderName,
    /// Tokens for retries, per host.
    pub budgets: Arc<Budgets>,
    /// Told of every attempt.
    pub observer: Option<Arc<dyn Observer>>,
    /// Clock and dice.
    pub timing: Timing,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            keys: Keys::default(),
            header: HeaderName::from_static("idempotency-key"),
            budgets: Arc::default(),
            observer: None,
            timing: Timing::default(),
        }
    }
}

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Config")
            .field("limits", &self.limits)
            .field("keys", &self.keys)
            .field("header", &self.header)
            .finish_non_exhaustive()
    }
}

/// In a response's extensions: whether it settles the intent. If not, nothing ran, and the key can be sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settled(pub bool);

impl Config {
    /// The request's key: the one it carries, or a new one where it is to have one.
    #[cfg_attr(not(any(feature = "reqwest", feature = "tower")), expect(dead_code))]
    pub(crate) fn key(
        &self,
        method: &Method,
        fields: &mut HeaderMap,
    ) -> Result<Option<HeaderValue>, getrandom::Error> {
        if let Some(key) = fields.get(&self.header) {
            return Ok(Some(key.clone()));
        }
        let is_given_one =
            self.keys == Keys::Each && (*method == Method::POST || *method == Method::PATCH);
        if !is_given_one {
            return Ok(None);
        }
        // Digits and dashes are a field's value.
        let Ok(key) = HeaderValue::from_str(&random_key()?) else {
            return Ok(None);
        };
        fields.insert(self.header.clone(), key.clone());
        Ok(Some(key))
    }
}
