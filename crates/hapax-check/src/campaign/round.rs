//! One round: a world is started, used and broken, healed, asked for everything again, and judged.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::process::Command;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::caller::{Ask, Caller, Fate, Leave};
use super::deck::Fault;
use super::disk::Disk;
use super::effects::EffectLog;
use super::event::Recorder;
use super::load::Load;
use super::nemesis::{Clock, World, faketime};
use super::node::{Node, Setup, without_settings};
use super::options::{Control, Options, Store};
use super::state::Totals;
use super::store::Server;
use super::upstream::Upstream;
use super::verdict;
use crate::evidence::{Effect, Effects, Event, History};
use crate::random::Random;

/// Load without faults, before and after them.
const CALM: Duration = Duration::from_millis(1500);
/// How long after the last fault a key may be in progress.
const SETTLED_WITHIN: Duration = Duration::from_secs(30);
/// Clients that ask for everything again.
const ASKERS: u64 = 16;

/// A round, before it is played.
pub(crate) struct Round<'a> {
    pub(crate) options: &'a Options,
    pub(crate) number: u64,
    /// A folder of its own.
    pub(crate) folder: PathBuf,
    /// How long settled records are kept, where they expire during the round.
    pub(crate) retention: Option<Duration>,
    /// Faults on gateways and stores.
    pub(crate) faults: Vec<Fault>,
    /// Faults on the upstream.
    pub(crate) upstream_faults: Vec<Fault>,
}

/// The parts of a round in play.
struct Play {
    world: World,
    log: EffectLog,
    asks: Vec<Ask>,
    /// What is wrong without being in the history.
    wrong: Vec<(&'static str, String)>,
}

impl Round<'_> {
    fn is_calm(&self) -> bool {
        self.faults.is_empty() && self.upstream_faults.is_empty()
    }

    /// Plays it. What it came to, violations included; its files stay in its folder.
    pub(crate) async fn play(&self) -> io::Result<Totals> {
        let begun = Instant::now();
        let mut play = self.begin().await?;
        if let Err(error) = self.go_through(&mut play).await {
            play.wrong.push(("process", error.to_string()));
        }
        for node in play.world.nodes.iter() {
            node.thaw().await?;
            node.kill().await?;
        }
        if let Some(server) = &play.world.server {
            server.end().await?;
        }
        let history = History {
            events: play.world.recorder.events(),
        };
        let file = std::fs::File::create(self.folder.join("history.jsonl"))?;
        history.write(io::BufWriter::new(file))?;
        let effects = play.log.read()?;
        let mut totals = count(&history, &effects);
        totals.short_rounds = u64::from(self.retention.is_some());
        let mut violations =
            verdict::judge(&history, &effects, self.retention, &mut totals.checked);
        for (guarantee, what) in play.wrong.drain(..) {
            violations.push(verdict::Violation::new(guarantee, what));
        }
        violations.extend(self.panics()?);
        totals.elapsed_s = begun.elapsed().as_secs_f64();
        totals.faults = play.world.recorder.fired();
        for violation in violations {
            *totals
                .violations
                .entry(violation.guarantee.clone())
                .or_default() += 1;
            totals
                .findings
                .push(format!("{}: {}", violation.guarantee, violation.what));
        }
        Ok(totals)
    }

    /// Everything started.
    async fn begin(&self) -> io::Result<Play> {
        std::fs::create_dir_all(&self.folder)?;
        let seed = self.options.seed;
        let mut random = Random::for_case(seed, &format!("round-{}", self.number));
        let recorder = Arc::new(Recorder::new());
        let log = EffectLog::create(&self.folder.join("effects.jsonl"))?;
        let upstream = Upstream::start(
            log.clone(),
            Arc::clone(&recorder),
            Random::for_case(random.next(), "upstream"),
        )
        .await?;
        let (mut disk, mut server, mut clock) = (None, None, None);
        match self.options.store {
            Store::Embedded if super::disk::is_possible() => {
                disk = Some(Disk::new(&self.folder).await?);
            }
            Store::Embedded => {}
            Store::Postgres => {
                let name = format!("hapax-campaign-{}-{}", std::process::id(), self.number);
                let folder = std::env::temp_dir().join(name);
                let has_standby = self.faults.contains(&Fault::StorePromotion);
                server = Some(Server::new(folder, &self.options.hapax, has_standby).await?);
            }
        }
        // Half of the full disks are noticed in advance, half of them by a write that fails.
        let min_free_disk = if random.within(0, 1) == 0 {
            0
        } else {
            16 << 20
        };
        let mut environment = Vec::new();
        let wants_clock = |fault: &Fault| fault.is_of_clocks();
        if let Some(library) = faketime()
            && self.faults.iter().any(wants_clock)
        {
            let made = Clock::new(self.folder.join("clock"))?;
            environment = made.environment(&library);
            clock = Some(made);
        }
        let setup = Setup {
            binary: self.options.hapax.clone(),
            config: self.config(&mut random, min_free_disk),
            config_file: PathBuf::new(),
            upstream: upstream.url(),
            store: self.store(disk.as_ref(), server.as_ref())?,
            log: PathBuf::new(),
            environment,
        };
        let nodes = self.nodes(&setup);
        for node in &nodes {
            node.start().await?;
        }
        Ok(Play {
            world: World {
                recorder,
                nodes: Arc::new(nodes),
                upstream,
                disk,
                server,
                clock,
                min_free_disk,
            },
            log,
            asks: Vec::new(),
            wrong: Vec::new(),
        })
    }

