//! One run: what is in it follows from its seed.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use tokio::sync::watch;
use turmoil::Sim;
use turmoil::net::TcpListener;

use hapax_check::evidence::{Effects, Expect, Guarantee, History, Verdict, judge};
use hapax_tower::{HapaxLayer, Options};

use crate::config::{self, Sources};
use crate::gateway::listener;
use crate::gateway::proxy::{Live, LiveRouting, SharedLive};

use super::client::{Clients, Intent};
use super::evidence::Evidence;
use super::network::{Listener, Network, Way};
use super::random::{self, Random};
use super::store::{Disk, Flaw, Health, Kind};
use super::trouble::{Plan, Trouble, Weather};
use super::upstream::{self, Upstream};

/// Where gateways listen.
const PORT: u16 = 8080;
/// What a step lasts, in milliseconds, one of these: messages take at least one.
const TICKS_MS: [u64; 4] = [5, 10, 20, 20];
/// When all that is wrong is mended.
const MENDED_AT_MS: u64 = 2_000;
/// What a claim lives and the upstream may take, in milliseconds: so short that runs see them end.
const LEASE_MS: u64 = 1_000;
const UPSTREAM_TIMEOUT_MS: u64 = 700;
/// After this nothing is under way any more.
const SETTLED_AFTER_MS: u64 = LEASE_MS + UPSTREAM_TIMEOUT_MS + 800;
/// A run that is not over by then hangs.
const LONGEST: Duration = Duration::from_secs(120);

/// What is wrong with the set-up on purpose: each must be caught.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wrong {
    Nothing,
    /// `on_unknown = "resend"`, judged as if it were not.
    Resends,
    /// The layer claims nothing: `mode = "off"`.
    ClaimsNothing,
    /// Gateways that should share a store have one each.
    StoresApart,
    Store(Flaw),
}

/// A run and what the judge says of it.
pub(super) struct Run {
    pub(super) history: History,
    pub(super) effects: Effects,
    pub(super) verdict: Verdict,
    /// Requests that were refused because another was under way.
    pub(super) in_progress: u64,
    pub(super) weather: Weather,
}

/// What a run is made of.
struct Parts {
    random: Random,
    weather: Weather,
    gateways: Vec<String>,
    clients: Vec<String>,
    disks: Vec<Arc<Disk>>,
    evidence: Arc<Evidence>,
    network: Arc<Network>,
    upstream: Arc<Upstream>,
    live: SharedLive,
}

/// Draws task ids until the next is a multiple of 64. tokio drops the tasks of a crashed host in an order that follows from their
/// ids, which are counted by the process: a run that is repeated alone must begin where it began among others.
fn align_task_ids() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let next = || {
        runtime
            .spawn(async {})
            .id()
            .to_string()
            .parse::<u64>()
            .unwrap()
    };
    while next() % 64 != 63 {}
}

/// Runs the world of a seed until its clients know, and asks the judge.
pub(super) fn run(seed: u64, wrong: Wrong) -> Run {
    align_task_ids();
    random::seed_ids(seed);
    let mut parts = Parts::draw(seed, wrong);
    let mut sim = parts.sim(seed);
    parts.people(&mut sim);
    let mut plan = Plan::draw(
        &mut parts.random,
        parts.weather.troubles,
        &parts.gateways,
        &parts.clients,
        MENDED_AT_MS,
    );
    loop {
        let now = sim.elapsed();
        let now_ms = u64::try_from(now.as_millis()).unwrap();
        parts
            .evidence
            .reaches(u64::try_from(now.as_micros()).unwrap());
        for disk in &parts.disks {
            disk.advance_to(now_ms);
        }
        plan.advance(now_ms, |trouble, begins| {
            parts.turn(&mut sim, trouble, begins)
        });
        if plan.is_over(now_ms) {
            parts.mend(&mut sim);
        }
        let is_over = sim
            .step()
            .unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        if is_over {
            break;
        }
    }
    let (history, effects) = parts.evidence.taken();
    let verdict = judge(&history, &effects, &parts.expect());
    Run {
        history,
        effects,
        verdict,
        in_progress: parts.evidence.waited.load(Ordering::Relaxed),
        weather: parts.weather,
    }
}

