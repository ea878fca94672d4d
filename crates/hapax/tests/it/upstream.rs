//! The operation behind the gateway: does what its script says, and counts its effects honestly.
//!
//! A request that has been read in full is one effect, whatever becomes of its answer.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use crate::client::reset;
use crate::support::{Gate, Watched};

/// A request as the upstream saw it.
#[derive(Debug, Clone)]
pub(crate) struct Effect {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// The how-manieth effect it is in all, from 1.
    pub(crate) serial: usize,
    pub(crate) at: Instant,
}

impl Effect {
    pub(crate) fn field(&self, name: &str) -> &str {
        let mut lines = self.fields.iter();
        lines
            .find(|(field, _)| field.eq_ignore_ascii_case(name))
            .map_or("", |(_, value)| value)
    }

    pub(crate) fn key(&self) -> &str {
        self.field("idempotency-key")
    }
}

/// What the upstream does once it has read a request.
pub(crate) enum Act {
    /// Sends these bytes and keeps the connection.
    Answer(Vec<u8>),
    /// Sends these bytes, then closes.
    Close(Vec<u8>),
    /// Sends these bytes, then resets.
    Reset(Vec<u8>),
    /// Waits for the gate, then sends these bytes.
    Hold(Gate, Vec<u8>),
    /// Sends these bytes, waits for the gate, then goes on.
    Parts(Vec<u8>, Gate, Box<Act>),
    /// Sends these bytes, then sends back whatever comes.
    Echo(Vec<u8>),
}

/// An answer's bytes.
pub(crate) fn answer(status: u16, fields: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut head = format!("HTTP/1.1 {status} Scripted\r\n");
    for (name, value) in fields {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if status != 204 && status != 304 {
        head.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    head.push_str("\r\n");
    let mut bytes = head.into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

/// 201 with a body that no other effect has.
pub(crate) fn created(effect: &Effect) -> Vec<u8> {
    let body = format!(
        "{{\"effect\":{},\"key\":{:?}}}",
        effect.serial,
        effect.key()
    );
    let location = format!("/orders/{}", effect.serial);
    let fields = [
        ("Content-Type", "application/json"),
        ("Location", location.as_str()),
    ];
    answer(201, &fields, body.as_bytes())
}

type Script = dyn Fn(&Effect) -> Act + Send + Sync;

/// The server. Its threads end with their connections.
pub(crate) struct Upstream {
    address: SocketAddr,
    log: Log,
    is_over: Arc<AtomicBool>,
}

#[derive(Clone)]
struct Log {
    effects: Watched<Vec<Effect>>,
    /// Answers that have been written in full.
    answered: Watched<usize>,
}

impl Upstream {
    /// Answers every request with 201.
    pub(crate) fn new() -> Self {
        Self::scripted(|effect| Act::Answer(created(effect)))
    }

    pub(crate) fn scripted(script: impl Fn(&Effect) -> Act + Send + Sync + 'static) -> Self {
        Self::on(0, script)
    }

    pub(crate) fn on(port: u16, script: impl Fn(&Effect) -> Act + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).expect("a port");
        let address = listener.local_addr().expect("an address");
        let log = Log {
            effects: Watched::new(Vec::new()),
            answered: Watched::new(0),
        };
        let is_over = Arc::new(AtomicBool::new(false));
        let script: Arc<Script> = Arc::new(script);
        let (shared, over) = (log.clone(), Arc::clone(&is_over));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if over.load(Ordering::Acquire) {
                    return;
                }
                let (script, shared) = (Arc::clone(&script), shared.clone());
                thread::spawn(move || drop(serve(stream, &*script, &shared)));
            }
        });
        Self {
            address,
            log,
            is_over,
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn effects(&self) -> Vec<Effect> {
        self.log.effects.lock().clone()
    }

    pub(crate) fn count(&self) -> usize {
        self.log.effects.lock().len()
    }

    /// How many effects there were under a key.
    pub(crate) fn count_of(&self, key: &str) -> usize {
        let effects = self.log.effects.lock();
        effects.iter().filter(|effect| effect.key() == key).count()
    }

    pub(crate) fn wait_for_effects(&self, count: usize) {
        let is_so = self
            .log
            .effects
            .wait_until(|effects| effects.len() >= count);
        assert!(is_so, "{} of {count} effects", self.count());
    }

    pub(crate) fn wait_for_answers(&self, count: usize) {
        let is_so = self.log.answered.wait_until(|answered| *answered >= count);
        assert!(is_so, "fewer than {count} answers");
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Release);
        // Wakes the accept loop, which then sees that it is over.
        drop(TcpStream::connect(self.address));
    }
}

fn serve(stream: TcpStream, script: &Script, log: &Log) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut writer = stream;
    while let Some(mut effect) = read(&mut reader)? {
        log.effects.change(|effects| {
            effect.serial = effects.len() + 1;
            effect.at = Instant::now();
            effects.push(effect.clone());
        });
        let mut act = script(&effect);
        while let Act::Parts(bytes, gate, next) = act {
            writer.write_all(&bytes)?;
            gate.pass();
            act = *next;
        }
        match act {
            Act::Answer(bytes) => writer.write_all(&bytes)?,
            Act::Hold(gate, bytes) => {
                gate.pass();
                writer.write_all(&bytes)?;
            }
            Act::Close(bytes) => {
                writer.write_all(&bytes)?;
                return writer.shutdown(Shutdown::Both);
            }
            Act::Reset(bytes) => {
                writer.write_all(&bytes)?;
                drop(reader);
                reset(writer);
                return Ok(());
            }
            Act::Echo(bytes) => {
                writer.write_all(&bytes)?;
                io::copy(&mut reader, &mut writer)?;
                return Ok(());
            }
            // Unwound above.
            Act::Parts(..) => {}
        }
        log.answered.change(|answered| *answered += 1);
    }
    Ok(())
}

/// One request in full, or nothing when the connection ends before or within one.
fn read(reader: &mut BufReader<TcpStream>) -> io::Result<Option<Effect>> {
    let mut effect = Effect {
        method: String::new(),
        target: String::new(),
        fields: Vec::new(),
        body: Vec::new(),
        serial: 0,
        at: Instant::now(),
    };
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace().map(str::to_owned);
    effect.method = words.next().unwrap_or_default();
    effect.target = words.next().unwrap_or_default();
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        let field = (name.to_owned(), value.trim().to_owned());
        effect.fields.push(field);
    }
    if effect.field("transfer-encoding").is_empty() {
        let length = effect.field("content-length").parse().unwrap_or(0);
        effect.body = vec![0; length];
        reader.read_exact(&mut effect.body)?;
        return Ok(Some(effect));
    }
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        let size = usize::from_str_radix(line.trim(), 16).map_err(io::Error::other)?;
        let mut chunk = vec![0; size + 2];
        reader.read_exact(&mut chunk)?;
        if size == 0 {
            return Ok(Some(effect));
        }
        effect.body.extend_from_slice(&chunk[..size]);
    }
}
