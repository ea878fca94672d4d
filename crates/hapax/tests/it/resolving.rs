//! Unknown outcomes and the operators who settle them: one word, one effect, all of it written
//! down.

use std::thread;

use serde_json::{Value, json};

use crate::client::{Connection, post};
use crate::gateway::Gateway;
use crate::operator::{
    act, completed, failing, get, not_executed, records, send, text, the_record, with_unknown,
};
use crate::support::{Gate, eventually};
use crate::upstream::{Act, Upstream, created};

/// Kills the gateway between the upstream's effect and its record, and starts it again.
fn killed_after_the_effect() -> (Gateway, Upstream) {
    let gate = Gate::new();
    let held = gate.clone();
    let upstream = Upstream::scripted(move |effect| match effect.serial {
        1 => Act::Hold(held.clone(), created(effect)),
        _ => Act::Answer(created(effect)),
    });
    let mut gateway = Gateway::start(&upstream.url(), "");
    let mut caller = Connection::open(gateway.address());
    caller.send(&post("k").bytes()).expect("it listens");
    upstream.wait_for_effects(1);
    gateway.kill_nine();
    gate.open();
    gateway.restart();
    (gateway, upstream)
}

#[test]
fn what_a_kill_left_is_listed_as_unknown_and_counted() {
    let (gateway, _upstream) = killed_after_the_effect();
    let record = the_record(&gateway);
    assert_eq!(text(&record, "state"), "unknown");
    assert_eq!(text(&record, "reason"), "restarted");
    assert_eq!(gateway.metric("hapax_unknown", &[]), 1.0);
    assert_eq!(records(&gateway, "unknown"), [record]);
    assert!(records(&gateway, "completed").is_empty());
}

#[test]
fn resolved_as_completed_with_an_answer_every_repeat_gets_that_answer_and_nothing_runs() {
    let (mut gateway, upstream) = killed_after_the_effect();
    let body = json!({
        "as": "completed",
        "reason": "order 1 is in the database",
        "response": {
            "status": 201,
            "headers": [["Location", "/orders/1"], ["Content-Type", "application/json"], ["Content-Length", "99"],
                        ["Set-Cookie", "a=b"], ["X-Two", "1"], ["X-Two", "2"]],
            "body": "{\"order\":1}",
        },
    });
    let outcome = act(&the_record(&gateway), "resolve", &body).json(&gateway);
    assert_eq!(
        (text(&outcome, "was"), text(&outcome, "state")),
        ("unknown", "completed")
    );
    assert_eq!(gateway.metric("hapax_unknown", &[]), 0.0);
    for _ in 0..2 {
        let repeat = post("k").send(gateway.address());
        assert_eq!((repeat.status, repeat.idempotency()), (201, "replayed"));
        assert!(repeat.is_replay());
        assert_eq!(repeat.text(), "{\"order\":1}");
        assert_eq!(repeat.field("location"), Some("/orders/1"));
        assert_eq!(repeat.all("x-two"), ["1", "2"]);
        assert_eq!(repeat.field("set-cookie"), None);
        gateway.restart();
    }
    assert_eq!(upstream.count(), 1);
}

#[test]
fn resolved_as_completed_without_an_answer_repeats_get_409_and_nothing_runs() {
    let (mut gateway, upstream) = killed_after_the_effect();
    act(&the_record(&gateway), "resolve", &completed()).json(&gateway);
    for _ in 0..2 {
        let repeat = post("k").send(gateway.address());
        assert_eq!(
            (repeat.status, repeat.problem().as_str()),
            (409, "response-unavailable")
        );
        assert_eq!(repeat.json()["retryable"], false);
        gateway.restart();
    }
    assert_eq!(upstream.count(), 1);
}

