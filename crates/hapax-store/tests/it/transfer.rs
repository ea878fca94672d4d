//! Stores and backups filled from each other.

use std::fs;
use std::path::Path;

use hapax_core::key::RecordKey;
use hapax_core::record::{Held, State, StateKind};
use hapax_core::store::{Filter, Store};
use hapax_store::conformance::sample;
use hapax_store::transfer::{
    BackupReader, BackupWriter, Source, Target, TransferError, Transferred, transfer,
};
use hapax_store::{
    AnyStore, EmbeddedRestore, EmbeddedStore, OpenError, Options, PostgresOptions, PostgresRestore,
    PostgresStore,
};

use crate::postgres::connect;
use crate::servers::PostgresServer;
use crate::support::{claim, complete};

/// More than are taken at once.
const COMPLETED: u64 = 700;
const FIRST_UNKNOWN: u64 = 5_000;
const OUTSTANDING: u64 = 9_999;

/// A server that answers.
pub(crate) async fn server() -> PostgresServer {
    let server = PostgresServer::start();
    drop(connect(&server.url()).await);
    server
}

/// How far a copy is does not matter to these tests.
pub(crate) fn unwatched(_: &Transferred) {}

pub(crate) async fn copy(source: Source<'_>, target: Target) -> Result<Transferred, TransferError> {
    transfer(source, target, &mut unwatched).await
}

/// An embedded store with settled, unknown and outstanding records.
pub(crate) async fn filled(path: &Path) -> EmbeddedStore {
    let store = EmbeddedStore::open(path, Options::default()).expect("a new store");
    for number in 0..COMPLETED {
        claim(&store, number).await;
        complete(&store, number).await;
    }
    for number in FIRST_UNKNOWN..FIRST_UNKNOWN + 3 {
        claim(&store, number).await;
        let unknown = sample::unknown(number);
        let key = sample::key(number);
        let written = store.replace(&key, unknown.claim, &unknown).await;
        written.expect("it is ours");
    }
    claim(&store, OUTSTANDING).await;
    store
}

pub(crate) async fn all(store: &impl Store) -> Vec<(RecordKey, Held)> {
    let (mut records, mut after) = (Vec::new(), None);
    loop {
        let page = store.list(&Filter::default(), after, 1_000).await;
        let page = page.expect("it can be read");
        records.extend(page.records);
        after = page.next;
        if after.is_none() {
            return records;
        }
    }
}

pub(crate) fn backup_of(store: &AnyStore, path: &Path) -> Target {
    Target::Backup(BackupWriter::create(path, store.secret()).expect("room"))
}

pub(crate) fn from_backup(path: &Path) -> Source<'static> {
    Source::Backup(Box::new(BackupReader::open(path).expect("a backup")))
}

pub(crate) fn into_directory(source: &Source<'_>, path: &Path) -> Target {
    Target::Embedded(EmbeddedRestore::create(path, source.secret()).expect("it is vacant"))
}

#[tokio::test]
async fn every_record_comes_back_from_a_backup_with_its_instants_and_its_secret() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name| folder.path().join(name);
    let store = AnyStore::Embedded(filled(&path("one")).await);
    let before = all(&store).await;
    let done = copy(Source::Store(&store), backup_of(&store, &path("b"))).await;
    let done = done.expect("it is whole");
    assert_eq!((done.records, done.outstanding), (COMPLETED + 4, 1));
    let secret = store.secret().as_bytes().to_owned();
    drop(store);

    let source = from_backup(&path("b"));
    let target = into_directory(&source, &path("two"));
    assert!(!path("two").exists(), "nobody sees half a store");
    copy(source, target).await.expect("it is whole");
    let restored = EmbeddedStore::open(path("two"), Options::default()).expect("a store");
    assert_eq!(restored.secret().as_bytes(), &secret);
    assert_eq!(restored.interrupted(), 1, "its end is not known here");
    let after = all(&restored).await;
    assert_eq!(after.len(), before.len());
    for ((key, held), (other, same)) in before.iter().zip(&after) {
        assert_eq!(key, other);
        match held.record.state {
            State::Outstanding { .. } => {
                assert!(matches!(same.record.state, State::Unknown { .. }));
            }
            _ => assert_eq!(held, same),
        }
    }
    // It takes claims like any other, and keeps them over a restart.
    claim(&restored, 20_000).await;
    complete(&restored, 20_000).await;
    restored.close();
    let again = EmbeddedStore::open(path("two"), Options::default()).expect("a store");
    assert_eq!(all(&again).await.len(), before.len() + 1);
}

