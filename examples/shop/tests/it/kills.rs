//! `kill -9` at every round trip to PostgreSQL: before the server gets the message, and when it has
//! answered and the shop does not know it yet.

use tokio::task::JoinSet;

use crate::client::{Answer, Client};
use crate::modes::order;
use crate::process::{Process, start};
use crate::provider::Provider;
use crate::wire::{At, Fault, Wire};

/// How many duplicates there are at once.
const DUPLICATES: usize = 2;

/// The key and the effect are one: there is an order if and only if the key has its answer.
#[tokio::test]
async fn kill_9_at_every_round_trip_leaves_one_effect_or_none_and_no_key_stuck() {
    kill_at_every_round_trip(&["--mode", "transactional"], None).await;
}

/// An order in steps: each is committed once, the provider charges once, and whatever the point, the
/// next attempt finishes it.
#[tokio::test]
async fn kill_9_at_every_round_trip_between_and_in_steps_leaves_one_order_and_one_charge() {
    let provider = Provider::start().await;
    let url = format!("http://{}", provider.address);
    let options = ["--mode", "transactional", "--provider", &url];
    kill_at_every_round_trip(&options, Some(&provider)).await;
}

/// Each cycle sends duplicates, kills the shop at the next point, starts it again, and repeats.
async fn kill_at_every_round_trip(options: &[&str], provider: Option<&Provider>) {
    let wire = Wire::to(&crate::postgres::database().await).await;
    let mut process = start(&wire.url(), 0, options).await;
    let (mut orders, mut kills, mut acknowledged, mut replayed) = (0, 0, 0, 0);
    for fault in [Fault::HoldBefore, Fault::HoldAnswer] {
        for number in 0.. {
            let key = format!("{fault:?}-{number}");
            wire.arm(At::RoundTrip(number), fault);
            let (answers, is_struck) = send_until_struck(&mut process, &wire, &key).await;
            if is_struck {
                process = start(&wire.url(), 0, options).await;
                kills += 1;
            }
            orders += 1;
            let is_replayed = check(&process.client, &key, &answers, orders, provider).await;
            acknowledged += usize::from(!answers.is_empty());
            replayed += usize::from(is_replayed);
            if !is_struck {
                break;
            }
        }
    }
    println!("{kills} kills: {acknowledged} acknowledged, {replayed} replayed");
    // The least that an order says: a begin, three statements, a commit. And both sides of the
    // commit were hit.
    assert!(kills >= 10 && (1..orders).contains(&replayed));
}

/// Sends duplicates, and kills the shop when the wire is struck; what was answered, and whether the
/// wire was.
async fn send_until_struck(process: &mut Process, wire: &Wire, key: &str) -> (Vec<Answer>, bool) {
    let mut requests = JoinSet::new();
    for _ in 0..DUPLICATES {
        let (client, key) = (process.client.clone(), key.to_owned());
        requests.spawn(async move { order(&client, &key, "a lamp").await });
    }
    let mut answers: Vec<Option<Answer>> = Vec::new();
    let is_struck = loop {
        tokio::select! {
            biased;
            () = wire.struck() => break true,
            answer = requests.join_next() => match answer {
                Some(answer) => answers.push(answer.expect("no panic")),
                // Behind the last answer: a connection on its way back to the pool.
                None if wire.disarm() => {
                    wire.struck().await;
                    break true;
                }
                None => break false,
            },
        }
    };
    if is_struck {
        process.kill().await;
        answers.extend(requests.join_all().await);
    }
    (answers.into_iter().flatten().collect(), is_struck)
}

/// Repeats the order of `key`, which is the latest of `orders`; says whether the answer was replayed.
async fn check(
    client: &Client,
    key: &str,
    answers: &[Answer],
    orders: usize,
    provider: Option<&Provider>,
) -> bool {
    assert!(
        answers.iter().all(|answer| answer.status == 201),
        "{key}: {answers:?}"
    );
    let target = format!("/orders?request={key}");
    let is_there = client.get(&target).await.status == 200;
    let repeat = order(client, key, "a lamp").await.expect("an answer");
    assert_eq!(repeat.status, 201, "{key}: {repeat:?}");
    let is_replayed = repeat.header("idempotent-replayed").is_some();
    if provider.is_none() {
        assert_eq!(
            is_replayed, is_there,
            "{key}: the key and the effect are one"
        );
    }
    assert!(
        is_replayed || answers.is_empty(),
        "{key}: it was acknowledged"
    );
    for answer in answers {
        assert_eq!(answer.content, repeat.content, "{key}: one answer a key");
    }
    let made = client.get(&target).await.json();
    assert_eq!(made["orders"].as_array().expect("a list").len(), 1, "{key}");
    let ledger = client.get("/ledger").await.json();
    assert_eq!(ledger["charges"], orders, "{key}");
    if let Some(provider) = provider {
        assert_eq!(provider.charges(), (orders, orders), "{key}");
        assert_eq!(
            provider.calls().1,
            orders,
            "{key}: one derived key an order"
        );
    }
    is_replayed
}
