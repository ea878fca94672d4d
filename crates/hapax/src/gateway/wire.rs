//! A connection's bytes under [`framing`](super::framing) and deadlines, as hyper reads and writes them.
//!
//! 1. hyper never sees a byte of a head before the head is complete and sound.
//! 2. In place of a refused head hyper gets a synthetic one, then the end of input: the requests before it are
//!    answered first, then the refusal, then the connection ends.
//! 3. Bad content is a read error, so that the body never completes.
//! 4. Nothing is kept but the start of an incomplete head.
//! 5. Between two answers the upstream's informational ones are written ([`interim`](super::interim)).
//! 6. Every wait has an end: for a request, for the rest of its head, for a byte of its body, for the client to
//!    take a byte of an answer.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};

use super::{
    connection::ConnectionState,
    framing::{Framing, Phase, Protocol, Stop},
    refusal::{Refusal, synthetic_head},
};
use crate::timer::Timer;

/// How long a connection that was closed early still reads, so that a reset does not overtake the last answer.
const LINGER: Duration = Duration::from_secs(1);
/// Bytes such a connection still reads at most.
const LINGER_BYTES: usize = 1 << 20;
/// Capacity of the hold-back buffer that is kept for the next incomplete head.
const HELD_CAPACITY: usize = 4096;

/// How long a connection may wait for its client.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadlines {
    /// From the first byte of a head to its last.
    pub(crate) head: Duration,
    /// Between requests.
    pub(crate) idle: Duration,
    /// Without a byte of a body that is being read.
    pub(crate) body_stall: Duration,
    /// Without progress of an answer that is being written.
    pub(crate) answer_stall: Duration,
}

impl Default for Deadlines {
    /// Generous for people on bad networks, short enough that 10,000 silent clients cost one minute.
    fn default() -> Self {
        Self {
            head: Duration::from_secs(10),
            idle: Duration::from_secs(60),
            body_stall: Duration::from_secs(30),
            answer_stall: Duration::from_secs(30),
        }
    }
}

/// A judged connection.
#[derive(Debug)]
pub(crate) struct Wire<IO> {
    io: IO,
    framing: Framing,
    deadlines: Deadlines,
    state: Arc<ConnectionState>,
    /// Bytes that wait: first those that may pass (from `given` to `ready`), then the start of a head.
    held: Vec<u8>,
    given: usize,
    ready: usize,
    end: Option<End>,
    /// Since when the phase's wait has lasted; none while nothing waits.
    waiting: Option<(Phase, Instant)>,
    read_timer: Timer,
    writing: Option<Instant>,
    write_timer: Timer,
    /// Informational answers that have their place here, before anything else is written, and how much of them is out.
    interim: Vec<u8>,
    interim_out: usize,
    /// Since when a closed connection has been read out, and how many bytes came.
    lingering: Option<Instant>,
    lingered: usize,
}