    /// What gateways are told about where their store is.
    fn store(&self, disk: Option<&Disk>, server: Option<&Server>) -> io::Result<String> {
        Ok(match (server, disk, self.options.control) {
            (_, _, Some(Control::Memory)) => "memory:".to_owned(),
            (Some(server), _, _) => server.url(),
            (None, Some(disk), _) => disk.path()?.join("data").to_string_lossy().into_owned(),
            (None, None, _) => self.folder.join("data").to_string_lossy().into_owned(),
        })
    }

    fn nodes(&self, setup: &Setup) -> Vec<Node> {
        let names: &[&str] = match self.options.store {
            Store::Embedded => &["a"],
            Store::Postgres => &["a", "b", "c"],
        };
        let node = |name: &&str| {
            let setup = Setup {
                config_file: self.folder.join(format!("hapax-{name}.toml")),
                log: self.folder.join(format!("hapax-{name}.log")),
                ..setup.clone()
            };
            Node::new(name, setup)
        };
        names.iter().map(node).collect()
    }

    fn config(&self, random: &mut Random, min_free_disk: u64) -> String {
        // Without faults nothing may be unknown, however busy this machine is.
        let (patience, lease) = if self.is_calm() {
            ("20s", "20s")
        } else {
            ("1s", "1s")
        };
        let wait = if random.within(0, 1) == 0 {
            "0s"
        } else {
            "300ms"
        };
        let drain = if random.within(0, 1) == 0 {
            "200ms"
        } else {
            "5s"
        };
        let retention = match (self.retention, self.options.control) {
            (None, _) => String::new(),
            (Some(kept), Some(Control::Early)) => {
                format!("retention = \"{}ms\"\n", kept.as_millis() / 3)
            }
            (Some(kept), _) => format!("retention = \"{}ms\"\n", kept.as_millis()),
        };
        let on_unknown = match self.options.control {
            Some(Control::Resend) => "resend",
            _ => "refuse",
        };
        format!(
            "[server]\nupstream_timeout = \"{patience}\"\nconnect_timeout = \"500ms\"\ndrain_timeout = \"{drain}\"\n\
             [store]\nmin_free_disk = \"{min_free_disk}B\"\noperation_timeout = \"2s\"\n\
             [defaults]\nlease = \"{lease}\"\nwait = \"{wait}\"\non_unknown = \"{on_unknown}\"\n{retention}\
             [telemetry]\nlog = \"warn\"\n"
        )
    }

    async fn go_through(&self, play: &mut Play) -> io::Result<()> {
        let mut random = Random::for_case(self.options.seed, &format!("faults-{}", self.number));
        let mut of_upstream = Random::for_case(random.next(), "upstream");
        let load = Load {
            recorder: Arc::clone(&play.world.recorder),
            nodes: Arc::clone(&play.world.nodes),
            is_over: Arc::new(AtomicBool::new(false)),
            round: self.number,
            seed: random.next(),
            is_calm: self.is_calm(),
        };
        let mut clients = JoinSet::new();
        for client in 1..=self.options.clients {
            clients.spawn(load.clone().run(client));
        }
        let world = &play.world;
        let (nodes, upstream, ()) = tokio::join!(
            world.break_nodes(&self.faults, &mut random),
            world.break_upstream(&self.upstream_faults, &mut of_upstream),
            sleep(CALM)
        );
        load.is_over.store(true, Ordering::Release);
        let ended = timeout(SETTLED_WITHIN, clients.join_all()).await;
        match ended {
            Ok(asks) => play.asks = asks.into_iter().flatten().collect(),
            Err(_) => play.wrong.push(("G10", "a client hangs".into())),
        }
        nodes?;
        upstream?;
        world.heal().await?;
        world.recorder.add(|at_us| Event::Healed {
            at_us,
            fault: None,
            node: None,
        });
        self.ask_again(play, "first").await;
        for node in play.world.nodes.iter() {
            for (name, value) in node.figures().await {
                play.world.recorder.add(|at_us| Event::Figure {
                    at_us,
                    name: name.to_owned(),
                    value,
                    node: Some(node.name.clone()),
                });
            }
        }
        // Everything settled is on disk: an ordinary restart changes nothing, and every record is whole.
        for node in play.world.nodes.iter() {
            play.world.stop(node).await?;
            self.verify(node).await?;
            node.start().await?;
        }
        self.ask_again(play, "second").await;
        Ok(())
    }

