//! The ways in which `POST /create-order` can be protected, and `kill -9` on the strictest.

use std::time::Duration;

use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::client::{Answer, Client};
use crate::process::start;
use crate::{charges, lamp};

/// How many cycles of killing there are, times `HAPAX_CAMPAIGN`.
const CYCLES: u32 = 30;

/// How long an order takes in those, in milliseconds.
const WORK_MS: u64 = 30;

pub(crate) async fn order(client: &Client, key: &str, item: &str) -> Option<Answer> {
    let fields = [
        ("Content-Type", "application/json"),
        ("Idempotency-Key", key),
    ];
    let content = json!({ "item": item }).to_string();
    client
        .exchange("POST", "/create-order", &fields, &content)
        .await
}

/// A repeat is replayed, another payload refused, and a hundred at once are one order.
async fn check_protected(client: &Client) {
    let first = order(client, "k-1", "a lamp").await.expect("an answer");
    assert_eq!(first.status, 201);
    let repeat = order(client, "\"k-1\"", "a lamp").await.expect("an answer");
    assert_eq!((repeat.status, &repeat.content), (201, &first.content));
    assert_eq!(repeat.header("idempotent-replayed"), Some("true"));
    assert_eq!(repeat.header("location"), first.header("location"));
    let other = order(client, "k-1", "a chair").await.expect("an answer");
    assert_eq!(other.status, 422);
    let refused = order(client, "k-2", "a yacht").await.expect("an answer");
    assert_eq!(refused.status, 422);
    let mut requests = JoinSet::new();
    for _ in 0..100 {
        let client = client.clone();
        requests.spawn(async move { order(&client, "k-3", "a lamp").await });
    }
    for answer in requests.join_all().await {
        assert_eq!(answer.expect("an answer").status, 201);
    }
    assert_eq!(charges(client).await, 2);
}

#[tokio::test]
async fn put_mode_offers_no_post() {
    let folder = tempfile::tempdir().expect("a folder");
    let database = folder.path().join("shop.db");
    let process = start(&database.to_string_lossy(), 0, &["--mode", "put"]).await;
    let answer = process
        .client
        .send("POST", "/create-order", &[], Some(&lamp()))
        .await;
    assert_eq!(answer.status, 404);
    let answer = process
        .client
        .send("PUT", "/order/o-1", &[], Some(&lamp()))
        .await;
    assert_eq!(answer.status, 201);
}

#[tokio::test]
async fn keyed_mode_makes_a_repeat_one_order() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    let keys = path("keys");
    let options = ["--mode", "keyed", "--keys", &keys];
    let process = start(&path("shop.db"), 0, &options).await;
    check_protected(&process.client).await;
}

#[tokio::test]
async fn transactional_mode_makes_a_repeat_one_order_on_sqlite() {
    let folder = tempfile::tempdir().expect("a folder");
    let database = folder.path().join("shop.db");
    let options = ["--mode", "transactional"];
    let process = start(&database.to_string_lossy(), 0, &options).await;
    check_protected(&process.client).await;
}

#[tokio::test]
async fn transactional_mode_makes_a_repeat_one_order_on_postgres() {
    let database = crate::postgres::database().await;
    let process = start(&database, 0, &["--mode", "transactional"]).await;
    check_protected(&process.client).await;
}

#[tokio::test]
async fn a_ledger_that_is_read_beside_charges_is_of_one_moment_on_postgres() {
    let database = crate::postgres::database().await;
    let process = start(&database, 0, &["--mode", "naive"]).await;
    let mut orders = JoinSet::new();
    for writer in 0..4 {
        let client = process.client.clone();
        orders.spawn(async move {
            for number in 0..15 {
                let key = format!("{writer}-{number}");
                order(&client, &key, "a lamp").await.expect("an answer");
            }
        });
    }
    // `charges` compares the sums with the entries.
    let mut reads = 0;
    while charges(&process.client).await < 60 {
        reads += 1;
        while let Some(writer) = orders.try_join_next() {
            writer.expect("no panic");
        }
    }
    assert!(reads > 3, "{reads} reads beside the charges");
}

