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
    /// How often its data were made anew.
    generation: u32,
    running: Option<Child>,
}

impl PostgresServer {
    /// A place for a server, without data.
    #[allow(dead_code, reason = "not every test program has standbys")]
    pub(crate) fn nothing() -> Self {
        Self {
            folder: tempfile::tempdir().expect("a folder").keep(),
            generation: 0,
            running: None,
        }
    }

    /// A new server with an empty database, running.
    pub(crate) fn start() -> Self {
        let mut server = Self::nothing();
        let mut initdb = as_somebody(&server.folder, &programs().join("initdb"));
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
            .arg(server.data())
            .stdout(Stdio::null());
        assert!(initdb.status().expect("initdb runs").success());
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
            .arg(self.data())
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

    /// Puts a file beside its data that only the server can read.
    #[allow(dead_code, reason = "not every test program has secrets")]
    pub(crate) fn keep(&self, name: &str, text: &str) -> PathBuf {
        use std::os::unix::fs::PermissionsExt;
        let path = self.folder.join(name);
        std::fs::write(&path, text).expect("a file");
        let only_owner = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(&path, only_owner).expect("ours");
        if let Some((user, group)) = owner(&self.folder) {
            std::os::unix::fs::chown(&path, Some(user), Some(group)).expect("root may");
        }
        path
    }

    fn data(&self) -> PathBuf {
        self.folder.join(format!("data-{}", self.generation))
    }

    /// Ends the server as `kill -9` does.
    #[allow(dead_code, reason = "not every test program has standbys")]
    pub(crate) fn kill_nine(&mut self) {
        end(&mut self.running, "KILL");
    }

    /// Makes it a copy of `primary` that follows it, and starts it.
    #[allow(dead_code, reason = "not every test program has standbys")]
    pub(crate) fn follow(&mut self, primary: &Self) {
        end(&mut self.running, "QUIT");
        drop(std::fs::remove_dir_all(self.data()));
        self.generation += 1;
        let slot = format!("standby_{}", self.generation);
        let mut backup = as_somebody(&self.folder, &programs().join("pg_basebackup"));
        let from = format!(
            "host={} user=test application_name=standby",
            primary.folder.display()
        );
        let backup = backup
            .args(["-R", "-N", "-X", "stream", "-c", "fast", "-C", "-S", &slot])
            .args(["-d", &from, "-D"])
            .arg(self.data());
        assert!(backup.status().expect("it runs").success());
        self.go_on(&[]);
    }

    /// Makes a standby the primary.
    #[allow(dead_code, reason = "not every test program has standbys")]
    pub(crate) fn promote(&self) {
        let mut promote = as_somebody(&self.folder, &programs().join("pg_ctl"));
        let promote = promote
            .args(["promote", "-w", "-D"])
            .arg(self.data())
            .stdout(Stdio::null());
        assert!(promote.status().expect("it runs").success());
    }

    /// What a statement answers; `None` when it fails.
    #[allow(dead_code, reason = "not every test program has standbys")]
    pub(crate) fn query(&self, sql: &str) -> Option<String> {
        let mut psql = as_somebody(&self.folder, &programs().join("psql"));
        let folder = self.folder.as_os_str();
        let psql = psql
            .arg("-h")
            .arg(folder)
            .args(["-U", "test", "-XAtc", sql, "postgres"]);
        let output = psql.output().expect("it runs");
        let answer = String::from_utf8(output.stdout).expect("text");
        output.status.success().then(|| answer.trim().to_owned())
    }

    /// The URL of whichever of two servers is the primary.
    #[allow(dead_code, reason = "not every test program has standbys")]
    pub(crate) fn url_with(&self, other: &Self) -> String {
        let host = |server: &Self| server.folder.to_string_lossy().replace('/', "%2F");
        let (one, two) = (host(self), host(other));
        format!("postgres://test@{one},{two}/postgres?target_session_attrs=read-write")
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
