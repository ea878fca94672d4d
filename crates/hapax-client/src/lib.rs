//! One idempotency key per intent, held over retries, restarts and crashes.
//!
//! A server stops duplicates only when a repeat carries the key of the first attempt. This crate sees to that: a
//! middleware for `reqwest` (feature `reqwest`), a layer for hyper and other tower services (`tower`), and an outbox in files
//! (`outbox`) for intents that must outlive the process. All of them act on one pure policy ([`judge`]), which is that of the
//! TypeScript and Python clients, too.
//!
//! Guarantees: every attempt sends the same key and the same bytes (P41); POST and PATCH without a key are sent once; an answer
//! counts only when it is whole; when an attempt may have run and nothing more can be learned, the caller gets an
//! [`OutcomeUnknown`] that can be sent again with the same key (P44). A retry waits with full jitter, heeds
//! `Retry-After`, is paid for from a budget per host and never begins past the deadline (P42, P43).
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(any(feature = "reqwest", feature = "tower"))]
mod attempts;
mod backoff;
mod budget;
mod config;
mod error;
mod observe;
mod policy;
mod problem;
mod timing;

#[cfg(feature = "outbox")]
pub mod outbox;
#[cfg(feature = "reqwest")]
pub mod reqwest;
#[cfg(feature = "tower")]
pub mod tower;

pub use backoff::{backoff, retry_after};
pub use budget::{Budget, Budgets, FULL};
pub use config::{Config, Keys, Limits, Settled};
pub use error::{BoxError, NotReplayable, OutcomeUnknown, TimedOut};
pub use observe::{Observer, Seen};
pub use policy::{Attempt, Decision, Failure, Outcome, Why, judge};
pub use timing::{Timing, random_key};
