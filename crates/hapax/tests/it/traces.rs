//! Spans, as a collector gets them (OTLP over HTTP, JSON).

use serde_json::Value;

use crate::client::{Ask, ask, post};
use crate::gateway::Gateway;
use crate::support::eventually;
use crate::upstream::{Act, Upstream, answer, created};

const CALLER: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const SERVER: u64 = 2;
const CLIENT: u64 = 3;

fn collector() -> Upstream {
    Upstream::scripted(|_| Act::Answer(answer(200, &[("Content-Type", "application/json")], b"{}")))
}

fn config(collector: &str) -> String {
    format!("[[route]]\nmatch = \"POST /orders\"\n\n[telemetry]\notlp_endpoint = \"{collector}\"\n")
}

/// Every span that has come, in the order in which requests ended.
fn spans(collector: &Upstream) -> Vec<Value> {
    let mut all = Vec::new();
    for export in collector.effects() {
        assert_eq!(
            (export.method.as_str(), export.target.as_str()),
            ("POST", "/v1/traces")
        );
        assert_eq!(export.field("content-type"), "application/json");
        let document: Value = serde_json::from_slice(&export.body).expect("JSON");
        let resource = &document["resourceSpans"][0];
        assert_eq!(attribute(&resource["resource"], "service.name"), "hapax");
        all.extend(
            resource["scopeSpans"][0]["spans"]
                .as_array()
                .expect("spans")
                .clone(),
        );
    }
    all
}

/// Waits for so many server spans; says all there are.
fn wait_for(collector: &Upstream, servers: usize) -> Vec<Value> {
    eventually("the spans", || {
        let all = spans(collector);
        (all.iter().filter(|span| span["kind"] == SERVER).count() >= servers).then_some(all)
    })
}

fn attribute(of: &Value, key: &str) -> String {
    let list = of["attributes"].as_array().expect("attributes");
    let found = list.iter().find(|attribute| attribute["key"] == key);
    let value = found.map(|attribute| &attribute["value"]);
    let text = value.and_then(|value| value["stringValue"].as_str().or(value["intValue"].as_str()));
    text.unwrap_or_default().to_owned()
}

fn instant(span: &Value, name: &str) -> u128 {
    span[name]
        .as_str()
        .expect("a text")
        .parse()
        .expect("a number")
}

fn traced(key: &str) -> Ask {
    post(key)
        .field("traceparent", CALLER)
        .field("tracestate", "vendor=1")
}

#[test]
fn a_request_is_a_server_span_with_its_claim_its_upstream_and_its_completion() {
    let (upstream, collector) = (Upstream::new(), collector());
    let gateway = Gateway::start(&upstream.url(), &config(&collector.url()));
    assert_eq!(traced("k").send(gateway.address()).status, 201);
    let all = wait_for(&collector, 1);
    let server = &all[0];
    assert_eq!(
        (server["kind"].as_u64(), server["name"].as_str()),
        (Some(SERVER), Some("POST /orders"))
    );
    assert_eq!(server["traceId"], TRACE);
    assert_eq!(server["parentSpanId"], "b7ad6b7169203331");
    assert_eq!(server["traceState"], "vendor=1");
    assert_eq!(attribute(server, "idempotency.outcome"), "executed");
    assert_eq!(attribute(server, "idempotency.attempt"), "1");
    assert_eq!(attribute(server, "http.response.status_code"), "201");
    assert_eq!(attribute(server, "http.route"), "/orders");
    assert_eq!(attribute(server, "idempotency.record").len(), 32);
    let names: Vec<_> = all[1..]
        .iter()
        .filter_map(|span| span["name"].as_str())
        .collect();
    assert_eq!(
        names,
        [
            "idempotency claim",
            "upstream request",
            "idempotency complete"
        ]
    );
    for child in &all[1..] {
        assert_eq!(child["traceId"], TRACE);
        assert_eq!(child["parentSpanId"], server["spanId"]);
        assert!(instant(child, "startTimeUnixNano") >= instant(server, "startTimeUnixNano"));
        assert!(instant(child, "endTimeUnixNano") <= instant(server, "endTimeUnixNano"));
        assert!(instant(child, "startTimeUnixNano") <= instant(child, "endTimeUnixNano"));
    }
    // The upstream continues the trace under its own request's span.
    let sent = &upstream.effects()[0];
    let expected = format!(
        "00-{TRACE}-{}-01",
        all[2]["spanId"].as_str().expect("an id")
    );
    assert_eq!(
        (sent.field("traceparent"), sent.field("tracestate")),
        (expected.as_str(), "vendor=1")
    );
    assert_eq!(all[2]["kind"], CLIENT);
    // Counted once the collector has said that it took them.
    eventually("the count", || {
        (gateway.metric("hapax_spans_sent_total", &[]) == 4.0).then_some(())
    });
}

