//! Sends each command to the server that owns its key, and follows when ownership moves.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{info, warn};

use super::link::Broken;
use super::node::Node;
use super::slots::slot;
use super::topology::{self, Map, Redirected, Shard, View};
use super::{Command, Dial, Lane, Reply, Script};
use crate::StorageError;
use crate::config::{RedisConfig, Server, Topology};

/// The whole keyspace. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Router {
    inner: Arc<Inner>,
    _ends_with_it: Arc<DropGuard>,
}

#[derive(Debug)]
struct Inner {
    topology: Topology,
    dial: Dial,
    /// For the Sentinels, which have passwords of their own.
    ask: Dial,
    nodes: Mutex<HashMap<Server, Arc<Node>>>,
    map: ArcSwap<Map>,
    places: Semaphore,
    /// Look at the topology again, soon.
    doubt: Notify,
    /// How many replicas are to have what is durable.
    copies: u32,
    budget: Duration,
    stop: CancellationToken,
}

impl Router {
    /// Begins to connect; ends with the last clone.
    ///
    /// # Errors
    /// What is wrong with the TLS material.
    pub(crate) fn start(config: &RedisConfig) -> Result<Self, String> {
        let tls = config.tls.as_ref().map(|tls| tls.client_config().map(Arc::new)).transpose()?;
        let dial = |credentials| Dial {
            insecure: config.insecure,
            credentials,
            database: config.database,
            tls: tls.clone(),
            within: config.connect,
        };
        let whole = |server: &Server| Map::whole(Shard { master: server.clone(), replicas: Vec::new() });
        let (map, ask) = match &config.topology {
            Topology::Single(server) => (whole(server), dial(config.credentials.clone())),
            Topology::Sentinel { credentials, .. } => {
                (Map::unknown(), Dial { database: 0, ..dial(credentials.clone()) })
            }
            Topology::Cluster(_) => (Map::unknown(), dial(config.credentials.clone())),
        };
        let stop = CancellationToken::new();
        let inner = Arc::new(Inner {
            topology: config.topology.clone(),
            dial: dial(config.credentials.clone()),
            ask,
            nodes: Mutex::default(),
            map: ArcSwap::from_pointee(map),
            places: Semaphore::new(PLACES),
            doubt: Notify::new(),
            copies: config.copies,
            budget: config.operation,
            stop: stop.clone(),
        });
        if let Topology::Single(server) = &inner.topology {
            inner.node(server);
        }
        drop(tokio::spawn(watch(Arc::clone(&inner))));
        Ok(Self { inner, _ends_with_it: Arc::new(stop.drop_guard()) })
    }

    /// Runs a command about `key`.
    ///
    /// # Errors
    /// [`StorageError::Unavailable`] within the budget of one operation.
    pub(crate) async fn call(&self, key: &str, command: Command) -> Result<Reply, StorageError> {
        let only = [command];
        let replies = self.inner.run(key, Lane::Common, |_| only.to_vec()).await?;
        replies.into_iter().next().ok_or_else(|| StorageError::unavailable("the store gave no answer"))
    }

    /// The same; when it returns, as many replicas as the configuration asks for have what was written.
    ///
    /// # Errors
    /// As [`call`](Self::call), also when it was carried out but too few replicas confirmed it in time.
    pub(crate) async fn call_durably(&self, key: &str, command: Command) -> Result<Reply, StorageError> {
        let only = [command];
        let replies = self.inner.run(key, Lane::Durable, |_| only.to_vec()).await?;
        replies.into_iter().next().ok_or_else(|| StorageError::unavailable("the store gave no answer"))
    }

