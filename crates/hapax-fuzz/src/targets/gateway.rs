//! The framing of a connection, against another reader of the same bytes.

#[allow(dead_code, unreachable_pub, reason = "the binary uses all of it")]
#[rustfmt::skip]
#[path = "../../../hapax/src/gateway/chunked.rs"]
mod chunked;
#[allow(dead_code, unreachable_pub, reason = "the binary uses all of it")]
#[rustfmt::skip]
#[path = "../../../hapax/src/gateway/framing.rs"]
mod framing;
#[allow(dead_code, unreachable_pub, reason = "the binary uses all of it")]
#[rustfmt::skip]
#[path = "../../../hapax/src/gateway/head.rs"]
mod head;
#[allow(dead_code, reason = "the battery uses all of it")]
#[rustfmt::skip]
#[path = "../../../hapax/tests/it/battery/reader.rs"]
mod reader;
#[allow(dead_code, unreachable_pub, reason = "the binary uses all of it")]
#[rustfmt::skip]
#[path = "../../../hapax/src/gateway/refusal.rs"]
mod refusal;

use framing::{Framing, Phase, Preface, Stop};

pub(crate) const WORDS: &[&str] = &[
    "POST / HTTP/1.1\r\nHost: a\r\n",
    "GET /a?b HTTP/1.0\r\n",
    "\r\n",
    "\r\n\r\n",
    "\r",
    "\n",
    "Content-Length: 5\r\n",
    "Content-Length: 0",
    "Transfer-Encoding: chunked\r\n",
    "Transfer-Encoding: ",
    "chunked",
    "5\r\nhello\r\n",
    "0\r\n\r\n",
    "0\r\n",
    ";a=b",
    ": ",
    " ",
    "\t",
    "\0",
    "Host: b\r\n",
    "Upgrade: x\r\n",
    "X: y\r\n",
    "%41",
    "*",
    "http://a/",
    "+5",
    "0x5",
    "hello",
    "\u{e9}",
];

const MAX_HEAD: usize = 1024;

/// How far a connection's bytes got.
#[derive(Debug, PartialEq, Eq)]
struct Verdict {
    passed: usize,
    stop: Option<Stop>,
    phase: Phase,
}

/// The verdict does not depend on how the bytes were split. What passes has one reading: the strict reader finds the same
/// requests in it, with the same ends.
pub fn framing(data: &[u8]) {
    let (sizes, data) = data.split_at(data.len().min(4));
    let whole = judge(std::iter::once(data));
    let mut left = data;
    let mut turn = 0;
    let parts = std::iter::from_fn(|| {
        let size = 1 + usize::from(sizes.get(turn % 4).copied().unwrap_or(0));
        turn += 1;
        let (part, rest) = left.split_at(size.min(left.len()));
        left = rest;
        (!part.is_empty()).then_some(part)
    });
    assert_eq!(judge(parts), whole, "the split decides nothing");
    let passed = data.get(..whole.passed).unwrap_or_default();
    let mut at = 0;
    while at < passed.len() {
        // One empty line before a request is allowed (RFC 9112 2.2).
        let skip = if passed[at..].starts_with(b"\r\n") {
            2
        } else {
            0
        };
        match reader::next(&passed[at + skip..]) {
            Ok(Some((_, used))) => {
                let end = at + skip + used;
                let verdict = judge(std::iter::once(&data[..end]));
                let ends_there = verdict.passed == end && verdict.phase == Phase::Idle;
                assert!(
                    ends_there && verdict.stop.is_none(),
                    "both readers see the same end"
                );
                at = end;
            }
            Ok(None) => {
                assert_ne!(whole.phase, Phase::Idle, "what is incomplete is awaited");
                return;
            }
            Err(fault) => {
                // A body that goes wrong later has passed so far.
                let is_known =
                    matches!(whole.stop, Some(Stop::Body(_))) || whole.phase == Phase::Body;
                assert!(is_known, "passed, and has no one reading: {fault}");
                return;
            }
        }
    }
}

fn judge<'a>(parts: impl Iterator<Item = &'a [u8]>) -> Verdict {
    let mut framing = Framing::new(MAX_HEAD, Preface::Refused);
    let (mut passed, mut held) = (0, Vec::new());
    for part in parts {
        held.extend_from_slice(part);
        let progress = framing.feed(&held);
        assert!(progress.passed <= held.len());
        held.drain(..progress.passed);
        passed += progress.passed;
        if progress.stop.is_some() {
            let phase = framing.phase(held.len());
            return Verdict {
                passed,
                stop: progress.stop,
                phase,
            };
        }
    }
    let phase = framing.phase(held.len());
    Verdict {
        passed,
        stop: None,
        phase,
    }
}
