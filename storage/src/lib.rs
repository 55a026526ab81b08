//! Remembers: sessions, the tokens behind them, and which single-use values are spent.
//!
//! [`Storage::open`] gives the two faces that callers see. Authn, the one writer, holds [`Sessions`]. The edge holds a
//! [`SessionCache`]: a lock-free map in front of the store, filled by one load a session, emptied by revocations.
//! A store that does not answer is [`StorageError::Unavailable`], never "no session" (S-097, R-006).
//!
//! What is kept is sealed before any backend sees it, and filed under keyed hashes (S-081, S-082): whoever reads the file
//! learns neither a session id nor a token nor a name, and whoever writes to it cannot make a session.

mod backend;
mod cache;
mod config;
mod error;
mod invalidation;
mod metrics;
mod record;
mod sessions;
mod touch;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use postern_identity::{Keyring, Timestamp};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::warn;

use backend::{Backend, Done, Write};
use invalidation::Invalidation;
use metrics::Metrics;
use record::Seal;
use touch::Touches;

pub use cache::{CacheConfig, Cached, Entry, Loaded, SessionCache};
pub use config::StorageConfig;
pub use error::{OpenError, StorageError};
pub use sessions::{Committed, Due, Lookup, Once, SessionSummary, Sessions};

/// An open store. Cheap to clone; [`close`](Self::close) it once, at the end.
#[derive(Clone, Debug)]
pub struct Storage {
    backend: Backend,
    sessions: Sessions,
    invalidation: Arc<Invalidation>,
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
        let backend = Backend::open(config, Arc::clone(&metrics))?;
        Ok(Self::start(backend, Seal::new(keyring), metrics, runtime))
    }

    fn start(backend: Backend, seal: Seal, metrics: Arc<Metrics>, runtime: Handle) -> Self {
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let invalidation = Arc::new(Invalidation::new(Arc::clone(&metrics)));
        let (touches, seen) = Touches::new(Arc::clone(&metrics));
        tasks.spawn_on(touch::write_down(seen, backend.clone(), stop.clone()), &runtime);
        tasks.spawn_on(forget_regularly(backend.clone(), Arc::clone(&invalidation), stop.clone()), &runtime);
        let sessions = Sessions::new(
            (backend.clone(), seal),
            Arc::clone(&invalidation),
            touches,
            Arc::clone(&metrics),
            (tasks.clone(), runtime.clone()),
        );
        Self { backend, sessions, invalidation, metrics, tasks, runtime, stop }
    }

    /// The face for authn.
    #[must_use]
    pub fn sessions(&self) -> Sessions {
        self.sessions.clone()
    }

    /// The face for the edge. Each call makes a cache of its own; a process needs one.
    #[must_use]
    pub fn cache<X: Default + Send + Sync + 'static>(&self, config: CacheConfig) -> Arc<SessionCache<X>> {
        let (sessions, metrics) = (self.sessions.clone(), Arc::clone(&self.metrics));
        let cache = Arc::new(SessionCache::new(config, sessions, Arc::clone(&self.invalidation), metrics));
        let sweeping = cache::sweep_regularly(Arc::downgrade(&cache), self.stop.clone());
        self.tasks.spawn_on(sweeping, &self.runtime);
        cache
    }

    /// Whether the store answers now.
    ///
    /// # Errors
    /// [`StorageError::Unavailable`].
    pub async fn health(&self) -> Result<(), StorageError> {
        self.backend.session(&[0; 32]).await.map(drop)
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