/// What comes after the held bytes, instead of the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The client has closed its side.
    Closed,
    /// A refusal has been put in place of a head.
    Refused,
    /// Content was bad.
    Broken(Refusal),
    /// A body stalled.
    Stalled,
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Wire<IO> {
    /// Begins to judge `io`.
    pub(crate) fn new(
        io: IO,
        framing: Framing,
        deadlines: Deadlines,
        state: Arc<ConnectionState>,
    ) -> Self {
        Self {
            io,
            framing,
            deadlines,
            state,
            held: Vec::new(),
            given: 0,
            ready: 0,
            end: None,
            waiting: None,
            read_timer: Timer::default(),
            writing: None,
            write_timer: Timer::default(),
            interim: Vec::new(),
            interim_out: 0,
            lingering: None,
            lingered: 0,
        }
    }

    /// Waits for the first head: HTTP/2 if it is the preface, otherwise none. No byte is lost.
    pub(crate) fn poll_protocol(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Option<Protocol>>> {
        let mut scratch = [0; 4096];
        while self.given == self.ready && self.end.is_none() && self.framing.protocol().is_none() {
            let mut buf = ReadBuf::new(&mut scratch);
            ready!(self.poll_fill(cx, &mut buf))?;
            self.ready += buf.filled().len();
            // What passed came before what is held.
            self.held.splice(0..0, buf.filled().iter().copied());
        }
        Poll::Ready(Ok(self.framing.protocol()))
    }

    /// Reads once from the socket: what may pass at once is in `buf`, the rest in `held`.
    fn poll_fill(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.framing.awaits_upgrade() && self.state.is_tunnel() {
            self.framing.become_tunnel();
            self.ready = self.held.len();
            if self.ready > 0 {
                return Poll::Ready(Ok(()));
            }
        }
        let start = buf.filled().len();
        match Pin::new(&mut self.io).poll_read(cx, buf) {
            Poll::Pending => return self.poll_read_deadline(cx),
            Poll::Ready(result) => result?,
        }
        let read = buf.filled().get(start..).unwrap_or_default();
        if read.is_empty() {
            self.end = Some(End::Closed);
            return Poll::Ready(Ok(()));
        }
        if self.held.is_empty() {
            let progress = self.framing.feed(read);
            let pass = progress.passed;
            if progress.stop.is_none() {
                self.held
                    .extend_from_slice(read.get(pass..).unwrap_or_default());
            }
            buf.set_filled(start + pass);
            self.waiting = None;
            self.stop(progress.stop);
        } else {
            self.held.extend_from_slice(read);
            buf.set_filled(start);
            let progress = self.framing.feed(&self.held);
            self.ready = progress.passed;
            if progress.stop.is_some() {
                self.held.truncate(progress.passed);
            }
            if progress.passed > 0 {
                self.waiting = None;
            }
            self.stop(progress.stop);
        }
        Poll::Ready(Ok(()))
    }

    fn stop(&mut self, stop: Option<Stop>) {
        match stop {
            None => {}
            Some(Stop::Head(refusal)) => self.refuse(refusal),
            Some(Stop::Body(refusal)) => self.end = Some(End::Broken(refusal)),
        }
    }

    /// Puts a synthetic head in place of what is held and has not passed.
    fn refuse(&mut self, refusal: Refusal) {
        self.held.truncate(self.ready);
        self.held.extend_from_slice(&synthetic_head(refusal));
        self.ready = self.held.len();
        self.end = Some(End::Refused);
    }

    /// Pending, or ready when the wait is over and `end` says how.
    fn poll_read_deadline(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let phase = self.framing.phase(self.held.len() - self.ready);
        let limit = match phase {
            Phase::Idle => self.deadlines.idle,
            Phase::Head => self.deadlines.head,
            Phase::Body => self.deadlines.body_stall,
            Phase::Transparent => return Poll::Pending,
        };
        let since = match self.waiting {
            Some((waited, since)) if waited == phase => since,
            _ => {
                let now = Instant::now();
                self.waiting = Some((phase, now));
                now
            }
        };
        ready!(self.read_timer.poll(cx, since + limit));
        match phase {
            Phase::Head => self.refuse(Refusal::HeadTimeout),
            Phase::Body => self.end = Some(End::Stalled),
            Phase::Idle | Phase::Transparent => self.end = Some(End::Closed),
        }
        Poll::Ready(Ok(()))
    }

    /// Moves what may pass into `buf`; whether there was any.
    fn give(&mut self, buf: &mut ReadBuf<'_>) -> bool {
        let waiting = self.held.get(self.given..self.ready).unwrap_or_default();
        let part = waiting.get(..buf.remaining()).unwrap_or(waiting);
        if part.is_empty() {
            return false;
        }
        buf.put_slice(part);
        self.given += part.len();
        if self.given == self.ready {
            self.held.drain(..self.ready);
            self.held.shrink_to(HELD_CAPACITY);
            self.given = 0;
            self.ready = 0;
        }
        true
    }

    fn poll_written<T>(
        &mut self,
        cx: &mut Context<'_>,
        result: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if result.is_ready() {
            self.writing = None;
            return result;
        }
        let since = *self.writing.get_or_insert_with(Instant::now);
        ready!(
            self.write_timer
                .poll(cx, since + self.deadlines.answer_stall)
        );
        Poll::Ready(Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "the client takes no bytes",
        )))
    }

    /// Writes the informational answers that have their place here, to the end.
    fn poll_interim(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest) = self
            .interim
            .get(self.interim_out..)
            .filter(|rest| !rest.is_empty())
        {
            let result = Pin::new(&mut self.io).poll_write(cx, rest);
            let written = ready!(self.poll_written(cx, result))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.interim_out += written;
        }
        if self.interim_out > 0 {
            self.interim = Vec::new();
            self.interim_out = 0;
        }
        Poll::Ready(Ok(()))
    }

    /// Whether the client may be sending what nobody will read.
    fn must_linger(&self) -> bool {
        match self.end {
            Some(End::Refused | End::Broken(_)) => true,
            Some(End::Closed | End::Stalled) => false,
            None => self.framing.phase(0) == Phase::Body,
        }
    }

    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let since = *self.lingering.get_or_insert_with(Instant::now);
        let mut scratch = [0; 4096];
        while self.lingered < LINGER_BYTES && self.write_timer.poll(cx, since + LINGER).is_pending()
        {
            let mut buf = ReadBuf::new(&mut scratch);
            match ready!(Pin::new(&mut self.io).poll_read(cx, &mut buf)) {
                Ok(()) if !buf.filled().is_empty() => self.lingered += buf.filled().len(),
                // The client has closed or is gone: nothing is left to lose.
                Ok(()) | Err(_) => break,
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncRead for Wire<IO> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let start = buf.filled().len();
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        loop {
            if this.give(buf) || buf.filled().len() > start {
                return Poll::Ready(Ok(()));
            }
            match this.end {
                None => ready!(this.poll_fill(cx, buf))?,
                Some(End::Closed | End::Refused) => return Poll::Ready(Ok(())),
                Some(End::Broken(refusal)) => {
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, refusal)));
                }
                Some(End::Stalled) => {
                    return Poll::Ready(Err(io::Error::new(
                        io::ErrorKind::TimedOut,
                        "the body stalled",
                    )));
                }
            }
        }
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Wire<IO> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.state.interims().at_write(&mut this.interim);
        ready!(this.poll_interim(cx))?;
        let result = Pin::new(&mut this.io).poll_write(cx, bytes);
        this.poll_written(cx, result)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.state.interims().at_write(&mut this.interim);
        ready!(this.poll_interim(cx))?;
        let result = Pin::new(&mut this.io).poll_write_vectored(cx, slices);
        this.poll_written(cx, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.state.interims().at_flush(&mut this.interim);
        ready!(this.poll_interim(cx))?;
        let result = Pin::new(&mut this.io).poll_flush(cx);
        this.poll_written(cx, result)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.lingering.is_none() {
            let result = Pin::new(&mut this.io).poll_shutdown(cx);
            ready!(this.poll_written(cx, result))?;
        }
        if this.must_linger() {
            this.poll_linger(cx)
        } else {
            Poll::Ready(Ok(()))
        }
    }
}

#[cfg(test)]
mod tests;
