//! Configuration in, a running Postern out: the only file that sees every room.
//!
//! Order matters at both ends. Start: everything that can fail without being seen (store, addresses, snapshot) comes before the
//! first listener accepts. Drain: readiness goes false, the edge finishes what is under way, then authn, then the store.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::Duration;

use postern_authn::{Authn, AuthnError};
use postern_edge::{
    AuthnUpstream, Edge, EdgeConfig, EdgeOptions, Gate, Inherited, Metrics, PublicListener, RunningEdge, Snapshot,
    SnapshotError, StartError as EdgeError,
};
use postern_identity::Secret;
use postern_storage::{CacheConfig, OpenError, Storage};
use prometheus::{IntCounterVec, IntGauge, Opts, Registry};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::{AbortOnDropHandle, TaskTracker};
use tracing::{error, info, warn};

use crate::admin::{self, Health};
use crate::autocert::Orders;
use crate::config::{Config, Loaded, Role};
use crate::debug::{self, Process, Shown};
use crate::files;
use crate::google::Keepers;
use crate::https::HttpsError;
use crate::operator::{self, Face};
use crate::pages;
use crate::reload::Asker;
use crate::telemetry::Telemetry;
use crate::upgrade::Predecessor;
use crate::verdict::{Outcome, Verdict};

