//! The life of an edge: bind, start, reload, drain. One thread, one runtime and one proxy a core; between them and the rest
//! of the process only the gate's snapshot, which is swapped, and one signal to stop.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::thread::JoinHandle;
use std::time::Duration;

use pingora_core::apps::{HttpServerOptions, ServerApp as _};
use pingora_core::server::configuration::ServerConf;
use pingora_proxy::http_proxy;
use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::task::TaskTracker;

use crate::admit::Gate;
use crate::listener::{
    Accepted, Bound, CertificateError, CertificateReader, CertificateStore, CertificateWatch, Door, Handshakes,
    Purpose, Tls, TlsAcceptor, answer_redirect, provider,
};
use crate::metrics::Metrics;
use crate::proxy::{App, Proxy};
use crate::snapshot::Snapshot;
use crate::tunnel::Dialler;
use crate::upstream::Upstreams;
use crate::vigil::Vigilance;
use crate::{EdgeConfig, EdgeLimits, Listeners, PublicListener};

/// What of an edge no configuration names.
#[derive(Debug, Clone, Copy)]
pub struct EdgeOptions {
    /// Threads that carry requests; one a core is right.
    pub workers: usize,
    /// How often open WebSockets and other tunnels are decided anew.
    pub vigilance: Vigilance,
}

impl Default for EdgeOptions {
    fn default() -> Self {
        Self { workers: std::thread::available_parallelism().map_or(1, usize::from), vigilance: Vigilance::default() }
    }
}

/// Why an edge cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A thread, a runtime or a further socket could not be had.
    #[error("the edge cannot start: {0}")]
    System(#[from] io::Error),
    /// The listener has nothing to show.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// TLS cannot be set up.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
}

/// Why an edge cannot take a configuration.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// TLS cannot be set up.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
}

/// Makes edges.
#[derive(Debug)]
pub struct Edge;

impl Edge {
    /// Binds every address, so that a taken port is known before anything else is begun.
    ///
    /// # Errors
    /// An address cannot be bound; the message names it.
    pub fn bind(listeners: &Listeners) -> io::Result<Bound> {
        Bound::bind(listeners)
    }

    /// Serves what is bound. To be called within the control runtime, where certificates are watched.
    ///
    /// # Errors
    /// [`StartError`]; nothing is served then.
    pub fn start(
        bound: Bound,
        gate: Arc<Gate>,
        metrics: &Metrics,
        options: EdgeOptions,
    ) -> Result<RunningEdge, StartError> {
        let snapshot = gate.snapshot();
        let upstreams = Arc::new(Upstreams::new(&snapshot.config, Handle::current(), metrics.clone()));
        let tls = open_tls(&bound.listeners, &snapshot.config)?;
        let proxy_protocol = bound.listeners.proxy_protocol;
        let store = tls.as_ref().map(|tls| Arc::clone(&tls.certificates));
        let acceptor = tls.as_ref().map(|tls| tls.acceptor.clone());
        let watch = store.map(|store| CertificateWatch::new(store, Arc::clone(&gate), metrics.clone()));
        let parts = Parts {
            door: Arc::new(Door { proxy_protocol, ..door(tls, Arc::clone(&gate), metrics) }),
            gate: Arc::clone(&gate),
            upstreams: Arc::clone(&upstreams),
            metrics: metrics.clone(),
            in_flight: Arc::new(AtomicUsize::new(0)),
            tunnels: Arc::new(AtomicUsize::new(0)),
            options,
        };
        let (stop, stopped) = watch::channel(false);
        let (deadline, deadlines) = watch::channel(None);
        let sockets = bound.into_sockets(options.workers.max(1))?;
        let begin = |(core, sockets)| Worker::begin(core, sockets, parts.clone(), (stopped.clone(), deadlines.clone()));
        let workers = sockets.into_iter().enumerate().map(begin).collect::<io::Result<Vec<_>>>()?;
        upstreams.tend(&snapshot);
        let watching = watch.clone().map(|watch| tokio::spawn(watch.run()).abort_handle());
        Ok(RunningEdge {
            workers,
            stop,
            deadline,
            gate,
            metrics: metrics.clone(),
            upstreams,
            acceptor,
            watch,
            watching,
        })
    }
}

fn open_tls(listeners: &Listeners, config: &EdgeConfig) -> Result<Option<Tls>, StartError> {
    let PublicListener::Tls { h2, http1, .. } = listeners.public else { return Ok(None) };
    let provider = provider();
    let certificates = CertificateStore::open(&config.certificates, Arc::clone(&provider))?;
    let resolver = Arc::clone(&certificates) as Arc<dyn rustls::server::ResolvesServerCert>;
    let acceptor = TlsAcceptor::new(resolver, provider, (h2, http1), (&config.downstream_mtls, &config.keyring))?;
    Ok(Some(Tls { acceptor, certificates }))
}

