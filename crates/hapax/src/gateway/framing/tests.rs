//! Every shape two parsers could read differently, and that no split into reads changes a verdict.

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

/// A head with `Host` and these field lines, each with its own line end.
fn with(lines: &str) -> Vec<u8> {
    format!("POST /p HTTP/1.1\r\nHost: a\r\n{lines}\r\n").into_bytes()
}

fn chunks(body: &str) -> Vec<u8> {
    let mut bytes = with("Transfer-Encoding: chunked\r\n");
    bytes.extend_from_slice(body.as_bytes());
    bytes
}

fn line(line: &str) -> Vec<u8> {
    format!("{line}\r\nHost: a\r\n\r\n").into_bytes()
}

fn host(host: &str) -> Vec<u8> {
    format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").into_bytes()
}

#[test]
fn sound_requests_pass() {
    use Verdict::{Http2, Passes, Waits};
    let fields = |count: usize| "X: y\r\n".repeat(count);
    let table: Vec<(&str, Vec<u8>, Verdict)> = vec![
        ("9112-3 plain", host("a"), Passes(1)),
        (
            "9112-2.1 http/1.0 without host",
            b"GET / HTTP/1.0\r\n\r\n".to_vec(),
            Passes(1),
        ),
        (
            "9112-2.2 one empty line first",
            b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(),
            Passes(1),
        ),
        (
            "9112-9.3.2 pipelined",
            [
                host("a"),
                with("Content-Length: 2\r\n"),
                b"hi".to_vec(),
                host("b"),
            ]
            .concat(),
            Passes(3),
        ),
        (
            "9112-6.3 body split off",
            [with("Content-Length: 5\r\n"), b"abc".to_vec()].concat(),
            Waits,
        ),
        (
            "9112-6.3 length zero",
            with("Content-Length: 0\r\n"),
            Passes(1),
        ),
        (
            "9112-6.3 leading zeros",
            [with("Content-Length: 003\r\n"), b"abc".to_vec()].concat(),
            Passes(1),
        ),
        (
            "9112-5.1 white space around a value",
            [with("Content-Length:\t 3 \t\r\n"), b"abc".to_vec()].concat(),
            Passes(1),
        ),
        (
            "9112-5.1 no white space",
            [with("Content-Length:3\r\n"), b"abc".to_vec()].concat(),
            Passes(1),
        ),
        (
            "9112-7.1 chunked",
            chunks("3\r\nabc\r\n0\r\n\r\n"),
            Passes(1),
        ),
        (
            "9112-7.1 coding in capitals",
            [
                with("TRANSFER-ENCODING: ChunKed\r\n"),
                b"0\r\n\r\n".to_vec(),
            ]
            .concat(),
            Passes(1),
        ),
        (
            "9112-7.1 hexadecimal size",
            chunks("A\r\n0123456789\r\n0\r\n\r\n"),
            Passes(1),
        ),
        (
            "9112-7.1.1 extension",
            chunks("3;a=b; c=\"d\"\r\nabc\r\n0;e\r\n\r\n"),
            Passes(1),
        ),
        (
            "9112-7.1.2 trailers",
            chunks("0\r\nX-Sum: 1\r\nY:\r\n\r\n"),
            Passes(1),
        ),
        (
            "9112-7.1 data that looks like framing",
            chunks("5\r\n\r\n0\r\n\r\n0\r\n\r\n"),
            Passes(1),
        ),
        (
            "9110-5.5 obs-text in a value",
            [b"GET / HTTP/1.1\r\nHost: a\r\nX: \xff\xfe\r\n\r\n".to_vec()].concat(),
            Passes(1),
        ),
        ("9110-5.5 empty value", with("X:\r\n"), Passes(1)),
        (
            "9110-9.1 unknown method",
            line("BREW /pot HTTP/1.1"),
            Passes(1),
        ),
        ("9112-3.2.4 asterisk", line("OPTIONS * HTTP/1.1"), Passes(1)),
        (
            "9112-3.2 query as browsers send it",
            line("GET /a[1]|b?x[]=1&y={z}|^` HTTP/1.1"),
            Passes(1),
        ),
        (
            "9112-3.2 escapes",
            line("GET /%2F%2e?%41 HTTP/1.1"),
            Passes(1),
        ),
        (
            "9112-3.2 double slash",
            line("GET //a/b HTTP/1.1"),
            Passes(1),
        ),
        (
            "9112-3.2 host and port",
            host("shop.example:8080"),
            Passes(1),
        ),
        ("9112-3.2 ipv6 host", host("[2001:db8::1]:80"), Passes(1)),
        ("9110-5.4 a hundred fields", with(&fields(99)), Passes(1)),
        (
            "9110-7.8 upgrade without a body",
            with("Connection: upgrade\r\nUpgrade: websocket\r\n"),
            Passes(1),
        ),
        (
            "9113-3.4 preface",
            [H2_PREFACE, b"\0\0\0\x04\0\0\0\0\0"].concat(),
            Http2,
        ),
        (
            "9113-3.4 part of the preface",
            H2_PREFACE[..20].to_vec(),
            Waits,
        ),
        (
            "9112-2.1 part of a head",
            b"GET / HTTP/1.1\r\nHo".to_vec(),
            Waits,
        ),
    ];
    for (id, bytes, expected) in table {
        check(id, &bytes, expected);
    }
}

