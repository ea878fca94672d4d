//! The primary dies and its synchronous standby takes over: nothing acknowledged is lost.

use std::path::Path;
use std::time::Duration;

use crate::client::post;
use crate::gateway::Gateway;
use crate::servers::PostgresServer;
use crate::shared::{Tally, under_load, wait_until_migrated};
use crate::support::{campaign, eventually};
use crate::upstream::Upstream;

/// Some four seconds each; `HAPAX_CAMPAIGN=2` has twenty.
const CYCLES: usize = 10;

/// Has `standby` follow `primary`, and returns when every commit waits for it.
fn attach(standby: &mut PostgresServer, primary: &PostgresServer) {
    standby.follow(primary);
    let wait = "ALTER SYSTEM SET synchronous_standby_names = 'standby'";
    primary.query(wait).expect("it may be set");
    primary
        .query("SELECT pg_reload_conf()")
        .expect("it reloads");
    eventually("a synchronous standby", || {
        let state = "SELECT count(*) FROM pg_stat_replication
            WHERE sync_state = 'sync' AND state = 'streaming'";
        (primary.query(state)? == "1").then_some(())
    });
}

#[test]
fn promotions_of_a_synchronous_standby_under_load_lose_nothing_and_double_nothing() {
    let mut primary = PostgresServer::start();
    let mut standby = PostgresServer::nothing();
    let url = primary.url_with(&standby);
    wait_until_migrated(&url);
    let upstream = Upstream::new();
    // Longer than a failover: until then, what was answered is written down late (P24).
    let config = "[defaults]\nlease = \"60s\"\n";
    let start = || Gateway::try_start_in(&upstream.url(), config, Some(Path::new(&url)));
    let gateways = [start().expect("it starts"), start().expect("it starts")];
    let mut tally = Tally::default();
    for cycle in 0..CYCLES * campaign() {
        attach(&mut standby, &primary);
        let sent = under_load(&gateways, &format!("{cycle}"), || {
            upstream.wait_for_effects(upstream.count() + 50);
            primary.kill_nine();
            standby.promote();
            upstream.wait_for_effects(upstream.count() + 20);
        });
        std::mem::swap(&mut primary, &mut standby);
        tally.check(&sent, &gateways);
    }
    tally.end(&upstream, "promotions", CYCLES * campaign());
}

#[test]
fn a_standby_alone_is_refused_and_beside_a_silent_host_the_primary_is_found() {
    let primary = PostgresServer::start();
    wait_until_migrated(&primary.url());
    let mut standby = PostgresServer::nothing();
    attach(&mut standby, &primary);
    let upstream = Upstream::new();
    let start = |url: &str| Gateway::try_start_in(&upstream.url(), "", Some(Path::new(url)));
    let refused = eventually("the standby", || {
        let refused = start(&standby.url()).err().expect("it cannot write");
        refused
            .log
            .contains("this server is a standby")
            .then_some(refused)
    });
    assert_eq!(refused.status.code(), Some(4), "{refused:?}");
    // It takes connections and never says a word.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let silent = silent.local_addr().expect("a port");
    let url = primary.url().replace("test@", &format!("test@{silent},"));
    let gateway = start(&url).expect("it starts");
    let executed = post("k").send(gateway.address());
    assert_eq!(executed.status, 201, "{executed:?}");
    let took = std::time::Instant::now();
    let again = post("l").send(gateway.address());
    assert_eq!(again.status, 201, "{again:?}");
    assert!(took.elapsed() < Duration::from_secs(1), "it is remembered");
}
