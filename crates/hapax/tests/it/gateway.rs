//! The binary under test as a child process.

use std::fmt;
use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use tempfile::TempDir;

use crate::client::{Answer, Connection};
use crate::support::{PATIENCE, Watched, eventually};

/// What a gateway is started with.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    pub(crate) upstream: String,
    pub(crate) config: String,
    pub(crate) data: PathBuf,
    pub(crate) file: PathBuf,
    pub(crate) environment: Vec<(String, String)>,
}

impl Setup {
    fn command(&self) -> Command {
        std::fs::write(&self.file, &self.config).expect("a file");
        let mut command = Command::new(env!("CARGO_BIN_EXE_hapax"));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("HAPAX_") {
                command.env_remove(name);
            }
        }
        command
            .arg("serve")
            .arg("-c")
            .arg(&self.file)
            .args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
            .args(["--upstream", &self.upstream])
            .arg("--store")
            .arg(&self.data)
            .envs(self.environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }
}

/// A start that came to nothing.
pub(crate) struct Refused {
    pub(crate) status: ExitStatus,
    pub(crate) log: String,
}

impl fmt::Debug for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.status, self.log)
    }
}

/// A running process.
struct Process {
    child: Child,
    gateway: SocketAddr,
    admin: SocketAddr,
    scheme: String,
    log: Watched<String>,
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Process {
    fn start(setup: &Setup) -> Result<Self, Refused> {
        let mut child = setup.command().spawn().expect("the binary is there");
        let stderr = child.stderr.take().expect("piped");
        let stdout = child.stdout.take().expect("piped");
        let log = Watched::new(String::new());
        let shared = log.clone();
        let logging = thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                shared.change(|log| {
                    log.push_str(&line);
                    log.push('\n');
                });
            }
        });
        let (told, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                drop(told.send(line));
            }
        });
        let (mut gateway, mut admin) = (None, None);
        while gateway.is_none() || admin.is_none() {
            let line = match lines.recv_timeout(PATIENCE) {
                Ok(line) => line,
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    let status = child.wait().expect("it is ours");
                    drop(logging.join());
                    let log = log.lock().clone();
                    return Err(Refused { status, log });
                }
                Err(mpsc::RecvTimeoutError::Timeout) => panic!("not ready: {}", log.lock()),
            };
            let mut words = line.split(' ');
            let (Some("listening"), Some(which), Some(url)) =
                (words.next(), words.next(), words.next())
            else {
                panic!("not a listener's line: {line}");
            };
            match which {
                "gateway" => gateway = Some(url.to_owned()),
                "admin" => admin = Some(url.to_owned()),
                _ => panic!("not a listener: {line}"),
            }
        }
        let (gateway, admin) = (gateway.expect("told"), admin.expect("told"));
        let (scheme, address) = gateway.split_once("://").expect("a URL");
        Ok(Self {
            child,
            gateway: address.parse().expect("an address"),
            admin: admin
                .strip_prefix("http://")
                .and_then(|address| address.parse().ok())
                .expect("an address"),
            scheme: scheme.to_owned(),
            log,
        })
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }
}

/// A gateway with a data directory of its own, which outlives its processes.
pub(crate) struct Gateway {
    pub(crate) setup: Setup,
    process: Option<Process>,
    /// Goes with it, and the data in it unless they are elsewhere.
    _folder: TempDir,
}

impl Gateway {
    /// Starts one in front of `upstream`, with the given configuration file.
    pub(crate) fn start(upstream: &str, config: &str) -> Self {
        Self::try_start(upstream, config).expect("it starts")
    }

    pub(crate) fn try_start(upstream: &str, config: &str) -> Result<Self, Refused> {
        Self::try_start_in(upstream, config, None)
    }

    /// With the data in a directory of the caller's.
    pub(crate) fn try_start_in(
        upstream: &str,
        config: &str,
        data: Option<&Path>,
    ) -> Result<Self, Refused> {
        Self::try_start_with(upstream, config, data, &[])
    }

