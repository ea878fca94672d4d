//! A wire between a client and PostgreSQL that is cut, or held, at a chosen message of the client.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// Which message something happens at. Counting begins with [`Wire::arm`], over all connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(dead_code, reason = "as below")]
pub(crate) enum At {
    /// The first `BEGIN`.
    Begin,
    /// The first `COMMIT`.
    Commit,
    /// The message with this number, from 0.
    Message(usize),
    /// The message with this number, from 0, among those that ask for an answer.
    RoundTrip(usize),
}

/// What happens then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(
    dead_code,
    reason = "not every binary of tests that has this file needs every fault"
)]
pub(crate) enum Fault {
    /// The connection ends; the server never sees the message.
    CutBefore,
    /// The server gets the message, and the connection ends at once.
    CutAfter,
    /// The server gets the message; when it has answered, the connection ends, and the answer is
    /// lost.
    CutAnswer,
    /// As `CutAnswer`, and from then on nobody reaches the server, until [`Wire::heal`].
    CutAll,
    /// The message stays here, until the client ends the connection.
    HoldBefore,
    /// The server gets the message; its answer stays here, until the client ends the connection.
    HoldAnswer,
    /// The server gets the message; its answer stays here, until [`Wire::release`].
    DelayAnswer,
}

#[derive(Debug)]
struct Plan {
    at: At,
    fault: Fault,
    seen: usize,
}

/// The wire, and what is to happen on it.
#[derive(Debug, Clone)]
pub(crate) struct Wire {
    address: SocketAddr,
    database: String,
    state: Arc<State>,
}

#[derive(Debug)]
struct State {
    socket: PathBuf,
    plan: Mutex<Option<Plan>>,
    is_down: watch::Sender<bool>,
    struck: Notify,
    /// Whether answers stay here.
    is_delayed: watch::Sender<bool>,
}

impl Wire {
    /// A wire to the database at `url`, which is one of `postgres::database`.
    pub(crate) async fn to(url: &str) -> Self {
        let rest = url.strip_prefix("postgres://test@").expect("its form");
        let (folder, database) = rest.split_once('/').expect("its form");
        let folder = PathBuf::from(folder.replace("%2F", "/"));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let wire = Self {
            address: listener.local_addr().expect("an address"),
            database: database.to_owned(),
            state: Arc::new(State {
                socket: folder.join(".s.PGSQL.5432"),
                plan: Mutex::default(),
                is_down: watch::Sender::new(false),
                struck: Notify::new(),
                is_delayed: watch::Sender::new(false),
            }),
        };
        let state = Arc::clone(&wire.state);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(carry(client, Arc::clone(&state)));
            }
        });
        wire
    }

    /// The database's URL over this wire.
    pub(crate) fn url(&self) -> String {
        let Self {
            address, database, ..
        } = self;
        format!("postgres://test@{address}/{database}?sslmode=disable")
    }

    /// From now on messages are counted, and at one of them something happens, once.
    pub(crate) fn arm(&self, at: At, fault: Fault) {
        *self.state.plan() = Some(Plan { at, fault, seen: 0 });
    }

    /// Nothing more is to happen; says whether it has.
    pub(crate) fn disarm(&self) -> bool {
        self.state.plan().take().is_none()
    }

    /// Waits until it happens.
    #[allow(
        dead_code,
        reason = "not every binary of tests that has this file holds messages"
    )]
    pub(crate) async fn struck(&self) {
        let struck = timeout(PATIENCE, self.state.struck.notified()).await;
        struck.expect("it happens in time");
    }

    /// Answers that were delayed arrive.
    #[allow(
        dead_code,
        reason = "not every binary of tests that has this file delays answers"
    )]
    pub(crate) fn release(&self) {
        self.state.is_delayed.send_replace(false);
    }

    /// The server can be reached again.
    #[allow(
        dead_code,
        reason = "not every binary of tests that has this file cuts all"
    )]
    pub(crate) fn heal(&self) {
        self.state.is_down.send_replace(false);
    }
}

