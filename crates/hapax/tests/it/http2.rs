//! HTTP/2 used against the gateway, frame by frame (RFC 9113): floods, stalls and malformed requests. Whatever comes, it goes
//! on answering others, its memory stays bounded, what is malformed reaches nobody, and nothing is executed twice.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::client::post;
use crate::gateway::Gateway;
use crate::support::{PATIENCE, eventually};
use crate::upstream::{Act, Upstream, answer};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// What a flood may cost in memory: a connection's buffers many times over, and far less than the flood.
const FLOOD_MIB: u64 = 48;
/// After this a flood that nobody reads has been held up by the gateway, as it should be.
const HELD_UP: Duration = Duration::from_secs(2);

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = length[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A number of RFC 7541 5.1 in a prefix of 7 bits.
fn length(value: usize) -> Vec<u8> {
    if value < 127 {
        return vec![value as u8];
    }
    let (mut bytes, mut rest) = (vec![127], value - 127);
    while rest >= 128 {
        bytes.push((rest % 128) as u8 | 128);
        rest /= 128;
    }
    bytes.push(rest as u8);
    bytes
}

/// A literal field, not indexed, without Huffman coding (RFC 7541 6.2.2).
fn literal(first: u8, name: &str, value: &str) -> Vec<u8> {
    let mut bytes = vec![first];
    for text in [name, value] {
        bytes.extend(length(text.len()));
        bytes.extend(text.as_bytes());
    }
    bytes
}

fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let lines = fields.iter();
    lines
        .flat_map(|(name, value)| literal(0, name, value))
        .collect()
}

/// The fields of a sound keyed request.
fn sound(key: &str) -> Vec<(&str, &str)> {
    vec![
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/orders"),
        (":authority", "a.test"),
        ("idempotency-key", key),
    ]
}

/// A sound request with a field in another's place.
fn with<'a>(key: &'a str, change: impl FnOnce(&mut Vec<(&'a str, &'a str)>)) -> Vec<u8> {
    let mut fields = sound(key);
    change(&mut fields);
    frame(HEADERS, END_STREAM | END_HEADERS, 1, &block(&fields))
}

/// How a stream or its connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Answer(u16),
    Reset(u32),
    GoAway(u32),
    Closed,
    /// Nothing came for as long as anybody waits.
    Silence,
}

struct Speaker {
    stream: TcpStream,
}

impl Speaker {
    fn open(to: SocketAddr) -> Self {
        let stream = TcpStream::connect(to).expect("it listens");
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(HELD_UP)).unwrap();
        let mut speaker = Self { stream };
        speaker.send(PREFACE).expect("it listens");
        speaker.send(&frame(SETTINGS, 0, 0, &[])).unwrap();
        speaker
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Sends until all is sent, or the gateway takes no more; how much it took.
    fn flood(&mut self, bytes: &[u8], times: usize) -> usize {
        let many: Vec<u8> = bytes.repeat(64);
        (0..times / 64)
            .take_while(|_| self.send(&many).is_ok())
            .count()
            * 64
    }

    fn next_frame(&mut self) -> io::Result<(u8, u32, Vec<u8>)> {
        let mut head = [0; 9];
        self.stream.read_exact(&mut head)?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let mut payload = vec![0; length as usize];
        self.stream.read_exact(&mut payload)?;
        Ok((head[3], stream, payload))
    }

    /// Reads on until the stream has an end.
    fn end_of(&mut self, stream: u32) -> End {
        loop {
            match self.next_frame() {
                Ok((HEADERS, of, block)) if of == stream => return End::Answer(status(&block)),
                Ok((RST_STREAM, of, payload)) if of == stream => {
                    return End::Reset(number(&payload[..4]));
                }
                Ok((GOAWAY, _, payload)) => return End::GoAway(number(&payload[4..8])),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return End::Silence,
                Err(_) => return End::Closed,
            }
        }
    }
}

fn number(bytes: &[u8]) -> u32 {
    u32::from_be_bytes(bytes.try_into().unwrap())
}

