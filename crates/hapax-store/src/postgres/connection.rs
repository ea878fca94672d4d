//! One connection: checked when it is made, discarded after any doubt.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use deadpool::managed::{Manager, Metrics, RecycleError, RecycleResult};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::error::Severity;
use tokio_postgres::{AsyncMessage, Client, Config, NoTls};

use super::error::PostgresError;
use super::options::PostgresOptions;
use super::statements::Statements;

/// How long a silent connection is trusted before the system asks the other side.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(30);

/// The settings of connections to `url`.
pub(super) fn configure(url: &str, options: &PostgresOptions) -> Result<Config, PostgresError> {
    // The parser's messages name the faulty option, never its value.
    let mut config: Config = url.parse().map_err(|error: tokio_postgres::Error| {
        PostgresError::Url(super::error::with_causes(&error))
    })?;
    if config.get_application_name().is_none() {
        config.application_name(options.application_name);
    }
    if config.get_connect_timeout().is_none() {
        config.connect_timeout(options.operation_timeout);
    }
    config.keepalives_idle(KEEPALIVE_AFTER);
    if config.get_tcp_user_timeout().is_none() {
        config.tcp_user_timeout(options.operation_timeout);
    }
    Ok(config)
}

/// Makes connections.
pub(super) struct Connector {
    pub(super) config: Config,
    pub(super) options: PostgresOptions,
}

/// A connection that may be used.
pub(super) struct Connection {
    pub(super) client: Client,
    pub(super) statements: Statements,
    /// A statement was begun and its end not seen: whoever waited for it has left, or it failed.
    pub(super) is_in_doubt: bool,
    warnings: Arc<AtomicU64>,
    driver: JoinHandle<()>,
}

impl Connection {
    /// How many warnings the server has given. While a statement runs alone, a new one is about
    /// that statement.
    pub(super) fn warnings(&self) -> u64 {
        self.warnings.load(Ordering::Acquire)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // Closes the socket even when the server still works on something.
        self.driver.abort();
    }
}

impl Connector {
    pub(super) async fn connect(&self) -> Result<Connection, PostgresError> {
        let (client, mut connection) = self.config.connect(NoTls).await?;
        let warnings = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&warnings);
        // A notice is seen here before the end of the statement it belongs to.
        let driver = tokio::spawn(async move {
            while let Some(Ok(message)) = poll_fn(|context| connection.poll_message(context)).await
            {
                if let AsyncMessage::Notice(notice) = message
                    && notice.parsed_severity() == Some(Severity::Warning)
                {
                    counter.fetch_add(1, Ordering::AcqRel);
                }
            }
        });
        let prepared = self.prepare(&client).await;
        let statements = match prepared {
            Ok(statements) => statements,
            Err(error) => {
                driver.abort();
                return Err(error);
            }
        };
        Ok(Connection {
            client,
            statements,
            is_in_doubt: false,
            warnings,
            driver,
        })
    }

    async fn prepare(&self, client: &Client) -> Result<Statements, PostgresError> {
        let timeout_ms = self.options.operation_timeout.as_millis();
        let session = format!(
            "SET statement_timeout = {timeout_ms}; SET client_min_messages = warning; \
             SET default_transaction_isolation = 'read committed'"
        );
        client.batch_execute(&session).await?;
        // Other servers that speak PostgreSQL's protocol do not have all of these settings.
        let select = "SELECT pg_is_in_recovery(), current_setting('fsync', true),
            current_setting('full_page_writes', true), current_setting('synchronous_commit', true)";
        let row = client.query_one(select, &[]).await?;
        if row.try_get(0)? {
            return Err(PostgresError::Standby);
        }
        for (column, setting) in [
            (1, "fsync"),
            (2, "full_page_writes"),
            (3, "synchronous_commit"),
        ] {
            let value: Option<&str> = row.try_get(column)?;
            if let Some(value @ "off") = value {
                return Err(PostgresError::Unsafe {
                    setting,
                    value: value.to_owned(),
                });
            }
        }
        Ok(Statements::prepare(client, self.options.clock()).await?)
    }
}

impl Manager for Connector {
    type Type = Connection;
    type Error = PostgresError;

    async fn create(&self) -> Result<Connection, PostgresError> {
        match timeout(self.options.operation_timeout, self.connect()).await {
            Ok(connected) => connected,
            Err(_) => Err(PostgresError::Unusable(
                "it did not answer in time".to_owned(),
            )),
        }
    }

    async fn recycle(
        &self,
        connection: &mut Connection,
        _: &Metrics,
    ) -> RecycleResult<PostgresError> {
        if connection.is_in_doubt || connection.client.is_closed() {
            return Err(RecycleError::message("the connection is in doubt"));
        }
        Ok(())
    }
}
