//! A disk that can be filled and that power can be cut from: an ext4 image mounted by loop. Needs root.

use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::{FallocateFlags, fallocate, statvfs};
use tokio::process::Command;

/// Large enough for a round, small enough to be filled at once.
const MEBIBYTES: u64 = 384;

/// An image, mounted until dropped.
pub(crate) struct Disk {
    folder: PathBuf,
    /// How many cuts there were: each goes on with a copy.
    place: Mutex<Place>,
}

struct Place {
    cuts: u32,
    mount: Option<PathBuf>,
}

/// Whether images can be mounted here.
pub(crate) fn is_possible() -> bool {
    rustix::process::geteuid().is_root()
}

/// Unmounts what an earlier process that was killed has left below a folder.
pub(crate) async fn clean_up(folder: &Path) -> io::Result<()> {
    let Ok(folder) = folder.canonicalize() else {
        return Ok(());
    };
    let mounts = std::fs::read_to_string("/proc/mounts")?;
    for point in mounts.lines().filter_map(|line| line.split(' ').nth(1)) {
        if Path::new(point).starts_with(&folder) {
            run(Command::new("umount").arg(point)).await?;
        }
    }
    Ok(())
}

impl Disk {
    pub(crate) async fn new(folder: &Path) -> io::Result<Self> {
        let disk = Self {
            folder: folder.to_path_buf(),
            place: Mutex::new(Place {
                cuts: 0,
                mount: None,
            }),
        };
        let image = disk.image(0);
        std::fs::File::create(&image)?.set_len(MEBIBYTES << 20)?;
        run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&image)).await?;
        disk.mount(0).await?;
        Ok(disk)
    }

    /// Where it is mounted.
    pub(crate) fn path(&self) -> io::Result<PathBuf> {
        let mount = self.place().mount.clone();
        mount.ok_or_else(|| io::Error::other("the image is not mounted"))
    }

    /// Copies what has reached the disk by now: the disk after a power cut.
    pub(crate) async fn copy(&self) -> io::Result<()> {
        let cuts = self.place().cuts;
        let mut copy = Command::new("cp");
        copy.arg("--sparse=always")
            .arg(self.image(cuts))
            .arg(self.image(cuts + 1));
        run(&mut copy).await
    }

    /// Lets every write from now on fail (EIO), and everything that has not reached the disk be lost: ext4's own switch.
    pub(crate) async fn fail(&self) -> io::Result<()> {
        // EXT4_IOC_SHUTDOWN, without flushing its log. The standard library knows no ioctl.
        const FAIL: &str = "import fcntl, os, struct, sys\n\
            fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), 0x8004587d, struct.pack('I', 2))";
        let mut python = Command::new("python3");
        run(python.args(["-c", FAIL]).arg(self.path()?)).await
    }

    /// Mounts it again as it is: the disk works again. Whoever used it must have ended.
    pub(crate) async fn mount_again(&self) -> io::Result<()> {
        let mounted = self.place().mount.take();
        if let Some(point) = mounted {
            run(Command::new("umount").arg(&point)).await?;
            std::fs::remove_dir(point)?;
        }
        let cuts = self.place().cuts;
        self.mount(cuts).await
    }

    /// Goes on with the copy. Whoever used the image must have ended.
    pub(crate) async fn mount_copy(&self) -> io::Result<()> {
        let (cuts, mounted) = {
            let mut place = self.place();
            (place.cuts, place.mount.take())
        };
        if let Some(point) = mounted {
            run(Command::new("umount").arg(point)).await?;
        }
        std::fs::remove_file(self.image(cuts))?;
        self.place().cuts = cuts + 1;
        self.mount(cuts + 1).await
    }

    /// Takes all of the free space but this many bytes.
    pub(crate) fn fill(&self, but: u64) -> io::Result<()> {
        let path = self.path()?;
        let file = std::fs::File::create(path.join("filler"))?;
        let mut offset = 0;
        loop {
            let free = statvfs(&path)?;
            let free = free.f_bfree.saturating_mul(free.f_frsize);
            // The file system needs blocks of its own for a file: what does not fit is tried in halves.
            let mut piece = free.saturating_sub(but);
            while piece >= 4096 {
                match fallocate(file.as_fd(), FallocateFlags::empty(), offset, piece) {
                    Ok(()) => break,
                    Err(rustix::io::Errno::NOSPC) => piece /= 2,
                    Err(error) => return Err(error.into()),
                }
            }
            if piece < 4096 {
                return Ok(());
            }
            offset += piece;
        }
    }

    /// Gives the space back.
    pub(crate) fn empty(&self) -> io::Result<()> {
        match std::fs::remove_file(self.path()?.join("filler")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn image(&self, cuts: u32) -> PathBuf {
        self.folder.join(format!("image-{cuts}"))
    }

    async fn mount(&self, cuts: u32) -> io::Result<()> {
        let point = self.folder.join(format!("disk-{cuts}"));
        std::fs::create_dir(&point)?;
        let mut mount = Command::new("mount");
        mount.args(["-o", "loop"]).arg(self.image(cuts)).arg(&point);
        run(&mut mount).await?;
        self.place().mount = Some(point);
        Ok(())
    }

    fn place(&self) -> MutexGuard<'_, Place> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if let Some(point) = self.place().mount.take() {
            drop(std::process::Command::new("umount").arg(point).status());
        }
    }
}

async fn run(command: &mut Command) -> io::Result<()> {
    let output = command.output().await?;
    if output.status.success() {
        return Ok(());
    }
    Err(io::Error::other(format!(
        "{:?}: {}: {}",
        command.as_std(),
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    )))
}
