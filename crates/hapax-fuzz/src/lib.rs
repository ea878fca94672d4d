//! What must hold for any bytes: one function a subject, run by the tests over a corpus and its mutations, and by
//! cargo-fuzz (`fuzz/`) for as long as somebody likes.
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

mod admin;
mod canonical;
mod codec;
mod config;
mod fields;
mod gateway;
mod key;
mod mutate;
mod pieces;

pub use admin::admin;
pub use canonical::canonical;
pub use codec::codec;
pub use config::config;
pub use fields::fields;
pub use gateway::framing;
pub use key::key;
pub use mutate::Mutator;

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

/// All targets.
pub const TARGETS: [Target; 7] = [
    Target {
        name: "key",
        run: key,
        words: key::WORDS,
        mutations: 100_000,
    },
    Target {
        name: "canonical",
        run: canonical,
        words: canonical::WORDS,
        mutations: 200_000,
    },
    Target {
        name: "codec",
        run: codec,
        words: &[],
        mutations: 30_000,
    },
    Target {
        name: "fields",
        run: fields,
        words: fields::WORDS,
        mutations: 60_000,
    },
    Target {
        name: "framing",
        run: framing,
        words: gateway::WORDS,
        mutations: 300_000,
    },
    Target {
        name: "config",
        run: config,
        words: config::WORDS,
        mutations: 700,
    },
    Target {
        name: "admin",
        run: admin,
        words: admin::WORDS,
        mutations: 60_000,
    },
];
