//! The processes of the demo: two shops and a real `hapax serve`, started, killed and started again.

use std::io::{self, BufRead as _, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex as StdMutex, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio::sync::{Mutex, oneshot};
use tokio::time::timeout;

/// How long a process may take to be ready: far above what a busy machine needs.
const START_PATIENCE: Duration = Duration::from_secs(20);

/// How long an order takes at the shops; it is committed half way. Long enough to be hit in between.
pub(super) const WORK: Duration = Duration::from_millis(500);

/// hapax as it comes, but for the time after which an answer is late.
const CONFIGURATION: &str = "[server]\nupstream_timeout = \"10s\"\n";

/// What a process is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Role {
    /// The shop that stands alone.
    BareShop,
    /// The shop behind hapax.
    Shop,
    /// `hapax serve`.
    Hapax,
}

impl Role {
    pub(super) const ALL: [Self; 3] = [Self::BareShop, Self::Shop, Self::Hapax];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::BareShop => "bare-shop",
            Self::Shop => "shop",
            Self::Hapax => "hapax",
        }
    }

    /// The role of this name.
    pub(super) fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.name() == name)
    }

    /// What its line on standard output begins with.
    const fn announcement(self) -> &'static str {
        match self {
            Self::BareShop | Self::Shop => "listening shop http://",
            Self::Hapax => "listening gateway http://",
        }
    }
}

/// A process did not get ready.
#[derive(Debug, thiserror::Error)]
#[error("{name} did not start: {why}\n{log}")]
pub(crate) struct StartError {
    name: &'static str,
    why: String,
    log: String,
}

/// A running process; it ends with this value.
#[derive(Debug)]
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// How a process is, for the page.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(super) struct Condition {
    /// Its process id while it runs.
    pid: Option<u32>,
    /// How often it has been started.
    starts: u32,
    /// Where it listens; kept over its deaths.
    address: Option<SocketAddr>,
}

/// A role's process and how it is.
#[derive(Debug, Default)]
struct Slot {
    /// Held while it is started, so that it is killed before or after, not in between.
    process: Mutex<Option<Process>>,
    condition: StdMutex<Condition>,
}

impl Slot {
    fn change(&self, change: impl FnOnce(&mut Condition)) {
        change(
            &mut self
                .condition
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        );
    }

