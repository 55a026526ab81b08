//! One process that writes sessions and several that read them, as in production, though all are in this one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use postern_identity::{IdpId, Tokens};
use postern_servers::{Cluster, Redis, Watched};
use postern_storage::{
    CacheConfig, Part, RedisConfig, Server, SessionCache, Storage, StorageConfig, StorageError, Topology,
};
use prometheus::Registry;

use crate::people::{Person, keyring, now};

/// Processes that share a store.
#[derive(Debug)]
pub(crate) struct Installation {
    pub(crate) writer: Storage,
    pub(crate) edges: Vec<Edge>,
}

/// A process that reads sessions.
#[derive(Debug)]
pub(crate) struct Edge {
    storage: Storage,
    pub(crate) cache: Arc<SessionCache>,
    metrics: Registry,
}

/// That of [`RedisConfig::new`], and what a heartbeat may add that no replica confirmed (docs/reference/sessions.md).
pub(crate) const LEASE: Duration = Duration::from_millis(2_500);
pub(crate) const UNCONFIRMED: Duration = Duration::from_millis(500);

/// A cluster as a configuration names it.
pub(crate) fn on_cluster(cluster: &Cluster) -> RedisConfig {
    RedisConfig::new(Topology::Cluster(
        cluster.members().iter().map(|member| Server::local(member.announced())).collect(),
    ))
}

/// One server as a configuration names it.
pub(crate) fn on_one(server: &Redis) -> RedisConfig {
    RedisConfig::new(Topology::Single(Server::local(server.port())))
}

/// What `docs/guides/store.md` asks of a cluster: a shard that is away is nobody else's, and a replica that comes back
/// confirms writes at once.
pub(crate) const OPTIONS: [&str; 4] = ["--cluster-require-full-coverage", "no", "--repl-diskless-sync-delay", "0"];

/// Servers under watch as a configuration names them.
pub(crate) fn on_watched(watched: &Watched) -> RedisConfig {
    let sentinels = watched.sentinels().into_iter().map(Server::local).collect();
    RedisConfig::new(Topology::Sentinel { sentinels, master: Watched::MASTER.to_owned(), credentials: None })
}

impl Installation {
    /// Starts a writer and so many edges, and waits until all of them hear of revocations.
    pub(crate) async fn start(config: &RedisConfig, edges: usize) -> Result<Self> {
        let open = |part, metrics: &Registry| {
            let config = StorageConfig::Redis(Box::new(RedisConfig { part, ..config.clone() }));
            Storage::open(config, keyring(), metrics).context("the store does not open")
        };
        let writer = open(Part::Authn, &Registry::new())?;
        let edge = |_| {
            let metrics = Registry::new();
            let storage = open(Part::Reader, &metrics)?;
            let cache = storage.cache(CacheConfig::default());
            anyhow::Ok(Edge { storage, cache, metrics })
        };
        let edges = (0..edges).map(edge).collect::<Result<Vec<_>>>()?;
        let installation = Self { writer, edges };
        installation.in_contact(PATIENCE).await?;
        Ok(installation)
    }

    /// Waits until every edge hears of revocations.
    pub(crate) async fn in_contact(&self, within: Duration) -> Result<()> {
        let began = Instant::now();
        while !self.edges.iter().all(|edge| edge.cache.is_in_contact()) {
            ensure!(began.elapsed() < within, "an edge hears nothing of revocations");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    }

    /// How often edges dropped all their copies, all edges together, because they may have missed something.
    pub(crate) fn resets(&self) -> f64 {
        let families = self.edges.iter().flat_map(|edge| edge.metrics.gather());
        let resets = families.filter(|family| family.name() == "postern_storage_cache_resets_total");
        resets.flat_map(|family| family.get_metric().to_vec()).map(|metric| metric.get_counter().get_value()).sum()
    }

    /// Signs so many people in.
    pub(crate) async fn sign_in(&self, count: usize) -> Result<Vec<Person>> {
        self.sign_in_with(count, 1, Person::tokens).await
    }

    /// The same, at that identity provider, with such tokens.
    pub(crate) async fn sign_in_at(
        &self,
        count: usize,
        idp: &IdpId,
        tokens: impl Fn(&Person) -> Tokens,
    ) -> Result<Vec<Person>> {
        let of = |number| {
            let mut person = Person::new(number)?;
            person.session.idp = idp.clone();
            Ok(person)
        };
        self.begin(count, of, tokens).await
    }

    /// Begins so many sessions, so many of each person, with such tokens.
    pub(crate) async fn sign_in_with(
        &self,
        count: usize,
        of_each: usize,
        tokens: impl Fn(&Person) -> Tokens,
    ) -> Result<Vec<Person>> {
        self.begin(count, |number| Person::new(number / of_each), tokens).await
    }

    async fn begin(
        &self,
        count: usize,
        of: impl Fn(usize) -> Result<Person>,
        tokens: impl Fn(&Person) -> Tokens,
    ) -> Result<Vec<Person>> {
        let sign_in = |number| {
            let (of, tokens) = (&of, &tokens);
            async move {
                let person = of(number)?;
                patiently(async || self.writer.sessions().create(&person.session, &tokens(&person)).await).await?;
                Ok(person)
            }
        };
        stream::iter(0..count).map(sign_in).buffer_unordered(AT_ONCE).try_collect().await
    }

    /// Has every edge read the sessions of these people.
    pub(crate) async fn know(&self, people: &[Person]) -> Result<()> {
        let all = self.edges.iter().flat_map(|edge| people.iter().map(move |person| (edge, person)));
        let read = |(edge, person): (&'_ Edge, &'_ Person)| {
            let (cache, id) = (Arc::clone(&edge.cache), person.id.clone());
            async move { patiently(async || cache.load(&id, now(), Duration::ZERO).await.map(drop)).await }
        };
        stream::iter(all).map(read).buffer_unordered(AT_ONCE).try_collect().await
    }

    pub(crate) async fn end(self) {
        for edge in &self.edges {
            edge.storage.close().await;
        }
        self.writer.close().await;
    }
}

/// Until it is done: a machine that is busy may take a while to connect, and all this may be repeated.
pub(crate) async fn patiently(act: impl AsyncFn() -> Result<(), StorageError>) -> Result<()> {
    let began = Instant::now();
    loop {
        match act().await {
            Err(error) if began.elapsed() > PATIENCE => return Err(error).context("it cannot be set up"),
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            Ok(()) => return Ok(()),
        }
    }
}

/// How long setting up may take on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(60);
/// Operations that are under way at one time while something is set up.
const AT_ONCE: usize = 32;
