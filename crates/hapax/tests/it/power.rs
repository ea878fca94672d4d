//! Power cuts under the whole gateway: what a client was told is there afterwards.
//!
//! The store's own tests have the control that shows that a cut is noticed at all.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use tempfile::TempDir;

use crate::client::{Answer, Connection, post};
use crate::gateway::Gateway;
use crate::support::{Random, campaign};
use crate::upstream::Upstream;

const CYCLES: usize = 3;
const CALLERS: usize = 4;

/// Why there can be no image here, if there cannot. Fails where `CI` is set.
fn skip_reason() -> Option<&'static str> {
    let reason = (!rustix::process::geteuid().is_root()).then_some("mounting needs root");
    if let Some(reason) = reason {
        assert!(std::env::var_os("CI").is_none(), "{reason}");
        eprintln!("skipped: {reason}");
    }
    reason
}

/// An ext4 file system in a file, mounted until dropped.
struct Mount(PathBuf);

impl Mount {
    fn new(image: &Path, point: &Path) -> Self {
        std::fs::create_dir(point).expect("a folder");
        run(Command::new("mount")
            .args(["-o", "loop"])
            .arg(image)
            .arg(point));
        Self(point.to_path_buf())
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        drop(Command::new("umount").arg(&self.0).status());
    }
}

fn run(command: &mut Command) {
    let status = command.status().expect("the program is there");
    assert!(status.success(), "{command:?}: {status}");
}

fn new_image(folder: &TempDir) -> PathBuf {
    let image = folder.path().join("image");
    let file = std::fs::File::create(&image).expect("a file");
    file.set_len(512 << 20).expect("it fits");
    run(Command::new("mkfs.ext4").arg("-q").arg("-F").arg(&image));
    image
}

/// One cut; how many acknowledged answers were checked.
fn cut(cycle: u64) -> usize {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let image = new_image(&folder);
    let mount = Mount::new(&image, &folder.path().join("before"));
    let upstream = Upstream::new();
    let config = "[store]\nmin_free_disk = \"1MiB\"\n";
    let data = mount.0.join("data");
    let mut gateway =
        Gateway::try_start_in(&upstream.url(), config, Some(&data)).expect("it starts");
    let acknowledged = Mutex::new(Vec::<(String, Answer)>::new());
    let is_over = AtomicBool::new(false);
    let address = gateway.address();
    let copy = folder.path().join("copy");
    let before_cut = thread::scope(|scope| {
        for caller in 0..CALLERS {
            let (acknowledged, is_over) = (&acknowledged, &is_over);
            scope.spawn(move || {
                let mut connection = Connection::open(address);
                for number in 0.. {
                    let key = format!("{caller}-{number}");
                    let sent = connection.send(&post(&key).bytes());
                    let Ok(answer) = sent.and_then(|()| connection.read()) else {
                        return;
                    };
                    let mut list = acknowledged.lock().expect("no panic");
                    list.push((key, answer));
                    if is_over.load(Ordering::Acquire) {
                        return;
                    }
                }
            });
        }
        upstream.wait_for_effects(20 + Random(cycle).below(300) as usize);
        gateway.freeze();
        // What is in the list by now was acknowledged before the cut.
        let before_cut = acknowledged.lock().expect("no panic").clone();
        run(Command::new("cp")
            .arg("--sparse=always")
            .arg(&image)
            .arg(&copy));
        is_over.store(true, Ordering::Release);
        gateway.kill_nine();
        before_cut
    });
    drop(mount);
    let mount = Mount::new(&copy, &folder.path().join("after"));
    let data = mount.0.join("data");
    let mut after = Gateway::try_start_in(&upstream.url(), config, Some(&data))
        .expect("it starts on what is left");
    for (key, first) in &before_cut {
        assert_eq!(first.status, 201, "{key}: {first:?}");
        let retry = post(key).send(after.address());
        assert!(retry.is_replay(), "{key} was lost: {retry:?}");
        assert_eq!(retry.kept(), first.kept(), "{key}");
        assert_eq!(upstream.count_of(key), 1, "{key}");
    }
    after.stop();
    before_cut.len()
}

#[test]
fn after_a_power_cut_every_acknowledged_answer_is_replayed() {
    if skip_reason().is_some() {
        return;
    }
    let mut checked = 0;
    for cycle in 0..CYCLES * campaign() {
        checked += cut(cycle as u64);
    }
    eprintln!("0 of {checked} acknowledged answers lost");
    assert!(checked > 50, "only {checked} acknowledged");
}