    fn condition(&self) -> Condition {
        *self
            .condition
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// All processes of the demo.
#[derive(Debug)]
pub(super) struct Children {
    program: PathBuf,
    folder: PathBuf,
    bare_shop: Slot,
    shop: Slot,
    hapax: Slot,
}

impl Children {
    /// None of them runs yet.
    pub(super) fn new(folder: &Path) -> io::Result<Self> {
        Ok(Self {
            program: std::env::current_exe()?,
            folder: folder.to_owned(),
            bare_shop: Slot::default(),
            shop: Slot::default(),
            hapax: Slot::default(),
        })
    }

    const fn slot(&self, role: Role) -> &Slot {
        match role {
            Role::BareShop => &self.bare_shop,
            Role::Shop => &self.shop,
            Role::Hapax => &self.hapax,
        }
    }

    /// How the process is; one that has ended by itself is noticed here.
    pub(super) fn condition(&self, role: Role) -> Condition {
        let slot = self.slot(role);
        if let Ok(mut process) = slot.process.try_lock()
            && let Some(running) = process.as_mut()
            && let Ok(Some(_)) = running.0.try_wait()
        {
            *process = None;
            slot.change(|condition| condition.pid = None);
        }
        slot.condition()
    }

    /// Where it listens, or did before it was killed.
    pub(super) fn address(&self, role: Role) -> Option<SocketAddr> {
        self.slot(role).condition().address
    }

    /// Starts all of them.
    pub(super) async fn start_all(&self) -> Result<(), StartError> {
        tokio::try_join!(self.start(Role::BareShop), self.start(Role::Shop))?;
        // Behind the shop, whose address it has to know.
        self.start(Role::Hapax).await
    }

    /// Starts a process unless it runs, and returns when it is ready. Its address stays what it was.
    pub(super) async fn start(&self, role: Role) -> Result<(), StartError> {
        let slot = self.slot(role);
        let mut process = slot.process.lock().await;
        if process.is_some() {
            return Ok(());
        }
        let (started, address) = self.spawn(role).await.map_err(|why| StartError {
            name: role.name(),
            why: why.to_string(),
            log: std::fs::read_to_string(self.log(role)).unwrap_or_default(),
        })?;
        slot.change(|condition| {
            condition.pid = Some(started.0.id());
            condition.starts += 1;
            condition.address = Some(address);
        });
        *process = Some(started);
        Ok(())
    }

    /// Kills a process with SIGKILL, and returns when it is gone.
    pub(super) async fn kill(&self, role: Role) {
        let slot = self.slot(role);
        let mut process = slot.process.lock().await;
        drop(process.take());
        slot.change(|condition| condition.pid = None);
    }

    /// Ends all of them, forgets what they have written, and starts them again.
    pub(super) async fn start_over(&self) -> Result<(), StartError> {
        for role in Role::ALL {
            self.kill(role).await;
            let _ = std::fs::remove_dir_all(self.data(role));
        }
        self.start_all().await
    }

    fn data(&self, role: Role) -> PathBuf {
        self.folder.join(format!("{}-data", role.name()))
    }

    fn log(&self, role: Role) -> PathBuf {
        self.folder.join(format!("{}.log", role.name()))
    }

    async fn spawn(&self, role: Role) -> io::Result<(Process, SocketAddr)> {
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log(role))?;
        let mut command = self.command(role)?;
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            // Ctrl-C is for the demo, which ends them when it has heard.
            .process_group(0);
        // What the user has set up for another hapax is not for this one.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("HAPAX_") {
                command.env_remove(name);
            }
        }
        // Its standard input stays open as long as the child is held: that is how it knows of us.
        let mut process = Process(command.spawn()?);
        let address = announced(&mut process, role.announcement()).await?;
        Ok((process, address))
    }

    fn command(&self, role: Role) -> io::Result<Command> {
        let anywhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let listen = self.address(role).unwrap_or(anywhere).to_string();
        let data = self.data(role);
        let mut command = Command::new(&self.program);
        match role {
            Role::BareShop | Role::Shop => {
                std::fs::create_dir_all(&data)?;
                command
                    .args(["demo-child", "shop", "--listen", &listen])
                    .args(["--work-ms", &WORK.as_millis().to_string(), "--database"])
                    .arg(data.join("shop.sqlite"));
            }
            Role::Hapax => {
                let shop = self
                    .address(Role::Shop)
                    .ok_or_else(|| io::Error::other("there is no shop to stand in front of"))?;
                let configuration = self.folder.join("hapax.toml");
                std::fs::write(&configuration, CONFIGURATION)?;
                command
                    .args(["demo-child", "serve", "--listen", &listen])
                    .args(["--admin", &anywhere.to_string()])
                    .args(["--upstream", &format!("http://{shop}"), "--store"])
                    .arg(data)
                    .arg("-c")
                    .arg(configuration);
            }
        }
        Ok(command)
    }
}

/// Waits for the line that says where the process listens.
async fn announced(process: &mut Process, announcement: &'static str) -> io::Result<SocketAddr> {
    let stdout = process.0.stdout.take();
    let stdout = stdout.ok_or_else(|| io::Error::other("it has no standard output"))?;
    let (told, heard) = oneshot::channel();
    // A thread, which reads on to the end: a full pipe would stop the process.
    std::thread::spawn(move || {
        let mut told = Some(told);
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if let Some(address) = line.strip_prefix(announcement)
                && let Some(told) = told.take()
            {
                let _ = told.send(address.parse());
            }
        }
    });
    match timeout(START_PATIENCE, heard).await {
        Ok(Ok(address)) => address.map_err(io::Error::other),
        Ok(Err(_)) => Err(io::Error::other("it ended")),
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}