#[test]
fn a_replay_links_to_the_first_execution_in_its_own_trace() {
    let (upstream, collector) = (Upstream::new(), collector());
    let mut gateway = Gateway::start(&upstream.url(), &config(&collector.url()));
    traced("k").send(gateway.address());
    let first = wait_for(&collector, 1)[0].clone();
    gateway.restart();
    assert!(post("k").send(gateway.address()).is_replay());
    let all = wait_for(&collector, 2);
    let replay = all
        .iter()
        .find(|span| attribute_or_none(span, "idempotency.outcome") == "replayed");
    let replay = replay.expect("a replay");
    assert_ne!(replay["traceId"], TRACE);
    assert!(replay["parentSpanId"].is_null());
    let links = replay["links"].as_array().expect("links");
    assert_eq!(links.len(), 1);
    assert_eq!(
        (&links[0]["traceId"], &links[0]["spanId"]),
        (&first["traceId"], &first["spanId"])
    );
    assert!(first["links"].is_null());
}

fn attribute_or_none(span: &Value, key: &str) -> String {
    if span["attributes"].is_array() {
        attribute(span, key)
    } else {
        String::new()
    }
}

#[test]
fn requests_without_a_key_and_failures_are_traced_and_unsampled_traces_are_passed_on_only() {
    let upstream = Upstream::scripted(|effect| match effect.key() {
        "cut" => Act::Reset(Vec::new()),
        _ => Act::Answer(created(effect)),
    });
    let collector = collector();
    let gateway = Gateway::start(&upstream.url(), &config(&collector.url()));
    ask("GET", "/things/canary-7?q=canary").send(gateway.address());
    let unsampled = CALLER.replace("-01", "-00");
    post("quiet")
        .field("traceparent", &unsampled)
        .send(gateway.address());
    post("cut").send(gateway.address());
    let all = wait_for(&collector, 2);
    let servers: Vec<_> = all.iter().filter(|span| span["kind"] == SERVER).collect();
    assert_eq!(servers.len(), 2);
    assert_eq!(attribute(servers[0], "idempotency.outcome"), "unkeyed");
    assert_eq!(servers[0]["name"], "GET");
    assert_eq!(attribute(servers[1], "idempotency.outcome"), "unknown");
    assert_eq!(servers[1]["status"]["code"], 2);
    let quiet = upstream.effects()[1].field("traceparent").to_owned();
    assert!(
        quiet.starts_with(&format!("00-{TRACE}-")) && quiet.ends_with("-00"),
        "{quiet}"
    );
    assert!(!Value::from(all).to_string().contains("canary"));
}

#[test]
fn a_dead_or_refusing_collector_costs_requests_nothing_and_is_counted() {
    let refusing = Upstream::scripted(|_| Act::Answer(answer(503, &[], b"")));
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = silent.local_addr().expect("an address");
    for collector in [refusing.url(), "http://127.0.0.1:9".to_owned()] {
        let upstream = Upstream::new();
        let gateway = Gateway::start(&upstream.url(), &config(&collector));
        for key in ["a", "a", "b"] {
            assert_eq!(post(key).send(gateway.address()).status, 201);
        }
        eventually("the count", || {
            (gateway.metric("hapax_spans_dropped_total", &[]) >= 10.0).then_some(())
        });
        assert_eq!(gateway.metric("hapax_spans_sent_total", &[]), 0.0);
    }
    // One that takes the connection and never answers does not hold up the end either.
    let upstream = Upstream::new();
    let mut gateway = Gateway::start(&upstream.url(), &config(&format!("http://{address}")));
    assert_eq!(post("k").send(gateway.address()).status, 201);
    gateway.stop();
}

#[test]
fn without_a_collector_trace_contexts_pass_as_they_came() {
    let upstream = Upstream::new();
    let gateway = Gateway::start(&upstream.url(), "");
    traced("k").send(gateway.address());
    post("l").send(gateway.address());
    let effects = upstream.effects();
    assert_eq!(
        (
            effects[0].field("traceparent"),
            effects[0].field("tracestate")
        ),
        (CALLER, "vendor=1")
    );
    assert_eq!(effects[1].field("traceparent"), "");
}

#[test]
fn spans_that_wait_are_sent_when_the_process_ends() {
    let (upstream, collector) = (Upstream::new(), collector());
    let mut gateway = Gateway::start(&upstream.url(), &config(&collector.url()));
    post("k").send(gateway.address());
    gateway.stop();
    assert_eq!(spans(&collector).len(), 4);
}
