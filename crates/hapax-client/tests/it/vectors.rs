//! The cases that all three clients share.

use std::path::Path;
use std::time::{Duration, SystemTime};

use hapax_client::{Attempt, Budget, Decision, Failure, Outcome, judge};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use serde_json::{Value, json};

fn vectors() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../clients/vectors.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn millis(value: &Value) -> Duration {
    Duration::from_millis(value.as_u64().unwrap())
}

fn decided(given: &Value) -> Decision {
    let mut fields = HeaderMap::new();
    for (name, value) in given["fields"].as_object().unwrap() {
        fields.insert(
            HeaderName::try_from(name).unwrap(),
            HeaderValue::from_str(value.as_str().unwrap()).unwrap(),
        );
    }
    let failure = given["error"].as_str().map(|error| match error {
        "connect" => Failure::Connect,
        "reset" => Failure::Reset,
        "timeout" => Failure::Timeout,
        "cut" => Failure::Cut,
        other => panic!("{other}"),
    });
    let outcome = match failure {
        Some(failure) => Outcome::Failed(failure),
        None => Outcome::Answered {
            status: StatusCode::from_u16(u16::try_from(given["status"].as_u64().unwrap()).unwrap())
                .unwrap(),
            fields: &fields,
            body: given["body"].as_str().unwrap().as_bytes(),
        },
    };
    let number = |name: &str| u32::try_from(given[name].as_u64().unwrap()).unwrap();
    judge(
        &outcome,
        &Attempt {
            method: &Method::from_bytes(given["method"].as_str().unwrap().as_bytes()).unwrap(),
            is_keyed: given["keyed"].as_bool().unwrap(),
            number: number("attempt"),
            attempts: number("attempts"),
            may_have_run: given["maybe"].as_bool().unwrap(),
            tokens: number("tokens"),
            elapsed: millis(&given["elapsed_ms"]),
            deadline: millis(&given["deadline_ms"]),
            now: SystemTime::UNIX_EPOCH + millis(&given["now_ms"]),
            random: given["random"].as_f64().unwrap(),
        },
    )
}

fn shown(decision: Decision) -> Value {
    match decision {
        Decision::Final => json!({ "do": "final" }),
        Decision::Retry {
            after,
            cost,
            may_have_run,
        } => {
            json!({ "do": "retry", "after_ms": u64::try_from(after.as_millis()).unwrap(), "cost": cost, "maybe": may_have_run })
        }
        Decision::Unknown(why) => json!({ "do": "unknown", "why": why.name() }),
        Decision::GiveUp(why) => json!({ "do": "give_up", "why": why.name() }),
    }
}

#[test]
fn the_policy_decides_every_case_as_it_says() {
    let vectors = vectors();
    let cases = vectors["cases"].as_array().unwrap();
    assert!(cases.len() >= 80);
    for case in cases {
        let mut given = vectors["defaults"].clone();
        for (name, value) in case["given"].as_object().unwrap() {
            given[name] = value.clone();
        }
        assert_eq!(shown(decided(&given)), case["then"], "{}", case["name"]);
    }
}

#[test]
fn a_budget_keeps_its_account_as_it_says() {
    for case in vectors()["budgets"].as_array().unwrap() {
        let budget = Budget::default();
        for step in case["steps"].as_array().unwrap() {
            let number = |name: &str| u32::try_from(step[name].as_u64().unwrap()).unwrap();
            match step.get("take") {
                Some(_) => assert_eq!(
                    json!(budget.take(number("take"))),
                    step["granted"],
                    "{}",
                    case["name"]
                ),
                None => budget.success(number("success")),
            }
            assert_eq!(budget.tokens(), number("left"), "{}", case["name"]);
        }
    }
}
