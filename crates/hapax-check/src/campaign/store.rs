//! A PostgreSQL server of the campaign's own, from Debian's packages, that can crash and come back.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};

use super::node::without_settings;

/// How long the server may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// A server that listens on a socket in a folder of its own.
pub(crate) struct Server {
    folder: PathBuf,
    programs: PathBuf,
    /// Whom it runs as when we are root, which PostgreSQL refuses to be.
    user: Option<(u32, u32)>,
    child: Mutex<Option<Child>>,
}

impl Server {
    /// A new server with an empty database, and the tables of a store in it.
    pub(crate) async fn new(folder: PathBuf, hapax: &Path) -> io::Result<Self> {
        let server = Self {
            programs: programs()?,
            user: user()?,
            folder,
            child: Mutex::new(None),
        };
        std::fs::create_dir_all(&server.folder)?;
        if let Some((user, group)) = server.user {
            std::os::unix::fs::chown(&server.folder, Some(user), Some(group))?;
        }
        let mut initdb = server.command("initdb");
        initdb
            .args([
                "-U",
                "campaign",
                "-A",
                "trust",
                "-E",
                "UTF8",
                "--locale=C",
                "-N",
                "-D",
            ])
            .arg(server.data());
        let output = initdb.output().await?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(io::Error::other(format!("initdb: {said}")));
        }
        server.start().await?;
        server.migrate(hapax).await?;
        Ok(server)
    }

    pub(crate) fn url(&self) -> String {
        let folder = self.folder.to_string_lossy().replace('/', "%2F");
        format!("postgres://campaign@{folder}/postgres")
    }

    /// Starts it again on its data, and returns when it takes connections.
    pub(crate) async fn start(&self) -> io::Result<()> {
        self.spawn().await?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut asked = Command::new(self.programs.join("pg_isready"));
            let asked = asked.arg("-q").arg("-h").arg(&self.folder).status();
            if asked.await?.success() {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(io::Error::other("PostgreSQL does not take connections"));
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    async fn spawn(&self) -> io::Result<()> {
        let mut command = self.command("postgres");
        command
            .arg("-D")
            .arg(self.data())
            .arg("-k")
            .arg(&self.folder)
            .args(["-c", "listen_addresses=", "-c", "max_connections=200"])
            .args(["-c", "logging_collector=off"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true);
        *self.child.lock().await = Some(command.spawn()?);
        Ok(())
    }

    /// Ends it as a crash does: nothing is written out, and the next start recovers (SIGQUIT).
    pub(crate) async fn crash(&self) -> io::Result<()> {
        if let Some(mut child) = self.child.lock().await.take() {
            let id = child.id().and_then(|id| i32::try_from(id).ok());
            if let Some(pid) = id.and_then(Pid::from_raw) {
                kill_process(pid, Signal::QUIT)?;
            }
            child.wait().await?;
        }
        Ok(())
    }

    async fn migrate(&self, hapax: &Path) -> io::Result<()> {
        let mut migrate = Command::new(hapax);
        without_settings(&mut migrate);
        migrate.args(["store", "migrate", "--store", &self.url()]);
        let output = migrate.current_dir("/").output().await?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(io::Error::other(format!("hapax store migrate: {said}")))
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// A program of the server, whose end is tied to ours.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("setpriv");
        if let Some((user, group)) = self.user {
            command.uid(user).gid(group);
        }
        command
            .args(["--pdeathsig", "QUIT", "--"])
            .arg(self.programs.join(program))
            .current_dir("/");
        command
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.folder));
    }
}

/// Where Debian puts the server's programs: those of the newest version.
fn programs() -> io::Result<PathBuf> {
    let missing = || io::Error::other("PostgreSQL is missing: apt-get install postgresql");
    let versions = std::fs::read_dir("/usr/lib/postgresql").map_err(|_| missing())?;
    versions
        .filter_map(|version| Some(version.ok()?.path().join("bin")))
        .filter(|bin| bin.join("initdb").exists())
        .max()
        .ok_or_else(missing)
}

fn user() -> io::Result<Option<(u32, u32)>> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let users = std::fs::read_to_string("/etc/passwd")?;
    let found = ["postgres:", "nobody:"].iter().find_map(|name| {
        let line = users.lines().find(|line| line.starts_with(name))?;
        let mut fields = line.split(':').skip(2);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    });
    found
        .map(Some)
        .ok_or_else(|| io::Error::other("PostgreSQL needs another user than root"))
}
