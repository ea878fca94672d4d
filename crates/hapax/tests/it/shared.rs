//! Several gateways on one store, in real servers: one effect, whatever happens to whom.

use std::collections::HashMap;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::client::{Answer, Connection, post};
use crate::gateway::Gateway;
use crate::operator::{act, completed, the_record};
use crate::redis_servers::RedisServer;
use crate::servers::PostgresServer;
use crate::support::{Gate, campaign, eventually};
use crate::upstream::{Act, Upstream, created};

const CALLERS: usize = 200;
const HOLD_BACK: Duration = Duration::from_millis(200);
/// How soon after a server's return a gateway must work again.
const RECOVERY: Duration = Duration::from_secs(5);

/// A server that gateways share.
trait Server {
    const KIND: &'static str;
    /// How often it is restarted under load.
    const CYCLES: usize;
    fn ready() -> Self;
    fn url(&self) -> String;
    fn crash(&mut self);
    /// Starts it again and returns when it answers.
    fn go_on(&mut self);
}

impl Server for PostgresServer {
    const KIND: &'static str = "postgres";
    const CYCLES: usize = 10;

    fn ready() -> Self {
        let server = Self::start();
        wait_until_migrated(&server.url());
        server
    }

    fn url(&self) -> String {
        Self::url(self)
    }

    fn crash(&mut self) {
        Self::crash(self);
    }

    fn go_on(&mut self) {
        Self::go_on(self, &[]);
        wait_until_migrated(&Self::url(self));
    }
}

impl Server for RedisServer {
    const KIND: &'static str = "redis";
    const CYCLES: usize = 20;

    fn ready() -> Self {
        Self::start()
    }

    fn url(&self) -> String {
        Self::url(self)
    }

    fn crash(&mut self) {
        Self::crash(self);
    }

    fn go_on(&mut self) {
        Self::go_on(self);
    }
}

/// Also waits for a server that is starting.
pub(crate) fn wait_until_migrated(url: &str) {
    eventually("a migration", || {
        let migrated = Command::new(env!("CARGO_BIN_EXE_hapax"))
            .args(["store", "migrate", "--store", url])
            // Meant for these tests: the program knows no such setting.
            .env_remove("HAPAX_CAMPAIGN")
            .current_dir("/")
            .output();
        migrated.expect("it runs").status.success().then_some(())
    });
}

fn gateway<S: Server>(server: &S, upstream: &Upstream, config: &str) -> Gateway {
    let url = server.url();
    let started = Gateway::try_start_in(&upstream.url(), config, Some(Path::new(&url)));
    started.expect("it starts")
}

fn two_hundred_duplicates_over_three_gateways_execute_once<S: Server>() {
    let server = S::ready();
    let gate = Gate::new();
    let held = gate.clone();
    let upstream = Upstream::scripted(move |effect| Act::Hold(held.clone(), created(effect)));
    let config = "[defaults]\nwait = \"20s\"\n[limits]\nmax_waiters_per_key = 0\n";
    let gateways: Vec<Gateway> = (0..3)
        .map(|_| gateway(&server, &upstream, config))
        .collect();
    let barrier = Arc::new(Barrier::new(CALLERS));
    let callers: Vec<_> = (0..CALLERS)
        .map(|caller| {
            let (barrier, address) = (Arc::clone(&barrier), gateways[caller % 3].address());
            thread::spawn(move || {
                let mut connection = Connection::open(address);
                barrier.wait();
                connection.send(&post("once").bytes()).expect("it listens");
                connection.read().expect("an answer")
            })
        })
        .collect();
    upstream.wait_for_effects(1);
    gate.open();
    let answers: Vec<Answer> = callers
        .into_iter()
        .map(|caller| caller.join().expect("no panic"))
        .collect();
    assert_eq!(upstream.count(), 1);
    let first = &answers[0];
    assert_eq!(first.status, 201, "{first:?}");
    for answer in &answers {
        assert_eq!(answer.kept(), first.kept());
    }
    let replays = answers.iter().filter(|answer| answer.is_replay());
    assert_eq!(replays.count(), CALLERS - 1);
    let status = gateways[0].admin_get("/api/v1/status").json();
    assert_eq!(status["store"]["kind"], S::KIND);
    assert_eq!(status["store"]["durability"], "durable");
    gateways[0].wait_for_log("kind and durability", |log| {
        log.lines()
            .any(|line| line.contains(S::KIND) && line.contains("durable"))
    });
}

