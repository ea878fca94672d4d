//! A PostgreSQL server of this process's own: on a socket in a temporary folder, gone with the
//! process however that ends.

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::time::{Instant, interval};

static SERVER: OnceLock<Server> = OnceLock::new();
static DATABASES: AtomicU32 = AtomicU32::new(0);

struct Server {
    folder: PathBuf,
    /// Ends when its standard input is closed, which the system does for us.
    _child: Child,
}

/// The URL of a new database.
pub(crate) async fn database() -> String {
    let server = SERVER.get_or_init(start);
    let url = |name: &str| {
        let folder = server.folder.to_string_lossy().replace('/', "%2F");
        format!("postgres://test@{folder}/{name}")
    };
    let name = format!("test_{}", DATABASES.fetch_add(1, Ordering::Relaxed));
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut ticks = interval(Duration::from_millis(50));
    let mut connection = loop {
        use sqlx::Connection;
        match sqlx::PgConnection::connect(&url("postgres")).await {
            Ok(connection) => break connection,
            Err(error) => assert!(
                Instant::now() < deadline,
                "PostgreSQL did not start: {error}"
            ),
        }
        ticks.tick().await;
    };
    let statement = format!("CREATE DATABASE {name}");
    sqlx::query(sqlx::AssertSqlSafe(statement))
        .execute(&mut connection)
        .await
        .expect("a database");
    url(&name)
}

fn start() -> Server {
    let programs = programs();
    let folder = tempfile::tempdir().expect("a folder").keep();
    let mut shell = Command::new("/bin/sh");
    // A commit is on disk when it is answered, as by default; a database that sets
    // `synchronous_commit = on` waits for a standby as well, which never comes.
    // What the shell waits for never comes: its standard input ends with this process.
    shell
        .arg("-c")
        .arg(
            "cd / && \"$1/initdb\" -D \"$2/data\" -U test -A trust -E UTF8 --locale=C -N >/dev/null || exit 1
             \"$1/postgres\" -D \"$2/data\" -k \"$2\" -c listen_addresses= -c max_connections=300 \
                 -c log_min_messages=fatal -c logging_collector=off \
                 -c synchronous_standby_names=nobody -c synchronous_commit=local 2>\"$2/log\" &
             echo started; read _; kill -QUIT $!; wait; rm -rf \"$2\"",
        )
        .arg("sh")
        .arg(&programs)
        .arg(&folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    // The server refuses to run as root.
    if let Some((user, group)) = owner(&folder) {
        std::os::unix::fs::chown(&folder, Some(user), Some(group)).expect("root may");
        shell.uid(user).gid(group);
    }
    let mut child = shell.spawn().expect("a shell");
    let mut said = [0; 7];
    let out = child.stdout.as_mut().expect("a pipe");
    out.read_exact(&mut said).expect("initdb works");
    Server {
        folder,
        _child: child,
    }
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
    if std::fs::metadata(folder).expect("a folder").uid() != 0 {
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
