//! `hapax doctor`: whether this machine keeps what a gateway here would promise.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use rustix::process::{Resource, getrlimit};
use serde_json::{Value, json};
use tokio::time::Instant;

use hapax_core::store::Durability;
use hapax_core::time::Clock;
use hapax_store::{RedisReport, SystemClock};

use crate::admin::tokens::Tokens;
use crate::config::{Loaded, Settings, StoreKind};
use crate::paint::{Colour, paint};
use crate::remote::Remote;
use crate::stores::{self, StoreFailure};

/// Syncs that are measured, of as much as a small batch writes.
const SYNCS: usize = 50;
const SYNCED_BYTES: usize = 4096;
/// No disk that keeps its word is faster: flash with capacitors takes some 20 µs.
const TOO_FAST: Duration = Duration::from_micros(10);
/// A claim waits for a sync: beyond this every keyed request feels slow.
const SLOW: Duration = Duration::from_millis(20);
/// Files besides connections: the store's, listeners, logs.
const OTHER_FILES: u64 = 512;
/// How far a file may lie in the future before the clock counts as set back.
const CLOCK_SLACK: Duration = Duration::from_secs(5);

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Verdict {
    /// As it should be.
    Ok,
    /// It works, with a loss that somebody should know of.
    Warning,
    /// A gateway here would not start, or not keep its promise.
    Failure,
}

/// One thing that was looked at.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Check {
    name: &'static str,
    pub(crate) verdict: Verdict,
    detail: String,
}

fn check(name: &'static str, verdict: Verdict, detail: impl Into<String>) -> Check {
    let detail = detail.into();
    Check {
        name,
        verdict,
        detail,
    }
}

/// Looks at everything.
pub(crate) fn examine(loaded: &Loaded) -> Vec<Check> {
    let settings = &loaded.settings;
    let mut checks = vec![configuration(loaded), durability(settings)];
    if settings.store.kind == StoreKind::Embedded {
        let place = nearest_directory(&settings.store.path);
        checks.push(file_system(&place));
        checks.push(sync_time(&place));
        checks.push(room(&place, settings.store.min_free_disk));
    }
    checks.push(clock(&settings.store.path));
    checks.push(file_limit(settings.server.max_connections));
    checks.push(access(settings));
    checks.push(gateway(settings));
    checks
}

fn configuration(loaded: &Loaded) -> Check {
    let name = match &loaded.file {
        Some(path) => path.display().to_string(),
        None => "defaults (there is no hapax.toml)".to_owned(),
    };
    match loaded.warnings.len() {
        0 => check("configuration", Verdict::Ok, name),
        count => {
            let detail = format!("{name}: {count} warnings; hapax config validate shows them");
            check("configuration", Verdict::Warning, detail)
        }
    }
}

fn durability(settings: &Settings) -> Check {
    match settings.store.kind {
        StoreKind::Redis => judge_redis(stores::inspect_redis(&settings.store)),
        StoreKind::Memory => check(
            "durability",
            Verdict::Warning,
            "the memory store forgets every key when the process ends: a retry after that \
             executes a second time",
        ),
        _ => check(
            "durability",
            Verdict::Ok,
            "durable: every claim and answer is synced before it is acted on. If the disk lies \
             about syncs, a power cut loses the last claims, and their retries execute a second time",
        ),
    }
}

fn judge_redis(looked: Result<RedisReport, StoreFailure>) -> Check {
    let failover = "a failover to a replica loses what that has not received, claims among it, \
                    and their retries execute a second time";
    match looked {
        Err(failure) => check("durability", Verdict::Failure, failure.to_string()),
        Ok(report) if report.durability == Durability::Durable => {
            let detail = format!(
                "durable: every claim and answer is synced on Redis {} before it is acted on; \
                 {failover}",
                report.version
            );
            check("durability", Verdict::Ok, detail)
        }
        Ok(report) => {
            let why = report.warnings.join("; ");
            let detail = format!("best-effort: {why}; {failover}");
            check("durability", Verdict::Warning, detail)
        }
    }
}

/// The directory itself, or the nearest above it that is there.
fn nearest_directory(path: &Path) -> PathBuf {
    let mut place = path;
    while !place.is_dir() {
        match place.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => place = parent,
            _ => return PathBuf::from("."),
        }
    }
    place.to_owned()
}

/// Kinds of file systems that do not keep what is synced, or not as one machine's own, by the
/// number that statfs(2) has for them.
const KINDS: [(i128, &str, Verdict, &str); 8] = [
    (
        0x0102_1994,
        "tmpfs",
        Verdict::Failure,
        "it is memory: all is gone at a reboot",
    ),
    (
        0x8584_58f6,
        "ramfs",
        Verdict::Failure,
        "it is memory: all is gone at a reboot",
    ),
    (
        0x6969,
        "nfs",
        Verdict::Failure,
        "locks and syncs of network file systems do not hold",
    ),
    (
        0xff53_4d42,
        "cifs",
        Verdict::Failure,
        "locks and syncs of network file systems do not hold",
    ),
    (
        0xfe53_4d42,
        "smb2",
        Verdict::Failure,
        "locks and syncs of network file systems do not hold",
    ),
    (
        0x6573_5546,
        "fuse",
        Verdict::Warning,
        "whether syncs hold depends on what is behind it",
    ),
    (
        0x0102_1997,
        "9p",
        Verdict::Warning,
        "whether syncs hold depends on what is behind it",
    ),
    (
        0x794c_7630,
        "overlayfs",
        Verdict::Warning,
        "in a container it is gone with the container: use a volume",
    ),
];

