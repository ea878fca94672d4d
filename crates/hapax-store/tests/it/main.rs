//! The stores against their contract, and against crashes.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::cast_possible_truncation,
    reason = "all of it is tests, and a child process reports on its standard output"
)]

mod contract;
mod crash;
mod damage;
mod full;
mod image;
mod log;
mod model;
mod postgres;
mod postgres_standby;
mod postgres_tls;
mod redis;
mod redis_cluster;
mod redis_failover;
mod redis_servers;
mod restart;
mod servers;
mod support;
mod transfer;
mod transfer_redis;