    /// Runs a script about keys of one slot, the first of which says which.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub(crate) async fn script(
        &self,
        script: &Script,
        keys: &[String],
        arguments: Command,
    ) -> Result<Reply, StorageError> {
        self.run_script(script, keys, arguments, Lane::Common).await
    }

    /// The same; when it returns, as many replicas as the configuration asks for have what was written.
    ///
    /// # Errors
    /// As [`call`](Self::call), also when it was carried out but too few replicas confirmed it in time.
    pub(crate) async fn script_durably(
        &self,
        script: &Script,
        keys: &[String],
        arguments: Command,
    ) -> Result<Reply, StorageError> {
        self.run_script(script, keys, arguments, Lane::Durable).await
    }

    async fn run_script(
        &self,
        script: &Script,
        keys: &[String],
        arguments: Command,
        lane: Lane,
    ) -> Result<Reply, StorageError> {
        let key = keys.first().map(String::as_str).unwrap_or_default();
        let replies = self.inner.run(key, lane, |known| vec![script.command(known, keys, &arguments)]).await?;
        replies.into_iter().next().ok_or_else(|| StorageError::unavailable("the store gave no answer"))
    }

    /// The master of the shard that `key` belongs to, as far as is known.
    pub(crate) fn owner(&self, key: &str) -> Option<Server> {
        Some(self.inner.map.load().owner(slot(key))?.master.clone())
    }

    /// Says that whoever owns something may have changed.
    pub(crate) fn doubt(&self) {
        self.inner.doubt.notify_one();
    }

    /// How to make a connection of one's own.
    pub(crate) fn dial(&self) -> &Dial {
        &self.inner.dial
    }

    /// Ends all connections.
    pub(crate) fn close(&self) {
        self.inner.stop.cancel();
        self.inner.nodes().clear();
    }
}

impl Inner {
    /// Runs what `commands` makes, told whether the server is thought to know the script, on the owner of `key`, and
    /// follows redirections and failures until the budget is spent. Everything that is run may be repeated.
    async fn run(
        &self,
        key: &str,
        lane: Lane,
        commands: impl Fn(bool) -> Vec<Command>,
    ) -> Result<Vec<Reply>, StorageError> {
        let Ok(_place) = self.places.try_acquire() else {
            return Err(StorageError::unavailable("too many wait for the store"));
        };
        let (until, slot) = (Instant::now() + self.budget, slot(key));
        let (mut known, mut asking, mut last) = (true, None::<Server>, None::<String>);
        let mut pause = PAUSE;
        loop {
            if Instant::now() >= until {
                let why = last.unwrap_or_else(|| "it took too long to answer".to_owned());
                return Err(StorageError::unavailable(why));
            }
            let map = self.map.load_full();
            let owner = map.owner(slot).cloned();
            let Some(server) = asking.clone().or_else(|| owner.as_ref().map(|shard| shard.master.clone())) else {
                last = Some("no server is known to own this part of the store".to_owned());
                self.wait(&mut pause, until).await;
                continue;
            };
            let mut all = commands(known);
            let copies = match lane {
                Lane::Common => 0,
                Lane::Durable => {
                    self.copies.min(owner.map_or(0, |shard| u32::try_from(shard.replicas.len()).unwrap_or(u32::MAX)))
                }
            };
            if copies > 0 {
                all.push(Command::new("WAIT").arg(copies).arg(WAIT_MS));
            }
            if asking.take().is_some() {
                all.insert(0, Command::new("ASKING"));
            }
            let (first, count) = (usize::from(all.first().is_some_and(|command| command.name == "ASKING")), all.len());
            let attempt = until.min(Instant::now() + ATTEMPT);
            let replies = match self.node(&server).call(lane, &all, attempt).await {
                Ok(replies) => replies,
                Err(broken) => {
                    last = Some(format!("{server}: {broken}"));
                    self.doubt.notify_one();
                    if matches!(broken, Broken::Lost(_)) {
                        self.wait(&mut pause, until).await;
                    }
                    continue;
                }
            };
            match replies.get(first).map(|reply| self.meaning(reply, &server)) {
                Some(Meaning::Answer) if copies == 0 => return Ok(replies.into_iter().skip(first).collect()),
                Some(Meaning::Answer) => {
                    let confirmed: u32 = replies.get(count - 1).and_then(Reply::number).unwrap_or(0);
                    if confirmed >= copies {
                        return Ok(replies.into_iter().skip(first).take(1).collect());
                    }
                    last = Some(format!("{server}: too few replicas have confirmed it"));
                    self.doubt.notify_one();
                }
                Some(Meaning::Unknown) => known = false,
                Some(Meaning::Moved(to)) => {
                    self.map.rcu(|map| map.moved(slot, &to));
                    self.doubt.notify_one();
                }
                Some(Meaning::Ask(to)) => asking = Some(to),
                Some(Meaning::Later(why)) => {
                    last = Some(format!("{server}: {why}"));
                    self.doubt.notify_one();
                    self.wait(&mut pause, until).await;
                }
                Some(Meaning::Refused(why)) => return Err(StorageError::unavailable(format!("{server}: {why}"))),
                None => return Err(StorageError::unavailable(format!("{server}: it gave no answer"))),
            }
        }
    }

