//! Configuration in, a running Postern out: the only file that sees every room.
//!
//! Order matters at both ends. Start: everything that can fail without being seen (store, addresses, snapshot) comes before the
//! first listener accepts. Drain: readiness goes false, the edge finishes what is under way, then authn, then the store.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use postern_authn::{Authn, AuthnError};
use postern_edge::{
    AuthnUpstream, Edge, EdgeConfig, EdgeOptions, Gate, Metrics, PublicListener, RunningEdge, Snapshot, SnapshotError,
    StartError as EdgeError,
};
use postern_identity::Secret;
use postern_storage::{CacheConfig, OpenError, Storage};
use prometheus::{IntCounterVec, IntGauge, Opts, Registry};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::{AbortOnDropHandle, TaskTracker};
use tracing::{error, info, warn};

use crate::admin::{self, Health};
use crate::autocert::Orders;
use crate::config::{Config, Loaded, Role};
use crate::google::Keepers;
use crate::https::HttpsError;
use crate::operator::{self, Face};
use crate::reload::Asker;
use crate::telemetry::Telemetry;
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

/// How long authn and the admin addresses may take to finish once the edge is done.
const GRACE: Duration = Duration::from_secs(2);
/// How long the store may take to write what waits, once nobody asks anything of it.
const STORE_GRACE: Duration = Duration::from_secs(5);

/// A whole Postern at work.
#[derive(Debug)]
pub struct Running {
    gate_version: u64,
    in_force: Config,
    edge: RunningEdge,
    authn: Option<RunningAuthn>,
    storage: Storage,
    health: Health,
    telemetry: Telemetry,
    reloads: Reloads,
    stand_in: StandIn,
    identity_tokens: Keepers,
    orders: Orders,
    stop: DropGuard,
    tasks: TaskTracker,
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
    pub async fn start(
        mut config: Config,
        telemetry: Telemetry,
        askers: mpsc::Sender<Asker>,
    ) -> Result<Self, StartError> {
        trim(&mut config);
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
        let bound = Edge::bind(&config.edge.listeners).map_err(|source| bind("the public address", source))?;
        let storage = Storage::open(config.storage.clone(), Arc::clone(&config.edge.keyring), &registry)?;
        let authn = match config.role {
            Role::Edge => None,
            Role::AllInOne | Role::Authn => {
                let (private, at) = listen((Ipv4Addr::LOCALHOST, 0).into(), "a loopback port for authn").await?;
                config.edge.authenticate.upstream = AuthnUpstream::Here(at);
                Some((private, at, Arc::new(Authn::new(config.authn.clone(), storage.sessions(), &registry)?)))
            }
        };
        let gate = Arc::new(Gate::new(
            Snapshot::new(config.edge.clone(), 0)?,
            storage.cache(CacheConfig { max_age: config.session_max_age, ..CacheConfig::default() }),
        ));
        let health = Health::new(storage.clone());
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let ends_all = stop.clone().drop_guard();
        let secret = config.admin.shared_secret.then(|| Arc::clone(&config.edge.keyring));
        let operators = operator::routes(Face::new(
            secret,
            storage.sessions(),
            authn.as_ref().map(|(_, _, authn)| Arc::clone(authn)),
        ));
        let local = admin::health_routes(health.clone()).merge(admin::reload_routes(askers)).merge(operators);
        for (listener, routes) in admin_routes(&config, registry, local).await? {
            tasks.spawn(report("admin", admin::serve(listener, routes, stop.clone())));
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
        let edge = Edge::start(bound, gate, &metrics, EdgeOptions::default())?;
        orders.start(&edge.certificate_reader());
        health.set_serving();
        reloads.started();
        warn_of_routes_refusing_nobody(&config.edge);
        Ok(Self {
            gate_version: 0,
            in_force: config,
            edge,
            authn,
            storage,
            health,
            telemetry,
            reloads,
            stand_in,
            identity_tokens,
            orders,
            stop: ends_all,
            tasks,
        })
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
        self.reloads.count(&verdict);
        verdict.log();
        verdict
    }

    /// All of it, or nothing and why not.
    fn apply(&mut self, mut config: Config) -> Result<(), String> {
        let misses_none = matches!(config.edge.listeners.public, PublicListener::Plain { .. });
        config.keep_what_cannot_change(&self.in_force);
        trim(&mut config);
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
        self.health.set_draining();
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
        drop(self.stop);
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

async fn listen(address: SocketAddr, what: &str) -> Result<(TcpListener, SocketAddr), StartError> {
    let failed = |source| bind(&format!("{address} for {what}"), source);
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let address = listener.local_addr().map_err(|source| bind(what, source))?;
    Ok((listener, address))
}

async fn admin_routes(
    config: &Config,
    registry: Registry,
    local: axum::Router,
) -> Result<Vec<(TcpListener, axum::Router)>, StartError> {
    let (listener, _) = listen(config.admin.health, "health (health_check_addr)").await?;
    let mut served = vec![(listener, local)];
    if let Some(address) = config.admin.metrics {
        let (listener, _) = listen(address, "metrics (metrics_address)").await?;
        served.push((listener, admin::metrics_routes(registry, config.admin.metrics_auth.clone())));
    }
    Ok(served)
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
