//! The life of an edge: bind, start, reload, drain. One thread, one runtime and one proxy a core; between them and the rest
//! of the process only the gate's snapshot, which is swapped, and one signal to stop.

use std::collections::BTreeMap;
use std::io;
use std::net::TcpListener;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use pingora_core::apps::{HttpServerOptions, ServerApp as _};
use pingora_core::server::configuration::ServerConf;
use pingora_proxy::http_proxy;
use tokio::runtime::{Handle, RuntimeMetrics};
use tokio::sync::{oneshot, watch};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::task::TaskTracker;

use crate::admit::Gate;
use crate::listener::{
    Accepted, Bound, CertificateError, CertificateReader, CertificateStore, CertificateWatch, Door, Handshakes,
    Inherited, Purpose, Tls, TlsAcceptor, answer_redirect, provider,
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
    /// Binds every address that none of `inherited` listens on, so that a taken port is known before anything else is begun.
    ///
    /// # Errors
    /// An address cannot be bound; the message names it.
    pub fn bind(listeners: &Listeners, inherited: &mut Inherited) -> io::Result<Bound> {
        Bound::bind(listeners, inherited)
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
        let listening = Listening::default();
        let sockets = sockets.into_iter().map(|of_core| listening.keep(of_core)).collect::<io::Result<Vec<_>>>()?;
        let begin = |(core, sockets)| Worker::begin(core, sockets, parts.clone(), (stopped.clone(), deadlines.clone()));
        let workers = sockets.into_iter().enumerate().map(begin).collect::<io::Result<Vec<_>>>()?;
        upstreams.tend(&snapshot);
        let watching = watch.clone().map(|watch| tokio::spawn(watch.run()).abort_handle());
        Ok(RunningEdge {
            workers,
            listening,
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
        claims: Handshakes::default(),
        addresses: Arc::default(),
        told: Mutex::default(),
        metrics: metrics.clone(),
    }
}

/// An edge that serves.
#[derive(Debug)]
pub struct RunningEdge {
    workers: Vec<Worker>,
    listening: Listening,
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

    /// The sockets that it listens on, once more.
    ///
    /// # Errors
    /// There are no descriptors left.
    pub fn listening(&self) -> io::Result<Vec<TcpListener>> {
        self.listening.with(|sockets| sockets.values().map(TcpListener::try_clone).collect())
    }

    /// What can be told of the runtime of each core, by the name of its thread.
    #[must_use]
    pub fn runtimes(&self) -> Vec<(String, RuntimeMetrics)> {
        let named = |(core, worker): (usize, &Worker)| (thread_name(core), worker.runtime.clone());
        self.workers.iter().enumerate().map(named).collect()
    }

    /// Stops accepting, tells the clients, and waits for what is under way, at most `bound`; then cuts. Dropping the
    /// future before it is done cuts as well.
    pub async fn drain(mut self, bound: Duration) {
        // A socket that is open would take connections that nobody serves.
        self.listening.with(BTreeMap::clear);
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

/// The sockets of all cores once more, for whoever takes this place. One that is open takes its share of new connections: it is
/// kept no longer than somebody accepts them.
#[derive(Debug, Clone, Default)]
struct Listening(Arc<Mutex<BTreeMap<usize, TcpListener>>>);

/// What a core accepts from. The copy of it goes when this goes, however the core ends.
#[derive(Debug)]
struct Socket {
    purpose: Purpose,
    listener: TcpListener,
    kept: Kept,
}

#[derive(Debug)]
struct Kept(Listening, usize);

impl Listening {
    fn with<T>(&self, act: impl FnOnce(&mut BTreeMap<usize, TcpListener>) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Copies the sockets of one core.
    fn keep(&self, of_core: Vec<(Purpose, TcpListener)>) -> io::Result<Vec<Socket>> {
        let keep = |(purpose, listener): (Purpose, TcpListener)| {
            let copy = listener.try_clone()?;
            let number = self.with(|sockets| {
                let number = sockets.len();
                sockets.insert(number, copy);
                number
            });
            Ok(Socket { purpose, listener, kept: Kept(self.clone(), number) })
        };
        of_core.into_iter().map(keep).collect()
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        drop(self.0.with(|sockets| sockets.remove(&self.1)));
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
    runtime: RuntimeMetrics,
}

fn thread_name(core: usize) -> String {
    format!("edge-{core}")
}

impl Worker {
    fn begin(core: usize, sockets: Vec<Socket>, parts: Parts, signals: Signals) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let metrics = runtime.metrics();
        let (end, ended) = oneshot::channel();
        let thread = std::thread::Builder::new().name(thread_name(core)).spawn(move || {
            if let Err(error) = runtime.block_on(serve(sockets, parts, signals)) {
                tracing::error!(%error, core, "an edge core has stopped");
            }
            // Connections that are left are cut here; a look-up that hangs in the system is left behind.
            runtime.shutdown_background();
            let _nobody_waits = end.send(());
        })?;
        Ok(Self { thread, ended, runtime: metrics })
    }

    async fn ended(self) {
        let _ended_either_way = self.ended.await;
        if self.thread.join().is_err() {
            tracing::error!("an edge core ended in a panic");
        }
    }
}

async fn serve(sockets: Vec<Socket>, parts: Parts, signals: Signals) -> io::Result<()> {
    let (mut stop, mut deadline) = signals;
    let (end, ends) = watch::channel(false);
    let app = Arc::new(app(&parts, (stop.clone(), ends)));
    let (tracker, accepting) = (TaskTracker::new(), TaskTracker::new());
    // Each core has its own: every request waits on it.
    let (tell, told) = watch::channel(false);
    for Socket { purpose, listener, kept } in sockets {
        let listener = Arc::new(tokio::net::TcpListener::from_std(listener)?);
        let core = Core { app: Arc::clone(&app), door: Arc::clone(&parts.door), tracker: tracker.clone() };
        accepting.spawn(core.accept_on(purpose, listener, told.clone(), kept));
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

#[derive(Clone)]
struct Core {
    app: Arc<App>,
    door: Arc<Door>,
    tracker: TaskTracker,
}

const AFTER_A_PANIC: Duration = Duration::from_millis(100);

impl Core {
    /// Accepts until it is told to stop. Whoever waits is not left to wait by a fault that one connection has met.
    async fn accept_on(
        self,
        purpose: Purpose,
        listener: Arc<tokio::net::TcpListener>,
        stop: watch::Receiver<bool>,
        _kept: Kept,
    ) {
        let accept = || tokio::spawn(self.clone().accept(purpose, Arc::clone(&listener), stop.clone()));
        while let Err(error) = accept().await {
            if !error.is_panic() {
                return;
            }
            tracing::error!(%error, "accepting connections ended in a panic, and begins anew");
            // If the next one fails, too, it has at least not taken the core from those who are served.
            tokio::time::sleep(AFTER_A_PANIC).await;
        }
    }

    async fn accept(self, purpose: Purpose, listener: Arc<tokio::net::TcpListener>, mut stop: watch::Receiver<bool>) {
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

    #[tokio::test]
    async fn a_core_that_ends_leaves_nobody_waiting_at_its_sockets() {
        let gate = Arc::new(World::new(config(Vec::new())).await.gate);
        let metrics = Metrics::register(&prometheus::Registry::new()).unwrap();
        let upstreams = Arc::new(Upstreams::new(&gate.snapshot().config, Handle::current(), metrics.clone()));
        let parts = Parts {
            door: Arc::new(door(None, Arc::clone(&gate), &metrics)),
            gate,
            upstreams,
            metrics,
            in_flight: Arc::default(),
            tunnels: Arc::default(),
            options: EdgeOptions::default(),
        };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        // Nothing can be accepted from a file: with it the core ends.
        let file = TcpListener::from(std::os::fd::OwnedFd::from(tempfile::tempfile().unwrap()));
        file.set_nonblocking(true).unwrap();
        let listening = Listening::default();
        let sockets = listening.keep(vec![(Purpose::Public, listener), (Purpose::Public, file)]).unwrap();
        assert_eq!(listening.with(|sockets| sockets.len()), 2);
        let (_stop, stopped) = watch::channel(false);
        let (_deadline, deadlines) = watch::channel(None);
        Worker::begin(0, sockets, parts, (stopped, deadlines)).unwrap().ended().await;
        assert_eq!(listening.with(|sockets| sockets.len()), 0);
        assert!(std::net::TcpStream::connect(address).is_err(), "nobody would ever accept it");
    }
}
