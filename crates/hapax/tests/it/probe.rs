//! Unknown outcomes that the upstream is asked about (P47).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::client::{Answer, Ask, Connection, post};
use crate::gateway::Gateway;
use crate::support::{Gate, eventually};
use crate::upstream::{Act, Effect, Upstream, answer, created};

const NEVER: &str = "1h";

/// Asks by the key; a 404 counts after `probe_after`.
fn config(probe: &str, probe_after: &str) -> String {
    format!("[defaults]\non_unknown = {{ probe = \"{probe}\" }}\nprobe_after = \"{probe_after}\"\n")
}

fn by_key(probe_after: &str) -> String {
    config("GET /orders?request={key}", probe_after)
}

/// A caller with credentials, whose operations hapax does not ask about by itself.
fn known(key: &str) -> Ask {
    post(key).field("Authorization", "Bearer one")
}

fn posts(upstream: &Upstream) -> Vec<Effect> {
    let effects = upstream.effects().into_iter();
    effects.filter(|effect| effect.method == "POST").collect()
}

fn questions(upstream: &Upstream) -> Vec<Effect> {
    let effects = upstream.effects().into_iter();
    effects.filter(|effect| effect.method != "POST").collect()
}

/// Acts on the first request and resets; then does as told.
fn broken_first(
    then: impl Fn(&Effect) -> Vec<u8> + Send + Sync + 'static,
) -> impl Fn(&Effect) -> Act + Send + Sync + 'static {
    let has_broken = AtomicBool::new(false);
    move |effect| {
        if effect.method == "POST" && !has_broken.swap(true, Ordering::AcqRel) {
            return Act::Reset(Vec::new());
        }
        Act::Answer(match effect.method.as_str() {
            "POST" => created(effect),
            _ => then(effect),
        })
    }
}

fn found() -> Vec<u8> {
    let fields = [
        ("Content-Type", "application/json"),
        ("Location", "/orders/7"),
        ("Set-Cookie", "a=b"),
    ];
    answer(200, &fields, b"{\"order\":7}")
}

fn assert_unknown(answer: &Answer) {
    assert_eq!(
        (answer.status, answer.problem().as_str()),
        (504, "outcome-unknown"),
        "{answer:?}"
    );
}

fn assert_found(answer: &Answer) {
    assert!(answer.is_replay(), "{answer:?}");
    assert_eq!(
        (answer.status, answer.text().as_str()),
        (200, "{\"order\":7}")
    );
    assert_eq!(answer.idempotency(), "replayed");
    assert_eq!(answer.field("location"), Some("/orders/7"));
    assert_eq!(answer.field("set-cookie"), None);
}

#[test]
fn an_operation_that_a_killed_gateway_left_unknown_is_completed_without_any_retry() {
    let gate = Gate::new();
    let held = gate.clone();
    let upstream = Upstream::scripted(move |effect| match effect.method.as_str() {
        "POST" => Act::Hold(held.clone(), created(effect)),
        _ => Act::Answer(found()),
    });
    let mut gateway = Gateway::start(&upstream.url(), &by_key(NEVER));
    let mut caller = Connection::open(gateway.address());
    caller.send(&post("k").bytes()).expect("it listens");
    upstream.wait_for_effects(1);
    gateway.restart();
    eventually("the completion", || {
        (gateway.metric("hapax_unknown", &[]) == 0.0 && !questions(&upstream).is_empty())
            .then_some(())
    });
    assert_found(&post("k").send(gateway.address()));
    let question = &questions(&upstream)[0];
    assert_eq!(
        (question.method.as_str(), question.target.as_str()),
        ("GET", "/orders?request=k")
    );
    assert_eq!(question.field("cache-control"), "no-cache");
    assert_eq!(question.field("authorization"), "");
    assert_eq!(posts(&upstream).len(), 1);
    assert_eq!(
        gateway.metric("hapax_probes_total", &["outcome=\"happened\""]),
        1.0
    );
    // Settled for good: another restart asks nothing.
    let asked = questions(&upstream).len();
    gateway.restart();
    assert_found(&post("k").send(gateway.address()));
    assert_eq!(questions(&upstream).len(), asked);
    gate.open();
}

