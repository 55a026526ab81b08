//! Remembers: sessions, the tokens behind them, and which single-use values are spent.
//!
//! [`Storage::open`] gives the two faces that callers see. Authn, the one writer, holds [`Sessions`]. The edge holds a
//! [`SessionCache`]: copies in front of the store that are looked at without a lock, filled by one load a session, emptied by revocations.
//! Processes that share a store leave other things there for each other by way of [`Deposits`].
//! A store that does not answer is [`StorageError::Unavailable`], never "no session" (S-097, R-006).
//!
//! What is kept is sealed before any backend sees it, and filed under keyed hashes (S-081, S-082): whoever reads the file
//! learns neither a session id nor a token nor a name, and whoever writes to it cannot make a session.

mod backend;
mod cache;
mod changelog;
mod check;
mod config;
mod contact;
mod deposits;
mod error;
mod invalidation;
mod mark;
mod metrics;
mod record;
mod redis;
mod sessions;
mod touch;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use postern_identity::{Keyring, Timestamp};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::warn;

pub use backend::Place;
use backend::{Backend, Done, Write};
use changelog::{Repair, Tail};
use contact::Contact;
use invalidation::Invalidation;
use metrics::Metrics;
use record::Seal;
use touch::Touches;

pub use cache::{CacheConfig, Cached, Entry, LONGEST_WINDOW, Loaded, SessionCache};
pub use check::{Finding, Level, Report, check};
pub use config::{Credentials, Part, RedisConfig, RedisTls, Server, StorageConfig, Topology};
pub use contact::Moment;
pub use deposits::{Claim, Deposit, Deposits, Look, Version};
pub use error::{OpenError, StorageError};
pub use sessions::{Committed, Due, Leftovers, Lookup, Once, Page, SessionSummary, Sessions};

/// An open store. Cheap to clone; [`close`](Self::close) it once, at the end.
#[derive(Clone, Debug)]
pub struct Storage {
    backend: Backend,
    seal: Seal,
    sessions: Sessions,
    invalidation: Arc<Invalidation>,
    contact: Arc<Contact>,
    metrics: Arc<Metrics>,
    tasks: TaskTracker,
    runtime: Handle,
    stop: CancellationToken,
}

impl Storage {
    /// Opens the store, inside of the runtime that is to do its background work. Registers its metrics in `registry`.
    ///
    /// # Errors
    /// [`OpenError`], which says what the operator can do.
    pub fn open(
        config: StorageConfig,
        keyring: Arc<Keyring>,
        registry: &prometheus::Registry,
    ) -> Result<Self, OpenError> {
        let runtime = Handle::try_current().map_err(|_| OpenError::NoRuntime)?;
        let metrics = Arc::new(Metrics::register(registry, config.name())?);
        let listens = match &config {
            StorageConfig::Memory | StorageConfig::File { .. } => None,
            StorageConfig::Redis(redis) => Some((redis.lease, redis.heartbeat, redis.part)),
        };
        let contact = Arc::new(listens.map_or_else(Contact::own, |(lease, ..)| Contact::leased(lease)));
        let backend = Backend::open(config, &contact, Arc::clone(&metrics))?;
        let storage = Self::start(backend, contact, Seal::new(keyring), metrics, runtime);
        if let Some((_, heartbeat, part)) = listens {
            metrics::watch(registry, &storage.contact)?;
            storage.listen(heartbeat, part);
        }
        Ok(storage)
    }

    fn start(backend: Backend, contact: Arc<Contact>, seal: Seal, metrics: Arc<Metrics>, runtime: Handle) -> Self {
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let invalidation = Arc::new(Invalidation::new(Arc::clone(&metrics)));
        let (touches, seen) = Touches::new(Arc::clone(&metrics));
        tasks.spawn_on(touch::write_down(seen, backend.clone(), stop.clone()), &runtime);
        tasks.spawn_on(forget_regularly(backend.clone(), Arc::clone(&invalidation), stop.clone()), &runtime);
        let sessions = Sessions::new(
            (backend.clone(), seal.clone()),
            Arc::clone(&invalidation),
            touches,
            Arc::clone(&metrics),
            (tasks.clone(), runtime.clone()),
        );
        Self { backend, seal, sessions, invalidation, contact, metrics, tasks, runtime, stop }
    }