impl Parts {
    fn draw(seed: u64, wrong: Wrong) -> Self {
        let mut random = Random::new(seed);
        let weather = Weather::draw(&mut random);
        let evidence = Arc::<Evidence>::default();
        let network = Network::new(
            Arc::clone(&evidence),
            Random::new(random.next()),
            weather.one_cut_in,
        );
        let is_alone = random.once_in(3) && wrong != Wrong::StoresApart;
        let nodes = if is_alone { 1 } else { random.between(2, 3) };
        let gateways: Vec<_> = (0..nodes).map(|node| format!("gateway-{node}")).collect();
        let clients = (0..random.between(1, 3)).map(|client| format!("client-{client}"));
        let clients = clients.collect();
        let kind = if is_alone {
            Kind::Embedded
        } else {
            Kind::Shared
        };
        let flaw = match wrong {
            Wrong::Store(flaw) => flaw,
            _ => Flaw::None,
        };
        let count = if wrong == Wrong::StoresApart {
            nodes
        } else {
            1
        };
        let disks: Vec<_> = (0..count)
            .map(|_| Disk::new(kind, flaw, Random::new(random.next())))
            .collect();
        for disk in &disks {
            disk.loses_one_in(weather.one_lost_in);
        }
        let upstream = Arc::new(Upstream {
            evidence: Arc::clone(&evidence),
            network: Arc::clone(&network),
            random: Mutex::new(Random::new(random.next())),
            one_trouble_in: weather.one_upstream_in,
            slowness_ms: if weather.is_slow {
                600
            } else {
                [20, 60, 100][random.index(3)]
            },
            is_calm: AtomicBool::new(false),
            refusals: AtomicU64::new(0),
        });
        if weather.one_lost_in != 0 {
            evidence.begins("store-loses", None);
        }
        Self {
            live: live(&mut random, wrong),
            random,
            weather,
            gateways,
            clients,
            disks,
            evidence,
            network,
            upstream,
        }
    }

