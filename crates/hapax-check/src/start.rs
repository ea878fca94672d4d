//! A target that the checker starts itself, so that it may kill it: its process group, by SIGKILL

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};

/// How long the target may take until it listens.
const START: Duration = Duration::from_secs(30);
/// How long its address may take to be free once it was killed.
const END: Duration = Duration::from_secs(5);
/// How often is looked whether somebody listens.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// The target, running or killed. It ends with this.
pub(crate) struct Started {
    command: String,
    address: SocketAddr,
    child: Mutex<Option<Child>>,
}

impl Started {
    /// Runs the command by `sh -c`, and returns when the target listens at the address.
    ///
    /// # Errors
    ///
    /// Somebody else listens there, the command ends, or nothing listens within 30 s.
    pub(crate) async fn start(command: &str, address: SocketAddr) -> Result<Self, String> {
        if is_listening(address).await {
            return Err(format!(
                "something listens on {address} already, which is not for the checker to kill"
            ));
        }
        let started = Self {
            command: command.to_owned(),
            address,
            child: Mutex::new(None),
        };
        started.start_again().await?;
        Ok(started)
    }

    /// Starts it once more after it was killed.
    pub(crate) async fn start_again(&self) -> Result<(), String> {
        let mut child = Command::new("sh")
            .arg("-c")
            .arg(&self.command)
            .stdin(Stdio::null())
            // Standard output is the report's; what is wrong with a target stands on its standard error.
            .stdout(Stdio::null())
            // A group of its own, so that what the shell starts is killed with it.
            .process_group(0)
            .spawn()
            .map_err(|error| format!("it cannot be run: {error}"))?;
        let mut held = self.child.lock().await;
        let deadline = Instant::now() + START;
        let failed = loop {
            match child.try_wait() {
                Ok(None) => {}
                Ok(Some(status)) => break format!("it ended: {status}"),
                Err(error) => break error.to_string(),
            }
            if is_listening(self.address).await {
                *held = Some(child);
                return Ok(());
            }
            if Instant::now() >= deadline {
                break format!("nothing listens on {} after 30 s", self.address);
            }
            sleep(LOOK_EVERY).await;
        };
        kill_group(&child);
        Err(failed)
    }

    /// SIGKILL, and its end: afterwards nobody listens at the address.
    ///
    /// # Errors
    ///
    /// It had ended by itself, or something goes on listening.
    pub(crate) async fn kill(&self) -> Result<(), String> {
        let Some(mut child) = self.child.lock().await.take() else {
            return Err("the target is not running".into());
        };
        if let Ok(Some(status)) = child.try_wait() {
            return Err(format!("the target ended by itself: {status}"));
        }
        kill_group(&child);
        drop(child.wait().await);
        let deadline = Instant::now() + END;
        while is_listening(self.address).await {
            if Instant::now() >= deadline {
                return Err(format!(
                    "{} is still listened on after the target was killed",
                    self.address
                ));
            }
            sleep(LOOK_EVERY).await;
        }
        Ok(())
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        if let Some(child) = self.child.get_mut() {
            kill_group(child);
        }
    }
}

async fn is_listening(address: SocketAddr) -> bool {
    TcpStream::connect(address).await.is_ok()
}

/// Nothing where it was waited for: its id may be somebody else's.
fn kill_group(child: &Child) {
    let group = child.id().and_then(|id| i32::try_from(id).ok());
    if let Some(group) = group.and_then(Pid::from_raw) {
        // A group that has ended meanwhile is what was wanted.
        let _ = kill_process_group(group, Signal::KILL);
    }
}
