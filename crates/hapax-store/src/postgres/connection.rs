//! One connection: checked when it is made, discarded after any doubt.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use deadpool::managed::{Manager, Metrics, RecycleError, RecycleResult};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::error::Severity;
use tokio_postgres::{AsyncMessage, Client, Config};

use super::address::Address;
use super::doubts::Doubts;
use super::error::PostgresError;
use super::options::PostgresOptions;
use super::statements::Statements;

/// Settings of a session, where the server has them. Every statement is one of a few that look
/// rows up by an index: a plan made once is right for ever, and one made while the table was
/// small would read all of it when it is large.
const SESSION: &str = "
SELECT set_config(wanted.name, wanted.value, false)
FROM (VALUES ('plan_cache_mode', 'force_generic_plan'), ('enable_seqscan', 'off'),
    ('enable_hashjoin', 'off'), ('enable_mergejoin', 'off'), ('jit', 'off'))
    AS wanted (name, value)
JOIN pg_settings USING (name)";

/// What decides whether the server can be used. Other servers that speak PostgreSQL's protocol
/// do not have all of these settings.
const CHECK: &str = "
SELECT pg_is_in_recovery(), current_setting('fsync', true),
    current_setting('full_page_writes', true), current_setting('synchronous_commit', true),
    COALESCE(current_setting('synchronous_standby_names', true), '') <> ''";

/// Makes connections.
pub(super) struct Connector {
    pub(super) address: Address,
    pub(super) options: PostgresOptions,
    pub(super) doubts: Arc<Doubts>,
    /// The host that was the primary when last one was found: it is asked first.
    last_good: AtomicUsize,
}

/// A connection that may be used.
pub(super) struct Connection {
    pub(super) client: Client,
    pub(super) statements: Statements,
    /// A statement was begun and its end not seen: whoever waited for it has left, or it failed.
    pub(super) is_in_doubt: bool,
    warnings: Arc<AtomicU64>,
    driver: Driver,
}

/// The task that moves a connection's bytes. Closes the socket when it is dropped, even when
/// the server still works on something.
struct Driver(JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Connection {
    /// How many warnings the server has given. While a statement runs alone, a new one is about
    /// that statement.
    pub(super) fn warnings(&self) -> u64 {
        self.warnings.load(Ordering::Acquire)
    }
}

impl Connector {
    pub(super) fn new(url: &str, options: PostgresOptions) -> Result<Self, PostgresError> {
        Ok(Self {
            address: Address::parse(url, &options)?,
            options,
            doubts: Arc::default(),
            last_good: AtomicUsize::new(0),
        })
    }

    /// A session with the primary, ready but for the statements; whichever host that is.
    pub(super) async fn open(&self) -> Result<Session, PostgresError> {
        let hosts = self.address.hosts.len();
        let share = self.options.operation_timeout / u32::try_from(hosts).unwrap_or(u32::MAX);
        let first = self.last_good.load(Ordering::Relaxed);
        let mut failure = None;
        for turn in 0..hosts {
            let number = (first + turn) % hosts;
            let Some(host) = self.address.hosts.get(number) else {
                continue;
            };
            // A host that takes connections and says nothing leaves the others their share.
            // Boxed: a handshake is large, and every future that may connect would hold it.
            match timeout(share, Box::pin(self.open_at(host))).await {
                Ok(Ok(session)) => {
                    self.last_good.store(number, Ordering::Relaxed);
                    return Ok(session);
                }
                Ok(Err(error)) => failure = worse(failure, error),
                Err(_) => {
                    let silent = PostgresError::Unusable("it did not answer in time".to_owned());
                    failure = worse(failure, silent);
                }
            }
        }
        Err(failure.unwrap_or_else(|| PostgresError::Url("it has no host".to_owned())))
    }

    async fn open_at(&self, host: &Config) -> Result<Session, PostgresError> {
        let (client, mut connection) = host.connect(self.address.tls.clone()).await?;
        let warnings = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&warnings);
        // A notice is seen here before the end of the statement it belongs to.
        let driver = Driver(tokio::spawn(async move {
            while let Some(Ok(message)) = poll_fn(|context| connection.poll_message(context)).await
            {
                if let AsyncMessage::Notice(notice) = message
                    && notice.parsed_severity() == Some(Severity::Warning)
                {
                    counter.fetch_add(1, Ordering::AcqRel);
                }
            }
        }));
        self.check(&client).await?;
        Ok(Session {
            client,
            warnings,
            driver,
        })
    }

    /// Refuses a server that cannot keep what it acknowledges, and sets the session up.
    async fn check(&self, client: &Client) -> Result<(), PostgresError> {
        let timeout_ms = self.options.operation_timeout.as_millis();
        let session = format!(
            "SET statement_timeout = {timeout_ms}; SET client_min_messages = warning; \
             SET default_transaction_isolation = 'read committed'"
        );
        client.batch_execute(&session).await?;
        let row = client.query_one(CHECK, &[]).await?;
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
        self.doubts.note_standby(row.try_get(4)?);
        client.query(SESSION, &[]).await?;
        Ok(())
    }
}

/// A checked connection without its statements.
pub(super) struct Session {
    pub(super) client: Client,
    warnings: Arc<AtomicU64>,
    driver: Driver,
}

/// Of the failures of several hosts, the one that says most: a standby is no news where another
/// host should have been the primary.
fn worse(before: Option<PostgresError>, error: PostgresError) -> Option<PostgresError> {
    match (before, error) {
        (Some(before), PostgresError::Standby) => Some(before),
        (_, error) => Some(error),
    }
}

impl Manager for Connector {
    type Type = Connection;
    type Error = PostgresError;

    async fn create(&self) -> Result<Connection, PostgresError> {
        let connecting = async {
            let Session {
                client,
                warnings,
                driver,
            } = self.open().await?;
            Ok(Connection {
                statements: Statements::prepare(&client, self.options.clock()).await?,
                client,
                is_in_doubt: false,
                warnings,
                driver,
            })
        };
        // Rare, and large: a call that finds a connection should not hold the room for making one.
        match timeout(self.options.operation_timeout, Box::pin(connecting)).await {
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
        if connection.is_in_doubt
            || connection.client.is_closed()
            || connection.driver.0.is_finished()
        {
            return Err(RecycleError::message("the connection is in doubt"));
        }
        Ok(())
    }
}
