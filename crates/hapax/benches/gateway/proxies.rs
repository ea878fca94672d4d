//! The two proxies as child processes, and what the system says about them.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// Longer than either takes to start or to drain.
const PATIENCE: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// A proxy that runs, stopped when dropped.
pub(crate) struct Proxy {
    child: Child,
    pub(crate) address: SocketAddr,
    pub(crate) admin: Option<SocketAddr>,
    /// Its configuration, temporary files and store.
    _directory: TempDir,
}

/// The program as it is shipped. The one that cargo builds beside a benchmark has the features of
/// the tests' dependencies as well, a clock that can be stopped among them, and is slower for it.
fn product() -> &'static Path {
    static PRODUCT: OnceLock<PathBuf> = OnceLock::new();
    PRODUCT.get_or_init(|| {
        let beside = Path::new(env!("CARGO_BIN_EXE_hapax")).parent().unwrap();
        let target = beside.join("product");
        let built = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
            .args([
                "build",
                "--quiet",
                "--release",
                "--locked",
                "-p",
                "hapax",
                "--bin",
                "hapax",
            ])
            .arg("--target-dir")
            .arg(&target)
            .status()
            .unwrap();
        assert!(built.success(), "the product does not build");
        target.join("release/hapax")
    })
}

/// Makes the tables of a store in PostgreSQL.
pub(crate) fn migrate(url: &str) {
    let migrating = Command::new(product())
        .args(["store", "migrate", "--store", url])
        .stdout(Stdio::null())
        .status();
    assert!(migrating.unwrap().success(), "the store cannot be migrated");
}

impl Proxy {
    /// nginx with two workers, kept-alive upstream connections and no access log.
    pub(crate) fn nginx(upstream: SocketAddr) -> Self {
        let directory = directory();
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let path = directory.path().display();
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .iter()
            .map(|what| format!("{what}_temp_path {path}/{what};\n"))
            .collect();
        let configuration = format!(
            "worker_processes 2;\ndaemon off;\npid {path}/pid;\nerror_log stderr warn;\n\
             events {{ worker_connections 16384; }}\n\
             http {{\naccess_log off;\n{temporary}\
             keepalive_timeout 600s;\nkeepalive_requests 1000000000;\n\
             upstream up {{ server {upstream}; keepalive 128; keepalive_requests 1000000000; }}\n\
             server {{ listen {address}; location / {{ proxy_pass http://up;\n\
             proxy_http_version 1.1; proxy_set_header Connection \"\"; }} }}\n}}\n"
        );
        let file = directory.path().join("nginx.conf");
        std::fs::write(&file, configuration).unwrap();
        let child = Command::new("nginx")
            .arg("-c")
            .arg(&file)
            .arg("-p")
            .arg(directory.path())
            .arg("-e")
            .arg("stderr")
            .spawn()
            .expect("nginx, from the system's packages");
        wait_for("nginx", || TcpStream::connect(address).is_ok());
        Self {
            child,
            address,
            admin: None,
            _directory: directory,
        }
    }

    /// hapax with the embedded store on the disk of this directory, `rest` added to its
    /// configuration; logs go to a file.
    pub(crate) fn hapax(upstream: SocketAddr, rest: &str) -> Self {
        Self::hapax_in(directory(), upstream, rest)
    }

    /// The same over a store that is there already, in `store` of the directory.
    pub(crate) fn hapax_in(directory: TempDir, upstream: SocketAddr, rest: &str) -> Self {
        let store = directory.path().join("store");
        let section = format!("path = \"{}\"", store.display());
        Self::serve(directory, &section, upstream, rest)
    }

    /// The same over the store that `section` describes.
    pub(crate) fn hapax_over(section: &str, upstream: SocketAddr, rest: &str) -> Self {
        Self::serve(directory(), section, upstream, rest)
    }

    fn serve(directory: TempDir, section: &str, upstream: SocketAddr, rest: &str) -> Self {
        let path = directory.path();
        let configuration = format!(
            "[server]\nlisten = \"127.0.0.1:0\"\nupstream = \"http://{upstream}\"\n\
             max_connections = 20000\n\
             [admin]\nlisten = \"127.0.0.1:0\"\naudit_file = \"{}\"\n\
             [store]\n{section}\nmax_records = 0\nmax_bytes = 0\n{rest}",
            path.join("audit").display()
        );
        let file = path.join("hapax.toml");
        std::fs::write(&file, configuration).unwrap();
        let mut child = Command::new(product())
            .arg("serve")
            .arg("-c")
            .arg(&file)
            .stdout(Stdio::piped())
            .stderr(File::create(path.join("log")).unwrap())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut listening = |who: &str| -> SocketAddr {
            let line = lines.next().and_then(Result::ok).unwrap_or_else(|| {
                let log = std::fs::read_to_string(path.join("log"));
                panic!("hapax did not start: {}", log.unwrap_or_default())
            });
            let url = line.strip_prefix(&format!("listening {who} http://"));
            url.expect("the address it listens on").parse().unwrap()
        };
        let (address, admin) = (listening("gateway"), Some(listening("admin")));
        Self {
            child,
            address,
            admin,
            _directory: directory,
        }
    }

    /// CPU time so far, of all threads and of the workers it started, in microseconds.
    pub(crate) fn cpu_us(&self) -> f64 {
        let own = self.child.id();
        let children = std::fs::read_to_string(format!("/proc/{own}/task/{own}/children"));
        let children = children.unwrap_or_default();
        let workers = children.split_whitespace().map(|pid| pid.parse().unwrap());
        std::iter::once(own).chain(workers).map(cpu_us).sum()
    }

    /// Memory that is in main memory now, in bytes.
    pub(crate) fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.unwrap().trim().trim_end_matches(" kB");
        kib.parse::<u64>().unwrap() * 1024
    }

    /// A figure without labels from the metrics.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        use std::io::{Read, Write};
        let mut stream = TcpStream::connect(self.admin.unwrap()).unwrap();
        stream
            .write_all(b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
            .unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let value = text.lines().find_map(|line| {
            let value = line.strip_prefix(name)?.strip_prefix(' ')?;
            value.trim().parse().ok()
        });
        value.unwrap_or_else(|| panic!("{name} in {text}"))
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let pid = Pid::from_raw(self.child.id().cast_signed()).unwrap();
        // Gone already: then there is nothing to end.
        let _ = kill_process(pid, Signal::TERM);
        wait_for("the proxy's end", || {
            matches!(self.child.try_wait(), Ok(Some(_)))
        });
    }
}

/// On the disk of the working directory: `/tmp` may be in main memory, where syncs cost nothing.
pub(crate) fn directory() -> TempDir {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
    tempfile::tempdir_in(target).unwrap()
}

pub(crate) fn wait_for(what: &str, is_so: impl FnMut() -> bool) {
    let mut is_so = is_so;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    runtime.block_on(async {
        let looking = async {
            while !is_so() {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        let waited = tokio::time::timeout(PATIENCE, looking).await;
        waited.unwrap_or_else(|_| panic!("waited too long for {what}"));
    });
}

fn cpu_us(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, fields) = stat.rsplit_once(')').unwrap();
    let fields: Vec<&str> = fields.split_whitespace().collect();
    // Fields 14 and 15 of proc(5), in hundredths of a second on every Linux.
    let ticks = |index: usize| fields[index].parse::<f64>().unwrap();
    (ticks(11) + ticks(12)) * 10_000.0
}
