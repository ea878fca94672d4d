//! The store in Redis, against a real server.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use hapax_core::key::RecordKey;
use hapax_core::record::Held;
use hapax_core::store::{Durability, Insert, Store, StoreError, Write};
use hapax_store::conformance::{self, ClockControl, sample};
use hapax_store::{Limits, RedisOptions, RedisStore, RedisStoreError};
use tokio::time::{Instant, interval};

use crate::redis_servers::{RedisClient, RedisServer};
use crate::support::{START, claim, complete, read};

async fn open(server: &RedisServer) -> Result<RedisStore, RedisStoreError> {
    RedisStore::open(&server.url(), RedisOptions::default()).await
}

/// A clock in a key, which stands still until it is moved.
struct KeyClock(Arc<Mutex<RedisClient>>);

impl ClockControl for KeyClock {
    async fn advance(&self, by: Duration) {
        let ms = by.as_millis().to_string();
        let mut client = self.0.lock().expect("no panic");
        client.command(&["INCRBY", "test_clock", &ms]);
    }
}

/// The Redis key of a record.
fn place(key: &RecordKey) -> Vec<u8> {
    let bytes = key.as_bytes();
    let mut place = format!("hapax:{{{:02x}}}:", bytes[0]).into_bytes();
    place.extend_from_slice(bytes);
    place
}