impl State {
    fn plan(&self) -> std::sync::MutexGuard<'_, Option<Plan>> {
        self.plan.lock().expect("no panic within")
    }

    /// What happens at this message.
    fn judge(&self, tag: u8, content: &[u8]) -> Option<Fault> {
        let mut place = self.plan();
        let plan = place.as_mut()?;
        let is_it = match plan.at {
            At::Begin => tag == b'Q' && content.starts_with(b"BEGIN"),
            At::Commit => tag == b'Q' && content == b"COMMIT\0",
            At::Message(number) => number == plan.seen,
            At::RoundTrip(_) if !asks(tag) => return None,
            At::RoundTrip(number) => number == plan.seen,
        };
        plan.seen += 1;
        if !is_it {
            return None;
        }
        let fault = plan.fault;
        *place = None;
        Some(fault)
    }
}

/// Whether the server answers a message before it gets another: a simple query, or the end of
/// several.
fn asks(tag: u8) -> bool {
    matches!(tag, b'Q' | b'S')
}

/// One connection.
async fn carry(client: TcpStream, state: Arc<State>) {
    let mut is_down = state.is_down.subscribe();
    if *is_down.borrow() {
        return;
    }
    let Ok(server) = UnixStream::connect(&state.socket).await else {
        return;
    };
    let (mut from_client, to_client) = client.into_split();
    let (from_server, mut to_server) = server.into_split();
    let muted = Arc::new(watch::Sender::new(false));
    let answered = Arc::new(Notify::new());
    let down = tokio::spawn(bring_back(
        from_server,
        to_client,
        muted.subscribe(),
        state.is_delayed.subscribe(),
        Arc::clone(&answered),
    ));
    let up = async {
        pass_on(&mut from_client, &mut to_server, None).await?;
        loop {
            let tag = from_client.read_u8().await.ok()?;
            let content = message(&mut from_client).await?;
            let fault = state.judge(tag, &content);
            let is_delayed = fault == Some(Fault::DelayAnswer);
            if is_delayed {
                state.is_delayed.send_replace(true);
            }
            muted.send_replace(fault.is_some() && !is_delayed);
            if !matches!(fault, Some(Fault::CutBefore | Fault::HoldBefore)) {
                send(&mut to_server, Some(tag), &content).await?;
            }
            let Some(fault) = fault else { continue };
            if matches!(fault, Fault::CutAnswer | Fault::CutAll | Fault::HoldAnswer) {
                // A message in the middle of several has no answer of its own.
                if asks(tag) {
                    answered.notified().await;
                }
            }
            if fault == Fault::CutAll {
                state.is_down.send_replace(true);
            }
            state.struck.notify_one();
            if is_delayed {
                continue;
            }
            if matches!(fault, Fault::HoldBefore | Fault::HoldAnswer) {
                let mut ignored = [0; 1024];
                while from_client.read(&mut ignored).await.ok()? > 0 {}
            }
            return Some(());
        }
    };
    tokio::select! {
        _ = up => {}
        _ = is_down.wait_for(|is_down| *is_down) => {}
    }
    down.abort();
}

/// What the server says, unless it is not to arrive.
async fn bring_back(
    mut from_server: impl AsyncRead + Unpin,
    mut to_client: impl AsyncWrite + Unpin,
    muted: watch::Receiver<bool>,
    mut is_delayed: watch::Receiver<bool>,
    answered: Arc<Notify>,
) {
    let mut said = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = from_server.read(&mut said).await {
        if *muted.borrow() {
            answered.notify_one();
            continue;
        }
        if is_delayed.wait_for(|is_delayed| !is_delayed).await.is_err() {
            break;
        }
        if to_client.write_all(&said[..length]).await.is_err() {
            break;
        }
    }
}

async fn pass_on(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    tag: Option<u8>,
) -> Option<()> {
    let content = message(from).await?;
    send(to, tag, &content).await
}

/// The content of a message: its length, itself included, goes before it.
async fn message(from: &mut (impl AsyncRead + Unpin)) -> Option<Vec<u8>> {
    let length = from.read_u32().await.ok()?.checked_sub(4)?;
    let mut content = vec![0; usize::try_from(length).ok()?];
    from.read_exact(&mut content).await.ok()?;
    Some(content)
}

async fn send(to: &mut (impl AsyncWrite + Unpin), tag: Option<u8>, content: &[u8]) -> Option<()> {
    let mut bytes = Vec::from_iter(tag);
    bytes.extend_from_slice(&u32::try_from(content.len() + 4).ok()?.to_be_bytes());
    bytes.extend_from_slice(content);
    to.write_all(&bytes).await.ok()
}
