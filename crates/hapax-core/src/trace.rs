//! The spans of one request, and the W3C trace context that ties them to those of others.
//!
//! Nothing here is made unless an observer asks for it ([`Observer::wants_spans`](crate::event::Observer::wants_spans)).

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::secret::write_hex;

/// W3C Trace Context: where a request stands in its trace.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// What vendors say about a trace; meaningless without [`TRACEPARENT`].
pub const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// More of a `tracestate` than any vendor may rely on (W3C Trace Context 3.3.1.5 asks for 512).
const MAX_TRACESTATE: usize = 512;

/// A place in a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The trace.
    pub trace: [u8; 16],
    /// The span in it.
    pub span: [u8; 8],
    /// Whether the trace is recorded.
    pub is_sampled: bool,
}

impl Place {
    /// Reads a `traceparent` of version 00, or of a later one as far as it is like it.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let (version, trace, span, flags) =
            (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let is_lower = |part: &str| part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if version.len() != 2 || version == "ff" || !is_lower(version) || flags.len() != 2 {
            return None;
        }
        if version == "00" && parts.next().is_some() {
            return None;
        }
        let (trace, span) = (bytes::<16>(trace)?, bytes::<8>(span)?);
        let [flags] = bytes::<1>(flags)?;
        (trace != [0; 16] && span != [0; 8]).then_some(Self {
            trace,
            span,
            is_sampled: flags & 1 == 1,
        })
    }

    /// The same trace, at another span.
    #[must_use]
    pub const fn at(self, span: [u8; 8]) -> Self {
        Self { span, ..self }
    }
}

/// As a `traceparent`.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("00-")?;
        write_hex(f, &self.trace)?;
        f.write_str("-")?;
        write_hex(f, &self.span)?;
        write!(f, "-{:02x}", u8::from(self.is_sampled))
    }
}

fn bytes<const N: usize>(hex: &str) -> Option<[u8; N]> {
    if hex.len() != 2 * N || !hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        return None;
    }
    let mut out = [0; N];
    for (index, byte) in out.iter_mut().enumerate() {
        *byte = u8::from_str_radix(hex.get(2 * index..2 * index + 2)?, 16).ok()?;
    }
    Some(out)
}

/// What a part of a request's time was spent on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// Asking the store for the key.
    Claim,
    /// The request is with the upstream.
    Upstream,
    /// Asking the upstream whether an operation happened.
    Probe,
    /// Writing down how the operation ended.
    Complete,
}

/// A part of a request's time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// What it was spent on.
    pub work: Work,
    /// The span's id.
    pub span: [u8; 8],
    /// When it began, after the request arrived.
    pub from: Duration,
    /// How long it took.
    pub took: Duration,
}

/// Random bytes for the ids of one request.
pub const ID_BYTES: usize = 16 + 8 + 8 * MAX_PARTS;
/// The most parts that are told of one request.
const MAX_PARTS: usize = 6;

/// The spans of one request.
#[derive(Debug, Clone)]
pub struct Spans {
    /// The request's own span.
    pub place: Place,
    /// The caller's span.
    pub parent: Option<[u8; 8]>,
    /// The caller's `tracestate`, passed on.
    pub state: Option<HeaderValue>,
    /// Its parts, in the order in which they ended.
    pub parts: Vec<Part>,
    /// Where the answer comes from a record: the `traceparent` of the execution.
    pub first: Option<Arc<str>>,
    ids: [[u8; 8]; MAX_PARTS],
}