    /// With environment variables.
    pub(crate) fn try_start_with(
        upstream: &str,
        config: &str,
        data: Option<&Path>,
        environment: &[(&str, &str)],
    ) -> Result<Self, Refused> {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let own = folder.path().join("data");
        let setup = Setup {
            upstream: upstream.to_owned(),
            config: config.to_owned(),
            data: data.map_or(own, Path::to_path_buf),
            file: folder.path().join("hapax.toml"),
            environment: environment
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
        };
        let process = Some(Process::start(&setup)?);
        Ok(Self {
            setup,
            process,
            _folder: folder,
        })
    }

    fn process(&self) -> &Process {
        self.process.as_ref().expect("it runs")
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.process().gateway
    }

    pub(crate) fn admin(&self) -> SocketAddr {
        self.process().admin
    }

    pub(crate) fn scheme(&self) -> &str {
        &self.process().scheme
    }

    pub(crate) fn pid(&self) -> Pid {
        self.process().pid()
    }

    /// The most memory that it has had so far.
    pub(crate) fn peak_memory_mib(&self) -> u64 {
        let path = format!("/proc/{}/status", self.pid().as_raw_nonzero());
        let status = std::fs::read_to_string(path).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let number = line.and_then(|line| line.split_whitespace().next());
        number
            .and_then(|kib| kib.parse::<u64>().ok())
            .expect("a number")
            / 1024
    }

    /// What it has logged so far.
    pub(crate) fn log(&self) -> String {
        self.process().log.lock().clone()
    }

    pub(crate) fn wait_for_log(&self, what: &str, is_so: impl Fn(&str) -> bool) {
        let is_so = self.process().log.wait_until(|log| is_so(log));
        assert!(is_so, "the log never said {what}:\n{}", self.log());
    }

    pub(crate) fn kill_nine(&mut self) {
        self.process = None;
    }

    pub(crate) fn try_restart(&mut self) -> Result<(), Refused> {
        self.process = None;
        self.process = Some(Process::start(&self.setup)?);
        Ok(())
    }

    /// Kills it if it runs, and starts it on the same data.
    pub(crate) fn restart(&mut self) {
        self.try_restart().expect("it starts");
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("it runs");
    }

    /// Returns when no thread of it runs any more.
    pub(crate) fn freeze(&self) {
        self.signal(Signal::STOP);
        let stopped = waitpid(Some(self.pid()), WaitOptions::UNTRACED);
        stopped.expect("it is ours").expect("it has stopped");
    }

    /// Waits for its end, which must be under way.
    pub(crate) fn wait_for_end(&mut self) -> (ExitStatus, String) {
        let process = self.process.as_mut().expect("it runs");
        let status = eventually("its end", || process.child.try_wait().expect("it is ours"));
        (status, process.log.lock().clone())
    }

    /// Asks it to stop in order, and sees that it does.
    pub(crate) fn stop(&mut self) {
        self.signal(Signal::TERM);
        let (status, log) = self.wait_for_end();
        assert!(status.success(), "{status}: {log}");
        self.process = None;
    }

    pub(crate) fn admin_get(&self, target: &str) -> Answer {
        let mut connection = Connection::open(self.admin());
        let host = self.admin();
        let request = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        connection.send(request.as_bytes()).expect("it listens");
        connection.read().expect("an answer")
    }

    pub(crate) fn metrics(&self) -> String {
        self.admin_get("/metrics").text()
    }

    /// The sum of all series of a metric whose labels contain all of `labels`; 0 without one.
    pub(crate) fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let text = self.metrics();
        let lines = text.lines().filter_map(|line| line.strip_prefix(name));
        lines
            .filter(|rest| rest.starts_with(['{', ' ']))
            .filter(|rest| labels.iter().all(|label| rest.contains(label)))
            .filter_map(|rest| rest.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }

    /// How many requests ended so.
    pub(crate) fn counted(&self, outcome: &str) -> f64 {
        self.metric("hapax_requests_total", &[&format!("outcome=\"{outcome}\"")])
    }

    /// Whether nobody listens any more.
    pub(crate) fn refuses_connections(&self) -> bool {
        match TcpStream::connect(self.address()) {
            Err(_) => true,
            // The last of the queue may still be taken and dropped.
            Ok(mut stream) => {
                let set = stream.set_read_timeout(Some(PATIENCE));
                set.expect("a time-out");
                stream.read(&mut [0; 1]).is_err()
            }
        }
    }
}
