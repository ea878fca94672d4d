//! The operation behind the gateways: writes its effect down, and then answers, or does not.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep};

use super::effects::EffectLog;
use super::event::{Recorder, digest};
use crate::evidence::Effect;
use crate::random::Random;

/// How the upstream behaves at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Answers everything at once with 200, 201 or 402.
    Calm,
    /// As an ordinary service: some 429, 503, 500, and now and then slow.
    Fair,
    /// Acts before or after a pause that is longer than the gateway waits.
    Slow,
    /// Says nothing until the mode changes; some of it acts first, some of it then.
    Hole,
    /// Acts, sends the first k bytes of the answer, and resets or closes the connection.
    Reset,
}

/// A server on a port of its own that can be killed and started again.
pub(crate) struct Upstream {
    address: SocketAddr,
    shared: Arc<Shared>,
    running: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    log: EffectLog,
    recorder: Arc<Recorder>,
    mode: watch::Sender<Mode>,
    random: Mutex<Random>,
    /// The next boundary of a reset: every one has its turn.
    boundary: AtomicU64,
    turn: AtomicU64,
}

/// What is done with one request.
enum Act {
    Answer(u16),
    /// Without an effect.
    Refuse(u16),
    /// A pause before the effect and one after it.
    Slow(u64, u64),
    /// Whether the effect is before the silence.
    Silence(bool),
    /// Whether the end of the connection is a reset.
    Cut(bool),
    /// A reset with neither effect nor answer.
    Drop,
}

struct Request {
    key: String,
    scope: String,
    payload: String,
}

impl Upstream {
    /// Listens below the ports that the system gives to others, so that its own is free after a kill.
    pub(crate) async fn start(
        log: EffectLog,
        recorder: Arc<Recorder>,
        mut random: Random,
    ) -> io::Result<Self> {
        let mut tries = 0;
        let (listener, address) = loop {
            let port = u16::try_from(random.within(15_000, 30_000)).unwrap_or(15_000);
            let address = SocketAddr::from(([127, 0, 0, 1], port));
            match bind(address) {
                Ok(listener) => break (listener, address),
                Err(error) if tries >= 100 => return Err(error),
                Err(_) => tries += 1,
            }
        };
        let boundary = AtomicU64::new(random.next() % 1024);
        let upstream = Self {
            address,
            shared: Arc::new(Shared {
                log,
                recorder,
                mode: watch::channel(Mode::Calm).0,
                random: Mutex::new(random),
                boundary,
                turn: AtomicU64::new(0),
            }),
            running: Mutex::new(None),
        };
        upstream.run(listener);
        Ok(upstream)
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn set(&self, mode: Mode) {
        self.shared.mode.send_replace(mode);
    }

    /// How many requests it has had.
    pub(crate) fn requests(&self) -> u64 {
        self.shared.turn.load(Ordering::Relaxed)
    }

    /// Ends it with everything that it was doing: what is written down stays, what was not answered never will be.
    pub(crate) async fn kill(&self) {
        let running = self.running().take();
        if let Some(running) = running {
            running.abort();
            drop(running.await);
        }
    }

    /// Starts it again, if it does not run, on the same port.
    pub(crate) async fn restart(&self) -> io::Result<()> {
        if self.running().is_some() {
            return Ok(());
        }
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            match bind(self.address) {
                Ok(listener) => {
                    self.run(listener);
                    return Ok(());
                }
                Err(error) if Instant::now() > deadline => return Err(error),
                Err(_) => sleep(Duration::from_millis(20)).await,
            }
        }
    }

    fn running(&self) -> std::sync::MutexGuard<'_, Option<JoinHandle<()>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, listener: TcpListener) {
        let shared = Arc::clone(&self.shared);
        *self.running() = Some(tokio::spawn(accept(listener, shared)));
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        if let Some(running) = self.running().take() {
            running.abort();
        }
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(1024)
}

/// The connections end with it.
async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        if let Ok((stream, _)) = listener.accept().await {
            connections.spawn(serve(stream, Arc::clone(&shared)));
        }
        while connections.try_join_next().is_some() {}
    }
}

async fn serve(mut stream: TcpStream, shared: Arc<Shared>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = Vec::new();
    while let Some(request) = read(&mut stream, &mut buffer).await? {
        match shared.choose() {
            Act::Answer(status) => {
                let effect = shared.act(&request).await?;
                stream.write_all(&answer(status, effect, &request)).await?;
            }
            Act::Refuse(status) => stream.write_all(&refusal(status)).await?,
            Act::Slow(before, after) => {
                sleep(Duration::from_millis(before)).await;
                let effect = shared.act(&request).await?;
                sleep(Duration::from_millis(after)).await;
                stream.write_all(&answer(201, effect, &request)).await?;
            }
            Act::Silence(is_first) => {
                let early = match is_first {
                    true => Some(shared.act(&request).await?),
                    false => None,
                };
                let mut mode = shared.mode.subscribe();
                drop(mode.wait_for(|mode| *mode != Mode::Hole).await);
                let effect = match early {
                    Some(effect) => effect,
                    None => shared.act(&request).await?,
                };
                stream.write_all(&answer(201, effect, &request)).await?;
            }
            Act::Cut(is_reset) => {
                let effect = shared.act(&request).await?;
                let bytes = answer(201, effect, &request);
                let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
                let turn = shared.boundary.fetch_add(1, Ordering::Relaxed);
                let at = usize::try_from(turn % (length + 1)).unwrap_or(0);
                stream.write_all(bytes.get(..at).unwrap_or(&bytes)).await?;
                if is_reset {
                    stream.set_zero_linger()?;
                }
                return Ok(());
            }
            Act::Drop => return stream.set_zero_linger(),
        }
    }
    Ok(())
}

