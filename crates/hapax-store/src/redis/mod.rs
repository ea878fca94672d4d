//! A store in Redis, Valkey or Redis Cluster, shared by any number of gateways.
//!
//! - `options`: what it can be told,
//! - `layout`: the keys, by partitions that a cluster can place,
//! - `scripts`: one script a method, each within one partition,
//! - `value`: a record as a string, and what the scripts answer,
//! - `server`: what a server says about itself, and whether that will do,
//! - `lane`: one connection: checked when it is made, dropped after any doubt,
//! - `cluster`: which server has which partition,
//! - `together`: writes that wait together, in one script,
//! - `error`: what a failure means for what was asked,
//! - `store`: the contract,
//! - `restore`: fills a vacant store,
//! - `upkeep`: its parts that go through all partitions.

mod cluster;
mod error;
mod lane;
mod layout;
mod options;
mod restore;
mod scripts;
mod server;
mod store;
mod together;
mod upkeep;
mod value;

pub use error::RedisStoreError;
pub use options::RedisOptions;
pub use restore::RedisRestore;
pub use server::RedisReport;
pub use store::RedisStore;
