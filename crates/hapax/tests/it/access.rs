//! Who may call the admin API: roles, names, origins.

use std::process::{Command, Stdio};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::client::post;
use crate::gateway::Gateway;
use crate::operator::{
    Call, OPERATOR, TokenFile, VIEWER, act, completed, failing, get, records, send, text,
};
use crate::support::eventually;
use crate::upstream::Upstream;

/// Every call with what it needs: a path of the API's description, a call, and whether a viewer
/// may do it.
fn matrix(record: &Value) -> Vec<(&'static str, Call, bool)> {
    let why = json!({ "reason": "r", "dry_run": true });
    let detail = format!("/api/v1/records/{}", text(record, "id"));
    let bulk = json!({ "as": "completed", "reason": "r", "dry_run": true, "filter": {} });
    let mut resolve = completed();
    resolve["dry_run"] = true.into();
    vec![
        ("/api/v1/status", get("/api/v1/status"), true),
        ("/api/v1/whoami", get("/api/v1/whoami"), true),
        ("/api/v1/routes", get("/api/v1/routes"), true),
        ("/api/v1/stats", get("/api/v1/stats"), true),
        ("/api/v1/records", get("/api/v1/records"), true),
        (
            "/api/v1/records:lookup",
            send("/api/v1/records:lookup", &json!({ "key": "k" })),
            true,
        ),
        ("/api/v1/records/{id}", get(&detail), true),
        (
            "/api/v1/records/{id}",
            get(&format!("{detail}?content=show")),
            false,
        ),
        (
            "/api/v1/records/{id}:resolve",
            act(record, "resolve", &resolve),
            false,
        ),
        (
            "/api/v1/records/{id}:release",
            act(record, "release", &why),
            false,
        ),
        (
            "/api/v1/records/{id}:expire",
            act(record, "expire", &why),
            false,
        ),
        (
            "/api/v1/records:resolve",
            send("/api/v1/records:resolve", &bulk),
            false,
        ),
        ("/api/v1/audit", get("/api/v1/audit"), true),
        (
            "/api/v1/config:reload",
            send("/api/v1/config:reload", &json!({ "reason": "r" })),
            false,
        ),
    ]
}

#[test]
fn every_call_is_open_to_its_role_and_closed_to_everybody_below() {
    let upstream = failing();
    let tokens = TokenFile::new();
    let gateway = Gateway::start(&upstream.url(), &tokens.config());
    assert_eq!(post("k").send(gateway.address()).status, 500);
    let page = get("/api/v1/records").token(VIEWER).json(&gateway);
    let record = page["records"][0].clone();
    let matrix = matrix(&record);
    for (name, call, is_for_viewers) in &matrix {
        for refused in [
            call.clone(),
            call.clone().token("operator-token-0123456780"),
            call.clone().token(&OPERATOR[1..]),
            call.clone()
                .field("Authorization", &format!("Basic {OPERATOR}")),
        ] {
            let answer = refused.to(&gateway);
            assert_eq!(
                (answer.status, answer.problem().as_str()),
                (401, "unauthenticated"),
                "{name}"
            );
            assert!(
                answer
                    .field("www-authenticate")
                    .is_some_and(|value| value.starts_with("Bearer"))
            );
        }
        let viewer = call.clone().token(VIEWER).to(&gateway);
        let expected = if *is_for_viewers { 200 } else { 403 };
        assert_eq!(viewer.status, expected, "{name}: {}", viewer.text());
        let operator = call.clone().token(OPERATOR).to(&gateway);
        assert_eq!(operator.status, 200, "{name}: {}", operator.text());
    }
    // Nothing that the API describes is left out of the matrix, but the stream.
    let description = get("/api/v1/openapi.json").token(VIEWER).json(&gateway);
    for path in description["paths"].as_object().expect("paths").keys() {
        let is_tried = matrix.iter().any(|(name, ..)| name == path);
        assert!(is_tried || path == "/api/v1/events", "{path}");
    }
    assert_eq!(get("/api/v1/events").to(&gateway).status, 401);
    assert_eq!(get("/metrics").to(&gateway).status, 401);
    assert_eq!(get("/metrics").token(VIEWER).to(&gateway).status, 200);
    assert_eq!(get("/livez").to(&gateway).status, 200);
    assert_eq!(get("/readyz").to(&gateway).status, 200);
    assert_eq!(
        get("/api/v1/whoami").token(OPERATOR).json(&gateway)["name"],
        "ann"
    );
    assert_eq!(records_of(&gateway), [record], "previews changed nothing");
}

fn records_of(gateway: &Gateway) -> Vec<Value> {
    let page = get("/api/v1/records").token(VIEWER).json(gateway);
    page["records"].as_array().expect("a list").clone()
}

