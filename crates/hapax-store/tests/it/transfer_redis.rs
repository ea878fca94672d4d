//! Stores in Redis filled from others: all of it, or nothing that could be taken for a store.

use std::fs;

use hapax_core::store::{Store, StoreError};
use hapax_store::conformance::sample;
use hapax_store::transfer::{Source, Target, TransferError, transfer};
use hapax_store::{
    AnyStore, EmbeddedStore, Options, PostgresOptions, PostgresRestore, PostgresStore,
    RedisOptions, RedisRestore, RedisStore, RedisStoreError,
};

use crate::redis_cluster::Cluster;
use crate::redis_servers::RedisServer;
use crate::support::{claim, complete};
use crate::transfer::{all, backup_of, copy, filled, from_backup, into_directory, server};

async fn filling(url: &str, source: &Source<'_>) -> Result<RedisRestore, TransferError> {
    RedisRestore::create(url, RedisOptions::default(), source.secret()).await
}

fn target(filling: Result<RedisRestore, TransferError>) -> Target {
    Target::Redis(Box::new(filling.expect("it is vacant")))
}

/// A store that calls itself as a command does.
async fn open(url: &str) -> Result<RedisStore, RedisStoreError> {
    let options = RedisOptions {
        client_name: "a-test",
        ..RedisOptions::default()
    };
    RedisStore::open(url, options).await
}

fn size(server: &RedisServer) -> String {
    server.client().command(&["DBSIZE"])
}

