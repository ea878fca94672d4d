//! `hapax demo`: one shop twice, with hapax and without, behind one bad network, and a page to press buttons on.
//!
//! What is real: both shops, hapax and its store are processes of their own, killed with SIGKILL; answers are lost by
//! closing connections. What is staged: the network between the page and both tills, in this process, from a seed.

mod api;
mod child;
mod children;
mod courier;
mod fate;
mod folder;
mod listener;
mod pages;
mod record;
mod wire;

use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

pub(crate) use child::{ChildError, ChildShop, end_with_the_parent, serve_shop};
pub(crate) use fate::DEFAULT_SEED;

use children::{Children, StartError};
use fate::Weather;
use folder::Folder;
use record::WireRecord;
use wire::Till;

/// What `hapax demo` is told on its command line.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DemoOptions {
    /// Where the page is.
    pub(crate) listen: SocketAddr,
    /// Where all of the network's faults come from.
    pub(crate) seed: u64,
    /// Whether the page tells its story unasked.
    pub(crate) autoplay: bool,
}

/// Why the demo did not run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DemoError {
    /// There is no place for its files.
    #[error("cannot make a temporary folder: {0}")]
    Folder(#[source] std::io::Error),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
    /// A shop or hapax did not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The system refuses something that every process gets.
    #[error("the system refuses {what}: {source}")]
    System {
        /// What.
        what: &'static str,
        /// Why.
        source: std::io::Error,
    },
}

fn system(what: &'static str) -> impl FnOnce(std::io::Error) -> DemoError {
    move |source| DemoError::System { what, source }
}

/// All that the page and the network share.
struct Demo {
    options: DemoOptions,
    children: Children,
    weather: Mutex<Weather>,
    record: WireRecord,
    /// Whether the next order at a till kills its shop between commit and answer; bare, with hapax.
    armed: [AtomicBool; 2],
}

impl Demo {
    fn weather(&self) -> Weather {
        *self.weather.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_weather(&self, weather: Weather) {
        *self.weather.lock().unwrap_or_else(PoisonError::into_inner) = weather;
    }

    fn arm(&self) {
        for armed in &self.armed {
            armed.store(true, Ordering::Relaxed);
        }
    }

    /// Whether the till was armed; it no longer is.
    fn disarm(&self, till: Till) -> bool {
        let [bare, with_hapax] = &self.armed;
        let armed = match till {
            Till::Bare => bare,
            Till::WithHapax => with_hapax,
        };
        armed.swap(false, Ordering::Relaxed)
    }
}

/// Runs the demo until SIGINT, SIGTERM or SIGHUP. Its processes and files end with it, however far it came.
pub(crate) fn run(options: DemoOptions) -> Result<(), DemoError> {
    // Dropped last: the processes that write into it are gone by then.
    let mut folder = None;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(system("a runtime"))?;
    let outcome = runtime.block_on(until_told(options, &mut folder));
    // Ends every task, and with the last of them the children: each is killed and waited for.
    drop(runtime);
    drop(folder);
    outcome
}

async fn until_told(options: DemoOptions, folder: &mut Option<Folder>) -> Result<(), DemoError> {
    // Before the first file and the first child: whoever stops us half way finds nothing left behind.
    let handler = |kind: SignalKind| signal(kind).map_err(system("a signal handler"));
    let mut terminate = handler(SignalKind::terminate())?;
    let mut interrupt = handler(SignalKind::interrupt())?;
    let mut hang_up = handler(SignalKind::hangup())?;
    let folder = folder.insert(Folder::new().map_err(DemoError::Folder)?);
    tokio::select! {
        outcome = serve(options, folder) => outcome,
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
        _ = hang_up.recv() => Ok(()),
    }
}

async fn serve(options: DemoOptions, folder: &Folder) -> Result<(), DemoError> {
    let address = options.listen;
    let listener = TcpListener::bind(address)
        .await
        .map_err(|source| DemoError::Listen { address, source })?;
    let bound = listener
        .local_addr()
        .map_err(system("a listener's address"))?;
    let demo = Arc::new(Demo {
        options,
        children: Children::new(folder.path()).map_err(system("the path of this program"))?,
        weather: Mutex::new(Weather::default()),
        record: WireRecord::default(),
        armed: [AtomicBool::new(false), AtomicBool::new(false)],
    });
    demo.children.start_all().await?;
    let mut stdout = std::io::stdout();
    writeln!(stdout, "listening demo http://{bound}")
        .and_then(|()| stdout.flush())
        .map_err(system("standard output"))?;
    listener::accept(listener, demo).await;
    Ok(())
}