/// The status at the beginning of an answer's block: one of the static table, or three digits.
fn status(block: &[u8]) -> u16 {
    // A change of the table's size may come first (RFC 7541 6.3).
    let block = &block[block.iter().take_while(|byte| **byte >> 5 == 1).count()..];
    match block[0] {
        indexed @ 0x88..=0x8e => [200, 204, 206, 304, 400, 404, 500][usize::from(indexed - 0x88)],
        // The name is of the static table, the value is written out.
        _ => digits(&block[1..]),
    }
}

/// Three digits, Huffman-coded or not (RFC 7541 5.2 and appendix B).
fn digits(text: &[u8]) -> u16 {
    let length = usize::from(text[0] & 0x7f);
    let bytes = &text[1..=length];
    if text[0] & 0x80 == 0 {
        return std::str::from_utf8(bytes).unwrap().parse().unwrap();
    }
    let bits: Vec<u16> = bytes
        .iter()
        .flat_map(|byte| (0..8).rev().map(move |at| u16::from(byte >> at & 1)))
        .collect();
    let (mut at, mut value) = (0, 0);
    for _ in 0..3 {
        let take = |count: usize| {
            bits[at..at + count]
                .iter()
                .fold(0, |sum, bit| sum * 2 + bit)
        };
        let (digit, count) = match take(5) {
            small @ 0..=2 => (small, 5),
            _ => (take(6) - 0x19 + 3, 6),
        };
        value = value * 10 + digit;
        at += count;
    }
    value
}

fn start() -> (Upstream, Gateway) {
    let upstream = Upstream::new();
    let gateway = Gateway::start(&upstream.url(), "");
    (upstream, gateway)
}

/// Others are answered as if nothing had been, and the key is as it should be.
fn goes_on(gateway: &Gateway, key: &str, said: &str) {
    let answer = post(key).body(b"").send(gateway.address());
    assert_eq!((answer.status, answer.idempotency()), (201, said), "{key}");
    let mut other = Speaker::open(gateway.address());
    other.send(&with("another", |_| ())).unwrap();
    assert_eq!(other.end_of(1), End::Answer(201));
}

#[test]
fn a_sound_request_is_answered_and_its_repeat_over_http1_is_a_replay() {
    let (upstream, gateway) = start();
    let mut speaker = Speaker::open(gateway.address());
    speaker.send(&with("sound", |_| ())).unwrap();
    assert_eq!(speaker.end_of(1), End::Answer(201));
    goes_on(&gateway, "sound", "replayed");
    assert_eq!(upstream.count_of("sound"), 1);
}

/// Something malformed, with its clause of RFC 9113.
type Malformed = (&'static str, &'static str, Vec<u8>);

/// Fields that no request may have, with their clauses.
const ADDED: [(&str, &str, (&str, &str)); 15] = [
    ("h2-connection", "8.2.2", ("connection", "keep-alive")),
    (
        "h2-transfer-encoding",
        "8.2.2",
        ("transfer-encoding", "chunked"),
    ),
    ("h2-keep-alive", "8.2.2", ("keep-alive", "timeout=5")),
    (
        "h2-proxy-connection",
        "8.2.2",
        ("proxy-connection", "close"),
    ),
    ("h2-upgrade", "8.2.2", ("upgrade", "websocket")),
    ("h2-te-gzip", "8.2.2", ("te", "gzip")),
    ("h2-upper-case", "8.2.1", ("X-Upper", "a")),
    ("h2-empty-name", "8.2.1", ("", "a")),
    ("h2-space-in-name", "8.2.1", ("x a", "a")),
    ("h2-colon-in-name", "8.2.1", ("x:a", "a")),
    ("h2-nul-in-value", "8.2.1", ("x-a", "a\0b")),
    ("h2-crlf-in-value", "8.2.1", ("x-a", "a\r\nx-b: c")),
    ("h2-two-paths", "8.3", (":path", "/other")),
    ("h2-unknown-pseudo", "8.3", (":protocol-of-mine", "x")),
    (
        "h2-length-without-content",
        "8.1.1",
        ("content-length", "5"),
    ),
];

