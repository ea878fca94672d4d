//! An upstream that takes sound requests only, by a reader of its own, and writes down everything else as a fault.
//!
//! What is sound, the strict [`reader`](super::reader) says.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use crate::support::Watched;

use super::reader::{Seen, next, text};

/// Where a case asks whether its connection still serves.
pub(super) const PROBE: &str = "/probe";

/// What something that records has to say against what it saw.
pub(super) trait Faults {
    fn faults(&self) -> Vec<String>;
}

/// The upstream.
pub(super) struct Recorder {
    server: Server,
    seen: Watched<Vec<Seen>>,
    faults: Watched<Vec<String>>,
}

impl Recorder {
    pub(super) fn start() -> Self {
        let (seen, faults) = (Watched::new(Vec::new()), Watched::new(Vec::new()));
        let (shared, wrong) = (seen.clone(), faults.clone());
        let server = Server::start(move |stream| {
            if let Err(error) = record(stream, &shared)
                && error.kind() == io::ErrorKind::InvalidData
            {
                wrong.change(|faults: &mut Vec<String>| faults.push(error.to_string()));
            }
        });
        Self {
            server,
            seen,
            faults,
        }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.server.address
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address())
    }

    pub(super) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().clone()
    }

    /// The requests whose target or key has `name` in it.
    pub(super) fn seen_of(&self, name: &str) -> Vec<Seen> {
        let all = self.seen.lock();
        let is_of = |seen: &&Seen| {
            // Content is the client's, so a name in it says nothing.
            seen.target.contains(name)
        };
        all.iter().filter(is_of).cloned().collect()
    }

    /// Waits until there are `count` of a name; whether there ever were.
    pub(super) fn wait_for(&self, name: &str, count: usize) -> bool {
        self.seen
            .wait_until(|all| all.iter().filter(|seen| seen.target.contains(name)).count() >= count)
    }

    pub(super) fn probes(&self) -> usize {
        self.seen_of(PROBE).len()
    }
}

impl Faults for Recorder {
    fn faults(&self) -> Vec<String> {
        self.faults.lock().clone()
    }
}

fn record(mut stream: TcpStream, seen: &Watched<Vec<Seen>>) -> io::Result<()> {
    let mut bytes = Vec::new();
    let mut chunk = [0; 16 * 1024];
    loop {
        while let Some((request, used)) = next(&bytes).map_err(invalid)? {
            bytes.drain(..used);
            let content = if request.method == "HEAD" { "" } else { "{}" };
            let answer = format!(
                "HTTP/1.1 201 Created\r\nX-Seen: {}\r\nContent-Length: 2\r\n\r\n{content}",
                request.target
            );
            seen.change(|all| all.push(request));
            stream.write_all(answer.as_bytes())?;
        }
        let count = stream.read(&mut chunk)?;
        if count == 0 {
            return Ok(());
        }
        bytes.extend_from_slice(&chunk[..count]);
    }
}

fn invalid(fault: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, fault)
}

/// Passes every byte on, and keeps those that go forth.
pub(super) struct Relay {
    server: Server,
    forth: Watched<Vec<Watched<Vec<u8>>>>,
}

impl Relay {
    pub(super) fn start(to: SocketAddr) -> Self {
        let forth = Watched::new(Vec::new());
        let shared = forth.clone();
        let server = Server::start(move |stream| {
            let kept = Watched::new(Vec::new());
            shared.change(|all: &mut Vec<_>| all.push(kept.clone()));
            drop(relay(stream, to, &kept));
        });
        Self { server, forth }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.server.address
    }

    /// The sound requests that went by, connection by connection. What had no one reading ends its connection's list.
    pub(super) fn passed(&self) -> (Vec<Seen>, Vec<String>) {
        let (mut all, mut faults) = (Vec::new(), Vec::new());
        for connection in self.forth.lock().iter() {
            let bytes = connection.lock().clone();
            let mut at = 0;
            loop {
                match next(&bytes[at..]) {
                    Ok(Some((seen, used))) => {
                        all.push(seen);
                        at += used;
                    }
                    Ok(None) => break,
                    Err(fault) => {
                        faults.push(format!("{fault} in {:?}", text(&bytes[at..])));
                        break;
                    }
                }
            }
        }
        (all, faults)
    }
}

fn relay(near: TcpStream, to: SocketAddr, kept: &Watched<Vec<u8>>) -> io::Result<()> {
    let far = TcpStream::connect(to)?;
    far.set_nodelay(true)?;
    let (mut back_from, mut back_to) = (far.try_clone()?, near.try_clone()?);
    let back = thread::spawn(move || {
        drop(io::copy(&mut back_from, &mut back_to));
        drop(back_to.shutdown(Shutdown::Both));
    });
    let (mut near, mut far) = (near, far);
    let mut chunk = [0; 16 * 1024];
    while let Ok(count) = near.read(&mut chunk) {
        if count == 0 {
            break;
        }
        kept.change(|bytes| bytes.extend_from_slice(&chunk[..count]));
        if far.write_all(&chunk[..count]).is_err() {
            break;
        }
    }
    drop(far.shutdown(Shutdown::Write));
    drop(back.join());
    Ok(())
}

/// A listener with a thread a connection, which end with it.
struct Server {
    address: SocketAddr,
    is_over: Arc<AtomicBool>,
}

impl Server {
    fn start(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let is_over = Arc::new(AtomicBool::new(false));
        let (over, serve) = (Arc::clone(&is_over), Arc::new(serve));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if over.load(Ordering::Acquire) {
                    return;
                }
                drop(stream.set_nodelay(true));
                let serve = Arc::clone(&serve);
                thread::spawn(move || serve(stream));
            }
        });
        Self { address, is_over }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Release);
        // Wakes the accept loop, which then sees that it is over.
        drop(TcpStream::connect(self.address));
    }
}

/// A number that no other probe has.
pub(super) fn serial() -> usize {
    static SERIAL: AtomicUsize = AtomicUsize::new(0);
    SERIAL.fetch_add(1, Ordering::Relaxed)
}
