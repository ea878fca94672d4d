//! Claim and complete pairs on a shared store, beside the bare server.
//!
//! `cargo bench -p hapax-store --bench shared -- postgres` starts a server of its own.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs,
    reason = "a measurement, not a product"
)]

mod postgres;
#[path = "../../tests/it/servers.rs"]
#[allow(dead_code, reason = "the tests use more of it")]
mod servers;

fn main() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for word in std::env::args().skip(1) {
        if word == "postgres" {
            runtime.block_on(postgres::run());
        }
    }
}
