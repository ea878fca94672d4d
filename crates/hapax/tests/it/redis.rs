//! Gateways on Redis: what is said of it, TLS, clocks that are wrong, and what a failover loses.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::client::{Answer, Connection, post};
use crate::gateway::{Gateway, Refused};
use crate::redis_servers::{RedisServer, free_port};
use crate::support::{Gate, eventually};
use crate::upstream::{Act, Upstream, created};

fn start(url: &str, upstream: &Upstream, config: &str) -> Gateway {
    try_start(url, upstream, config, &[]).expect("it starts")
}

fn try_start(
    url: &str,
    upstream: &Upstream,
    config: &str,
    environment: &[(&'static str, &str)],
) -> Result<Gateway, Refused> {
    let variables = environment
        .iter()
        .map(|(name, value)| (*name, (*value).to_owned()))
        .collect();
    Gateway::try_start_with(&upstream.url(), config, Some(Path::new(url)), variables)
}

/// Runs `hapax doctor`; its exit code and what it printed.
fn doctor(url: &str) -> (Option<i32>, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("hapax.toml");
    let text = format!("[store]\nkind = \"redis\"\nurl = \"{url}\"\n");
    std::fs::write(&file, text).expect("room");
    let looked = Command::new(env!("CARGO_BIN_EXE_hapax"))
        .args(["doctor", "-c"])
        .arg(&file)
        .output()
        .expect("it runs");
    let out = String::from_utf8_lossy(&looked.stdout).into_owned();
    (looked.status.code(), out)
}

#[test]
fn the_start_the_status_and_the_doctor_say_what_is_kept_and_what_a_failover_loses() {
    let upstream = Upstream::new();
    for (settings, class, why) in [
        (vec![], "durable", ""),
        (
            vec!["--appendfsync", "everysec"],
            "best-effort",
            "appendfsync = everysec",
        ),
        (vec!["--appendonly", "no"], "best-effort", "appendonly = no"),
        (
            vec!["--rename-command", "CONFIG", ""],
            "best-effort",
            "CONFIG is not allowed",
        ),
    ] {
        let server = RedisServer::with(&settings);
        let gateway = start(&server.url(), &upstream, "");
        let status = gateway.admin_get("/api/v1/status").json();
        assert_eq!(status["store"]["durability"], class, "{status}");
        let at_failover = status["store"]["at_failover"].as_str().expect("a text");
        assert!(at_failover.contains("failover loses"), "{at_failover}");
        gateway.wait_for_log("class and losses", |log| {
            log.lines()
                .any(|line| line.contains(class) && line.contains("failover loses"))
                && log.contains(why)
        });
        let (_, said) = doctor(&server.url());
        let line = said.lines().find(|line| line.contains("durability"));
        let line = line.expect("a line");
        assert!(
            line.contains(class) && line.contains(why) && line.contains("failover"),
            "{said}"
        );
    }
}

#[test]
fn a_start_on_a_redis_that_evicts_or_is_not_there_says_so_and_shows_no_secret() {
    let upstream = Upstream::new();
    let server = RedisServer::with(&["--maxmemory-policy", "allkeys-lru"]);
    let (code, said) = doctor(&server.url());
    assert!(code == Some(1) && said.contains("set noeviction"), "{said}");
    let nobody = format!("redis://u:hunter2@127.0.0.1:{}/3", free_port());
    for (url, says) in [(server.url(), "set noeviction"), (nobody, "refused")] {
        let refused = try_start(&url, &upstream, "", &[]).err().expect(says);
        assert_eq!(refused.status.code(), Some(4), "{refused:?}");
        assert!(refused.log.contains(says), "{refused:?}");
        assert!(!refused.log.contains("hunter2"), "{refused:?}");
    }
    for url in ["redis://:hunter2@", "rediss://hunter2:70000"] {
        let refused = try_start(url, &upstream, "", &[]).err().expect(url);
        assert_eq!(refused.status.code(), Some(3), "{refused:?}");
        assert!(!refused.log.contains("hunter2"), "{refused:?}");
    }
}

#[test]
fn a_redis_with_tls_is_asked_for_a_certificate_that_is_trusted() {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("one");
    let folder = tempfile::tempdir().expect("a folder");
    // The server runs as another user.
    let readable = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("it is ours");
    };
    readable(folder.path(), 0o755);
    let write = |name: &str, text: String| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("room");
        readable(&path, 0o644);
        path.display().to_string()
    };
    let certificate = write("cert.pem", made.cert.pem());
    let key = write("key.pem", made.signing_key.serialize_pem());
    let port = free_port();
    let server = RedisServer::with(&[
        "--tls-port",
        &port.to_string(),
        "--tls-cert-file",
        &certificate,
        "--tls-key-file",
        &key,
        "--tls-ca-cert-file",
        &certificate,
        "--tls-auth-clients",
        "no",
    ]);
    let upstream = Upstream::new();
    let url = format!("rediss://127.0.0.1:{port}/");
    let refused = try_start(&url, &upstream, "", &[])
        .err()
        .expect("a stranger");
    assert!(refused.log.contains("certificate"), "{refused:?}");
    let trusting = [("SSL_CERT_FILE", certificate.as_str())];
    let gateway = try_start(&url, &upstream, "", &trusting).expect("it starts");
    let first = post("k").send(gateway.address());
    assert_eq!(first.status, 201, "{first:?}");
    // In the clear it is the same store.
    let other = start(&server.url(), &upstream, "");
    let replay = post("k").send(other.address());
    assert!(replay.is_replay() && replay.kept() == first.kept());
}

