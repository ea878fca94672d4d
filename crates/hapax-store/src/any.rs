//! The stores behind one type, chosen once at start-up.

use hapax_core::key::RecordKey;
use hapax_core::record::{ClaimId, Held, Record};
use hapax_core::secret::Secret;
use hapax_core::store::{
    Cursor, Durability, Filter, Insert, Page, Stats, Store, StoreError, Swept, Write,
};
use hapax_core::time::Timestamp;

#[cfg(feature = "embedded")]
use crate::embedded::EmbeddedStore;
#[cfg(feature = "memory")]
use crate::memory::MemoryStore;
#[cfg(feature = "postgres")]
use crate::postgres::PostgresStore;
#[cfg(feature = "redis")]
use crate::redis::RedisStore;

/// The store that the configuration names.
#[derive(Debug)]
pub enum AnyStore {
    /// In memory.
    #[cfg(feature = "memory")]
    Memory(MemoryStore),
    /// In a directory of a local disk.
    #[cfg(feature = "embedded")]
    Embedded(EmbeddedStore),
    /// In PostgreSQL.
    #[cfg(feature = "postgres")]
    Postgres(PostgresStore),
    /// In Redis, Valkey or Redis Cluster.
    #[cfg(feature = "redis")]
    Redis(RedisStore),
}

macro_rules! on_each {
    ($any:expr, $store:ident => $call:expr) => {
        match $any {
            #[cfg(feature = "memory")]
            AnyStore::Memory($store) => $call,
            #[cfg(feature = "embedded")]
            AnyStore::Embedded($store) => $call,
            #[cfg(feature = "postgres")]
            AnyStore::Postgres($store) => $call,
            #[cfg(feature = "redis")]
            AnyStore::Redis($store) => $call,
        }
    };
}

impl AnyStore {
    /// The kind's name, as the configuration has it.
    pub const fn kind(&self) -> &'static str {
        match self {
            #[cfg(feature = "memory")]
            Self::Memory(_) => "memory",
            #[cfg(feature = "embedded")]
            Self::Embedded(_) => "embedded",
            #[cfg(feature = "postgres")]
            Self::Postgres(_) => "postgres",
            #[cfg(feature = "redis")]
            Self::Redis(_) => "redis",
        }
    }

    /// What is lost when another server takes over, or this one ends for good.
    pub const fn at_failover(&self) -> &'static str {
        match self {
            #[cfg(feature = "memory")]
            Self::Memory(_) => "all of it goes with this process",
            #[cfg(feature = "embedded")]
            Self::Embedded(_) => "one machine, no failover: all of it goes with its disk",
            #[cfg(feature = "postgres")]
            Self::Postgres(_) => {
                "a failover loses what the new primary has not received, claims among it, and \
                 their retries execute again; nothing with a synchronous standby"
            }
            #[cfg(feature = "redis")]
            Self::Redis(_) => {
                "a failover loses what the new primary has not received, claims among it, and \
                 their retries execute again; redis_wait makes that less likely, not impossible"
            }
        }
    }
}

impl Store for AnyStore {
    async fn insert(&self, key: &RecordKey, record: &Record) -> Result<Insert, StoreError> {
        on_each!(self, store => store.insert(key, record).await)
    }

    async fn replace(
        &self,
        key: &RecordKey,
        expected: ClaimId,
        record: &Record,
    ) -> Result<Write, StoreError> {
        on_each!(self, store => store.replace(key, expected, record).await)
    }

    async fn remove(&self, key: &RecordKey, expected: ClaimId) -> Result<Write, StoreError> {
        on_each!(self, store => store.remove(key, expected).await)
    }

    async fn read(&self, key: &RecordKey) -> Result<(Option<Held>, Timestamp), StoreError> {
        on_each!(self, store => store.read(key).await)
    }

    async fn sweep(&self, limit: usize) -> Result<Swept, StoreError> {
        on_each!(self, store => store.sweep(limit).await)
    }

    async fn list(
        &self,
        filter: &Filter,
        after: Option<Cursor>,
        limit: usize,
    ) -> Result<Page, StoreError> {
        on_each!(self, store => store.list(filter, after, limit).await)
    }

    async fn stats(&self) -> Result<Stats, StoreError> {
        on_each!(self, store => store.stats().await)
    }

    fn secret(&self) -> &Secret {
        on_each!(self, store => store.secret())
    }

    fn durability(&self) -> Durability {
        on_each!(self, store => store.durability())
    }
}
