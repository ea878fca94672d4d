//! Stopping, reloading, and a second process.

use std::thread;

use rustix::process::Signal;

use crate::client::{Connection, ask, post};
use crate::gateway::Gateway;
use crate::support::{Gate, eventually};
use crate::upstream::{Act, Upstream, created};

#[test]
fn a_stop_lets_what_is_under_way_finish_and_takes_nothing_new() {
    let gate = Gate::new();
    let held = gate.clone();
    let upstream = Upstream::scripted(move |effect| Act::Hold(held.clone(), created(effect)));
    let mut gateway = Gateway::start(&upstream.url(), "");
    let mut connection = Connection::open(gateway.address());
    connection.send(&post("k").bytes()).expect("it listens");
    upstream.wait_for_effects(1);
    gateway.signal(Signal::TERM);
    eventually("nobody listens", || {
        gateway.refuses_connections().then_some(())
    });
    gate.open();
    let answer = connection.read().expect("an answer");
    assert_eq!((answer.status, answer.idempotency()), (201, "executed"));
    let (status, log) = gateway.wait_for_end();
    assert_eq!(status.code(), Some(0), "{log}");
    gateway.restart();
    assert!(post("k").send(gateway.address()).is_replay());
    assert_eq!(upstream.count(), 1);
}

#[test]
fn a_stop_waits_for_an_operation_whose_client_has_left() {
    let gate = Gate::new();
    let held = gate.clone();
    let upstream = Upstream::scripted(move |effect| Act::Hold(held.clone(), created(effect)));
    let mut gateway = Gateway::start(&upstream.url(), "");
    let mut connection = Connection::open(gateway.address());
    connection.send(&post("k").bytes()).expect("it listens");
    upstream.wait_for_effects(1);
    drop(connection);
    gateway.signal(Signal::TERM);
    eventually("nobody listens", || {
        gateway.refuses_connections().then_some(())
    });
    gate.open();
    let (status, log) = gateway.wait_for_end();
    assert_eq!(status.code(), Some(0), "{log}");
    gateway.restart();
    assert!(post("k").send(gateway.address()).is_replay());
    assert_eq!(upstream.count(), 1);
}

#[test]
fn what_outlasts_the_drain_is_unknown_to_the_next_start() {
    let gate = Gate::new();
    let held = gate.clone();
    let upstream = Upstream::scripted(move |effect| Act::Hold(held.clone(), created(effect)));
    let config = "[server]\ndrain_timeout = \"300ms\"\n";
    let mut gateway = Gateway::start(&upstream.url(), config);
    let mut connection = Connection::open(gateway.address());
    connection.send(&post("k").bytes()).expect("it listens");
    upstream.wait_for_effects(1);
    gateway.stop();
    gateway.restart();
    let retry = post("k").send(gateway.address());
    assert_eq!(retry.problem(), "outcome-unknown");
    gate.open();
    assert_eq!(upstream.count(), 1);
}

#[test]
fn while_it_drains_it_is_alive_and_not_ready() {
    let gate = Gate::new();
    let held = gate.clone();
    let upstream = Upstream::scripted(move |effect| Act::Hold(held.clone(), created(effect)));
    let mut gateway = Gateway::start(&upstream.url(), "");
    let mut connection = Connection::open(gateway.address());
    connection.send(&post("k").bytes()).expect("it listens");
    upstream.wait_for_effects(1);
    assert_eq!(gateway.admin_get("/readyz").status, 200);
    assert_eq!(gateway.metric("hapax_outstanding", &[]), 1.0);
    gateway.signal(Signal::TERM);
    let unready = eventually("unready", || {
        let answer = gateway.admin_get("/readyz");
        (answer.status != 200).then_some(answer)
    });
    assert_eq!(
        (unready.status, unready.text().as_str()),
        (503, "draining\n")
    );
    assert_eq!(gateway.admin_get("/livez").status, 200);
    gate.open();
    assert_eq!(connection.read().expect("an answer").status, 201);
    assert!(gateway.wait_for_end().0.success());
}

#[test]
fn an_idle_connection_does_not_hold_up_a_stop() {
    let upstream = Upstream::new();
    let mut gateway = Gateway::start(&upstream.url(), "");
    let mut idle = Connection::open(gateway.address());
    idle.send(&post("k").bytes()).expect("it listens");
    assert_eq!(idle.read().expect("an answer").status, 201);
    let silent = Connection::open(gateway.address());
    gateway.stop();
    assert!(idle.is_closed_by_peer());
    drop(silent);
}

fn reload(gateway: &Gateway, config: &str, says: &str) {
    std::fs::write(&gateway.setup.file, config).expect("a file");
    gateway.signal(Signal::HUP);
    gateway.wait_for_log(says, |log| log.contains(says));
}

