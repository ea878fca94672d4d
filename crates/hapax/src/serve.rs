//! `hapax serve`: everything opened in order, run until told to stop, closed in order.

use std::future::Future;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use http::{Request, Uri};
use hyper::body::Incoming;
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, interval, timeout};
use tower_layer::Layer;

use hapax_core::event::Observer;
use hapax_core::store::{Durability, Store};
use hapax_store::{AnyStore, SystemClock};
use hapax_tower::{HapaxLayer, Limits, Options};

use crate::activity::{Activity, Both};
use crate::admin::tokens::{TokenFileError, Tokens};
use crate::admin::{self, Access, ReloadAsked, Watched};
use crate::audit::{AuditError, AuditLog};
use crate::config::{self, AdminSettings, Loaded, Scheme, Settings, Sources, StoreKind};
use crate::gateway::connection::Origin;
use crate::gateway::forward::UpstreamBase;
use crate::gateway::listener::{self, Drained, ListenerSettings};
use crate::gateway::proxy::{Body, Forward, Gateway, Live, LiveRouting, SharedLive};
use crate::gateway::tls::{TlsError, tls_config};
use crate::gateway::wire::Deadlines;
use crate::stores::{self, StoreFailure};
use crate::telemetry::{LogFilter, Metrics, filter_of, start_logging};
use crate::traces;
use crate::upstream::{Dial, Tcp, TlsRoots, Upstream, UpstreamSettings, UpstreamSetupError};

/// How often expired records are looked for, and how many go at once (P35).
const SWEEP_EVERY: Duration = Duration::from_secs(1);
const SWEEP_AT_ONCE: usize = 1_000;
/// A connection whose content stalls is cut this much later than a keyed request is answered 408.
const BODY_STALL_GRACE: Duration = Duration::from_secs(1);
/// The audit log in an embedded store's directory, which the store has locked for this process.
const AUDIT_FILE: &str = "audit.log";
/// How often a drain looks whether the last operation has ended.
const DRAIN_LOOK: Duration = Duration::from_millis(20);

