//! Looking at records, figures and events, and what nobody may see there.

use std::collections::HashMap;

use serde_json::{Value, json};

use crate::client::{Connection, ask, post};
use crate::gateway::Gateway;
use crate::operator::{act, completed, get, records, send, text, the_record};
use crate::support::{Gate, eventually};
use crate::upstream::{Act, Upstream, answer, created};

#[test]
fn pages_show_every_record_once_while_records_come_and_change() {
    let upstream = Upstream::scripted(|effect| match effect.key().starts_with("fail") {
        true => Act::Answer(answer(500, &[], b"")),
        false => Act::Answer(created(effect)),
    });
    let gateway = Gateway::start(&upstream.url(), "");
    for number in 0..40 {
        let key = if number % 4 == 0 {
            format!("fail-{number}")
        } else {
            format!("ok-{number}")
        };
        post(&key).send(gateway.address());
    }
    let mut expected: HashMap<String, usize> = records(&gateway, "")
        .iter()
        .map(|record| (text(record, "id").to_owned(), 0))
        .collect();
    assert_eq!(expected.len(), 40);
    let unknown = records(&gateway, "unknown");
    let (mut after, mut pages) = (String::new(), 0);
    loop {
        let page = get(&format!("/api/v1/records?limit=7{after}")).json(&gateway);
        let shown = page["records"].as_array().expect("a list");
        assert!(shown.len() <= 7);
        for record in shown {
            if let Some(count) = expected.get_mut(text(record, "id")) {
                *count += 1;
            }
        }
        // Between two pages one record comes and one moves to another table of the store.
        post(&format!("new-{pages}")).send(gateway.address());
        if let Some(record) = unknown.get(pages) {
            act(record, "resolve", &completed()).json(&gateway);
        }
        pages += 1;
        let Some(next) = page["next"].as_str() else {
            break;
        };
        after = format!("&after={next}");
    }
    assert!(pages >= 6);
    assert!(expected.values().all(|count| *count == 1), "{expected:?}");
}

#[test]
fn lists_are_filtered_by_state_route_and_time() {
    let upstream = Upstream::scripted(|effect| match effect.target.as_str() {
        "/a" => Act::Answer(created(effect)),
        _ => Act::Answer(answer(422, &[], b"no")),
    });
    let config = "[[route]]\nmatch = \"POST /a\"\n";
    let gateway = Gateway::start(&upstream.url(), config);
    for (key, target) in [("1", "/a"), ("2", "/a"), ("3", "/b")] {
        post(key).target(target).send(gateway.address());
    }
    let count = |query: &str| {
        let page = get(&format!("/api/v1/records?{query}")).json(&gateway);
        page["records"].as_array().expect("a list").len()
    };
    assert_eq!(count(""), 3);
    assert_eq!(count("state=completed"), 2);
    assert_eq!(count("state=rejected"), 1);
    assert_eq!(count("state=unknown"), 0);
    assert_eq!(count("route=POST%20/a"), 2);
    assert_eq!(count("route=default&state=completed"), 0);
    assert_eq!(count("since=1h"), 3);
    assert_eq!(count("since=2000-01-01T00:00:00Z"), 3);
    assert_eq!(count("since=2100-01-01T00:00:00Z"), 0);
}

#[test]
fn a_key_is_found_in_its_scope_and_in_no_other() {
    let upstream = Upstream::new();
    let config =
        "[[route]]\nmatch = \"POST /t\"\nscope = [\"header:authorization\", \"header:x-tenant\"]\n";
    let gateway = Gateway::start(&upstream.url(), config);
    post("k")
        .field("Authorization", "Bearer a")
        .send(gateway.address());
    post("k")
        .target("/t")
        .field("Authorization", "Bearer b")
        .field("X-Tenant", "t")
        .send(gateway.address());
    post("k")
        .target("/t")
        .field("Authorization", "Bearer c")
        .send(gateway.address());
    post("k").send(gateway.address());
    let found = |scope: Value, key: &str| {
        let body = json!({ "scope": scope, "key": key });
        let found = send("/api/v1/records:lookup", &body).json(&gateway);
        let found = found["records"].as_array().expect("a list").clone();
        found
            .iter()
            .map(|record| text(record, "route").to_owned())
            .collect::<Vec<_>>()
    };
    let part =
        |name: &str, value: &str| json!({ "part": format!("header:{name}"), "value": value });
    assert_eq!(
        found(json!([part("authorization", "Bearer a")]), "k"),
        ["default"]
    );
    assert_eq!(
        found(json!([part("authorization", "Bearer a")]), "l"),
        [""; 0]
    );
    assert_eq!(
        found(json!([part("authorization", "Bearer x")]), "k"),
        [""; 0]
    );
    let both = json!([part("x-tenant", "t"), part("authorization", "Bearer b")]);
    assert_eq!(found(both, "k"), ["POST /t"]);
    assert_eq!(
        found(json!([part("authorization", "Bearer b")]), "k"),
        [""; 0]
    );
    assert_eq!(
        found(json!([part("authorization", "Bearer c")]), "k"),
        ["POST /t"]
    );
    assert_eq!(found(json!([]), "k"), ["default"]);
    for body in [
        json!({ "key": "" }),
        json!({ "key": "a b" }),
        json!({ "key": "k", "scope": [{ "part": "cookie:x", "value": "y" }] }),
        json!({ "key": "k", "scope": [part("a", "b\n")] }),
        json!({ "key": 7 }),
        json!({}),
    ] {
        assert_eq!(
            send("/api/v1/records:lookup", &body).refusal(&gateway),
            "malformed",
            "{body}"
        );
    }
}

