//! What operators see: health, metrics, the log; and what nobody may see.

use crate::client::{Connection, ask, post};
use crate::gateway::Gateway;
use crate::support::eventually;
use crate::upstream::{Act, Upstream, answer, created};

const CONFIG: &str = r#"
[[route]]
match = "POST /orders"
key = "required"

[[route]]
match = "POST /customers/{id}"
"#;

/// All names that the interface promises.
const NAMES: [&str; 20] = [
    "hapax_requests_total",
    "hapax_duplicates_stopped_total",
    "hapax_request_duration_seconds_bucket",
    "hapax_upstream_duration_seconds_bucket",
    "hapax_overhead_seconds_bucket",
    "hapax_outstanding",
    "hapax_unknown",
    "hapax_unknown_oldest_age_seconds",
    "hapax_store_operation_duration_seconds_bucket",
    "hapax_store_errors_total",
    "hapax_store_sync_duration_seconds_bucket",
    "hapax_store_batch_size_bucket",
    "hapax_store_records",
    "hapax_store_bytes",
    "hapax_lease_lost_total",
    "hapax_stale_write_refused_total",
    "hapax_config_reload_success",
    "hapax_build_info",
    "hapax_store_damaged_records",
    "hapax_client_gone_total",
];

#[test]
fn every_promised_metric_is_there_once_there_was_a_duplicate() {
    let upstream = Upstream::new();
    let gateway = Gateway::start(&upstream.url(), CONFIG);
    post("a").send(gateway.address());
    post("a").send(gateway.address());
    let metrics = gateway.metrics();
    let is_missing = |name: &&&str| !metrics.lines().any(|line| line.starts_with(**name));
    let missing: Vec<_> = NAMES.iter().filter(is_missing).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn requests_are_counted_by_route_and_outcome() {
    let upstream = Upstream::scripted(|effect| match effect.key() {
        "reject" => Act::Answer(answer(422, &[], b"no")),
        "cut" => Act::Reset(Vec::new()),
        _ => Act::Answer(created(effect)),
    });
    let gateway = Gateway::start(&upstream.url(), CONFIG);
    let to = gateway.address();
    for key in ["a", "a", "a", "b", "reject", "reject", "cut"] {
        post(key).send(to);
    }
    post("a").body(b"other").send(to);
    post("a b").send(to);
    ask("POST", "/orders").send(to);
    ask("POST", "/elsewhere").send(to);
    let count = |outcome: &str| {
        let outcome = format!("outcome=\"{outcome}\"");
        gateway.metric(
            "hapax_requests_total",
            &["route=\"POST /orders\"", &outcome],
        )
    };
    for (outcome, expected) in [
        ("executed", 3.0),
        ("replayed", 2.0),
        ("rejected_replayed", 1.0),
        ("mismatch", 1.0),
        ("key_invalid", 1.0),
        ("key_missing", 1.0),
        ("unknown", 1.0),
        ("unkeyed", 0.0),
    ] {
        assert_eq!(count(outcome), expected, "{outcome}");
    }
    assert_eq!(gateway.counted("unkeyed"), 1.0);
    assert_eq!(
        gateway.metric("hapax_duplicates_stopped_total", &["POST /orders"]),
        4.0
    );
    assert_eq!(gateway.metric("hapax_unknown", &[]), 1.0);
    assert_eq!(gateway.metric("hapax_outstanding", &[]), 0.0);
    assert_eq!(gateway.metric("hapax_store_records", &[]), 4.0);
}

#[test]
fn health_is_told_to_this_host_only() {
    let upstream = Upstream::new();
    let gateway = Gateway::start(&upstream.url(), "");
    for target in ["/livez", "/readyz"] {
        let mut connection = Connection::open(gateway.admin());
        let request = format!("GET {target} HTTP/1.1\r\nHost: {}\r\n\r\n", gateway.admin());
        connection.send(request.as_bytes()).expect("it listens");
        assert_eq!(
            connection.read().expect("an answer").status,
            200,
            "{target}"
        );
    }
    let mut connection = Connection::open(gateway.admin());
    let rebound = b"GET /metrics HTTP/1.1\r\nHost: evil.example\r\n\r\n";
    connection.send(rebound).expect("it listens");
    assert_eq!(connection.read().expect("an answer").status, 421);
    // The gateway's own listener has none of these paths: they are the upstream's.
    let passed = ask("GET", "/metrics").send(gateway.address());
    assert_eq!((passed.status, upstream.count()), (201, 1));
}

#[test]
fn one_line_is_logged_for_each_keyed_request_with_its_figures() {
    let upstream = Upstream::new();
    let gateway = Gateway::start(&upstream.url(), CONFIG);
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let traceparent = format!("00-{trace}-00f067aa0ba902b7-01");
    for _ in 0..2 {
        let request = post("k").field("traceparent", &traceparent);
        assert_eq!(request.send(gateway.address()).status, 201);
    }
    let lines = eventually("two lines", || {
        let log = gateway.log();
        let lines: Vec<serde_json::Value> = log
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}")))
            .filter(|line: &serde_json::Value| !line["outcome"].is_null())
            .collect();
        (lines.len() >= 2).then_some(lines)
    });
    assert_eq!(lines.len(), 2);
    for (line, outcome) in lines.iter().zip(["executed", "replayed"]) {
        assert_eq!(line["outcome"], outcome, "{line}");
        assert_eq!(line["route"], "POST /orders");
        assert_eq!(line["method"], "POST");
        assert_eq!(line["status"], 201);
        assert_eq!(line["attempt"], 1, "{line}");
        assert_eq!(line["trace_id"], trace);
        assert!(line["total_ms"].is_number(), "{line}");
        assert!(line["record"].is_string(), "{line}");
    }
    assert_eq!(lines[0]["record"], lines[1]["record"]);
    assert!(lines[0]["upstream_ms"].is_number(), "{}", lines[0]);
    assert!(lines[1]["age_ms"].is_number(), "{}", lines[1]);
}

