//! The store in a Redis Cluster of three real servers.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use hapax_core::store::{Filter, Store, StoreError};
use hapax_store::conformance::{self, ClockControl, sample};
use hapax_store::{RedisOptions, RedisStore};

use crate::redis_servers::{RedisClient, RedisServer, eventually, free_port};
use crate::support::{START, claim, complete, read};

/// The first slot of each server, and the end.
const BOUNDS: [u32; 4] = [0, 5461, 10_923, 16_384];

pub(crate) struct Cluster {
    pub(crate) servers: Vec<RedisServer>,
}

impl Cluster {
    /// Three primaries that have found together.
    pub(crate) fn start() -> Self {
        let servers: Vec<RedisServer> = (0..3).map(|_| node()).collect();
        for (server, bounds) in servers.iter().zip(BOUNDS.windows(2)) {
            let (from, to) = (bounds[0].to_string(), (bounds[1] - 1).to_string());
            let mut client = server.client();
            let added = client.command(&["CLUSTER", "ADDSLOTSRANGE", &from, &to]);
            assert_eq!(added, "OK");
        }
        let cluster = Self { servers };
        for met in &cluster.servers[1..] {
            cluster.meet(met);
        }
        eventually("a whole cluster", || {
            let is_whole = |server: &RedisServer| {
                let info = server.client().command(&["CLUSTER", "INFO"]);
                info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:3")
            };
            cluster.servers.iter().all(is_whole).then_some(())
        });
        cluster
    }

    fn meet(&self, node: &RedisServer) {
        let bus = node.client().command(&["CONFIG", "GET", "cluster-port"]);
        let bus = bus.lines().last().expect("a port").to_owned();
        let port = node.port().to_string();
        let mut client = self.servers[0].client();
        let meeting = client.command(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus]);
        assert_eq!(meeting, "OK");
    }

    /// A replica of one of the servers, which everybody knows and which has everything.
    pub(crate) fn replica_of(&self, server: usize) -> RedisServer {
        let replica = node();
        self.meet(&replica);
        let id = self.id(server);
        eventually("a replica", || {
            let told = replica.client().command(&["CLUSTER", "REPLICATE", &id]);
            (told == "OK").then_some(())
        });
        eventually("a replica that has everything and is known", || {
            let info = replica.client().command(&["INFO", "replication"]);
            let is_known = |server: &RedisServer| {
                let nodes = server.client().command(&["CLUSTER", "NODES"]);
                nodes.lines().filter(|node| node.contains("slave")).count() == 1
            };
            let is_ready = info.contains("master_link_status:up");
            (is_ready && self.servers.iter().all(is_known)).then_some(())
        });
        replica
    }

    /// Which server has the keys of a partition.
    pub(crate) fn owner(&self, partition: u8) -> usize {
        let key = clock_of(partition);
        let slot = self.servers[1]
            .client()
            .command(&["CLUSTER", "KEYSLOT", &key]);
        let slot: u32 = slot.parse().expect("a slot");
        let is_it = |server: &usize| slot < BOUNDS[server + 1];
        (0..3).find(is_it).expect("one")
    }

    fn clients(&self) -> Vec<RedisClient> {
        self.servers.iter().map(RedisServer::client).collect()
    }

    fn id(&self, server: usize) -> String {
        self.servers[server].client().command(&["CLUSTER", "MYID"])
    }

    async fn open(&self) -> RedisStore {
        let store = RedisStore::open(&self.servers[1].url(), RedisOptions::default()).await;
        store.expect("it opens")
    }
}

/// A server that can be one of a cluster.
fn node() -> RedisServer {
    let bus = free_port().to_string();
    RedisServer::with(&[
        "--cluster-enabled",
        "yes",
        "--cluster-port",
        &bus,
        "--cluster-node-timeout",
        "2000",
        "--repl-diskless-sync-delay",
        "0",
    ])
}

/// A clock in a key of every partition; with each partition's server.
struct ClusterClock(Arc<Mutex<(Vec<RedisClient>, Vec<usize>)>>);

impl ClusterClock {
    fn of(cluster: &Cluster) -> Self {
        let mut clients = cluster.clients();
        let owners = (0..=u8::MAX).map(|partition| {
            let key = clock_of(partition);
            let slot = clients[0].command(&["CLUSTER", "KEYSLOT", &key]);
            let slot: u32 = slot.parse().expect("a slot");
            (0..3)
                .find(|server| slot < BOUNDS[server + 1])
                .expect("one")
        });
        let owners = owners.collect();
        Self(Arc::new(Mutex::new((clients, owners))))
    }

    /// Tells all partitions.
    fn tell(&self, command: &str, value: &str) {
        let mut inner = self.0.lock().expect("no panic");
        let (clients, owners) = &mut *inner;
        for (partition, owner) in (0..=u8::MAX).zip(owners) {
            let told = clients[*owner].command(&[command, &clock_of(partition), value]);
            assert!(!told.starts_with("MOVED"), "{told}");
        }
    }
}

fn clock_of(partition: u8) -> String {
    format!("hapax:{{{partition:02x}}}:clock")
}

