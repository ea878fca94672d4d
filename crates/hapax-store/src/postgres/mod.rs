//! A store in PostgreSQL, shared by any number of gateways.
//!
//! - `options`: what it can be told,
//! - `address`, `tls`: a URL as what connects to each of its hosts,
//! - `schema`: the tables, by version, and their migrations,
//! - `connection`: one connection: checked when it is made, discarded after any doubt,
//! - `doubts`: what may be committed here and not be on the standby,
//! - `link`: statements over a pool of connections,
//! - `statements`: every statement,
//! - `batch`, `operations`: what waits together is done together,
//! - `value`: a record as a row,
//! - `restore`: fills a vacant store with the records of another,
//! - `damaged`: the keys whose records are damaged,
//! - `error`: what a failure means for what was asked,
//! - `store`: the contract.
//!
//! Plain SQL only: no advisory locks, no LISTEN, nothing that lives in a session.

mod address;
mod batch;
mod connection;
mod damaged;
mod doubts;
mod error;
mod link;
mod operations;
mod options;
mod restore;
mod schema;
mod statements;
mod store;
mod tls;
mod value;

pub use error::PostgresError;
pub use options::PostgresOptions;
pub use restore::PostgresRestore;
pub use schema::{Migrated, migrate};
pub use store::PostgresStore;
