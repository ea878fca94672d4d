//! Informational answers (1xx) of the upstream on their way to a client of HTTP/1.1 (P31).
//!
//! hyper's server cannot send them, so the wire below it does. A byte in the wrong place would let a client take one answer
//! for another. The right places follow from what hyper's HTTP/1 server does, which tests with raw sockets hold it to:
//!
//! 1. It calls the service for a request when it has encoded the answer before to its end, and has tried to write it.
//! 2. It encodes nothing of a request's answer before the service's future has ended, but for a whole `100 Continue`.
//! 3. It flushes the wire only when it has handed over all that it has encoded.
//!
//! So a flush while a request is *open* (from the call to the end of its future) is a place between two messages. When the
//! future ends while nothing has been written since such a flush, the next byte written begins a message, too, and what
//! waits goes before it. When something has been, the bytes of the answer before may not all be out: what waits is dropped.
//!
//! An informational answer belongs to one request, by number: one that comes when that is answered or gone is dropped.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use hapax_core::settle::strip_ours;
use http::{HeaderMap, StatusCode, header};
use pin_project_lite::pin_project;

use super::connection::ConnectionState;
use super::forward::strip_response;

/// How many informational answers a request may have; those that follow are dropped.
const MOST: usize = 16;
/// How many bytes they may have together.
const MOST_BYTES: usize = 16 * 1024;

/// What a connection has to send between its answers. Only its own task and those of its upstream requests touch it.
#[derive(Debug)]
pub(crate) struct Interims {
    /// Whether hyper has handed over all that it has encoded.
    is_flushed: AtomicBool,
    /// Whether anything waits: asked at every write.
    is_waiting: AtomicBool,
    queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    /// The number of the latest request.
    latest: u64,
    /// Whether that one is open.
    is_open: bool,
    /// How many informational answers it has had.
    count: usize,
    /// Their bytes together.
    total: usize,
    /// Those that wait, whole.
    bytes: Vec<u8>,
}

impl Default for Interims {
    fn default() -> Self {
        Self {
            is_flushed: AtomicBool::new(true),
            is_waiting: AtomicBool::new(false),
            queue: Mutex::default(),
        }
    }
}

impl Interims {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request has come: its number.
    fn open(&self) -> u64 {
        let mut queue = self.queue();
        let latest = queue.latest.wrapping_add(1);
        *queue = Queue {
            latest,
            is_open: true,
            ..Queue::default()
        };
        self.is_waiting.store(false, Ordering::Release);
        latest
    }

    /// The request's answer is there, or nobody waits for it any more.
    fn close(&self, request: u64) {
        let mut queue = self.queue();
        if queue.latest != request || !queue.is_open {
            return;
        }
        queue.is_open = false;
        if !self.is_flushed.load(Ordering::Acquire) {
            queue.bytes = Vec::new();
            self.is_waiting.store(false, Ordering::Release);
        }
    }

    /// Takes a message for a request; whether it did.
    fn push(&self, request: u64, message: &[u8]) -> bool {
        let mut queue = self.queue();
        let total = queue.total + message.len();
        if queue.latest != request || !queue.is_open || queue.count >= MOST || total > MOST_BYTES {
            return false;
        }
        queue.count += 1;
        queue.total = total;
        queue.bytes.extend_from_slice(message);
        self.is_waiting.store(true, Ordering::Release);
        true
    }

    /// The wire is flushed: what may be written now goes to the end of `out`.
    pub(crate) fn at_flush(&self, out: &mut Vec<u8>) {
        self.is_flushed.store(true, Ordering::Release);
        if self.is_waiting.load(Ordering::Acquire) {
            self.take(out, true);
        }
    }

    /// The wire is written to: what must be written before that goes to the end of `out`.
    pub(crate) fn at_write(&self, out: &mut Vec<u8>) {
        let was_flushed = self.is_flushed.swap(false, Ordering::AcqRel);
        if was_flushed && self.is_waiting.load(Ordering::Acquire) {
            self.take(out, false);
        }
    }

    fn take(&self, out: &mut Vec<u8>, is_open: bool) {
        let mut queue = self.queue();
        if queue.is_open == is_open {
            out.append(&mut queue.bytes);
            self.is_waiting.store(false, Ordering::Release);
        }
    }
}

/// Lets a request's informational answers reach its client (extension of HTTP/1.1 requests).
#[derive(Clone, Debug)]
pub(crate) struct Informer {
    state: Arc<ConnectionState>,
    request: u64,
}

impl Informer {
    /// Sends one, as far as it is one to pass on.
    pub(crate) fn tell(&self, status: StatusCode, headers: &HeaderMap) {
        let Some(message) = message(status, headers.clone()) else {
            return;
        };
        if self.state.interims().push(self.request, &message) {
            self.state.wake();
        }
    }
}

/// An informational answer as it is written. None for 100, which hyper's server says by itself, for 101, which is no
/// informational answer but the end of HTTP on the connection, and for what is none.
fn message(status: StatusCode, mut headers: HeaderMap) -> Option<Vec<u8>> {
    if !status.is_informational() || matches!(status.as_u16(), 100 | 101) {
        return None;
    }
    strip_response(&mut headers);
    strip_ours(&mut headers);
    // It has no content (RFC 9110 section 15.2), whatever the upstream says.
    headers.remove(header::CONTENT_LENGTH);
    let reason = status.canonical_reason().unwrap_or_default();
    let mut message = format!("HTTP/1.1 {} {reason}\r\n", status.as_str()).into_bytes();
    for (name, value) in &headers {
        message.extend_from_slice(name.as_str().as_bytes());
        message.extend_from_slice(b": ");
        message.extend_from_slice(value.as_bytes());
        message.extend_from_slice(b"\r\n");
    }
    message.extend_from_slice(b"\r\n");
    Some(message)
}