fn malformed_fields() -> Vec<Malformed> {
    let swap = |name: &'static str, value: &'static str| {
        with("bad", move |fields| {
            let field = fields.iter_mut().find(|field| field.0 == name).unwrap();
            field.1 = value;
        })
    };
    let without = |name: &'static str| with("bad", move |fields| fields.retain(|f| f.0 != name));
    let pseudo_last = with("bad", |fields| fields.swap(0, 4));
    let status = with("bad", |fields| fields.insert(0, (":status", "200")));
    let two_lengths = [("content-length", "0"), ("content-length", "5")];
    let two_lengths = with("bad", |fields| fields.extend(two_lengths));
    let added = ADDED.iter();
    added
        .map(|(id, clause, field)| (*id, *clause, with("bad", |fields| fields.push(*field))))
        .chain([
            ("h2-no-method", "8.3.1", without(":method")),
            ("h2-no-path", "8.3.1", without(":path")),
            ("h2-no-scheme", "8.3.1", without(":scheme")),
            ("h2-empty-path", "8.3.1", swap(":path", "")),
            ("h2-connect", "8.5", swap(":method", "CONNECT")),
            ("h2-pseudo-after-field", "8.3", pseudo_last),
            ("h2-status-in-request", "8.3", status),
            ("h2-two-lengths", "8.1.1", two_lengths),
        ])
        .collect()
}

/// A frame: kind, flags, stream, payload.
type Parts = (u8, u8, u32, &'static [u8]);

/// Frames that are wrong whatever their fields say.
const FRAMES: [(&str, &str, Parts); 14] = [
    (
        "h2-bad-index",
        "RFC 7541 2.3.3",
        (HEADERS, 5, 1, &[0xff, 0xff, 0x0f]),
    ),
    ("h2-padding-too-long", "6.2", (HEADERS, 13, 1, &[200, 0, 0])),
    (
        "h2-depends-on-itself",
        "5.3.1",
        (PRIORITY, 0, 1, &[0, 0, 0, 1, 0]),
    ),
    ("h2-data-on-idle", "5.1", (DATA, END_STREAM, 1, b"{}")),
    (
        "h2-push-promise",
        "8.4",
        (PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2]),
    ),
    ("h2-window-by-0", "6.9", (WINDOW_UPDATE, 0, 0, &[0; 4])),
    (
        "h2-window-overflow",
        "6.9.1",
        (WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff]),
    ),
    ("h2-settings-length", "6.5", (SETTINGS, 0, 0, &[0; 5])),
    ("h2-settings-on-stream", "6.5", (SETTINGS, 0, 1, &[])),
    (
        "h2-window-setting-too-large",
        "6.5.2",
        (SETTINGS, 0, 0, &[0, 4, 255, 255, 255, 255]),
    ),
    ("h2-ping-length", "6.7", (PING, 0, 0, &[0; 7])),
    ("h2-reset-idle", "6.4", (RST_STREAM, 0, 1, &[0, 0, 0, 8])),
    ("h2-frame-too-large", "4.2", (DATA, 0, 1, &[0; 16_385])),
    ("h2-empty-headers-on-0", "6.2", (HEADERS, 5, 0, &[])),
];

fn malformed_frames() -> Vec<Malformed> {
    let whole = END_STREAM | END_HEADERS;
    let fields = || block(&sound("bad"));
    let mut interrupted = frame(HEADERS, END_STREAM, 1, &fields());
    interrupted.extend(frame(PING, 0, 0, &[0; 8]));
    let frames = FRAMES.iter();
    frames
        .map(|(id, clause, (kind, flags, stream, payload))| {
            (*id, *clause, frame(*kind, *flags, *stream, payload))
        })
        .chain([
            ("h2-stream-0", "6.2", frame(HEADERS, whole, 0, &fields())),
            (
                "h2-even-stream",
                "5.1.1",
                frame(HEADERS, whole, 2, &fields()),
            ),
            (
                "h2-lone-continuation",
                "6.10",
                frame(CONTINUATION, END_HEADERS, 1, &fields()),
            ),
            ("h2-interrupted-block", "6.10", interrupted),
        ])
        .collect()
}