#[test]
fn another_name_and_another_origin_are_refused() {
    let upstream = failing();
    let config = "[admin]\nhosts = [\"gate.internal\"]\n";
    let gateway = Gateway::start(&upstream.url(), config);
    post("k").send(gateway.address());
    let record = records(&gateway, "unknown").remove(0);
    let own = format!("http://{}", gateway.admin());
    let resolve = act(&record, "resolve", &completed());
    let status = get("/api/v1/status");
    let typed = |kind: &str| {
        resolve
            .clone()
            .without("Content-Type")
            .field("Content-Type", kind)
    };
    for (call, kind) in [
        (status.clone().field("Host", "evil.example"), "foreign-host"),
        (
            status.clone().field("Origin", "http://evil.example"),
            "foreign-origin",
        ),
        (
            status
                .clone()
                .method("PUT")
                .field("Content-Type", "application/json"),
            "method-not-allowed",
        ),
        (get("/api/v1/nothing"), "no-such-call"),
        (get("/nothing"), "no-such-call"),
        (get("/api/v1/records/%ff"), "no-such-record"),
        (get("/api/v1/records/.."), "no-such-record"),
        (
            resolve.clone().field("Host", "evil.example"),
            "foreign-host",
        ),
        (
            resolve.clone().field("Origin", "http://evil.example"),
            "foreign-origin",
        ),
        (resolve.clone().field("Origin", "null"), "foreign-origin"),
        (
            resolve.clone().field("Sec-Fetch-Site", "cross-site"),
            "foreign-origin",
        ),
        (resolve.clone().without("Content-Type"), "not-json"),
        (typed("text/plain"), "not-json"),
        (typed("application/x-www-form-urlencoded"), "not-json"),
    ] {
        assert_eq!(call.refusal(&gateway), kind, "{call:?}");
    }
    assert_eq!(
        status
            .clone()
            .field("Host", "evil.example")
            .to(&gateway)
            .status,
        421
    );
    assert_eq!(
        status
            .clone()
            .field("Host", "gate.internal:9090")
            .to(&gateway)
            .status,
        200
    );
    assert_eq!(records(&gateway, "unknown"), [record]);
    assert_eq!(resolve.field("Origin", &own).to(&gateway).status, 200);
}

#[test]
fn content_over_the_limit_and_pages_over_the_limit_are_refused() {
    let upstream = failing();
    let gateway = Gateway::start(&upstream.url(), "");
    let huge = json!({ "key": "k".repeat(3 * 1024 * 1024) });
    assert_eq!(
        send("/api/v1/records:lookup", &huge).to(&gateway).status,
        413
    );
    for target in [
        "/api/v1/records?limit=0",
        "/api/v1/records?limit=501",
        "/api/v1/records?limit=-1",
        "/api/v1/records?after=zz",
        "/api/v1/records?state=lost",
        "/api/v1/records?since=yesterday",
        "/api/v1/records?stat=unknown",
        "/api/v1/audit?limit=501",
        "/api/v1/audit?after=x",
        "/api/v1/stats?window=2h",
        "/api/v1/stats?window=x",
        "/api/v1/events?record=x",
    ] {
        assert_eq!(get(target).refusal(&gateway), "malformed", "{target}");
    }
}

/// Runs a start that must be refused, and says how it ended.
fn refused_start(admin: &str, config: &str) -> (Option<i32>, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("hapax.toml");
    std::fs::write(&file, config).expect("room");
    let ended = Command::new(env!("CARGO_BIN_EXE_hapax"))
        .args([
            "serve",
            "--upstream",
            "http://127.0.0.1:1",
            "--listen",
            "127.0.0.1:0",
        ])
        .args(["--admin", admin, "--store"])
        .arg(folder.path().join("data"))
        .arg("-c")
        .arg(&file)
        .stdin(Stdio::null())
        .output()
        .expect("the binary is there");
    let log = String::from_utf8_lossy(&ended.stderr).into_owned();
    (ended.status.code(), log)
}

#[test]
fn off_loopback_nothing_starts_without_a_token() {
    let (code, log) = refused_start("0.0.0.0:0", "");
    assert_eq!(code, Some(3), "{log}");
    assert!(log.contains("token_file"), "{log}");
}

#[test]
fn a_token_file_that_is_open_to_others_faulty_or_missing_is_refused_and_not_shown() {
    let tokens = TokenFile::new();
    for (text, mode) in [
        (format!("operator:{OPERATOR}\n"), 0o644),
        (format!("operator:{OPERATOR}\n"), 0o620),
        ("operator:secret\n".to_owned(), 0o600),
        (format!("root:{OPERATOR}\n"), 0o600),
        (String::new(), 0o600),
    ] {
        tokens.write(&text, mode);
        let (code, log) = refused_start("127.0.0.1:0", &tokens.config());
        assert_eq!(code, Some(3), "{text:?} {mode:o}: {log}");
        assert!(log.contains("admin.token"), "{log}");
        assert!(!log.contains(OPERATOR) && !log.contains(":secret"), "{log}");
    }
    std::fs::remove_file(&tokens.path).expect("it is there");
    assert_eq!(refused_start("127.0.0.1:0", &tokens.config()).0, Some(3));
}

#[test]
fn tokens_are_changed_by_a_reload_and_a_faulty_file_changes_nothing() {
    let upstream = Upstream::new();
    let tokens = TokenFile::new();
    let gateway = Gateway::start(&upstream.url(), &tokens.config());
    let ask = |token: &str| get("/api/v1/whoami").token(token).to(&gateway).status;
    assert_eq!((ask(OPERATOR), ask("another-token-0123")), (200, 401));
    tokens.write("operator:short\n", 0o600);
    gateway.signal(Signal::HUP);
    gateway.wait_for_log("the refusal", |log| log.contains("the reload failed"));
    assert_eq!((ask(OPERATOR), ask("another-token-0123")), (200, 401));
    tokens.write("operator:bob:another-token-0123\n", 0o600);
    gateway.signal(Signal::HUP);
    eventually("the new token", || {
        (ask("another-token-0123") == 200).then_some(())
    });
    assert_eq!(ask(OPERATOR), 401);
    let reload = json!({ "reason": "who am I" });
    let reload = send("/api/v1/config:reload", &reload).token("another-token-0123");
    assert_eq!(reload.json(&gateway)["ok"], true);
    let audit = get("/api/v1/audit")
        .token("another-token-0123")
        .json(&gateway);
    assert_eq!(
        (
            text(&audit["entries"][0], "who"),
            text(&audit["entries"][0], "phase")
        ),
        ("bob", "done")
    );
}
