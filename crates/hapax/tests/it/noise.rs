//! Calls of the admin API that nobody would write: mutations of sound ones, over and over.

use crate::client::{Connection, post};
use crate::gateway::Gateway;
use crate::support::{Random, campaign};
use crate::upstream::{Act, Upstream, answer};

/// In an ordinary test run.
const CALLS: usize = 3_000;

/// Method, target and content of sound calls; `ID` stands for a record.
const SOUND: [(&str, &str, &str); 16] = [
    ("GET", "/api/v1/status", ""),
    ("GET", "/api/v1/routes", ""),
    (
        "GET",
        "/api/v1/records?state=unknown&since=15m&limit=10",
        "",
    ),
    (
        "GET",
        "/api/v1/records?route=POST%20/orders&since=2026-01-31T12:00:00Z",
        "",
    ),
    (
        "GET",
        "/api/v1/records?after=0123456789abcdef0123456789abcdef",
        "",
    ),
    ("GET", "/api/v1/records/ID", ""),
    ("GET", "/api/v1/records/ID?content=true", ""),
    ("GET", "/api/v1/stats?range=1h", ""),
    ("GET", "/api/v1/audit?limit=5", ""),
    (
        "POST",
        "/api/v1/records:lookup",
        r#"{"key":"a","scope":[{"part":"header:authorization","value":null}]}"#,
    ),
    (
        "POST",
        "/api/v1/records/ID:resolve",
        r#"{"as":"completed","reason":"seen","dry_run":true,"response":{"status":201,"headers":[["a","b"]],"body":"{}"}}"#,
    ),
    (
        "POST",
        "/api/v1/records/ID:release",
        r#"{"reason":"seen","dry_run":true}"#,
    ),
    (
        "POST",
        "/api/v1/records/ID:expire",
        r#"{"reason":"seen","dry_run":true}"#,
    ),
    (
        "POST",
        "/api/v1/records:resolve",
        r#"{"as":"not-executed","reason":"seen","dry_run":true,"limit":10,"filter":{"state":"unknown","since":"1h"}}"#,
    ),
    (
        "POST",
        "/api/v1/records:resolve",
        r#"{"as":"not_executed","reason":"seen","ids":["ID","ID"],"dry_run":true}"#,
    ),
    ("POST", "/api/v1/config:reload", r#"{"reason":"seen"}"#),
];

const WORDS: [&str; 24] = [
    "ID",
    "18446744073709551616",
    "-1",
    "0",
    "501",
    "9999999999999y",
    "9999-12-31T23:59:60Z",
    "%00",
    "%ff",
    "%",
    "&",
    "=",
    "null",
    "[]",
    "{}",
    "\"",
    "\\ud800",
    "1e999",
    ":",
    ",",
    "/",
    "\u{e9}",
    "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
    "completed",
];

/// A text with some of it replaced.
fn mutated(text: &str, random: &mut Random) -> String {
    let mut chars: Vec<char> = text.chars().collect();
    for _ in 0..random.below(5) {
        let at = random.below(chars.len() as u64 + 1) as usize;
        let end = (at + random.below(6) as usize).min(chars.len());
        let word = WORDS[random.below(WORDS.len() as u64) as usize];
        match random.below(3) {
            0 => drop(chars.splice(at..end, word.chars())),
            1 => drop(chars.splice(at..at, word.chars())),
            _ => drop(chars.drain(at..end)),
        }
    }
    chars.into_iter().collect()
}

/// A target as it may stand in a request line.
fn escaped(target: &str) -> String {
    let escape = |byte: u8| match byte {
        0x21..=0x7e if byte != b'#' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    format!(
        "/{}",
        target
            .bytes()
            .map(escape)
            .collect::<String>()
            .trim_start_matches('/')
    )
}

#[test]
fn no_call_that_an_operator_can_write_is_answered_as_our_own_fault() {
    let upstream = Upstream::scripted(|effect| match effect.key() {
        "unknown" => Act::Answer(answer(500, &[], b"{}")),
        _ => Act::Answer(answer(201, &[("Location", "/orders/1")], b"{}")),
    });
    let gateway = Gateway::start(&upstream.url(), "");
    for key in ["a", "unknown"] {
        post(key).send(gateway.address());
    }
    let all = gateway.admin_get("/api/v1/records").json();
    let records = all["records"].as_array().expect("records");
    assert_eq!(records.len(), 2);
    let id = records[0]["id"].as_str().expect("an id");
    let seed = std::env::var("HAPAX_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or(1);
    let mut random = Random(seed);
    let mut connection = Connection::open(gateway.admin());
    let (mut understood, mut refused) = (0, 0);
    for number in 0..CALLS * campaign() {
        let (method, target, content) = SOUND[random.below(SOUND.len() as u64) as usize];
        let target = escaped(&mutated(target, &mut random).replace("ID", id));
        let content = mutated(content, &mut random).replace("ID", id);
        let version = if random.below(2) == 0 {
            "If-Match: \"0000000000000000\"\r\n"
        } else {
            ""
        };
        let request = format!(
            "{method} {target} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\n{version}Content-Length: {}\r\n\r\n{content}",
            gateway.admin(),
            content.len(),
        );
        let told = format!("HAPAX_SEED={seed}, call {number}: {request:?}");
        // Where the listener has closed, the call goes over another connection.
        let answered = connection
            .send(request.as_bytes())
            .and_then(|()| connection.read());
        let answer = answered.unwrap_or_else(|_| {
            connection = Connection::open(gateway.admin());
            connection.send(request.as_bytes()).expect("it listens");
            connection
                .read()
                .unwrap_or_else(|error| panic!("{error}: {told}"))
        });
        assert!(answer.status < 500, "{told}: {answer:?}");
        match answer.status {
            200..300 => understood += 1,
            _ => refused += 1,
        }
        if answer.field("connection") == Some("close") {
            connection = Connection::open(gateway.admin());
        }
    }
    assert!(
        understood > 100 && refused > 100,
        "{understood} understood, {refused} refused"
    );
    assert!(!gateway.log().contains("panicked"), "{}", gateway.log());
}