    /// Asks for every key that any client has used, until each is settled.
    async fn ask_again(&self, play: &mut Play, time: &str) {
        let mut askers = JoinSet::new();
        let asks = Arc::new(play.asks.clone());
        let deadline = Instant::now() + SETTLED_WITHIN;
        for asker in 0..ASKERS {
            let world = &play.world;
            let mut caller = Caller::new(
                2_000_000 + asker,
                &world.recorder,
                &world.nodes,
                self.is_calm(),
            );
            let mut random = Random::for_case(asker, time);
            let asks = Arc::clone(&asks);
            askers.spawn(async move {
                let step = usize::try_from(ASKERS).unwrap_or(1);
                let first = usize::try_from(asker).unwrap_or(0);
                let mut hanging = Vec::new();
                for ask in asks.iter().skip(first).step_by(step) {
                    if let Err(fate) = settle(&mut caller, ask, &mut random, deadline).await {
                        hanging.push(format!("{} of {}: {fate:?}", ask.key, ask.scope));
                    }
                }
                hanging
            });
        }
        for hanging in askers.join_all().await.into_iter().flatten() {
            play.wrong
                .push(("G10", format!("is not settled: {hanging}")));
        }
    }

    /// Every record of an embedded store is what was written (G15).
    async fn verify(&self, node: &Node) -> io::Result<()> {
        let is_on_disk =
            self.options.store == Store::Embedded && self.options.control != Some(Control::Memory);
        if !is_on_disk {
            return Ok(());
        }
        let mut verify = Command::new(&self.options.hapax);
        without_settings(&mut verify);
        verify
            .args(["store", "verify", "-c"])
            .arg(self.folder.join(format!("hapax-{}.toml", node.name)))
            .env("HAPAX_STORE__PATH", node.store());
        let output = verify.output().await?;
        if output.status.success() {
            return Ok(());
        }
        Err(io::Error::other(format!(
            "hapax store verify: {}: {}{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        )))
    }

    /// Panics of gateways, from their logs.
    fn panics(&self) -> io::Result<Vec<verdict::Violation>> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&self.folder)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "log") {
                found.extend(panics_in(&path)?);
            }
        }
        Ok(found)
    }
}

fn panics_in(path: &Path) -> io::Result<Vec<verdict::Violation>> {
    let text = String::from_utf8_lossy(&std::fs::read(path)?).into_owned();
    let lines = text.lines().filter(|line| line.contains("panicked at"));
    Ok(lines
        .map(|line| verdict::Violation::new("panic", line.to_owned()))
        .collect())
}

/// Asks until the key is settled; what it was last told when it is not by the deadline.
async fn settle(
    caller: &mut Caller,
    ask: &Ask,
    random: &mut Random,
    deadline: Instant,
) -> Result<(), Fate> {
    loop {
        let fate = caller.attempt(ask, Leave::Never, random).await;
        let is_settled = match &fate {
            Fate::Final(_) => true,
            Fate::Unknown(_, kind) => kind == "outcome-unknown",
            Fate::Refused(_, kind) => kind == "key-reused",
            Fate::Unsent => false,
        };
        if is_settled {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(fate);
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// How much there was of everything.
fn count(history: &History, effects: &Effects) -> Totals {
    let length = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
    let mut totals = Totals {
        effects: length(effects.effects.len()),
        ..Totals::default()
    };
    let mut keys: BTreeSet<(&str, &str)> = BTreeSet::new();
    let mut of_op: BTreeMap<u64, (&str, &str)> = BTreeMap::new();
    let mut acknowledged: BTreeSet<(&str, &str)> = BTreeSet::new();
    let mut unknown: BTreeSet<(&str, &str)> = BTreeSet::new();
    for event in &history.events {
        match event {
            Event::Invoke { op, key, scope, .. } => {
                totals.requests += 1;
                keys.insert((scope, key));
                of_op.insert(*op, (scope, key));
            }
            Event::Ok { op, replayed, .. } => {
                totals.replays += u64::from(*replayed);
                acknowledged.extend(of_op.get(op));
            }
            Event::Fail { kind, .. } => {
                *totals.refusals.entry(kind.clone()).or_default() += 1;
            }
            Event::Info { op, kind, .. } => {
                *totals.refusals.entry(kind.clone()).or_default() += 1;
                if kind == "outcome-unknown" {
                    unknown.extend(of_op.get(op));
                }
            }
            Event::Figure { name, value, .. } => {
                let largest = totals.figures.entry(name.clone()).or_default();
                *largest = (*largest).max(*value);
            }
            Event::Fault { .. } | Event::Healed { .. } => {}
        }
    }
    let mut with_effect: BTreeSet<(&str, &str)> = BTreeSet::new();
    for Effect { scope, key, .. } in &effects.effects {
        totals.again += u64::from(!with_effect.insert((scope, key)));
    }
    totals.keys = length(keys.len());
    totals.acknowledged = length(acknowledged.len());
    totals.unknown = length(unknown.difference(&acknowledged).count());
    totals
}
