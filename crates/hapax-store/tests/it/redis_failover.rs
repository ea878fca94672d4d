//! Failovers within a Redis Cluster: what is lost of what was acknowledged, and that nothing hangs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use hapax_core::record::State;
use hapax_core::store::{Insert, Store, Write};
use hapax_store::conformance::sample;
use hapax_store::{RedisOptions, RedisStore};
use tokio::task::JoinSet;
use tokio::time::{Instant, interval};

use crate::redis_cluster::Cluster;
use crate::redis_servers::{RedisServer, eventually};
use crate::support::answer;

const CALLERS: usize = 8;
const BEFORE: u64 = 600;
/// A call may be told to go elsewhere a few times, each time within the timeout.
const OPERATION_TIMEOUT: Duration = Duration::from_secs(2);
const HANGS: Duration = Duration::from_secs(10);
/// Claims in a row that must be taken: each server has a third of the keys.
const IN_A_ROW: u64 = 60;

/// What a failover did.
#[derive(Debug, Default)]
struct Failover {
    acknowledged: usize,
    /// Completed keys that are not there any more: a retry would run again.
    lost: Vec<u64>,
    /// Completed keys whose claim is there and whose answer is not.
    outstanding: usize,
    failed: u64,
    slowest: Duration,
    recovery: Duration,
}

/// What callers have come to.
#[derive(Default)]
struct Work {
    next: AtomicU64,
    done: AtomicU64,
    failed: AtomicU64,
    is_over: AtomicBool,
}

impl Work {
    /// Claims and completes fresh keys; those that were acknowledged, and the slowest call.
    async fn go_on(self: Arc<Self>, store: Arc<RedisStore>) -> (Vec<u64>, Duration) {
        let (mut acknowledged, mut slowest) = (Vec::new(), Duration::ZERO);
        while !self.is_over.load(Ordering::SeqCst) {
            let number = self.next.fetch_add(1, Ordering::SeqCst);
            let key = sample::key(number);
            let begun = Instant::now();
            let claimed = store.insert(&key, &sample::outstanding(number)).await;
            slowest = slowest.max(begun.elapsed());
            let begun = Instant::now();
            let written = match claimed {
                Ok(Insert::Claimed { .. }) => {
                    let record = answer(number);
                    let claim = sample::claim_id(number);
                    store.replace(&key, claim, &record).await.ok()
                }
                _ => None,
            };
            slowest = slowest.max(begun.elapsed());
            match written {
                Some(Write::Applied { .. }) => {
                    acknowledged.push(number);
                    self.done.fetch_add(1, Ordering::SeqCst);
                }
                _ => {
                    self.failed.fetch_add(1, Ordering::SeqCst);
                    tokio::task::yield_now().await;
                }
            }
        }
        (acknowledged, slowest)
    }

    async fn until_done(&self, count: u64) {
        let deadline = Instant::now() + Duration::from_secs(60);
        let mut ticks = interval(Duration::from_millis(10));
        while self.done.load(Ordering::SeqCst) < count {
            assert!(Instant::now() < deadline, "the callers make no progress");
            ticks.tick().await;
        }
    }
}

/// Runs callers while `fail` takes the first server's part to its replica.
async fn fail_over(fail: impl FnOnce(&mut Cluster, &RedisServer)) -> (Cluster, Failover) {
    let mut cluster = Cluster::start();
    let replica = cluster.replica_of(0);
    for server in cluster.servers.iter().chain([&replica]) {
        let mut client = server.client();
        client.command(&["CONFIG", "SET", "cluster-require-full-coverage", "no"]);
    }
    let options = RedisOptions {
        operation_timeout: OPERATION_TIMEOUT,
        ..RedisOptions::default()
    };
    let store = RedisStore::open(&cluster.servers[1].url(), options).await;
    let store = Arc::new(store.expect("it opens"));
    let work = Arc::new(Work::default());
    let mut callers = JoinSet::new();
    for _ in 0..CALLERS {
        callers.spawn(Arc::clone(&work).go_on(Arc::clone(&store)));
    }
    work.until_done(BEFORE).await;
    let failing = Instant::now();
    tokio::task::block_in_place(|| {
        fail(&mut cluster, &replica);
        eventually("the replica's promotion", || {
            let role = replica.client().command(&["ROLE"]);
            role.starts_with("master").then_some(())
        });
    });
    taken_in_a_row(&store).await;
    let recovery = failing.elapsed();
    work.until_done(work.done.load(Ordering::SeqCst) + 200)
        .await;
    work.is_over.store(true, Ordering::SeqCst);
    let mut found = Failover {
        failed: work.failed.load(Ordering::SeqCst),
        recovery,
        ..Failover::default()
    };
    while let Some(ended) = callers.join_next().await {
        let (acknowledged, slowest) = ended.expect("no panic");
        found.acknowledged += acknowledged.len();
        found.slowest = found.slowest.max(slowest);
        for number in acknowledged {
            let read = store.read(&sample::key(number)).await;
            let held = read.expect("it answers").0;
            match held.map(|held| held.record.state) {
                None => found.lost.push(number),
                Some(State::Outstanding { .. }) => found.outstanding += 1,
                Some(state) => assert_eq!(state, answer(number).state),
            }
        }
    }
    // It lives as long as what it has is looked at.
    drop(replica);
    (cluster, found)
}

/// Claims keys of its own until all servers take them.
async fn taken_in_a_row(store: &RedisStore) {
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut ticks = interval(Duration::from_millis(5));
    let mut in_a_row = 0;
    for number in 1_000_000.. {
        let record = sample::outstanding(number);
        match store.insert(&sample::key(number), &record).await {
            Ok(Insert::Claimed { .. }) => in_a_row += 1,
            _ => in_a_row = 0,
        }
        if in_a_row == IN_A_ROW {
            return;
        }
        assert!(Instant::now() < deadline, "some keys cannot be claimed");
        ticks.tick().await;
    }
}

fn tell(how: &str, found: &Failover) {
    eprintln!(
        "{how}: of {} acknowledged {} were lost and {} are outstanding again; {} calls failed, the slowest took {:?}; \
         all keys could be claimed after {:?}",
        found.acknowledged,
        found.lost.len(),
        found.outstanding,
        found.failed,
        found.slowest,
        found.recovery
    );
    assert!(found.slowest < HANGS, "{found:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failover_that_the_replica_is_told_to_make_loses_nothing() {
    let (_, found) = fail_over(|_, replica| {
        let told = replica.client().command(&["CLUSTER", "FAILOVER"]);
        assert_eq!(told, "OK");
    })
    .await;
    tell("CLUSTER FAILOVER", &found);
    assert_eq!((found.lost.len(), found.outstanding), (0, 0), "{found:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failover_after_a_primary_is_killed_loses_at_most_what_that_one_had() {
    let (cluster, found) = fail_over(|cluster, _| cluster.servers[0].crash()).await;
    tell("the primary killed", &found);
    // What was on its way to the replica: how much that is depends on the moment.
    for number in &found.lost {
        let partition = sample::key(*number).as_bytes()[0];
        assert_eq!(cluster.owner(partition), 0, "{number}: {found:?}");
    }
    assert!(found.failed > 0, "there was a failure: {found:?}");
}