#[test]
fn what_is_malformed_in_http2_reaches_nobody_and_uses_no_key() {
    let (upstream, gateway) = start();
    for (id, clause, bytes) in malformed_fields().into_iter().chain(malformed_frames()) {
        let mut speaker = Speaker::open(gateway.address());
        speaker.send(&bytes).expect("it listens");
        // What follows on the connection must not make the malformed part of a request.
        let end = speaker.end_of(1);
        let is_refused = match end {
            End::Answer(status) => (400..500).contains(&status),
            End::Reset(_) | End::GoAway(_) | End::Closed => true,
            End::Silence => false,
        };
        assert!(is_refused, "{id} ({clause}): {end:?}");
        assert_eq!(upstream.count_of("bad"), 0, "{id} ({clause})");
    }
    assert_eq!(upstream.count(), 0);
    goes_on(&gateway, "bad", "executed");
}

#[test]
fn a_request_over_http2_that_names_two_hosts_is_refused() {
    // RFC 9113 8.3.1: whoever routes by :authority must not be told another host by Host.
    let (upstream, gateway) = start();
    for hosts in [
        &["b.test"][..],
        &["a.test", "b.test"],
        &["a.test", "a.test"],
    ] {
        let mut speaker = Speaker::open(gateway.address());
        let request = with("hosts", |fields| {
            fields.extend(hosts.iter().map(|host| ("host", *host)));
        });
        speaker.send(&request).unwrap();
        let end = speaker.end_of(1);
        assert!(
            matches!(end, End::Answer(400) | End::Reset(_)),
            "{hosts:?}: {end:?}"
        );
    }
    assert_eq!(upstream.count(), 0);
    let mut speaker = Speaker::open(gateway.address());
    let request = with("hosts", |fields| fields.push(("host", "A.test")));
    speaker.send(&request).unwrap();
    assert_eq!(speaker.end_of(1), End::Answer(201));
    let effects = upstream.effects();
    let fields = effects[0].fields.iter();
    let hosts = fields.filter(|(name, _)| name.eq_ignore_ascii_case("host"));
    assert_eq!(hosts.count(), 1);
}

#[test]
fn content_that_is_not_as_long_as_it_says_uses_no_key() {
    // RFC 9113 8.1.1.
    let (upstream, gateway) = start();
    for (said, sent) in [("5", &b"{}"[..]), ("1", &b"{}"[..])] {
        let mut fields = sound("short");
        fields.push(("content-length", said));
        let mut speaker = Speaker::open(gateway.address());
        let mut bytes = frame(HEADERS, END_HEADERS, 1, &block(&fields));
        bytes.extend(frame(DATA, END_STREAM, 1, sent));
        speaker.send(&bytes).unwrap();
        let end = speaker.end_of(1);
        assert!(
            !matches!(end, End::Answer(200..300) | End::Silence),
            "{said}: {end:?}"
        );
    }
    assert_eq!(upstream.count(), 0);
    goes_on(&gateway, "short", "executed");
}

#[test]
fn a_content_that_is_reset_before_its_end_uses_no_key() {
    // RFC 9113 8.1, and P20.
    let (upstream, gateway) = start();
    let mut speaker = Speaker::open(gateway.address());
    let mut bytes = frame(HEADERS, END_HEADERS, 1, &block(&sound("cut")));
    bytes.extend(frame(DATA, 0, 1, b"{\"amount\""));
    bytes.extend(frame(RST_STREAM, 0, 1, &[0, 0, 0, 8]));
    bytes.extend(frame(PING, 0, 0, &[7; 8]));
    speaker.send(&bytes).unwrap();
    // The answer to the ping says that the reset has been seen.
    while !matches!(speaker.next_frame(), Ok((PING, ..))) {}
    assert_eq!(upstream.count(), 0);
    goes_on(&gateway, "cut", "executed");
}

