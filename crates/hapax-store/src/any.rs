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

/// As `on_each`, for what is awaited. A future is as large as the largest of what it may become, and is moved
/// whole: those of the stores that ask a server, several kilobytes each, have boxes of their own.
macro_rules! await_each {
    ($any:expr, $store:ident => $call:expr) => {
        match $any {
            #[cfg(feature = "memory")]
            AnyStore::Memory($store) => $call.await,
            #[cfg(feature = "embedded")]
            AnyStore::Embedded($store) => $call.await,
            #[cfg(feature = "postgres")]
            AnyStore::Postgres($store) => Box::pin($call).await,
            #[cfg(feature = "redis")]
            AnyStore::Redis($store) => Box::pin($call).await,
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
        await_each!(self, store => store.insert(key, record))
    }

    async fn replace(
        &self,
        key: &RecordKey,
        expected: ClaimId,
        record: &Record,
    ) -> Result<Write, StoreError> {
        await_each!(self, store => store.replace(key, expected, record))
    }

    async fn remove(&self, key: &RecordKey, expected: ClaimId) -> Result<Write, StoreError> {
        await_each!(self, store => store.remove(key, expected))
    }

    async fn read(&self, key: &RecordKey) -> Result<(Option<Held>, Timestamp), StoreError> {
        await_each!(self, store => store.read(key))
    }

    async fn sweep(&self, limit: usize) -> Result<Swept, StoreError> {
        await_each!(self, store => store.sweep(limit))
    }

    async fn list(
        &self,
        filter: &Filter,
        after: Option<Cursor>,
        limit: usize,
    ) -> Result<Page, StoreError> {
        await_each!(self, store => store.list(filter, after, limit))
    }

    async fn stats(&self) -> Result<Stats, StoreError> {
        await_each!(self, store => store.stats())
    }

    fn secret(&self) -> &Secret {
        on_each!(self, store => store.secret())
    }

    fn durability(&self) -> Durability {
        on_each!(self, store => store.durability())
    }
}

#[cfg(all(
    test,
    feature = "memory",
    feature = "embedded",
    feature = "postgres",
    feature = "redis"
))]
mod tests {
    use super::*;

    /// The size of what `call` returns, which is not called.
    const fn size_of_returned<F>(
        _call: &impl Fn(&'static AnyStore, &'static RecordKey, &'static Record) -> F,
    ) -> usize {
        size_of::<F>()
    }

    #[test]
    fn nobody_moves_the_futures_of_stores_that_he_does_not_use() {
        let claim = ClaimId::from_bytes([0; 16]);
        let insert = size_of_returned(&|store, key, record| store.insert(key, record));
        let replace =
            size_of_returned(&move |store, key, record| store.replace(key, claim, record));
        let remove = size_of_returned(&move |store, key, _| store.remove(key, claim));
        let read = size_of_returned(&|store, key, _| store.read(key));
        for (size, what) in [
            (insert, "insert"),
            (replace, "replace"),
            (remove, "remove"),
            (read, "read"),
        ] {
            assert!(size <= 640, "{what}: {size} bytes");
        }
    }
}
