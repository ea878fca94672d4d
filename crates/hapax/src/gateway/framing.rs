//! The framing of an HTTP/1 connection, judged on its raw bytes before hyper parses them.
//!
//! 1. A head is judged whole: none of it passes before all of it has been judged.
//! 2. Content is followed byte by byte and never kept.
//! 3. What two parsers could read differently is refused, never repaired.
//! 4. The verdict does not depend on how the bytes were split into reads.

use memchr::memchr;

use super::{
    chunked::{Chunked, Step},
    head::{Content, Head, starts_request},
    refusal::Refusal,
};

/// What an HTTP/2 client with prior knowledge sends first (RFC 9113 3.4).
pub(crate) const H2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Follows one connection.
#[derive(Debug)]
pub(crate) struct Framing {
    at: At,
    head: Head,
    /// Where the line that is being read starts, counted from the head's first byte.
    line_start: usize,
    /// How far line ends have been looked for, so that slow heads cost no second look.
    searched: usize,
    max_head: usize,
    preface: Preface,
    requests: u64,
    upgrade: bool,
}

#[derive(Debug)]
enum At {
    Head,
    Body(u64),
    Chunks(Box<Chunked>),
    Transparent(Protocol),
}

/// What runs on a connection whose bytes are no longer judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// HTTP/2: hyper frames it.
    Http2,
    /// Whatever the client upgraded to.
    Tunnel,
}

/// Whether a connection may begin with the HTTP/2 preface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Preface {
    /// Yes: HTTP/2 by prior knowledge.
    Accepted,
    /// No: ALPN has settled on HTTP/1.1, or the first request has begun.
    Refused,
}

/// What a connection waits for, as its deadlines see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// The next request, of which no byte has come.
    Idle,
    /// The rest of a head.
    Head,
    /// The rest of a body.
    Body,
    /// Nothing that is judged here.
    Transparent,
}

/// What may be done with the bytes that were fed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Progress {
    /// So many bytes may pass on. The next call must begin with the first byte that did not pass.
    pub(crate) passed: usize,
    /// Why the byte after those may never pass.
    pub(crate) stop: Option<Stop>,
}

/// Where the bytes went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// In a head, none of which has passed: it can be answered.
    Head(Refusal),
    /// In content whose head has passed: the body must fail.
    Body(Refusal),
}

impl Framing {
    /// Begins a connection. A head of more than `max_head` bytes is refused.
    pub(crate) fn new(max_head: usize, preface: Preface) -> Self {
        Self {
            at: At::Head,
            head: Head::default(),
            line_start: 0,
            searched: 0,
            max_head,
            preface,
            requests: 0,
            upgrade: false,
        }
    }

    /// Begins a connection on which nothing is judged.
    pub(crate) fn transparent(protocol: Protocol) -> Self {
        let mut framing = Self::new(0, Preface::Refused);
        framing.at = At::Transparent(protocol);
        framing
    }