#[test]
fn resolved_as_not_executed_the_next_attempt_runs_and_only_that() {
    let (gateway, upstream) = killed_after_the_effect();
    let record = the_record(&gateway);
    let outcome = act(&record, "resolve", &not_executed()).json(&gateway);
    assert_eq!(
        (text(&outcome, "state"), &outcome["record"]),
        ("vacant", &Value::Null)
    );
    assert_eq!(gateway.metric("hapax_unknown", &[]), 0.0);
    let target = format!("/api/v1/records/{}", text(&record, "id"));
    assert_eq!(get(&target).refusal(&gateway), "no-such-record");
    assert_eq!(upstream.count(), 1);
    assert_eq!(post("k").send(gateway.address()).idempotency(), "executed");
    assert!(post("k").send(gateway.address()).is_replay());
    assert_eq!(upstream.count(), 2);
}

#[test]
fn of_operators_who_resolve_one_record_at_once_one_wins_and_the_others_are_told() {
    let upstream = failing();
    let gateway = with_unknown(&upstream, "", &["a", "b", "c"]);
    for record in records(&gateway, "unknown") {
        let statuses: Vec<u16> = thread::scope(|scope| {
            let operators: Vec<_> = (0..6)
                .map(|number| {
                    let body = if number % 2 == 0 {
                        completed()
                    } else {
                        not_executed()
                    };
                    let call = act(&record, "resolve", &body);
                    let gateway = &gateway;
                    scope.spawn(move || call.to(gateway).status)
                })
                .collect();
            operators
                .into_iter()
                .map(|operator| operator.join().expect("no panic"))
                .collect()
        });
        let count = |wanted: u16| statuses.iter().filter(|status| **status == wanted).count();
        // A loser finds another version, or, after "not executed", no record at all.
        assert_eq!(count(200), 1, "{statuses:?}");
        assert_eq!(count(412) + count(404), 5, "{statuses:?}");
    }
    assert_eq!(upstream.count(), 3);
}

#[test]
fn an_action_says_which_version_it_means_and_why() {
    let upstream = failing();
    let gateway = with_unknown(&upstream, "", &["k"]);
    let record = the_record(&gateway);
    let call = act(&record, "resolve", &completed());
    let unversioned = call.clone().without("If-Match").to(&gateway);
    assert_eq!(
        (unversioned.status, unversioned.problem().as_str()),
        (428, "version-missing")
    );
    let stale = call
        .clone()
        .without("If-Match")
        .version("0123456789abcdef")
        .to(&gateway);
    assert_eq!(
        (stale.status, stale.problem().as_str()),
        (412, "version-stale")
    );
    for body in [
        json!({ "as": "completed" }),
        json!({ "as": "completed", "reason": "  " }),
        json!({ "as": "completed", "reason": "a\nb" }),
        json!({ "as": "perhaps", "reason": "r" }),
        json!({ "as": "not_executed", "reason": "r", "response": { "status": 200 } }),
        json!({ "as": "completed", "reason": "r", "response": { "status": 100 } }),
        json!({ "as": "completed", "reason": "r", "response": { "status": 200, "body": "a", "body_base64": "YQ==" } }),
        json!({ "as": "completed", "reason": "r", "response": { "status": 200, "headers": [["a b", "c"]] } }),
        json!({ "as": "completed", "reason": "r", "respnse": {} }),
    ] {
        let refused = act(&record, "resolve", &body).refusal(&gateway);
        assert_eq!(refused, "malformed", "{body}");
    }
    assert_eq!(the_record(&gateway), record, "nothing was done");
    // The version of the detail's ETag is the one that counts.
    let detail = get(&format!("/api/v1/records/{}", text(&record, "id"))).to(&gateway);
    let tag = format!("\"{}\"", text(&record, "version"));
    assert_eq!(detail.field("etag"), Some(tag.as_str()));
    assert_eq!(call.to(&gateway).status, 200);
    assert_eq!(call.to(&gateway).status, 412);
}

