//! The tables, by version, and their migrations. A migration that was released never changes.

use hapax_core::secret::Secret;
use tokio_postgres::Client;

use super::connection::Connector;
use super::error::PostgresError;
use super::options::PostgresOptions;
use crate::limits::random_secret;

/// What leads from one version to the next: the first makes version 1.
const MIGRATIONS: [&str; 1] = [include_str!("../../migrations/postgres_1.sql")];

/// The version this program works with.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    reason = "there are not that many"
)]
pub(super) const VERSION: i32 = MIGRATIONS.len() as i32;

/// The table that says which version this is, and keeps the secret. It never changes, so that
/// every version can be told from every other.
const META: &str = "CREATE TABLE IF NOT EXISTS hapax_store (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    version INTEGER NOT NULL,
    secret BYTEA NOT NULL
)";

/// Two programs that make the table at the same moment: one of them fails, and finds it made
/// when it tries again.
const ATTEMPTS: usize = 3;

/// What [`migrate`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Migrated {
    /// The version before; 0 when there were no tables.
    pub from: i32,
    /// The version now.
    pub to: i32,
}

/// Brings the tables of the database at `url` to the version of this program. What is done
/// already is not done again; each version is one transaction. Makes the store's secret when
/// there is none.
///
/// # Errors
/// See [`PostgresError`]. Whatever failed can be tried again.
pub async fn migrate(url: &str, options: &PostgresOptions) -> Result<Migrated, PostgresError> {
    let mut session = Connector::new(url, options.clone())?.open().await?;
    let client = &mut session.client;
    // A change of a large table takes as long as it takes.
    client.batch_execute("SET statement_timeout = 0").await?;
    let secret = random_secret()?;
    for _ in 1..ATTEMPTS {
        if client.batch_execute(META).await.is_ok() {
            break;
        }
    }
    client.batch_execute(META).await?;
    let insert = "INSERT INTO hapax_store (id, version, secret) VALUES (1, 0, $1) ON CONFLICT (id) DO NOTHING";
    client
        .execute(insert, &[&secret.as_bytes().as_slice()])
        .await?;
    let mut from = None;
    loop {
        let transaction = client.transaction().await?;
        // Whoever else migrates waits here.
        let lock = "SELECT version FROM hapax_store WHERE id = 1 FOR UPDATE";
        let version: i32 = transaction.query_one(lock, &[]).await?.try_get(0)?;
        let from = *from.get_or_insert(version);
        let next = usize::try_from(version)
            .ok()
            .and_then(|version| MIGRATIONS.get(version));
        let Some(migration) = next else {
            return match version {
                VERSION => Ok(Migrated { from, to: VERSION }),
                found => Err(PostgresError::Newer {
                    found,
                    known: VERSION,
                }),
            };
        };
        transaction.batch_execute(migration).await?;
        let update = "UPDATE hapax_store SET version = version + 1 WHERE id = 1";
        transaction.execute(update, &[]).await?;
        transaction.commit().await?;
    }
}

/// The store's secret, when the tables have the version of this program.
pub(super) async fn check(client: &Client) -> Result<Secret, PostgresError> {
    let unmigrated = |found| PostgresError::Unmigrated {
        found,
        needed: VERSION,
    };
    let there = client
        .query_one("SELECT to_regclass('hapax_store') IS NOT NULL", &[])
        .await?;
    if !there.try_get::<_, bool>(0)? {
        return Err(unmigrated(0));
    }
    let select = "SELECT version, secret FROM hapax_store WHERE id = 1";
    let Some(row) = client.query_opt(select, &[]).await? else {
        return Err(unmigrated(0));
    };
    let version: i32 = row.try_get(0)?;
    if version > VERSION {
        return Err(PostgresError::Newer {
            found: version,
            known: VERSION,
        });
    }
    if version < VERSION {
        return Err(unmigrated(version));
    }
    let secret: &[u8] = row.try_get(1)?;
    let secret = secret.try_into().map_err(|_| PostgresError::Secret)?;
    Ok(Secret::from_bytes(secret))
}