/// Makes the wall clock of whoever loads it an hour fast.
const FAST_CLOCK: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <sys/time.h>
#include <time.h>
int clock_gettime(clockid_t which, struct timespec *out) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int failed = real(which, out);
    if (!failed && which == CLOCK_REALTIME) out->tv_sec += 3600;
    return failed;
}
time_t time(time_t *out) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (out) *out = now.tv_sec;
    return now.tv_sec;
}
"#;

#[test]
fn a_gateway_whose_clock_is_an_hour_fast_changes_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let (source, library) = (folder.path().join("fast.c"), folder.path().join("fast.so"));
    std::fs::write(&source, FAST_CLOCK).expect("room");
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-o"]);
    let compiled = compiler.arg(&library).arg(&source).arg("-ldl").status();
    assert!(compiled.expect("a C compiler").success());
    let library = library.display().to_string();
    let fast_clock = [("LD_PRELOAD", library.as_str())];
    let seconds = |environment: &[(&str, &str)]| -> i64 {
        let mut date = Command::new("date");
        let date = date.arg("+%s").envs(environment.iter().copied()).output();
        let text = String::from_utf8(date.expect("it runs").stdout).expect("a number");
        text.trim().parse().expect("a number")
    };
    assert!(seconds(&fast_clock) - seconds(&[]) > 3_500, "it is fast");

    let server = RedisServer::start();
    let gate = Gate::new();
    let held = gate.clone();
    let upstream = Upstream::scripted(move |effect| Act::Hold(held.clone(), created(effect)));
    let config = "[defaults]\nlease = \"5s\"\n";
    let fast = try_start(&server.url(), &upstream, config, &fast_clock).expect("it starts");
    let right = start(&server.url(), &upstream, config);
    let mut callers = Vec::new();
    for (number, (first, other)) in [(&right, &fast), (&fast, &right)].into_iter().enumerate() {
        let key = format!("k-{number}");
        let mut caller = Connection::open(first.address());
        caller.send(&post(&key).bytes()).expect("it listens");
        upstream.wait_for_effects(number + 1);
        // By its own clock, the one that is fast would find the lease long over.
        let second = post(&key).send(other.address());
        assert_eq!(second.status, 409, "{second:?}");
        assert_eq!(second.problem(), "in-progress");
        callers.push((key, caller));
    }
    gate.open();
    for (key, mut caller) in callers {
        let first = caller.read().expect("an answer");
        assert_eq!(first.status, 201, "{first:?}");
        assert!(first.field("idempotency-expires").is_some(), "{first:?}");
        for gateway in [&fast, &right] {
            let replay = post(&key).send(gateway.address());
            assert!(
                replay.is_replay() && replay.kept() == first.kept(),
                "{replay:?}"
            );
        }
    }
    assert_eq!(upstream.count(), 2);
}

