//! A machine whose clock is wrong: the store's clock judges, and it is the server's.

use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use crate::client::{Connection, post};
use crate::gateway::Gateway;
use crate::servers::PostgresServer;
use crate::shared::wait_until_migrated;
use crate::support::{Gate, eventually};
use crate::upstream::{Act, Upstream, created};

/// What has a program read another clock (Debian's `faketime`).
fn library() -> PathBuf {
    let folders = std::fs::read_dir("/usr/lib").expect("a system");
    let mut found = folders.filter_map(|folder| {
        let library = folder.ok()?.path().join("faketime/libfaketime.so.1");
        library.exists().then_some(library)
    });
    found
        .next()
        .expect("libfaketime (apt-get install faketime)")
}

/// A gateway whose machine's clock is off by so much (`+1h`).
fn start(upstream: &Upstream, url: &str, off: &str) -> Gateway {
    let config = "[defaults]\nlease = \"4s\"\nretention = \"60s\"\n";
    let variables = vec![
        ("LD_PRELOAD", library().display().to_string()),
        ("FAKETIME", off.to_owned()),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
    ];
    let started = Gateway::try_start_with(&upstream.url(), config, Some(Path::new(url)), variables);
    started.expect("it starts")
}

#[test]
fn a_gateway_whose_clock_is_off_by_an_hour_changes_nothing() {
    let server = PostgresServer::start();
    wait_until_migrated(&server.url());
    let gate = Gate::new();
    let held = gate.clone();
    let upstream = Upstream::scripted(move |effect| {
        if effect.key().starts_with("held") {
            return Act::Hold(held.clone(), created(effect));
        }
        Act::Answer(created(effect))
    });
    let right = start(&upstream, &server.url(), "+0");
    let early = start(&upstream, &server.url(), "-1h");
    let late = start(&upstream, &server.url(), "+1h");
    let stamped = |gateway: &Gateway| {
        // A log line of JSON: what its own clock says.
        gateway.wait_for_log("when", |log| log.contains("\"timestamp\":\""));
        let log = gateway.log();
        let (_, time) = log.split_once("\"timestamp\":\"").expect("a line of JSON");
        time[.."2026-01-01T00".len()].to_owned()
    };
    let (early_says, late_says) = (stamped(&early), stamped(&late));
    assert_ne!(early_says, late_says, "their clocks are not off at all");
    // Retention: what one completes, all others replay; an hour's difference expires nothing.
    for (one, gateway) in [&right, &early, &late].iter().enumerate() {
        let key = format!("settled-{one}");
        let first = post(&key).send(gateway.address());
        assert_eq!(first.status, 201, "{first:?}");
        for other in [&right, &early, &late] {
            let replay = post(&key).send(other.address());
            assert!(replay.is_replay(), "{key}: {replay:?}");
            assert_eq!(replay.kept(), first.kept(), "{key}");
        }
    }
    // Leases: a claim under way is under way for everybody, longer than its lease.
    let mut callers = Vec::new();
    for (one, gateway) in [&right, &early, &late].iter().enumerate() {
        let mut caller = Connection::open(gateway.address());
        caller
            .send(&post(&format!("held-{one}")).bytes())
            .expect("it listens");
        callers.push(caller);
    }
    upstream.wait_for_effects(6);
    let began = std::time::Instant::now();
    while began.elapsed() < Duration::from_secs(6) {
        for one in 0..3 {
            for gateway in [&right, &early, &late] {
                let duplicate = post(&format!("held-{one}")).send(gateway.address());
                assert_eq!(duplicate.status, 409, "{duplicate:?}");
            }
        }
        thread::park_timeout(Duration::from_millis(200));
    }
    gate.open();
    for mut caller in callers {
        assert_eq!(caller.read().expect("an answer").status, 201);
    }
    // And one that ends without a word lapses for everybody, when its lease is over.
    eventually("its replay", || {
        post("held-0")
            .send(late.address())
            .is_replay()
            .then_some(())
    });
    assert_eq!(upstream.count(), 6, "nothing was executed twice");
}
