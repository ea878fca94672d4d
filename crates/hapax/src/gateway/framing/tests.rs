//! Every shape two parsers could read differently, and that no split into reads changes a verdict.

mod cases;

use std::convert::Infallible;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use proptest::prelude::*;
use tokio::{io::AsyncWriteExt, sync::mpsc};

use super::*;

const MAX_HEAD: usize = 64 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// So many requests passed whole, and nothing is left over.
    Passes(u64),
    /// More bytes must come.
    Waits,
    Http2,
    /// After so many requests, a head was refused.
    Refused(u64, Refusal),
    Broken(Refusal),
}

/// Feeds `parts` as reads, keeping what has not passed, as the wire does; also tells how many bytes passed.
fn judge<'a>(parts: impl IntoIterator<Item = &'a [u8]>, preface: Preface) -> (Verdict, usize) {
    let mut framing = Framing::new(MAX_HEAD, preface);
    let (mut held, mut passed) = (Vec::new(), 0);
    for part in parts {
        held.extend_from_slice(part);
        let progress = framing.feed(&held);
        passed += progress.passed;
        held.drain(..progress.passed);
        match progress.stop {
            None => {}
            Some(Stop::Head(refusal)) => {
                return (Verdict::Refused(framing.requests(), refusal), passed);
            }
            Some(Stop::Body(refusal)) => return (Verdict::Broken(refusal), passed),
        }
    }
    let verdict = match framing.phase(held.len()) {
        Phase::Idle => Verdict::Passes(framing.requests()),
        Phase::Head | Phase::Body => Verdict::Waits,
        Phase::Transparent => Verdict::Http2,
    };
    (verdict, passed)
}

fn check(id: &str, bytes: &[u8], expected: Verdict) {
    let whole = judge([bytes], Preface::Accepted);
    assert_eq!(whole.0, expected, "{id}: in one read");
    assert_eq!(
        judge(bytes.chunks(1), Preface::Accepted),
        whole,
        "{id}: byte by byte"
    );
    for at in 1..bytes.len() {
        let (first, second) = bytes.split_at(at);
        assert_eq!(
            judge([first, second], Preface::Accepted),
            whole,
            "{id}: split at {at}"
        );
    }
}

/// These bytes and no others.
fn raw(bytes: &[u8]) -> Vec<u8> {
    bytes.to_vec()
}

/// A head with `Host` and these field lines, each with its own line end.
fn with(lines: &[u8]) -> Vec<u8> {
    [b"POST /p HTTP/1.1\r\nHost: a\r\n", lines, b"\r\n"].concat()
}

/// A chunked request with this body.
fn chunks(body: &[u8]) -> Vec<u8> {
    [&*with(b"Transfer-Encoding: chunked\r\n"), body].concat()
}

/// A head with this request line.
fn line(line: &[u8]) -> Vec<u8> {
    [line, b"\r\nHost: a\r\n\r\n"].concat()
}

/// A head with this host.
fn host(host: &[u8]) -> Vec<u8> {
    [b"GET / HTTP/1.1\r\nHost: ", host, b"\r\n\r\n"].concat()
}

#[test]
fn sound_requests_pass() {
    for (id, complete, bytes, expected) in cases::SOUND {
        check(id, &complete(bytes), *expected);
    }
    check(
        "9110-5.4 a hundred fields",
        &with(&b"X: y\r\n".repeat(99)),
        Verdict::Passes(1),
    );
}

#[test]
fn request_lines_with_two_readings_are_refused() {
    for (id, complete, bytes, refusal) in cases::REQUEST_LINES {
        check(id, &complete(bytes), Verdict::Refused(0, *refusal));
    }
}

#[test]
fn fields_with_two_readings_are_refused() {
    for (id, complete, bytes, refusal) in cases::FIELDS {
        let bytes = complete(bytes);
        check(id, &bytes, Verdict::Refused(0, *refusal));
        let after = [host(b"a"), bytes].concat();
        let verdict = Verdict::Refused(1, *refusal);
        assert_eq!(
            judge([&*after], Preface::Accepted).0,
            verdict,
            "{id}: pipelined"
        );
    }
    let many = with(&b"X: y\r\n".repeat(100));
    check(
        "9110-5.4 too many fields",
        &many,
        Verdict::Refused(0, Refusal::TooManyFields),
    );
}

#[test]
fn chunks_with_two_readings_break_the_body() {
    for (id, complete, bytes, refusal) in cases::CHUNKS {
        check(id, &complete(bytes), Verdict::Broken(*refusal));
    }
}

