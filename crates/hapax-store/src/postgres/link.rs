//! The way to the server: statements over a pool of connections.

use std::sync::Arc;
use std::time::Duration;

use deadpool::Runtime;
use deadpool::managed::{Object, Pool};
use hapax_core::secret::Secret;
use hapax_core::store::StoreError;
use tokio::sync::Mutex;
use tokio::time::timeout;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Row, Statement};

use super::connection::Connector;
use super::doubts::Doubts;
use super::error::{Failure, Intent, PostgresError, of_pool};
use super::options::PostgresOptions;
use super::schema;
use super::statements::Statements;
use crate::observer::StoreObserver;

/// The server gives up on a statement by itself, and says so: this is how much later a silent
/// one is given up on.
const GRACE: Duration = Duration::from_millis(500);

pub(super) type Parameters<'a> = &'a [&'a (dyn ToSql + Sync)];

/// A server, through as many connections as it takes.
pub(super) struct Link {
    pub(super) observer: Arc<dyn StoreObserver>,
    pool: Pool<Connector>,
    operation_timeout: Duration,
    doubts: Arc<Doubts>,
    settling: Mutex<()>,
}

impl Link {
    /// Connects, checks the schema, and brings the store's secret along.
    pub(super) async fn open(
        url: &str,
        options: PostgresOptions,
    ) -> Result<(Self, Secret), PostgresError> {
        let operation_timeout = options.operation_timeout;
        let observer = Arc::clone(&options.observer);
        let connections = options.connections.max(1);
        let connector = Connector::new(url, options)?;
        let doubts = Arc::clone(&connector.doubts);
        let secret = schema::check(&connector.open().await?.client).await?;
        let pool = Pool::builder(connector)
            .max_size(connections)
            .wait_timeout(Some(operation_timeout))
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(|error| PostgresError::Unusable(error.to_string()))?;
        // Now, rather than with the first request: a server that cannot be used ends the start.
        drop(pool.get().await.map_err(of_pool)?);
        let link = Self {
            observer,
            pool,
            operation_timeout,
            doubts,
            settling: Mutex::default(),
        };
        Ok((link, secret))
    }

    /// A connection, for statements that are not of every day.
    pub(super) async fn client(&self) -> Result<Object<Connector>, PostgresError> {
        self.pool.get().await.map_err(of_pool)
    }

    /// Runs one statement. A connection whose statement fails, or is no longer waited for, is
    /// not used again.
    pub(super) async fn run(
        &self,
        intent: Intent,
        statement: fn(&Statements) -> &Statement,
        parameters: Parameters<'_>,
    ) -> Result<Vec<Row>, Failure> {
        let connection: Result<Object<Connector>, _> = self.pool.get().await;
        let mut connection = connection.map_err(Failure::unconnected)?;
        let warnings = connection.warnings();
        connection.is_in_doubt = true;
        let mut writing = match intent {
            Intent::Write => Some(self.doubts.write()),
            Intent::Read => None,
        };
        let asking = connection
            .client
            .query(statement(&connection.statements), parameters);
        let asked = timeout(self.operation_timeout + GRACE, asking).await;
        let ended = match asked {
            Err(_) => Err(Failure::Silent),
            Ok(Err(error)) => Err(Failure::failed(error)),
            // The one warning a commit gives: the wait for a synchronous standby was cancelled.
            // It is committed here, and a failover may still lose it.
            Ok(Ok(_)) if writing.is_some() && connection.warnings() != warnings => {
                Err(Failure::Unreplicated)
            }
            Ok(Ok(rows)) => Ok(rows),
        };
        let is_known = match &ended {
            Ok(_) => {
                connection.is_in_doubt = false;
                true
            }
            Err(failure) => failure.is_rolled_back(),
        };
        if let (Some(writing), true) = (&mut writing, is_known) {
            writing.is_over();
        }
        ended
    }

    /// [`Link::run`], for whoever asks alone.
    pub(super) async fn rows(
        &self,
        intent: Intent,
        statement: fn(&Statements) -> &Statement,
        parameters: Parameters<'_>,
    ) -> Result<Vec<Row>, StoreError> {
        let ended = self.run(intent, statement, parameters).await;
        ended.map_err(|failure| failure.means(intent))
    }

    /// Where a failover may still lose what was found: shows nothing before everything that was
    /// committed has reached the standby. What is shown must have been read before this.
    pub(super) async fn settle(&self) -> Result<(), StoreError> {
        self.doubts.look();
        if self.doubts.are_resolved(self.doubts.raised()) {
            return Ok(());
        }
        let raised = self.doubts.raised();
        // One for all who wait: they would queue for the same row at the server.
        let _alone = self.settling.lock().await;
        if self.doubts.are_resolved(raised) {
            return Ok(());
        }
        let raised = self.doubts.raised();
        let barrier = self.rows(Intent::Write, |all| &all.barrier, &[]).await;
        barrier.map_err(|error| StoreError::Refused {
            reason: "the standby has not confirmed earlier commits",
            source: Some(Box::new(error)),
        })?;
        self.doubts.resolve(raised);
        Ok(())
    }
}
