//! Opens the store that the configuration names, and prepares a shared one.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::runtime::Runtime;

use hapax_store::{
    AnyStore, EmbeddedStore, Limits, MemoryStore, Migrated, OpenError, Options, PostgresError,
    PostgresOptions, PostgresStore, RedisOptions, RedisReport, RedisStore, RedisStoreError,
    SystemClock, migrate_postgres, random_secret,
};

use crate::config::{StoreKind, StoreSettings, StoreUrl};
use crate::telemetry::{Metrics, StoreMetrics};

/// Far above any URL; stops a wrong path from filling memory.
const LONGEST_URL: u64 = 16 * 1024;

/// Why a store cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreFailure {
    /// The embedded store.
    #[error("cannot open the store {path}: {source}")]
    Embedded {
        /// Where it is.
        path: String,
        /// Why not.
        source: OpenError,
    },
    /// The store in PostgreSQL.
    #[error("cannot open the store in PostgreSQL: {0}")]
    Postgres(#[from] PostgresError),
    /// The store in Redis.
    #[error("cannot open the store in Redis: {0}")]
    Redis(#[from] RedisStoreError),
    /// The file with the URL cannot be read.
    #[error("cannot read {path}: {source}")]
    UrlFile {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// What is in that file. The message has nothing of it.
    #[error("{path}: {message}")]
    Url {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// There is nothing to look at.
    #[error("a store in memory ends with its gateway")]
    InMemory,
    /// This kind of store needs no preparation.
    #[error("the store `{0}` needs no migration")]
    NothingToMigrate(&'static str),
    /// The system refuses something that every process gets.
    #[error("the system refuses {what}: {source}")]
    System {
        /// What.
        what: &'static str,
        /// Why.
        source: std::io::Error,
    },
}

/// Opens the store. What blocks has nothing to wait for it: nobody is served yet.
pub(crate) fn open(
    settings: &StoreSettings,
    metrics: &Arc<Metrics>,
    runtime: &Runtime,
) -> Result<AnyStore, StoreFailure> {
    match settings.kind {
        StoreKind::Memory => {
            let secret = random_secret().map_err(|error| StoreFailure::System {
                what: "randomness",
                source: std::io::Error::other(error),
            })?;
            let clock = Arc::new(SystemClock::new());
            let store = MemoryStore::new(clock, limits(settings), secret);
            Ok(AnyStore::Memory(store))
        }
        StoreKind::Embedded => open_embedded(settings, metrics).map(AnyStore::Embedded),
        StoreKind::Postgres => {
            let url = url(settings)?;
            let options = PostgresOptions {
                observer: Arc::new(StoreMetrics(Arc::clone(metrics))),
                ..postgres_options(settings)
            };
            let opening = PostgresStore::open(url.secret(), options);
            Ok(AnyStore::Postgres(runtime.block_on(opening)?))
        }
        StoreKind::Redis => {
            let url = url(settings)?;
            let opening = RedisStore::open(url.secret(), redis_options(settings));
            let store = runtime.block_on(opening)?;
            for warning in &store.report().warnings {
                tracing::warn!(store = "redis", "{warning}");
            }
            Ok(AnyStore::Redis(store))
        }
    }
}

/// Opens the store for a command that looks at it.
pub(crate) fn open_for_command(
    settings: &StoreSettings,
    runtime: &Runtime,
) -> Result<AnyStore, StoreFailure> {
    match settings.kind {
        StoreKind::Memory => Err(StoreFailure::InMemory),
        StoreKind::Embedded => EmbeddedStore::open(&settings.path, Options::default())
            .map(AnyStore::Embedded)
            .map_err(|source| StoreFailure::Embedded {
                path: settings.path.display().to_string(),
                source,
            }),
        StoreKind::Postgres => {
            let (url, options) = postgres_for_command(settings)?;
            let opening = PostgresStore::open(url.secret(), options);
            Ok(AnyStore::Postgres(runtime.block_on(opening)?))
        }
        StoreKind::Redis => {
            let (url, options) = redis_for_command(settings)?;
            let opening = RedisStore::open(url.secret(), options);
            Ok(AnyStore::Redis(runtime.block_on(opening)?))
        }
    }
}

/// Where a store in PostgreSQL is and how a command speaks to it. A command is not a gateway,
/// and does not call itself one at the server.
pub(crate) fn postgres_for_command(
    settings: &StoreSettings,
) -> Result<(StoreUrl, PostgresOptions), StoreFailure> {
    let options = PostgresOptions {
        application_name: "hapax store",
        ..postgres_options(settings)
    };
    Ok((url(settings)?, options))
}

/// The same for a store in Redis.
pub(crate) fn redis_for_command(
    settings: &StoreSettings,
) -> Result<(StoreUrl, RedisOptions), StoreFailure> {
    let options = RedisOptions {
        client_name: "hapax-store",
        ..redis_options(settings)
    };
    Ok((url(settings)?, options))
}

/// Brings a shared store to the version of this program.
pub(crate) fn migrate(settings: &StoreSettings) -> Result<Migrated, StoreFailure> {
    match settings.kind {
        StoreKind::Postgres => {
            let url = url(settings)?;
            let options = postgres_options(settings);
            let migrating = migrate_postgres(url.secret(), &options);
            Ok(small_runtime()?.block_on(migrating)?)
        }
        StoreKind::Embedded => Err(StoreFailure::NothingToMigrate("embedded")),
        StoreKind::Redis => Err(StoreFailure::NothingToMigrate("redis")),
        StoreKind::Memory => Err(StoreFailure::NothingToMigrate("memory")),
    }
}

/// Looks at the servers of a store in Redis, and writes nothing.
pub(crate) fn inspect_redis(settings: &StoreSettings) -> Result<RedisReport, StoreFailure> {
    let (url, options) = redis_for_command(settings)?;
    let inspecting = RedisStore::inspect(url.secret(), options);
    Ok(small_runtime()?.block_on(inspecting)?)
}

/// A runtime for one thing to do.
fn small_runtime() -> Result<Runtime, StoreFailure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| StoreFailure::System {
            what: "a runtime",
            source,
        })
}

fn open_embedded(
    settings: &StoreSettings,
    metrics: &Arc<Metrics>,
) -> Result<EmbeddedStore, StoreFailure> {
    let options = Options {
        limits: limits(settings),
        min_free_disk: settings.min_free_disk.unwrap_or(0),
        observer: Arc::new(StoreMetrics(Arc::clone(metrics))),
        ..Options::default()
    };
    let store =
        EmbeddedStore::open(&settings.path, options).map_err(|source| StoreFailure::Embedded {
            path: settings.path.display().to_string(),
            source,
        })?;
    if store.interrupted() > 0 {
        tracing::warn!(
            records = store.interrupted(),
            "operations of the previous process were under way when it ended: their outcome is unknown"
        );
    }
    Ok(store)
}

fn limits(settings: &StoreSettings) -> Limits {
    Limits {
        max_records: settings.max_records.unwrap_or(0),
        max_bytes: settings.max_bytes.unwrap_or(0),
    }
}

fn postgres_options(settings: &StoreSettings) -> PostgresOptions {
    PostgresOptions {
        limits: limits(settings),
        operation_timeout: settings.operation_timeout,
        ..PostgresOptions::default()
    }
}

fn redis_options(settings: &StoreSettings) -> RedisOptions {
    RedisOptions {
        limits: limits(settings),
        operation_timeout: settings.operation_timeout,
        replicas: settings.redis_wait,
        ..RedisOptions::default()
    }
}

/// The URL of a shared store: the configuration's own, or the first line of its file.
fn url(settings: &StoreSettings) -> Result<StoreUrl, StoreFailure> {
    if let Some(url) = &settings.url {
        return Ok(url.clone());
    }
    // Checked when the settings were loaded: there is one or the other.
    let path = settings.url_file.clone().unwrap_or_default();
    let text = read(&path).map_err(|source| StoreFailure::UrlFile {
        path: path.clone(),
        source,
    })?;
    let url = StoreUrl::parse(text.lines().next().unwrap_or_default().trim());
    let fitting = url.and_then(|url| match url.kind() == Some(settings.kind) {
        true => Ok(url),
        false => Err("the URL leads to a store of another kind".to_owned()),
    });
    fitting.map_err(|message| StoreFailure::Url { path, message })
}

fn read(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    let file = std::fs::File::open(path)?;
    file.take(LONGEST_URL).read_to_string(&mut text)?;
    Ok(text)
}