/// A name that follows the primary: passes connections on to a port that can change, and can
/// hold back what goes through.
struct Name {
    port: u16,
    target: Arc<AtomicU16>,
    is_held: Arc<AtomicBool>,
}

impl Name {
    fn of(target: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let name = Self {
            port: listener.local_addr().expect("an address").port(),
            target: Arc::new(AtomicU16::new(target)),
            is_held: Arc::default(),
        };
        let (target, is_held) = (Arc::clone(&name.target), Arc::clone(&name.is_held));
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let port = target.load(Ordering::SeqCst);
                let Ok(server) = TcpStream::connect(("127.0.0.1", port)) else {
                    continue;
                };
                for (from, to) in [(&stream, &server), (&server, &stream)] {
                    let (from, to) = (from.try_clone(), to.try_clone());
                    let is_held = Arc::clone(&is_held);
                    if let (Ok(from), Ok(to)) = (from, to) {
                        thread::spawn(move || pass_on(from, to, &is_held));
                    }
                }
            }
        });
        name
    }

    fn lead_to(&self, port: u16) {
        self.target.store(port, Ordering::SeqCst);
    }

    fn hold(&self) {
        self.is_held.store(true, Ordering::SeqCst);
    }

    fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }
}

/// What is held back when a side ends never arrives.
fn pass_on(mut from: TcpStream, mut to: TcpStream, is_held: &AtomicBool) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(count) = from.read(&mut buffer) {
        if count == 0 || is_held.load(Ordering::SeqCst) || to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    if !is_held.load(Ordering::SeqCst) {
        drop(to.shutdown(Shutdown::Both));
    }
    drop(from.shutdown(Shutdown::Both));
}

/// A replica that reads from its primary through a name of its own.
fn replica_of(primary: &RedisServer) -> (RedisServer, Name) {
    let name = Name::of(primary.port());
    let replica = RedisServer::with(&["--repl-diskless-sync-delay", "0"]);
    let port = name.port.to_string();
    let told = replica.client().command(&["REPLICAOF", "127.0.0.1", &port]);
    assert_eq!(told, "OK");
    eventually("a replica that has everything", || {
        let info = replica.client().command(&["INFO", "replication"]);
        info.contains("master_link_status:up").then_some(())
    });
    (replica, name)
}

/// What a failover did.
struct Failover {
    acknowledged: usize,
    /// Keys that ran again.
    lost: usize,
    /// Keys whose claim was there and whose answer was not.
    unknown: usize,
    recovery: Duration,
}

/// Sends fresh keys through `gateway` until `is_over`; those that were answered for good.
fn work(gateway: &Gateway, name: &str, is_over: &AtomicBool) -> HashMap<String, Answer> {
    let mut answered = HashMap::new();
    let mut connection = Connection::open(gateway.address());
    for number in 0.. {
        if is_over.load(Ordering::SeqCst) {
            break;
        }
        let key = format!("{name}-{number}");
        connection.send(&post(&key).bytes()).expect("it listens");
        let answer = connection.read().expect("an answer");
        if answer.status == 201 {
            answered.insert(key, answer);
        }
    }
    answered
}