#[test]
fn request_lines_with_two_readings_are_refused() {
    use Refusal::*;
    let table: Vec<(&str, Vec<u8>, Refusal)> = vec![
        (
            "9112-2.2 bare LF after the request line",
            b"GET / HTTP/1.1\nHost: a\r\n\r\n".to_vec(),
            BareLf,
        ),
        (
            "9112-2.2 bare CR in the request line",
            b"GET / HTTP/1.1\rX\r\n\r\n".to_vec(),
            BareCr,
        ),
        (
            "9112-2.2 bare LF first",
            b"\nGET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(),
            BareLf,
        ),
        (
            "9112-2.2 two empty lines first",
            b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(),
            EmptyLine,
        ),
        (
            "9112-2.2 space first",
            line(" GET / HTTP/1.1"),
            LeadingWhitespace,
        ),
        (
            "9112-2.2 tab first",
            line("\tGET / HTTP/1.1"),
            LeadingWhitespace,
        ),
        (
            "9112-3 two spaces after the method",
            line("GET  / HTTP/1.1"),
            RequestLine,
        ),
        (
            "9112-3 two spaces before the version",
            line("GET /  HTTP/1.1"),
            RequestLine,
        ),
        (
            "9112-3 space at the end",
            line("GET / HTTP/1.1 "),
            RequestLine,
        ),
        (
            "9112-3 tab for a space",
            line("GET\t/ HTTP/1.1"),
            RequestLine,
        ),
        ("9112-3 no version", line("GET /"), RequestLine),
        (
            "9112-3 space in the target",
            line("GET /a b HTTP/1.1"),
            RequestLine,
        ),
        (
            "9110-9.1 method is no token",
            line("GE(T / HTTP/1.1"),
            Method,
        ),
        (
            "9110-9.1 method too long",
            line(&format!("{} / HTTP/1.1", "M".repeat(33))),
            Method,
        ),
        (
            "9110-9.1 TLS to a cleartext port",
            b"\x16\x03\x01\x02\x00\x01".to_vec(),
            ControlByte,
        ),
        ("9112-2.3 version 0.9", line("GET / HTTP/0.9"), Version),
        ("9112-2.3 version 1.2", line("GET / HTTP/1.2"), Version),
        ("9112-2.3 version 2.0", line("GET / HTTP/2.0"), Version),
        (
            "9112-2.3 version in small letters",
            line("GET / http/1.1"),
            Version,
        ),
        (
            "9112-2.3 version with more digits",
            line("GET / HTTP/1.10"),
            Version,
        ),
        (
            "9113-3.4 preface that goes wrong",
            b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n".to_vec(),
            AsteriskForm,
        ),
        (
            "9112-3.2.2 absolute form",
            line("GET http://other/ HTTP/1.1"),
            AbsoluteForm,
        ),
        (
            "9112-3.2.2 absolute form of our own host",
            line("GET http://a/ HTTP/1.1"),
            AbsoluteForm,
        ),
        (
            "9112-3.2.3 CONNECT",
            line("CONNECT a:80 HTTP/1.1"),
            AuthorityForm,
        ),
        (
            "9112-3.2.3 CONNECT to a path",
            line("CONNECT /a HTTP/1.1"),
            AuthorityForm,
        ),
        (
            "9112-3.2.3 authority form",
            line("GET a:80 HTTP/1.1"),
            AuthorityForm,
        ),
        (
            "9112-3.2.4 asterisk with GET",
            line("GET * HTTP/1.1"),
            AsteriskForm,
        ),
        (
            "9112-3.2 asterisk and more",
            line("OPTIONS *x HTTP/1.1"),
            Target,
        ),
        ("9112-3.2 fragment", line("GET /a#b HTTP/1.1"), Fragment),
        (
            "9112-3.2 fragment in the query",
            line("GET /a?b#c HTTP/1.1"),
            Fragment,
        ),
        (
            "9112-3.2 backslash in the path",
            line("GET /a\\b HTTP/1.1"),
            Target,
        ),
        ("9112-3.2 bad escape", line("GET /%zz HTTP/1.1"), Target),
        ("9112-3.2 cut escape", line("GET /?a=%4 HTTP/1.1"), Target),
        (
            "9112-3.2 raw byte above ASCII",
            b"GET /\xc3\xa9 HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(),
            Target,
        ),
        (
            "9110-5.5 NUL in the target",
            b"GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(),
            ControlByte,
        ),
        (
            "9112-3.2 no host",
            b"GET / HTTP/1.1\r\n\r\n".to_vec(),
            HostMissing,
        ),
    ];
    for (id, bytes, refusal) in table {
        check(id, &bytes, Verdict::Refused(0, refusal));
    }
}