#[tokio::test(flavor = "multi_thread")]
async fn records_move_through_redis_and_postgresql_and_back_unchanged() {
    let folder = tempfile::tempdir().expect("a folder");
    let (redis, database) = (RedisServer::start(), server().await);
    let store = AnyStore::Embedded(filled(&folder.path().join("one")).await);
    let before = all(&store).await;
    let source = Source::Store(&store);
    let to = target(filling(&redis.url(), &source).await);
    let done = copy(source, to).await.expect("it is whole");
    assert_eq!(done.records, before.len() as u64);

    let shared = open(&redis.url()).await.expect("it is a store");
    assert_eq!(shared.secret().as_bytes(), store.secret().as_bytes());
    assert_eq!(all(&shared).await, before);
    let stats = shared.stats().await.expect("it answers");
    assert_eq!((stats.outstanding, stats.unknown), (1, 3));
    let again = filling(&redis.url(), &Source::Store(&store)).await;
    assert!(
        matches!(again, Err(TransferError::NotVacant(_))),
        "{again:?}"
    );
    // It is a store like any other.
    claim(&shared, 20_000).await;
    complete(&shared, 20_000).await;
    let before = all(&shared).await;

    let options = PostgresOptions {
        application_name: "a test",
        ..PostgresOptions::default()
    };
    let shared = AnyStore::Redis(shared);
    let to = PostgresRestore::create(&database.url(), &options, shared.secret()).await;
    let to = Target::Postgres(to.expect("it is vacant"));
    copy(Source::Store(&shared), to).await.expect("it is whole");
    let rows = PostgresStore::open(&database.url(), options).await;
    let rows = AnyStore::Postgres(rows.expect("it is there"));
    assert_eq!(all(&rows).await, before);

    let source = Source::Store(&rows);
    let to = into_directory(&source, &folder.path().join("back"));
    copy(source, to).await.expect("it is whole");
    let back = EmbeddedStore::open(folder.path().join("back"), Options::default());
    let back = all(&back.expect("a store")).await;
    assert_eq!(back.len(), before.len());
    for ((key, held), (other, same)) in before.iter().zip(&back) {
        assert_eq!((key, held.claimed_at), (other, same.claimed_at));
        assert_eq!(held.record.claim, same.record.claim);
        assert_eq!(held.record.state.response(), same.record.state.response());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_is_filled_like_a_single_server() {
    let folder = tempfile::tempdir().expect("a folder");
    let cluster = Cluster::start();
    let store = AnyStore::Embedded(filled(&folder.path().join("one")).await);
    let url = cluster.servers[1].url();
    let source = Source::Store(&store);
    let to = target(filling(&url, &source).await);
    copy(source, to).await.expect("it is whole");
    let shared = open(&url).await.expect("it is a store");
    assert_eq!(shared.report().servers, 3);
    assert_eq!(all(&shared).await, all(&store).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_fails_leaves_redis_vacant_and_one_cut_off_leaves_no_store() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = RedisServer::start();
    let store = AnyStore::Embedded(filled(&folder.path().join("one")).await);
    let backup = folder.path().join("b");
    let written = copy(Source::Store(&store), backup_of(&store, &backup)).await;
    written.expect("it is whole");
    let whole = fs::read(&backup).expect("it is there");
    let mut bytes = whole.clone();
    let end = bytes.len() - 1;
    bytes[end] ^= 1;
    fs::write(&backup, bytes).expect("room");
    let source = from_backup(&backup);
    let to = target(filling(&server.url(), &source).await);
    let copied = copy(source, to).await;
    assert!(
        matches!(copied, Err(TransferError::DamagedBackup { .. })),
        "{copied:?}"
    );
    assert_eq!(size(&server), "0");

    // A copy whose process ends after the first records.
    fs::write(&backup, whole).expect("room");
    let source = from_backup(&backup);
    let to = target(filling(&server.url(), &source).await);
    let copying = async move { transfer(source, to, &mut |_| panic!("cut off")).await };
    let local = tokio::task::LocalSet::new();
    let ended = local.run_until(async { tokio::task::spawn_local(copying).await });
    let ended = ended.await;
    assert!(ended.expect_err("it was cut off").is_panic());
    let records: u64 = size(&server).parse().expect("a number");
    assert!(records > 100, "some are there: {records}");
    let opened = open(&server.url()).await;
    assert!(
        matches!(opened, Err(RedisStoreError::Unfinished)),
        "{opened:?}"
    );
    let again = filling(&server.url(), &from_backup(&backup)).await;
    assert!(again.is_err(), "{again:?}");
    server.client().command(&["FLUSHALL"]);
    let source = from_backup(&backup);
    let to = target(filling(&server.url(), &source).await);
    copy(source, to).await.expect("it is whole");
    let shared = open(&server.url()).await.expect("it is a store");
    assert_eq!(all(&shared).await, all(&store).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn gateways_on_the_target_end_a_copy_and_those_not_seen_claim_nothing_there() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = AnyStore::Embedded(filled(&folder.path().join("one")).await);
    let source = || Source::Store(&store);
    let server = RedisServer::start();
    let gateway = RedisStore::open(&server.url(), RedisOptions::default()).await;
    let gateway = gateway.expect("it opens");
    let refused = filling(&server.url(), &source()).await;
    assert!(
        matches!(refused, Err(TransferError::InUse(1..))),
        "{refused:?}"
    );
    claim(&gateway, 1).await;

    // A server that does not say who is connected.
    let server = RedisServer::with(&["--rename-command", "CLIENT", ""]);
    let gateway = RedisStore::open(&server.url(), RedisOptions::default()).await;
    let gateway = gateway.expect("it opens");
    assert_eq!(gateway.connected_gateways().await, None);
    let to = target(filling(&server.url(), &source()).await);
    let during = gateway
        .insert(&sample::key(1), &sample::outstanding(1))
        .await;
    copy(source(), to).await.expect("it is whole");
    let after = gateway
        .insert(&sample::key(1), &sample::outstanding(1))
        .await;
    for refused in [during, after] {
        assert!(
            matches!(refused, Err(StoreError::Refused { .. })),
            "{refused:?}"
        );
    }
    let shared = open(&server.url()).await.expect("it is a store");
    assert_eq!(all(&shared).await, all(&store).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_gateway_has_claimed_before_the_copy_stays_its_own() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = AnyStore::Embedded(filled(&folder.path().join("one")).await);
    let server = RedisServer::with(&["--rename-command", "CLIENT", ""]);
    let gateway = RedisStore::open(&server.url(), RedisOptions::default()).await;
    let gateway = gateway.expect("it opens");
    claim(&gateway, 1).await;
    let refused = filling(&server.url(), &Source::Store(&store)).await;
    assert!(
        matches!(refused, Err(TransferError::NotVacant(_))),
        "{refused:?}"
    );
    claim(&gateway, 2).await;
    complete(&gateway, 1).await;
}
