//! An order in steps, whose charge somebody else makes, and `kill -9` around that call.

use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, interval};

use crate::client::PATIENCE;
use crate::modes::order;
use crate::process::{Process, start};
use crate::provider::{Hold, Provider};
use crate::{charges, lamp};

/// How many cycles of killing there are on SQLite, times `HAPAX_CAMPAIGN`.
const CYCLES: u32 = 20;

/// How long an order takes in those, in milliseconds.
const WORK_MS: u64 = 30;

async fn start_with(database: &str, provider: &Provider, work_ms: u64, after_ms: u64) -> Process {
    let url = format!("http://{}", provider.address);
    let after = after_ms.to_string();
    let options = [
        "--mode",
        "transactional",
        "--provider",
        &url,
        "--abandoned-after",
        &after,
    ];
    start(database, work_ms, &options).await
}

/// Longer than a test takes.
const NEVER_MS: u64 = 3_600_000;

#[tokio::test]
async fn an_order_in_steps_is_charged_once_on_sqlite() {
    let folder = tempfile::tempdir().expect("a folder");
    let database = folder.path().join("shop.db");
    charge_and_kill_around_the_call(&database.to_string_lossy()).await;
}

#[tokio::test]
async fn an_order_in_steps_is_charged_once_on_postgres() {
    charge_and_kill_around_the_call(&crate::postgres::database().await).await;
}

async fn charge_and_kill_around_the_call(database: &str) {
    let provider = Provider::start().await;
    let mut process = start_with(database, &provider, 0, NEVER_MS).await;
    let unkeyed = process
        .client
        .send("POST", "/create-order", &[], Some(&lamp()))
        .await;
    assert_eq!(unkeyed.status, 400, "what has no key cannot be tried again");
    let first = order(&process.client, "k", "a lamp").await.expect("one");
    assert_eq!(first.status, 201);
    let repeat = order(&process.client, "k", "a lamp").await.expect("one");
    assert_eq!((repeat.status, &repeat.content), (201, &first.content));
    assert_eq!((provider.charges(), provider.calls()), ((1, 1), (1, 1)));

    for (number, hold) in [Hold::BeforeTheCharge, Hold::BeforeTheAnswer]
        .into_iter()
        .enumerate()
    {
        let made = number + 1;
        provider.hold(hold);
        let key = format!("{hold:?}");
        let mut requests = JoinSet::new();
        for _ in 0..3 {
            let (client, key) = (process.client.clone(), key.clone());
            requests.spawn(async move { order(&client, &key, "a lamp").await });
        }
        provider.held().await;
        process.kill().await;
        assert!(requests.join_all().await.iter().all(Option::is_none));
        let is_charged = usize::from(hold == Hold::BeforeTheAnswer);
        assert_eq!(provider.charges().0, made + is_charged, "{hold:?}");

        process = start_with(database, &provider, 0, NEVER_MS).await;
        // The order is committed, and its charge is not known here.
        let target = format!("/orders?request={key}");
        assert_eq!(process.client.get(&target).await.status, 200);
        assert_eq!(charges(&process.client).await, made as i64);
        let other = order(&process.client, &key, "a chair").await.expect("one");
        assert_eq!(other.status, 422, "a step is committed: the key is bound");
        let repeat = order(&process.client, &key, "a lamp").await.expect("one");
        assert_eq!(repeat.status, 201, "{hold:?}: {repeat:?}");
        assert_eq!(repeat.header("idempotent-replayed"), None);
        let again = order(&process.client, &key, "a lamp").await.expect("one");
        assert_eq!(again.content, repeat.content);
        assert!(again.header("idempotent-replayed").is_some());
        let orders = process.client.get(&target).await.json();
        assert_eq!(orders["orders"].as_array().expect("a list").len(), 1);
        assert_eq!(provider.charges(), (made + 1, made + 1), "{hold:?}");
        assert_eq!(provider.calls().1, made + 1, "the same key at every call");
        assert_eq!(charges(&process.client).await, made as i64 + 1);
    }
    assert_eq!(provider.calls().0, 5, "each of the two was called twice");
}

#[tokio::test]
async fn the_completer_finishes_an_order_whose_client_never_comes_back_on_sqlite() {
    let folder = tempfile::tempdir().expect("a folder");
    let database = folder.path().join("shop.db");
    complete_after_a_kill(&database.to_string_lossy()).await;
}

