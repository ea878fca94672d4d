//! The load: raw keep-alive connections, one request at a time on each.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

pub(crate) const CONNECTIONS: u64 = 64;
/// An answer that takes longer is a hang, and ends the run.
const PATIENCE: Duration = Duration::from_secs(60);

/// Numbers keys across runs, so that a fresh one is fresh.
static NEXT_KEY: AtomicU64 = AtomicU64::new(1);

/// Which keys requests carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keys {
    None,
    Fresh,
    /// So many keys, again and again.
    Repeated(u64),
}

/// One run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    pub(crate) target: SocketAddr,
    pub(crate) path: &'static str,
    pub(crate) keys: Keys,
    pub(crate) requests: u64,
    pub(crate) connections: u64,
}

/// What a run came to.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) elapsed: Duration,
    /// Microseconds, sorted.
    latencies: Vec<u32>,
    pub(crate) replayed: u64,
}

impl Report {
    pub(crate) fn requests(&self) -> u64 {
        self.latencies.len() as u64
    }

    pub(crate) fn per_second(&self) -> f64 {
        self.latencies.len() as f64 / self.elapsed.as_secs_f64()
    }

    /// The latency that `share` of the requests stayed within, in milliseconds.
    pub(crate) fn quantile(&self, share: f64) -> f64 {
        let last = self.latencies.len() - 1;
        f64::from(self.latencies[(last as f64 * share) as usize]) / 1000.0
    }
}

impl Load {
    pub(crate) fn new(target: SocketAddr, keys: Keys, requests: u64) -> Self {
        Self {
            target,
            path: "/v1/orders",
            keys,
            requests,
            connections: CONNECTIONS,
        }
    }

    /// Runs in a thread of this program; panics at the first answer that is not 200.
    pub(crate) fn run(self) -> Report {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(self.drive())
    }

    async fn drive(self) -> Report {
        let left = Arc::new(AtomicU64::new(self.requests));
        let mut streams = Vec::new();
        for _ in 0..self.connections {
            streams.push(connect(self.target).await);
        }
        let started = Instant::now();
        let mut tasks = JoinSet::new();
        for stream in streams {
            tasks.spawn(self.client(stream, Arc::clone(&left)));
        }
        let (mut latencies, mut replayed) = (Vec::new(), 0);
        while let Some(ended) = tasks.join_next().await {
            let (some, replays) = ended.unwrap();
            latencies.extend(some);
            replayed += replays;
        }
        let elapsed = started.elapsed();
        latencies.sort_unstable();
        Report {
            elapsed,
            latencies,
            replayed,
        }
    }

    async fn client(self, mut stream: TcpStream, left: Arc<AtomicU64>) -> (Vec<u32>, u64) {
        let content = crate::upstream::content();
        let mut buffer = Vec::with_capacity(4096);
        let (mut latencies, mut replayed) = (Vec::new(), 0);
        let take = |left: u64| left.checked_sub(1);
        while let Ok(left) = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take) {
            let request = self.request(left, &content);
            let sent = Instant::now();
            stream.write_all(request.as_bytes()).await.unwrap();
            let answer = timeout(PATIENCE, answer(&mut stream, &mut buffer));
            replayed += u64::from(answer.await.expect("an answer in time"));
            latencies.push(sent.elapsed().as_micros() as u32);
        }
        (latencies, replayed)
    }

    fn request(&self, left: u64, content: &str) -> String {
        let key = match self.keys {
            Keys::None => String::new(),
            Keys::Fresh => {
                let number = NEXT_KEY.fetch_add(1, Ordering::Relaxed);
                format!("Idempotency-Key: \"8e03978e-40d5-{number:016x}\"\r\n")
            }
            Keys::Repeated(keys) => {
                let number = left % keys;
                format!("Idempotency-Key: \"again-{number:016x}\"\r\n")
            }
        };
        format!(
            "POST {} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer bench\r\n\
             Content-Type: application/json\r\n{key}Content-Length: {}\r\n\r\n{content}",
            self.path,
            content.len()
        )
    }
}

async fn connect(target: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(target).await.expect("a connection");
    stream.set_nodelay(true).unwrap();
    stream
}

/// Reads one answer; whether it was a replay.
async fn answer(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> bool {
    loop {
        if let Some(Message { head, len }) = find_message(buffer) {
            let (head, text) = (&buffer[..head], String::from_utf8_lossy(buffer));
            assert!(head.starts_with(b"HTTP/1.1 200"), "{text}");
            let is_replay = memchr::memmem::find(head, b"idempotent-replayed").is_some();
            buffer.drain(..len);
            return is_replay;
        }
        let read = stream.read_buf(buffer).await.unwrap();
        assert!(read > 0, "the proxy closed the connection");
    }
}

/// A whole message at the start of a buffer: the length of its head, and of all of it.
pub(crate) struct Message {
    pub(crate) head: usize,
    pub(crate) len: usize,
}

pub(crate) fn find_message(buffer: &[u8]) -> Option<Message> {
    const LENGTH: &[u8] = b"content-length:";
    let head = memchr::memmem::find(buffer, b"\r\n\r\n")? + 4;
    let length = buffer[..head]
        .split(|byte| *byte == b'\n')
        .find_map(|line| {
            let (name, value) = line.split_at_checked(LENGTH.len())?;
            let value = name.eq_ignore_ascii_case(LENGTH).then_some(value)?;
            std::str::from_utf8(value)
                .ok()?
                .trim()
                .parse::<usize>()
                .ok()
        });
    // The proxies and both ends of this program always say how long a message is.
    let len = head + length.expect("a content-length");
    (buffer.len() >= len).then_some(Message { head, len })
}