#[test]
fn stored_content_is_hidden_until_asked_for_and_is_text_in_json_then() {
    const SCRIPT: &str = "<script>alert(1)</script>";
    let upstream = Upstream::scripted(|_| {
        Act::Answer(answer(
            200,
            &[("Content-Type", "text/html")],
            SCRIPT.as_bytes(),
        ))
    });
    let gateway = Gateway::start(&upstream.url(), "");
    post("k").send(gateway.address());
    let target = format!("/api/v1/records/{}", text(&the_record(&gateway), "id"));
    let masked = get(&target).to(&gateway);
    assert!(!masked.text().contains("script>"), "{}", masked.text());
    let shown = get(&format!("{target}?content=show")).to(&gateway);
    assert_eq!(shown.field("content-type"), Some("application/json"));
    assert_eq!(shown.field("x-content-type-options"), Some("nosniff"));
    assert_eq!(shown.json()["content"]["body"], SCRIPT);
    let headers = &shown.json()["content"]["headers"];
    assert!(
        headers
            .as_array()
            .expect("a list")
            .contains(&json!(["content-type", "text/html"]))
    );
    let audit = get("/api/v1/audit").json(&gateway);
    let entries = audit["entries"].as_array().expect("a list");
    assert_eq!(entries.len(), 1, "asking without content is no entry");
    assert_eq!(text(&entries[0], "action"), "show_content");
}

/// Entries of the only record's timeline: event, source, count.
fn timeline(gateway: &Gateway) -> (Value, Vec<(String, String, u64)>) {
    let target = format!("/api/v1/records/{}", text(&the_record(gateway), "id"));
    let timeline = get(&target).json(gateway)["timeline"].clone();
    let entries = timeline["entries"].as_array().expect("a list").iter();
    let entries = entries.map(|entry| {
        let count = entry["count"].as_u64().expect("a count");
        (
            text(entry, "event").to_owned(),
            text(entry, "source").to_owned(),
            count,
        )
    });
    let entries = entries.collect();
    (timeline, entries)
}

#[test]
fn a_records_timeline_tells_what_happened_and_after_a_restart_what_the_record_says() {
    let gate = Gate::new();
    let held = gate.clone();
    let upstream = Upstream::scripted(move |effect| Act::Hold(held.clone(), created(effect)));
    let mut gateway = Gateway::start(&upstream.url(), "");
    let mut caller = Connection::open(gateway.address());
    caller.send(&post("k").bytes()).expect("it listens");
    upstream.wait_for_effects(1);
    assert_eq!(post("k").send(gateway.address()).status, 409);
    drop(caller);
    gate.open();
    eventually("completion", || {
        (post("k").send(gateway.address()).status == 201).then_some(())
    });
    post("k").send(gateway.address());
    post("k").body(b"{\"amount\":2}").send(gateway.address());
    let (told, entries) = timeline(&gateway);
    let events: Vec<&str> = entries.iter().map(|(event, ..)| event.as_str()).collect();
    for event in [
        "claimed",
        "forwarded",
        "upstream_answered",
        "stored",
        "answered",
    ] {
        assert!(events.contains(&event), "{event}: {told}");
    }
    assert!(entries.iter().all(|(_, source, _)| source == "memory"));
    let replays = told["entries"].as_array().expect("a list").iter();
    let replays = replays.filter(|entry| entry["outcome"] == "replayed");
    assert_eq!(
        replays
            .map(|entry| entry["count"].as_u64().unwrap_or(0))
            .sum::<u64>(),
        2,
        "{told}"
    );
    assert!(
        told["entries"]
            .as_array()
            .expect("a list")
            .iter()
            .any(|entry| entry["outcome"] == "mismatch")
    );
    assert_eq!(told["is_complete"], true);
    gateway.restart();
    let (told, entries) = timeline(&gateway);
    assert_eq!(
        entries,
        [("stored".to_owned(), "record".to_owned(), 1)],
        "{told}"
    );
    assert_eq!(told["is_complete"], false);
}