    /// Hears what other processes do to sessions, and does its part.
    fn listen(&self, heartbeat: Duration, part: Part) {
        let Some(shared) = self.backend.shared() else { return };
        let log = shared.log().clone();
        let (metrics, stop) = (Arc::clone(&self.metrics), self.stop.clone());
        if part != Part::Reader {
            let beat = changelog::beat(log.clone(), heartbeat, Arc::clone(&metrics), stop.clone());
            self.tasks.spawn_on(beat, &self.runtime);
        }
        let repair = (part == Part::Authn).then(|| {
            let (repair, work) = Repair::start(Arc::clone(shared), metrics, stop);
            self.tasks.spawn_on(work, &self.runtime);
            repair
        });
        let (hears, knows) = (Arc::clone(shared), Arc::clone(shared));
        let repair = move |fact| {
            if let Some(repair) = &repair {
                repair.later(fact);
            }
        };
        let tail = Tail {
            log,
            invalidation: Arc::clone(&self.invalidation),
            contact: Arc::clone(&self.contact),
            metrics: Arc::clone(&self.metrics),
            also: Box::new(move |fact| hears.heard(fact)),
            repair: Box::new(repair),
            everyone: Box::new(move |not_before| knows.knows(not_before)),
        };
        self.tasks.spawn_on(changelog::follow(tail, self.stop.clone()), &self.runtime);
    }

    /// The face for authn.
    #[must_use]
    pub fn sessions(&self) -> Sessions {
        self.sessions.clone()
    }

    /// The face for what processes leave for each other; none where no other process shares the store.
    #[must_use]
    pub fn deposits(&self) -> Option<Deposits> {
        let deposits = || Deposits::new(self.backend.clone(), self.seal.clone(), Arc::clone(&self.metrics));
        self.backend.shared().map(|_| deposits())
    }

    /// The face for the edge. Each call makes a cache of its own; a process needs one.
    #[must_use]
    pub fn cache<X: Default + Send + Sync + 'static>(&self, config: CacheConfig) -> Arc<SessionCache<X>> {
        let (sessions, metrics) = (self.sessions.clone(), Arc::clone(&self.metrics));
        let heard = (Arc::clone(&self.invalidation), Arc::clone(&self.contact));
        let cache = Arc::new(SessionCache::new(config, sessions, heard, metrics));
        let sweeping = cache::sweep_regularly(Arc::downgrade(&cache), self.stop.clone());
        self.tasks.spawn_on(sweeping, &self.runtime);
        cache
    }

    /// Whether the store answers now. One that is shared has to have been heard of once: an edge that lost it later goes on
    /// with public routes, and with what it knows for as long as that may be served.
    ///
    /// # Errors
    /// [`StorageError::Unavailable`].
    pub async fn health(&self) -> Result<(), StorageError> {
        match self.contact.lost_for() {
            Some(Duration::MAX) => Err(StorageError::unavailable("nothing has been heard of it yet")),
            _ if self.backend.shared().is_some() && !self.backend.is_closed() => Ok(()),
            Some(_) | None => self.backend.session(&[0; 32]).await.map(drop),
        }
    }

    /// Finishes what was begun, writes what waits, and lets go of the file; the store then answers `Unavailable`.
    pub async fn close(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        self.backend.close().await;
    }
}

/// Forgets what has ended, a little at a time.
async fn forget_regularly(backend: Backend, invalidation: Arc<Invalidation>, stop: CancellationToken) {
    loop {
        invalidation.sweep(Instant::now());
        let before = clock().minus(KEPT_AFTER_THE_END).as_millis();
        let pause = match backend.write(Write::Sweep { before, limit: SWEPT_AT_ONCE }).await {
            Ok(Done::Swept(SWEPT_AT_ONCE)) => Duration::from_millis(20),
            Ok(_) => SWEEP_EVERY,
            Err(error) => {
                warn!(%error, "what has ended could not be removed from the store");
                SWEEP_EVERY
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// The time for background work. Whatever answers a request is told the time by its caller.
fn clock() -> Timestamp {
    SystemTime::now().into()
}

const SWEEP_EVERY: Duration = Duration::from_secs(10);
/// Small enough that sign-ins do not notice.
const SWEPT_AT_ONCE: usize = 500;
/// Clocks of replicas may differ by as much.
const KEPT_AFTER_THE_END: Duration = Duration::from_secs(60);
