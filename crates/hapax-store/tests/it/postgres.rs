//! The store in PostgreSQL, against a real server.

use std::sync::Arc;
use std::time::Duration;

use hapax_core::store::{Insert, Store, StoreError, Write};
use hapax_store::conformance::{self, ClockControl, sample};
use hapax_store::{
    Limits, Migrated, PostgresError, PostgresOptions, PostgresStore, migrate_postgres,
};
use tokio::time::{Instant, interval};
use tokio_postgres::{Client, NoTls};

use crate::servers::PostgresServer;
use crate::support::START;

/// A connection of the test's own; waits for a server that is starting.
pub(crate) async fn connect(url: &str) -> Client {
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut ticks = interval(Duration::from_millis(20));
    loop {
        match tokio_postgres::connect(url, NoTls).await {
            Ok((client, connection)) => {
                tokio::spawn(connection);
                return client;
            }
            Err(error) => assert!(Instant::now() < deadline, "no PostgreSQL: {error}"),
        }
        ticks.tick().await;
    }
}

/// A server with migrated, empty tables.
pub(crate) async fn migrated() -> (PostgresServer, Client) {
    let server = PostgresServer::start();
    let client = connect(&server.url()).await;
    migrate(&server.url()).await.expect("it can be migrated");
    (server, client)
}

async fn migrate(url: &str) -> Result<Migrated, PostgresError> {
    migrate_postgres(url, &PostgresOptions::default()).await
}

pub(crate) async fn open(server: &PostgresServer) -> Result<PostgresStore, PostgresError> {
    PostgresStore::open(&server.url(), PostgresOptions::default()).await
}

pub(crate) async fn execute(client: &Client, statement: &str) {
    client.batch_execute(statement).await.expect("it executes");
}

/// A clock in a table, which stands still until it is moved.
struct TableClock(Arc<Client>);