#[test]
fn a_retry_asks_with_its_own_credentials_and_gets_what_was_found() {
    let upstream = Upstream::scripted(broken_first(|_| found()));
    let gateway = Gateway::start(&upstream.url(), &by_key(NEVER));
    assert_unknown(&known("k").send(gateway.address()));
    assert_found(&known("k").send(gateway.address()));
    assert_found(&known("k").send(gateway.address()));
    let asked = questions(&upstream);
    assert_eq!(asked.len(), 1, "only the retry may ask, and once");
    assert_eq!(asked[0].field("authorization"), "Bearer one");
    assert_eq!(asked[0].field("idempotency-key"), "");
    assert_eq!(posts(&upstream).len(), 1);
}

#[test]
fn a_404_leaves_the_key_taken_until_probe_after_has_passed() {
    let upstream = Upstream::scripted(broken_first(|_| answer(404, &[], b"")));
    let mut gateway = Gateway::start(&upstream.url(), &by_key(NEVER));
    for _ in 0..3 {
        assert_unknown(&post("k").send(gateway.address()));
    }
    assert_unknown(&post("k").send(gateway.address()));
    gateway.restart();
    assert_unknown(&post("k").send(gateway.address()));
    assert!(gateway.metric("hapax_probes_total", &["outcome=\"too_early\""]) > 0.0);
    assert_eq!(posts(&upstream).len(), 1);
}

#[test]
fn after_probe_after_a_404_lets_the_retry_that_asked_execute_as_the_next_attempt() {
    for status in [404, 410] {
        let upstream = Upstream::scripted(broken_first(move |_| answer(status, &[], b"")));
        let gateway = Gateway::start(&upstream.url(), &by_key("1s"));
        let began = Instant::now();
        assert_unknown(&known("k").send(gateway.address()));
        let executed = eventually("the quiet", || {
            let answer = known("k").send(gateway.address());
            (answer.idempotency() == "executed").then_some(answer)
        });
        assert!(
            began.elapsed() >= Duration::from_secs(1),
            "{:?}",
            began.elapsed()
        );
        assert_eq!(executed.status, 201);
        assert!(known("k").send(gateway.address()).is_replay());
        let posts = posts(&upstream);
        let attempts: Vec<_> = posts
            .iter()
            .map(|effect| effect.field("hapax-attempt"))
            .collect();
        assert_eq!(attempts, ["1", "2"]);
    }
}

#[test]
fn after_probe_after_a_404_frees_the_key_without_any_retry() {
    let upstream = Upstream::scripted(broken_first(|_| answer(404, &[], b"")));
    let gateway = Gateway::start(&upstream.url(), &by_key("1s"));
    assert_unknown(&post("k").send(gateway.address()));
    eventually("the release", || {
        (gateway.metric("hapax_probes_total", &["outcome=\"absent\""]) == 1.0).then_some(())
    });
    eventually("the figures", || {
        (gateway.metric("hapax_unknown", &[]) == 0.0).then_some(())
    });
    assert_eq!(post("k").send(gateway.address()).idempotency(), "executed");
    assert_eq!(posts(&upstream).len(), 2);
}