fn a_gateway_that_froze_past_its_lease_does_not_write_any_more<S: Server>() {
    let server = S::ready();
    let gate = Gate::new();
    let held = gate.clone();
    let upstream = Upstream::scripted(move |effect| Act::Hold(held.clone(), created(effect)));
    let config = "[defaults]\nlease = \"1s\"\n";
    let frozen = gateway(&server, &upstream, config);
    let other = gateway(&server, &upstream, config);
    let mut caller = Connection::open(frozen.address());
    caller.send(&post("k").bytes()).expect("it listens");
    upstream.wait_for_effects(1);
    frozen.freeze();
    let taken_over = eventually("the end of the lease", || {
        let answer = post("k").send(other.address());
        (answer.status != 409).then_some(answer)
    });
    assert_eq!(taken_over.status, 504, "{taken_over:?}");
    assert_eq!(taken_over.problem(), "outcome-unknown");
    // What the late holder must not overrule: a person looked, and said what happened.
    let said = act(&the_record(&other), "resolve", &completed()).to(&other);
    assert_eq!(said.status, 200, "{said:?}");
    let resolved = post("k").send(other.address());
    gate.open();
    frozen.signal(Signal::CONT);
    eventually("its stale write", || {
        (frozen.metric("hapax_stale_write_refused_total", &[]) > 0.0).then_some(())
    });
    drop(caller.read());
    for gateway in [&frozen, &other] {
        let retry = post("k").send(gateway.address());
        assert_eq!(
            retry.kept(),
            resolved.kept(),
            "the stale write changed nothing"
        );
    }
    assert_eq!(upstream.count(), 1, "no second effect");
}

fn without_its_server_a_gateway_executes_nothing_and_recovers<S: Server>() {
    let mut server = S::ready();
    let upstream = Upstream::new();
    let gateway = gateway(&server, &upstream, "");
    let first = post("before").send(gateway.address());
    assert_eq!(first.status, 201, "{first:?}");
    server.crash();
    for number in 0..5 {
        let refused = post(&format!("down-{number}")).send(gateway.address());
        assert_eq!(refused.status, 503, "{refused:?}");
        assert_eq!(refused.problem(), "store-unavailable");
    }
    assert_eq!(gateway.admin_get("/readyz").status, 503);
    assert_eq!(upstream.count(), 1, "nothing was executed");
    server.go_on();
    let returned = Instant::now();
    let replay = eventually("a replay", || {
        let answer = post("before").send(gateway.address());
        (answer.status != 503).then_some(answer)
    });
    assert!(
        replay.is_replay() && replay.kept() == first.kept(),
        "{replay:?}"
    );
    eventually("readiness", || {
        (gateway.admin_get("/readyz").status == 200).then_some(())
    });
    let took = returned.elapsed();
    assert!(took < RECOVERY, "it took {took:?}");
    let next = post("down-0").send(gateway.address());
    assert_eq!((next.status, next.idempotency()), (201, "executed"));
}

/// What must not change. When an answer expires is not known before it is written down, so one
/// that was written down late (P24) does not say it yet.
fn kept(answer: &Answer) -> (u16, Vec<(String, String)>, Vec<u8>) {
    let (status, mut fields, body) = answer.kept();
    fields.retain(|(name, _)| name != "idempotency-expires");
    (status, fields, body)
}

/// Keys, each with its answer where there was a final one.
pub(crate) type Sent = HashMap<String, Option<Answer>>;

