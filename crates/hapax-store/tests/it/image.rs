//! A disk that power can be cut from: an ext4 image mounted by loop. Needs root.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// Why there can be no image here, if there cannot. Fails where `CI` is set.
pub(crate) fn skip_reason() -> Option<&'static str> {
    let reason = (!rustix::process::geteuid().is_root()).then_some("mounting needs root");
    if let Some(reason) = reason {
        assert!(std::env::var_os("CI").is_none(), "{reason}");
        eprintln!("skipped: {reason}");
    }
    reason
}

/// A mounted image; unmounted when dropped.
pub(crate) struct Image {
    folder: TempDir,
    mounts: Vec<PathBuf>,
}

impl Image {
    pub(crate) fn new(mebibytes: u64) -> Self {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let image = folder.path().join("image");
        let file = std::fs::File::create(&image).expect("a file");
        file.set_len(mebibytes << 20).expect("it fits");
        run(Command::new("mkfs.ext4").arg("-q").arg("-F").arg(&image));
        let mut disk = Self {
            folder,
            mounts: Vec::new(),
        };
        disk.mount("image", "mount");
        disk
    }

    /// Where it is mounted.
    pub(crate) fn path(&self) -> &Path {
        self.mounts.last().expect("mounted when it was made")
    }

    /// Copies what has reached the disk by now and mounts the copy: the disk after a power cut.
    pub(crate) fn cut(&mut self) {
        let copy = self.folder.path().join("copy");
        let image = self.folder.path().join("image");
        run(Command::new("cp")
            .arg("--sparse=always")
            .arg(image)
            .arg(&copy));
    }

    /// Mounts the copy. Whoever used the image must have ended.
    pub(crate) fn mount_copy(&mut self) {
        self.unmount();
        self.mount("copy", "mount-copy");
    }

    fn mount(&mut self, image: &str, point: &str) {
        let point = self.folder.path().join(point);
        std::fs::create_dir(&point).expect("a folder");
        let image = self.folder.path().join(image);
        run(Command::new("mount")
            .args(["-o", "loop"])
            .arg(image)
            .arg(&point));
        self.mounts.push(point);
    }

    fn unmount(&mut self) {
        while let Some(point) = self.mounts.pop() {
            run(Command::new("umount").arg(&point));
        }
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        for point in self.mounts.drain(..) {
            drop(Command::new("umount").arg(&point).status());
        }
    }
}

fn run(command: &mut Command) {
    let status = command.status().expect("the program is there");
    assert!(status.success(), "{command:?}: {status}");
}