#[test]
fn a_rapid_reset_executes_nothing_twice_and_is_stopped() {
    // CVE-2023-44487; RFC 9113 5.4.2, 10.5.
    let (upstream, gateway) = start();
    let before = gateway.peak_memory_mib();
    let mut speaker = Speaker::open(gateway.address());
    let mut sent = 0_u32;
    for number in 0..20_000_u32 {
        let stream = 2 * number + 1;
        let key = format!("rapid-{}", number % 50);
        let mut bytes = frame(
            HEADERS,
            END_STREAM | END_HEADERS,
            stream,
            &block(&sound(&key)),
        );
        bytes.extend(frame(RST_STREAM, 0, stream, &[0, 0, 0, 8]));
        if speaker.send(&bytes).is_err() {
            break;
        }
        sent += 1;
    }
    // ENHANCE_YOUR_CALM, unless the connection was closed under the flood.
    let end = speaker.end_of(u32::MAX);
    assert!(
        matches!(end, End::GoAway(11) | End::Closed),
        "{end:?} after {sent}"
    );
    for number in 0..50 {
        let key = format!("rapid-{number}");
        let answer = eventually("an answer", || {
            let answer = post(&key).body(b"").send(gateway.address());
            (answer.status == 201).then_some(answer)
        });
        assert_eq!(answer.status, 201);
        assert_eq!(upstream.count_of(&key), 1, "{key}");
    }
    assert!(gateway.peak_memory_mib() - before < FLOOD_MIB);
    goes_on(&gateway, "after", "executed");
}

/// Floods of frames that cost the sender nothing, with their clauses of RFC 9113.
fn floods() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    vec![
        (
            "h2-settings-flood",
            "6.5, 10.5",
            frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0xff, 0xff]),
        ),
        ("h2-ping-flood", "6.7, 10.5", frame(PING, 0, 0, &[1; 8])),
        (
            "h2-empty-settings-flood",
            "6.5, 10.5",
            frame(SETTINGS, 0, 0, &[]),
        ),
        (
            "h2-priority-flood",
            "5.3.2, 10.5",
            frame(PRIORITY, 0, 9, &[0, 0, 0, 3, 5]),
        ),
        (
            "h2-unknown-frame-flood",
            "4.1, 10.5",
            frame(0x77, 0, 0, &[0; 64]),
        ),
    ]
}

#[test]
fn floods_of_control_frames_hold_up_nobody_else() {
    let (upstream, gateway) = start();
    let before = gateway.peak_memory_mib();
    let mut speakers = Vec::new();
    for (id, clause, bytes) in floods() {
        let mut speaker = Speaker::open(gateway.address());
        let taken = speaker.flood(&bytes, 200_000);
        goes_on(&gateway, id, "executed");
        assert_eq!(
            upstream.count_of(id),
            1,
            "{id} ({clause}), {taken} frames taken"
        );
        // The connections stay: what they hold is held all at once.
        speakers.push(speaker);
    }
    let grown = gateway.peak_memory_mib() - before;
    assert!(grown < FLOOD_MIB, "{grown} MiB");
}

#[test]
fn endless_heads_are_cut_off_in_bounded_memory() {
    // RFC 9113 6.10 and 10.5.1; CVE-2024-27316.
    let (upstream, gateway) = start();
    let before = gateway.peak_memory_mib();
    let open = frame(HEADERS, END_STREAM, 1, &block(&sound("endless")));
    let filler = "x".repeat(8_000);
    let part = literal(0, "x-filler", &filler);
    let endless = frame(CONTINUATION, 0, 1, &part);
    let empty = frame(CONTINUATION, 0, 1, &[]);
    for (id, bytes, times) in [
        ("h2-continuation-flood", &endless, 12_800),
        ("h2-empty-continuation-flood", &empty, 1_280_000),
    ] {
        let mut speaker = Speaker::open(gateway.address());
        speaker.send(&open).unwrap();
        let taken = speaker.flood(bytes, times);
        let end = speaker.end_of(1);
        let is_cut = matches!(
            end,
            End::GoAway(_) | End::Closed | End::Reset(_) | End::Answer(431)
        );
        assert!(is_cut, "{id}: {end:?} after {taken}");
    }
    assert_eq!(upstream.count(), 0);
    let grown = gateway.peak_memory_mib() - before;
    assert!(grown < FLOOD_MIB, "{grown} MiB");
    goes_on(&gateway, "endless", "executed");
}

