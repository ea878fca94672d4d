//! A gateway as a child process: started, killed, frozen, thawed, stopped in order.

use std::fs::OpenOptions;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::{Instant, sleep, timeout};

/// How long a gateway may take to start or to stop.
const PATIENCE: Duration = Duration::from_secs(40);
/// How often something is looked at that nothing announces.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// The figure of memory, in MiB.
pub(crate) const MEMORY: &str = "memory_mib";
/// The figure of open files, connections among them.
pub(crate) const FILES: &str = "open_files";

/// What a gateway is started with.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    pub(crate) binary: PathBuf,
    /// The text of its configuration file.
    pub(crate) config: String,
    pub(crate) config_file: PathBuf,
    pub(crate) upstream: String,
    /// A directory, a URL, or `memory:`.
    pub(crate) store: String,
    pub(crate) log: PathBuf,
    pub(crate) environment: Vec<(&'static str, String)>,
}

/// One gateway, running or not.
pub(crate) struct Node {
    pub(crate) name: String,
    setup: Mutex<Setup>,
    /// Where callers and operators reach it, while it runs.
    addresses: Mutex<Option<(SocketAddr, SocketAddr)>>,
    child: tokio::sync::Mutex<Option<Child>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Node {
    pub(crate) fn new(name: &str, setup: Setup) -> Self {
        Self {
            name: name.to_owned(),
            setup: Mutex::new(setup),
            addresses: Mutex::new(None),
            child: tokio::sync::Mutex::new(None),
        }
    }

    /// Its name and where it listens, while it runs.
    pub(crate) fn listening(&self) -> Option<(String, SocketAddr)> {
        let addresses = *lock(&self.addresses);
        addresses.map(|(callers, _)| (self.name.clone(), callers))
    }

    /// Where its store is from the next start on.
    pub(crate) fn move_store(&self, store: String) {
        lock(&self.setup).store = store;
    }

    pub(crate) fn store(&self) -> String {
        lock(&self.setup).store.clone()
    }

    /// Starts it and returns when it listens.
    pub(crate) async fn start(&self) -> io::Result<()> {
        let setup = lock(&self.setup).clone();
        std::fs::write(&setup.config_file, &setup.config)?;
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&setup.log)?;
        // Its end is tied to ours, however that comes.
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", "--"])
            .arg(&setup.binary)
            .args(["serve", "-c"])
            .arg(&setup.config_file)
            .args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
            .args(["--upstream", &setup.upstream, "--store", &setup.store])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true);
        without_settings(&mut command);
        if setup.store.contains("://") {
            // A store elsewhere has no place for it.
            command.env("HAPAX_ADMIN__AUDIT_FILE", setup.log.with_extension("audit"));
        }
        for (name, value) in &setup.environment {
            command.env(name, value);
        }
        let mut child = command.spawn()?;
        let stdout = child
            .stdout
            .take()
            .ok_or_else(|| io::Error::other("no output"))?;
        let mut lines = BufReader::new(stdout).lines();
        let heard = timeout(PATIENCE, listeners(&mut lines)).await;
        let addresses = heard
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))
            .and_then(|heard| heard)
            .map_err(|error| io::Error::other(format!("node {}: {error}", self.name)))?;
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        *self.child.lock().await = Some(child);
        *lock(&self.addresses) = Some(addresses);
        Ok(())
    }

    /// kill -9, and its end.
    pub(crate) async fn kill(&self) -> io::Result<()> {
        if let Some(mut child) = self.child.lock().await.take() {
            child.kill().await?;
        }
        *lock(&self.addresses) = None;
        Ok(())
    }

    /// SIGTERM, and its end.
    pub(crate) async fn stop(&self) -> io::Result<Option<ExitStatus>> {
        let Some(mut child) = self.child.lock().await.take() else {
            return Ok(None);
        };
        signal(&child, Signal::TERM)?;
        let status = timeout(PATIENCE, child.wait()).await;
        *lock(&self.addresses) = None;
        match status {
            Ok(status) => status.map(Some),
            Err(_) => Err(io::Error::other(format!(
                "node {} does not stop on SIGTERM",
                self.name
            ))),
        }
    }

    /// Returns when no thread of it runs any more.
    pub(crate) async fn freeze(&self) -> io::Result<()> {
        let guard = self.child.lock().await;
        let Some(child) = guard.as_ref() else {
            return Ok(());
        };
        signal(child, Signal::STOP)?;
        let deadline = Instant::now() + PATIENCE;
        while !is_stopped(child)? {
            if Instant::now() > deadline {
                return Err(io::Error::other("it does not freeze"));
            }
            sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    pub(crate) async fn thaw(&self) -> io::Result<()> {
        match self.child.lock().await.as_ref() {
            Some(child) => signal(child, Signal::CONT),
            None => Ok(()),
        }
    }

    /// SIGHUP.
    pub(crate) async fn reload(&self) -> io::Result<()> {
        match self.child.lock().await.as_ref() {
            Some(child) => signal(child, Signal::HUP),
            None => Ok(()),
        }
    }

    /// The most memory that it has had, and the files that it has open.
    pub(crate) async fn figures(&self) -> Vec<(&'static str, u64)> {
        let guard = self.child.lock().await;
        let Some(pid) = guard.as_ref().and_then(pid) else {
            return Vec::new();
        };
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let memory = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:")?.split_whitespace().next())
            .and_then(|kib| kib.parse::<u64>().ok());
        let files = std::fs::read_dir(format!("/proc/{pid}/fd")).map(Iterator::count);
        let files = files.ok().and_then(|count| u64::try_from(count).ok());
        [(MEMORY, memory.map(|kib| kib / 1024)), (FILES, files)]
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?)))
            .collect()
    }

    /// How it ended by itself, if it did.
    pub(crate) async fn ended(&self) -> io::Result<Option<ExitStatus>> {
        match self.child.lock().await.as_mut() {
            Some(child) => child.try_wait(),
            None => Ok(None),
        }
    }

    /// Whether it says that it is ready.
    pub(crate) async fn is_ready(&self) -> bool {
        let addresses = *lock(&self.addresses);
        let Some((_, admin)) = addresses else {
            return false;
        };
        let asked = timeout(Duration::from_secs(6), async {
            let mut stream = TcpStream::connect(admin).await?;
            let request = "GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
            stream.write_all(request.as_bytes()).await?;
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await?;
            io::Result::Ok(answer.starts_with(b"HTTP/1.1 200"))
        });
        matches!(asked.await, Ok(Ok(true)))
    }
}