#[test]
fn a_first_request_that_is_still_waited_for_is_never_taken_for_absent() {
    let gate = Gate::new();
    let held = gate.clone();
    let upstream = Upstream::scripted(move |effect| match effect.method.as_str() {
        "POST" => Act::Hold(held.clone(), created(effect)),
        _ => Act::Answer(answer(404, &[], b"")),
    });
    let config = format!("[server]\nupstream_timeout = \"100ms\"\n{}", by_key("0s"));
    let gateway = Gateway::start(&upstream.url(), &config);
    for _ in 0..3 {
        assert_unknown(&post("k").send(gateway.address()));
    }
    assert!(questions(&upstream).len() >= 2);
    gate.open();
    let late = eventually("the late answer", || {
        let answer = post("k").send(gateway.address());
        answer.is_replay().then_some(answer)
    });
    assert_eq!(late.status, 201);
    assert_eq!(posts(&upstream).len(), 1);
}

#[test]
fn any_other_answer_leaves_the_outcome_unknown() {
    for status in [301, 403, 409, 500, 503] {
        let upstream = Upstream::scripted(broken_first(move |_| answer(status, &[], b"?")));
        let gateway = Gateway::start(&upstream.url(), &by_key("0s"));
        for _ in 0..3 {
            assert_unknown(&known("k").send(gateway.address()));
        }
        assert_eq!(posts(&upstream).len(), 1, "{status}");
        assert_eq!(
            gateway.metric("hapax_probes_total", &["outcome=\"undecided\""]),
            2.0
        );
    }
}

#[test]
fn the_application_can_say_that_its_answer_decides_nothing() {
    let undecided = |status| answer(status, &[("Hapax-Outcome", "unknown")], b"pending");
    for status in [200, 404] {
        let upstream = Upstream::scripted(broken_first(move |_| undecided(status)));
        let gateway = Gateway::start(&upstream.url(), &by_key("0s"));
        for _ in 0..2 {
            assert_unknown(&known("k").send(gateway.address()));
        }
        assert_eq!(posts(&upstream).len(), 1, "{status}");
    }
}

#[test]
fn retries_and_the_background_ask_one_question_at_a_time_and_agree() {
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let gate = Gate::new();
    let (held, asking, peak) = (gate.clone(), Arc::clone(&now), Arc::clone(&most));
    let upstream = Upstream::scripted(move |effect| match effect.method.as_str() {
        "POST" => Act::Reset(Vec::new()),
        _ => {
            peak.fetch_max(asking.fetch_add(1, Ordering::AcqRel) + 1, Ordering::AcqRel);
            held.pass();
            asking.fetch_sub(1, Ordering::AcqRel);
            Act::Answer(found())
        }
    });
    let gateway = Gateway::start(&upstream.url(), &by_key("0s"));
    assert_unknown(&post("k").send(gateway.address()));
    let to = gateway.address();
    let retries: Vec<_> = (0..8)
        .map(|_| thread::spawn(move || post("k").send(to)))
        .collect();
    upstream.wait_for_effects(2);
    gate.open();
    for retry in retries {
        assert_found(&retry.join().expect("no panic"));
    }
    assert_eq!(most.load(Ordering::Acquire), 1);
    assert_eq!(posts(&upstream).len(), 1);
}

#[test]
fn no_key_can_make_the_question_another_one() {
    let bystander = Upstream::new();
    for (template, key, target) in [
        (
            "GET /orders?request={key}",
            "a/../b?x=1&y",
            "/orders?request=a%2F..%2Fb%3Fx%3D1%26y",
        ),
        (
            "GET /orders/{key}",
            "a/../b?x=1&y",
            "/orders/a%2F..%2Fb%3Fx%3D1%26y",
        ),
        ("GET /{key}", "/evil.test/", "/%2Fevil.test%2F"),
        ("GET /{key}", &bystander.url(), ""),
        ("GET /orders/{key}", "%2e%2e%2f", "/orders/%252e%252e%252f"),
    ] {
        let upstream = Upstream::scripted(broken_first(|_| found()));
        let gateway = Gateway::start(&upstream.url(), &config(template, NEVER));
        let key = format!("\"{key}\"");
        assert_unknown(&known(&key).send(gateway.address()));
        assert_found(&known(&key).send(gateway.address()));
        let asked = questions(&upstream);
        assert!(
            target.is_empty() || asked[0].target == target,
            "{:?}",
            asked[0]
        );
        assert!(
            upstream.url().ends_with(asked[0].field("host")) || asked[0].field("host") == "a.test"
        );
    }
    // Servers resolve such a segment, encoded or not: it is not asked for.
    let upstream = Upstream::scripted(broken_first(|_| found()));
    let gateway = Gateway::start(&upstream.url(), &config("GET /orders/{key}", NEVER));
    for _ in 0..2 {
        assert_unknown(&known("..").send(gateway.address()));
    }
    assert!(questions(&upstream).is_empty());
    assert_eq!(bystander.count(), 0);
}

