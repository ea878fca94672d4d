//! What must hold for any bytes: one function a subject, run by the tests over a corpus and its mutations, and by
//! libFuzzer (`fuzz/`, `scripts/fuzz`) for as long as somebody likes.
//!
//! A target takes bytes and panics where a property does not hold. Properties are more than "it does not crash": what
//! was read is written back the same, two readers agree, an error names a place that exists.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "a target tells by a panic that a property does not hold"
)]

mod mutate;
// Parts of the binary are compiled into the targets, and bring their unit tests along; those run with the binary.
#[cfg(not(test))]
mod targets;

pub use mutate::Mutator;
#[cfg(not(test))]
pub use targets::{TARGETS, admin, canonical, codec, config, fields, framing, key};

/// A target: its name, the function, words that its inputs are made of, and how much an ordinary test run does of it.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// As its folder in `corpus/` and its program in `fuzz/` are called.
    pub name: &'static str,
    /// Panics where a property does not hold.
    pub run: fn(&[u8]),
    /// What mutations put in.
    pub words: &'static [&'static str],
    /// Mutations in an ordinary test run: a few seconds' worth.
    pub mutations: usize,
}
