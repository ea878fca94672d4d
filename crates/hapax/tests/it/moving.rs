//! A store's records taken elsewhere: a retry gets its answer there, byte for byte.

use std::fs;
use std::path::Path;

use crate::client::{Answer, post};
use crate::commands::{Said, hapax};
use crate::gateway::Gateway;
use crate::redis_servers::RedisServer;
use crate::servers::PostgresServer;
use crate::support::eventually;
use crate::upstream::Upstream;

const KEYS: usize = 20;

/// What the records and commands of one test are about.
struct World {
    upstream: Upstream,
    folder: tempfile::TempDir,
    before: Vec<Answer>,
}

fn key(number: usize) -> String {
    format!("order-{number}")
}

impl World {
    /// A store in the folder, with the answers of [`KEYS`] requests in it and no gateway on it.
    fn new() -> Self {
        let upstream = Upstream::new();
        let folder = tempfile::tempdir().expect("a folder");
        let store = folder.path().join("one");
        let mut gateway = serve(&upstream, &store);
        let before = (0..KEYS).map(|number| post(&key(number)).send(gateway.address()));
        let before = before.collect();
        gateway.stop();
        Self {
            upstream,
            folder,
            before,
        }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// Every request is answered from the store, as it was the first time.
    fn assert_replayed_from(&self, store: &str) {
        let mut gateway = serve(&self.upstream, Path::new(store));
        let effects = self.upstream.effects().len();
        for (number, before) in self.before.iter().enumerate() {
            let again = post(&key(number)).send(gateway.address());
            assert!(again.is_replay(), "{again:?}");
            assert_eq!(again.kept(), before.kept());
        }
        assert_eq!(self.upstream.effects().len(), effects, "nothing ran again");
        gateway.stop();
    }
}

fn serve(upstream: &Upstream, store: &Path) -> Gateway {
    Gateway::try_start_in(&upstream.url(), "", Some(store)).expect("it starts")
}

fn store(arguments: &[&str]) -> Said {
    let mut all = vec!["store"];
    all.extend(arguments);
    hapax(&all, "")
}

#[test]
fn a_backup_restored_elsewhere_replays_what_was_stored() {
    let world = World::new();
    let (one, two, file) = (world.path("one"), world.path("two"), world.path("b"));
    let backup = store(&["backup", &file, "--store", &one]);
    assert_eq!(backup.code, Some(0), "{backup:?}");
    assert!(backup.out.starts_with("20 records"), "{backup:?}");
    let again = store(&["backup", &file, "--store", &one]);
    assert_eq!(again.code, Some(2), "it is there: {again:?}");
    assert_eq!(store(&["restore", &file, "--store", &two]).code, Some(0));
    let again = store(&["restore", &file, "--store", &two]);
    assert_eq!(again.code, Some(2), "it is not vacant: {again:?}");
    world.assert_replayed_from(&two);
    let verified = store(&["verify", "--store", &two, "-o", "json"]).json();
    assert_eq!(verified["read"]["completed"], KEYS);
    let mut bytes = fs::read(&file).expect("it is there");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    fs::write(&file, bytes).expect("room");
    let damaged = store(&["restore", &file, "--store", &world.path("three")]);
    assert_eq!(damaged.code, Some(6), "{damaged:?}");
    assert!(damaged.err.contains("damaged"), "{damaged:?}");
    assert!(!Path::new(&world.path("three")).exists());
}

#[test]
fn a_store_moves_to_postgresql_and_back_and_replays_in_both() {
    let world = World::new();
    let server = PostgresServer::start();
    let url = server.url();
    eventually("PostgreSQL", || {
        let ready = store(&["migrate", "--store", &url]);
        (ready.code == Some(0)).then_some(())
    });
    let moved = store(&[
        "migrate",
        "--from",
        &world.path("one"),
        "--to",
        &url,
        "-o",
        "json",
    ]);
    assert_eq!(moved.json()["records"], KEYS);
    world.assert_replayed_from(&url);
    let counted = store(&["stats", "--store", &url, "-o", "json"]).json();
    assert_eq!(counted["records"], KEYS);
    let back = world.path("back");
    let moved = store(&["migrate", "--from", &url, "--to", &back]);
    assert_eq!(moved.code, Some(0), "{moved:?}");
    assert!(!moved.out.contains("postgres"), "{moved:?}");
    world.assert_replayed_from(&back);
}

#[test]
fn a_store_moves_to_redis_and_on_and_replays_everywhere() {
    let world = World::new();
    let server = RedisServer::start();
    let url = server.url();
    let one = world.path("one");
    let moved = store(&["migrate", "--from", &one, "--to", &url, "-o", "json"]);
    assert_eq!(moved.json()["records"], KEYS);
    let again = store(&["migrate", "--from", &one, "--to", &url]);
    assert_eq!(again.code, Some(2), "it is not vacant: {again:?}");
    let mut gateway = serve(&world.upstream, Path::new(&url));
    let file = world.path("b");
    for arguments in [
        vec!["backup", &file, "--store", &url],
        vec!["migrate", "--from", &one, "--to", &url],
    ] {
        let taken = store(&arguments);
        assert_eq!(taken.code, Some(4), "{taken:?}");
        assert!(taken.err.contains("stop the gateways"), "{taken:?}");
    }
    gateway.stop();
    world.assert_replayed_from(&url);
    assert_eq!(store(&["backup", &file, "--store", &url]).code, Some(0));
    let other = RedisServer::start();
    let restored = store(&["restore", &file, "--store", &other.url()]);
    assert_eq!(restored.code, Some(0), "{restored:?}");
    world.assert_replayed_from(&other.url());
    let back = world.path("back");
    let moved = store(&["migrate", "--from", &other.url(), "--to", &back]);
    assert_eq!(moved.code, Some(0), "{moved:?}");
    world.assert_replayed_from(&back);
}

#[test]
fn a_store_that_a_gateway_has_is_not_copied() {
    let world = World::new();
    let one = world.path("one");
    let mut gateway = serve(&world.upstream, Path::new(&one));
    let taken = store(&["backup", &world.path("b"), "--store", &one]);
    assert_eq!(taken.code, Some(4), "{taken:?}");
    assert!(taken.err.contains("in use"), "{taken:?}");
    gateway.stop();
    let server = PostgresServer::start();
    let url = server.url();
    eventually("PostgreSQL", || {
        let ready = store(&["migrate", "--store", &url]);
        (ready.code == Some(0)).then_some(())
    });
    let mut gateway = serve(&world.upstream, Path::new(&url));
    for (from, to) in [(&url, &world.path("two")), (&one, &url)] {
        let taken = store(&["migrate", "--from", from, "--to", to]);
        assert_eq!(taken.code, Some(4), "{taken:?}");
        assert!(taken.err.contains("stop the gateways"), "{taken:?}");
    }
    gateway.stop();
}

#[test]
fn what_cannot_be_copied_is_said() {
    let world = World::new();
    let (one, two, file) = (world.path("one"), world.path("two"), world.path("b"));
    let memory = world.path("memory.toml");
    fs::write(&memory, "[store]\nkind = \"memory\"\n").expect("room");
    assert_eq!(store(&["backup", &file, "--store", &one]).code, Some(0));
    for (arguments, code, what) in [
        (vec!["backup", &file, "-c", &memory], 2, "in memory"),
        (vec!["restore", &file, "-c", &memory], 2, "in memory"),
        (
            vec!["backup", &one, "--store", &two],
            2,
            "there is no store",
        ),
        (vec!["restore", &one, "--store", &two], 4, "Is a directory"),
        (vec!["migrate", "--from", &one], 2, "--to"),
        (
            vec!["migrate", "--from", &one, "--to", &one],
            2,
            "not empty",
        ),
        (vec!["migrate", "--store", &one], 3, "no migration"),
    ] {
        let said = store(&arguments);
        assert_eq!(said.code, Some(code), "{arguments:?}: {said:?}");
        assert!(said.err.contains(what), "{arguments:?}: {said:?}");
    }
    fs::write(world.folder.path().join("f"), "something else").expect("room");
    let said = store(&["restore", &world.path("f"), "--store", &two]);
    assert_eq!(said.code, Some(2), "{said:?}");
    assert!(said.err.contains("not a backup"), "{said:?}");
}
