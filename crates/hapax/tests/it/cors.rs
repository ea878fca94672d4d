//! What pages of other origins may read. A browser's own view of it is in `web/tests`.

use crate::client::{Answer, Ask, Connection, ask, post};
use crate::gateway::Gateway;
use crate::support::{Gate, eventually};
use crate::upstream::{Act, Upstream, answer, created};

const SHOP: &str = "https://shop.example";
const CONFIG: &str = r#"
[cors]
allow_origins = ["https://shop.example", "http://localhost:3000"]
allow_credentials = true

[defaults]
max_body = "1KiB"

[[route]]
match = "POST /payments"
key = "required"

[[route]]
match = "POST /aliased"
key_from = ["header:x-request-key"]
"#;

fn allowed(answer: &Answer) -> Option<&str> {
    answer.field("access-control-allow-origin")
}

fn is_cors(name: &str) -> bool {
    name.to_ascii_lowercase().starts_with("access-control-")
}

/// Checks who may read the problem that answers `request`.
fn check_readers(gateway: &Gateway, request: &Ask, status: u16, kind: &str) {
    let from = |origin: &str| {
        let answer = request
            .clone()
            .field("Origin", origin)
            .send(gateway.address());
        assert_eq!((answer.status, answer.problem().as_str()), (status, kind));
        assert_eq!(answer.all("vary"), ["Origin"], "{answer:?}");
        answer
    };
    for origin in [SHOP, "http://localhost:3000"] {
        let readable = from(origin);
        assert_eq!(allowed(&readable), Some(origin), "{readable:?}");
        assert_eq!(
            readable.field("access-control-allow-credentials"),
            Some("true")
        );
        let exposed = readable
            .field("access-control-expose-headers")
            .expect("exposed");
        for name in [
            "Retry-After",
            "Idempotency-Status",
            "Idempotency-Key",
            "Link",
        ] {
            assert!(exposed.contains(name), "{name}: {exposed}");
        }
    }
    for origin in [
        "https://evil.example",
        "https://shop.example.evil.example",
        "https://shop.example:8443",
        "http://shop.example",
        "https://SHOP.example",
        "https://shop.example/",
        "https://shop.example https://evil.example",
        "null",
        "*",
        "",
    ] {
        let refused = from(origin);
        assert!(
            !refused.fields.iter().any(|(name, _)| is_cors(name)),
            "{origin}: {refused:?}"
        );
    }
    let twice = request.clone().field("Origin", SHOP).field("Origin", SHOP);
    assert_eq!(allowed(&twice.send(gateway.address())), None);
    assert_eq!(allowed(&request.send(gateway.address())), None);
}

#[test]
fn every_problem_can_be_read_by_the_configured_origins_and_by_no_other() {
    let gate = Gate::new();
    let held = gate.clone();
    let upstream = Upstream::scripted(move |effect| match effect.key() {
        "held" => Act::Hold(held.clone(), created(effect)),
        "cut" => Act::Close(Vec::new()),
        _ if effect.target == "/cut" => Act::Close(Vec::new()),
        _ => Act::Answer(created(effect)),
    });
    let gateway = Gateway::start(&upstream.url(), CONFIG);
    let missing = ask("POST", "/payments").body(b"{}");
    check_readers(&gateway, &missing, 400, "key-missing");
    check_readers(&gateway, &post("a b"), 400, "key-invalid");
    let large = post("large").body(&[b'x'; 1025]);
    check_readers(&gateway, &large, 413, "body-too-large");
    assert_eq!(post("used").send(gateway.address()).status, 201);
    let reused = post("used").body(b"another");
    check_readers(&gateway, &reused, 422, "key-reused");
    check_readers(&gateway, &post("cut"), 504, "outcome-unknown");
    check_readers(&gateway, &ask("POST", "/cut"), 502, "upstream-failed");
    // Before the layer: the host is missing from this target.
    let foreign = ask("POST", "/x").field("Connection", "authorization");
    check_readers(&gateway, &foreign, 400, "request-malformed");
    let mut first = Connection::open(gateway.address());
    first.send(&post("held").bytes()).expect("it listens");
    eventually("the first", || {
        (upstream.count_of("held") == 1).then_some(())
    });
    check_readers(&gateway, &post("held"), 409, "in-progress");
    gate.open();
    assert_eq!(first.read().expect("an answer").status, 201);
}