#[tokio::test]
async fn records_move_to_postgresql_and_back_unchanged() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name| folder.path().join(name);
    let server = server().await;
    let options = || PostgresOptions {
        application_name: "a test",
        ..PostgresOptions::default()
    };
    let store = AnyStore::Embedded(filled(&path("one")).await);
    let before = all(&store).await;
    let target = PostgresRestore::create(&server.url(), &options(), store.secret()).await;
    let target = Target::Postgres(target.expect("it is vacant"));
    copy(Source::Store(&store), target)
        .await
        .expect("it is whole");

    let shared = PostgresStore::open(&server.url(), options()).await;
    let shared = AnyStore::Postgres(shared.expect("it is there"));
    assert_eq!(all(&shared).await, before);
    let stats = shared.stats().await.expect("it answers");
    assert_eq!((stats.outstanding, stats.unknown), (1, 3));
    let again = PostgresRestore::create(&server.url(), &options(), store.secret()).await;
    assert!(
        matches!(again, Err(TransferError::NotVacant(_))),
        "{again:?}"
    );

    let source = Source::Store(&shared);
    let target = into_directory(&source, &path("back"));
    copy(source, target).await.expect("it is whole");
    let back = EmbeddedStore::open(path("back"), Options::default()).expect("a store");
    let settled = |records: Vec<(RecordKey, Held)>| {
        let mut records = records;
        records.retain(|(_, held)| held.kind_at(held.written_at) == Some(StateKind::Completed));
        records
    };
    assert_eq!(settled(all(&back).await), settled(before));
}

#[tokio::test]
async fn a_copy_that_fails_leaves_postgresql_as_it_was() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name| folder.path().join(name);
    let server = server().await;
    let options = PostgresOptions::default();
    let store = AnyStore::Embedded(filled(&path("one")).await);
    let backup = path("b");
    let written = copy(Source::Store(&store), backup_of(&store, &backup)).await;
    written.expect("it is whole");
    let mut bytes = fs::read(&backup).expect("it is there");
    let end = bytes.len() - 1;
    bytes[end] ^= 1;
    fs::write(&backup, bytes).expect("room");
    let source = from_backup(&backup);
    let target = PostgresRestore::create(&server.url(), &options, source.secret()).await;
    let copied = copy(source, Target::Postgres(target.expect("it is vacant"))).await;
    assert!(
        matches!(copied, Err(TransferError::DamagedBackup { .. })),
        "{copied:?}"
    );
    let left = PostgresStore::open(&server.url(), options).await;
    let left = left.expect("it is migrated");
    assert_eq!(all(&left).await, []);
    assert_ne!(left.secret().as_bytes(), store.secret().as_bytes());
}

#[tokio::test]
async fn a_store_that_gateways_are_connected_to_is_not_filled() {
    let server = server().await;
    let options = PostgresOptions::default();
    hapax_store::migrate_postgres(&server.url(), &options)
        .await
        .expect("it can be");
    let gateway = PostgresStore::open(&server.url(), options.clone()).await;
    let gateway = gateway.expect("it is migrated");
    let filling = PostgresRestore::create(&server.url(), &options, gateway.secret()).await;
    assert!(
        matches!(filling, Err(TransferError::InUse(1))),
        "{filling:?}"
    );
    assert_eq!(
        gateway.connected_gateways().await.expect("it answers"),
        0,
        "itself"
    );
}