#[tokio::test]
async fn the_completer_finishes_an_order_whose_client_never_comes_back_on_postgres() {
    complete_after_a_kill(&crate::postgres::database().await).await;
}

async fn complete_after_a_kill(database: &str) {
    let provider = Provider::start().await;
    for (number, hold) in [Hold::BeforeTheCharge, Hold::BeforeTheAnswer]
        .into_iter()
        .enumerate()
    {
        let made = number + 1;
        let mut process = start_with(database, &provider, 0, NEVER_MS).await;
        provider.hold(hold);
        let key = format!("{hold:?}");
        let request = tokio::spawn({
            let (client, key) = (process.client.clone(), key.clone());
            async move { order(&client, &key, "a lamp").await }
        });
        provider.held().await;
        process.kill().await;
        assert!(request.await.expect("no panic").is_none());

        let process = start_with(database, &provider, 0, 100).await;
        let deadline = Instant::now() + PATIENCE;
        let mut ticks = interval(Duration::from_millis(20));
        while charges(&process.client).await < made as i64 {
            assert!(Instant::now() < deadline, "nobody finished the order");
            ticks.tick().await;
        }
        let repeat = order(&process.client, &key, "a lamp").await.expect("one");
        assert_eq!(repeat.status, 201, "{repeat:?}");
        let again = order(&process.client, &key, "a lamp").await.expect("one");
        assert!(again.header("idempotent-replayed").is_some());
        assert_eq!(again.content, repeat.content);
        assert_eq!(provider.charges(), (made, made), "{hold:?}");
        assert_eq!(provider.calls(), (2 * made, made), "{hold:?}");
        assert_eq!(charges(&process.client).await, made as i64);
    }
}

/// From before the first step until after the answer, at another point each time. On PostgreSQL every
/// point is hit for certain, in `kills`.
#[tokio::test]
async fn kill_9_at_any_point_of_an_order_in_steps_leaves_one_order_and_one_charge_on_sqlite() {
    let campaign = std::env::var("HAPAX_CAMPAIGN").map_or(1, |n| n.parse().expect("a number"));
    let cycles: u64 = u64::from(CYCLES) * campaign;
    let folder = tempfile::tempdir().expect("a folder");
    let database = folder.path().join("shop.db");
    let database = database.to_string_lossy();
    let provider = Provider::start().await;
    let mut process = start_with(&database, &provider, WORK_MS, NEVER_MS).await;
    let (mut acknowledged, mut begun, mut charged) = (0, 0, 0);
    // How long an order takes here and now, so that the points spread over it on a busy machine too.
    let mut span = Duration::from_millis(2 * WORK_MS);
    for cycle in 0..cycles {
        let key = format!("k-{cycle}");
        let before = provider.charges().0;
        let mut requests = JoinSet::new();
        for _ in 0..3 {
            let (client, key) = (process.client.clone(), key.clone());
            requests.spawn(async move { order(&client, &key, "a lamp").await });
        }
        let point = u32::try_from(cycle % u64::from(CYCLES)).expect("few");
        tokio::time::sleep(span * 3 / 2 * point / CYCLES).await;
        process.kill().await;
        let answers = requests.join_all().await;
        let answers: Vec<_> = answers.into_iter().flatten().collect();
        assert!(answers.iter().all(|answer| answer.status == 201));

        process = start_with(&database, &provider, WORK_MS, NEVER_MS).await;
        let target = format!("/orders?request={key}");
        let is_begun = process.client.get(&target).await.status == 200;
        begun += u32::from(is_begun);
        charged += provider.charges().0 - before;
        let began = Instant::now();
        let repeat = order(&process.client, &key, "a lamp").await.expect("one");
        assert_eq!(repeat.status, 201, "cycle {cycle}: {repeat:?}");
        if !is_begun {
            span = began.elapsed();
        }
        for answer in &answers {
            assert_eq!(answer.content, repeat.content, "cycle {cycle}");
        }
        let orders = process.client.get(&target).await.json();
        assert_eq!(orders["orders"].as_array().expect("a list").len(), 1);
        acknowledged += u64::from(!answers.is_empty());
        let made = usize::try_from(cycle + 1).expect("few");
        assert_eq!(provider.charges(), (made, made), "cycle {cycle}");
        assert_eq!(charges(&process.client).await, cycle as i64 + 1);
    }
    println!(
        "{cycles} kills: {begun} after the first step, {charged} charged, {acknowledged} acknowledged"
    );
    assert!(begun > 0 && u64::from(begun) < cycles && acknowledged < cycles);
}
