//! Redis servers of this process's own, and as much of a client as tests need to look into them.
//! Used by the tests of the binary, too.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::Duration;

use crate::servers::{GUARD, as_somebody, begin, end};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often, and how many times, something is looked at that nothing announces: for half a minute.
const LOOK_EVERY: Duration = Duration::from_millis(15);
const LOOKS: usize = 2_000;

/// What makes a server durable.
const DURABLE: [&str; 6] = [
    "--appendonly",
    "yes",
    "--appendfsync",
    "always",
    "--maxmemory-policy",
    "noeviction",
];

/// A Redis server on a port of the loopback.
pub(crate) struct RedisServer {
    folder: PathBuf,
    port: u16,
    settings: Vec<String>,
    running: Option<Child>,
}

impl RedisServer {
    /// A new server that syncs every write, running.
    pub(crate) fn start() -> Self {
        Self::with(&[])
    }

    /// The same with further settings, which may overrule these.
    pub(crate) fn with(settings: &[&str]) -> Self {
        let mut server = Self {
            folder: tempfile::tempdir().expect("a folder").keep(),
            port: free_port(),
            settings: settings
                .iter()
                .map(|setting| (*setting).to_owned())
                .collect(),
            running: None,
        };
        server.go_on();
        server
    }

    /// Starts the server again, and returns when it answers.
    pub(crate) fn go_on(&mut self) {
        let mut shell = as_somebody(&self.folder, Path::new("/bin/sh"));
        shell
            .args(["-c", GUARD, "sh", "redis-server"])
            .args(["--bind", "127.0.0.1", "--save", "", "--dir"])
            .arg(&self.folder)
            .args(["--port", &self.port.to_string()])
            .args(DURABLE)
            .args(&self.settings)
            // Where the shell says that its child was killed.
            .stderr(std::process::Stdio::null());
        self.running = Some(begin(shell));
        eventually("Redis (apt-get install redis-server)", || {
            let pong = RedisClient::try_open(self.port)?.try_command(&["PING"]);
            pong.filter(|pong| pong == "PONG" || pong.starts_with("NOAUTH"))
        });
    }

    /// Ends the server at once (SIGKILL).
    pub(crate) fn crash(&mut self) {
        end(&mut self.running, "KILL");
    }

    /// The URL of its first database.
    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// A connection of the test's own.
    pub(crate) fn client(&self) -> RedisClient {
        RedisClient::try_open(self.port).expect("it listens")
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        end(&mut self.running, "KILL");
        drop(std::fs::remove_dir_all(&self.folder));
    }
}

/// A port that nobody listens on at the moment.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}

/// Asks until there is an answer.
pub(crate) fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    for _ in 0..LOOKS {
        if let Some(answer) = ask() {
            return answer;
        }
        std::thread::park_timeout(LOOK_EVERY);
    }
    panic!("it never came: {what}");
}

/// A connection that sends one command after the other.
pub(crate) struct RedisClient(BufReader<TcpStream>);

impl RedisClient {
    fn try_open(port: u16) -> Option<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        stream.set_nodelay(true).ok()?;
        Some(Self(BufReader::new(stream)))
    }

    /// The answer to a command; lists are joined by line breaks, errors are their text.
    pub(crate) fn command(&mut self, words: &[&str]) -> String {
        let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
        let answer = self.bytes(&words).expect("an answer");
        String::from_utf8_lossy(&answer).into_owned()
    }

    fn try_command(&mut self, words: &[&str]) -> Option<String> {
        let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
        String::from_utf8(self.bytes(&words).ok()?).ok()
    }

    /// The same in bytes.
    pub(crate) fn bytes(&mut self, words: &[&[u8]]) -> std::io::Result<Vec<u8>> {
        let mut sent = format!("*{}\r\n", words.len()).into_bytes();
        for word in words {
            sent.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
            sent.extend_from_slice(word);
            sent.extend_from_slice(b"\r\n");
        }
        self.0.get_mut().write_all(&sent)?;
        self.answer()
    }

    fn answer(&mut self) -> std::io::Result<Vec<u8>> {
        let mut line = String::new();
        if self.0.read_line(&mut line)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let (kind, rest) = line.trim_end().split_at(1);
        match (kind, rest.parse::<usize>()) {
            ("$", Ok(length)) => {
                let mut content = vec![0; length + 2];
                self.0.read_exact(&mut content)?;
                content.truncate(length);
                Ok(content)
            }
            ("*", Ok(count)) => {
                let parts: std::io::Result<Vec<_>> = (0..count).map(|_| self.answer()).collect();
                Ok(parts?.join(&b'\n'))
            }
            _ => Ok(rest.as_bytes().to_vec()),
        }
    }
}