#[test]
fn fields_with_two_readings_are_refused() {
    use Refusal::*;
    let table: Vec<(&str, Vec<u8>, Refusal)> = vec![
        (
            "9112-2.2 bare LF after a field",
            with("X: y\nZ: 1\r\n"),
            BareLf,
        ),
        (
            "9112-2.2 bare LF for the last line",
            b"GET / HTTP/1.1\r\nHost: a\r\n\n".to_vec(),
            BareLf,
        ),
        (
            "9112-2.2 bare CR in a value",
            with("X: y\rZ: 1\r\n"),
            BareCr,
        ),
        ("9112-2.2 CR CR LF", with("X: y\r\r\n"), BareCr),
        ("9110-5.5 NUL in a value", with("X: a\0b\r\n"), ControlByte),
        (
            "9110-5.5 DEL in a value",
            with("X: a\x7fb\r\n"),
            ControlByte,
        ),
        (
            "9110-5.5 control byte in a name",
            with("X\x01: a\r\n"),
            ControlByte,
        ),
        (
            "9112-5.2 obs-fold by a space",
            with("X: a\r\n b\r\n"),
            ObsFold,
        ),
        (
            "9112-5.2 obs-fold by a tab",
            with("X: a\r\n\tContent-Length: 3\r\n"),
            ObsFold,
        ),
        (
            "9112-2.2 white space before the first field",
            b"GET / HTTP/1.1\r\n Host: a\r\n\r\n".to_vec(),
            LeadingWhitespace,
        ),
        (
            "9112-5.1 space before the colon",
            with("Content-Length : 3\r\n"),
            SpaceBeforeColon,
        ),
        (
            "9112-5.1 tab before the colon",
            with("Transfer-Encoding\t: chunked\r\n"),
            SpaceBeforeColon,
        ),
        ("9112-5 no colon", with("X\r\n"), MissingColon),
        ("9110-5.1 empty name", with(": x\r\n"), FieldName),
        ("9110-5.1 space in a name", with("A B: x\r\n"), FieldName),
        ("9110-5.1 name is no token", with("A@B: x\r\n"), FieldName),
        ("9112-3.2 two hosts", with("Host: b\r\n"), HostRepeated),
        (
            "9112-3.2 two equal hosts",
            with("host: a\r\n"),
            HostRepeated,
        ),
        ("9112-3.2 empty host", host(""), HostInvalid),
        ("9112-3.2 user in host", host("u@a"), HostInvalid),
        ("9112-3.2 path in host", host("a/b"), HostInvalid),
        ("9112-3.2 two in one host", host("a, b"), HostInvalid),
        ("9112-3.2 port is no number", host("a:b"), HostInvalid),
        ("9112-3.2 port is too long", host("a:123456"), HostInvalid),
        ("9112-3.2 host is a port alone", host(":80"), HostInvalid),
        ("9112-3.2 ipv6 without an end", host("[::1"), HostInvalid),
        ("9112-3.2 no ipv6 in brackets", host("[a]"), HostInvalid),
        ("9112-3.2 more after ipv6", host("[::1]x"), HostInvalid),
        (
            "9112-3.2 bad host on http/1.0",
            b"GET / HTTP/1.0\r\nHost: a b\r\n\r\n".to_vec(),
            HostInvalid,
        ),
        (
            "9112-6.1 both lengths",
            with("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n"),
            LengthAndCoding,
        ),
        (
            "9112-6.1 both, the other way",
            with("Transfer-Encoding: chunked\r\nContent-Length: 3\r\n"),
            LengthAndCoding,
        ),
        (
            "9112-6.3 two lengths",
            with("Content-Length: 3\r\nContent-Length: 4\r\n"),
            LengthRepeated,
        ),
        (
            "9112-6.3 two equal lengths",
            with("Content-Length: 3\r\nContent-Length: 3\r\n"),
            LengthRepeated,
        ),
        (
            "9112-6.3 list of lengths",
            with("Content-Length: 3, 3\r\n"),
            LengthInvalid,
        ),
        (
            "9112-6.3 signed length",
            with("Content-Length: +3\r\n"),
            LengthInvalid,
        ),
        (
            "9112-6.3 negative length",
            with("Content-Length: -3\r\n"),
            LengthInvalid,
        ),
        (
            "9112-6.3 hexadecimal length",
            with("Content-Length: 0x3\r\n"),
            LengthInvalid,
        ),
        (
            "9112-6.3 space in a length",
            with("Content-Length: 1 2\r\n"),
            LengthInvalid,
        ),
        (
            "9112-6.3 empty length",
            with("Content-Length:\r\n"),
            LengthInvalid,
        ),
        (
            "9112-6.3 overlong length",
            with("Content-Length: 1000000000000000000\r\n"),
            LengthInvalid,
        ),
        (
            "9112-6.1 other coding",
            with("Transfer-Encoding: gzip\r\n"),
            CodingInvalid,
        ),
        (
            "9112-6.1 two codings",
            with("Transfer-Encoding: gzip, chunked\r\n"),
            CodingInvalid,
        ),
        (
            "9112-6.1 chunked twice",
            with("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"),
            CodingInvalid,
        ),
        (
            "9112-6.1 chunked and identity",
            with("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n"),
            CodingInvalid,
        ),
        (
            "9112-6.1 quoted chunked",
            with("Transfer-Encoding: \"chunked\"\r\n"),
            CodingInvalid,
        ),
        (
            "9112-6.1 vertical tab before chunked",
            with("Transfer-Encoding: \x0bchunked\r\n"),
            ControlByte,
        ),
        (
            "9112-6.1 empty coding",
            with("Transfer-Encoding:\r\n"),
            CodingInvalid,
        ),
        (
            "9112-6.1 coding on http/1.0",
            b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec(),
            CodingOnHttp10,
        ),
        (
            "9110-7.8 upgrade with a body",
            with("Upgrade: h2c\r\nContent-Length: 3\r\n"),
            UpgradeWithBody,
        ),
        (
            "9110-7.8 upgrade with chunks",
            with("Upgrade: h2c\r\nTransfer-Encoding: chunked\r\n"),
            UpgradeWithBody,
        ),
        (
            "9110-5.4 more than a hundred fields",
            with(&"X: y\r\n".repeat(100)),
            TooManyFields,
        ),
    ];
    for (id, bytes, refusal) in table {
        check(id, &bytes, Verdict::Refused(0, refusal));
        let after = [host("a"), bytes].concat();
        assert_eq!(
            judge([&*after], Preface::Accepted).0,
            Verdict::Refused(1, refusal),
            "{id}: pipelined"
        );
    }
}

