//! The targets, each in a file of its subject's name.

mod admin;
mod canonical;
mod codec;
mod config;
mod fields;
mod gateway;
mod key;
mod pieces;

pub use admin::admin;
pub use canonical::canonical;
pub use codec::codec;
pub use config::config;
pub use fields::fields;
pub use gateway::framing;
pub use key::key;

use crate::Target;

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
