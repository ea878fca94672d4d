//! Two hops: another proxy before or behind the gateway, and a relay between them that keeps what goes by.
//!
//! What the first of two hops passes on must mean the same to the second and to the upstream. The judge of meaning is
//! the recorder's reader, which shares no code with any of them.

use std::collections::HashMap;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::client::Connection;
use crate::gateway::Gateway;
use crate::support::{PATIENCE, eventually};

use super::reader::Seen;
use super::recorder::{Faults, Recorder, Relay};
use super::table::{Case, Table};

/// Which program, and how it passes on content.
#[derive(Clone, Copy, Debug)]
enum Kind {
    /// Reads all content first and gives it a length of its own.
    NginxBuffering,
    /// Passes chunks on as chunks.
    NginxStreaming,
    Haproxy,
}

/// Another proxy as a child process.
struct Proxy {
    child: Child,
    address: SocketAddr,
    _folder: TempDir,
}

impl Proxy {
    fn start(kind: Kind, upstream: SocketAddr) -> Self {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let free = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = free.local_addr().expect("an address");
        drop(free);
        let file = folder.path().join("conf");
        let mut command = match kind {
            Kind::Haproxy => {
                let text = haproxy(address, upstream);
                std::fs::write(&file, text).expect("a file");
                let mut command = Command::new("haproxy");
                command.arg("-db").arg("-f").arg(&file);
                command
            }
            Kind::NginxBuffering | Kind::NginxStreaming => {
                let buffering = if matches!(kind, Kind::NginxBuffering) {
                    "on"
                } else {
                    "off"
                };
                let text = nginx(folder.path(), address, upstream, buffering);
                std::fs::write(&file, text).expect("a file");
                let mut command = Command::new("nginx");
                command
                    .arg("-c")
                    .arg(&file)
                    .arg("-p")
                    .arg(folder.path())
                    .args(["-e", "stderr"]);
                command
            }
        };
        // Debian keeps servers where not everybody's PATH looks.
        let path = std::env::var("PATH").unwrap_or_default();
        let mut child = command
            .env("PATH", format!("{path}:/usr/sbin"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("{kind:?}, from Debian's packages: {error}"));
        eventually("the proxy", || {
            let ended = child.try_wait().expect("it is ours");
            assert!(ended.is_none(), "{kind:?} ended: {ended:?}");
            TcpStream::connect(address).ok()
        });
        Self {
            child,
            address,
            _folder: folder,
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// One process, no workers: killing it ends it.
fn nginx(folder: &Path, address: SocketAddr, upstream: SocketAddr, buffering: &str) -> String {
    let path = folder.display();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|what| format!("{what}_temp_path {path}/{what};\n"))
        .collect();
    format!(
        "daemon off;\nmaster_process off;\npid {path}/pid;\nerror_log /dev/null;\n\
         events {{ worker_connections 512; }}\n\
         http {{\naccess_log off;\n{temporary}\
         client_header_timeout 1s;\nclient_body_timeout 1s;\nkeepalive_timeout 1s;\nlingering_timeout 1s;\n\
         underscores_in_headers on;\nignore_invalid_headers off;\nmerge_slashes off;\n\
         upstream up {{ server {upstream}; keepalive 8; }}\n\
         server {{ listen {address}; location / {{ proxy_pass http://up;\n\
         proxy_http_version 1.1; proxy_set_header Connection \"\"; proxy_set_header Host $http_host;\n\
         proxy_request_buffering {buffering}; proxy_read_timeout 5s; }} }}\n}}\n"
    )
}

fn haproxy(address: SocketAddr, upstream: SocketAddr) -> String {
    format!(
        "defaults\n mode http\n timeout connect 5s\n timeout client 1s\n timeout server 5s\n\
         timeout http-request 1s\n timeout http-keep-alive 1s\n option http-ignore-probes\n\
         frontend near\n bind {address}\n default_backend far\n\
         backend far\n server up {upstream}\n"
    )
}

/// What a relay saw or an upstream got, request by request.
fn counted(all: &[Seen]) -> HashMap<Vec<u8>, usize> {
    let mut counts = HashMap::new();
    for seen in all {
        *counts.entry(seen.bytes()).or_insert(0) += 1;
    }
    counts
}

/// Sends what a case sends and reads to the end of the connection, at the latest after the proxy's patience.
fn pass(case: &Case, to: SocketAddr, run: &str) {
    let mut connection = Connection::open(to);
    connection.set_patience(PATIENCE);
    connection.send_anyway(&case.sent(run));
    drop(connection.read_out());
}

/// Plays the plain cases, several at once.
fn pass_all(cases: &[&Case], to: SocketAddr, run: &str) {
    std::thread::scope(|scope| {
        for lane in 0..16 {
            scope.spawn(move || {
                for case in cases.iter().skip(lane).step_by(16) {
                    pass(case, to, run);
                }
            });
        }
    });
}

/// Whether the upstream got nothing but what went by in the middle.
fn compare(relay: &Relay, recorder: &Recorder) -> Vec<String> {
    let (passed, _) = relay.passed();
    let (passed, seen) = (counted(&passed), counted(&recorder.seen()));
    let mut wrong = recorder.faults();
    for (request, count) in &seen {
        let meant = passed.get(request).copied().unwrap_or(0);
        if *count > meant {
            let told = String::from_utf8_lossy(request);
            wrong.push(format!(
                "{count} times at the upstream, {meant} times before it: {told:?}"
            ));
        }
    }
    wrong
}

/// client → other proxy → relay → hapax → upstream
fn before(kind: Kind) {
    let table = Table::read();
    let cases: Vec<&Case> = table.cases.iter().filter(|case| case.is_plain).collect();
    let recorder = Recorder::start();
    let gateway = Gateway::start(&recorder.url(), "");
    let relay = Relay::start(gateway.address());
    let proxy = Proxy::start(kind, relay.address());
    pass_all(&cases, proxy.address, "before");
    let (passed, faults) = relay.passed();
    eprintln!(
        "{kind:?} → hapax: {} cases, {} sound requests passed on, {} that had no one reading, {} reached the upstream",
        cases.len(),
        passed.len(),
        faults.len(),
        recorder.seen().len(),
    );
    for fault in &faults {
        eprintln!("  passed on all the same: {fault}");
    }
    let wrong = compare(&relay, &recorder);
    assert!(wrong.is_empty(), "{kind:?}: {wrong:#?}");
    assert!(cases.len() >= 120, "{} cases", cases.len());
    sound_ones_arrived(&cases, &recorder, "before");
}

/// client → hapax → relay → other proxy → upstream
fn behind(kind: Kind) {
    let table = Table::read();
    let cases: Vec<&Case> = table.cases.iter().filter(|case| case.is_plain).collect();
    let recorder = Recorder::start();
    let proxy = Proxy::start(kind, recorder.address());
    let relay = Relay::start(proxy.address);
    let url = format!("http://{}", relay.address());
    let gateway = Gateway::start(
        &url,
        "[server]\nidle_timeout = \"1s\"\nhead_timeout = \"1s\"\nbody_timeout = \"1s\"\n",
    );
    pass_all(&cases, gateway.address(), "behind");
    let (passed, faults) = relay.passed();
    eprintln!(
        "hapax → {kind:?}: {} cases, {} sound requests passed on",
        cases.len(),
        passed.len()
    );
    assert!(
        faults.is_empty(),
        "hapax sent what has no one reading: {faults:#?}"
    );
    let wrong = compare(&relay, &recorder);
    assert!(wrong.is_empty(), "{kind:?}: {wrong:#?}");
    sound_ones_arrived(&cases, &recorder, "behind");
}

/// The control: a chain that loses everything would hold every other promise.
fn sound_ones_arrived(cases: &[&Case], recorder: &Recorder, run: &str) {
    let sound = cases.iter().filter(|case| case.id.starts_with("sound-"));
    let mut count = 0;
    for case in sound {
        count += 1;
        let seen = recorder.seen_of(&case.name(run));
        assert_eq!(seen.len(), case.meant(), "{}", case.id);
    }
    assert!(count >= 8, "{count} sound cases");
}

#[test]
fn what_nginx_passes_on_means_the_same_to_the_gateway_and_its_upstream() {
    before(Kind::NginxBuffering);
    before(Kind::NginxStreaming);
}

#[test]
fn what_haproxy_passes_on_means_the_same_to_the_gateway_and_its_upstream() {
    before(Kind::Haproxy);
}

#[test]
fn what_the_gateway_passes_on_means_the_same_to_nginx_and_its_upstream() {
    behind(Kind::NginxStreaming);
}

#[test]
fn what_the_gateway_passes_on_means_the_same_to_haproxy_and_its_upstream() {
    behind(Kind::Haproxy);
}