/// The next event of a stream: id, name, data.
fn next_event(stream: &mut Connection) -> (String, String, Value) {
    loop {
        let text = stream.read_until(b"\n\n");
        let line = |name: &str| {
            let lines = text.lines();
            let found = lines.filter_map(|line| line.strip_prefix(name)).next();
            found.map(str::to_owned)
        };
        if let (Some(id), Some(name), Some(data)) = (line("id: "), line("event: "), line("data: "))
        {
            return (id, name, serde_json::from_str(&data).expect("JSON"));
        }
    }
}

#[test]
fn events_come_as_they_happen_and_go_on_after_the_last_one_received() {
    let upstream = Upstream::new();
    let mut gateway = Gateway::start(&upstream.url(), "");
    let mut stream = get("/api/v1/events").stream(&gateway);
    assert_eq!(next_event(&mut stream).1, "hello");
    post("a").send(gateway.address());
    let seen: Vec<_> = (0..3).map(|_| next_event(&mut stream)).collect();
    let names: Vec<&str> = seen.iter().map(|(_, name, _)| name.as_str()).collect();
    assert_eq!(names, ["claimed", "stored", "answered"]);
    assert_eq!(seen[2].2["outcome"], "executed");
    let id = text(&the_record(&gateway), "id").to_owned();
    assert!(
        seen.iter()
            .all(|(_, _, data)| data["record"] == id.as_str())
    );
    drop(stream);
    // While nobody reads.
    post("a").send(gateway.address());
    post("b").send(gateway.address());
    let resumed = get("/api/v1/events").field("Last-Event-ID", &seen[2].0);
    let mut stream = resumed.stream(&gateway);
    let again: Vec<_> = (0..5).map(|_| next_event(&mut stream)).collect();
    let names: Vec<&str> = again.iter().map(|(_, name, _)| name.as_str()).collect();
    assert_eq!(
        names,
        ["hello", "answered", "claimed", "stored", "answered"]
    );
    assert_eq!(again[1].2["outcome"], "replayed");
    let wanted = format!("/api/v1/events?types=answered&record={id}");
    let mut stream = get(&wanted)
        .field("Last-Event-ID", &seen[0].0)
        .stream(&gateway);
    let chosen: Vec<_> = (0..3).map(|_| next_event(&mut stream).1).collect();
    assert_eq!(chosen, ["hello", "answered", "answered"]);
    gateway.restart();
    let mut stream = resumed.stream(&gateway);
    assert_eq!(
        next_event(&mut stream).1,
        "reset",
        "the numbers are another process's"
    );
}

#[test]
fn readers_of_events_are_bounded() {
    let upstream = Upstream::new();
    let gateway = Gateway::start(&upstream.url(), "");
    let mut readers: Vec<_> = (0..32)
        .map(|_| get("/api/v1/events").stream(&gateway))
        .collect();
    assert_eq!(get("/api/v1/events").refusal(&gateway), "too-many-readers");
    assert_eq!(post("k").send(gateway.address()).status, 201);
    readers.clear();
    eventually("room", || {
        let mut connection = Connection::open(gateway.admin());
        let request = format!(
            "GET /api/v1/events HTTP/1.0\r\nHost: {}\r\n\r\n",
            gateway.admin()
        );
        connection.send(request.as_bytes()).expect("it listens");
        connection
            .read_until(b"\r\n\r\n")
            .contains(" 200 ")
            .then_some(())
    });
}