    async fn wait(&self, pause: &mut Duration, until: Instant) {
        tokio::time::sleep_until(until.min(Instant::now() + *pause)).await;
        *pause = (*pause * 2).min(LONGEST_PAUSE);
    }

    fn meaning(&self, reply: &Reply, said_by: &Server) -> Meaning {
        let Reply::Error(error) = reply else { return Meaning::Answer };
        if let Some((kind, _, to)) = topology::redirection(error, said_by) {
            return match kind {
                Redirected::Moved => Meaning::Moved(to),
                Redirected::Ask => Meaning::Ask(to),
            };
        }
        match error.split(' ').next().unwrap_or_default() {
            "NOSCRIPT" => Meaning::Unknown,
            "CLUSTERDOWN" | "MASTERDOWN" | "TRYAGAIN" | "LOADING" | "READONLY" | "NOREPLICAS" | "BUSY"
            | "UNBLOCKED" => Meaning::Later(error.clone()),
            _ => Meaning::Refused(error.clone()),
        }
    }

    fn nodes(&self) -> std::sync::MutexGuard<'_, HashMap<Server, Arc<Node>>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn node(&self, server: &Server) -> Arc<Node> {
        let mut nodes = self.nodes();
        let node = nodes.entry(server.clone()).or_insert_with(|| Arc::new(Node::new(server.clone(), &self.dial)));
        Arc::clone(node)
    }

    /// Asks who owns what, and takes it over.
    async fn look(&self) {
        let found = match &self.topology {
            Topology::Single(server) => self.replicas_of(server).await,
            Topology::Sentinel { sentinels, master, .. } => self.ask_sentinels(sentinels, master).await,
            Topology::Cluster(seeds) => self.ask_cluster(seeds).await,
        };
        let Some(map) = found else { return };
        if *self.map.load_full() != map {
            let masters: Vec<_> = map.shards.iter().map(|shard| shard.master.to_string()).collect();
            let unowned = map.unowned();
            if unowned > 0 {
                warn!(masters = masters.join(" "), unowned, "part of the store belongs to nobody");
            } else {
                info!(masters = masters.join(" "), "who owns the parts of the store");
            }
            self.map.store(Arc::new(map));
        }
    }

    /// Asks a master for its replicas: `ROLE`.
    async fn replicas_of(&self, server: &Server) -> Option<Map> {
        let until = Instant::now() + ANSWER;
        let replies = self.node(server).call(Lane::Common, &[Command::new("ROLE")], until).await.ok()?;
        let role = replies.first()?.list()?;
        if role.first()?.text()? != "master" {
            return None;
        }
        let follower = |reply: &Reply| {
            let reply = reply.list()?;
            Some(Server { host: reply.first()?.text()?.to_owned(), port: reply.get(1)?.number()? })
        };
        let replicas = role.get(2)?.list()?.iter().filter_map(follower).collect();
        Some(Map::whole(Shard { master: server.clone(), replicas }))
    }

    /// Asks all Sentinels at once. The master that more than half of them name is the one, if it says so itself.
    async fn ask_sentinels(&self, sentinels: &[Server], master: &str) -> Option<Map> {
        let until = Instant::now() + self.ask.within;
        let mut asking = JoinSet::new();
        for sentinel in sentinels {
            let (ask, sentinel, question) = (self.ask.clone(), sentinel.clone(), topology::ask_sentinel(master));
            asking.spawn(async move {
                let link = ask.link(&sentinel).await.ok()?;
                let reply = link.call(&question, until).await.ok()?;
                link.give_up();
                topology::named_by_sentinel(&reply)
            });
        }
        let mut votes: HashMap<Server, usize> = HashMap::new();
        while let Ok(Some(vote)) = timeout_at(until, asking.join_next()).await {
            let Ok(Some(server)) = vote else { continue };
            let votes_for = votes.entry(server).or_default();
            *votes_for += 1;
            if *votes_for * 2 > sentinels.len() {
                break;
            }
        }
        // Whoever is cut off together with a former master and few Sentinels must not believe them.
        let (server, _) = votes.into_iter().find(|(_, votes)| *votes * 2 > sentinels.len())?;
        let map = self.replicas_of(&server).await?;
        self.nodes().retain(|known, _| *known == server);
        Some(map)
    }

    /// Asks all servers that are up at once, and takes what they agree on; those that no longer belong to it are let go.
    async fn ask_cluster(&self, seeds: &[Server]) -> Option<Map> {
        let until = Instant::now() + ANSWER;
        for seed in seeds {
            self.node(seed);
        }
        let nodes: Vec<_> = self.nodes().values().cloned().collect();
        let mut asking = JoinSet::new();
        for node in nodes {
            asking.spawn(async move {
                let question = [Command::new("CLUSTER").arg("NODES")];
                let replies = node.call(Lane::Common, &question, until).await.ok()?;
                Some(View::read(replies.first()?.text()?, &node.server))
            });
        }
        let mut views = Vec::new();
        while let Some(view) = asking.join_next().await {
            views.extend(view.ok().flatten());
        }
        if views.is_empty() {
            return None;
        }
        for server in views.iter().flat_map(View::servers) {
            self.node(server);
        }
        let belongs =
            |server: &Server| seeds.contains(server) || views.iter().flat_map(View::servers).any(|own| own == server);
        self.nodes().retain(|server, node| belongs(server) || node.is_up() && views.len() < 2);
        Some(Map::agreed(&views))
    }
}