/// Sends fresh keys until told to stop; every key, with its answer where there was a final one.
pub(crate) fn work(gateway: &Gateway, name: &str, is_over: &Mutex<bool>) -> Sent {
    let mut sent = HashMap::new();
    let mut connection = Connection::open(gateway.address());
    for number in 0.. {
        if *is_over.lock().expect("no panic") {
            break;
        }
        let key = format!("{name}-{number}");
        sent.insert(key.clone(), None);
        connection.send(&post(&key).bytes()).expect("it listens");
        let answer = connection.read().expect("an answer");
        match answer.status {
            201 => drop(sent.insert(key, Some(answer))),
            // As clients do, it holds back: ten thousand refusals prove no more than a thousand.
            503 => thread::park_timeout(HOLD_BACK),
            504 | 409 => {}
            _ => panic!("{answer:?}"),
        }
    }
    sent
}

fn restarts_of_the_server_under_load_lose_nothing_and_double_nothing<S: Server>() {
    let mut server = S::ready();
    let upstream = Upstream::new();
    // Longer than the server is away: until then, what was answered is written down late (P24).
    let config = "[defaults]\nlease = \"60s\"\n";
    let gateways = [
        gateway(&server, &upstream, config),
        gateway(&server, &upstream, config),
    ];
    let mut tally = Tally::default();
    for cycle in 0..S::CYCLES * campaign() {
        let sent = under_load(&gateways, &format!("{cycle}"), || {
            upstream.wait_for_effects(upstream.count() + 50);
            server.crash();
            server.go_on();
            upstream.wait_for_effects(upstream.count() + 20);
        });
        tally.check(&sent, &gateways);
    }
    tally.end(
        &upstream,
        &format!("{}: restarts", S::KIND),
        S::CYCLES * campaign(),
    );
}

/// Has eight callers work on the gateways while `meanwhile` runs.
pub(crate) fn under_load(gateways: &[Gateway], name: &str, meanwhile: impl FnOnce()) -> Sent {
    let is_over = Mutex::new(false);
    thread::scope(|scope| {
        let callers: Vec<_> = (0..8)
            .map(|caller| {
                let (gateway, is_over) = (&gateways[caller % gateways.len()], &is_over);
                scope.spawn(move || work(gateway, &format!("{name}-{caller}"), is_over))
            })
            .collect();
        meanwhile();
        *is_over.lock().expect("no panic") = true;
        let ended = callers.into_iter().map(|caller| caller.join());
        ended.flat_map(|sent| sent.expect("no panic")).collect()
    })
}

/// What was sent and answered so far.
#[derive(Default)]
pub(crate) struct Tally {
    keys: usize,
    acknowledged: usize,
}

impl Tally {
    /// Tries every key again, on any gateway: what was answered is answered so again.
    pub(crate) fn check(&mut self, sent: &Sent, gateways: &[Gateway]) {
        for (number, (key, answer)) in sent.iter().enumerate() {
            self.keys += 1;
            let Some(first) = answer else { continue };
            self.acknowledged += 1;
            let retry = eventually("the end of a late completion", || {
                let answer = post(key).send(gateways[number % gateways.len()].address());
                (answer.status != 409).then_some(answer)
            });
            assert!(
                retry.is_replay() && kept(&retry) == kept(first),
                "{key} was answered {first:?}, then {retry:?}"
            );
        }
        // What was not answered may be tried again, by whichever gateway, and has one effect.
        let unanswered = sent.iter().filter(|(_, answer)| answer.is_none());
        for (number, (key, _)) in unanswered.enumerate() {
            let retry = post(key).send(gateways[number % gateways.len()].address());
            assert!([201, 409, 504].contains(&retry.status), "{key}: {retry:?}");
        }
    }

