//! Real servers of this process's own, in temporary folders; gone with the process however that
//! ends. Used by the tests of the binary, too.

use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Starts what follows `$1` and ends it with the signal read from standard input, or SIGQUIT
/// when that ends with the process that holds it.
pub(crate) const GUARD: &str = "cd / && \"$@\" >/dev/null 2>&1 & pid=$!
    echo s; read signal; kill -${signal:-QUIT} $pid 2>/dev/null; wait $pid";

/// A PostgreSQL server that listens on a socket in a folder.
pub(crate) struct PostgresServer {
    folder: PathBuf,
    running: Option<Child>,
}

impl PostgresServer {
    /// A new server with an empty database, running.
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder").keep();
        let mut initdb = as_somebody(&folder, &programs().join("initdb"));
        let initdb = initdb
            .args([
                "-U",
                "test",
                "-A",
                "trust",
                "-E",
                "UTF8",
                "--locale=C",
                "-N",
                "-D",
            ])
            .arg(folder.join("data"))
            .stdout(Stdio::null());
        assert!(initdb.status().expect("initdb runs").success());
        let mut server = Self {
            folder,
            running: None,
        };
        server.go_on(&[]);
        server
    }

    /// Starts the server again, with settings.
    pub(crate) fn go_on(&mut self, settings: &[&str]) {
        let mut shell = as_somebody(&self.folder, Path::new("/bin/sh"));
        shell
            .args(["-c", GUARD, "sh"])
            .arg(programs().join("postgres"))
            .arg("-D")
            .arg(self.folder.join("data"))
            .arg("-k")
            .arg(&self.folder)
            .args(["-c", "listen_addresses=", "-c", "max_connections=200"])
            .args(["-c", "logging_collector=off"]);
        for setting in settings {
            shell.args(["-c", setting]);
        }
        self.running = Some(begin(shell));
    }

    /// Ends the server as a crash does: nothing is written out (SIGQUIT).
    pub(crate) fn crash(&mut self) {
        end(&mut self.running, "QUIT");
    }

    /// The URL of its database.
    pub(crate) fn url(&self) -> String {
        let folder = self.folder.to_string_lossy().replace('/', "%2F");
        format!("postgres://test@{folder}/postgres")
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        end(&mut self.running, "QUIT");
        drop(std::fs::remove_dir_all(&self.folder));
    }
}

pub(crate) fn begin(mut shell: Command) -> Child {
    let spawned = shell.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let mut child = spawned.expect("a shell");
    let mut said = [0; 1];
    let out = child.stdout.as_mut().expect("a pipe");
    out.read_exact(&mut said).expect("the shell runs");
    child
}

pub(crate) fn end(running: &mut Option<Child>, signal: &str) {
    if let Some(mut child) = running.take() {
        if let Some(mut input) = child.stdin.take() {
            drop(writeln!(input, "{signal}"));
        }
        drop(child.wait());
    }
}

/// A command that runs as the owner of `folder`, which is somebody else when we are root:
/// PostgreSQL refuses to run as root.
pub(crate) fn as_somebody(folder: &Path, program: &Path) -> Command {
    let mut command = Command::new(program);
    if let Some((user, group)) = owner(folder) {
        std::os::unix::fs::chown(folder, Some(user), Some(group)).expect("root may");
        command.uid(user).gid(group);
    }
    command.current_dir("/");
    command
}

/// Where Debian puts the server's programs.
fn programs() -> PathBuf {
    let versions =
        std::fs::read_dir("/usr/lib/postgresql").expect("PostgreSQL (apt-get install postgresql)");
    let mut found: Vec<PathBuf> = versions
        .filter_map(|version| Some(version.ok()?.path().join("bin")))
        .filter(|bin| bin.join("initdb").exists())
        .collect();
    found.sort();
    found.pop().expect("PostgreSQL's initdb")
}

/// Whom the server runs as when we are root: `postgres`, or `nobody`.
fn owner(folder: &Path) -> Option<(u32, u32)> {
    use std::os::unix::fs::MetadataExt;
    // Made by us, or given away by an earlier start.
    let made_by = std::fs::metadata(folder).expect("a folder").uid();
    let ours = std::fs::metadata("/proc/self").expect("Linux").uid();
    if ours != 0 {
        assert_eq!(made_by, ours);
        return None;
    }
    let users = std::fs::read_to_string("/etc/passwd").expect("users");
    let user = ["postgres:", "nobody:"].iter().find_map(|name| {
        let line = users.lines().find(|line| line.starts_with(name))?;
        let mut fields = line.split(':').skip(2);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    });
    Some(user.expect("another user than root"))
}
