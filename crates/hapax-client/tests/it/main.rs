//! The Rust client: the shared cases, its fronts over scripted servers, and its outbox over crashes.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    reason = "all of it is tests"
)]

mod outbox;
mod reqwest;
mod server;
mod storm;
mod tower;
mod vectors;