    /// Nothing of it was executed twice.
    pub(crate) fn end(&self, upstream: &Upstream, what: &str, cycles: usize) {
        let mut effects: HashMap<String, usize> = HashMap::new();
        for effect in upstream.effects() {
            *effects.entry(effect.key().to_owned()).or_default() += 1;
        }
        effects.retain(|_, count| *count > 1);
        assert_eq!(effects, HashMap::new(), "second effects");
        eprintln!(
            "{what}: {cycles}, 0 second effects of {} keys, 0 of {} answers lost",
            self.keys, self.acknowledged
        );
        assert!(
            self.acknowledged > cycles * 50,
            "only {}",
            self.acknowledged
        );
    }
}

macro_rules! on {
    ($server:ty: $($name:ident = $scenario:ident),+ $(,)?) => {
        $(#[test]
        fn $name() {
            $scenario::<$server>();
        })+
    };
}

on! {
    PostgresServer:
    on_postgresql_two_hundred_duplicates_over_three_gateways_execute_once =
        two_hundred_duplicates_over_three_gateways_execute_once,
    on_postgresql_a_gateway_that_froze_past_its_lease_does_not_write_any_more =
        a_gateway_that_froze_past_its_lease_does_not_write_any_more,
    without_postgresql_a_gateway_executes_nothing_and_recovers =
        without_its_server_a_gateway_executes_nothing_and_recovers,
    restarts_of_postgresql_under_load_lose_nothing_and_double_nothing =
        restarts_of_the_server_under_load_lose_nothing_and_double_nothing,
}

on! {
    RedisServer:
    on_redis_two_hundred_duplicates_over_three_gateways_execute_once =
        two_hundred_duplicates_over_three_gateways_execute_once,
    on_redis_a_gateway_that_froze_past_its_lease_does_not_write_any_more =
        a_gateway_that_froze_past_its_lease_does_not_write_any_more,
    without_redis_a_gateway_executes_nothing_and_recovers =
        without_its_server_a_gateway_executes_nothing_and_recovers,
    restarts_of_redis_under_load_lose_nothing_and_double_nothing =
        restarts_of_the_server_under_load_lose_nothing_and_double_nothing,
}

#[test]
fn with_a_shared_store_the_audit_log_needs_a_file_and_the_start_says_so() {
    let server = <PostgresServer as Server>::ready();
    let started = Command::new(env!("CARGO_BIN_EXE_hapax"))
        .args([
            "serve",
            "--upstream",
            "http://127.0.0.1:1",
            "--listen",
            "127.0.0.1:0",
        ])
        .args(["--admin", "127.0.0.1:0", "--store", &Server::url(&server)])
        .current_dir("/")
        .env_remove("HAPAX_ADMIN__AUDIT_FILE")
        .env_remove("HAPAX_CAMPAIGN")
        .output();
    let refused = started.expect("it runs");
    let log = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(3), "{log}");
    assert!(log.contains("admin.audit_file"), "{log}");
}

#[test]
fn a_start_on_an_unprepared_or_unreachable_postgresql_says_what_to_do() {
    let server = PostgresServer::start();
    let url = server.url();
    let upstream = Upstream::new();
    let refused = eventually("PostgreSQL", || {
        let data = Path::new(&url);
        let started = Gateway::try_start_in(&upstream.url(), "", Some(data));
        let refused = started.err().expect("there are no tables");
        refused.log.contains("version 0").then_some(refused)
    });
    assert!(refused.log.contains("hapax store migrate"), "{refused:?}");
    assert_eq!(refused.status.code(), Some(4), "{refused:?}");
    let nobody = Path::new("postgres://u:hunter2@127.0.0.1:1/x");
    let refused = Gateway::try_start_in(&upstream.url(), "", Some(nobody));
    let refused = refused.err().expect("nobody listens");
    assert_eq!(refused.status.code(), Some(4), "{refused:?}");
    assert!(refused.log.contains("Connection refused"), "{refused:?}");
    assert!(!refused.log.contains("hunter2"), "{refused:?}");
}