/// Why nothing runs.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The session store cannot be opened.
    #[error("the session store cannot be opened: {0}")]
    Storage(#[from] OpenError),
    /// An address of ours is taken or not ours.
    #[error("cannot listen on {what}: {source}")]
    Bind {
        /// Which listener.
        what: String,
        /// Why not.
        source: io::Error,
    },
    /// The routes contradict each other.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// Authn cannot be made.
    #[error(transparent)]
    Authn(#[from] AuthnError),
    /// The edge cannot be started.
    #[error(transparent)]
    Edge(#[from] EdgeError),
    /// The certificate that stands in for a configured one cannot be made.
    #[error("no certificate is configured, and none can be made: {0}")]
    Certificate(#[from] rcgen::Error),
    /// Servers of others cannot be asked.
    #[error(transparent)]
    Https(#[from] HttpsError),
    /// Two metrics share a name.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// The threads of the control runtime.
pub(crate) const CONTROL: &str = "control";
/// How long authn and the admin addresses may take to finish once the edge is done.
const GRACE: Duration = Duration::from_secs(2);
/// How long the store may take to write what waits, once nobody asks anything of it.
const STORE_GRACE: Duration = Duration::from_secs(5);

/// A whole Postern at work.
#[derive(Debug)]
pub struct Running {
    gate_version: u64,
    in_force: Config,
    /// So many files may be open.
    files: Option<u64>,
    edge: RunningEdge,
    authn: Option<RunningAuthn>,
    storage: Storage,
    health: Health,
    telemetry: Telemetry,
    reloads: Reloads,
    stand_in: StandIn,
    identity_tokens: Keepers,
    orders: Orders,
    shown: watch::Sender<Shown>,
    stop: DropGuard,
    tasks: TaskTracker,
    /// The sockets of health, metrics and debugging once more, and what to cancel once another process has them; nothing from then on.
    admin: Option<(Vec<std::net::TcpListener>, CancellationToken)>,
}

/// What a process finds where it starts.
#[derive(Debug)]
pub(crate) struct Place<'p> {
    /// Sockets that listen already.
    pub(crate) inherited: Inherited,
    /// Another process, which serves there until this one is able to.
    pub(crate) predecessor: Option<&'p Predecessor>,
}

/// Authn, where it is in this process.
#[derive(Debug)]
struct RunningAuthn {
    authn: Arc<Authn>,
    at: SocketAddr,
    /// What ends the refreshing of sessions, and its task.
    refreshing: (DropGuard, JoinHandle<()>),
}

impl Running {
    /// Starts everything, inside of the control runtime; who asks for a reload on the admin address is told to `askers`.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left running then.
    pub(crate) async fn start(
        mut config: Config,
        telemetry: Telemetry,
        askers: mpsc::Sender<Asker>,
        mut place: Place<'_>,
    ) -> Result<Self, StartError> {
        trim(&mut config);
        let files = files::raise();
        files::bound(files, &mut config.edge.limits.connections.connections);
        let registry = registry(config.admin.installation.as_deref())?;
        telemetry.register(&registry)?;
        let reloads = Reloads::register(&registry)?;
        let metrics = Metrics::register(&registry)?;
        register_process(&registry)?;
        let mut identity_tokens = Keepers::register(&registry)?;
        let stand_in = StandIn::make()?;
        let mut orders = Orders::register(&registry)?;
        orders.open(config.autocert.as_ref());
        orders.lend(&mut config.edge);
        // The configuration has told of it.
        let _told = stand_in.fill(&mut config.edge);
        let bound = Edge::bind(&config.edge.listeners, &mut place.inherited)
            .map_err(|source| bind("the public address", source))?;
        let admin = bind_admin(&config, &mut place.inherited).await?;
        for address in place.inherited.left() {
            warn!(%address, "a socket that was handed to this process is closed: nothing in the configuration listens there");
        }
        let storage = Storage::open(config.storage.clone(), Arc::clone(&config.edge.keyring), &registry)?;
        orders.meet_in(storage.deposits());
        let authn = match config.role {
            Role::Edge => None,
            Role::AllInOne | Role::Authn => {
                let (private, at) = loopback().await.map_err(|source| bind("a loopback port for authn", source))?;
                config.edge.authenticate.upstream = AuthnUpstream::Here(at);
                Some((private, at, Arc::new(Authn::new(config.authn.clone(), storage.sessions(), &registry)?)))
            }
        };
        let kept = storage.cache(CacheConfig { max_age: config.session_max_age, ..CacheConfig::default() });
        let gate = Arc::new(Gate::new(Snapshot::new(config.edge.clone(), 0)?, Arc::clone(&kept)));
        let health = Health::new(storage.clone());
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let ends_all = stop.clone().drop_guard();
        tasks.spawn(stop.clone().run_until_cancelled_owned(pages::large_for_many(move || kept.len())));
        let secret = config.admin.shared_secret.then(|| Arc::clone(&config.edge.keyring));
        let operators = operator::routes(Face::new(
            secret,
            storage.sessions(),
            authn.as_ref().map(|(_, _, authn)| Arc::clone(authn)),
        ));
        let local = admin::health_routes(health.clone()).merge(admin::reload_routes(askers)).merge(operators);
        if let Some(predecessor) = place.predecessor {
            // Whoever connects is served by that one until then.
            tokio::select! {
                () = health.storage_is_there() => {}
                () = predecessor.is_gone() => {}
            }
        }
        let authn = authn.map(|(private, at, authn)| {
            let (server, until) = (Arc::clone(&authn), stop.clone());
            tasks.spawn(report("authn", async move { server.serve(private, until).await }));
            let (refresher, until) = (Arc::clone(&authn), CancellationToken::new());
            let refreshing = (until.clone().drop_guard(), tokio::spawn(async move { refresher.refresh(until).await }));
            RunningAuthn { authn, at, refreshing }
        });
        identity_tokens.keep(&config.google, &config.edge)?;
        for (purpose, address) in bound.addresses() {
            info!(%address, ?purpose, "listening");
        }
        // Whatever may fail does so before the first connection is taken.
        let admin_sockets =
            admin.listening().map_err(|source| bind("the addresses of health, metrics and debugging", source))?;
        let edge = Edge::start(bound, gate, &metrics, EdgeOptions::default())?;
        let reader = edge.certificate_reader();
        orders.take_shared(&reader).await;
        orders.start(&reader);
        health.set_serving();
        let until = admin::Until { end: stop.clone(), left: CancellationToken::new() };
        let shown = watch::Sender::new(Shown::of(&config, 0, Vec::new()));
        let metrics = admin::metrics_routes(registry.clone(), config.admin.metrics_auth.clone());
        let process = |address| Process {
            address,
            shown: shown.subscribe(),
            runtimes: edge.runtimes().into_iter().chain([(CONTROL.to_owned(), Handle::current().metrics())]).collect(),
            storage: storage.clone(),
            registry: registry.clone(),
        };
        let debug = config.admin.debug.map(process).map_or_else(axum::Router::new, debug::routes);
        for (listener, routes) in admin.with_routes(local, metrics, debug) {
            tasks.spawn(report("admin", admin::serve(listener, routes, until.clone())));
        }
        reloads.started();
        warn_of_routes_refusing_nobody(&config.edge);
        Ok(Self {
            gate_version: 0,
            in_force: config,
            files,
            edge,
            authn,
            storage,
            health,
            telemetry,
            reloads,
            stand_in,
            identity_tokens,
            orders,
            shown,
            stop: ends_all,
            tasks,
            admin: Some((admin_sockets, until.left)),
        })
    }

    /// All the sockets on which others connect, for a process that takes this place.
    pub(crate) fn listening(&self) -> io::Result<Vec<std::net::TcpListener>> {
        let mut all = self.edge.listening()?;
        for socket in self.admin.iter().flat_map(|(sockets, _)| sockets) {
            all.push(socket.try_clone()?);
        }
        Ok(all)
    }

    /// Another process serves: it alone answers operators and probes from now on, and orders certificates.
    pub(crate) fn leave_to_successor(&mut self) {
        if let Some((_, left)) = self.admin.take() {
            left.cancel();
        }
        self.orders.rest();
    }

    /// The configuration in force.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.in_force
    }

    /// Puts a newly loaded configuration in force, whole; one with a fatal problem, or one that a room refuses, changes
    /// nothing. What cannot change live is named and stays as it was.
    pub fn reload(&mut self, loaded: Loaded) -> Verdict {
        let needs_restart = loaded.config.as_ref().map(|config| config.needs_restart(&self.in_force));
        let outcome = match loaded.config {
            None => Outcome::Refused,
            Some(config) if config.watched == self.in_force.watched => Outcome::Unchanged,
            Some(config) => self.apply(config).map_or_else(Outcome::Unfit, |()| Outcome::Applied),
        };
        let verdict = Verdict {
            outcome,
            version: self.gate_version,
            routes: self.in_force.edge.routes.len(),
            needs_restart: needs_restart.unwrap_or_default(),
            problems: loaded.problems.without_lines(),
        };
        // Who sees the figure finds the reasons in the log.
        verdict.log();
        self.reloads.count(&verdict);
        verdict
    }

    /// All of it, or nothing and why not.
    fn apply(&mut self, mut config: Config) -> Result<(), String> {
        let waiting = config.needs_restart(&self.in_force);
        let misses_none = matches!(config.edge.listeners.public, PublicListener::Plain { .. });
        config.keep_what_cannot_change(&self.in_force);
        trim(&mut config);
        files::bound(self.files, &mut config.edge.limits.connections.connections);
        if let Some(authn) = &self.authn {
            config.edge.authenticate.upstream = AuthnUpstream::Here(authn.at);
        }
        let serves_tls = matches!(config.edge.listeners.public, PublicListener::Tls { .. });
        // Otherwise the configuration itself has told of it.
        self.orders.lend(&mut config.edge);
        let ordered = config.autocert.is_some();
        if self.stand_in.fill(&mut config.edge) && misses_none && serves_tls && !ordered {
            warn!(
                "no certificate is configured any more: until the next start browsers are shown one that nobody vouches for"
            );
        }
        let snapshot = Snapshot::new(config.edge.clone(), self.gate_version + 1).map_err(|error| error.to_string())?;
        self.reload_authn(&config).map_err(|error| error.to_string())?;
        if let Err(error) = self.edge.reload(snapshot) {
            // Authn took the new one a moment ago: give it the old one back.
            if let Err(again) = self.reload_authn(&self.in_force) {
                error!(error = %again, "authn could not go back to the configuration before");
            }
            return Err(error.to_string());
        }
        self.orders.reload(config.autocert.as_ref(), &self.edge.certificate_reader());
        if let Err(error) = self.identity_tokens.keep(&config.google, &config.edge) {
            // The same authorities have just been taken for upstreams.
            error!(%error, "identity tokens for serverless upstreams are not fetched any more");
        }
        self.gate_version += 1;
        self.telemetry.set_levels(config.logs);
        self.shown.send_replace(Shown::of(&config, self.gate_version, waiting));
        warn_of_routes_refusing_nobody(&config.edge);
        self.in_force = config;
        Ok(())
    }

    fn reload_authn(&self, config: &Config) -> Result<(), AuthnError> {
        self.authn.as_ref().map_or(Ok(()), |running| running.authn.reload(config.authn.clone()))
    }

    /// Ends everything in order: no new work, what is under way within the bound of the configuration, then the rest. Each
    /// step is cut at its bound, whatever hangs: 2 s for authn and admin and 5 s for the store after the first is the latest end.
    pub async fn drain(self) {
        // A probe that is still answered here asks about the place, and that is served.
        if self.admin.is_some() {
            self.health.set_draining();
        }
        // What is being ordered is another process's turn as long as there is a store to say so.
        drop(self.orders);
        let bound = self.in_force.edge.timeouts.drain;
        let still = self.authn.as_ref().map(|running| Arc::clone(&running.authn));
        let authn = async {
            let Some(RunningAuthn { authn, refreshing: (stop, refreshing), .. }) = self.authn else { return };
            drop(stop);
            let taking_back = tokio::spawn(async move { authn.finish().await });
            tokio::join!(
                // A provider may just have replaced a refresh token, and to lose it signs somebody out: what was begun is saved.
                within(bound, "the refreshing of sessions", refreshing),
                within(bound, "taking tokens of ended sessions back", taking_back),
            );
        };
        tokio::join!(authn, self.edge.drain(bound));
        drop((self.stop, self.admin));
        self.tasks.close();
        let others = tokio::spawn(async move {
            self.tasks.wait().await;
            // Sign-outs and operators may have ended sessions until now.
            if let Some(authn) = still {
                authn.finish().await;
            }
        });
        within(GRACE, "authn or admin", others).await;
        let storage = self.storage;
        within(STORE_GRACE, "the store", tokio::spawn(async move { storage.close().await })).await;
        info!("ended");
    }
}

/// Leaves what this process serves: where a route is written is told of before, and never after; and authn's process carries
/// nothing to applications, although it knows their hosts.
fn trim(config: &mut Config) {
    config.places = Vec::new();
    if config.role == Role::Authn {
        config.edge.routes = Vec::new();
    }
}

/// Waits for a task to end, at most for so long; then cuts it, and says so.
async fn within(bound: Duration, what: &'static str, task: JoinHandle<()>) {
    match tokio::time::timeout(bound, AbortOnDropHandle::new(task)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => error!(%error, what, "it ended in a panic"),
        Err(_) => warn!(what, "it did not finish in time and was cut"),
    }
}

/// So many routes are named in one line of the log at most.
const NAMED: usize = 100;

/// Where all rules are only tried out, somebody has to know as long as that holds. Routes that are public say so themselves.
fn warn_of_routes_refusing_nobody(edge: &EdgeConfig) {
    let open = || edge.routes.iter().filter(|route| route.policy.is_tried_out());
    let count = open().count();
    if count > 0 {
        let names: serde_json::Value = open().take(NAMED).map(|route| route.name.as_str()).collect();
        warn!(count, "routes-refusing-nobody" = %names, "routes refuse nobody who is signed in: all of their rules have `enforce: false`");
    }
}

fn bind(what: &str, source: io::Error) -> StartError {
    StartError::Bind { what: what.to_owned(), source }
}

async fn loopback() -> io::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

/// Where operators ask.
#[derive(Debug)]
struct AdminSockets {
    health: TcpListener,
    metrics: Option<TcpListener>,
    debug: Option<TcpListener>,
}

async fn bind_admin(config: &Config, inherited: &mut Inherited) -> Result<AdminSockets, StartError> {
    let health = listen(config.admin.health, "health (health_check_addr)", inherited).await?;
    let metrics = match config.admin.metrics {
        Some(address) => Some(listen(address, "metrics (metrics_address)", inherited).await?),
        None => None,
    };
    let debug = match config.admin.debug {
        Some(address) => Some(listen(address, "debugging (debug_address)", inherited).await?),
        None => None,
    };
    Ok(AdminSockets { health, metrics, debug })
}

impl AdminSockets {
    fn listening(&self) -> io::Result<Vec<std::net::TcpListener>> {
        let again = |listener: &TcpListener| listener.as_fd().try_clone_to_owned().map(Into::into);
        [Some(&self.health), self.metrics.as_ref(), self.debug.as_ref()].into_iter().flatten().map(again).collect()
    }

    fn with_routes(
        self,
        local: axum::Router,
        metrics: axum::Router,
        debug: axum::Router,
    ) -> impl Iterator<Item = (TcpListener, axum::Router)> {
        let all = [(Some(self.health), local), (self.metrics, metrics), (self.debug, debug)];
        all.into_iter().filter_map(|(listener, routes)| Some((listener?, routes)))
    }
}

async fn listen(address: SocketAddr, what: &str, inherited: &mut Inherited) -> Result<TcpListener, StartError> {
    let failed = |source| bind(&format!("{address} for {what}"), source);
    match inherited.take(address).map_err(failed)?.pop() {
        Some(socket) => TcpListener::from_std(socket).map_err(failed),
        None => TcpListener::bind(address).await.map_err(failed),
    }
}

/// The registry of all metrics, which carry the label of the installation if it has one.
fn registry(installation: Option<&str>) -> Result<Registry, prometheus::Error> {
    let labels = installation.map(|name| HashMap::from([("installation_id".to_owned(), name.to_owned())]));
    Registry::new_custom(None, labels)
}

async fn report(what: &'static str, served: impl Future<Output = io::Result<()>>) {
    if let Err(error) = served.await {
        error!(%error, what, "a server of this process has ended");
    }
}

/// The self-signed certificate that is served where none is configured (01 §1.5): for every name, for the life of this process.
#[derive(Debug)]
struct StandIn {
    certificate: Vec<u8>,
    key: Secret<Vec<u8>>,
}

impl StandIn {
    fn make() -> Result<Self, rcgen::Error> {
        let made = rcgen::generate_simple_self_signed(["*".to_owned()])?;
        Ok(Self {
            certificate: made.cert.pem().into_bytes(),
            key: Secret::new(made.signing_key.serialize_pem().into_bytes()),
        })
    }

    /// Steps in where there is none; gives whether it did.
    fn fill(&self, edge: &mut EdgeConfig) -> bool {
        let certificates = &mut edge.certificates;
        let none = [certificates.inline.is_empty(), certificates.files.is_empty(), certificates.last.is_empty()];
        let none = none.into_iter().all(|empty| empty);
        if none {
            certificates.last.push((self.certificate.clone(), self.key.clone()));
        }
        none
    }
}

/// What became of loading the configuration.
#[derive(Debug)]
struct Reloads {
    total: IntCounterVec,
    last: IntGauge,
}

impl Reloads {
    fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let opts = Opts::new("postern_config_reloads_total", "Configurations loaded, the first included, by outcome.");
        let reloads = Self {
            total: IntCounterVec::new(opts, &["outcome"])?,
            last: IntGauge::new(
                "postern_config_last_reload_success",
                "1 if what the last load found is in force, else 0.",
            )?,
        };
        registry.register(Box::new(reloads.total.clone()))?;
        registry.register(Box::new(reloads.last.clone()))?;
        Ok(reloads)
    }

    /// The configuration of the start is in force.
    fn started(&self) {
        self.total.with_label_values(&["applied"]).inc();
        self.last.set(1);
    }

    fn count(&self, verdict: &Verdict) {
        self.total.with_label_values(&[verdict.word()]).inc();
        self.last.set(i64::from(verdict.is_good()));
    }
}

/// CPU, memory and descriptors of this process, and what was built.
fn register_process(registry: &Registry) -> Result<(), prometheus::Error> {
    let opts =
        Opts::new("postern_build", "1; the labels say what runs.").const_label("version", env!("CARGO_PKG_VERSION"));
    let build = IntGauge::with_opts(opts)?;
    build.set(1);
    registry.register(Box::new(build))?;
    registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn r_017_what_hangs_at_the_end_is_cut_at_its_bound() {
        let held = Arc::new(());
        let hangs = Arc::clone(&held);
        let task = tokio::spawn(async move {
            std::future::pending::<()>().await;
            drop(hangs);
        });
        let waited = within(Duration::from_millis(20), "a task", task);
        tokio::time::timeout(Duration::from_secs(10), waited).await.expect("it is cut");
        while Arc::strong_count(&held) > 1 {
            tokio::task::yield_now().await;
        }
    }
}