#[test]
fn chunks_with_two_readings_break_the_body() {
    use Refusal::*;
    let table: Vec<(&str, String, Refusal)> = vec![
        ("9112-7.1 no size", "\r\n".into(), ChunkSize),
        ("9112-7.1 size is no hexadecimal", "g\r\n".into(), ChunkSize),
        ("9112-7.1 size with 0x", "0x3\r\nabc\r\n".into(), ChunkSize),
        ("9112-7.1 signed size", "+3\r\nabc\r\n".into(), ChunkSize),
        ("9112-7.1 negative size", "-3\r\nabc\r\n".into(), ChunkSize),
        (
            "9112-7.1 space before the size",
            " 3\r\nabc\r\n".into(),
            ChunkSize,
        ),
        (
            "9112-7.1 space after the size",
            "3 \r\nabc\r\n".into(),
            ChunkSize,
        ),
        (
            "9112-7.1 overlong size",
            format!("{}3\r\n", "0".repeat(15)),
            ChunkSize,
        ),
        (
            "9112-7.1 size that overflows",
            format!("{}\r\n", "f".repeat(17)),
            ChunkSize,
        ),
        ("9112-7.1 LF after the size", "3\nabc\r\n".into(), BareLf),
        (
            "9112-7.1 CR alone after the size",
            "3\rabc\r\n".into(),
            BareCr,
        ),
        (
            "9112-7.1 LF after the data",
            "3\r\nabc\n0\r\n\r\n".into(),
            ChunkEnd,
        ),
        ("9112-7.1 data too long", "3\r\nabcd\r\n".into(), ChunkEnd),
        (
            "9112-7.1 CR alone after the data",
            "3\r\nabc\r0".into(),
            ChunkEnd,
        ),
        (
            "9112-7.1.1 LF in an extension",
            "3;a\nabc\r\n".into(),
            BareLf,
        ),
        (
            "9112-7.1.1 CR in an extension",
            "3;a\rb\r\nabc\r\n".into(),
            BareCr,
        ),
        (
            "9112-7.1.1 empty extension",
            "3;\r\nabc\r\n".into(),
            ChunkExtension,
        ),
        (
            "9112-7.1.1 control byte in an extension",
            "3;a\0\r\nabc\r\n".into(),
            ChunkExtension,
        ),
        (
            "9112-7.1.1 huge extension",
            format!("3;{}\r\n", "a".repeat(1100)),
            ChunkExtension,
        ),
        (
            "9112-7.1.1 many extensions",
            "1;aaaaaaaaaaaaaaaa\r\nx\r\n".repeat(70),
            ChunkExtension,
        ),
        (
            "9112-7.1.2 LF ends a trailer",
            "0\r\nX: y\n\r\n".into(),
            BareLf,
        ),
        ("9112-7.1.2 LF ends the trailers", "0\r\n\n".into(), BareLf),
        (
            "9112-7.1.2 folded trailer",
            "0\r\nX: y\r\n z\r\n\r\n".into(),
            ObsFold,
        ),
        (
            "9112-7.1.2 trailer without a colon",
            "0\r\nGET / HTTP/1.1\r\n\r\n".into(),
            MissingColon,
        ),
        (
            "9112-7.1.2 control byte in a trailer",
            "0\r\nX: \x01\r\n\r\n".into(),
            ControlByte,
        ),
        (
            "9110-6.5.1 length in a trailer",
            "0\r\nContent-Length: 3\r\n\r\n".into(),
            TrailerForbidden,
        ),
        (
            "9110-6.5.1 coding in a trailer",
            "0\r\ntransfer-encoding: chunked\r\n\r\n".into(),
            TrailerForbidden,
        ),
        (
            "9110-6.5.1 host in a trailer",
            "0\r\nHost: b\r\n\r\n".into(),
            TrailerForbidden,
        ),
        (
            "P5 key in a trailer",
            "0\r\nIdempotency-Key: k\r\n\r\n".into(),
            TrailerForbidden,
        ),
        (
            "9110-6.5 huge trailer",
            format!("0\r\nX: {}\r\n\r\n", "y".repeat(9000)),
            TrailersTooLarge,
        ),
        (
            "9110-6.5 many trailers",
            format!("0\r\n{}\r\n", "X: y\r\n".repeat(101)),
            TooManyFields,
        ),
    ];
    for (id, body, refusal) in table {
        let bytes = chunks(&body);
        if bytes.len() < 2000 {
            check(id, &bytes, Verdict::Broken(refusal));
        } else {
            assert_eq!(
                judge([&*bytes], Preface::Accepted).0,
                Verdict::Broken(refusal),
                "{id}"
            );
            assert_eq!(
                judge(bytes.chunks(1), Preface::Accepted).0,
                Verdict::Broken(refusal),
                "{id}"
            );
        }
    }
}

#[test]
fn a_head_may_fill_the_limit_and_not_a_byte_more() {
    let head = |pad: usize| {
        let lines: String = (0..4)
            .map(|_| format!("X: {}\r\n", "y".repeat(pad / 4)))
            .collect();
        with(&format!("{lines}Z: {}\r\n", "z".repeat(pad % 4)))
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
    let late = [&*host("a"), H2_PREFACE].concat();
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
        let bytes = if after_head { [chunks("3\r\nabc\r\n"), bytes].concat() } else { bytes };
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