#[test]
fn a_reload_applies_new_rules_and_a_faulty_one_keeps_the_old() {
    let upstream = Upstream::new();
    let gateway = Gateway::start(&upstream.url(), "");
    let unkeyed = ask("POST", "/orders").body(b"{}");
    let metric = || gateway.metric("hapax_config_reload_success", &[]);
    assert_eq!(unkeyed.send(gateway.address()).status, 201);
    assert_eq!(metric(), 1.0);
    let required = "[[route]]\nmatch = \"POST /orders\"\nkey = \"required\"\n";
    reload(&gateway, required, "was reloaded");
    assert_eq!(unkeyed.send(gateway.address()).problem(), "key-missing");
    assert_eq!(metric(), 1.0);
    reload(&gateway, "[defaults]\nretentoin = \"1h\"\n", "retentoin");
    assert_eq!(metric(), 0.0);
    assert_eq!(unkeyed.send(gateway.address()).problem(), "key-missing");
    let status = gateway.admin_get("/api/v1/status").json();
    assert_eq!(status["reload"]["ok"], false, "{status}");
    let error = status["reload"]["error"].as_str().unwrap_or_default();
    assert!(error.contains("retentoin"), "{status}");
    reload(&gateway, "", "was reloaded");
    eventually("the new rules", || (metric() == 1.0).then_some(()));
    assert_eq!(unkeyed.send(gateway.address()).status, 201);
}

#[test]
fn a_reload_that_needs_a_restart_is_refused_as_a_whole() {
    let upstream = Upstream::new();
    let gateway = Gateway::start(&upstream.url(), "");
    let changed = "[store]\nmax_records = 5\n[defaults]\nkey = \"required\"\n";
    reload(&gateway, changed, "restart");
    assert_eq!(gateway.metric("hapax_config_reload_success", &[]), 0.0);
    let unkeyed = ask("POST", "/orders").body(b"{}");
    assert_eq!(unkeyed.send(gateway.address()).status, 201);
}

#[test]
fn a_reload_under_load_loses_no_request() {
    let upstream = Upstream::new();
    let gateway = Gateway::start(&upstream.url(), "");
    let address = gateway.address();
    let callers: Vec<_> = (0..4)
        .map(|caller| {
            thread::spawn(move || {
                let mut connection = Connection::open(address);
                for number in 0..50 {
                    let request = post(&format!("{caller}-{number}"));
                    connection.send(&request.bytes()).expect("it listens");
                    assert_eq!(connection.read().expect("an answer").status, 201);
                }
            })
        })
        .collect();
    for number in 1..=5 {
        let config = format!("[defaults]\nretention = \"{number}h\"\n");
        std::fs::write(&gateway.setup.file, config).expect("a file");
        gateway.signal(Signal::HUP);
        gateway.wait_for_log("so many reloads", |log| {
            log.matches("was reloaded").count() >= number
        });
    }
    for caller in callers {
        caller.join().expect("no panic");
    }
    assert_eq!(upstream.count(), 200);
}

#[test]
fn a_second_process_on_the_data_does_not_start_and_names_the_first() {
    let upstream = Upstream::new();
    let gateway = Gateway::start(&upstream.url(), "");
    let second = Gateway::try_start_in(&upstream.url(), "", Some(&gateway.setup.data));
    let refused = second.err().expect("it must not start");
    assert_eq!(refused.status.code(), Some(4), "{refused:?}");
    let pid = gateway.pid().as_raw_nonzero().to_string();
    assert!(refused.log.contains(&pid), "{pid}: {refused:?}");
    assert_eq!(post("k").send(gateway.address()).status, 201);
}

#[test]
fn a_faulty_configuration_does_not_start() {
    let upstream = Upstream::new();
    let refused = Gateway::try_start(&upstream.url(), "[defaults]\nmode = \"on\"\n");
    let refused = refused.err().expect("it must not start");
    assert_eq!(refused.status.code(), Some(3), "{refused:?}");
    assert!(refused.log.contains("mode"), "{refused:?}");
}

#[test]
fn the_status_command_tells_how_a_gateway_is_and_fails_without_one() {
    let upstream = Upstream::new();
    let mut gateway = Gateway::start(&upstream.url(), "");
    post("k").send(gateway.address());
    post("k").send(gateway.address());
    let admin = gateway.admin().to_string();
    let status = || {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_hapax"));
        command.args(["status", "-o", "json", "--admin", &admin]);
        command.output().expect("the binary is there")
    };
    let told = status();
    let text = String::from_utf8_lossy(&told.stdout).into_owned();
    assert_eq!(told.status.code(), Some(0), "{text}");
    let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(json["state"], "serving", "{text}");
    assert_eq!(json["requests"]["executed"], 1, "{text}");
    assert_eq!(json["duplicates_stopped"], 1, "{text}");
    gateway.stop();
    assert_eq!(status().status.code(), Some(4));
}