#[test]
fn no_key_no_credentials_no_path_and_no_content_appear_in_metrics_or_log() {
    let upstream = Upstream::scripted(|effect| match effect.field("x-case") {
        "cut" => Act::Reset(Vec::new()),
        _ => Act::Answer(answer(
            201,
            &[("X-A", "canary-answer-field")],
            b"canary-answer",
        )),
    });
    let config = format!("{CONFIG}\n[telemetry]\nlog = \"debug\"\n");
    let mut gateway = Gateway::start(&upstream.url(), &config);
    let request = post("canary-key")
        .target("/customers/canary-path?q=canary-query")
        .field("Authorization", "Bearer canary-credentials")
        .field("Cookie", "canary-cookie")
        .body(b"canary-content");
    let to = gateway.address();
    assert_eq!(request.send(to).status, 201);
    assert!(request.send(to).is_replay());
    assert_eq!(request.clone().body(b"canary-other").send(to).status, 422);
    let cut = post("canary-cut")
        .field("X-Case", "cut")
        .body(b"canary-content");
    assert_eq!(cut.send(to).status, 504);
    post("canary bad").send(to);
    ask("POST", "/canary-unkeyed")
        .body(b"canary-content")
        .send(to);
    Connection::open(to).send_anyway(b"POST /canary-malformed HTTP/1.1\nHost: canary-host\n\n");
    let metrics = gateway.metrics();
    let status = gateway.admin_get("/api/v1/status").text();
    gateway.signal(rustix::process::Signal::TERM);
    let (_, log) = gateway.wait_for_end();
    for (name, text) in [("metrics", metrics), ("status", status), ("log", log)] {
        assert!(text.len() > 100, "{name}");
        let found = text.lines().find(|line| line.contains("canary"));
        assert_eq!(found, None, "in {name}");
    }
}