#[test]
fn figures_and_routes_are_those_of_the_requests_and_the_configuration() {
    let upstream = Upstream::new();
    let config = "[[route]]\nmatch = \"POST /orders\"\nretention = \"30d\"\n";
    let gateway = Gateway::start(&upstream.url(), config);
    for key in ["a", "a", "b"] {
        post(key).send(gateway.address());
    }
    ask("POST", "/x").body(b"{}").send(gateway.address());
    let stats = get("/api/v1/stats?window=1m").json(&gateway);
    let sum = |outcome: &str| {
        let counts = stats["requests"][outcome]
            .as_array()
            .expect("a column")
            .iter();
        counts
            .map(|count| count.as_u64().expect("a count"))
            .sum::<u64>()
    };
    assert_eq!(
        (sum("executed"), sum("replayed"), sum("unkeyed")),
        (2, 1, 1),
        "{stats}"
    );
    assert_eq!(stats["at"].as_array().expect("a column").len(), 6);
    assert_eq!(stats["routes"][0]["route"], "POST /orders");
    assert_eq!(stats["routes"][0]["duplicates_stopped"], 1);
    let routes = get("/api/v1/routes").json(&gateway);
    let names: Vec<_> = routes["routes"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|route| text(route, "name"))
        .collect();
    assert_eq!(names, ["default", "POST /orders"]);
    let retention = &routes["routes"][1]["settings"]["retention"];
    assert_eq!(retention["value"], "30d");
    assert!(
        text(retention, "origin").ends_with("hapax.toml:3"),
        "{retention}"
    );
    assert_eq!(routes["routes"][1]["settings"]["wait"]["origin"], "default");
}

const KEY: &str = "canary-key-5f1c";
const SCOPE: &str = "canary-scope-9d2e";
const BODY: &str = "canary-body-77aa";

/// Requests with canaries: executed, replayed, failed, and a mismatch.
fn send_canaries(gateway: &Gateway) {
    for target in ["/orders", "/orders", "/fail", "/other"] {
        let key = if target == "/fail" {
            format!("{KEY}-2")
        } else {
            KEY.to_owned()
        };
        let request = post(&key)
            .target(target)
            .field("Authorization", &format!("Bearer {SCOPE}"));
        let body = format!("{{\"x\":\"{BODY}\"}}");
        request.body(body.as_bytes()).send(gateway.address());
    }
}

/// Every kind of answer that the admin listener gives about them.
fn all_answers(gateway: &Gateway) -> Vec<String> {
    let scope = json!([{ "part": "header:authorization", "value": format!("Bearer {SCOPE}") }]);
    let lookup = send(
        "/api/v1/records:lookup",
        &json!({ "key": KEY, "scope": scope }),
    );
    let found = lookup.json(gateway);
    assert_eq!(found["records"].as_array().expect("a list").len(), 1);
    let bad_key = json!({ "key": format!("{KEY} x"), "scope": scope });
    let bad_shape = json!({ "key": { KEY: SCOPE } });
    let unknown = records(gateway, "unknown").remove(0);
    let mut calls = vec![
        lookup,
        send("/api/v1/records:lookup", &bad_key),
        send("/api/v1/records:lookup", &bad_shape),
        act(&unknown, "resolve", &completed()),
        get("/metrics"),
    ];
    for record in records(gateway, "") {
        let detail = format!("/api/v1/records/{}", text(&record, "id"));
        calls.push(get(&format!("{detail}?content=show")));
        calls.push(get(&detail));
    }
    for target in [
        "status",
        "routes",
        "stats",
        "records",
        "audit",
        "whoami",
        "openapi.json",
    ] {
        calls.push(get(&format!("/api/v1/{target}")));
    }
    let answers = calls.iter().map(|call| call.to(gateway));
    answers
        .map(|answer| format!("{:?}{}", answer.fields, answer.text()))
        .collect()
}

#[test]
fn no_answer_of_the_admin_listener_has_a_key_or_a_scopes_value() {
    let upstream = Upstream::scripted(|effect| match effect.target.as_str() {
        "/fail" => Act::Answer(answer(500, &[], b"it broke")),
        _ => Act::Answer(answer(201, &[], b"{}")),
    });
    let gateway = Gateway::start(&upstream.url(), "");
    let mut stream = get("/api/v1/events").stream(&gateway);
    send_canaries(&gateway);
    let mut texts = all_answers(&gateway);
    let last = get("/api/v1/events").stream(&gateway).read_until(b"}\n\n");
    let last = last.lines().find_map(|line| line.strip_prefix("id: "));
    let last = format!("id: {}\n", last.expect("an id"));
    let mut events = String::new();
    while !events.contains(&last) {
        events.push_str(&stream.read_until(b"\n\n"));
    }
    assert!(
        events.contains("mismatch") && events.contains("operator"),
        "{events}"
    );
    texts.push(events);
    texts.push(gateway.log());
    for text in texts {
        let canaries = [KEY, SCOPE, BODY];
        assert!(
            !canaries.iter().any(|canary| text.contains(canary)),
            "{text}"
        );
    }
}