/// What an answer means for the router.
enum Meaning {
    /// It is the answer.
    Answer,
    /// The script is not known there: send its text.
    Unknown,
    Moved(Server),
    Ask(Server),
    /// Not now.
    Later(String),
    /// Not at all.
    Refused(String),
}

/// Looks at the topology when there is doubt, and regularly.
async fn watch(inner: Arc<Inner>) {
    loop {
        tokio::select! {
            () = inner.stop.cancelled() => return,
            () = inner.look() => {}
        }
        let rest = if inner.map.load().shards.is_empty() { SPACING } else { LOOK_EVERY };
        tokio::select! {
            () = inner.stop.cancelled() => return,
            () = tokio::time::sleep(rest) => {}
            () = async { tokio::join!(inner.doubt.notified(), tokio::time::sleep(SPACING)); } => {}
        }
    }
}

/// Commands that may be under way at one time; more are refused at once.
const PLACES: usize = 4_096;
/// How long one server may take, before another attempt is made.
const ATTEMPT: Duration = Duration::from_millis(250);
/// How long a server waits for its replicas, in milliseconds.
const WAIT_MS: u32 = 100;
const PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(50);
const ANSWER: Duration = Duration::from_millis(300);
const SPACING: Duration = Duration::from_millis(200);
const LOOK_EVERY: Duration = Duration::from_secs(5);