#[tokio::test]
async fn a_backup_with_any_byte_damaged_or_any_end_cut_off_restores_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name| folder.path().join(name);
    let store = EmbeddedStore::open(path("one"), Options::default()).expect("a new store");
    for number in 0..3 {
        claim(&store, number).await;
        complete(&store, number).await;
    }
    let store = AnyStore::Embedded(store);
    let backup = path("b");
    let written = copy(Source::Store(&store), backup_of(&store, &backup)).await;
    written.expect("it is whole");
    let good = fs::read(&backup).expect("it is there");
    let read = |bytes: &[u8]| {
        fs::write(&backup, bytes).expect("room");
        let source = BackupReader::open(&backup).map(|backup| Source::Backup(Box::new(backup)));
        let sink = path("sink");
        drop(fs::remove_file(&sink));
        async move {
            let source = source?;
            let target = Target::Backup(BackupWriter::create(&sink, source.secret())?);
            let copied = transfer(source, target, &mut unwatched).await;
            assert_eq!(sink.exists(), copied.is_ok(), "all of it or nothing");
            copied
        }
    };
    assert_eq!(read(&good).await.expect("it is whole").records, 3);
    for byte in 0..good.len() {
        let mut bytes = good.clone();
        bytes[byte] ^= 1 << (byte % 8);
        assert!(read(&bytes).await.is_err(), "byte {byte}");
    }
    for len in (0..good.len()).step_by(7) {
        assert!(read(&good[..len]).await.is_err(), "cut to {len}");
    }
    let longer = [&good[..], b"x"].concat();
    assert!(read(&longer).await.is_err(), "a byte more");
}

#[tokio::test]
async fn a_damaged_record_ends_a_copy_instead_of_being_left_out() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name| folder.path().join(name);
    let server = server().await;
    let options = PostgresOptions::default();
    hapax_store::migrate_postgres(&server.url(), &options)
        .await
        .expect("it can be");
    let store = PostgresStore::open(&server.url(), options)
        .await
        .expect("it is migrated");
    for number in 0..5 {
        claim(&store, number).await;
        complete(&store, number).await;
    }
    let client = connect(&server.url()).await;
    let flip = "UPDATE hapax_store_records SET value = set_byte(value, 60, get_byte(value, 60) # 1)
        WHERE key = (SELECT key FROM hapax_store_records ORDER BY key DESC LIMIT 1)";
    client.batch_execute(flip).await.expect("it executes");
    let store = AnyStore::Postgres(store);
    let copied = copy(Source::Store(&store), backup_of(&store, &path("b"))).await;
    assert!(
        matches!(copied, Err(TransferError::DamagedSource(1))),
        "{copied:?}"
    );
    assert!(!path("b").exists());
    assert_eq!(
        fs::read_dir(folder.path()).expect("it is there").count(),
        0,
        "nothing is left"
    );
}

#[tokio::test]
async fn what_is_there_already_is_not_written_over() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name| folder.path().join(name);
    let store = AnyStore::Embedded(filled(&path("one")).await);
    fs::write(path("b"), "mine").expect("room");
    let taken = BackupWriter::create(&path("b"), store.secret());
    assert!(
        matches!(taken, Err(TransferError::NotVacant(_))),
        "{taken:?}"
    );
    assert_eq!(fs::read(path("b")).expect("it is there"), b"mine");
    for (name, what) in [("one", "a store"), ("b", "a file")] {
        let taken = EmbeddedRestore::create(&path(name), store.secret());
        let is_refused = matches!(
            taken,
            Err(TransferError::NotVacant(_) | TransferError::Embedded(OpenError::Io { .. }))
        );
        assert!(is_refused, "{what}: {taken:?}");
    }
    fs::create_dir(path("empty")).expect("room");
    let filling = EmbeddedRestore::create(&path("empty"), store.secret()).expect("it is vacant");
    let second = EmbeddedRestore::create(&path("empty"), store.secret());
    assert!(
        matches!(second, Err(TransferError::NotVacant(_))),
        "{second:?}"
    );
    drop(filling);
    copy(
        Source::Store(&store),
        Target::Embedded(EmbeddedRestore::create(&path("empty"), store.secret()).expect("again")),
    )
    .await
    .expect("it is whole");
    assert!(path("empty").join("FORMAT").exists());
}
