//! Breaks the world as dealt: one lane of faults on gateways and stores, one on the upstream, at the same time.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::deck::Fault;
use super::disk::Disk;
use super::event::Recorder;
use super::node::Node;
use super::store::Server;
use super::upstream::{Mode, Upstream};
use crate::random::Random;

/// An upstream that fails now and then, as services do.
const ORDINARY: &str = "upstream-ordinary";

/// So many requests meet everything that the upstream does in one of its modes.
const ENOUGH: u64 = 8;

/// Everything of a round that can be broken.
pub(crate) struct World {
    pub(crate) recorder: Arc<Recorder>,
    pub(crate) nodes: Arc<Vec<Node>>,
    pub(crate) upstream: Upstream,
    pub(crate) disk: Option<Disk>,
    pub(crate) server: Option<Server>,
    pub(crate) clock: Option<Clock>,
    /// How much room a store wants on its disk before it claims; 0: it finds out by failing.
    pub(crate) min_free_disk: u64,
}

/// The gateways' wall clock, as libfaketime shows it to them.
pub(crate) struct Clock {
    /// What libfaketime reads once a second.
    pub(crate) file: PathBuf,
    pub(crate) offset_s: AtomicI64,
}

/// libfaketime, where it is installed.
pub(crate) fn faketime() -> Option<PathBuf> {
    let folders = std::fs::read_dir("/usr/lib").ok()?;
    folders
        .filter_map(|folder| Some(folder.ok()?.path().join("faketime/libfaketime.so.1")))
        .find(|library| library.exists())
}

impl Clock {
    /// A clock that is right.
    pub(crate) fn new(file: PathBuf) -> io::Result<Self> {
        std::fs::write(&file, "+0\n")?;
        Ok(Self {
            file,
            offset_s: AtomicI64::new(0),
        })
    }

    /// What makes a process see this clock.
    pub(crate) fn environment(&self, library: &Path) -> Vec<(&'static str, String)> {
        vec![
            ("LD_PRELOAD", library.to_string_lossy().into_owned()),
            (
                "FAKETIME_TIMESTAMP_FILE",
                self.file.to_string_lossy().into_owned(),
            ),
            ("FAKETIME_CACHE_DURATION", "1".into()),
            // Time-outs go by the monotonic clock, which no step changes.
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".into()),
            ("DONT_FAKE_MONOTONIC", "1".into()),
        ]
    }

    fn step(&self, by_s: i64) -> io::Result<()> {
        let offset = self.offset_s.fetch_add(by_s, Ordering::Relaxed) + by_s;
        let new = self.file.with_extension("new");
        std::fs::write(&new, format!("{offset:+}\n"))?;
        std::fs::rename(new, &self.file)
    }
}

fn pause(random: &mut Random, low_ms: usize, high_ms: usize) -> tokio::time::Sleep {
    let ms = random.within(low_ms, high_ms);
    sleep(Duration::from_millis(u64::try_from(ms).unwrap_or(0)))
}

impl World {
    /// Faults on gateways and stores, one after the other.
    pub(crate) async fn break_nodes(
        &self,
        faults: &[Fault],
        random: &mut Random,
    ) -> io::Result<()> {
        pause(random, 200, 500).await;
        for fault in faults {
            let turn = random.within(0, self.nodes.len().saturating_sub(1));
            let Some(node) = self.nodes.get(turn) else {
                return Ok(());
            };
            self.break_node(*fault, node, random).await?;
            self.recorder.healed(fault.name(), &node.name);
            pause(random, 100, 700).await;
        }
        Ok(())
    }

    async fn break_node(&self, fault: Fault, node: &Node, random: &mut Random) -> io::Result<()> {
        let tell = || self.recorder.fault(fault.name(), &node.name);
        match fault {
            Fault::Kill => {
                tell();
                node.kill().await?;
                pause(random, 0, 300).await;
                node.start().await?;
            }
            Fault::Freeze => {
                tell();
                node.freeze().await?;
                // The lease of these gateways is one second.
                pause(random, 1200, 2500).await;
                node.thaw().await?;
            }
            Fault::Stop => {
                tell();
                self.stop(node).await?;
                node.start().await?;
            }
            Fault::Reload => {
                tell();
                node.reload().await?;
            }
            Fault::PowerCut | Fault::DiskFull | Fault::IoError => {
                if let Some(disk) = &self.disk {
                    tell();
                    self.break_disk(fault, disk, node, random).await?;
                }
            }
            Fault::ClockForward | Fault::ClockBack => {
                if let Some(clock) = &self.clock {
                    tell();
                    clock.step(if fault == Fault::ClockForward {
                        3600
                    } else {
                        -3600
                    })?;
                    // It is looked at once a second.
                    pause(random, 1100, 1500).await;
                }
            }
            Fault::StoreCrash => {
                if let Some(server) = &self.server {
                    tell();
                    server.crash().await?;
                    pause(random, 0, 800).await;
                    server.start().await?;
                }
            }
            Fault::StorePromotion => {
                if let Some(server) = &self.server {
                    tell();
                    let pause = random.within(0, 500);
                    let pause = Duration::from_millis(u64::try_from(pause).unwrap_or(0));
                    server.promote(pause).await?;
                }
            }
            Fault::UpstreamKill
            | Fault::UpstreamReset
            | Fault::UpstreamSlow
            | Fault::UpstreamHole => {}
        }
        Ok(())
    }

