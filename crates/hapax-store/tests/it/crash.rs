//! kill -9 and power cuts: nothing acknowledged is lost.
//!
//! A test starts its own binary as a child that works on a store and says what was
//! acknowledged, one line each, and checks after the crash that the store agrees.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use hapax_core::record::StateKind;
use hapax_core::store::Store;
use hapax_store::conformance::sample;
use hapax_store::{EmbeddedStore, Options};
use tokio::task::JoinSet;

use crate::image::{self, Image};
use crate::support::{Random, answer, campaign, claim, complete, read};

const CHILD: &str = "HAPAX_TEST_CHILD";
const WITHOUT_SYNC: &str = "HAPAX_TEST_WITHOUT_SYNC";

/// Callers that work at once.
const CALLERS: u64 = 16;

/// More numbers than one cycle can use.
const NUMBERS_PER_CYCLE: u64 = 1 << 32;

fn options() -> Options {
    Options {
        min_free_disk: 1 << 20,
        // Small, so that tables are written out and journals go while the child works.
        memtable_bytes: 256 << 10,
        ..Options::default()
    }
}

/// What a key may be after the crash, by the last line that the child said about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Said {
    Claimed,
    Completed,
    Releasing,
    Released,
}

/// The child: claims, and completes, releases or leaves what it claimed, until it is killed.
async fn work(path: &Path, cycle: u64) {
    let options = options();
    let is_unsafe = std::env::var_os(WITHOUT_SYNC).is_some();
    let unsynced = &options.faults.dangerously_without_sync;
    unsynced.store(is_unsafe, std::sync::atomic::Ordering::Release);
    let store = Arc::new(EmbeddedStore::open(path, options).expect("a store"));
    let mut callers = JoinSet::new();
    for caller in 0..CALLERS {
        let store = Arc::clone(&store);
        callers.spawn(async move {
            let mut number = cycle * NUMBERS_PER_CYCLE + caller;
            loop {
                claim(&*store, number).await;
                println!("{number} claimed");
                match number / CALLERS % 8 {
                    0 => {}
                    1 => {
                        println!("{number} releasing");
                        let claim = sample::claim_id(number);
                        let removed = store.remove(&sample::key(number), claim).await;
                        removed.expect("it works");
                        println!("{number} released");
                    }
                    _ => {
                        complete(&*store, number).await;
                        println!("{number} completed");
                    }
                }
                number += CALLERS;
            }
        });
    }
    callers.join_next().await;
}

fn spawn(test: &str, path: &Path, cycle: u64, without_sync: bool) -> Child {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(CHILD, format!("{cycle}:{}", path.display()))
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .stdout(Stdio::piped());
    if without_sync {
        command.env(WITHOUT_SYNC, "1");
    }
    command.spawn().expect("a child")
}

/// Works as the child when this process is one, and says whether it is.
async fn is_child() -> bool {
    let Ok(task) = std::env::var(CHILD) else {
        return false;
    };
    let (cycle, path) = task.split_once(':').expect("CYCLE:PATH");
    work(Path::new(path), cycle.parse().expect("a number")).await;
    true
}

/// Takes up to `limit` lines of what the child says into `said`; all of them when it has ended.
fn listen(lines: &mut impl BufRead, said: &mut BTreeMap<u64, Said>, limit: u64) -> u64 {
    let mut heard = 0;
    let mut line = String::new();
    while heard < limit && lines.read_line(&mut line).expect("a pipe") > 0 {
        if line.ends_with('\n')
            && let Some((number, what)) = line.trim().split_once(' ')
            && let Ok(number) = number.parse()
        {
            let what = match what {
                "claimed" => Some(Said::Claimed),
                "completed" => Some(Said::Completed),
                "releasing" => Some(Said::Releasing),
                "released" => Some(Said::Released),
                _ => None,
            };
            if let Some(what) = what {
                said.insert(number, what);
                heard += 1;
            }
        }
        line.clear();
    }
    heard
}