#[test]
fn what_chunks_carry_besides_data_is_bounded() {
    let extension = [b"3;", &*b"a".repeat(1100), b"\r\n"].concat();
    let trailer = [b"0\r\nX: ", &*b"y".repeat(9000), b"\r\n\r\n"].concat();
    let trailers = [b"0\r\n", &*b"X: y\r\n".repeat(101), b"\r\n"].concat();
    for (body, refusal) in [
        (extension, Refusal::ChunkExtension),
        (
            b"1;aaaaaaaaaaaaaaaa\r\nx\r\n".repeat(70),
            Refusal::ChunkExtension,
        ),
        (trailer, Refusal::TrailersTooLarge),
        (trailers, Refusal::TooManyFields),
    ] {
        let bytes = chunks(&body);
        for size in [1, 7, bytes.len()] {
            let verdict = judge(bytes.chunks(size), Preface::Accepted).0;
            assert_eq!(verdict, Verdict::Broken(refusal));
        }
    }
}

#[test]
fn a_head_may_fill_the_limit_and_not_a_byte_more() {
    let head = |pad: usize| {
        let lines: String = (0..4)
            .map(|_| format!("X: {}\r\n", "y".repeat(pad / 4)))
            .collect();
        with(format!("{lines}Z: {}\r\n", "z".repeat(pad % 4)).as_bytes())
    };
    let rest = MAX_HEAD - head(0).len();
    assert_eq!(head(rest).len(), MAX_HEAD);
    assert_eq!(
        judge([&*head(rest)], Preface::Accepted).0,
        Verdict::Passes(1)
    );
    let large = Verdict::Refused(0, Refusal::HeadTooLarge);
    assert_eq!(judge([&*head(rest + 1)], Preface::Accepted).0, large);
    assert_eq!(
        judge(head(rest + 1).chunks(1000), Preface::Accepted).0,
        large
    );
    // No line end is needed to see it.
    let endless = [b"GET /".as_slice(), &vec![b'a'; MAX_HEAD]].concat();
    assert_eq!(judge(endless.chunks(1000), Preface::Accepted).0, large);
}

#[test]
fn the_http2_preface_is_no_request_where_http2_was_not_agreed() {
    assert!(matches!(
        judge([H2_PREFACE], Preface::Refused).0,
        Verdict::Refused(0, _)
    ));
    let late = [&*host(b"a"), H2_PREFACE].concat();
    assert!(matches!(
        judge([&*late], Preface::Accepted).0,
        Verdict::Refused(1, _)
    ));
}

#[derive(Clone, Debug)]
struct Sample {
    target: String,
    body: Content,
    fields: Vec<(String, String)>,
}

#[derive(Clone, Debug)]
enum Content {
    None,
    Sized(Vec<u8>),
    Chunked {
        chunks: Vec<Vec<u8>>,
        extension: bool,
        trailer: bool,
    },
}

impl Sample {
    fn bytes(&self) -> Vec<u8> {
        let mut out = format!("POST {} HTTP/1.1\r\nHost: a\r\n", self.target).into_bytes();
        for (name, value) in &self.fields {
            out.extend_from_slice(format!("X-{name}: {value}\r\n").as_bytes());
        }
        match &self.body {
            Content::None => out.extend_from_slice(b"\r\n"),
            Content::Sized(body) => {
                out.extend_from_slice(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes());
                out.extend_from_slice(body);
            }
            Content::Chunked {
                chunks,
                extension,
                trailer,
            } => {
                out.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
                for chunk in chunks.iter().filter(|chunk| !chunk.is_empty()) {
                    let extension = if *extension { ";a=b" } else { "" };
                    out.extend_from_slice(format!("{:x}{extension}\r\n", chunk.len()).as_bytes());
                    out.extend_from_slice(chunk);
                    out.extend_from_slice(b"\r\n");
                }
                out.extend_from_slice(if *trailer {
                    b"0\r\nX-T: 1\r\n\r\n"
                } else {
                    b"0\r\n\r\n"
                });
            }
        }
        out
    }

    fn content(&self) -> Vec<u8> {
        match &self.body {
            Content::None => Vec::new(),
            Content::Sized(body) => body.clone(),
            Content::Chunked { chunks, .. } => chunks.concat(),
        }
    }
}