    /// The hosts, on a network of their own.
    fn sim(&mut self, seed: u64) -> Sim<'static> {
        let tick_ms = TICKS_MS[self.random.index(TICKS_MS.len())];
        let mut builder = turmoil::Builder::new();
        builder
            .rng_seed(seed)
            .tick_duration(Duration::from_millis(tick_ms))
            .simulation_duration(LONGEST)
            .min_message_latency(Duration::from_millis(1))
            .max_message_latency(Duration::from_millis(self.random.between(2, 60)));
        if self.random.once_in(2) {
            builder.enable_random_order();
        }
        if self.weather.is_lossy {
            builder.fail_rate(0.002).repair_rate(0.2);
            self.evidence.begins("loss", None);
        }
        let mut sim = builder.build();
        let upstream = Arc::clone(&self.upstream);
        sim.host("upstream", move || Arc::clone(&upstream).run());
        for (node, name) in self.gateways.iter().enumerate() {
            let disk = Arc::clone(&self.disks[node % self.disks.len()]);
            let (network, evidence) = (Arc::clone(&self.network), Arc::clone(&self.evidence));
            let live = Arc::clone(&self.live);
            sim.host(name.as_str(), move || {
                let (network, evidence) = (Arc::clone(&network), Arc::clone(&evidence));
                gateway(Arc::clone(&disk), network, evidence, Arc::clone(&live))
            });
        }
        sim
    }

    /// The clients, and one who asks about everything at the end.
    fn people(&mut self, sim: &mut Sim<'_>) {
        let random = &mut self.random;
        let intents = (0..random.between(1, 4)).map(|number| Intent {
            key: format!("key-{number}"),
            scope: format!("Bearer {}", random.below(2)),
            path: format!("/orders?shop={}", random.below(2)),
            content: Bytes::from(format!("{{\"amount\":{number}}}")),
        });
        let intents = intents.collect();
        let clients = Arc::new(Clients {
            evidence: Arc::clone(&self.evidence),
            network: Arc::clone(&self.network),
            gateways: self.gateways.clone(),
            port: PORT,
            intents,
            one_left_in: if random.once_in(2) {
                random.between(3, 8)
            } else {
                0
            },
            one_reused_in: if random.once_in(3) { 6 } else { 0 },
        });
        for (number, name) in (0..).zip(&self.clients) {
            let client = Random::new(random.next());
            let running = Arc::clone(&clients).run(number, client, random.between(1, 4));
            sim.client(name.as_str(), running);
        }
        let from = Duration::from_millis(MENDED_AT_MS + SETTLED_AFTER_MS);
        sim.client("auditor", clients.audit(99, from));
    }

    /// Lets a trouble begin or end.
    fn turn(&self, sim: &mut Sim<'_>, trouble: &Trouble, begins: bool) {
        let node = trouble.node();
        if begins {
            self.evidence.begins(trouble.name(), node);
        } else {
            self.evidence.ends(trouble.name(), node);
        }
        match (trouble, begins) {
            (Trouble::Partition(one, other), true) => sim.partition(&**one, &**other),
            (Trouble::OneWay(one, other), true) => sim.partition_oneway(&**one, &**other),
            (Trouble::OneWay(one, other), false) => sim.repair_oneway(&**one, &**other),
            (Trouble::Partition(one, other), false) => sim.repair(&**one, &**other),
            (Trouble::Hold(one, other), true) => sim.hold(&**one, &**other),
            (Trouble::Hold(one, other), false) => sim.release(&**one, &**other),
            (Trouble::Killed(name), true) => self.crash(sim, name),
            (Trouble::Killed(name), false) => start(sim, name),
            (Trouble::PowerCut(name), true) => {
                // Silence, not the ends of connections that a dying process leaves behind.
                for peer in self.peers_of(name) {
                    sim.partition(&**name, peer);
                }
                self.crash(sim, name);
            }
            (Trouble::PowerCut(name), false) => {
                for peer in self.peers_of(name) {
                    sim.repair(&**name, peer);
                }
                start(sim, name);
            }
            (Trouble::StoreDown, true) => {
                self.disks.iter().for_each(|disk| disk.fares(Health::Down))
            }
            (Trouble::StoreSlow, true) => {
                self.disks.iter().for_each(|disk| disk.fares(Health::Slow))
            }
            (Trouble::StoreRestarts, true) => {
                for disk in &self.disks {
                    disk.crash();
                    disk.fares(Health::Down);
                }
            }
            (Trouble::StoreDown | Trouble::StoreSlow | Trouble::StoreRestarts, false) => {
                self.disks.iter().for_each(|disk| disk.fares(Health::Good));
            }
        }
        if !begins && self.is_clean_break(trouble) {
            self.network.reset_all();
        }
    }

    /// Whether connections cannot go on after this.
    fn is_clean_break(&self, trouble: &Trouble) -> bool {
        matches!(
            trouble,
            Trouble::Partition(..) | Trouble::OneWay(..) | Trouble::PowerCut(..)
        )
    }

    fn peers_of<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let all = self.gateways.iter().chain(&self.clients);
        let named = all.map(String::as_str).chain(["upstream"]);
        named.filter(move |peer| *peer != name)
    }

    fn crash(&self, sim: &mut Sim<'_>, name: &str) {
        if !sim.is_host_running(name) {
            return;
        }
        sim.crash(name);
        if let Some(node) = self.gateways.iter().position(|gateway| gateway == name) {
            let disk = &self.disks[node % self.disks.len()];
            if disk.kind == Kind::Embedded {
                disk.crash();
            }
        }
    }

    /// From here on nothing goes wrong.
    fn mend(&self, sim: &mut Sim<'_>) {
        sim.set_fail_rate(0.0);
        let names = || self.peers_of("");
        for one in names() {
            for other in names().filter(|other| *other != one) {
                sim.release(one, other);
            }
        }
        for name in self.gateways.iter().map(String::as_str).chain(["upstream"]) {
            start(sim, name);
        }
        for disk in &self.disks {
            disk.loses_one_in(0);
            disk.fares(Health::Good);
        }
        self.network.calm();
        self.upstream.is_calm.store(true, Ordering::Relaxed);
        if !self.weather.is_clean() {
            self.network.reset_all();
        }
        self.evidence.heals();
    }

    /// What the history is held to.
    fn expect(&self) -> Expect {
        let mut expect = Expect {
            settles_within: Duration::from_millis(SETTLED_AFTER_MS),
            ..Expect::default()
        };
        let store_faults = ["store-loses", "store-restarts"].map(str::to_owned);
        expect.store_faults.extend(store_faults);
        expect
    }
}