impl Shared {
    /// The effect itself: done when it is on disk.
    async fn act(&self, request: &Request) -> io::Result<u64> {
        let effect = Effect {
            at_us: self.recorder.now_us(),
            key: request.key.clone(),
            scope: request.scope.clone(),
            payload: request.payload.clone(),
            effect: 0,
            answer: None,
        };
        self.log.add(effect).await
    }

    fn choose(&self) -> Act {
        let mode = *self.mode.borrow();
        let mut random = self.random.lock().unwrap_or_else(PoisonError::into_inner);
        // Everything has its turn: a short round must not lack something by chance.
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let act = match mode {
            Mode::Calm => Act::Answer(final_status(&mut random)),
            Mode::Fair => match turn % 25 {
                3 => Act::Answer(500),
                8 => Act::Refuse(503),
                13 => Act::Refuse(429),
                18 | 23 => Act::Slow(short(&mut random), short(&mut random)),
                _ => Act::Answer(final_status(&mut random)),
            },
            Mode::Slow => match turn % 3 {
                0 => Act::Slow(long(&mut random), 0),
                1 => Act::Slow(0, long(&mut random)),
                _ => Act::Slow(short(&mut random), short(&mut random)),
            },
            Mode::Hole => Act::Silence(turn.is_multiple_of(2)),
            Mode::Reset => match turn % 8 {
                0 => Act::Drop,
                1 | 2 => Act::Cut(false),
                _ => Act::Cut(true),
            },
        };
        let name = match act {
            Act::Answer(500) => "upstream-500",
            Act::Refuse(_) => "upstream-refuses",
            Act::Cut(true) => "upstream-acts-and-resets",
            Act::Cut(false) => "upstream-acts-and-closes",
            Act::Drop => "upstream-drops",
            Act::Silence(true) => "upstream-acts-and-is-silent",
            Act::Silence(false) => "upstream-acts-late",
            Act::Slow(..) if mode == Mode::Slow => "upstream-slow-answer",
            Act::Answer(_) | Act::Slow(..) => return act,
        };
        self.recorder.count(name);
        act
    }
}

fn final_status(random: &mut Random) -> u16 {
    match random.within(0, 9) {
        0 => 402,
        1 => 200,
        _ => 201,
    }
}

fn short(random: &mut Random) -> u64 {
    u64::try_from(random.within(0, 150)).unwrap_or(0)
}

/// From within the gateway's patience to far beyond it.
fn long(random: &mut Random) -> u64 {
    u64::try_from(random.within(300, 2500)).unwrap_or(0)
}

/// One request in full, or nothing when the connection ends before or within one.
async fn read(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> io::Result<Option<Request>> {
    let end = loop {
        if let Some(at) = buffer.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            break at + 4;
        }
        if stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    };
    let head: Vec<u8> = buffer.drain(..end).collect();
    let head = String::from_utf8_lossy(&head).into_owned();
    let field = |name: &str| {
        head.lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(field, _)| field.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim().to_owned())
    };
    let length: usize = field("content-length")
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| io::Error::other("a keyed request without a length"))?;
    while buffer.len() < length {
        if stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    }
    let body: Vec<u8> = buffer.drain(..length).collect();
    Ok(Some(Request {
        key: field("idempotency-key").unwrap_or_default(),
        scope: field("authorization").unwrap_or_default(),
        payload: digest(&body),
    }))
}

/// Content that no other effect has. Its size varies with the effect.
pub(crate) fn content(effect: u64, key: &str, payload: &str) -> String {
    // Most are short, so that a reset comes to each of their boundaries; some are long enough to fill journals.
    let pad = match effect % 11 {
        0 => effect % 64 * 1024,
        _ => effect % 7 * (effect % 97),
    };
    let pad = "x".repeat(usize::try_from(pad).unwrap_or(0));
    format!("{{\"effect\":{effect},\"key\":{key:?},\"payload\":{payload:?},\"pad\":{pad:?}}}")
}

/// The whole answer. Its framing varies with the effect.
fn answer(status: u16, effect: u64, request: &Request) -> Vec<u8> {
    let body = content(effect, &request.key, &request.payload);
    let head = format!(
        "HTTP/1.1 {status} Done\r\nContent-Type: application/json\r\nLocation: /orders/{effect}\r\n\
         ETag: \"{effect}\"\r\nX-Effect: {effect}\r\nX-Part: one\r\nX-Part: two\r\n"
    );
    if effect.is_multiple_of(4) {
        let (one, two) = body.split_at(body.len() / 2);
        let chunk = |text: &str| format!("{:x}\r\n{text}\r\n", text.len());
        return format!(
            "{head}Transfer-Encoding: chunked\r\n\r\n{}{}0\r\n\r\n",
            chunk(one),
            chunk(two)
        )
        .into_bytes();
    }
    format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

fn refusal(status: u16) -> Vec<u8> {
    format!("HTTP/1.1 {status} Not now\r\nContent-Length: 0\r\n\r\n").into_bytes()
}
