//! The checker on servers that are sound, and on servers that break one rule each.

mod commands;
mod controls;
mod flawed;
mod openapi;
mod tls;