#[tokio::test(flavor = "multi_thread")]
async fn the_store_in_redis_keeps_the_contract() {
    let server = RedisServer::start();
    let client = Arc::new(Mutex::new(server.client()));
    conformance::run(async || {
        let start = START.as_millis().to_string();
        {
            let mut client = client.lock().expect("no panic");
            client.command(&["FLUSHALL"]);
            client.command(&["SET", "test_clock", &start]);
        }
        let options = RedisOptions {
            clock: "tonumber(redis.call('GET', 'test_clock'))".to_owned(),
            ..RedisOptions::default()
        };
        let store = RedisStore::open(&server.url(), options).await;
        (store.expect("it opens"), KeyClock(Arc::clone(&client)))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_is_as_durable_as_its_settings_and_one_that_evicts_is_refused() {
    for (settings, says) in [
        (vec![], None),
        (
            vec!["--appendfsync", "everysec"],
            Some("appendfsync = everysec"),
        ),
        (vec!["--appendonly", "no"], Some("appendonly = no")),
        (
            vec!["--rename-command", "CONFIG", ""],
            Some("CONFIG is not allowed"),
        ),
    ] {
        let server = RedisServer::with(&settings);
        let store = open(&server).await.expect("it opens");
        let warnings = store.report().warnings.join("\n");
        match says {
            None => assert_eq!((store.durability(), &*warnings), (Durability::Durable, "")),
            Some(says) => {
                assert_eq!(store.durability(), Durability::BestEffort, "{says}");
                assert!(warnings.contains(says), "{warnings}");
            }
        }
    }
    for policy in ["allkeys-lru", "volatile-ttl"] {
        let server = RedisServer::with(&["--maxmemory-policy", policy]);
        let refused = open(&server).await.expect_err(policy);
        assert!(refused.to_string().contains(policy), "{refused}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_is_refused_and_so_is_a_server_that_becomes_one_or_less_durable() {
    let (primary, server) = (RedisServer::start(), RedisServer::start());
    let store = open(&server).await.expect("it opens");
    claim(&store, 1).await;
    let mut client = server.client();
    let port = primary.port().to_string();
    client.command(&["REPLICAOF", "127.0.0.1", &port]);
    let refused = open(&server).await.expect_err("a replica");
    assert!(matches!(refused, RedisStoreError::Replica), "{refused}");
    let refused = store.insert(&sample::key(2), &sample::outstanding(2)).await;
    assert!(
        matches!(refused, Err(StoreError::Refused { .. })),
        "{refused:?}"
    );
    client.command(&["REPLICAOF", "NO", "ONE"]);
    client.command(&["CONFIG", "SET", "appendfsync", "no"]);
    client.command(&["CLIENT", "KILL", "TYPE", "normal"]);
    let weaker = fails_to_insert(&store, "Weakened").await;
    assert!(format!("{weaker:?}").contains("appendfsync = no"));
}

/// Inserts until the reason of its failure is `why`, as connections end and are made again.
async fn fails_to_insert(store: &RedisStore, why: &str) -> StoreError {
    let deadline = Instant::now() + Duration::from_secs(10);
    let mut ticks = interval(Duration::from_millis(20));
    loop {
        let insert = store.insert(&sample::key(7), &sample::outstanding(7)).await;
        match insert {
            Err(error) if format!("{error:?}").contains(why) => return error,
            other => assert!(Instant::now() < deadline, "{other:?}"),
        }
        ticks.tick().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn user_password_and_database_come_from_the_url_and_are_never_shown() {
    let server = RedisServer::start();
    let mut client = server.client();
    // What the documents ask for.
    let may = "on >hunter2 ~hapax:* +@read +@write +@scripting +@connection +info +role \
               +config|get +cluster|slots +time +wait";
    let mut words = vec!["ACL", "SETUSER", "hapax"];
    words.extend(may.split_whitespace());
    assert_eq!(client.command(&words), "OK");
    client.command(&["CONFIG", "SET", "requirepass", "hunter3"]);
    let address = format!("127.0.0.1:{}", server.port());
    let with = async |access: &str| {
        let url = format!("redis://{access}{address}/3");
        RedisStore::open(&url, RedisOptions::default()).await
    };
    for access in ["hapax:hunter2@", ":hunter3@"] {
        let store = with(access).await.expect("it is let in");
        assert!(!format!("{store:?}").contains("hunter"));
        assert_eq!(store.durability(), Durability::Durable, "it may ask");
        claim(&store, 1).await;
        complete(&store, 1).await;
        let removed = store.remove(&sample::key(1), sample::claim_id(1)).await;
        assert!(matches!(removed, Ok(Write::Applied { .. })), "{removed:?}");
        store.sweep(10).await.expect("it sweeps");
        store.stats().await.expect("it counts");
    }
    let mut client = server.client();
    client.command(&["AUTH", "hunter3"]);
    assert_eq!(client.command(&["DBSIZE"]), "0");
    client.command(&["SELECT", "3"]);
    assert_eq!(client.command(&["EXISTS", "hapax:{00}:store"]), "1");
    for access in ["hapax:hunter4@", ":hunter4@", ""] {
        let refused = with(access).await.expect_err("it is not let in");
        assert!(
            !format!("{refused} {refused:?}").contains("hunter"),
            "{refused:?}"
        );
    }
    for url in ["redis://hunter2:99999999", "redis+hunter2://a", "hunter2"] {
        let refused = RedisStore::open(url, RedisOptions::default()).await;
        let refused = refused.expect_err("no URL");
        assert!(
            !format!("{refused} {refused:?}").contains("hunter"),
            "{refused:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_gateways_share_one_secret() {
    let server = RedisServer::start();
    let (first, second) = tokio::join!(open(&server), open(&server));
    let (first, second) = (first.expect("one"), second.expect("and the other"));
    assert_eq!(first.secret().as_bytes(), second.secret().as_bytes());
    let again = open(&server).await.expect("it opens");
    assert_eq!(again.report().warnings, [""; 0], "nothing is missing");
    claim(&first, 1).await;
    assert_eq!(read(&second, 1).await, read(&again, 1).await);
    server
        .client()
        .command(&["HSET", "hapax:{00}:store", "version", "2"]);
    let newer = open(&server).await.expect_err("the data are newer");
    assert!(matches!(newer, RedisStoreError::Newer(_)), "{newer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_somebody_changed_is_damaged_and_counted() {
    let server = RedisServer::start();
    let store = open(&server).await.expect("it opens");
    let mut client = server.client();
    let mut found = 0;
    // In the head: state, claim, an instant, the expiry, the check. Behind it: claim, content, tag.
    for (number, at) in (0..).zip([1, 5, 30, 39, 45, 56, 120, 190]) {
        let key = sample::key(number);
        let claimed = store.insert(&key, &sample::completed(number, "x")).await;
        assert!(matches!(claimed, Ok(Insert::Claimed { .. })), "{claimed:?}");
        let mut bytes = client.bytes(&[b"GET", &place(&key)]).expect("it is there");
        bytes[at] ^= 1;
        client
            .bytes(&[b"SET", &place(&key), &bytes])
            .expect("it is written");
        found += damaged(&store, &key).await;
    }
    // At another record's place, cut, and something else altogether.
    let (from, to) = (sample::key(20), sample::key(21));
    claim(&store, 20).await;
    client
        .bytes(&[b"RENAME", &place(&from), &place(&to)])
        .expect("it is renamed");
    found += damaged(&store, &to).await;
    client
        .bytes(&[b"SET", &place(&to), b"hapax"])
        .expect("it is written");
    found += damaged(&store, &to).await;
    client.bytes(&[b"DEL", &place(&to)]).expect("it is removed");
    client
        .bytes(&[b"LPUSH", &place(&to), b"x"])
        .expect("it is written");
    found += damaged(&store, &to).await;
    let stats = store.stats().await.expect("it works");
    assert_eq!(stats.damaged, found);
}

/// Finds the record of `key` damaged by every way to it; how many.
async fn damaged(store: &RedisStore, key: &RecordKey) -> u64 {
    let read = store.read(key).await;
    assert!(matches!(read, Err(StoreError::Damaged { .. })), "{read:?}");
    let insert = store.insert(key, &sample::outstanding(9)).await;
    assert!(
        matches!(insert, Err(StoreError::Damaged { .. })),
        "{insert:?}"
    );
    2
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_leaves_a_damaged_record_and_goes_on() {
    let server = RedisServer::start();
    let options = RedisOptions {
        clock: "tonumber(redis.call('GET', 'test_clock'))".to_owned(),
        ..RedisOptions::default()
    };
    let mut client = server.client();
    client.command(&["SET", "test_clock", &START.as_millis().to_string()]);
    let store = RedisStore::open(&server.url(), options).await;
    let store = store.expect("it opens");
    for number in 0..2 {
        let (key, record) = (sample::key(number), sample::completed(number, "x"));
        store.insert(&key, &record).await.expect("it works");
    }
    let place = place(&sample::key(0));
    client
        .bytes(&[b"SETRANGE", &place, b"39", b"\x7f"])
        .expect("it is written");
    let retention = sample::RETENTION.as_millis().to_string();
    client.command(&["INCRBY", "test_clock", &retention]);
    let swept = store.sweep(10).await.expect("it works");
    assert_eq!((swept.removed, swept.more_due), (1, false));
    let swept = store.sweep(10).await.expect("it works");
    assert_eq!((swept.removed, swept.more_due), (0, false));
    damaged(&store, &sample::key(0)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_claim_never_goes_by_itself_and_a_settled_record_not_before_its_time() {
    let server = RedisServer::start();
    let store = open(&server).await.expect("it opens");
    let mut client = server.client();
    let mut time_to_live = |number| -> i64 {
        let place = place(&sample::key(number));
        let left = client.bytes(&[b"PTTL", &place]).expect("an answer");
        String::from_utf8_lossy(&left).parse().expect("a number")
    };
    let key = sample::key(1);
    claim(&store, 1).await;
    assert_eq!(time_to_live(1), -1, "claimed");
    let mut record = sample::completed(1, "x");
    record.tombstone = Duration::from_secs(600);
    let kept = i64::try_from((record.retention + record.tombstone).as_millis()).expect("small");
    let settled = store.replace(&key, record.claim, &record).await;
    assert!(matches!(settled, Ok(Write::Applied { .. })), "{settled:?}");
    assert!(time_to_live(1) > kept, "settled");
    let anew = sample::outstanding(2);
    let taken_over = store.replace(&key, record.claim, &anew).await;
    assert!(
        matches!(taken_over, Ok(Write::Applied { .. })),
        "{taken_over:?}"
    );
    assert_eq!(time_to_live(1), -1, "claimed anew");
    let beat = store.replace(&key, anew.claim, &anew).await;
    assert!(matches!(beat, Ok(Write::Applied { .. })), "{beat:?}");
    assert_eq!(time_to_live(1), -1, "after a heartbeat");
    let unknown = store.replace(&key, anew.claim, &sample::unknown(2)).await;
    assert!(matches!(unknown, Ok(Write::Applied { .. })), "{unknown:?}");
    assert!(time_to_live(1) > 7 * 86_400_000, "unknown");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_lost_its_data_claims_nothing_before_it_is_opened_anew() {
    let server = RedisServer::start();
    let store = open(&server).await.expect("it opens");
    claim(&store, 1).await;
    let mut client = server.client();
    client.command(&["FLUSHALL"]);
    let refused = store.insert(&sample::key(1), &sample::outstanding(1)).await;
    assert!(
        matches!(&refused, Err(StoreError::Refused { reason, .. }) if reason.contains("lost")),
        "{refused:?}"
    );
    let other = open(&server).await.expect("it opens");
    let refused = store.insert(&sample::key(1), &sample::outstanding(1)).await;
    assert!(refused.is_err(), "it is another store: {refused:?}");
    claim(&other, 1).await;
    client.command(&["DEL", "hapax:{7f}"]);
    let again = open(&server).await.expect("it opens");
    let warnings = again.report().warnings.join("\n");
    assert!(warnings.contains("1 of 256 partitions"), "{warnings}");
    client.command(&["SET", "hapax:{7f}", "another"]);
    let mixed = open(&server).await.expect_err("two stores");
    assert!(matches!(mixed, RedisStoreError::Mixed), "{mixed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_given_up_takes_its_connection_along_and_mixes_no_answers() {
    let server = RedisServer::start();
    let options = RedisOptions {
        connections: 1,
        ..RedisOptions::default()
    };
    let store = RedisStore::open(&server.url(), options).await;
    let store = store.expect("it opens");
    for number in 1..=2 {
        claim(&store, number).await;
    }
    let mut client = server.client();
    let mut ours = || {
        let list = client.command(&["CLIENT", "LIST"]);
        let id = |line: &str| line.split(' ').next().map(str::to_owned);
        let lines = list
            .lines()
            .filter(|line| line.contains("lib-name=redis-rs"));
        let ids: Vec<_> = lines.filter_map(id).collect();
        match ids.is_empty() {
            // Before 7.2 a client has no name.
            true => list.lines().filter_map(id).skip(1).last(),
            false => ids.into_iter().next_back(),
        }
    };
    let before = ours();
    server.client().command(&["CLIENT", "PAUSE", "500", "ALL"]);
    let (first, second) = (sample::key(1), sample::key(2));
    let given_up = tokio::time::timeout(Duration::from_millis(100), store.read(&first)).await;
    assert!(given_up.is_err(), "the server pauses");
    let (held, _) = store.read(&second).await.expect("it works again");
    assert_eq!(held.expect("it is there").record, sample::outstanding(2));
    assert_ne!(ours(), before, "the connection in doubt was not used again");
}

#[tokio::test(flavor = "multi_thread")]
async fn scripts_that_a_server_has_forgotten_are_loaded_again() {
    let server = RedisServer::start();
    let store = open(&server).await.expect("it opens");
    server.client().command(&["SCRIPT", "FLUSH"]);
    claim(&store, 1).await;
    server.client().command(&["SCRIPT", "FLUSH"]);
    assert_eq!(store.stats().await.expect("it works").outstanding, 1);
    complete(&store, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_store_takes_no_claim_and_settles_what_it_has() {
    let server = RedisServer::start();
    let options = RedisOptions {
        limits: Limits {
            max_records: 2,
            max_bytes: 0,
        },
        ..RedisOptions::default()
    };
    let store = RedisStore::open(&server.url(), options).await;
    let store = store.expect("it opens");
    for number in 1..=2 {
        claim(&store, number).await;
    }
    store.sweep(10).await.expect("it sweeps");
    settles_but_takes_nothing(&store).await;
    store.sweep(10).await.expect("it sweeps");
    claim(&store, 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_memory_takes_no_claim_and_settles_what_it_has() {
    let server = RedisServer::start();
    let store = open(&server).await.expect("it opens");
    for number in 1..=2 {
        claim(&store, number).await;
    }
    let mut client = server.client();
    client.command(&["CONFIG", "SET", "maxmemory", "1"]);
    settles_but_takes_nothing(&store).await;
    client.command(&["CONFIG", "SET", "maxmemory", "0"]);
    claim(&store, 3).await;
}

async fn settles_but_takes_nothing(store: &RedisStore) {
    let refused = store.insert(&sample::key(3), &sample::outstanding(3)).await;
    assert!(
        matches!(refused, Err(StoreError::Full { .. })),
        "{refused:?}"
    );
    let occupied = store.insert(&sample::key(1), &sample::outstanding(3)).await;
    assert!(
        matches!(occupied, Ok(Insert::Occupied { .. })),
        "{occupied:?}"
    );
    complete(store, 1).await;
    let removed = store.remove(&sample::key(2), sample::claim_id(2)).await;
    assert!(matches!(removed, Ok(Write::Applied { .. })), "{removed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_server_nothing_is_claimed_and_it_goes_on_when_it_is_back() {
    let mut server = RedisServer::start();
    let store = open(&server).await.expect("it opens");
    claim(&store, 1).await;
    server.crash();
    let first = store.insert(&sample::key(2), &sample::outstanding(2)).await;
    assert!(first.is_err(), "{first:?}");
    let refused = fails_to_insert(&store, "no connection").await;
    assert!(matches!(refused, StoreError::Refused { .. }), "{refused:?}");
    server.go_on();
    let held = eventually_read(&store, 1).await;
    assert_eq!(held.record, sample::outstanding(1));
    complete(&store, 1).await;
}

async fn eventually_read(store: &RedisStore, number: u64) -> Held {
    let deadline = Instant::now() + Duration::from_secs(30);
    let mut ticks = interval(Duration::from_millis(20));
    loop {
        match store.read(&sample::key(number)).await {
            Ok((held, _)) => return held.expect("it was acknowledged"),
            Err(error) => assert!(Instant::now() < deadline, "{error:?}"),
        }
        ticks.tick().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_too_few_replicas_have_is_uncertain_and_not_shown_before_they_have_it() {
    let server = RedisServer::with(&["--repl-diskless-sync-delay", "0"]);
    let options = RedisOptions {
        replicas: 1,
        operation_timeout: Duration::from_secs(2),
        ..RedisOptions::default()
    };
    let store = RedisStore::open(&server.url(), options).await;
    let store = store.expect("it opens");
    let key = sample::key(1);
    let inserted = store.insert(&key, &sample::outstanding(1)).await;
    assert!(
        matches!(inserted, Err(StoreError::Uncertain { .. })),
        "{inserted:?}"
    );
    let shown = store.read(&key).await;
    assert!(
        matches!(shown, Err(StoreError::Refused { .. })),
        "{shown:?}"
    );
    let replica = RedisServer::start();
    let port = server.port().to_string();
    replica.client().command(&["REPLICAOF", "127.0.0.1", &port]);
    let held = eventually_read(&store, 1).await;
    assert_eq!(held.record, sample::outstanding(1));
    complete(&store, 1).await;
    claim(&store, 2).await;
}
