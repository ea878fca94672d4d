//! PostgreSQL servers of the campaign's own, from Debian's packages: one that crashes and comes back, or dies and is succeeded.

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
/// How often something is looked at that nothing announces.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A primary and, where it is to die for good, a synchronous standby. Each listens on a socket in a folder of its own.
pub(crate) struct Server {
    folder: PathBuf,
    programs: PathBuf,
    /// Whom it runs as when we are root, which PostgreSQL refuses to be.
    user: Option<(u32, u32)>,
    has_standby: bool,
    running: Mutex<Running>,
}

/// Which of the two is the primary, and what runs.
struct Running {
    primary: Place,
    child: Option<Child>,
    standby: Option<Child>,
}

/// One of two servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    One,
    Two,
}

impl Place {
    fn other(self) -> Self {
        match self {
            Self::One => Self::Two,
            Self::Two => Self::One,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::One => "one",
            Self::Two => "two",
        }
    }
}

impl Server {
    /// A new server with an empty database, and the tables of a store in it.
    pub(crate) async fn new(folder: PathBuf, hapax: &Path, has_standby: bool) -> io::Result<Self> {
        let server = Self {
            programs: programs()?,
            user: user()?,
            folder,
            has_standby,
            running: Mutex::new(Running {
                primary: Place::One,
                child: None,
                standby: None,
            }),
        };
        for place in [Place::One, Place::Two] {
            let folder = server.folder_of(place);
            std::fs::create_dir_all(&folder)?;
            if let Some((user, group)) = server.user {
                std::os::unix::fs::chown(&folder, Some(user), Some(group))?;
            }
        }
        let mut initdb = server.command("initdb");
        initdb
            .args(["-U", "campaign", "-A", "trust", "-E", "UTF8"])
            .args(["--locale=C", "-N", "-D"])
            .arg(server.data(Place::One));
        said(initdb).await?;
        server.start().await?;
        server.migrate(hapax).await?;
        if has_standby {
            let mut running = server.running.lock().await;
            server.attach(&mut running).await?;
        }
        Ok(server)
    }

    /// Whichever of the two takes writes.
    pub(crate) fn url(&self) -> String {
        let host = |place: Place| self.folder_of(place).to_string_lossy().replace('/', "%2F");
        let one = host(Place::One);
        match self.has_standby {
            false => format!("postgres://campaign@{one}/postgres"),
            true => {
                let two = host(Place::Two);
                format!("postgres://campaign@{one},{two}/postgres?target_session_attrs=read-write")
            }
        }
    }

    /// Starts the primary again on its data, and returns when it takes connections.
    pub(crate) async fn start(&self) -> io::Result<()> {
        let mut running = self.running.lock().await;
        let primary = running.primary;
        running.child = Some(self.spawn(primary).await?);
        Ok(())
    }

    /// Starts a server, and returns when it takes connections.
    async fn spawn(&self, place: Place) -> io::Result<Child> {
        let folder = self.folder_of(place);
        let mut command = self.command("postgres");
        command
            .arg("-D")
            .arg(self.data(place))
            .arg("-k")
            .arg(&folder)
            .args(["-c", "listen_addresses=", "-c", "max_connections=200"])
            // What a standby still needs is not thrown away while it starts.
            .args(["-c", "wal_keep_size=256MB", "-c", "logging_collector=off"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true);
        let child = command.spawn()?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut asked = Command::new(self.programs.join("pg_isready"));
            let asked = asked.arg("-q").arg("-h").arg(&folder).status();
            if asked.await?.success() {
                return Ok(child);
            }
            if Instant::now() > deadline {
                return Err(io::Error::other("PostgreSQL does not take connections"));
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// Ends the primary as a crash does: nothing is written out, and the next start recovers (SIGQUIT).
    pub(crate) async fn crash(&self) -> io::Result<()> {
        let child = self.running.lock().await.child.take();
        end(child, Signal::QUIT).await
    }

    /// Ends whatever runs.
    pub(crate) async fn end(&self) -> io::Result<()> {
        let standby = self.running.lock().await.standby.take();
        end(standby, Signal::QUIT).await?;
        self.crash().await
    }

    /// The primary dies for good (SIGKILL), and after `pause` the standby takes over. Afterwards that has a standby again.
    pub(crate) async fn promote(&self, pause: Duration) -> io::Result<()> {
        let mut running = self.running.lock().await;
        end(running.child.take(), Signal::KILL).await?;
        sleep(pause).await;
        let standby = running.primary.other();
        let mut promote = self.command("pg_ctl");
        promote
            .args(["promote", "-w", "-D"])
            .arg(self.data(standby));
        said(promote).await?;
        running.primary = standby;
        running.child = running.standby.take();
        self.attach(&mut running).await
    }

    /// Gives the primary a standby that every commit waits for.
    async fn attach(&self, running: &mut Running) -> io::Result<()> {
        let (primary, standby) = (running.primary, running.primary.other());
        let data = self.data(standby);
        if data.exists() {
            std::fs::remove_dir_all(&data)?;
        }
        let mut backup = self.command("pg_basebackup");
        backup
            .args([
                "-R", "-N", "-X", "stream", "-c", "fast", "-U", "campaign", "-h",
            ])
            .arg(self.folder_of(primary))
            .arg("-D")
            .arg(&data);
        said(backup).await?;
        running.standby = Some(self.spawn(standby).await?);
        self.query(primary, "ALTER SYSTEM SET synchronous_standby_names = '*'")
            .await?;
        self.query(primary, "SELECT pg_reload_conf()").await?;
        let deadline = Instant::now() + PATIENCE;
        let state = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync' AND state = 'streaming'";
        while self.query(primary, state).await? != "1" {
            if Instant::now() > deadline {
                return Err(io::Error::other("the standby does not follow"));
            }
            sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    async fn query(&self, place: Place, sql: &str) -> io::Result<String> {
        let mut psql = self.command("psql");
        psql.args(["-U", "campaign", "-XAtc", sql, "-h"])
            .arg(self.folder_of(place))
            .arg("postgres");
        said(psql).await
    }

    async fn migrate(&self, hapax: &Path) -> io::Result<()> {
        let mut migrate = Command::new(hapax);
        without_settings(&mut migrate);
        migrate.args(["store", "migrate", "--store", &self.url()]);
        migrate.current_dir("/");
        said(migrate).await.map(drop)
    }

    fn folder_of(&self, place: Place) -> PathBuf {
        self.folder.join(place.name())
    }

    fn data(&self, place: Place) -> PathBuf {
        self.folder_of(place).join("data")
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

/// Sends a signal, and returns when it has ended.
async fn end(child: Option<Child>, signal: Signal) -> io::Result<()> {
    let Some(mut child) = child else {
        return Ok(());
    };
    let id = child.id().and_then(|id| i32::try_from(id).ok());
    if let Some(pid) = id.and_then(Pid::from_raw) {
        kill_process(pid, signal)?;
    }
    child.wait().await?;
    Ok(())
}

/// What a program writes to its standard output. One that fails is an error with what it writes to the other.
async fn said(mut command: Command) -> io::Result<String> {
    let output = command.output().await?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    let why = String::from_utf8_lossy(&output.stderr);
    let program = command.as_std();
    Err(io::Error::other(format!("{program:?}: {}", why.trim())))
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
