//! Checks from outside whether an HTTP API is safe to retry.
//!
//! A request is sent with faults between the checker and the target: answers are lost, requests are cut short,
//! repeats overtake each other. What was sent and what came of it is a history, and a pure judge holds it against the rules
//! of a profile. Effects are counted by the target itself, or inferred from the identity of what its answers name; what cannot be
//! told is inconclusive and never passed.
//!
//! Keys, payloads, order and cut points come from one seed.

mod answer;
#[cfg(feature = "campaign")]
pub mod campaign;
mod count;
mod drive;
pub mod evidence;
mod fault;
mod history;
mod judge;
mod message;
mod openapi;
mod options;
mod random;
mod report;
pub mod rules;
mod run;
mod secure;
mod start;
mod target;
mod template;
mod wire;

pub use fault::Fault;
pub use options::{CheckError, OpenApi, Options};
pub use report::{Outcome, Report, Tone};
pub use rules::{Grade, Profile, Rule};
pub use run::check;
