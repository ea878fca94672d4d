//! The real binary, from outside: sockets, signals and files, as its users meet it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::disallowed_methods,
    reason = "all of it is tests, and deadlines outside the process are kept by the real clock"
)]

mod client;
mod gateway;
mod operator;
#[path = "../../../hapax-store/tests/it/redis_servers.rs"]
mod redis_servers;
#[path = "../../../hapax-store/tests/it/servers.rs"]
mod servers;
mod support;
mod upstream;

mod access;
mod alerts;
mod answers;
mod at_once;
mod battery;
mod browsing;
mod campaign;
mod carriers;
mod check;
mod clocks;
mod commands;
mod cors;
mod crash_load;
mod damage;
mod demo;
mod failover;
mod hang_up;
mod http2;
mod interim;
mod isolation;
mod kill;
mod lifetime;
mod limits;
mod modes;
mod moving;
mod noise;
mod operations;
mod outage;
mod power;
mod probe;
mod problems;
mod quotas;
mod redis;
mod replay;
mod resolving;
mod shapes;
mod shared;
mod signals;
mod streams;
mod telemetry;
mod traces;
mod unreachable;
