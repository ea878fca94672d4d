//! The server is away while a thousand duplicates wait: no storm when it is back.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use crate::client::{Answer, Connection, post};
use crate::gateway::Gateway;
use crate::servers::PostgresServer;
use crate::shared::wait_until_migrated;
use crate::support::{Gate, eventually};
use crate::upstream::{Act, Upstream, created};

const WAITERS: usize = 1_000;
const KEYS: usize = 20;
/// How soon after the server's return all must be well.
const RECOVERY: Duration = Duration::from_secs(5);
/// How often a waiter asks once it holds back: after up to a second, and no more often than this.
const MOST_A_SECOND: f64 = 1.6;

/// What the server has done so far, and when.
fn transactions(server: &PostgresServer) -> (f64, Instant) {
    let select = "SELECT xact_commit + xact_rollback FROM pg_stat_database
        WHERE datname = 'postgres'";
    let count = eventually("a count", || server.query(select));
    (count.parse().expect("a number"), Instant::now())
}

/// How often the gateway has asked for a claim.
fn claims(gateway: &Gateway) -> f64 {
    let name = "hapax_store_operation_duration_seconds_count";
    gateway.metric(name, &["operation=\"insert\""])
}

/// Asks until there is an answer that is no refusal of the store, as clients do.
fn insist(gateway: std::net::SocketAddr, key: &str) -> Answer {
    eventually("an answer", || {
        let mut connection = Connection::open(gateway);
        connection.send(&post(key).bytes()).expect("it listens");
        let answer = connection.read().expect("an answer");
        if answer.status == 503 {
            // What `Retry-After` would have clients do, in short.
            thread::park_timeout(Duration::from_millis(500));
            return None;
        }
        Some(answer)
    })
}

/// How many transactions a second they cost the server while they hold back.
fn rate_of_holding_back(gateway: &Gateway, server: &PostgresServer) -> f64 {
    let (before, (count, since)) = (claims(gateway), transactions(server));
    eventually("each of them asking twice more", || {
        (claims(gateway) - before >= 2.0 * WAITERS as f64).then_some(())
    });
    let (asked, (until, now)) = (claims(gateway) - before, transactions(server));
    let seconds = (now - since).as_secs_f64();
    let each = asked / seconds / WAITERS as f64;
    assert!(each < MOST_A_SECOND, "each asks {each} times a second");
    let rate = (until - count) / seconds;
    // A question is one transaction, or a part of one; gateways and this test ask a few more.
    assert!(rate < 2.0 * WAITERS as f64, "{rate} transactions a second");
    eprintln!("each asks {each:.2} times a second");
    rate
}

#[test]
fn a_thousand_waiting_duplicates_outlast_an_outage_without_a_storm() {
    let mut server = PostgresServer::start();
    wait_until_migrated(&server.url());
    let gate = Gate::new();
    let held = gate.clone();
    let upstream = Upstream::scripted(move |effect| Act::Hold(held.clone(), created(effect)));
    let config = "[defaults]\nwait = \"25s\"\nlease = \"60s\"\n\
        [limits]\nmax_waiters_per_key = 0\n";
    let url = server.url();
    let start = || Gateway::try_start_in(&upstream.url(), config, Some(Path::new(&url)));
    let (first, other) = (start().expect("it starts"), start().expect("it starts"));
    let mut firsts = Vec::new();
    for key in 0..KEYS {
        let mut caller = Connection::open(first.address());
        caller
            .send(&post(&format!("k{key}")).bytes())
            .expect("it listens");
        firsts.push(caller);
    }
    upstream.wait_for_effects(KEYS);
    let address = other.address();
    let waiters: Vec<_> = (0..WAITERS)
        .map(|waiter| {
            let work = move || insist(address, &format!("k{}", waiter % KEYS));
            let builder = thread::Builder::new().stack_size(256 << 10);
            builder.spawn(work).expect("a thread")
        })
        .collect();
    eventually("all of them waiting", || {
        (claims(&other) >= 2.0 * WAITERS as f64).then_some(())
    });
    let before = other.peak_memory_mib();
    server.crash();
    eventually("the gateway to notice", || {
        (other.admin_get("/readyz").status == 503).then_some(())
    });
    server.go_on(&[]);
    eventually("PostgreSQL", || server.query("SELECT 1"));
    let returned = Instant::now();
    let asked = claims(&other);
    eventually("readiness", || {
        (other.admin_get("/readyz").status == 200).then_some(())
    });
    let took = returned.elapsed();
    assert!(took < RECOVERY, "it took {took:?}");
    eventually("all of them waiting again, and holding back", || {
        (claims(&other) - asked >= 4.0 * WAITERS as f64).then_some(())
    });
    let rate = rate_of_holding_back(&other, &server);
    gate.open();
    for mut caller in firsts {
        assert_eq!(caller.read().expect("an answer").status, 201);
    }
    for waiter in waiters {
        let answer = waiter.join().expect("no panic");
        assert!(answer.status == 201 && answer.is_replay(), "{answer:?}");
    }
    assert_eq!(upstream.count(), KEYS, "nothing was executed twice");
    let grown = other.peak_memory_mib() - before;
    eprintln!(
        "{WAITERS} waiters: ready {took:?} after the return, {rate:.0} transactions a second, {grown} MiB more"
    );
    assert!(grown < 64, "{grown} MiB");
}