/// Why the gateway did not start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServeError {
    /// The store cannot be opened.
    #[error(transparent)]
    Store(#[from] StoreFailure),
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
    /// The certificate or key cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The upstream cannot be set up.
    #[error(transparent)]
    Upstream(#[from] UpstreamSetupError),
    /// The upstream's URL cannot be used.
    #[error("the upstream {0} cannot be forwarded to")]
    UpstreamUrl(String),
    /// The tokens of operators cannot be used.
    #[error(transparent)]
    Tokens(#[from] TokenFileError),
    /// The audit log cannot be opened.
    #[error("cannot open {0}")]
    Audit(#[from] AuditError),
    /// Operators could act, and what they did would be forgotten.
    #[error(
        "with a store in {0}, `admin.audit_file` is mandatory: name a file for what operators do (a shared store has no place for it on this machine)"
    )]
    NoAuditFile(&'static str),
    /// The system refuses something that every process gets.
    #[error("the system refuses {what}: {source}")]
    System {
        /// What.
        what: &'static str,
        /// Why.
        source: std::io::Error,
    },
}

fn system(what: &'static str) -> impl FnOnce(std::io::Error) -> ServeError {
    move |source| ServeError::System { what, source }
}

/// Runs the gateway until it is told to stop.
pub(crate) fn run(loaded: Loaded) -> Result<(), ServeError> {
    let log = start_logging(&loaded.settings.telemetry);
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    let metrics = Arc::new(Metrics::new());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(system("a runtime"))?;
    // Before anything else: a store that is in use, or cannot be reached, ends it here.
    let store = stores::open(&loaded.settings.store, &metrics, &runtime)?;
    let outcome = runtime.block_on(serve(loaded, log, metrics, store));
    // What is still running was given the drain's time.
    runtime.shutdown_timeout(Duration::from_secs(1));
    outcome
}

async fn serve(
    loaded: Loaded,
    log: LogFilter,
    metrics: Arc<Metrics>,
    store: AnyStore,
) -> Result<(), ServeError> {
    let (base, upstream) = upstream(&loaded.settings, Tcp)?;
    let gateway_settings = gateway_settings(&loaded.settings)?;
    let drain_timeout = gateway_settings.drain_timeout;
    let options = layer_options(&loaded.settings);
    let operators = Operators::new(&loaded.settings)?;
    let gateway_listener = listen(loaded.settings.server.listen).await?;
    let admin_listener = listen(loaded.settings.admin.listen).await?;
    let scheme = gateway_settings.tls.as_ref().map_or("http", |_| "https");
    let gateway_url = url_of(scheme, &gateway_listener)?;
    let admin_url = url_of("http", &admin_listener)?;

    let reloader = Reloader::new(loaded, log, &metrics, &operators.access);
    let (reloads, reloads_asked) = mpsc::channel(1);
    let live = Arc::clone(&reloader.live);
    let observer = Both(Arc::clone(&metrics), Arc::clone(&operators.activity));
    let collector = live.load().settings.telemetry.otlp_endpoint.clone();
    let (observer, sending) = observer_of(collector.as_ref(), Arc::new(observer), &metrics)?;
    let layer = HapaxLayer::new(store, LiveRouting(Arc::clone(&live)), observer, options);
    let (gateway, forward) = assemble(&layer, upstream, base, &live);
    let completing = tokio::spawn(complete(layer.clone(), forward, Arc::clone(&live)));
    let watched = Arc::new(Watched {
        layer: layer.clone(),
        live,
        metrics,
        activity: operators.activity,
        audit: operators.audit,
        access: operators.access,
        reloads,
        event_readers: admin::event_readers(),
        is_draining: AtomicBool::new(false),
        started: Instant::now(),
        gateway: gateway_url.clone(),
        last_reload_error: ArcSwapOption::empty(),
    });
    let admin = serve_operators(admin_listener, &watched);
    let serving = Task::start(|stopped| {
        listener::serve(gateway_listener, gateway_settings, gateway, stopped)
    });
    let sweeping = tokio::spawn(sweep(layer.clone()));
    // Before it says that it is ready: who reads that line may send a signal at once.
    let signals = Signals::watch()?;
    announce(&gateway_url, &admin_url, &layer)?;

    signals
        .wait_for_the_end(&reloader, &watched, reloads_asked)
        .await;
    drain(&watched, serving, drain_timeout).await;
    sweeping.abort();
    completing.abort();
    admin.stop().await;
    if let Some(sending) = sending {
        sending.stop().await;
    }
    tracing::info!("stopped");
    Ok(())
}

/// The services of a gateway, on any store and any network.
fn assemble<S, D: Dial>(
    layer: &HapaxLayer<S>,
    upstream: Upstream<Body, D>,
    base: UpstreamBase,
    live: &SharedLive,
) -> (Gateway<S, D>, Forward<D>) {
    let forward = Forward::new(upstream, base, Arc::clone(live));
    let gateway = Gateway {
        keyed: layer.layer(forward.clone()),
        forward: forward.clone(),
    };
    (gateway, forward)
}

/// What operators see and leave behind, besides records.
struct Operators {
    access: Arc<ArcSwap<Access>>,
    audit: AuditLog,
    activity: Arc<Activity>,
}

impl Operators {
    fn new(settings: &Settings) -> Result<Self, ServeError> {
        let clock: Arc<SystemClock> = Arc::default();
        Ok(Self {
            access: Arc::new(ArcSwap::from_pointee(access(&settings.admin)?)),
            audit: audit_log(settings, &clock)?,
            activity: Arc::new(Activity::new(clock)),
        })
    }
}

/// Starts answering at the operators' listener.
fn serve_operators(listener: TcpListener, watched: &Arc<Watched>) -> Task {
    let router = TowerToHyperService::new(admin::router(Arc::clone(watched)));
    let service = move |request: Request<Incoming>, _: &Origin| router.call(request);
    let settings = ListenerSettings {
        drain_timeout: DRAIN_LOOK,
        ..ListenerSettings::default()
    };
    Task::start(|stopped| listener::serve(listener, settings, service, stopped))
}

/// Who is let in at the operators' listener.
fn access(settings: &AdminSettings) -> Result<Access, TokenFileError> {
    let tokens = settings.token_file.as_deref().map(Tokens::read);
    Ok(Access {
        tokens: tokens.transpose()?,
        hosts: settings.hosts.clone(),
    })
}

/// Where operators' actions are written down: as durably as the records they are about.
fn audit_log(settings: &Settings, clock: &Arc<SystemClock>) -> Result<AuditLog, ServeError> {
    let clock = Arc::<SystemClock>::clone(clock);
    let path = match (&settings.admin.audit_file, settings.store.kind) {
        (Some(path), _) => path.clone(),
        (None, StoreKind::Embedded) => settings.store.path.join(AUDIT_FILE),
        (None, StoreKind::Memory) => return Ok(AuditLog::in_memory(clock)),
        (None, StoreKind::Postgres) => return Err(ServeError::NoAuditFile("PostgreSQL")),
        (None, StoreKind::Redis) => return Err(ServeError::NoAuditFile("Redis")),
    };
    Ok(AuditLog::open(&path, clock)?)
}

/// Who is told what happens, the sender of spans among them where there is a collector.
fn observer_of(
    collector: Option<&config::Upstream>,
    observer: Arc<dyn Observer>,
    metrics: &Metrics,
) -> Result<(Arc<dyn Observer>, Option<traces::Sending>), ServeError> {
    let Some(collector) = collector else {
        return Ok((observer, None));
    };
    let (observer, sending) = traces::start(collector, observer, metrics.span_counts())?;
    Ok((observer, Some(sending)))
}

/// Takes nothing new, and waits for what is under way.
async fn drain(watched: &Watched, serving: Task, drain_timeout: Duration) {
    watched.is_draining.store(true, Ordering::Relaxed);
    tracing::info!("draining");
    let began = Instant::now();
    let cut = serving.stop().await;
    if cut > 0 {
        tracing::warn!(cut, "connections were cut: they outlasted the drain");
    }
    let left = drain_timeout.saturating_sub(began.elapsed());
    drain_attempts(&watched.layer, left).await;
}

/// A listener's task and how to end it.
struct Task {
    stop: watch::Sender<bool>,
    running: JoinHandle<Drained>,
}

impl Task {
    fn start<F>(make: impl FnOnce(watch::Receiver<bool>) -> F) -> Self
    where
        F: Future<Output = Drained> + Send + 'static,
    {
        let (stop, stopped) = watch::channel(false);
        Self {
            stop,
            running: tokio::spawn(make(stopped)),
        }
    }

    /// Asks the listener to drain and says how many connections it had to cut.
    async fn stop(self) -> usize {
        // A receiver that is gone has ended already.
        let _ = self.stop.send(true);
        self.running.await.map_or(0, |drained| drained.cut)
    }
}

fn gateway_settings(settings: &Settings) -> Result<ListenerSettings, ServeError> {
    let tls = match &settings.server.tls {
        Some(files) => Some(tls_config(&files.cert_file, &files.key_file)?),
        None => None,
    };
    Ok(ListenerSettings {
        tls,
        deadlines: deadlines(settings),
        max_head: u32::try_from(settings.server.max_head).unwrap_or(u32::MAX),
        max_connections: settings.server.max_connections,
        drain_timeout: settings.server.drain_timeout,
        ..ListenerSettings::default()
    })
}

fn deadlines(settings: &Settings) -> Deadlines {
    Deadlines {
        head: settings.server.head_timeout,
        idle: settings.server.idle_timeout,
        body_stall: settings.server.body_timeout + BODY_STALL_GRACE,
        answer_stall: settings.server.answer_timeout,
    }
}

fn layer_options(settings: &Settings) -> Options {
    let limits = settings.limits;
    Options {
        limits: Limits {
            outstanding: limits.max_outstanding,
            waiters: limits.max_waiters,
            waiters_per_key: limits.max_waiters_per_key.unwrap_or(usize::MAX),
            waiters_per_scope: limits.max_waiters_per_scope.unwrap_or(usize::MAX),
            outstanding_per_scope: limits.max_outstanding_per_scope.unwrap_or(usize::MAX),
            records_per_scope: limits.max_records_per_scope.unwrap_or(u64::MAX),
            bytes_per_scope: limits.max_bytes_per_scope.unwrap_or(u64::MAX),
        },
        store_timeout: settings.store.operation_timeout,
        body_timeout: settings.server.body_timeout,
        ..Options::default()
    }
}

fn upstream<D: Dial>(
    settings: &Settings,
    dial: D,
) -> Result<(UpstreamBase, Upstream<Body, D>), ServeError> {
    // Checked when the settings were loaded: serving needs one.
    let Some(configured) = &settings.server.upstream else {
        return Err(ServeError::UpstreamUrl("(none)".to_owned()));
    };
    let scheme = configured.scheme.as_str();
    let url = format!(
        "{scheme}://{}{}",
        configured.authority(),
        configured.path_prefix
    );
    let unusable = || ServeError::UpstreamUrl(url.clone());
    let uri: Uri = url.parse().map_err(|_| unusable())?;
    let base = UpstreamBase::new(uri).map_err(|_| unusable())?;
    let tls = match configured.scheme {
        Scheme::Https => Some(TlsRoots {
            extra: settings.server.upstream_ca_file.clone(),
        }),
        Scheme::Http => None,
    };
    let upstream_settings = UpstreamSettings {
        tls,
        connect_timeout: settings.server.connect_timeout,
        ..UpstreamSettings::new(configured.host.clone(), configured.port)
    };
    let upstream = Upstream::over(dial, &upstream_settings)?;
    Ok((base, upstream))
}

async fn listen(address: SocketAddr) -> Result<TcpListener, ServeError> {
    TcpListener::bind(address)
        .await
        .map_err(|source| ServeError::Listen { address, source })
}

fn url_of(scheme: &str, listener: &TcpListener) -> Result<String, ServeError> {
    let address = listener
        .local_addr()
        .map_err(system("a listener's address"))?;
    Ok(format!("{scheme}://{address}"))
}

/// One line a listener on standard output, for people and scripts.
fn announce(gateway: &str, admin: &str, layer: &HapaxLayer<AnyStore>) -> Result<(), ServeError> {
    let durability = match layer.store().durability() {
        Durability::Durable => "durable: acknowledged records survive a crash of the machine",
        Durability::BestEffort => {
            "best-effort: acknowledged records may be lost, and a retry may then execute again"
        }
    };
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        kind = layer.store().kind(),
        store = durability,
        at_failover = layer.store().at_failover(),
        "ready"
    );
    let mut stdout = std::io::stdout().lock();
    writeln!(
        stdout,
        "listening gateway {gateway}\nlistening admin {admin}"
    )
    .and_then(|()| stdout.flush())
    .map_err(system("standard output"))
}

/// Asks about unknown outcomes by the rules that are in force at the time.
async fn complete<S: Store, D: Dial>(layer: HapaxLayer<S>, forward: Forward<D>, live: SharedLive) {
    let policy_of = |name: &str| live.load().routes().policy_of(name);
    layer.complete_unknown(forward, policy_of).await;
}

async fn sweep<S: Store>(layer: HapaxLayer<S>) {
    let mut ticks = interval(SWEEP_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        loop {
            match layer.store().sweep(SWEEP_AT_ONCE).await {
                Ok(swept) if swept.more_due => tokio::task::yield_now().await,
                Ok(_) => break,
                Err(error) => {
                    tracing::warn!(%error, "expired records could not be removed");
                    break;
                }
            }
        }
    }
}

/// What an operator can tell the process.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    fn watch() -> Result<Self, ServeError> {
        let handler = |kind: SignalKind| signal(kind).map_err(system("a signal handler"));
        Ok(Self {
            terminate: handler(SignalKind::terminate())?,
            interrupt: handler(SignalKind::interrupt())?,
            hang_up: handler(SignalKind::hangup())?,
        })
    }

    /// Waits for SIGTERM or SIGINT, reloading on every SIGHUP and whenever an operator asks.
    async fn wait_for_the_end(
        mut self,
        reloader: &Reloader,
        watched: &Watched,
        mut asked: mpsc::Receiver<ReloadAsked>,
    ) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.hang_up.recv() => drop(reloader.reload(watched)),
                Some(reply_to) = asked.recv() => {
                    // Whoever asked may be gone; the reload is told in the log, too.
                    let _ = reply_to.send(reloader.reload(watched));
                }
            }
        }
    }
}

