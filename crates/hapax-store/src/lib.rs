//! Stores: durable memories of records that keep the contract of [`hapax_core::store`].
//!
//! - `memory`: [`MemoryStore`], for tests and trials; forgets everything when it ends,
//! - `embedded`: [`EmbeddedStore`], a directory on a local disk, durable,
//! - `postgres`: [`PostgresStore`], shared by several gateways, durable (feature `postgres`),
//! - `redis`: [`RedisStore`], shared by several gateways, as durable as its servers (feature
//!   `redis`),
//! - [`AnyStore`]: the one of them that the configuration names,
//! - [`transfer`]: a store's records taken to a file and back, or to another store,
//! - `conformance`: the suite that every store passes,
//! - `faulty`: a decorator that fails by a script (feature `fault-injection`).

#[cfg(feature = "conformance")]
pub mod conformance;

mod any;
mod clock;
#[cfg(feature = "embedded")]
mod embedded;
#[cfg(feature = "fault-injection")]
mod faulty;
mod gauges;
mod limits;
#[cfg(feature = "memory")]
mod memory;
#[cfg(any(feature = "embedded", feature = "postgres"))]
mod observer;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "redis")]
mod redis;
#[cfg(any(feature = "postgres", feature = "redis"))]
mod shared;
pub mod transfer;

pub use any::AnyStore;
pub use clock::{ManualClock, SystemClock};
#[cfg(all(feature = "embedded", feature = "fault-injection"))]
pub use embedded::Faults;
#[cfg(feature = "embedded")]
pub use embedded::{EmbeddedRestore, EmbeddedStore, Health, OpenError, Options};
#[cfg(feature = "fault-injection")]
pub use faulty::{Fault, FaultyStore, On};
pub use limits::{Limits, random_secret};
#[cfg(feature = "memory")]
pub use memory::MemoryStore;
#[cfg(any(feature = "embedded", feature = "postgres"))]
pub use observer::{NoObserver, StoreObserver};
#[cfg(feature = "postgres")]
pub use postgres::{
    Migrated, PostgresError, PostgresOptions, PostgresRestore, PostgresStore,
    migrate as migrate_postgres,
};
#[cfg(feature = "redis")]
pub use redis::{RedisOptions, RedisReport, RedisRestore, RedisStore, RedisStoreError};
