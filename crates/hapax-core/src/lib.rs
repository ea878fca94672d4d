//! The rules of hapax, and nothing else: no I/O, no clock, no randomness, no async runtime.
//!
//! A driver (gateway, tower layer, simulator) hands in values and gets back the next step:
//!
//! - [`key`], [`scope`] and [`fingerprint`] turn a request into an identity,
//! - [`policy`] says what a route wants,
//! - [`decide()`] is the one place where an attempt meets a record,
//! - [`attempt`] is the life of one attempt, from claim to answer,
//! - [`probe`] asks the upstream about an unknown outcome, and says what its answer means,
//! - [`settle`] says what an upstream answer means and what a replay looks like,
//! - [`operate`] says what an operator's word means for a record,
//! - [`store`] is the contract every durable memory keeps.

pub mod attempt;
pub mod encoding;
pub mod event;
pub mod fingerprint;
pub mod json;
pub mod key;
pub mod operate;
pub mod policy;
pub mod probe;
pub mod problem;
pub mod record;
pub mod scope;
pub mod secret;
pub mod settle;
pub mod store;
pub mod time;
pub mod trace;

mod decide;

pub use decide::{Decision, decide};