/// Shows the bounds that are counted against.
fn show(limits: &EdgeLimits, metrics: &Metrics) {
    let bounds = [
        ("connections", limits.connections.connections),
        ("handshakes", limits.connections.handshakes),
        ("requests_in_flight", limits.requests_in_flight),
        ("tunnels", limits.tunnels()),
    ];
    for (name, bound) in bounds {
        let bound = u32::try_from(bound).unwrap_or(u32::MAX);
        metrics.0.limit.with_label_values(&[name]).set(bound.into());
    }
}

fn door(tls: Option<Tls>, gate: Arc<Gate>, metrics: &Metrics) -> Door {
    show(&gate.snapshot().config.limits, metrics);
    Door {
        tls,
        proxy_protocol: false,
        gate,
        open: Arc::new(AtomicUsize::new(0)),
        handshakes: Handshakes::default(),
        addresses: Arc::default(),
        metrics: metrics.clone(),
    }
}

/// An edge that serves.
#[derive(Debug)]
pub struct RunningEdge {
    workers: Vec<Worker>,
    stop: watch::Sender<bool>,
    deadline: watch::Sender<Option<Instant>>,
    gate: Arc<Gate>,
    metrics: Metrics,
    upstreams: Arc<Upstreams>,
    acceptor: Option<TlsAcceptor>,
    watch: Option<CertificateWatch>,
    watching: Option<AbortHandle>,
}

impl RunningEdge {
    /// Takes a new configuration: whole, or not at all. Requests under way keep the one that they began with.
    ///
    /// # Errors
    /// [`ReloadError`]; the old configuration stays in force.
    pub fn reload(&self, mut snapshot: Snapshot) -> Result<(), ReloadError> {
        if let Some(acceptor) = &self.acceptor {
            acceptor.ask(&snapshot.config.downstream_mtls)?;
        }
        snapshot.inherit(&self.gate.snapshot());
        self.upstreams.reload(&snapshot.config);
        self.gate.replace(snapshot);
        show(&self.gate.snapshot().config.limits, &self.metrics);
        self.upstreams.tend(&self.gate.snapshot());
        self.reload_certificates();
        Ok(())
    }

    /// What reads the certificates again for others, as [`Self::reload_certificates`] does.
    #[must_use]
    pub fn certificate_reader(&self) -> CertificateReader {
        CertificateReader(self.watch.clone())
    }

    /// Reads the certificates again now; otherwise they are looked at every few seconds.
    pub fn reload_certificates(&self) {
        if let Some(watch) = &self.watch {
            watch.look();
        }
    }

    /// Stops accepting, tells the clients, and waits for what is under way, at most `bound`; then cuts. Dropping the
    /// future before it is done cuts as well.
    pub async fn drain(mut self, bound: Duration) {
        self.deadline.send_replace(Some(Instant::now() + bound));
        self.stop.send_replace(true);
        for worker in std::mem::take(&mut self.workers) {
            worker.ended().await;
        }
    }
}

impl Drop for RunningEdge {
    fn drop(&mut self) {
        if let Some(watching) = &self.watching {
            watching.abort();
        }
        self.deadline.send_replace(Some(Instant::now()));
        self.stop.send_replace(true);
    }
}

/// What every core shares.
#[derive(Clone)]
struct Parts {
    door: Arc<Door>,
    gate: Arc<Gate>,
    upstreams: Arc<Upstreams>,
    metrics: Metrics,
    in_flight: Arc<AtomicUsize>,
    tunnels: Arc<AtomicUsize>,
    options: EdgeOptions,
}

/// Told to stop, and until when to wait.
type Signals = (watch::Receiver<bool>, watch::Receiver<Option<Instant>>);

#[derive(Debug)]
struct Worker {
    thread: JoinHandle<()>,
    ended: oneshot::Receiver<()>,
}

impl Worker {
    fn begin(core: usize, sockets: Vec<(Purpose, TcpListener)>, parts: Parts, signals: Signals) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (end, ended) = oneshot::channel();
        let thread = std::thread::Builder::new().name(format!("edge-{core}")).spawn(move || {
            if let Err(error) = runtime.block_on(serve(sockets, parts, signals)) {
                tracing::error!(%error, core, "an edge core has stopped");
            }
            // Connections that are left are cut here; a look-up that hangs in the system is left behind.
            runtime.shutdown_background();
            let _nobody_waits = end.send(());
        })?;
        Ok(Self { thread, ended })
    }

    async fn ended(self) {
        let _ended_either_way = self.ended.await;
        if self.thread.join().is_err() {
            tracing::error!("an edge core ended in a panic");
        }
    }
}

