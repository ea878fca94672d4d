//! Readers of live events beside the load: what do requests notice of them?

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::compare::{Figures, measure, median};
use crate::load::{Keys, Load};
use crate::proxies::Proxy;
use crate::upstream::Upstream;

const QUIET: &str = "[telemetry]\nlog = \"warn\"\n";
const REQUESTS: u64 = 20_000;
/// Pairs of runs; odd, for a median.
const ROUNDS: usize = 5;
/// How often a reader looks whether it is to end.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Runs with and without readers, by turns, on one gateway.
pub(crate) fn run(upstream: &Upstream, readers: u64) {
    let hapax = Proxy::hapax(upstream.address, QUIET);
    let admin = hapax.admin.expect("hapax has an admin listener");
    println!(
        "{REQUESTS} requests a run, {ROUNDS} pairs of runs a row, {readers} readers of all events; medians"
    );
    for (name, keys, events) in [
        ("keyed, first time (3 events each)", Keys::Fresh, 3.0),
        ("keyed, replayed (1 event each)", Keys::Repeated(1_000), 1.0),
    ] {
        Load::new(hapax.address, keys, 4_000).run();
        let (mut without, mut with, mut received) = (Vec::new(), Vec::new(), 0);
        for _ in 0..ROUNDS {
            without.push(measure(&hapax, Load::new(hapax.address, keys, REQUESTS)).0);
            let reading = Readers::start(admin, readers);
            with.push(measure(&hapax, Load::new(hapax.address, keys, REQUESTS)).0);
            received += reading.stop();
        }
        let all = |runs: &[Figures], of: fn(&Figures) -> f64| median(runs.iter().map(of));
        let rate = |runs: &[Figures]| all(runs, |run| run.per_second);
        let cpu = |runs: &[Figures]| all(runs, |run| run.cpu_us);
        println!(
            "{name}: {:.0} events/s; {:.0} -> {:.0} req/s ({:+.1} %), CPU {:.1} -> {:.1} us/req, p99 {:.2} -> {:.2} ms; {:.0} % of events received",
            rate(&with) * events,
            rate(&without),
            rate(&with),
            (rate(&with) / rate(&without) - 1.0) * 100.0,
            cpu(&without),
            cpu(&with),
            all(&without, |run| run.p99_ms),
            all(&with, |run| run.p99_ms),
            received as f64 * 100.0 / (REQUESTS as f64 * events * (ROUNDS as u64 * readers) as f64),
        );
    }
    println!(
        "The readers run in this program and share the machine's cores with the load and the gateway."
    );
}

/// Connections that read events and count them.
struct Readers {
    is_over: Arc<AtomicBool>,
    events: Arc<AtomicU64>,
    reading: JoinHandle<()>,
}

impl Readers {
    fn start(admin: SocketAddr, count: u64) -> Self {
        let (is_over, events) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(0)),
        );
        let (over, seen) = (Arc::clone(&is_over), Arc::clone(&events));
        let connected = Arc::new(AtomicU64::new(0));
        let connecting = Arc::clone(&connected);
        let reading = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime.unwrap().block_on(async {
                let mut tasks = tokio::task::JoinSet::new();
                for _ in 0..count {
                    let (over, seen, connected) = (
                        Arc::clone(&over),
                        Arc::clone(&seen),
                        Arc::clone(&connecting),
                    );
                    tasks.spawn(async move {
                        let mut stream = TcpStream::connect(admin).await.unwrap();
                        let request =
                            format!("GET /api/v1/events HTTP/1.0\r\nHost: {admin}\r\n\r\n");
                        stream.write_all(request.as_bytes()).await.unwrap();
                        read(&mut stream, &over, &seen, &connected).await;
                    });
                }
                while let Some(ended) = tasks.join_next().await {
                    ended.unwrap();
                }
            });
        });
        crate::proxies::wait_for("the readers", || connected.load(Ordering::Relaxed) == count);
        Self {
            is_over,
            events,
            reading,
        }
    }

    /// How many events were received.
    fn stop(self) -> u64 {
        self.is_over.store(true, Ordering::Relaxed);
        self.reading.join().unwrap();
        self.events.load(Ordering::Relaxed)
    }
}

async fn read(stream: &mut TcpStream, over: &AtomicBool, seen: &AtomicU64, connected: &AtomicU64) {
    let mut buffer = vec![0; 256 * 1024];
    let mut is_first = true;
    loop {
        let read = match timeout(LOOK_EVERY, stream.read(&mut buffer)).await {
            Ok(read) => read.unwrap(),
            // Nothing new: the feed is at its end.
            Err(_) if over.load(Ordering::Relaxed) => return,
            Err(_) => continue,
        };
        assert!(read > 0, "the gateway ended the stream");
        if std::mem::take(&mut is_first) {
            connected.fetch_add(1, Ordering::Relaxed);
        }
        // A name cut in two is missed: one in some thousands.
        let events = memchr::memmem::find_iter(&buffer[..read], b"\nevent: ").count();
        seen.fetch_add(events as u64, Ordering::Relaxed);
    }
}