fn file_system(place: &Path) -> Check {
    match rustix::fs::statfs(place) {
        Ok(stat) => judge_file_system(place, i128::from(stat.f_type)),
        Err(error) => check(
            "file system",
            Verdict::Failure,
            format!("{}: {error}", place.display()),
        ),
    }
}

fn judge_file_system(place: &Path, kind: i128) -> Check {
    match KINDS.iter().find(|(magic, ..)| *magic == kind) {
        Some((_, name, verdict, why)) => check(
            "file system",
            *verdict,
            format!("{} is {name}: {why}", place.display()),
        ),
        None => check(
            "file system",
            Verdict::Ok,
            format!("{} is local", place.display()),
        ),
    }
}

fn sync_time(place: &Path) -> Check {
    match measure_syncs(place) {
        Err(error) => check(
            "sync",
            Verdict::Failure,
            format!("cannot write in {}: {error}", place.display()),
        ),
        Ok(mut took) => {
            took.sort_unstable();
            let median = took.get(took.len() / 2).copied().unwrap_or_default();
            let worst = took.last().copied().unwrap_or_default();
            judge_syncs(median, worst)
        }
    }
}

fn judge_syncs(median: Duration, worst: Duration) -> Check {
    let millis = |duration: Duration| duration.as_secs_f64() * 1000.0;
    let figures = format!(
        "fdatasync of {SYNCED_BYTES} bytes takes {:.2} ms, {:.2} ms at worst of {SYNCS}",
        millis(median),
        millis(worst)
    );
    if median < TOO_FAST {
        let detail = format!("{figures}: too fast to be true, the disk may not honour it");
        return check("sync", Verdict::Warning, detail);
    }
    if median > SLOW {
        let detail = format!("{figures}: every keyed request waits for two of them");
        return check("sync", Verdict::Warning, detail);
    }
    check("sync", Verdict::Ok, figures)
}

/// Writes and syncs a file of its own, which is removed again.
fn measure_syncs(place: &Path) -> io::Result<Vec<Duration>> {
    let path = place.join(format!(".hapax-doctor-{}", std::process::id()));
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create_new(true).open(&path)?;
    let mut measure = || {
        (0..SYNCS)
            .map(|_| {
                file.write_all(&[7; SYNCED_BYTES])?;
                let began = Instant::now();
                file.sync_data()?;
                Ok(began.elapsed())
            })
            .collect()
    };
    let measured = measure();
    fs::remove_file(&path)?;
    measured
}

fn room(place: &Path, least: Option<u64>) -> Check {
    match rustix::fs::statvfs(place) {
        Err(error) => check("disk room", Verdict::Failure, error.to_string()),
        Ok(stat) => {
            let free = stat.f_bavail.saturating_mul(stat.f_frsize);
            let detail = format!("{} MiB free", free / 1024 / 1024);
            match least.filter(|least| free < *least) {
                None => check("disk room", Verdict::Ok, detail),
                Some(least) => {
                    let least = least / 1024 / 1024;
                    let detail = format!(
                        "{detail}, below min_free_disk ({least} MiB): new claims are refused"
                    );
                    check("disk room", Verdict::Failure, detail)
                }
            }
        }
    }
}

/// The machine's clock, against the files of the store: they cannot be from the future.
fn clock(store: &Path) -> Check {
    let now = Duration::from_millis(SystemClock::new().now().as_millis());
    let files = fs::read_dir(store).into_iter().flatten().flatten();
    let modified = files
        .filter_map(|file| {
            file.metadata()
                .ok()?
                .modified()
                .ok()?
                .duration_since(UNIX_EPOCH)
                .ok()
        })
        .max();
    let ahead = modified
        .map(|at| at.saturating_sub(now))
        .unwrap_or_default();
    if ahead > CLOCK_SLACK {
        let detail = format!(
            "it stands {} s before the store's newest file: it was set back. Retention and leases \
             go on from where they were",
            ahead.as_secs()
        );
        return check("clock", Verdict::Warning, detail);
    }
    let now = hapax_core::time::Timestamp::from_millis(SystemClock::new().now().as_millis());
    check("clock", Verdict::Ok, now.to_string())
}

fn file_limit(connections: usize) -> Check {
    // Each connection of a caller can have one to the upstream.
    let needed = (connections as u64)
        .saturating_mul(2)
        .saturating_add(OTHER_FILES);
    match getrlimit(Resource::Nofile).current {
        Some(limit) if limit < needed => {
            let detail = format!(
                "{limit} open files, and max_connections can need {needed}: raise it (LimitNOFILE) \
                 or lower max_connections"
            );
            check("file limit", Verdict::Warning, detail)
        }
        Some(limit) => check("file limit", Verdict::Ok, format!("{limit} open files")),
        None => check("file limit", Verdict::Ok, "no limit of open files"),
    }
}