pin_project! {
    /// A service's future, during which its request is open.
    pub(crate) struct Answering<F> {
        #[pin]
        future: F,
        open: Option<Open>,
    }
}

/// An open request; closed when dropped.
struct Open(Informer);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.state.interims().close(self.0.request);
    }
}

/// Opens a request of a connection that can carry informational answers.
pub(crate) fn open(state: &Arc<ConnectionState>) -> Informer {
    Informer {
        state: Arc::clone(state),
        request: state.interims().open(),
    }
}

impl<F> Answering<F> {
    /// Closes the request that `informer` tells of when `future` ends.
    pub(crate) fn new(future: F, informer: Option<Informer>) -> Self {
        Self {
            future,
            open: informer.map(Open),
        }
    }
}

impl<F: Future> Future for Answering<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let ended = this.future.poll(cx);
        if ended.is_ready() {
            *this.open = None;
        }
        ended
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn taken(take: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        take(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn what_waits_is_written_at_a_flush_while_its_request_is_open() {
        let interims = Interims::default();
        let request = interims.open();
        assert!(interims.push(request, b"one"));
        assert!(interims.push(request, b"two"));
        assert_eq!(taken(|out| interims.at_flush(out)), "onetwo");
        assert_eq!(taken(|out| interims.at_flush(out)), "");
    }

    #[test]
    fn bytes_of_an_earlier_answer_are_never_interrupted() {
        let interims = Interims::default();
        let request = interims.open();
        // The answer before is still being written.
        assert_eq!(taken(|out| interims.at_write(out)), "");
        assert!(interims.push(request, b"one"));
        assert_eq!(taken(|out| interims.at_write(out)), "");
        assert_eq!(taken(|out| interims.at_flush(out)), "one");
        assert_eq!(taken(|out| interims.at_write(out)), "");
        assert!(interims.push(request, b"two"));
        // Its own answer is there, behind bytes that are not out.
        interims.close(request);
        assert_eq!(taken(|out| interims.at_write(out)), "");
        assert_eq!(taken(|out| interims.at_flush(out)), "");
    }

    #[test]
    fn what_waits_when_the_answer_is_there_goes_before_it() {
        let interims = Interims::default();
        let request = interims.open();
        assert_eq!(taken(|out| interims.at_flush(out)), "");
        assert!(interims.push(request, b"one"));
        interims.close(request);
        assert_eq!(
            taken(|out| interims.at_flush(out)),
            "",
            "the place is before a write"
        );
        assert_eq!(taken(|out| interims.at_write(out)), "one");
        assert_eq!(taken(|out| interims.at_write(out)), "");
    }

    #[test]
    fn a_request_that_is_answered_or_not_the_latest_is_told_nothing() {
        let interims = Interims::default();
        let first = interims.open();
        interims.close(first);
        assert!(!interims.push(first, b"late"));
        let second = interims.open();
        assert!(!interims.push(first, b"late"));
        interims.close(first);
        assert!(interims.push(second, b"own"), "another's end closed it");
        let third = interims.open();
        assert_eq!(taken(|out| interims.at_flush(out)), "");
        assert!(interims.push(third, b"own"));
    }

    #[test]
    fn their_number_and_bytes_are_bounded() {
        let interims = Interims::default();
        let request = interims.open();
        for _ in 0..MOST {
            assert!(interims.push(request, b"x"));
            assert_eq!(taken(|out| interims.at_flush(out)), "x");
        }
        assert!(!interims.push(request, b"x"));
        let request = interims.open();
        assert!(!interims.push(request, &vec![b'x'; MOST_BYTES + 1]));
        assert!(interims.push(request, &vec![b'x'; MOST_BYTES]));
        assert!(!interims.push(request, b"x"));
    }

    #[test]
    fn fields_that_frame_or_belong_to_a_hop_or_to_us_are_not_passed_on() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("link", "<a>; rel=preload"),
            ("link", "<b>"),
            ("connection", "x-hop"),
            ("x-hop", "1"),
            ("transfer-encoding", "chunked"),
            ("content-length", "10"),
            ("trailer", "x"),
            ("upgrade", "h2c"),
            ("keep-alive", "timeout=1"),
            ("idempotent-replayed", "true"),
            ("hapax-outcome", "complete"),
        ] {
            headers.append(name, HeaderValue::from_static(value));
        }
        let written = message(StatusCode::EARLY_HINTS, headers).unwrap();
        assert_eq!(
            String::from_utf8(written).unwrap(),
            "HTTP/1.1 103 Early Hints\r\nlink: <a>; rel=preload\r\nlink: <b>\r\n\r\n"
        );
        let unknown = StatusCode::from_u16(199).unwrap();
        assert_eq!(
            message(unknown, HeaderMap::new()).unwrap(),
            b"HTTP/1.1 199 \r\n\r\n"
        );
        for none in [100, 101, 200, 304] {
            let status = StatusCode::from_u16(none).unwrap();
            assert_eq!(message(status, HeaderMap::new()), None, "{none}");
        }
    }
}
