//! Which requests are keyed, where the key comes from, and what passes through untouched.

use crate::client::{Connection, ask, post};
use crate::gateway::Gateway;
use crate::upstream::{Act, Upstream, answer, created};

#[test]
fn a_safe_method_passes_through_with_and_without_a_key() {
    let upstream = Upstream::new();
    let gateway = Gateway::start(&upstream.url(), "");
    for number in 1..=2 {
        for method in ["GET", "HEAD", "OPTIONS", "TRACE"] {
            let request = ask(method, "/orders?page=1").field("X-Mine", "1");
            for request in [
                request.clone(),
                request.key("k"),
                ask(method, "/").key(", ;"),
            ] {
                let mut connection = Connection::open(gateway.address());
                let bytes = request.bytes();
                let text = String::from_utf8_lossy(&bytes).replace("Content-Length: 0\r\n", "");
                connection.send(text.as_bytes()).expect("it listens");
                let answer = connection.read_answer_to(method).expect("an answer");
                assert_eq!(answer.status, 201, "{method} {number}");
                assert_eq!(answer.idempotency(), "", "{method}");
                assert_eq!(answer.field("idempotency-key"), None);
                assert!(!answer.is_replay());
            }
        }
    }
    let effects = upstream.effects();
    assert_eq!(effects.len(), 24);
    let seen = &effects[1];
    assert_eq!(
        (seen.method.as_str(), seen.target.as_str()),
        ("GET", "/orders?page=1")
    );
    assert_eq!((seen.key(), seen.field("x-mine")), ("k", "1"));
    assert_eq!(seen.field("hapax-attempt"), "");
}

#[test]
fn an_unkeyed_post_passes_through_every_time() {
    let upstream = Upstream::scripted(|effect| {
        let fields = [("Set-Cookie", "a=b"), ("Hapax-Outcome", "reject")];
        Act::Answer(answer(201, &fields, effect.body.as_slice()))
    });
    let gateway = Gateway::start(&upstream.url(), "");
    for _ in 0..2 {
        let answer = ask("POST", "/orders").body(b"raw").send(gateway.address());
        assert_eq!((answer.status, answer.idempotency()), (201, ""));
        assert_eq!(answer.field("set-cookie"), Some("a=b"));
        assert_eq!(answer.body, b"raw");
    }
    assert_eq!(upstream.count(), 2);
    assert_eq!(gateway.counted("unkeyed"), 2.0);
}

#[test]
fn an_unkeyed_upload_of_any_size_streams_through() {
    let upstream = Upstream::new();
    let gateway = Gateway::start(&upstream.url(), "");
    let large: Vec<u8> = (0..4 << 20).map(|n: u32| (n % 253) as u8).collect();
    let answer = ask("POST", "/upload").body(&large).send(gateway.address());
    assert_eq!(answer.status, 201);
    assert_eq!(upstream.effects()[0].body, large);
}

#[test]
fn a_put_or_delete_with_a_key_passes_through_unless_a_route_says_so() {
    let upstream = Upstream::new();
    let gateway = Gateway::start(&upstream.url(), "");
    for method in ["PUT", "DELETE"] {
        for _ in 0..2 {
            let answer = ask(method, "/orders/1").key("k").send(gateway.address());
            assert_eq!((answer.status, answer.idempotency()), (201, ""));
        }
    }
    assert_eq!(upstream.count(), 4);
}

#[test]
fn a_key_from_the_path_makes_a_put_one_operation() {
    let upstream =
        Upstream::scripted(|effect| Act::Answer(answer(200, &[], effect.target.as_bytes())));
    let config = "[[route]]\nmatch = \"PUT /order/{order_id}\"\nkey_from = [\"path:order_id\"]\n";
    let gateway = Gateway::start(&upstream.url(), config);
    let put = |id: &str, body: &[u8]| {
        let request = ask("PUT", &format!("/order/{id}")).body(body);
        request.send(gateway.address())
    };
    assert_eq!(put("17", b"{}").idempotency(), "executed");
    let replay = put("17", b"{}");
    assert!(replay.is_replay());
    assert_eq!(replay.text(), "/order/17");
    assert_eq!(put("18", b"{}").idempotency(), "executed");
    assert_eq!(put("17", b"other").problem(), "key-reused");
    assert_eq!(upstream.count(), 2);
    // Another method on the path is not of this route.
    let got = ask("GET", "/order/17").send(gateway.address());
    assert_eq!((got.status, got.idempotency()), (200, ""));
}

#[test]
fn a_key_from_a_json_member_or_the_query_is_a_key() {
    let upstream = Upstream::new();
    let config = "[[route]]\nmatch = \"POST /json\"\nkey_from = [\"json:/request/id\"]\n\
                  [[route]]\nmatch = \"POST /query\"\nkey_from = [\"query:request_id\"]\n";
    let gateway = Gateway::start(&upstream.url(), config);
    let json = ask("POST", "/json").field("Content-Type", "application/json");
    let json = json.body(b"{\"request\":{\"id\":\"r-1\"},\"amount\":1}");
    assert_eq!(json.send(gateway.address()).idempotency(), "executed");
    assert!(json.send(gateway.address()).is_replay());
    let query = ask("POST", "/query?request_id=r-2&x=1").body(b"{}");
    assert_eq!(query.send(gateway.address()).idempotency(), "executed");
    assert!(query.send(gateway.address()).is_replay());
    assert_eq!(upstream.count(), 2);
}

#[test]
fn json_content_is_compared_by_meaning_where_a_route_says_so() {
    let upstream = Upstream::new();
    let config =
        "[[route]]\nmatch = \"POST /orders\"\nfingerprint = \"json\"\nignore = [\"/at\"]\n";
    let gateway = Gateway::start(&upstream.url(), config);
    let send = |body: &str| {
        let request = post("k").field("Content-Type", "application/json");
        request.body(body.as_bytes()).send(gateway.address())
    };
    assert_eq!(
        send("{\"a\":1,\"b\":[2],\"at\":1}").idempotency(),
        "executed"
    );
    assert!(send("{ \"b\": [2],\n\"at\": 2, \"a\": 1 }").is_replay());
    let mismatch = send("{\"a\":1.0,\"b\":[2]}");
    assert_eq!(mismatch.problem(), "key-reused");
    assert_eq!(upstream.count(), 1);
}

#[test]
fn the_upstream_is_told_the_attempt_and_the_key_and_no_client_can_forge_it() {
    let upstream = Upstream::scripted(|effect| Act::Answer(created(effect)));
    let gateway = Gateway::start(&upstream.url(), "");
    let forged = post("k")
        .field("Hapax-Attempt", "7")
        .field("Hapax-Outcome", "release");
    assert_eq!(forged.send(gateway.address()).status, 201);
    let unkeyed = ask("POST", "/orders").field("Hapax-Attempt", "7");
    assert_eq!(unkeyed.send(gateway.address()).status, 201);
    let effects = upstream.effects();
    assert_eq!(
        (effects[0].key(), effects[0].field("hapax-attempt")),
        ("k", "1")
    );
    assert_eq!(effects[0].field("hapax-outcome"), "");
    assert_eq!(effects[0].body, b"{\"amount\":1}");
    assert_eq!(
        effects[1].field("hapax-attempt"),
        "",
        "only hapax says this"
    );
}