/// Operations go on after their clients have left (P18): they get the rest of the drain's time.
async fn drain_attempts(layer: &HapaxLayer<AnyStore>, left: Duration) {
    let ended = async {
        let mut looks = interval(DRAIN_LOOK);
        while layer.outstanding() > 0 {
            looks.tick().await;
        }
    };
    if timeout(left, ended).await.is_err() {
        tracing::warn!(
            operations = layer.outstanding(),
            "operations outlasted the drain: their outcome will be unknown"
        );
    }
}

/// Takes a changed configuration, whole or not at all.
struct Reloader {
    sources: Sources,
    live: SharedLive,
    log: LogFilter,
    metrics: Arc<Metrics>,
    access: Arc<ArcSwap<Access>>,
}

impl Reloader {
    fn new(
        loaded: Loaded,
        log: LogFilter,
        metrics: &Arc<Metrics>,
        access: &Arc<ArcSwap<Access>>,
    ) -> Self {
        let (settings, sources) = loaded.into_parts();
        let live = Arc::new(ArcSwap::from_pointee(Live::new(settings)));
        Self {
            sources,
            live,
            log,
            metrics: Arc::clone(metrics),
            access: Arc::clone(access),
        }
    }

    fn reload(&self, watched: &Watched) -> Result<(), String> {
        let taken = self.try_reload();
        self.metrics.reloaded(taken.is_ok());
        match &taken {
            Ok(()) => {
                watched.last_reload_error.store(None);
                tracing::info!("the configuration was reloaded");
            }
            Err(error) => {
                // First, so that whoever reads the line finds the same in `status`.
                watched
                    .last_reload_error
                    .store(Some(Arc::new(error.clone())));
                tracing::error!(%error, "the reload failed; the old configuration stays");
            }
        }
        taken
    }

    fn try_reload(&self) -> Result<(), String> {
        let loaded = config::load(self.sources.clone()).map_err(|error| error.to_string())?;
        let (settings, _) = loaded.into_parts();
        let changes = self.live.load().settings.restart_only_changes(&settings);
        if !changes.is_empty() {
            return Err(format!(
                "these settings need a restart: {}",
                changes.join(", ")
            ));
        }
        // The token file may have changed under its name.
        let access = access(&settings.admin).map_err(|error| error.to_string())?;
        let filter = filter_of(&settings.telemetry);
        self.log.reload(filter).map_err(|error| error.to_string())?;
        self.access.store(Arc::new(access));
        self.live.store(Arc::new(Live::new(settings)));
        Ok(())
    }
}

#[cfg(test)]
mod tests;