impl ClockControl for ClusterClock {
    async fn advance(&self, by: Duration) {
        self.tell("INCRBY", &by.as_millis().to_string());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_store_in_a_redis_cluster_keeps_the_contract() {
    let cluster = Cluster::start();
    let clock = ClusterClock::of(&cluster);
    for client in &mut clock.0.lock().expect("no panic").0 {
        // The test's clock is most of what is written.
        client.command(&["CONFIG", "SET", "appendfsync", "everysec"]);
    }
    conformance::run(async || {
        for client in &mut clock.0.lock().expect("no panic").0 {
            client.command(&["FLUSHALL"]);
        }
        let clock = ClusterClock(Arc::clone(&clock.0));
        clock.tell("SET", &START.as_millis().to_string());
        let in_its_slot =
            "tonumber(redis.call('GET', string.match(KEYS[1], '^hapax:{%x%x}') .. ':clock'))";
        let options = RedisOptions {
            clock: in_its_slot.to_owned(),
            ..RedisOptions::default()
        };
        let store = RedisStore::open(&cluster.servers[0].url(), options).await;
        let store = store.expect("it opens");
        assert_eq!(store.report().servers, 3);
        (store, clock)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_moves_to_another_server_takes_its_records_along() {
    let cluster = Cluster::start();
    let store = cluster.open().await;
    for number in 0..200 {
        claim(&store, number).await;
    }
    // The slot of the first key, and who has it.
    let partition = format!("{:02x}", sample::key(1).as_bytes()[0]);
    let key = format!("hapax:{{{partition}}}");
    let slot = cluster.servers[0]
        .client()
        .command(&["CLUSTER", "KEYSLOT", &key]);
    let number: u32 = slot.parse().expect("a slot");
    let from = (0..3)
        .find(|server| number < BOUNDS[server + 1])
        .expect("one");
    let to = (from + 1) % 3;
    let (from_id, to_id) = (cluster.id(from), cluster.id(to));
    let mut clients = cluster.clients();
    let set = ["CLUSTER", "SETSLOT", &slot];
    let with = |words: [&str; 2]| -> Vec<String> {
        set.iter()
            .chain(&words)
            .map(|word| (*word).to_owned())
            .collect()
    };
    let mut tell = |server: usize, words: Vec<String>| {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        assert_eq!(clients[server].command(&words), "OK");
    };
    tell(to, with(["IMPORTING", &from_id]));
    tell(from, with(["MIGRATING", &to_id]));
    let mut source = cluster.servers[from].client();
    let names = source.bytes(&[b"CLUSTER", b"GETKEYSINSLOT", slot.as_bytes(), b"1000"]);
    let port = cluster.servers[to].port().to_string();
    let names = names.expect("an answer");
    let mut migrated = 0;
    // Record keys are bytes, line breaks among them: those here have none.
    for name in names.split(|byte| *byte == b'\n') {
        let moving = source.bytes(&[
            b"MIGRATE",
            b"127.0.0.1",
            port.as_bytes(),
            name,
            b"0",
            b"5000",
        ]);
        assert_eq!(moving.expect("an answer"), b"OK");
        migrated += 1;
    }
    assert!(migrated >= 3, "mark, index and a record: {migrated}");
    // A vacant key would have to be claimed in two places at once: it is refused, and so is
    // everything else of this partition, until the slot has arrived.
    let refused = store.read(&sample::key(1)).await;
    assert!(
        matches!(refused, Err(StoreError::Refused { .. })),
        "{refused:?}"
    );
    let refused = store
        .replace(&sample::key(1), sample::claim_id(1), &sample::unknown(1))
        .await;
    assert!(
        matches!(refused, Err(StoreError::Refused { .. })),
        "{refused:?}"
    );
    for server in [to, from] {
        tell(server, with(["NODE", &to_id]));
    }
    // The first is sent on, the next go there directly.
    complete(&store, 1).await;
    let held = read(&store, 1).await.expect("it is there");
    assert_eq!(held.record, crate::support::answer(1));
    let stats = store.stats().await.expect("it works");
    assert_eq!((stats.records, stats.outstanding), (200, 199));
    let page = store.list(&Filter::default(), None, 200).await;
    assert_eq!(page.expect("it works").records.len(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_of_the_cluster_that_is_away_takes_only_its_own_part_along() {
    let mut cluster = Cluster::start();
    for server in &cluster.servers {
        let mut client = server.client();
        client.command(&["CONFIG", "SET", "cluster-require-full-coverage", "no"]);
    }
    let store = cluster.open().await;
    cluster.servers[0].crash();
    let (mut refused, mut claimed) = (0, 0);
    for number in 0..300 {
        let (key, record) = (sample::key(number), sample::outstanding(number));
        match store.insert(&key, &record).await {
            Ok(_) => claimed += 1,
            Err(StoreError::Refused { .. } | StoreError::Uncertain { .. }) => refused += 1,
            Err(other) => panic!("{other:?}"),
        }
    }
    assert!(
        (60..140).contains(&refused) && claimed == 300 - refused,
        "{refused}"
    );
    cluster.servers[0].go_on();
    let is_back = async |number| {
        let (key, record) = (sample::key(number), sample::outstanding(number));
        store.insert(&key, &record).await.is_ok()
    };
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    let mut ticks = tokio::time::interval(Duration::from_millis(20));
    for number in 300..600 {
        while !is_back(number).await {
            assert!(tokio::time::Instant::now() < deadline, "{number}");
            ticks.tick().await;
        }
    }
}
