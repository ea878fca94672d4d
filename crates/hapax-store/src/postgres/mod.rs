//! A store in PostgreSQL, shared by any number of gateways.
//!
//! - `options`: what it can be told,
//! - `schema`: the tables, by version, and their migrations,
//! - `connection`: one connection: checked when it is made, discarded after any doubt,
//! - `statements`: every statement,
//! - `value`: a record as a row,
//! - `restore`: fills a vacant store with the records of another,
//! - `error`: what a failure means for what was asked,
//! - `store`: the contract.
//!
//! Plain SQL only: no advisory locks, no LISTEN, nothing that lives in a session.

mod connection;
mod error;
mod options;
mod restore;
mod schema;
mod statements;
mod store;
mod value;

pub use error::PostgresError;
pub use options::PostgresOptions;
pub use restore::PostgresRestore;
pub use schema::{Migrated, migrate};
pub use store::PostgresStore;
