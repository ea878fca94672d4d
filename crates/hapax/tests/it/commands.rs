//! The commands that are clients of a running gateway, and those that look at this machine.

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::client::post;
use crate::gateway::Gateway;
use crate::operator::{OPERATOR, TokenFile, VIEWER, failing, get, text, the_record, with_unknown};
use crate::upstream::Upstream;

/// What a command said, and its exit code.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Said {
    pub(crate) fn json(&self) -> Value {
        assert_eq!(self.code, Some(0), "{self:?}");
        serde_json::from_str(&self.out).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }
}

pub(crate) fn hapax(arguments: &[&str], input: &str) -> Said {
    let mut child = Command::new(env!("CARGO_BIN_EXE_hapax"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary is there");
    let mut stdin = child.stdin.take().expect("piped");
    // A command that does not read may have ended already.
    drop(stdin.write_all(input.as_bytes()));
    drop(stdin);
    let ended = child.wait_with_output().expect("it is ours");
    Said {
        code: ended.status.code(),
        out: String::from_utf8_lossy(&ended.stdout).into_owned(),
        err: String::from_utf8_lossy(&ended.stderr).into_owned(),
    }
}

/// A command that is a client of `gateway`.
fn of(gateway: &Gateway, arguments: &[&str]) -> Said {
    with_input(gateway, arguments, "")
}

fn with_input(gateway: &Gateway, arguments: &[&str], input: &str) -> Said {
    let admin = gateway.admin().to_string();
    let mut all = arguments.to_vec();
    all.extend(["--admin", &admin]);
    hapax(&all, input)
}

#[test]
fn an_unknown_outcome_is_found_shown_and_resolved_on_the_command_line() {
    let upstream = failing();
    let gateway = with_unknown(&upstream, "", &["k"]);
    let listed = of(&gateway, &["keys", "ls", "--state", "unknown"]);
    let id = text(&the_record(&gateway), "id").to_owned();
    assert!(listed.out.contains(&id), "{listed:?}");
    assert!(!listed.out.contains('\x1b'), "no terminal, no colour");
    let json = of(&gateway, &["keys", "ls", "-o", "json"]).json();
    assert_eq!(json["records"][0]["id"], id.as_str());
    let shown = of(&gateway, &["keys", "show", &id]);
    for part in [
        "upstream_answered",
        "timeline",
        "forwarded",
        "resolve_completed",
    ] {
        assert!(shown.out.contains(part), "{part}: {}", shown.out);
    }
    let resolve = [
        "keys",
        "resolve",
        &id,
        "--as",
        "completed",
        "--reason",
        "it is there",
    ];
    let with = |more: &[&str]| of(&gateway, &[&resolve, more].concat());
    let preview = with(&["--dry-run"]);
    assert!(preview.out.contains("would be completed"), "{preview:?}");
    let unasked = with(&[]);
    assert_eq!(unasked.code, Some(2), "{unasked:?}");
    assert!(unasked.err.contains("--yes"), "{unasked:?}");
    let stale = with(&["--yes", "--if-version", "0123456789abcdef"]);
    assert_eq!(stale.code, Some(1), "{stale:?}");
    assert_eq!(text(&the_record(&gateway), "state"), "unknown");
    let folder = tempfile::tempdir().expect("a folder");
    let response = folder.path().join("answer.json");
    std::fs::write(&response, r#"{"status": 201, "body": "found"}"#).expect("room");
    let response = response.display().to_string();
    let done = with(&["--yes", "-o", "json", "--response-file", &response]).json();
    assert_eq!(done["state"], "completed");
    let repeat = post("k").send(gateway.address());
    assert_eq!((repeat.status, repeat.text().as_str()), (201, "found"));
    assert_eq!(
        with(&["--yes"]).code,
        Some(1),
        "there is nothing to resolve any more"
    );
    let audit = get("/api/v1/audit").json(&gateway);
    assert_eq!(text(&audit["entries"][0], "reason"), "it is there");
    assert_eq!(upstream.count(), 1);
}

#[test]
fn records_are_released_and_expired_on_the_command_line() {
    let upstream = Upstream::new();
    let gateway = Gateway::start(&upstream.url(), "");
    for action in ["release", "expire"] {
        post("k").send(gateway.address());
        let id = text(&the_record(&gateway), "id").to_owned();
        let done = of(
            &gateway,
            &["keys", action, &id, "--reason", "a test", "--yes"],
        );
        assert_eq!(done.code, Some(0), "{done:?}");
        assert!(
            done.out
                .contains("is now vacant: the next attempt executes"),
            "{done:?}"
        );
    }
    assert_eq!(upstream.count(), 2);
}

#[test]
fn a_key_is_looked_up_from_a_file_or_from_standard_input_and_never_from_an_argument() {
    let upstream = Upstream::new();
    let gateway = Gateway::start(&upstream.url(), "");
    post("my-key")
        .field("Authorization", "Bearer me")
        .send(gateway.address());
    let id = text(&the_record(&gateway), "id").to_owned();
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("room");
        path.display().to_string()
    };
    let scope = file("scope", "header:authorization Bearer me\n");
    let key = file("key", "my-key\n");
    let lookup = ["keys", "lookup", "--scope-file", &scope];
    let found = with_input(&gateway, &lookup, "my-key\n");
    assert!(
        found.code == Some(0) && found.out.contains(&id),
        "{found:?}"
    );
    let found = of(&gateway, &[&lookup[..], &["--key-file", &key]].concat());
    assert!(
        found.code == Some(0) && found.out.contains(&id),
        "{found:?}"
    );
    let missed = with_input(&gateway, &["keys", "lookup"], "my-key\n");
    assert_eq!(missed.code, Some(1), "another scope: {missed:?}");
    let argument = of(&gateway, &[&lookup[..], &["my-key"]].concat());
    assert_eq!(argument.code, Some(2), "{argument:?}");
    let as_id = of(&gateway, &["keys", "show", "my-key"]);
    assert_eq!(as_id.code, Some(2), "{as_id:?}");
    assert!(!gateway.log().contains("my-key"));
}

#[test]
fn commands_use_a_token_file_and_say_when_they_are_not_allowed() {
    let upstream = Upstream::new();
    let tokens = TokenFile::new();
    let gateway = Gateway::start(&upstream.url(), &tokens.config());
    let file = tokens.path.display().to_string();
    assert_eq!(of(&gateway, &["status"]).code, Some(4));
    assert_eq!(
        of(&gateway, &["status", "--token-file", &file]).code,
        Some(0)
    );
    post("k").send(gateway.address());
    let page = get("/api/v1/records").token(VIEWER).json(&gateway);
    let id = text(&page["records"][0], "id").to_owned();
    let release = [
        "keys",
        "release",
        &id,
        "--reason",
        "r",
        "--yes",
        "--token-file",
        &file,
    ];
    // The file is the client's from here on: the gateway reads it at a start or reload only.
    tokens.write(&format!("{VIEWER}\n"), 0o600);
    let refused = of(&gateway, &release);
    assert_eq!(refused.code, Some(4), "{refused:?}");
    assert!(
        refused.err.contains("viewer") && !refused.err.contains(VIEWER),
        "{refused:?}"
    );
    tokens.write(&format!("{OPERATOR}\n"), 0o600);
    assert_eq!(of(&gateway, &release).code, Some(0));
}

#[test]
fn tail_prints_events_as_they_happen() {
    let upstream = Upstream::new();
    let gateway = Gateway::start(&upstream.url(), "");
    let admin = gateway.admin().to_string();
    let arguments = [
        "tail", "--types", "answered", "--limit", "2", "-o", "json", "--admin", &admin,
    ];
    let tail = Command::new(env!("CARGO_BIN_EXE_hapax"))
        .args(arguments)
        .stdout(Stdio::piped())
        .spawn()
        .expect("the binary is there");
    // It may connect after the first of them: it ends after two that it has seen.
    let mut number = 0;
    let mut tail = tail;
    crate::support::eventually("two events", || {
        post(&format!("k{number}")).send(gateway.address());
        number += 1;
        tail.try_wait().expect("it is ours")
    });
    let ended = tail.wait_with_output().expect("it is ours");
    assert!(ended.status.success());
    let text = String::from_utf8_lossy(&ended.stdout).into_owned();
    let events: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(events.len(), 2, "{text}");
    assert!(events.iter().all(|event| event["outcome"] == "executed"));
}

#[test]
fn reload_says_whether_the_configuration_was_taken() {
    let upstream = Upstream::new();
    let gateway = Gateway::start(&upstream.url(), "");
    let taken = of(&gateway, &["reload", "--reason", "a new route"]);
    assert_eq!(taken.code, Some(0), "{taken:?}");
    std::fs::write(&gateway.setup.file, "[defaults]\nretentoin = \"1h\"\n").expect("room");
    let refused = of(&gateway, &["reload"]);
    assert_eq!(refused.code, Some(3), "{refused:?}");
    assert!(refused.err.contains("retentoin"), "{refused:?}");
}

#[test]
fn doctor_measures_this_machine_and_finds_what_is_wrong() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("hapax.toml");
    let examine = |config: &str| {
        let store = folder.path().join("data");
        let store = format!(
            "[admin]\nlisten = \"127.0.0.1:1\"\n{config}\n[store]\npath = {store:?}\nmin_free_disk = 0\n"
        );
        std::fs::write(&file, store).expect("room");
        hapax(
            &["doctor", "-o", "json", "-c", &file.display().to_string()],
            "",
        )
    };
    let fine = examine("");
    let json: Value = serde_json::from_str(&fine.out).expect("JSON");
    let result = |name: &str| {
        let checks = json["checks"].as_array().expect("a list");
        let found = checks.iter().find(|check| check["name"] == name);
        found.unwrap_or_else(|| panic!("no {name}: {json}")).clone()
    };
    for name in [
        "configuration",
        "durability",
        "sync",
        "disk room",
        "clock",
        "file limit",
        "admin access",
    ] {
        assert_ne!(text(&result(name), "result"), "failure", "{json}");
    }
    assert!(text(&result("sync"), "detail").contains(" ms"), "{json}");
    let wrong = examine("token_file = \"/nonexistent\"");
    assert_eq!(wrong.code, Some(1), "{wrong:?}");
    assert!(wrong.out.contains("/nonexistent"), "{wrong:?}");
    let unset = hapax(&["doctor", "-c", "/nonexistent.toml"], "");
    assert_eq!(unset.code, Some(3), "{unset:?}");
}

#[test]
fn completions_and_manual_pages_know_the_commands() {
    for shell in ["bash", "zsh", "fish"] {
        let script = hapax(&["completions", shell], "");
        assert_eq!(script.code, Some(0));
        assert!(script.out.contains("lookup"), "{shell}");
    }
    let folder = tempfile::tempdir().expect("a folder");
    let directory = folder.path().display().to_string();
    assert_eq!(hapax(&["man", &directory], "").code, Some(0));
    let page = std::fs::read_to_string(folder.path().join("hapax-keys-resolve.1"));
    assert!(page.expect("it is there").contains("audit log"));
}

#[test]
fn a_stores_files_are_counted_and_verified_while_no_gateway_has_them() {
    let upstream = failing();
    let mut gateway = with_unknown(&upstream, "", &["a", "b"]);
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("hapax.toml");
    let config = format!("[store]\npath = {:?}\n", gateway.setup.data);
    std::fs::write(&file, config).expect("room");
    let file = file.display().to_string();
    let store = |command: &str| hapax(&["store", command, "-o", "json", "-c", &file], "");
    let held = store("verify");
    assert_eq!(held.code, Some(4), "the gateway has it: {held:?}");
    gateway.stop();
    assert_eq!(store("stats").json()["unknown"], 2);
    let verified = store("verify").json();
    assert_eq!(
        (&verified["read"]["unknown"], &verified["damaged"]),
        (&2.into(), &0.into())
    );
    gateway.restart();
    assert_eq!(
        gateway.metric("hapax_unknown", &[]),
        2.0,
        "looking changed nothing"
    );
    let absent = file.replace("hapax.toml", "none.toml");
    std::fs::write(&absent, "[store]\npath = \"/nonexistent/x\"\n").expect("room");
    assert_eq!(hapax(&["store", "stats", "-c", &absent], "").code, Some(2));
}