#[test]
fn an_operation_under_way_is_left_to_its_own_end() {
    let gate = Gate::new();
    let held = gate.clone();
    let upstream = Upstream::scripted(move |effect| Act::Hold(held.clone(), created(effect)));
    let gateway = Gateway::start(&upstream.url(), "");
    let mut caller = Connection::open(gateway.address());
    caller.send(&post("k").bytes()).expect("it listens");
    upstream.wait_for_effects(1);
    let record = the_record(&gateway);
    assert_eq!(text(&record, "state"), "outstanding");
    let why = json!({ "reason": "impatience" });
    for (action, body) in [
        ("release", &why),
        ("expire", &why),
        ("resolve", &completed()),
        ("resolve", &not_executed()),
    ] {
        let refused = act(&record, action, body).to(&gateway);
        assert_eq!(
            (refused.status, refused.problem().as_str()),
            (409, "inapplicable")
        );
    }
    gate.open();
    assert_eq!(caller.read().expect("an answer").idempotency(), "executed");
    assert_eq!(upstream.count(), 1);
}

#[test]
fn an_answer_that_comes_after_the_operators_word_changes_nothing() {
    let gate = Gate::new();
    let held = gate.clone();
    let upstream = Upstream::scripted(move |effect| Act::Hold(held.clone(), created(effect)));
    let config = "[server]\nupstream_timeout = \"200ms\"\n";
    let gateway = Gateway::start(&upstream.url(), config);
    assert_eq!(
        post("k").send(gateway.address()).problem(),
        "outcome-unknown"
    );
    let record = the_record(&gateway);
    assert_eq!(text(&record, "reason"), "upstream_timeout");
    let body = json!({ "as": "completed", "reason": "seen", "response": { "status": 200, "body": "seen" } });
    act(&record, "resolve", &body).json(&gateway);
    gate.open();
    eventually("the late answer is refused", || {
        (gateway.metric("hapax_stale_write_refused_total", &[]) == 1.0).then_some(())
    });
    let repeat = post("k").send(gateway.address());
    assert_eq!((repeat.status, repeat.text().as_str()), (200, "seen"));
    assert_eq!(upstream.count(), 1);
}

#[test]
fn a_settled_record_can_be_expired_into_its_tombstone_or_released() {
    let upstream = Upstream::new();
    let config = "[[route]]\nmatch = \"POST /orders\"\ntombstone = \"1h\"\n";
    let gateway = Gateway::start(&upstream.url(), config);
    post("k").send(gateway.address());
    let why = json!({ "reason": "a test order" });
    let refused = act(&the_record(&gateway), "resolve", &completed()).refusal(&gateway);
    assert_eq!(refused, "inapplicable");
    let outcome = act(&the_record(&gateway), "expire", &why).json(&gateway);
    assert_eq!(text(&outcome, "state"), "tombstone");
    assert_eq!(post("k").send(gateway.address()).problem(), "key-expired");
    let record = the_record(&gateway);
    assert_eq!(
        (text(&record, "state"), &record["response"]),
        ("tombstone", &Value::Null)
    );
    let outcome = act(&record, "release", &why).json(&gateway);
    assert_eq!(text(&outcome, "state"), "vacant");
    assert_eq!(upstream.count(), 1);
    assert_eq!(post("k").send(gateway.address()).idempotency(), "executed");
    assert_eq!(upstream.count(), 2);
}

#[test]
fn a_preview_says_what_would_happen_and_does_nothing() {
    let upstream = failing();
    let gateway = with_unknown(&upstream, "", &["k"]);
    let record = the_record(&gateway);
    let body = json!({ "as": "not_executed", "reason": "r", "dry_run": true });
    let outcome = act(&record, "resolve", &body).json(&gateway);
    assert_eq!(
        (text(&outcome, "state"), &outcome["dry_run"]),
        ("vacant", &json!(true))
    );
    assert_eq!(the_record(&gateway), record);
    let audit = get("/api/v1/audit").json(&gateway);
    assert_eq!(audit["entries"], json!([]));
}

