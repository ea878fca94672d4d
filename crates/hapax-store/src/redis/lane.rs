//! One server and the connections to it: checked when they are made, dropped after any doubt.
//!
//! A connection serves many calls at once. The client hands answers out in the order in which
//! it sent the questions, and keeps the place of a call that nobody waits for any more, so that
//! an answer cannot reach another call; and each answer names its call. All the same, a
//! connection on which a call failed, was given up or got a strange answer is not used for new
//! calls: what is wrong with it is not known.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use hapax_core::store::Durability;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, ConnectionInfo, Pipeline, Value};
use tokio::time::timeout;

use super::error::{Failure, RedisStoreError};
use super::options::RedisOptions;
use super::scripts::Scripts;
use super::server::{RedisReport, Said, questions};

/// With `WAIT`, calls on one connection go one after the other: more connections then.
const CONNECTIONS_THAT_WAIT: usize = 16;

/// Calls that are handed to a connection before it has sent them.
const BUFFERED_CALLS: usize = 1024;

/// What all connections of a store have in common.
pub(super) struct Setup {
    pub(super) options: RedisOptions,
    pub(super) scripts: Scripts,
    /// What the servers promised when the store was opened.
    pub(super) promised: OnceLock<Durability>,
}

/// One server.
pub(super) struct Server {
    pub(super) info: ConnectionInfo,
    client: Client,
    setup: Arc<Setup>,
    lanes: Vec<Lane>,
    next: AtomicUsize,
    /// Writes that too few replicas have, and the last of them that they are known to have.
    pub(super) doubts: AtomicU64,
    pub(super) resolved: AtomicU64,
}

/// The place of one connection.
#[derive(Default)]
struct Lane {
    current: Mutex<Option<(u64, MultiplexedConnection)>>,
    connecting: tokio::sync::Mutex<()>,
    made: AtomicU64,
    failed: AtomicU64,
}

/// A connection in use: it is dropped unless the call ends well.
pub(super) struct InUse<'a> {
    lane: &'a Lane,
    number: u64,
    is_in_doubt: bool,
}

impl InUse<'_> {
    /// Lets go of the connection for good.
    pub(super) fn discard(mut self) {
        self.is_in_doubt = true;
    }
}

impl Drop for InUse<'_> {
    fn drop(&mut self) {
        if self.is_in_doubt {
            let mut current = self.lane.lock();
            if current
                .as_ref()
                .is_some_and(|(number, _)| *number == self.number)
            {
                *current = None;
            }
        }
    }
}

impl Lane {
    /// Nothing under the lock can panic.
    fn lock(&self) -> std::sync::MutexGuard<'_, Option<(u64, MultiplexedConnection)>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Server {
    pub(super) fn new(info: ConnectionInfo, setup: &Arc<Setup>) -> Result<Self, RedisStoreError> {
        let lanes = match setup.options.replicas {
            0 => setup.options.connections.max(1),
            _ => setup.options.connections.max(CONNECTIONS_THAT_WAIT),
        };
        Ok(Self {
            client: Client::open(info.clone()).map_err(|_| RedisStoreError::Url)?,
            info,
            setup: Arc::clone(setup),
            lanes: (0..lanes).map(|_| Lane::default()).collect(),
            next: AtomicUsize::new(0),
            doubts: AtomicU64::new(0),
            resolved: AtomicU64::new(0),
        })
    }

    /// Whether a connection is there.
    pub(super) fn is_connected(&self) -> bool {
        self.lanes.iter().any(|lane| lane.lock().is_some())
    }

    /// Sends commands in one go and takes their answers, errors of the server among them.
    pub(super) async fn exchange(
        &self,
        commands: &Pipeline,
    ) -> Result<(Vec<Value>, InUse<'_>), Failure> {
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        let Some(lane) = self.lanes.get(turn % self.lanes.len().max(1)) else {
            return Err(Failure::Unconnected(RedisStoreError::Silent));
        };
        let got = self.connection(lane).await;
        let (number, mut connection) = got.map_err(Failure::Unconnected)?;
        let mut in_use = InUse {
            lane,
            number,
            is_in_doubt: true,
        };
        let sending = connection.send_packed_commands(commands, 0, commands.len());
        let answers = sending.await.map_err(Failure::Lost)?;
        // The server has changed its part, or forgotten who we are: look at it anew.
        in_use.is_in_doubt = answers.iter().any(|answer| {
            matches!(answer, Value::ServerError(error)
                if matches!(error.code(), "READONLY" | "MASTERDOWN" | "NOAUTH"))
        });
        Ok((answers, in_use))
    }

    async fn connection(
        &self,
        lane: &Lane,
    ) -> Result<(u64, MultiplexedConnection), RedisStoreError> {
        if let Some(current) = &*lane.lock() {
            return Ok(current.clone());
        }
        let failed = lane.failed.load(Ordering::Acquire);
        let _connecting = lane.connecting.lock().await;
        if let Some(current) = &*lane.lock() {
            return Ok(current.clone());
        }
        if lane.failed.load(Ordering::Acquire) != failed {
            // While this call waited: it need not wait for another try.
            return Err(RedisStoreError::JustTried);
        }
        // Rare, and large: a call that finds a connection should not hold the room for making one.
        match Box::pin(self.connect()).await {
            Ok((connection, _)) => {
                let number = lane.made.fetch_add(1, Ordering::AcqRel);
                *lane.lock() = Some((number, connection.clone()));
                Ok((number, connection))
            }
            Err(error) => {
                lane.failed.fetch_add(1, Ordering::AcqRel);
                Err(error)
            }
        }
    }

    /// Loads the scripts, which a server forgets when somebody tells it to.
    pub(super) async fn load_scripts(&self) -> Result<(), Failure> {
        let (answers, _) = self.exchange(&self.loading()).await?;
        for answer in answers {
            answer.extract_error().map_err(Failure::Server)?;
        }
        Ok(())
    }

    fn loading(&self) -> Pipeline {
        let mut loading = Pipeline::new();
        for program in self.setup.scripts.all() {
            loading.cmd("SCRIPT").arg("LOAD").arg(&program.code);
        }
        loading
    }

    /// Looks at the server, on a connection of its own.
    pub(super) async fn look(&self) -> Result<RedisReport, RedisStoreError> {
        Ok(self.connect().await?.1)
    }

    /// A new connection to a server that will do.
    async fn connect(&self) -> Result<(MultiplexedConnection, RedisReport), RedisStoreError> {
        let patience = self.setup.options.operation_timeout;
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(patience))
            .set_response_timeout(Some(patience))
            .set_pipeline_buffer_size(BUFFERED_CALLS);
        let connecting = async {
            let connecting = self
                .client
                .get_multiplexed_async_connection_with_config(&config);
            let mut connection = connecting.await?;
            let questions = questions(self.setup.options.client_name);
            let asking = connection.send_packed_commands(&questions, 0, questions.len());
            let report = Said::hear(asking.await?)?.judge()?;
            let is_weaker = self.setup.promised.get() == Some(&Durability::Durable)
                && report.durability != Durability::Durable;
            if is_weaker {
                return Err(RedisStoreError::Weakened(report.warnings.join("; ")));
            }
            let loading = self.loading();
            let loaded = connection.send_packed_commands(&loading, 0, loading.len());
            for answer in loaded.await? {
                answer.extract_error()?;
            }
            Ok((connection, report))
        };
        let connected = timeout(patience, connecting).await;
        connected.map_err(|_| RedisStoreError::Silent)?
    }
}