/// What the store in `path` lost or changed of what was acknowledged.
async fn losses(path: &Path, said: &BTreeMap<u64, Said>) -> Vec<String> {
    let store = match EmbeddedStore::open(path, options()) {
        Ok(store) => store,
        Err(error) => return vec![format!("it does not open: {error}")],
    };
    let mut losses = Vec::new();
    for (number, said) in said {
        let held = read(&store, *number).await;
        let kind = held.as_ref().map(|held| held.record.state.kind());
        let is_answer = held.is_some_and(|held| held.record == answer(*number));
        let is_kept = match said {
            Said::Completed => is_answer,
            Said::Claimed => kind == Some(StateKind::Unknown) || is_answer,
            Said::Releasing => kind.is_none() || kind == Some(StateKind::Unknown),
            Said::Released => kind.is_none(),
        };
        if !is_kept {
            losses.push(format!("{number} was {said:?} and is {kind:?}"));
        }
    }
    losses
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_nine_loses_nothing_that_was_acknowledged() {
    if is_child().await {
        return;
    }
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut said = BTreeMap::new();
    let mut random = Random(1);
    for cycle in 0..30 * campaign() {
        let test = "crash::kill_nine_loses_nothing_that_was_acknowledged";
        let mut child = spawn(test, directory.path(), cycle, false);
        let mut lines = BufReader::new(child.stdout.take().expect("piped"));
        // From the first instants, the recovery of the cycle before among them, to far on.
        let limit = random.below(4) * random.below(600);
        let heard = listen(&mut lines, &mut said, limit);
        assert_eq!(heard, limit, "cycle {cycle}: the child ended by itself");
        child.kill().expect("it runs");
        child.wait().expect("it was ours");
        listen(&mut lines, &mut said, u64::MAX);
        let losses = losses(directory.path(), &said).await;
        assert_eq!(losses, Vec::<String>::new(), "cycle {cycle}");
    }
    assert!(said.len() > 1000, "only {} acknowledged", said.len());
}

/// One power cut: what was lost of what had been acknowledged before it.
async fn power_cut(test: &str, cycle: u64, without_sync: bool) -> (Vec<String>, usize) {
    let mut disk = Image::new(256);
    let path = disk.path().join("store");
    let mut child = spawn(test, &path, cycle, without_sync);
    let mut lines = BufReader::new(child.stdout.take().expect("piped"));
    let mut said = BTreeMap::new();
    let limit = 1 + Random(cycle).below(1200);
    let heard = listen(&mut lines, &mut said, limit);
    assert_eq!(heard, limit, "cycle {cycle}: the child ended by itself");
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).expect("it runs");
    let stopped = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::UNTRACED);
    stopped.expect("it is ours").expect("it has stopped");
    // What it acknowledged before this line is in `said` and must be on the disk; what it
    // does until it has stopped may be there or not.
    disk.cut();
    child.kill().expect("it is there");
    child.wait().expect("it was ours");
    // What was said after the cut says what may also be there, and no longer what must be:
    // a claim that was completed in between is either.
    let acknowledged = said.clone();
    listen(&mut lines, &mut said, u64::MAX);
    disk.mount_copy();
    let must: BTreeMap<_, _> = acknowledged
        .into_iter()
        .filter(|(number, before)| {
            let after = said.get(number);
            // Releasing and what follows it leave both ways open.
            after == Some(before) || after == Some(&Said::Completed)
        })
        .collect();
    let losses = losses(&disk.path().join("store"), &must).await;
    (losses, must.len())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_power_cut_loses_nothing_that_was_acknowledged() {
    if is_child().await || image::skip_reason().is_some() {
        return;
    }
    let mut checked = 0;
    for cycle in 0..20 * campaign() {
        let test = "crash::a_power_cut_loses_nothing_that_was_acknowledged";
        let (losses, acknowledged) = power_cut(test, cycle, false).await;
        assert_eq!(losses, Vec::<String>::new(), "cycle {cycle}");
        checked += acknowledged;
    }
    assert!(checked > 1000, "only {checked} acknowledged");
}

/// The control: the same check on a store that does not sync.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_does_not_sync_is_caught_by_a_power_cut() {
    if is_child().await || image::skip_reason().is_some() {
        return;
    }
    for cycle in 0..5 {
        let test = "crash::a_store_that_does_not_sync_is_caught_by_a_power_cut";
        let (losses, _) = power_cut(test, cycle, true).await;
        if !losses.is_empty() {
            return;
        }
    }
    panic!("five power cuts without a sync lost nothing: the check is blind");
}
