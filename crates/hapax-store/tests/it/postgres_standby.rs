//! Two gateways on a server whose commits wait for a standby.

use std::sync::Arc;
use std::time::Duration;

use hapax_core::store::{Store, StoreError};
use hapax_store::conformance::sample;
use tokio::time::{Instant, interval};

use crate::postgres::{end_when_waiting, eventually_read, execute, migrated, open};
use crate::servers::PostgresServer;
use crate::support::{claim, read};

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_of_another_gateway_that_did_not_wait_is_not_shown_before_the_standby_has_it() {
    let (primary, client) = migrated().await;
    let mut standby = PostgresServer::nothing();
    standby.follow(&primary);
    let wait = "ALTER SYSTEM SET synchronous_standby_names = 'standby'";
    execute(&client, wait).await;
    execute(&client, "SELECT pg_reload_conf()").await;
    let is_sync = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'";
    let deadline = Instant::now() + Duration::from_secs(30);
    let mut ticks = interval(Duration::from_millis(20));
    while client
        .query_one(is_sync, &[])
        .await
        .expect("it answers")
        .get::<_, i64>(0)
        != 1
    {
        assert!(Instant::now() < deadline, "no synchronous standby");
        ticks.tick().await;
    }
    let one = Arc::new(open(&primary).await.expect("it opens"));
    let other = Arc::new(open(&primary).await.expect("it opens"));
    // Whatever was in doubt when they connected is over.
    claim(&*one, 1).await;
    assert!(read(&*other, 1).await.is_some());

    standby.crash();
    let inserting = tokio::spawn({
        let one = Arc::clone(&one);
        async move { one.insert(&sample::key(2), &sample::outstanding(2)).await }
    });
    end_when_waiting(&client, "pg_cancel_backend").await;
    let inserted = inserting.await.expect("no panic");
    assert!(
        matches!(inserted, Err(StoreError::Uncertain { .. })),
        "{inserted:?}"
    );
    let reading = tokio::spawn({
        let other = Arc::clone(&other);
        async move { other.read(&sample::key(2)).await }
    });
    end_when_waiting(&client, "pg_cancel_backend").await;
    let read = reading.await.expect("no panic");
    assert!(matches!(read, Err(StoreError::Refused { .. })), "{read:?}");

    standby.go_on(&[]);
    let held = eventually_read(&other, 2).await;
    assert_eq!(held.record, sample::outstanding(2));
}