    /// Judges `bytes`: all that have not passed, in order.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Progress {
        let mut passed = 0;
        loop {
            let rest = bytes.get(passed..).unwrap_or_default();
            if rest.is_empty() {
                return Progress { passed, stop: None };
            }
            match &mut self.at {
                At::Transparent(_) => {
                    return Progress {
                        passed: bytes.len(),
                        stop: None,
                    };
                }
                At::Body(left) => {
                    let taken =
                        usize::try_from(*left).map_or(rest.len(), |left| left.min(rest.len()));
                    // `taken` is at most `left`.
                    *left -= taken as u64;
                    passed += taken;
                    if *left == 0 {
                        self.at = At::Head;
                    }
                }
                At::Chunks(chunked) => match chunked.advance(rest) {
                    Step::More => {
                        return Progress {
                            passed: bytes.len(),
                            stop: None,
                        };
                    }
                    Step::Ended(used) => {
                        passed += used;
                        self.at = At::Head;
                    }
                    Step::Refused(used, refusal) => {
                        return Progress {
                            passed: passed + used,
                            stop: Some(Stop::Body(refusal)),
                        };
                    }
                },
                At::Head => match self.head(rest) {
                    Ok(Some(length)) => passed += length,
                    Ok(None) => return Progress { passed, stop: None },
                    Err(refusal) => {
                        return Progress {
                            passed,
                            stop: Some(Stop::Head(refusal)),
                        };
                    }
                },
            }
        }
    }

    /// What the connection waits for, given that `held` bytes have not passed.
    pub(crate) fn phase(&self, held: usize) -> Phase {
        match self.at {
            At::Head if held == 0 => Phase::Idle,
            At::Head => Phase::Head,
            At::Body(_) | At::Chunks(_) => Phase::Body,
            At::Transparent(_) => Phase::Transparent,
        }
    }

    /// The protocol of a connection that is no longer judged.
    pub(crate) fn protocol(&self) -> Option<Protocol> {
        match self.at {
            At::Transparent(protocol) => Some(protocol),
            _ => None,
        }
    }

    /// How many heads have passed.
    #[cfg(test)]
    pub(crate) fn requests(&self) -> u64 {
        self.requests
    }

    /// Whether the last head asked for another protocol.
    pub(crate) fn awaits_upgrade(&self) -> bool {
        self.upgrade && matches!(self.at, At::Head)
    }

    /// Stops judging: the upgrade was granted.
    pub(crate) fn become_tunnel(&mut self) {
        self.at = At::Transparent(Protocol::Tunnel);
    }

    /// Looks for the end of the head that `bytes` starts with; its length once it is complete and sound.
    fn head(&mut self, bytes: &[u8]) -> Result<Option<usize>, Refusal> {
        if self.preface == Preface::Accepted {
            match preface(bytes) {
                Some(true) => {
                    self.at = At::Transparent(Protocol::Http2);
                    return Ok(Some(H2_PREFACE.len()));
                }
                Some(false) => self.preface = Preface::Refused,
                None => return Ok(None),
            }
        }
        loop {
            self.first_byte(bytes)?;
            let Some(end) = memchr(b'\n', bytes.get(self.searched..).unwrap_or_default()) else {
                break;
            };
            let end = self.searched + end;
            if end >= self.max_head {
                return Err(Refusal::HeadTooLarge);
            }
            let line = bytes.get(self.line_start..end).unwrap_or_default();
            let line = line.strip_suffix(b"\r").ok_or(Refusal::BareLf)?;
            let first = self.line_start == 0;
            self.line_start = end + 1;
            self.searched = end + 1;
            if !line.is_empty() {
                self.head.line(line)?;
            } else if self.head.has_started() {
                return self.finish().map(|()| Some(end + 1));
            } else if !first {
                return Err(Refusal::EmptyLine);
            }
        }
        self.searched = bytes.len();
        if bytes.len() >= self.max_head {
            return Err(Refusal::HeadTooLarge);
        }
        Ok(None)
    }

    /// Refuses at once what can never become a request, such as a TLS handshake, rather than wait for its line end.
    fn first_byte(&self, bytes: &[u8]) -> Result<(), Refusal> {
        if self.head.has_started() {
            return Ok(());
        }
        match bytes.get(self.line_start) {
            None | Some(b'\r' | b'\n') => Ok(()),
            Some(b' ' | b'\t') => Err(Refusal::LeadingWhitespace),
            Some(byte) if starts_request(*byte) => Ok(()),
            Some(byte) if *byte < 0x20 || *byte == 0x7f => Err(Refusal::ControlByte),
            Some(_) => Err(Refusal::Method),
        }
    }

    fn finish(&mut self) -> Result<(), Refusal> {
        let content = self.head.finish()?;
        self.upgrade = self.head.asks_upgrade();
        self.head = Head::default();
        self.line_start = 0;
        self.searched = 0;
        self.requests += 1;
        self.at = match content {
            Content::Length(0) => At::Head,
            Content::Length(length) => At::Body(length),
            Content::Chunked => At::Chunks(Box::default()),
        };
        Ok(())
    }
}

/// Whether `bytes` start with the HTTP/2 preface; none when too few have come to tell.
fn preface(bytes: &[u8]) -> Option<bool> {
    match bytes.get(..H2_PREFACE.len()) {
        Some(start) => Some(start == H2_PREFACE),
        None if H2_PREFACE.starts_with(bytes) => None,
        None => Some(false),
    }
}

#[cfg(test)]
mod tests;