/// Keeps settings of whoever started the campaign away from a gateway's program.
pub(crate) fn without_settings(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("HAPAX_") {
            command.env_remove(name);
        }
    }
}

/// Where it says that it listens: for callers, and for operators.
async fn listeners(
    lines: &mut Lines<BufReader<ChildStdout>>,
) -> io::Result<(SocketAddr, SocketAddr)> {
    let (mut callers, mut operators) = (None, None);
    loop {
        if let (Some(callers), Some(operators)) = (callers, operators) {
            return Ok((callers, operators));
        }
        let line = lines.next_line().await?;
        let line = line.ok_or_else(|| io::Error::other("it does not start; see its log"))?;
        let address = || {
            let (_, address) = line.split_once("://")?;
            address.trim_end_matches('/').parse().ok()
        };
        if line.starts_with("listening gateway ") {
            callers = address();
        } else if line.starts_with("listening admin ") {
            operators = address();
        }
    }
}

fn pid(child: &Child) -> Option<i32> {
    child.id().and_then(|id| i32::try_from(id).ok())
}

fn signal(child: &Child, signal: Signal) -> io::Result<()> {
    match pid(child).and_then(Pid::from_raw) {
        Some(pid) => Ok(kill_process(pid, signal)?),
        None => Ok(()),
    }
}

/// Whether every thread is stopped: one that still runs could still answer.
fn is_stopped(child: &Child) -> io::Result<bool> {
    let Some(pid) = pid(child) else {
        return Ok(true);
    };
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread may end while it is looked at.
        let Ok(stat) = std::fs::read_to_string(task?.path().join("stat")) else {
            continue;
        };
        let state = stat
            .rsplit(") ")
            .next()
            .and_then(|rest| rest.chars().next());
        if !matches!(state, Some('T' | 'Z' | 'X')) {
            return Ok(false);
        }
    }
    Ok(true)
}