#[test]
fn a_small_block_that_says_a_huge_head_is_refused() {
    // RFC 9113 10.5.1; one entry of the table, referred to again and again (RFC 7541 7.3).
    let (upstream, gateway) = start();
    let before = gateway.peak_memory_mib();
    let mut bomb = block(&sound("bomb"));
    // Incremental indexing: the entry is the first of the dynamic table from here on.
    bomb.extend(literal(0x40, "x-bomb", &"b".repeat(3_900)));
    bomb.extend([0xbe; 10_000]);
    let mut speaker = Speaker::open(gateway.address());
    speaker
        .send(&frame(HEADERS, END_STREAM | END_HEADERS, 1, &bomb))
        .unwrap();
    let end = speaker.end_of(1);
    let is_refused = matches!(
        end,
        End::Answer(431) | End::Reset(_) | End::GoAway(_) | End::Closed
    );
    assert!(is_refused, "{end:?}");
    assert_eq!(upstream.count(), 0);
    let grown = gateway.peak_memory_mib() - before;
    assert!(grown < FLOOD_MIB, "{grown} MiB");
    goes_on(&gateway, "bomb", "executed");
}

#[test]
fn more_streams_than_allowed_are_refused_one_by_one() {
    // RFC 9113 5.1.2: the gateway says 128.
    let (upstream, gateway) = start();
    let mut speaker = Speaker::open(gateway.address());
    let mut refused = None;
    for number in 0..400_u32 {
        let stream = 2 * number + 1;
        let key = format!("open-{number}");
        // Content that never comes keeps the stream open.
        if speaker
            .send(&frame(HEADERS, END_HEADERS, stream, &block(&sound(&key))))
            .is_err()
        {
            refused = Some(End::Closed);
        }
    }
    let last = 2 * 399 + 1;
    let end = refused.unwrap_or_else(|| speaker.end_of(last));
    // REFUSED_STREAM says that nothing was processed; a connection may end instead.
    assert!(
        matches!(end, End::Reset(7 | 1) | End::GoAway(_) | End::Closed),
        "{end:?}"
    );
    assert_eq!(upstream.count(), 0);
    goes_on(&gateway, "open-399", "executed");
}

#[test]
fn a_client_that_opens_no_window_stalls_nobody_and_its_answers_are_kept() {
    // RFC 9113 5.2, 6.9.2, 10.5.
    let content = vec![b'x'; 100_000];
    let shared = content.clone();
    let upstream = Upstream::scripted(move |_| Act::Answer(answer(201, &[], &shared)));
    let gateway = Gateway::start(&upstream.url(), "");
    let before = gateway.peak_memory_mib();
    let mut speaker = Speaker::open(gateway.address());
    speaker
        .send(&frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]))
        .unwrap();
    for number in 0..100_u32 {
        let key = format!("stalled-{number}");
        let head = block(&sound(&key));
        speaker
            .send(&frame(
                HEADERS,
                END_STREAM | END_HEADERS,
                2 * number + 1,
                &head,
            ))
            .unwrap();
    }
    upstream.wait_for_effects(100);
    for number in 0..100 {
        let key = format!("stalled-{number}");
        let kept = eventually("the record", || {
            let answer = post(&key).body(b"").send(gateway.address());
            (answer.status == 201).then_some(answer)
        });
        assert!(kept.is_replay() && kept.body == content, "{key}");
    }
    assert_eq!(upstream.count(), 100);
    let grown = gateway.peak_memory_mib() - before;
    assert!(grown < FLOOD_MIB + 20, "{grown} MiB");
    drop(speaker);
    assert!(eventually("an end of it", || {
        (gateway.metric("hapax_outstanding", &[]) == 0.0).then_some(true)
    }));
}