    async fn break_disk(
        &self,
        fault: Fault,
        disk: &Disk,
        node: &Node,
        random: &mut Random,
    ) -> io::Result<()> {
        match fault {
            Fault::DiskFull => {
                disk.fill(self.min_free_disk / 2)?;
                pause(random, 1500, 2000).await;
                disk.empty()?;
                self.wait_until_ready(node).await
            }
            Fault::IoError => {
                disk.fail().await?;
                pause(random, 500, 1500).await;
                node.kill().await?;
                disk.mount_again().await?;
                node.start().await
            }
            _ => {
                node.freeze().await?;
                disk.copy().await?;
                node.kill().await?;
                disk.mount_copy().await?;
                let store = disk.path()?.join("data");
                node.move_store(store.to_string_lossy().into_owned());
                node.start().await
            }
        }
    }

    /// SIGTERM; it must end well.
    pub(crate) async fn stop(&self, node: &Node) -> io::Result<()> {
        match node.stop().await? {
            Some(status) if !status.success() => Err(io::Error::other(format!(
                "node {} ended with {status} on SIGTERM",
                node.name
            ))),
            _ => Ok(()),
        }
    }

    /// Faults on the upstream, one after the other.
    pub(crate) async fn break_upstream(
        &self,
        faults: &[Fault],
        random: &mut Random,
    ) -> io::Result<()> {
        if faults.is_empty() {
            return Ok(());
        }
        // Its 500s leave outcomes unknown in between, too.
        self.recorder.fault(ORDINARY, "upstream");
        self.upstream.set(Mode::Fair);
        pause(random, 200, 500).await;
        for fault in faults {
            self.recorder.fault(fault.name(), "upstream");
            match fault {
                Fault::UpstreamKill => {
                    self.upstream.kill().await;
                    pause(random, 0, 600).await;
                    self.upstream.restart().await?;
                }
                Fault::UpstreamReset => self.upstream.set(Mode::Reset),
                Fault::UpstreamSlow => self.upstream.set(Mode::Slow),
                _ => self.upstream.set(Mode::Hole),
            }
            let before = self.upstream.requests();
            pause(random, 600, 1500).await;
            self.wait_for_requests(before + ENOUGH).await;
            self.upstream.set(Mode::Fair);
            self.recorder.healed(fault.name(), "upstream");
            pause(random, 200, 900).await;
        }
        Ok(())
    }

    /// A fault of the upstream that no request has met is none: a store that is away may keep them all off.
    async fn wait_for_requests(&self, count: u64) {
        let deadline = Instant::now() + Duration::from_secs(15);
        while self.upstream.requests() < count && Instant::now() < deadline {
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Ends every fault, and returns when every gateway says that it is ready.
    pub(crate) async fn heal(&self) -> io::Result<()> {
        self.upstream.set(Mode::Calm);
        self.upstream.restart().await?;
        if let Some(disk) = &self.disk {
            disk.empty()?;
        }
        for node in self.nodes.iter() {
            node.thaw().await?;
            if let Some(status) = node.ended().await? {
                return Err(io::Error::other(format!(
                    "node {} ended by itself: {status}",
                    node.name
                )));
            }
            self.wait_until_ready(node).await?;
        }
        Ok(())
    }

    /// A store that could not write takes no claim until it is started again; anything else must pass by itself.
    async fn wait_until_ready(&self, node: &Node) -> io::Result<()> {
        let may_need_restart = self.min_free_disk == 0 && self.disk.is_some();
        let patience = Duration::from_secs(if may_need_restart { 2 } else { 10 });
        if is_ready_within(node, patience).await {
            return Ok(());
        }
        if may_need_restart {
            self.recorder.fault("restart-to-heal", &node.name);
            node.kill().await?;
            node.start().await?;
            if is_ready_within(node, patience).await {
                return Ok(());
            }
        }
        Err(io::Error::other(format!(
            "node {} does not become ready without faults",
            node.name
        )))
    }
}

async fn is_ready_within(node: &Node, patience: Duration) -> bool {
    let deadline = Instant::now() + patience;
    loop {
        if node.is_ready().await {
            return true;
        }
        if Instant::now() > deadline {
            return false;
        }
        sleep(Duration::from_millis(50)).await;
    }
}