#[test]
fn many_are_resolved_at_once_after_a_look() {
    let upstream = failing();
    let gateway = with_unknown(&upstream, "", &["a", "b", "c", "d"]);
    let target = "/api/v1/records:resolve";
    let mut body =
        json!({ "as": "completed", "reason": "an outage", "filter": { "route": "default" } });
    assert_eq!(
        send(target, &body).refusal(&gateway),
        "malformed",
        "without a look"
    );
    body["dry_run"] = true.into();
    body["limit"] = 3.into();
    let seen = send(target, &body).json(&gateway);
    assert_eq!((&seen["matched"], &seen["done"]), (&json!(3), &json!(3)));
    assert_eq!(seen["results"][0]["result"], "would_be_done");
    assert_eq!(records(&gateway, "unknown").len(), 4);
    body["dry_run"] = false.into();
    let done = send(target, &body).json(&gateway);
    assert_eq!(done["done"], 3, "{done}");
    let left = records(&gateway, "unknown");
    assert_eq!(left.len(), 1);
    // By id: what cannot be resolved is refused by itself.
    let settled = text(&done["results"][0], "id");
    let ids = json!([
        text(&left[0], "id"),
        settled,
        "00000000000000000000000000000000"
    ]);
    let body = json!({ "as": "not_executed", "reason": "none", "ids": ids });
    let done = send(target, &body).json(&gateway);
    let results = done["results"].as_array().expect("a list");
    let because: Vec<_> = results
        .iter()
        .map(|result| result["because"].as_str())
        .collect();
    assert_eq!(
        because,
        [None, Some("inapplicable"), Some("no-such-record")]
    );
    assert!(records(&gateway, "unknown").is_empty());
    assert_eq!(gateway.metric("hapax_unknown", &[]), 0.0);
    assert_eq!(upstream.count(), 4);
}

#[test]
fn the_audit_log_has_the_action_before_it_is_answered_and_after_a_kill() {
    let upstream = failing();
    let mut gateway = with_unknown(&upstream, "", &["k"]);
    let record = the_record(&gateway);
    act(&record, "resolve", &completed()).json(&gateway);
    gateway.kill_nine();
    gateway.restart();
    let audit = get("/api/v1/audit").json(&gateway);
    assert_eq!(audit["durability"], "durable");
    let entries = audit["entries"].as_array().expect("a list");
    let phases: Vec<_> = entries.iter().map(|entry| text(entry, "phase")).collect();
    assert_eq!(phases, ["done", "requested"], "{audit}");
    for entry in entries {
        assert_eq!(text(entry, "who"), "local");
        assert_eq!(text(entry, "action"), "resolve");
        assert_eq!(text(entry, "record"), text(&record, "id"));
        assert_eq!(text(entry, "version"), text(&record, "version"));
        assert_eq!(text(entry, "reason"), "the order is in the database");
        assert_eq!(text(entry, "action_id"), text(&entries[0], "action_id"));
    }
}

#[test]
fn an_action_that_cannot_be_written_down_is_not_done() {
    let upstream = failing();
    let config = "[admin]\naudit_file = \"/dev/full\"\n";
    let gateway = with_unknown(&upstream, config, &["k"]);
    let record = the_record(&gateway);
    let bulk = json!({ "as": "completed", "reason": "r", "ids": [text(&record, "id")] });
    let show = format!("/api/v1/records/{}?content=show", text(&record, "id"));
    for call in [
        act(&record, "resolve", &completed()),
        act(&record, "release", &json!({ "reason": "r" })),
        act(&record, "expire", &json!({ "reason": "r" })),
        send("/api/v1/records:resolve", &bulk),
        send("/api/v1/config:reload", &json!({ "reason": "r" })),
        get(&show),
    ] {
        let refused = call.to(&gateway);
        assert_eq!(
            (refused.status, refused.problem().as_str()),
            (503, "audit-unavailable")
        );
    }
    assert_eq!(the_record(&gateway), record);
    assert_eq!(post("k").send(gateway.address()).status, 500);
    assert_eq!(upstream.count(), 1);
}