#[test]
fn answers_of_the_upstream_and_their_replays_say_what_the_upstream_said() {
    let upstream = Upstream::scripted(|effect| match effect.target.as_str() {
        // A problem of its own is the upstream's answer like any other.
        "/problem" => Act::Answer(answer(
            409,
            &[("Content-Type", "application/problem+json")],
            b"{}",
        )),
        "/large" => Act::Answer(answer(
            201,
            &[
                ("Location", "/orders/1"),
                ("Access-Control-Allow-Origin", SHOP),
                ("Vary", "Origin"),
            ],
            &vec![b'x'; 2 << 20],
        )),
        "/own" => Act::Answer(answer(
            200,
            &[("Access-Control-Allow-Origin", "https://own.example")],
            b"ok",
        )),
        _ => Act::Answer(created(effect)),
    });
    let gateway = Gateway::start(&upstream.url(), CONFIG);
    let from = |origin: &str, key: &str, target: &str| {
        let request = post(key).target(target).field("Origin", origin);
        request.send(gateway.address())
    };
    for target in ["/problem", "/plain"] {
        for _ in 0..2 {
            let silent = from(SHOP, target.trim_start_matches('/'), target);
            assert!(
                !silent.fields.iter().any(|(name, _)| is_cors(name)),
                "{silent:?}"
            );
            assert_eq!(silent.field("vary"), None);
        }
    }
    assert_eq!(
        allowed(&from(SHOP, "own", "/own")),
        Some("https://own.example")
    );
    // A configured origin does not get what the upstream allowed another one.
    let replay = from(SHOP, "own", "/own");
    assert!(replay.is_replay());
    assert_eq!(allowed(&replay), None);
    let replay = from("https://own.example", "own", "/own");
    assert_eq!(allowed(&replay), Some("https://own.example"));
    assert_eq!(from(SHOP, "large", "/large").status, 201);
    let pointer = from(SHOP, "large", "/large");
    assert_eq!((pointer.status, allowed(&pointer)), (303, Some(SHOP)));
    let exposed = pointer.all("access-control-expose-headers").join(", ");
    assert!(exposed.contains("Idempotent-Replayed"), "{exposed}");
    assert_eq!(allowed(&from("https://b.example", "large", "/large")), None);
}

#[test]
fn preflights_are_the_upstreams_and_the_keys_own_field_is_allowed_with_the_origin() {
    let upstream = Upstream::scripted(|effect| match effect.field("origin") {
        SHOP => Act::Answer(answer(
            204,
            &[
                ("Access-Control-Allow-Origin", SHOP),
                ("Access-Control-Allow-Headers", "content-type"),
            ],
            b"",
        )),
        _ => Act::Answer(answer(403, &[], b"no")),
    });
    let gateway = Gateway::start(&upstream.url(), CONFIG);
    let preflight = |origin: &str, target: &str, fields: &str| {
        ask("OPTIONS", target)
            .field("Origin", origin)
            .field("Access-Control-Request-Method", "POST")
            .field("Access-Control-Request-Headers", fields)
            .send(gateway.address())
    };
    let names = |answer: &Answer| answer.all("access-control-allow-headers").join(", ");
    let plain = preflight(SHOP, "/orders", "content-type, idempotency-key");
    assert_eq!(names(&plain), "content-type, idempotency-key");
    let aliased = preflight(SHOP, "/aliased", "x-request-key,idempotency-key");
    assert_eq!(names(&aliased), "content-type, x-request-key");
    assert_eq!(
        names(&preflight(SHOP, "/orders", "x-other")),
        "content-type"
    );
    // The gateway's own list allows no request.
    let refused = preflight("http://localhost:3000", "/orders", "idempotency-key");
    assert_eq!((refused.status, allowed(&refused)), (403, None));
    assert_eq!(names(&refused), "");
    assert_eq!(upstream.count(), 4);
}

#[test]
fn without_a_setting_problems_say_nothing_about_origins_and_a_star_is_for_everybody() {
    let upstream = Upstream::new();
    let gateway = Gateway::start(&upstream.url(), "");
    let request = post("a b").field("Origin", SHOP);
    let silent = request.send(gateway.address());
    assert_eq!(silent.problem(), "key-invalid");
    assert!(
        !silent.fields.iter().any(|(name, _)| is_cors(name)),
        "{silent:?}"
    );
    assert_eq!(silent.field("vary"), None);
    let gateway = Gateway::start(&upstream.url(), "[cors]\nallow_origins = [\"*\"]\n");
    let answer = request.send(gateway.address());
    assert_eq!(allowed(&answer), Some("*"));
    assert_eq!(answer.field("access-control-allow-credentials"), None);
    assert_eq!(answer.field("vary"), None);
    for config in [
        "[cors]\nallow_origins = [\"*\"]\nallow_credentials = true\n",
        "[cors]\nallow_origins = [\"*\", \"https://a.example\"]\n",
        "[cors]\nallow_origins = [\"null\"]\n",
        "[cors]\nallow_origins = [\"https://*.example\"]\n",
        "[cors]\nallow_origins = [\"https://a.example/\"]\n",
        "[cors]\nallow_origins = [\"https://A.example\"]\n",
        "[cors]\nallow_origins = [\"https://a.example:443\"]\n",
        "[cors]\nallow_origins = [\"https://user@a.example\"]\n",
        "[cors]\nallow_origins = [\"a.example\"]\n",
    ] {
        let refused = Gateway::try_start(&upstream.url(), config)
            .err()
            .expect(config);
        assert_eq!(refused.status.code(), Some(3), "{config}: {refused:?}");
    }
}
