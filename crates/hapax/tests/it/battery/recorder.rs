//! An upstream that takes sound requests only, by a reader of its own, and writes down everything else as a fault.
//!
//! Its reader shares no code with the gateway, repairs nothing and knows one reading of every byte.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use crate::support::Watched;

/// Where a case asks whether its connection still serves.
pub(super) const PROBE: &str = "/probe";

/// A request that had one reading.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) method: String,
    pub(super) target: String,
    /// Whole lines.
    pub(super) fields: Vec<Vec<u8>>,
    pub(super) content: Vec<u8>,
}

impl Seen {
    /// Method, target and content.
    pub(super) fn bytes(&self) -> Vec<u8> {
        [
            self.method.as_bytes(),
            b" ",
            self.target.as_bytes(),
            b" ",
            &self.content,
        ]
        .concat()
    }

    pub(super) fn line(&self) -> String {
        String::from_utf8_lossy(&self.bytes()).into_owned()
    }

    /// The fields, for people.
    pub(super) fn head(&self) -> String {
        text(&self.fields.join(b" | ".as_slice()))
    }

    /// How many lines there are of a field.
    pub(super) fn lines_of(&self, name: &str) -> usize {
        let names = self
            .fields
            .iter()
            .map(|line| line.split(|byte| *byte == b':').next());
        names
            .filter(|found| found.is_some_and(|found| found.eq_ignore_ascii_case(name.as_bytes())))
            .count()
    }

    /// How many lines are this one, but for the case of the name and the white space around the value.
    pub(super) fn has(&self, line: &[u8]) -> usize {
        let wanted = split(line);
        self.fields
            .iter()
            .filter(|field| split(field) == wanted)
            .count()
    }
}

fn split(line: &[u8]) -> (Vec<u8>, &[u8]) {
    let colon = line
        .iter()
        .position(|byte| *byte == b':')
        .unwrap_or(line.len());
    let value = line.get(colon + 1..).unwrap_or_default();
    (line[..colon].to_ascii_lowercase(), value.trim_ascii())
}

/// Reads the first request of `bytes`: it and its length, none while it is incomplete, or why it has no one reading.
pub(super) fn next(bytes: &[u8]) -> Result<Option<(Seen, usize)>, String> {
    let mut at = 0;
    let Some(line) = line(bytes, &mut at)? else {
        return Ok(None);
    };
    let words: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    let [method, target, version] = words[..] else {
        return Err(format!("request line {:?}", text(line)));
    };
    let is_token = |name: &[u8]| {
        let odd = |byte: &u8| !byte.is_ascii_alphanumeric() && !b"!#$%&'*+-.^_`|~".contains(byte);
        !name.is_empty() && !name.iter().any(odd)
    };
    let one_zero = version == b"HTTP/1.0";
    if !is_token(method) || !(target.starts_with(b"/") || target == b"*") {
        return Err(format!("method or target {:?}", text(line)));
    }
    if version != b"HTTP/1.1" && !one_zero || !target.iter().all(u8::is_ascii_graphic) {
        return Err(format!("version or target {:?}", text(line)));
    }
    let mut seen = Seen {
        method: text(method),
        target: text(target),
        fields: Vec::new(),
        content: Vec::new(),
    };
    if !fields(bytes, &mut at, &mut seen.fields, is_token)? {
        return Ok(None);
    }
    if seen.lines_of("host") != 1 && !(one_zero && seen.lines_of("host") == 0) {
        return Err(format!("{} Hosts", seen.lines_of("host")));
    }
    let whole = match (
        seen.lines_of("content-length"),
        seen.lines_of("transfer-encoding"),
    ) {
        (0, 0) => true,
        (1, 0) => {
            let length = length_of(&seen)?;
            seen.content = bytes.get(at..at + length).unwrap_or_default().to_vec();
            at += length;
            bytes.len() >= at
        }
        (0, 1) if is_chunked(&seen) && !one_zero => {
            chunks(bytes, &mut at, &mut seen.content, is_token)?
        }
        (lengths, codings) => return Err(format!("{lengths} lengths and {codings} codings")),
    };
    Ok(whole.then_some((seen, at)))
}

/// Codings have no case (RFC 9112 7).
fn is_chunked(seen: &Seen) -> bool {
    let mut lines = seen.fields.iter().map(|line| split(line));
    lines
        .any(|(name, value)| name == b"transfer-encoding" && value.eq_ignore_ascii_case(b"chunked"))
}

fn length_of(seen: &Seen) -> Result<usize, String> {
    let lines = seen.fields.iter().map(|line| split(line));
    let mut values = lines
        .filter(|(name, _)| name == b"content-length")
        .map(|(_, value)| value);
    let value = values.next().unwrap_or_default();
    let is_plain = !value.is_empty() && value.iter().all(u8::is_ascii_digit) && value.len() < 12;
    let length = text(value).parse().ok().filter(|_| is_plain);
    length.ok_or_else(|| format!("length {:?}", text(value)))
}

/// Reads field lines to the empty one; false while it is not there.
fn fields(
    bytes: &[u8],
    at: &mut usize,
    into: &mut Vec<Vec<u8>>,
    is_token: impl Fn(&[u8]) -> bool,
) -> Result<bool, String> {
    while let Some(line) = line(bytes, at)? {
        if line.is_empty() {
            return Ok(true);
        }
        let (name, _) = split(line);
        let is_plain = line
            .iter()
            .all(|byte| *byte >= 0x20 && *byte != 0x7f || *byte == b'\t');
        if !is_plain || !line.contains(&b':') || !is_token(&name) {
            return Err(format!("field line {:?}", text(line)));
        }
        into.push(line.to_vec());
    }
    Ok(false)
}

fn chunks(
    bytes: &[u8],
    at: &mut usize,
    content: &mut Vec<u8>,
    is_token: impl Fn(&[u8]) -> bool,
) -> Result<bool, String> {
    loop {
        let Some(line) = line(bytes, at)? else {
            return Ok(false);
        };
        let size = line.split(|byte| *byte == b';').next().unwrap_or_default();
        let is_plain = !size.is_empty() && size.len() < 9 && size.iter().all(u8::is_ascii_hexdigit);
        let size = usize::from_str_radix(&text(size), 16)
            .ok()
            .filter(|_| is_plain);
        let size = size.ok_or_else(|| format!("chunk size {:?}", text(line)))?;
        if size == 0 {
            return fields(bytes, at, &mut Vec::new(), is_token);
        }
        let Some(data) = bytes.get(*at..*at + size) else {
            return Ok(false);
        };
        content.extend_from_slice(data);
        *at += size;
        match bytes.get(*at..) {
            Some([b'\r', b'\n', ..]) => *at += 2,
            Some([] | [b'\r']) | None => return Ok(false),
            Some(_) => return Err("a chunk without an end".to_owned()),
        }
    }
}

/// The next line without its CRLF; none while it has no end.
fn line<'a>(bytes: &'a [u8], at: &mut usize) -> Result<Option<&'a [u8]>, String> {
    let rest = bytes.get(*at..).unwrap_or_default();
    let Some(end) = rest.iter().position(|byte| *byte == b'\n') else {
        return Ok(None);
    };
    let Some(line) = rest[..end]
        .strip_suffix(b"\r")
        .filter(|line| !line.contains(&b'\r'))
    else {
        return Err(format!("line end {:?}", text(&rest[..=end])));
    };
    *at += end + 1;
    Ok(Some(line))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

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
