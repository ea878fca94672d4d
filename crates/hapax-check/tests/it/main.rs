//! The checker on servers that are sound, and on servers that break one rule each.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "all of it is tests"
)]

mod commands;
mod controls;
mod flawed;
mod openapi;
mod tls;
