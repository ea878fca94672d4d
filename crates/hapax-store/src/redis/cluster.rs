//! Which server has which partition: all of them one, or each its share of a Redis Cluster.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use redis::{Cmd, ConnectionAddr, IntoConnectionInfo, Pipeline, Value, cmd};

use super::error::{Failure, Intent, RedisStoreError};
use super::lane::{Server, Setup};
use super::layout::{PARTITIONS, Partition};
use super::options::{GATEWAY, RedisOptions};
use super::scripts::{Program, Scripts};
use super::server::RedisReport;
use super::value::Answer;

/// How often a call is sent again after it was told to go elsewhere, having done nothing.
const TURNS: usize = 4;

/// The servers of a store.
pub(super) struct Cluster {
    setup: Arc<Setup>,
    seed: Arc<Server>,
    map: RwLock<Arc<Map>>,
    refreshing: tokio::sync::Mutex<()>,
    calls: AtomicU64,
}

/// Who has what.
struct Map {
    servers: Vec<Arc<Server>>,
    /// By partition, the place in `servers`.
    owners: Vec<Option<usize>>,
    is_cluster: bool,
}

/// A script's call, ready to be sent.
pub(super) struct Ask {
    partition: Partition,
    call: String,
    command: Cmd,
}

/// What a call names besides its script.
pub(super) struct Asked<'a> {
    pub(super) partition: Partition,
    pub(super) keys: &'a [&'a [u8]],
    pub(super) arguments: &'a [&'a [u8]],
}

impl Cluster {
    /// Finds the servers behind `url` and looks at each.
    pub(super) async fn open(
        url: &str,
        options: RedisOptions,
    ) -> Result<(Self, RedisReport), RedisStoreError> {
        // The client's own message may repeat the URL.
        let info = url
            .into_connection_info()
            .map_err(|_| RedisStoreError::Url)?;
        let setup = Arc::new(Setup {
            scripts: Scripts::new(options.clock()),
            options,
            promised: OnceLock::new(),
        });
        let seed = Arc::new(Server::new(info, &setup)?);
        let first = seed.look().await?;
        let cluster = Self {
            map: RwLock::new(Arc::new(Map {
                servers: vec![Arc::clone(&seed)],
                owners: vec![Some(0); usize::from(PARTITIONS)],
                is_cluster: false,
            })),
            setup,
            seed,
            refreshing: tokio::sync::Mutex::new(()),
            calls: AtomicU64::new(0),
        };
        let map = cluster.ask_for_map(&cluster.seed, &cluster.map()).await?;
        let Some(map) = map else {
            return Ok((cluster, first));
        };
        let mut report: Option<RedisReport> = None;
        for server in &map.servers {
            let of_server = server.look().await?;
            report = Some(match report {
                None => of_server,
                Some(report) => report.and(of_server),
            });
        }
        if let Some(partition) = Partition::all().find(|partition| map.owner(*partition).is_none())
        {
            return Err(RedisStoreError::Uncovered(partition.slot()));
        }
        *cluster.map.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(map);
        Ok((cluster, report.unwrap_or(first)))
    }

    /// From now on, servers must keep what they promise.
    pub(super) fn hold_to(&self, report: &RedisReport) {
        // It is opened once.
        let _ = self.setup.promised.set(report.durability);
    }

    pub(super) fn scripts(&self) -> &Scripts {
        &self.setup.scripts
    }

    pub(super) fn options(&self) -> &RedisOptions {
        &self.setup.options
    }

    /// Whether there are several servers, or could be: a script stays within one partition then.
    pub(super) fn is_cluster(&self) -> bool {
        self.map().is_cluster
    }

