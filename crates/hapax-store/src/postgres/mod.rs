//! A store in PostgreSQL, shared by any number of gateways.
//!
//! - `options`: what it can be told,
//! - `schema`: the tables, by version, and their migrations,
//! - `connection`: one connection: checked when it is made, discarded after any doubt,
//! - `statements`: every statement,
//! - `value`: a record as a row,
//! - `error`: what a failure means for what was asked,
//! - `store`: the contract.
//!
//! Plain SQL only: no advisory locks, no LISTEN, nothing that lives in a session.

mod connection;
mod error;
mod options;
mod schema;
mod statements;
mod store;
mod value;

pub use error::PostgresError;
pub use options::PostgresOptions;
pub use schema::{Migrated, migrate};
pub use store::PostgresStore;