/// A gateway as `hapax serve` puts it together, until it crashes.
async fn gateway(
    disk: Arc<Disk>,
    network: Arc<Network>,
    evidence: Arc<Evidence>,
    live: SharedLive,
) -> turmoil::Result {
    let settings = live.load_full();
    let settings = &settings.settings;
    let (base, upstream) = super::super::upstream(settings, Way(Arc::clone(&network)))?;
    let options = Options {
        random: random::fill,
        ..super::super::layer_options(settings)
    };
    let routing = LiveRouting(Arc::clone(&live));
    let layer = HapaxLayer::new(disk.open(), routing, evidence, options);
    let (gateway, forward) = super::super::assemble(&layer, upstream, base, &live);
    tokio::spawn(super::super::complete(layer.clone(), forward, live));
    tokio::spawn(super::super::sweep(layer));
    let listener = TcpListener::bind(("0.0.0.0", PORT)).await?;
    let (_running, stopped) = watch::channel(false);
    let listener = Listener { listener, network };
    let granted = super::super::gateway_settings(settings)?;
    listener::serve(listener, granted, gateway, stopped).await;
    Ok(())
}

fn start(sim: &mut Sim<'_>, name: &str) {
    if !sim.is_host_running(name) {
        sim.bounce(name);
    }
}

/// The settings of all gateways of a run, read as those of `hapax serve` are.
fn live(random: &mut Random, wrong: Wrong) -> SharedLive {
    let wait = if random.once_in(2) { "0s" } else { "600ms" };
    let on_unknown = if wrong == Wrong::Resends {
        "resend"
    } else {
        "refuse"
    };
    let mode = if wrong == Wrong::ClaimsNothing {
        "off"
    } else {
        "enforce"
    };
    let environment = [
        (
            "SERVER__UPSTREAM",
            format!("http://upstream:{}", upstream::PORT),
        ),
        (
            "SERVER__UPSTREAM_TIMEOUT",
            format!("{UPSTREAM_TIMEOUT_MS}ms"),
        ),
        ("SERVER__CONNECT_TIMEOUT", "300ms".to_owned()),
        ("STORE__KIND", "memory".to_owned()),
        ("STORE__OPERATION_TIMEOUT", "300ms".to_owned()),
        ("DEFAULTS__LEASE", format!("{LEASE_MS}ms")),
        ("DEFAULTS__WAIT", wait.to_owned()),
        ("DEFAULTS__ON_UNKNOWN", on_unknown.to_owned()),
        ("DEFAULTS__MODE", mode.to_owned()),
    ];
    let environment = environment
        .map(|(name, value)| (format!("HAPAX_{name}").into(), value.into()))
        .to_vec();
    let sources = Sources {
        environment,
        ..Sources::default()
    };
    let (settings, _) = config::load(sources).unwrap().into_parts();
    Arc::new(ArcSwap::from_pointee(Live::new(settings)))
}

/// What a run shows to be broken, if anything.
pub(super) fn broken(run: &Run) -> Vec<Guarantee> {
    run.verdict.broken()
}