    fn map(&self) -> Arc<Map> {
        Arc::clone(&self.map.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// A call with a number of its own.
    pub(super) fn ask(&self, program: &Program, asked: &Asked<'_>) -> Ask {
        let call = self.calls.fetch_add(1, Ordering::Relaxed).to_string();
        let mut command = cmd("EVALSHA");
        command.arg(&program.hash).arg(asked.keys.len());
        for key in asked.keys {
            command.arg(*key);
        }
        command.arg(&call);
        for argument in asked.arguments {
            command.arg(*argument);
        }
        Ask {
            partition: asked.partition,
            call,
            command,
        }
    }

    /// Sends a call to whoever has its partition. A call that did nothing where it came to is
    /// sent on; any other failure is the caller's. While a slot is on its way to another server
    /// (ASK), some of the keys that a script names are here and some there: it cannot be run.
    pub(super) async fn run(&self, intent: Intent, ask: &Ask) -> Result<Answer, Failure> {
        let mut failure = Failure::Strange;
        for _ in 0..TURNS {
            let map = self.map();
            let Some(server) = map.owner(ask.partition) else {
                let slot = ask.partition.slot();
                return Err(Failure::Unconnected(RedisStoreError::Uncovered(slot)));
            };
            failure = match self.send(server, intent, ask).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            match (failure.code(), &failure) {
                // What is rare has a box, so that every call is the smaller for it.
                (Some("MOVED"), _) => Box::pin(self.refresh(&map)).await,
                (Some("NOSCRIPT"), _) => Box::pin(server.load_scripts()).await?,
                (None, Failure::Unconnected(_)) if map.is_cluster => {
                    Box::pin(self.refresh(&map)).await;
                    let moved = self.map();
                    let is_same = moved
                        .owner(ask.partition)
                        .is_some_and(|now| now.info.addr() == server.info.addr());
                    if is_same {
                        return Err(failure);
                    }
                }
                _ => return Err(failure),
            }
        }
        Err(failure)
    }

    /// Sends many calls, those of one server in one go.
    pub(super) async fn run_all(
        &self,
        intent: Intent,
        asks: &[Ask],
    ) -> Result<Vec<Answer>, Failure> {
        let map = self.map();
        let mut answers: Vec<Option<Answer>> = asks.iter().map(|_| None).collect();
        for (place, server) in map.servers.iter().enumerate() {
            let is_its = |ask: &Ask| map.place(ask.partition) == Some(place);
            let mut together = Pipeline::new();
            for ask in asks.iter().filter(|ask| is_its(ask)) {
                together.add_command(ask.command.clone());
            }
            if together.is_empty() {
                continue;
            }
            let (values, in_use) = match server.exchange(&together).await {
                Ok(exchanged) => exchanged,
                // One by one they find out where else to go.
                Err(Failure::Unconnected(_)) if map.is_cluster => continue,
                Err(failure) => return Err(failure),
            };
            let mut values = values.into_iter();
            let places = answers.iter_mut().zip(asks);
            for (answer, ask) in places.filter(|(_, ask)| is_its(ask)) {
                let value = values.next().ok_or(Failure::Strange)?;
                let Ok(value) = value.extract_error() else {
                    continue;
                };
                match Answer::parse(&ask.call, value) {
                    Ok(parsed) => *answer = Some(parsed),
                    Err(failure) => {
                        in_use.discard();
                        return Err(failure);
                    }
                }
            }
        }
        let mut all = Vec::with_capacity(asks.len());
        for (answer, ask) in answers.into_iter().zip(asks) {
            all.push(match answer {
                Some(answer) => answer,
                None => self.run(intent, ask).await?,
            });
        }
        Ok(all)
    }

    /// Sends a call to a server, and waits for replicas where that is asked for.
    async fn send(&self, server: &Server, intent: Intent, ask: &Ask) -> Result<Answer, Failure> {
        let replicas = self.setup.options.replicas;
        let waits = intent == Intent::Write && replicas > 0;
        let mut commands = Pipeline::with_capacity(2);
        commands.add_command(ask.command.clone());
        if waits {
            commands.add_command(self.wait());
        }
        let (values, in_use) = server.exchange(&commands).await?;
        let mut values = values.into_iter();
        let value = values.next().ok_or(Failure::Strange)?;
        let value = value.extract_error().map_err(Failure::Server)?;
        let answer = match Answer::parse(&ask.call, value) {
            Ok(answer) => answer,
            Err(failure) => {
                in_use.discard();
                return Err(failure);
            }
        };
        if waits && !has_reached(replicas, values.next().as_ref()) {
            server.doubts.fetch_add(1, Ordering::AcqRel);
            return Err(Failure::TooFewReplicas);
        }
        Ok(answer)
    }

    fn wait(&self) -> Cmd {
        let options = &self.setup.options;
        // Its answer must come before the connection counts as dead.
        let patience = options.operation_timeout.as_millis() * 3 / 4;
        let mut wait = cmd("WAIT");
        wait.arg(options.replicas)
            .arg(u64::try_from(patience.max(1)).unwrap_or(u64::MAX));
        wait
    }

    /// After a write that too few replicas have: makes sure that they have caught up before
    /// anything is shown.
    pub(super) async fn settle_doubts(
        &self,
        partition: Partition,
        mark: &str,
    ) -> Result<(), Failure> {
        let map = self.map();
        let Some(server) = map.owner(partition) else {
            return Ok(());
        };
        let doubts = server.doubts.load(Ordering::Acquire);
        if server.resolved.load(Ordering::Acquire) >= doubts {
            return Ok(());
        }
        let mut barrier = Pipeline::new();
        barrier.cmd("SET").arg(partition.mark()).arg(mark).arg("XX");
        barrier.add_command(self.wait());
        let (values, _) = server.exchange(&barrier).await?;
        if !has_reached(self.setup.options.replicas, values.get(1)) {
            return Err(Failure::TooFewReplicas);
        }
        server.resolved.fetch_max(doubts, Ordering::AcqRel);
        Ok(())
    }

    /// Bytes of memory that the servers use; 0 where they do not say.
    pub(super) async fn used_memory(&self) -> Result<u64, Failure> {
        let mut used = 0_u64;
        let mut question = Pipeline::new();
        question.cmd("INFO").arg("memory");
        for server in &self.map().servers {
            let (values, _) = server.exchange(&question).await?;
            let text = values.into_iter().next();
            let text = text.and_then(|text| redis::from_redis_value::<String>(text).ok());
            let line = text.as_deref().unwrap_or_default().lines();
            let bytes = line
                .filter_map(|line| line.strip_prefix("used_memory:"))
                .find_map(|bytes| bytes.trim().parse().ok());
            used = used.saturating_add(bytes.unwrap_or(0));
        }
        Ok(used)
    }

    /// The servers, as far as they are known now.
    pub(super) fn servers(&self) -> Vec<Arc<Server>> {
        self.map().servers.clone()
    }

    /// How many connections gateways have; `None` where a server does not say.
    pub(super) async fn connected_gateways(&self) -> Option<i64> {
        let is_gateway = format!(" name={GATEWAY} ");
        let mut question = Pipeline::new();
        question.cmd("CLIENT").arg("LIST");
        let mut connected = 0_i64;
        for server in &self.map().servers {
            let (values, _) = server.exchange(&question).await.ok()?;
            let said = values.into_iter().next()?.extract_error().ok()?;
            let said: String = redis::from_redis_value(said).ok()?;
            let gateways = said.lines().filter(|line| line.contains(&is_gateway));
            connected = connected.saturating_add(i64::try_from(gateways.count()).ok()?);
        }
        Some(connected)
    }

    /// Asks who has what, unless somebody has since `seen`.
    async fn refresh(&self, seen: &Arc<Map>) {
        let _refreshing = self.refreshing.lock().await;
        if !Arc::ptr_eq(&self.map(), seen) {
            return;
        }
        let mut servers: Vec<&Arc<Server>> = seen.servers.iter().chain([&self.seed]).collect();
        servers.sort_by_key(|server| !server.is_connected());
        for server in servers {
            if let Ok(Some(map)) = self.ask_for_map(server, seen).await {
                *self.map.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(map);
                return;
            }
        }
    }

    /// What `server` says of its cluster; `None` when it is in none.
    async fn ask_for_map(
        &self,
        server: &Arc<Server>,
        known: &Map,
    ) -> Result<Option<Map>, RedisStoreError> {
        let mut question = Pipeline::new();
        question.cmd("CLUSTER").arg("SLOTS");
        let answered = match server.exchange(&question).await {
            Ok((values, _)) => values.into_iter().next(),
            Err(Failure::Unconnected(error)) => return Err(error),
            Err(Failure::Lost(error) | Failure::Server(error)) => return Err(error.into()),
            Err(Failure::Strange | Failure::TooFewReplicas) => return Err(RedisStoreError::Silent),
        };
        let Some(Value::Array(ranges)) = answered else {
            return Ok(None);
        };
        let mut map = Map {
            servers: Vec::new(),
            owners: vec![None; usize::from(PARTITIONS)],
            is_cluster: true,
        };
        for range in ranges {
            let Some((from, to, host, port)) = range_of(range) else {
                continue;
            };
            let host = host.as_deref().unwrap_or(host_of(server.info.addr()));
            let address = address_like(server.info.addr(), host, port);
            let is_it = |server: &&Arc<Server>| *server.info.addr() == address;
            let place = map.servers.iter().position(|server| is_it(&server));
            let place = match place {
                Some(place) => place,
                None => {
                    let all_known = known.servers.iter().chain([&self.seed]);
                    let server = match all_known.into_iter().find(is_it) {
                        Some(server) => Arc::clone(server),
                        None => {
                            let info = server.info.clone().set_addr(address);
                            Arc::new(Server::new(info, &self.setup)?)
                        }
                    };
                    map.servers.push(server);
                    map.servers.len() - 1
                }
            };
            for partition in Partition::all() {
                if (from..=to).contains(&partition.slot())
                    && let Some(owner) = map.owners.get_mut(usize::from(partition.0))
                {
                    *owner = Some(place);
                }
            }
        }
        Ok(Some(map))
    }
}

impl Map {
    fn place(&self, partition: Partition) -> Option<usize> {
        self.owners.get(usize::from(partition.0)).copied().flatten()
    }

    fn owner(&self, partition: Partition) -> Option<&Arc<Server>> {
        self.servers.get(self.place(partition)?)
    }
}

/// Whether a `WAIT` says that enough replicas have everything.
fn has_reached(replicas: u32, answer: Option<&Value>) -> bool {
    matches!(answer, Some(Value::Int(count)) if *count >= i64::from(replicas))
}

/// First and last slot, and the primary's host (where it has another than the one we asked) and
/// port.
fn range_of(range: Value) -> Option<(u16, u16, Option<String>, u16)> {
    let Value::Array(parts) = range else {
        return None;
    };
    let mut parts = parts.into_iter();
    let number = |value: Option<Value>| match value {
        Some(Value::Int(number)) => u16::try_from(number).ok(),
        _ => None,
    };
    let from = number(parts.next())?;
    let to = number(parts.next())?;
    let Some(Value::Array(primary)) = parts.next() else {
        return None;
    };
    let mut primary = primary.into_iter();
    let host = match primary.next()? {
        Value::BulkString(host) => String::from_utf8(host).ok(),
        Value::SimpleString(host) => Some(host),
        _ => None,
    };
    let host = host.filter(|host| !host.is_empty() && host != "?");
    Some((from, to, host, number(primary.next())?))
}

fn host_of(address: &ConnectionAddr) -> &str {
    match address {
        ConnectionAddr::Tcp(host, _) | ConnectionAddr::TcpTls { host, .. } => host,
        _ => "",
    }
}

/// Another server, reached in the same way.
fn address_like(like: &ConnectionAddr, host: &str, port: u16) -> ConnectionAddr {
    let host = host.to_owned();
    match like {
        ConnectionAddr::TcpTls {
            insecure,
            tls_params,
            ..
        } => ConnectionAddr::TcpTls {
            host,
            port,
            insecure: *insecure,
            tls_params: tls_params.clone(),
        },
        _ => ConnectionAddr::Tcp(host, port),
    }
}