impl ClockControl for TableClock {
    async fn advance(&self, by: Duration) {
        let ms = i64::try_from(by.as_millis()).expect("not that long");
        execute(&self.0, &format!("UPDATE test_clock SET ms = ms + {ms}")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_store_in_postgresql_keeps_the_contract() {
    let (server, client) = migrated().await;
    let client = Arc::new(client);
    execute(&client, "CREATE TABLE test_clock (ms BIGINT NOT NULL)").await;
    conformance::run(async || {
        let start = START.as_millis();
        let anew = format!(
            "TRUNCATE hapax_store_records, test_clock; INSERT INTO test_clock VALUES ({start})"
        );
        execute(&client, &anew).await;
        let options = PostgresOptions {
            clock: "(SELECT ms FROM test_clock)".to_owned(),
            ..PostgresOptions::default()
        };
        let store = PostgresStore::open(&server.url(), options).await;
        (store.expect("it opens"), TableClock(Arc::clone(&client)))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_that_is_missing_or_newer_ends_the_start_and_a_migration_can_be_run_again() {
    let server = PostgresServer::start();
    let client = connect(&server.url()).await;
    let refused = open(&server).await.expect_err("there are no tables");
    assert!(
        refused.to_string().contains("hapax store migrate"),
        "{refused}"
    );
    let url = server.url();
    let (first, second) = tokio::join!(migrate(&url), migrate(&url));
    let (first, second) = (first.expect("one"), second.expect("and the other"));
    assert_eq!((first.to, second.to), (1, 1));
    let secret = open(&server).await.expect("it is migrated");
    assert_eq!(
        migrate(&server.url()).await.expect("nothing to do"),
        Migrated { from: 1, to: 1 }
    );
    let again = open(&server).await.expect("it is migrated");
    assert_eq!(
        secret.secret().as_bytes(),
        again.secret().as_bytes(),
        "all nodes share one secret"
    );
    execute(&client, "UPDATE hapax_store SET version = 2").await;
    let newer = open(&server).await.expect_err("the tables are newer");
    assert!(
        matches!(newer, PostgresError::Newer { found: 2, known: 1 }),
        "{newer}"
    );
    assert!(matches!(
        migrate(&server.url()).await,
        Err(PostgresError::Newer { .. })
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_would_lose_records_is_refused() {
    let (mut server, client) = migrated().await;
    drop(client);
    for setting in ["fsync", "full_page_writes", "synchronous_commit"] {
        server.crash();
        server.go_on(&[&format!("{setting}=off")]);
        drop(connect(&server.url()).await);
        let refused = open(&server).await.expect_err(setting);
        assert!(matches!(refused, PostgresError::Unsafe { .. }), "{refused}");
        assert!(refused.to_string().contains(setting), "{refused}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_somebody_changed_is_damaged() {
    let (server, client) = migrated().await;
    let store = open(&server).await.expect("it opens");
    let changes = [
        "SET value = set_byte(value, 40, get_byte(value, 40) # 1)",
        "SET claim = set_byte(claim, 0, get_byte(claim, 0) # 1)",
        "SET expires_at = expires_at + 1",
        "SET written_at = written_at - 1",
        "SET key = set_byte(key, 0, get_byte(key, 0) # 1)",
    ];
    for (number, change) in (0_u64..).zip(changes) {
        execute(&client, "TRUNCATE hapax_store_records").await;
        let mut key = sample::key(number);
        let claimed = store.insert(&key, &sample::completed(number, "x")).await;
        assert!(matches!(claimed, Ok(Insert::Claimed { .. })), "{claimed:?}");
        execute(&client, &format!("UPDATE hapax_store_records {change}")).await;
        if change.contains("SET key") {
            let mut bytes = *key.as_bytes();
            bytes[0] ^= 1;
            key = hapax_core::key::RecordKey::from_bytes(bytes);
        }
        let read = store.read(&key).await;
        assert!(
            matches!(read, Err(StoreError::Damaged { .. })),
            "{change}: {read:?}"
        );
        let insert = store.insert(&key, &sample::outstanding(9)).await;
        assert!(
            matches!(insert, Err(StoreError::Damaged { .. })),
            "{change}: {insert:?}"
        );
        let stats = store.stats().await.expect("it counts");
        assert_eq!(stats.damaged, number + 1, "each key once");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_did_not_wait_for_its_standby_is_uncertain_and_not_shown_before_it_is_there()
{
    let (mut server, client) = migrated().await;
    drop(client);
    server.crash();
    // A standby that never comes.
    server.go_on(&["synchronous_standby_names=never"]);
    let client = connect(&server.url()).await;
    let store = Arc::new(open(&server).await.expect("it opens"));
    // An impatient operator, a shutdown: either way it is committed here and nowhere else.
    for (number, way) in [(1, "pg_cancel_backend"), (2, "pg_terminate_backend")] {
        let inserting = tokio::spawn({
            let store = Arc::clone(&store);
            async move {
                let claim = sample::outstanding(number);
                store.insert(&sample::key(number), &claim).await
            }
        });
        end_when_waiting(&client, way).await;
        let inserted = inserting.await.expect("no panic");
        assert!(
            matches!(inserted, Err(StoreError::Uncertain { .. })),
            "{way}: {inserted:?}"
        );
        // The record would be gone after a failover: it is shown neither here nor by a gateway
        // that connects now.
        let newcomer = Arc::new(open(&server).await.expect("it opens"));
        for store in [&store, &newcomer] {
            let reading = tokio::spawn({
                let store = Arc::clone(store);
                async move { store.read(&sample::key(number)).await }
            });
            end_when_waiting(&client, "pg_cancel_backend").await;
            let read = reading.await.expect("no panic");
            assert!(
                matches!(read, Err(StoreError::Refused { .. })),
                "{way}: {read:?}"
            );
        }
    }
    execute(&client, "ALTER SYSTEM SET synchronous_standby_names = ''").await;
    server.crash();
    server.go_on(&[]);
    drop(connect(&server.url()).await);
    let held = eventually_read(&store, 1).await;
    assert_eq!(held.record, sample::outstanding(1));
}

/// Ends the statement that waits for a standby.
pub(crate) async fn end_when_waiting(client: &Client, way: &str) {
    let deadline = Instant::now() + Duration::from_secs(30);
    let mut ticks = interval(Duration::from_millis(10));
    let end =
        format!("SELECT count({way}(pid)) FROM pg_stat_activity WHERE wait_event = 'SyncRep'");
    loop {
        let row = client.query_one(&end, &[]).await.expect("it answers");
        if row.get::<_, i64>(0) > 0 {
            return;
        }
        assert!(Instant::now() < deadline, "nobody waits for the standby");
        ticks.tick().await;
    }
}

pub(crate) async fn eventually_read(
    store: &PostgresStore,
    number: u64,
) -> hapax_core::record::Held {
    let deadline = Instant::now() + Duration::from_secs(30);
    let mut ticks = interval(Duration::from_millis(20));
    loop {
        match store.read(&sample::key(number)).await {
            Ok((held, _)) => return held.expect("it was committed"),
            Err(error) => assert!(Instant::now() < deadline, "{error:?}"),
        }
        ticks.tick().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removal_that_is_given_up_takes_its_connection_along() {
    let (server, client) = migrated().await;
    let options = PostgresOptions {
        connections: 1,
        ..PostgresOptions::default()
    };
    let store = PostgresStore::open(&server.url(), options).await;
    let store = store.expect("it opens");
    let pid = || async {
        let select = "SELECT pid FROM pg_stat_activity WHERE application_name = 'hapax' ORDER BY backend_start DESC LIMIT 1";
        let row = client.query_one(select, &[]).await.expect("one");
        row.get::<_, i32>(0)
    };
    let before = pid().await;
    execute(&client, "BEGIN; LOCK TABLE hapax_store_records").await;
    let key = sample::key(1);
    let removing = store.remove(&key, sample::claim_id(1));
    let given_up = tokio::time::timeout(Duration::from_millis(200), removing).await;
    assert!(given_up.is_err(), "the table is locked");
    execute(&client, "ROLLBACK").await;
    assert!(store.read(&sample::key(2)).await.is_ok());
    assert_ne!(
        pid().await,
        before,
        "the connection in doubt was not used again"
    );
}

/// A store with two batches of a kind under way at the same time.
async fn two_at_once(server: &PostgresServer) -> Arc<PostgresStore> {
    let options = PostgresOptions {
        connections: 6,
        ..PostgresOptions::default()
    };
    let store = PostgresStore::open(&server.url(), options).await;
    Arc::new(store.expect("it opens"))
}

/// Has a transaction insert these keys and not end: whoever claims one of them waits.
async fn hold(client: &Client, numbers: impl Iterator<Item = u64>) {
    execute(client, "BEGIN").await;
    let insert =
        "INSERT INTO hapax_store_records (key, claim, state, claimed_at, written_at, value)
        VALUES ($1, $1, 0, 0, 0, $1)";
    for number in numbers {
        let key = sample::key(number);
        let inserted = client.execute(insert, &[&key.as_bytes().as_slice()]).await;
        inserted.expect("the key is vacant");
    }
}

/// Waits until as many sessions of the store wait for a lock.
async fn wait_for_blocked(client: &Client, sessions: i64) {
    let deadline = Instant::now() + Duration::from_secs(30);
    let mut ticks = interval(Duration::from_millis(10));
    let select = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'hapax' AND wait_event_type = 'Lock'";
    loop {
        // Within a transaction the view shows what it showed first.
        execute(client, "SELECT pg_stat_clear_snapshot()").await;
        let row = client.query_one(select, &[]).await.expect("it answers");
        if row.get::<_, i64>(0) == sessions {
            return;
        }
        assert!(Instant::now() < deadline, "they do not wait");
        ticks.tick().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_goes_on_without_a_caller_who_left_and_what_he_had_not_begun_is_never_written() {
    let (server, client) = migrated().await;
    let store = two_at_once(&server).await;
    hold(&client, 1..=10).await;
    let spawn = |number| {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            let claim = sample::outstanding(number);
            store.insert(&sample::key(number), &claim).await
        })
    };
    // Two batches of one are under way; the rest waits for them.
    let first = spawn(1);
    wait_for_blocked(&client, 1).await;
    let second = spawn(2);
    wait_for_blocked(&client, 2).await;
    let queued: Vec<_> = (3..=10).map(spawn).collect();
    tokio::task::yield_now().await;
    first.abort();
    for (number, caller) in (3..).zip(&queued) {
        if number % 2 == 1 {
            caller.abort();
        }
    }
    let (mut staying, mut leaving) = (vec![second], vec![first]);
    for (number, caller) in (3..).zip(queued) {
        match number % 2 {
            0 => staying.push(caller),
            _ => leaving.push(caller),
        }
    }
    for caller in leaving {
        assert!(caller.await.is_err_and(|error| error.is_cancelled()));
    }
    execute(&client, "ROLLBACK").await;
    for caller in staying {
        let claimed = caller.await.expect("no panic");
        assert!(matches!(claimed, Ok(Insert::Claimed { .. })), "{claimed:?}");
    }
    // Whoever left first has nobody to tell when it is done.
    let is_there = async || crate::support::read(&*store, 1).await.is_some();
    let deadline = Instant::now() + Duration::from_secs(30);
    while !is_there().await {
        assert!(Instant::now() < deadline, "the batch was not finished");
    }
    let written: Vec<u64> = {
        let mut written = Vec::new();
        for number in 1..=10 {
            if crate::support::read(&*store, number).await.is_some() {
                written.push(number);
            }
        }
        written
    };
    assert_eq!(written, [1, 2, 4, 6, 8, 10]);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_record_that_cannot_be_written_fails_alone() {
    let (server, client) = migrated().await;
    let constraint = format!(
        "ALTER TABLE hapax_store_records ADD CHECK (key <> '\\x{:032x}')",
        u128::from_be_bytes(*sample::key(7).as_bytes())
    );
    execute(&client, &constraint).await;
    let store = two_at_once(&server).await;
    hold(&client, (0..=19).filter(|number| *number != 7)).await;
    let claims: Vec<_> = (0..20)
        .map(|number| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                let claim = sample::outstanding(number);
                (number, store.insert(&sample::key(number), &claim).await)
            })
        })
        .collect();
    wait_for_blocked(&client, 2).await;
    execute(&client, "ROLLBACK").await;
    for claim in claims {
        let (number, claimed) = claim.await.expect("no panic");
        match number {
            7 => assert!(
                matches!(claimed, Err(StoreError::Refused { .. })),
                "{claimed:?}"
            ),
            _ => assert!(matches!(claimed, Ok(Insert::Claimed { .. })), "{claimed:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_whose_end_nobody_saw_is_uncertain_for_each_of_its_members() {
    let (server, client) = migrated().await;
    let store = two_at_once(&server).await;
    hold(&client, 0..=19).await;
    let claims: Vec<_> = (0..20)
        .map(|number| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                let claim = sample::outstanding(number);
                store.insert(&sample::key(number), &claim).await
            })
        })
        .collect();
    wait_for_blocked(&client, 2).await;
    let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'hapax' AND wait_event_type = 'Lock'";
    client.query_one(end, &[]).await.expect("they end");
    execute(&client, "ROLLBACK").await;
    let (mut uncertain, mut claimed) = (0, 0);
    for claim in claims {
        match claim.await.expect("no panic") {
            Err(StoreError::Uncertain { .. }) => uncertain += 1,
            Ok(Insert::Claimed { .. }) => claimed += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!(uncertain >= 2, "{uncertain} of two batches");
    assert_eq!(uncertain + claimed, 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn gateways_that_claim_and_complete_the_same_keys_in_any_order_do_not_block_each_other() {
    let (server, client) = migrated().await;
    let one = Arc::new(open(&server).await.expect("it opens"));
    let other = Arc::new(open(&server).await.expect("it opens"));
    let mut claims = Vec::new();
    for number in 0..500_u64 {
        for (node, store) in [(1, &one), (2, &other)] {
            // Each node comes to the keys in its own order.
            let number = if node == 1 { number } else { 499 - number };
            let store = Arc::clone(store);
            claims.push(tokio::spawn(async move {
                let claim = sample::outstanding(number * 2 + node);
                let key = sample::key(number);
                match store.insert(&key, &claim).await.expect("it answers") {
                    Insert::Occupied { .. } => 0,
                    Insert::Claimed { .. } => {
                        let settled = sample::completed(number * 2 + node, "done");
                        let written = store.replace(&key, claim.claim, &settled).await;
                        assert!(matches!(written, Ok(Write::Applied { .. })), "{written:?}");
                        1
                    }
                }
            }));
        }
    }
    let mut taken = 0;
    for claim in claims {
        taken += claim.await.expect("no panic");
    }
    assert_eq!(taken, 500, "each key once");
    let deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";
    let row = client.query_one(deadlocks, &[]).await.expect("a row");
    assert_eq!(row.get::<_, i64>(0), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_store_takes_no_claim_and_settles_what_it_has() {
    let (server, _client) = migrated().await;
    let limits = Limits {
        max_records: 2,
        max_bytes: 0,
    };
    let options = PostgresOptions {
        limits,
        ..PostgresOptions::default()
    };
    let store = PostgresStore::open(&server.url(), options).await;
    let store = store.expect("it opens");
    for number in 1..=2 {
        crate::support::claim(&store, number).await;
    }
    store.sweep(10).await.expect("it sweeps");
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
    crate::support::complete(&store, 1).await;
    let removed = store.remove(&sample::key(2), sample::claim_id(2)).await;
    assert!(matches!(removed, Ok(Write::Applied { .. })), "{removed:?}");
    store.sweep(10).await.expect("it sweeps");
    crate::support::claim(&store, 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_server_nothing_is_claimed_and_it_goes_on_when_it_is_back() {
    let (mut server, _client) = migrated().await;
    let store = open(&server).await.expect("it opens");
    crate::support::claim(&store, 1).await;
    server.crash();
    let first = store.insert(&sample::key(2), &sample::outstanding(2)).await;
    assert!(first.is_err(), "{first:?}");
    let refused = store.insert(&sample::key(2), &sample::outstanding(2)).await;
    assert!(
        matches!(refused, Err(StoreError::Refused { .. })),
        "{refused:?}"
    );
    server.go_on(&[]);
    drop(connect(&server.url()).await);
    let held = eventually_read(&store, 1).await;
    assert_eq!(held.record, sample::outstanding(1));
    crate::support::complete(&store, 1).await;
}