impl Spans {
    /// Continues the trace of a request, or begins one, and writes the request's own place into its fields, for the record and
    /// for the upstream. `random` is fresh for every request.
    pub fn begin(headers: &mut HeaderMap, random: [u8; ID_BYTES]) -> Box<Self> {
        let (trace, rest) = random
            .split_first_chunk::<16>()
            .map_or(([1; 16], &[][..]), |(a, b)| (*a, b));
        let mut ids = [[1; 8]; MAX_PARTS + 1];
        for (id, chunk) in ids.iter_mut().zip(rest.chunks_exact(8)) {
            for (to, from) in id.iter_mut().zip(chunk) {
                *to = *from;
            }
        }
        let [own, ids @ ..] = ids;
        let mut lines = headers.get_all(TRACEPARENT).iter();
        let caller = match (lines.next(), lines.next()) {
            (Some(line), None) => line.to_str().ok().and_then(Place::parse),
            _ => None,
        };
        let state = match caller {
            Some(_) => headers
                .get(TRACESTATE)
                .filter(|state| state.len() <= MAX_TRACESTATE)
                .cloned(),
            None => {
                headers.remove(TRACESTATE);
                None
            }
        };
        let root = Place {
            trace,
            span: own,
            is_sampled: true,
        };
        let place = caller.map_or(root, |caller| caller.at(own));
        set(headers, place);
        Box::new(Self {
            place,
            parent: caller.map(|caller| caller.span),
            state,
            parts: Vec::with_capacity(3),
            first: None,
            ids,
        })
    }

    /// The id of the part that is told next.
    pub fn next_id(&self) -> Option<[u8; 8]> {
        self.ids.get(self.parts.len()).copied()
    }

    /// Tells of a part. Beyond six, parts of a request that waits and looks again are not told.
    pub fn tell(&mut self, work: Work, from: Duration, until: Duration) {
        if let Some(span) = self.next_id() {
            self.parts.push(Part {
                work,
                span,
                from,
                took: until.saturating_sub(from),
            });
        }
    }

    /// Writes the place of the part that is told next into the fields of a request to the upstream.
    pub fn hand_on(&self, headers: &mut HeaderMap) {
        if let Some(id) = self.next_id() {
            set(headers, self.place.at(id));
        }
    }
}

fn set(headers: &mut HeaderMap, place: Place) {
    // Hexadecimal digits and dashes are a value.
    if let Ok(value) = HeaderValue::from_str(&place.to_string()) {
        headers.insert(TRACEPARENT, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALLER: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn begun(fields: &[(HeaderName, &str)]) -> (HeaderMap, Box<Spans>) {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(name, HeaderValue::from_str(value).expect("a value"));
        }
        let mut random = [7; ID_BYTES];
        random[16..24].copy_from_slice(&[9; 8]);
        let spans = Spans::begin(&mut headers, random);
        (headers, spans)
    }

    #[test]
    fn a_callers_trace_is_continued_and_its_state_passed_on() {
        let (headers, mut spans) = begun(&[(TRACEPARENT, CALLER), (TRACESTATE, "a=b")]);
        let caller = Place::parse(CALLER).expect("a place");
        assert_eq!(spans.place, caller.at([9; 8]));
        assert_eq!(spans.parent, Some(caller.span));
        assert_eq!(
            headers[TRACEPARENT],
            "00-0af7651916cd43dd8448eb211c80319c-0909090909090909-01"
        );
        assert_eq!(headers[TRACESTATE], "a=b");
        let mut sent = headers.clone();
        spans.hand_on(&mut sent);
        assert_eq!(
            sent[TRACEPARENT],
            "00-0af7651916cd43dd8448eb211c80319c-0707070707070707-01"
        );
        for _ in 0..2 * MAX_PARTS {
            spans.tell(Work::Claim, Duration::ZERO, Duration::from_millis(1));
        }
        assert_eq!(spans.parts.len(), MAX_PARTS);
    }

    #[test]
    fn what_is_no_trace_begins_a_new_one() {
        for parent in [
            "",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x",
        ] {
            let (headers, spans) = begun(&[(TRACEPARENT, parent), (TRACESTATE, "a=b")]);
            assert_eq!(
                (spans.place.trace, spans.parent),
                ([7; 16], None),
                "{parent}"
            );
            assert!(spans.place.is_sampled);
            assert!(!headers.contains_key(TRACESTATE), "{parent}");
        }
        let (_, twice) = begun(&[(TRACEPARENT, CALLER), (TRACEPARENT, CALLER)]);
        assert_eq!(twice.parent, None);
        let (_, spans) = begun(&[(
            TRACEPARENT,
            "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00-later",
        )]);
        assert!(spans.parent.is_some() && !spans.place.is_sampled);
    }
}