/// Kills the primary under load, promotes a replica, and tries every key again that had been
/// answered before. `lags` cuts the promoted replica off for the last 300 answers.
fn fail_over(config: &str, replicas: usize, lags: bool) -> Failover {
    let mut primary = RedisServer::start();
    let mut all: Vec<(RedisServer, Name)> = (0..replicas).map(|_| replica_of(&primary)).collect();
    let (promoted, link) = all.pop().expect("one at least");
    let name = Name::of(primary.port());
    let upstream = Upstream::new();
    let gateway = start(&name.url(), &upstream, config);
    let is_over = AtomicBool::new(false);
    let answered = thread::scope(|scope| {
        let callers: Vec<_> = (0..8)
            .map(|caller| {
                let (gateway, is_over) = (&gateway, &is_over);
                scope.spawn(move || work(gateway, &format!("{caller}"), is_over))
            })
            .collect();
        upstream.wait_for_effects(500);
        if lags {
            link.hold();
            upstream.wait_for_effects(800);
        }
        primary.crash();
        is_over.store(true, Ordering::SeqCst);
        let ended = callers.into_iter().map(thread::ScopedJoinHandle::join);
        let answered: HashMap<_, _> = ended.flat_map(|sent| sent.expect("no panic")).collect();
        answered
    });
    let told = promoted.client().command(&["REPLICAOF", "NO", "ONE"]);
    assert_eq!(told, "OK");
    // Whoever waits for a replica needs one.
    for (other, _) in &all {
        let port = promoted.port().to_string();
        let told = other.client().command(&["REPLICAOF", "127.0.0.1", &port]);
        assert_eq!(told, "OK");
    }
    name.lead_to(promoted.port());
    let returned = Instant::now();
    eventually("readiness", || {
        (gateway.admin_get("/readyz").status == 200).then_some(())
    });
    let recovery = returned.elapsed();
    let (lost, unknown) = try_again(&gateway, &upstream, &answered);
    Failover {
        acknowledged: answered.len(),
        lost,
        unknown,
        recovery,
    }
}

/// Tries answered keys again: how many ran again, and how many became unknown.
fn try_again(
    gateway: &Gateway,
    upstream: &Upstream,
    answered: &HashMap<String, Answer>,
) -> (usize, usize) {
    let (mut lost, mut unknown) = (0, 0);
    for (key, first) in answered {
        let before = upstream.count_of(key);
        let retry = eventually("the end of a late completion", || {
            let answer = post(key).send(gateway.address());
            (answer.status != 409).then_some(answer)
        });
        let effects = upstream.count_of(key) - before;
        match (retry.status, retry.is_replay()) {
            (201, true) => {
                assert_eq!((effects, &retry.body), (0, &first.body), "{key}");
            }
            // Forgotten: it ran again.
            (201, false) => {
                assert_eq!(effects, 1, "{key}");
                lost += 1;
            }
            // Its answer was lost, its claim was not, and has lapsed.
            (504, _) => {
                assert_eq!(effects, 0, "{key}");
                unknown += 1;
            }
            _ => panic!("{key}: {retry:?}"),
        }
    }
    (lost, unknown)
}

#[test]
fn a_failover_loses_what_the_promoted_replica_has_not_received_with_wait_or_without() {
    let none = "[defaults]\nlease = \"2s\"\n";
    let wait = "[store]\nredis_wait = 1\noperation_timeout = \"2s\"\n[defaults]\nlease = \"2s\"\n";
    let cases = [
        ("a replica that keeps up", none, 1, false),
        ("a replica that was cut off", none, 1, true),
        (
            "redis_wait = 1, one of two replicas that keep up",
            wait,
            2,
            false,
        ),
        (
            "redis_wait = 1, the other of two replicas was cut off",
            wait,
            2,
            true,
        ),
    ];
    for (what, config, replicas, lags) in cases {
        let found = fail_over(config, replicas, lags);
        eprintln!(
            "failover to {what}: of {} answered keys {} ran again and {} became unknown; ready \
             after {:?}",
            found.acknowledged, found.lost, found.unknown, found.recovery
        );
        assert!(found.acknowledged > 300, "{what}: {}", found.acknowledged);
        // With redis_wait, the other replica has to fetch everything first.
        let limit = Duration::from_secs(if replicas == 1 { 5 } else { 30 });
        assert!(found.recovery < limit, "{what}: {:?}", found.recovery);
        if lags {
            // What no setting of hapax prevents. Where this stops being so, the documents are wrong.
            assert!(found.lost > 0, "{what}");
        }
    }
}