#[tokio::test]
async fn kill_9_at_any_point_leaves_one_effect_or_none_and_no_key_stuck_on_sqlite() {
    let folder = tempfile::tempdir().expect("a folder");
    let database = folder.path().join("shop.db");
    kill_again_and_again(&database.to_string_lossy()).await;
}

#[tokio::test]
async fn kill_9_at_any_point_leaves_one_effect_or_none_and_no_key_stuck_on_postgres() {
    kill_again_and_again(&crate::postgres::database().await).await;
}

/// Each cycle sends four duplicates at once, kills the shop at another point of the order, starts
/// it again, and repeats: the answer must come, be that which was acknowledged, if any was, and
/// there must be one order of the key.
async fn kill_again_and_again(database: &str) {
    let campaign = std::env::var("HAPAX_CAMPAIGN").map_or(1, |n| n.parse().expect("a number"));
    let cycles = u64::from(CYCLES) * campaign;
    let options = ["--mode", "transactional"];
    let (mut acknowledged, mut committed, mut vacant) = (0, 0, 0);
    // How long an order takes here and now, so that the points spread over it on a busy machine too.
    let mut span = Duration::from_millis(2 * WORK_MS);
    let mut process = start(database, WORK_MS, &options).await;
    for cycle in 0..cycles {
        let key = format!("k-{cycle}");
        let mut requests = JoinSet::new();
        for _ in 0..4 {
            let (client, key) = (process.client.clone(), key.clone());
            requests.spawn(async move { order(&client, &key, "a lamp").await });
        }
        // From before the claim until after the answer; sometimes as soon as there is one.
        let mut answers: Vec<Option<Answer>> = Vec::new();
        if cycle % 10 == 9 {
            let first = requests.join_next().await;
            answers.extend(first.map(|answer| answer.expect("no panic")));
        } else {
            let point = u32::try_from(cycle % u64::from(CYCLES)).expect("few");
            tokio::time::sleep(span * 3 / 2 * point / CYCLES).await;
        }
        process.kill().await;
        answers.extend(requests.join_all().await);
        let answers: Vec<Answer> = answers.into_iter().flatten().collect();
        assert!(
            answers.iter().all(|answer| answer.status == 201),
            "{answers:?}"
        );

        process = start(database, WORK_MS, &options).await;
        let target = format!("/orders?request={key}");
        let is_committed = process.client.get(&target).await.status == 200;
        let began = Instant::now();
        let repeat = order(&process.client, &key, "a lamp")
            .await
            .expect("an answer");
        assert_eq!(repeat.status, 201, "cycle {cycle}: {repeat:?}");
        let is_replayed = repeat.header("idempotent-replayed").is_some();
        if !is_replayed {
            span = began.elapsed();
        }
        assert_eq!(
            is_replayed, is_committed,
            "cycle {cycle}: the key and the effect are one"
        );
        for answer in &answers {
            assert_eq!(
                answer.content, repeat.content,
                "cycle {cycle}: one answer a key"
            );
        }
        let orders = process.client.get(&target).await.json();
        assert_eq!(
            orders["orders"].as_array().expect("a list").len(),
            1,
            "cycle {cycle}"
        );
        acknowledged += u64::from(!answers.is_empty());
        committed += u64::from(is_committed);
        vacant += u64::from(!is_committed);
    }
    let ledger = process.client.get("/ledger").await.json();
    assert_eq!(ledger["charges"], cycles);
    println!("{cycles} kills: {acknowledged} acknowledged, {committed} committed, {vacant} vacant");
    // All sides of the commit were hit, or this showed nothing.
    assert!(acknowledged > 0 && committed > 0 && vacant > 0);
}

/// The control of the kills: what they check does not hold by itself.
#[tokio::test]
async fn without_protection_a_repeat_is_another_order_and_another_answer() {
    let folder = tempfile::tempdir().expect("a folder");
    let database = folder.path().join("shop.db");
    let process = start(&database.to_string_lossy(), 0, &["--mode", "naive"]).await;
    let first = order(&process.client, "k", "a lamp")
        .await
        .expect("an answer");
    let repeat = order(&process.client, "k", "a lamp")
        .await
        .expect("an answer");
    assert_ne!(first.content, repeat.content);
    let orders = process.client.get("/orders?request=k").await.json();
    assert_eq!(orders["orders"].as_array().expect("a list").len(), 2);
}