#[test]
fn a_question_can_name_a_parameter_of_the_path_or_the_derived_key() {
    let upstream = Upstream::scripted(move |effect| match effect.method.as_str() {
        "PUT" | "POST" => Act::Reset(Vec::new()),
        _ => Act::Answer(found()),
    });
    let routes = r#"
[[route]]
match = "PUT /order/{order_id}"
key_from = ["path:order_id"]
on_unknown = { probe = "GET /order/{order_id}/state" }

[[route]]
match = "POST /shared"
upstream_key = "derive"
on_unknown = { probe = "GET /shared/{key}" }
"#;
    let gateway = Gateway::start(&upstream.url(), routes);
    let put = crate::client::ask("PUT", "/order/a%20b")
        .body(b"{}")
        .field("Authorization", "x");
    let bad = put.send(gateway.address());
    assert_eq!(bad.problem(), "key-invalid", "a space is no key");
    let put = crate::client::ask("PUT", "/order/a%2Bb")
        .body(b"{}")
        .field("Authorization", "x");
    assert_unknown(&put.send(gateway.address()));
    assert_found(&put.send(gateway.address()));
    let asked = upstream.effects();
    assert_eq!(asked.last().expect("asked").target, "/order/a%2Bb/state");
    // Derived keys are nobody else's: hapax asks by itself.
    let shared = known("k").target("/shared");
    assert_unknown(&shared.send(gateway.address()));
    let asked = eventually("a question", || {
        upstream
            .effects()
            .into_iter()
            .find(|effect| effect.target.starts_with("/shared/"))
    });
    let sent = posts(&upstream);
    let derived = sent
        .last()
        .expect("sent")
        .key()
        .trim_matches('"')
        .to_owned();
    assert_eq!(asked.target, format!("/shared/{derived}"));
    eventually("the completion", || {
        shared.send(gateway.address()).is_replay().then_some(())
    });
}

#[test]
fn a_head_question_completes_the_record_without_a_content_to_replay() {
    let upstream = Upstream::scripted(broken_first(|_| answer(204, &[], b"")));
    let gateway = Gateway::start(&upstream.url(), &config("HEAD /orders/{key}", NEVER));
    assert_unknown(&known("k").send(gateway.address()));
    let retry = known("k").send(gateway.address());
    assert_eq!(
        (retry.status, retry.problem().as_str()),
        (409, "response-unavailable")
    );
    assert_eq!(posts(&upstream).len(), 1);
    assert_eq!(gateway.metric("hapax_unknown", &[]), 0.0);
}

#[test]
fn the_log_says_what_becomes_of_an_unknown_outcome() {
    let upstream = Upstream::scripted(broken_first(|_| found()));
    let asks = Gateway::start(&upstream.url(), &by_key(NEVER));
    assert_unknown(&known("k").send(asks.address()));
    asks.wait_for_log("that it asks", |log| {
        log.contains("the upstream is asked whether it happened")
    });
    let upstream = Upstream::scripted(broken_first(|_| found()));
    let refuses = Gateway::start(&upstream.url(), "");
    assert_unknown(&known("k").send(refuses.address()));
    refuses.wait_for_log("what to do", |log| {
        log.contains("ask the upstream whether it happened")
    });
}