fn access(settings: &Settings) -> Check {
    match &settings.admin.token_file {
        None => check(
            "admin access",
            Verdict::Ok,
            "loopback without tokens: every user of this machine is an operator",
        ),
        Some(path) => match Tokens::read(path) {
            Ok(_) => check(
                "admin access",
                Verdict::Ok,
                format!("tokens in {}", path.display()),
            ),
            Err(error) => check("admin access", Verdict::Failure, error.to_string()),
        },
    }
}

/// What a gateway that runs here says of itself.
fn gateway(settings: &Settings) -> Check {
    let admin = settings.admin.listen;
    let asked = Remote::new(admin, settings.admin.token_file.as_deref());
    match asked.and_then(|remote| remote.get("/api/v1/status")) {
        Err(error) => check("gateway", Verdict::Ok, format!("none was found: {error}")),
        Ok(status) => {
            let failure = status.pointer("/store/failure").and_then(Value::as_str);
            let reload = status.pointer("/reload/error").and_then(Value::as_str);
            let unknown = status.pointer("/store/unknown").and_then(Value::as_u64);
            match (failure, reload, unknown) {
                (Some(failure), ..) => check(
                    "gateway",
                    Verdict::Failure,
                    format!("its store failed: {failure}"),
                ),
                (None, Some(error), _) => check(
                    "gateway",
                    Verdict::Warning,
                    format!("its last reload failed: {error}"),
                ),
                (None, None, Some(unknown)) if unknown > 0 => {
                    let detail = format!(
                        "{unknown} unknown outcomes wait for a word: hapax keys ls --state unknown"
                    );
                    check("gateway", Verdict::Warning, detail)
                }
                _ => check("gateway", Verdict::Ok, format!("it runs, admin {admin}")),
            }
        }
    }
}

/// The worst of all verdicts.
pub(crate) fn worst(checks: &[Check]) -> Verdict {
    let verdicts = checks.iter().map(|check| check.verdict);
    verdicts.max().unwrap_or(Verdict::Ok)
}

fn word(verdict: Verdict) -> (&'static str, Colour) {
    match verdict {
        Verdict::Ok => ("ok", Colour::Good),
        Verdict::Warning => ("warning", Colour::Warning),
        Verdict::Failure => ("failure", Colour::Bad),
    }
}

/// The findings for people.
pub(crate) fn as_text(checks: &[Check]) -> String {
    let line = |check: &Check| {
        let (word, colour) = word(check.verdict);
        let word = paint(colour, &format!("{word:<8}"));
        format!("{word} {:<14} {}\n", check.name, check.detail)
    };
    checks.iter().map(line).collect()
}

/// The findings for programs.
pub(crate) fn as_json(checks: &[Check]) -> Value {
    let view = |check: &Check| json!({ "name": check.name, "result": word(check.verdict).0, "detail": check.detail });
    json!({
        "result": word(worst(checks)).0,
        "checks": checks.iter().map(view).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sync_that_is_too_fast_or_slow_is_a_warning() {
        for (micros, expected) in [
            (1, Verdict::Warning),
            (300, Verdict::Ok),
            (50_000, Verdict::Warning),
        ] {
            let took = Duration::from_micros(micros);
            assert_eq!(judge_syncs(took, took).verdict, expected, "{micros}");
        }
    }

    #[test]
    fn syncs_are_measured_and_leave_nothing_behind() {
        let folder = tempfile::tempdir().expect("a folder");
        assert_eq!(measure_syncs(folder.path()).expect("room").len(), SYNCS);
        assert_eq!(fs::read_dir(folder.path()).expect("it is there").count(), 0);
        assert!(measure_syncs(&folder.path().join("none")).is_err());
    }

    #[test]
    fn a_clock_before_the_stores_files_is_a_warning() {
        let folder = tempfile::tempdir().expect("a folder");
        assert_eq!(clock(folder.path()).verdict, Verdict::Ok);
        let file = fs::File::create(folder.path().join("x")).expect("room");
        let later = UNIX_EPOCH + Duration::from_secs(10_000_000_000);
        file.set_modified(later).expect("it is ours");
        assert_eq!(clock(folder.path()).verdict, Verdict::Warning);
    }

    #[test]
    fn a_full_disk_and_a_disk_that_forgets_are_failures() {
        let here = Path::new(".");
        assert_eq!(room(here, None).verdict, Verdict::Ok);
        assert_eq!(room(here, Some(u64::MAX)).verdict, Verdict::Failure);
        for (kind, expected) in [
            (0x0102_1994, Verdict::Failure),
            (0x6969, Verdict::Failure),
            (0x794c_7630, Verdict::Warning),
            (0xef53, Verdict::Ok),
        ] {
            assert_eq!(judge_file_system(here, kind).verdict, expected, "{kind:x}");
        }
    }

    #[test]
    fn more_connections_than_files_are_a_warning() {
        assert_eq!(file_limit(usize::MAX).verdict, Verdict::Warning);
    }
}