fn sample() -> impl Strategy<Value = Sample> {
    let bytes = || proptest::collection::vec(any::<u8>(), 0..40);
    let content = prop_oneof![
        Just(Content::None),
        bytes().prop_map(Content::Sized),
        (
            proptest::collection::vec(bytes(), 0..4),
            any::<bool>(),
            any::<bool>()
        )
            .prop_map(|(chunks, extension, trailer)| Content::Chunked {
                chunks,
                extension,
                trailer
            }),
    ];
    let fields = proptest::collection::vec(("[a-zA-Z0-9]{1,8}", "[!-~]{0,12}"), 0..5);
    ("/[a-z0-9/._~-]{0,12}(\\?[a-z=&]{0,8})?", content, fields).prop_map(
        |(target, body, fields)| Sample {
            target,
            body,
            fields,
        },
    )
}

/// What hyper alone makes of `bytes`: targets and bodies.
async fn as_hyper_reads(bytes: Vec<u8>) -> Vec<(String, Vec<u8>)> {
    let (mut client, server) = tokio::io::duplex(1 << 20);
    client.write_all(&bytes).await.unwrap();
    client.shutdown().await.unwrap();
    let (seen, mut all) = mpsc::unbounded_channel();
    let service = service_fn(move |request: http::Request<Incoming>| {
        let seen = seen.clone();
        async move {
            let target = request.uri().to_string();
            let body = request.into_body().collect().await.unwrap().to_bytes();
            seen.send((target, body.to_vec())).unwrap();
            Ok::<_, Infallible>(http::Response::new(Full::new(Bytes::new())))
        }
    });
    http1::Builder::new()
        .half_close(true)
        .serve_connection(TokioIo::new(server), service)
        .await
        .unwrap();
    drop(client);
    let mut list = Vec::new();
    while let Some(one) = all.recv().await {
        list.push(one);
    }
    list
}

proptest! {
    #[test]
    fn hyper_and_the_framing_agree_where_sound_requests_end(
        samples in proptest::collection::vec(sample(), 1..6),
        cut in 1_usize..50,
    ) {
        let parts: Vec<_> = samples.iter().map(Sample::bytes).collect();
        let bytes = parts.concat();
        let whole = judge([&*bytes], Preface::Accepted);
        prop_assert_eq!(whole, (Verdict::Passes(samples.len() as u64), bytes.len()));
        prop_assert_eq!(judge(bytes.chunks(cut), Preface::Accepted), whole);
        // Each boundary by itself: the framing rests exactly where a request ends.
        let mut framing = Framing::new(MAX_HEAD, Preface::Accepted);
        for (index, part) in parts.iter().enumerate() {
            prop_assert_eq!(framing.feed(part), Progress { passed: part.len(), stop: None });
            prop_assert_eq!((framing.requests(), framing.phase(0)), (index as u64 + 1, Phase::Idle));
        }
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let expected: Vec<_> = samples.iter().map(|sample| (sample.target.clone(), sample.content())).collect();
        prop_assert_eq!(runtime.block_on(as_hyper_reads(bytes)), expected);
    }

    #[test]
    fn no_bytes_and_no_split_make_the_framing_lose_count(
        bytes in proptest::collection::vec(prop_oneof![any::<u8>(), Just(b'\r'), Just(b'\n'), Just(b':'), Just(b' ')], 0..200),
        after_head in any::<bool>(),
        cut in 1_usize..9,
    ) {
        let bytes = if after_head { [chunks(b"3\r\nabc\r\n"), bytes].concat() } else { bytes };
        let whole = judge([&*bytes], Preface::Accepted);
        prop_assert_eq!(judge(bytes.chunks(cut), Preface::Accepted), whole);
        prop_assert!(whole.1 <= bytes.len());
    }
}

/// A figure for the release build: `cargo test --release ... -- --nocapture a_typical_head`.
#[test]
fn a_typical_head_is_judged_in_one_pass() {
    let head = b"POST /v1/orders HTTP/1.1\r\nHost: shop.example\r\nContent-Type: application/json\r\n\
        Authorization: Bearer abcdefghijklmnop\r\nIdempotency-Key: 8e03978e-40d5-43e8-bc93-6894a57f9324\r\n\
        Accept: */*\r\nContent-Length: 16\r\n\r\n{\"amount\":12345}";
    let rounds = 200_000_u32;
    let mut framing = Framing::new(MAX_HEAD, Preface::Accepted);
    let begun = tokio::time::Instant::now();
    for _ in 0..rounds {
        assert_eq!(framing.feed(std::hint::black_box(head)).passed, head.len());
    }
    println!(
        "{} bytes judged in {:?}",
        head.len(),
        begun.elapsed() / rounds
    );
    assert_eq!(framing.requests(), u64::from(rounds));
}