async fn serve(sockets: Vec<(Purpose, TcpListener)>, parts: Parts, signals: Signals) -> io::Result<()> {
    let (mut stop, mut deadline) = signals;
    let (end, ends) = watch::channel(false);
    let app = Arc::new(app(&parts, (stop.clone(), ends)));
    let (tracker, accepting) = (TaskTracker::new(), TaskTracker::new());
    // Each core has its own: every request waits on it.
    let (tell, told) = watch::channel(false);
    for (purpose, socket) in sockets {
        let listener = tokio::net::TcpListener::from_std(socket)?;
        let core = Core { app: Arc::clone(&app), door: Arc::clone(&parts.door), tracker: tracker.clone() };
        accepting.spawn(core.accept(purpose, listener, told.clone()));
    }
    accepting.close();
    // A sender that is gone means stop. What this gives is a lock: kept, it would hold off whoever cuts the drain.
    drop(stop.wait_for(|stop| *stop).await);
    tell.send_replace(true);
    accepting.wait().await;
    pingora_core::apps::HttpServerApp::http_cleanup(app.as_ref()).await;
    tracker.close();
    tokio::select! {
        () = tracker.wait() => {}
        () = passed(&mut deadline) => {
            tracing::warn!(connections = tracker.len(), "connections cut at the end of the drain");
            // What has lasted gets its record.
            end.send_replace(true);
            let _cut_now = timeout(LAST_LINES, tracker.wait()).await;
        }
    }
    Ok(())
}

/// Waits until the deadline has passed: the one that is set, or is set yet, or is set anew.
async fn passed(deadline: &mut watch::Receiver<Option<Instant>>) {
    loop {
        let set = *deadline.borrow_and_update();
        let over = async {
            match set {
                Some(set) => sleep_until(set).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = over => return,
            changed = deadline.changed() => if changed.is_err() { return },
        }
    }
}

struct Core {
    app: Arc<App>,
    door: Arc<Door>,
    tracker: TaskTracker,
}

impl Core {
    async fn accept(self, purpose: Purpose, listener: tokio::net::TcpListener, mut stop: watch::Receiver<bool>) {
        while let Some(accepted) = self.door.next(&listener, &mut stop).await {
            let (app, door, stop) = (Arc::clone(&self.app), Arc::clone(&self.door), stop.clone());
            match purpose {
                Purpose::Public => self.tracker.spawn(carry(app, door, accepted, stop)),
                Purpose::Redirect => self.tracker.spawn(answer_redirect(door, accepted, stop)),
            };
        }
    }
}

async fn carry(app: Arc<App>, door: Arc<Door>, accepted: Accepted, stop: watch::Receiver<bool>) {
    let (stream, peer, _place) = accepted.into_parts();
    // What a handshake needs is not kept for as long as the connection lasts.
    if let Some((stream, _place_of_its_address)) = Box::pin(door.open(stream, peer, stop.clone())).await {
        app.process_new(stream, &stop).await;
    }
}

fn app(parts: &Parts, (stop, end): (watch::Receiver<bool>, watch::Receiver<bool>)) -> App {
    let conf =
        ServerConf { threads: 1, max_retries: ATTEMPTS, upstream_keepalive_pool_size: POOL, ..ServerConf::default() };
    let proxy = Proxy {
        gate: Arc::clone(&parts.gate),
        upstreams: Arc::clone(&parts.upstreams),
        metrics: parts.metrics.clone(),
        in_flight: Arc::clone(&parts.in_flight),
        tunnels: Arc::clone(&parts.tunnels),
        vigilance: parts.options.vigilance,
        dialler: Dialler::new(),
        stop,
        end,
    };
    let mut proxy = http_proxy(&Arc::new(conf), proxy);
    let mut options = HttpServerOptions::default();
    // h2c stays off (S-010). CONNECT comes through to the gate, which permits what a route of connections is for, and refuses
    // the rest as it refuses anything else (S-018, R-032). None of it is ever Pingora's to carry: `tunnel`.
    options.allow_connect_method_proxying = true;
    options.h2_idle_timeout = Some(parts.gate.snapshot().config.timeouts.idle.unwrap_or(H2_IDLE));
    proxy.server_options = Some(options);
    App::new(proxy, Arc::clone(&parts.gate))
}

/// The first, and one more if nothing was sent (03 §2).
const ATTEMPTS: usize = 2;
/// Idle upstream connections a core.
const POOL: usize = 512;
/// In which the records of what was cut are written.
const LAST_LINES: Duration = Duration::from_millis(250);
/// Where the configuration sets no bound, memory still needs one.
const H2_IDLE: Duration = Duration::from_secs(3600);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{World, config};

    #[tokio::test]
    async fn r_020_a_changed_timeout_read_holds_for_the_connections_that_come_after_it() {
        let gate = Arc::new(World::new(config(Vec::new())).await.gate);
        let metrics = Metrics::register(&prometheus::Registry::new()).unwrap();
        let door = door(None, Arc::clone(&gate), &metrics);
        assert_eq!(door.bounds().1.request, Some(Duration::from_secs(30)));
        let mut changed = config(Vec::new());
        changed.timeouts.read = None;
        gate.replace(Snapshot::new(changed, 2).unwrap());
        assert_eq!(door.bounds().1.request, None);
    }
}
