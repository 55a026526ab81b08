//! Sends each command to the server that owns its key, and follows when ownership moves.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use prometheus::IntGauge;
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{error, info, warn};

use super::expected::{Demand, Expected, HELD, Watched};
use super::link::{Broken, Mode};
use super::node::Node;
use super::seldom::Seldom;
use super::slots::slot;
use super::topology::{self, Map, Redirected, Shard, View};
use super::{Command, Dial, Reply, Script};
use crate::StorageError;
use crate::config::{RedisConfig, Server, Topology};
use crate::metrics::Metrics;

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
    /// Told whenever the map becomes another one.
    changed: Notify,
    places: Places,
    /// Look at the topology again, soon.
    doubt: Notify,
    /// How many replicas are to have what is durable.
    copies: u32,
    told: Told,
    metrics: Arc<Metrics>,
    budget: Duration,
    stop: CancellationToken,
}

impl Router {
    /// Begins to connect; ends with the last clone.
    ///
    /// # Errors
    /// What is wrong with the TLS material.
    pub(crate) fn start(config: &RedisConfig, metrics: Arc<Metrics>) -> Result<Self, String> {
        let tls = config.tls.as_ref().map(|tls| tls.client_config().map(Arc::new)).transpose()?;
        let expects = if matches!(config.topology, Topology::Cluster(_)) { Mode::Member } else { Mode::Alone };
        let dial = |credentials| Dial {
            expects,
            insecure: config.insecure,
            credentials,
            database: config.database,
            tls: tls.clone(),
            within: config.connect,
        };
        let whole = |server: &Server| Map::whole(Shard::of(server.clone()));
        let (map, ask) = match &config.topology {
            Topology::Single(server) => (whole(server), dial(config.credentials.clone())),
            Topology::Sentinel { credentials, .. } => {
                (Map::unknown(), Dial { database: 0, expects: Mode::Sentinel, ..dial(credentials.clone()) })
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
            changed: Notify::new(),
            places: Places::default(),
            doubt: Notify::new(),
            copies: config.copies,
            told: Told::default(),
            metrics,
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
        self.inner.run(key, Lane::Common, |_| command.clone()).await
    }

    /// The same, for a sign of life: loads take no place away from it, and no replica is waited for.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub(crate) async fn call_as_a_sign(&self, key: &str, command: Command) -> Result<Reply, StorageError> {
        self.inner.run(key, Lane::Sign, |_| command.clone()).await
    }

    /// The same; when it returns, as many replicas as the configuration asks for have what was written.
    ///
    /// # Errors
    /// As [`call`](Self::call), also when it was carried out but too few replicas confirmed it in time.
    pub(crate) async fn call_durably(&self, key: &str, command: Command) -> Result<Reply, StorageError> {
        self.inner.run(key, Lane::Durable, |_| command.clone()).await
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
        self.inner.run(key, lane, |known| script.command(known, keys, &arguments)).await
    }

    /// Every master, in the order of their addresses; `None` while some part of the store belongs to nobody.
    pub(crate) fn masters(&self) -> Option<Vec<Server>> {
        let map = self.inner.map.load();
        let mut masters: Vec<_> = map.shards.iter().map(|shard| shard.master.clone()).collect();
        masters.sort_unstable();
        (map.unowned() == 0).then_some(masters)
    }

    /// Runs a command that is about no key, on that server.
    ///
    /// # Errors
    /// [`StorageError::Unavailable`] within the budget of one operation.
    pub(crate) async fn call_on(&self, server: &Server, command: Command) -> Result<Reply, StorageError> {
        let unavailable = |why: String| StorageError::unavailable(format!("{server}: {why}"));
        let until = Instant::now() + self.inner.budget;
        let replies = self.inner.node(server).call(&[command], until).await;
        match replies.map_err(|broken| unavailable(broken.to_string()))?.pop() {
            Some(Reply::Error(error)) => Err(unavailable(error)),
            Some(reply) => Ok(reply),
            None => Err(unavailable("it gave no answer".to_owned())),
        }
    }

    /// The master of the shard that `key` belongs to, as far as is known.
    pub(crate) fn owner(&self, key: &str) -> Option<Server> {
        Some(self.inner.map.load().owner(slot(key))?.master.clone())
    }

    /// Ends once that holds of what is known of the servers.
    pub(crate) async fn until(&self, holds: impl Fn(&Self) -> bool) {
        loop {
            // It hears of every change from here on.
            let changed = self.inner.changed.notified();
            if holds(self) {
                return;
            }
            changed.await;
        }
    }

    /// Whether there is a connection to that master now. One that hangs loses its own within a second.
    pub(crate) fn is_reached(&self, key: &str) -> bool {
        self.owner(key).is_some_and(|owner| self.inner.nodes().get(&owner).is_some_and(|node| node.is_up()))
    }

    /// The replicas of that shard, if that is known.
    pub(crate) fn replicas(&self, key: &str) -> Option<Vec<Server>> {
        self.inner.map.load().owner(slot(key))?.replicas.clone()
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

#[cfg(test)]
impl Router {
    /// Says who owns everything, and which replicas that one has; nobody looks any more whether that is so.
    pub(crate) fn know(&self, owner: Option<(&Server, &[Server])>) {
        self.close();
        let shard = |(master, replicas): (&Server, &[Server])| Shard {
            replicas: Some(replicas.to_vec()),
            ..Shard::of(master.clone())
        };
        self.inner.map.store(Arc::new(owner.map_or_else(Map::unknown, |owner| Map::whole(shard(owner)))));
        self.inner.changed.notify_waiters();
    }

    /// Takes places away, for as long as they are held.
    pub(super) fn take_places(&self, lane: Lane, count: usize) -> tokio::sync::SemaphorePermit<'_> {
        self.inner.places.of(lane).try_acquire_many(u32::try_from(count).unwrap()).unwrap()
    }
}

impl Inner {
    /// Runs what `command` makes, told whether the server is thought to know the script, on the owner of `key`, and
    /// follows redirections and failures until the budget is spent. Everything that is run may be repeated.
    async fn run(&self, key: &str, lane: Lane, command: impl Fn(bool) -> Command) -> Result<Reply, StorageError> {
        let counted = match lane {
            Lane::Common => &self.metrics.common,
            Lane::Sign | Lane::Durable => &self.metrics.durable,
        };
        let Ok(_place) = self.places.of(lane).try_acquire() else {
            counted.refused.inc();
            return Err(StorageError::unavailable("too many wait for the store"));
        };
        let _in_flight = InFlight::of(&counted.in_flight);
        let (until, slot) = (Instant::now() + self.budget, slot(key));
        let (mut known, mut asking, mut last) = (true, None::<Server>, None::<String>);
        let (mut pause, mut hops) = (PAUSE, 0_u32);
        loop {
            if Instant::now() >= until {
                let why = last.unwrap_or_else(|| "it took too long to answer".to_owned());
                return Err(StorageError::unavailable(why));
            }
            let asked = asking.take();
            let shard = {
                let map = self.map.load();
                asked.as_ref().map(|server| map.shard(server)).or_else(|| map.owner(slot).cloned())
            };
            let Some(shard) = shard else {
                last = Some(self.unowned());
                self.doubt.notify_one();
                self.wait(&mut pause, until).await;
                continue;
            };
            let server = &shard.master;
            let copies = match lane {
                Lane::Common | Lane::Sign => Some(0),
                Lane::Durable => shard.copies(self.copies),
            };
            let Some(copies) = copies else {
                last = Some(format!("{server}: which replicas it has is not known yet"));
                self.doubt.notify_one();
                self.wait(&mut pause, until).await;
                continue;
            };
            let ask = asked.is_some().then(|| Command::new("ASKING"));
            let all: Vec<_> = ask.into_iter().chain([command(known)]).collect();
            let node = self.node(server);
            let replies = match lane {
                Lane::Common | Lane::Sign => node.call(&all, until.min(Instant::now() + ATTEMPT)).await,
                Lane::Durable => node.call_durably(all, copies, until).await,
            };
            let replies = match replies {
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
            let mut replies = replies.into_iter().skip(usize::from(asked.is_some()));
            let meaning = replies.next().map(|reply| meaning(reply, server));
            let meaning = match (meaning, replies.next()) {
                (Some(Meaning::Answer(reply)), Some(confirmed)) => self.confirmed(reply, confirmed, copies, server),
                (Some(meaning), _) => meaning,
                (None, _) => Meaning::Refused("it gave no answer".to_owned()),
            };
            match meaning {
                Meaning::Answer(reply) => return Ok(reply),
                Meaning::Unknown => known = false,
                Meaning::Moved(to) => {
                    last = Some(format!("{server}: it sends on to {to}"));
                    if self.map.load().owner(slot).is_none_or(|owner| owner.master != to) {
                        self.map.rcu(|map| map.moved(slot, &to));
                        self.changed.notify_waiters();
                    }
                    self.doubt.notify_one();
                    self.hop(&mut hops, &mut pause, until).await;
                }
                Meaning::Ask(to) => {
                    last = Some(format!("{server}: it sends on to {to}"));
                    asking = Some(to);
                    self.hop(&mut hops, &mut pause, until).await;
                }
                Meaning::Later(why) => {
                    last = Some(format!("{server}: {why}"));
                    self.doubt.notify_one();
                    self.wait(&mut pause, until).await;
                }
                Meaning::Refused(why) => return Err(StorageError::unavailable(format!("{server}: {why}"))),
            }
        }
    }

    /// What an answer means once `WAIT` has said how many replicas have it.
    fn confirmed(&self, reply: Reply, confirmed: Reply, copies: u32, server: &Server) -> Meaning {
        match meaning(confirmed, server) {
            Meaning::Answer(number) if number.number().is_some_and(|have: u32| have >= copies) => {
                Meaning::Answer(reply)
            }
            Meaning::Answer(_) => {
                self.metrics.unconfirmed.inc();
                Meaning::Later("too few replicas have confirmed it".to_owned())
            }
            Meaning::Later(why) => Meaning::Later(why),
            Meaning::Refused(why) => {
                self.metrics.wait_refused.inc();
                if self.told.wait.is_due() {
                    error!(
                        %server, why,
                        "the store does not say whether replicas have what must not be lost, so nobody can sign in or out: \
                         allow `WAIT` to the user of the store (`+wait`), or set `databroker_storage_copies: 0` to do without"
                    );
                }
                Meaning::Refused(format!("it refuses WAIT, so whether replicas have it is not known: {why}"))
            }
            Meaning::Unknown | Meaning::Moved(_) | Meaning::Ask(_) => {
                Meaning::Refused("it answers WAIT with nonsense".to_owned())
            }
        }
    }

    /// The first redirection is followed at once; two servers may send to each other for as long as they disagree.
    async fn hop(&self, hops: &mut u32, pause: &mut Duration, until: Instant) {
        if *hops > 0 {
            self.wait(pause, until).await;
        }
        *hops = hops.saturating_add(1);
    }

    /// Why nobody is known to own something.
    fn unowned(&self) -> String {
        let trouble = self.nodes().values().find_map(|node| Some(format!(" ({}: {})", node.server, node.trouble()?)));
        format!("no server is known to own this part of the store{}", trouble.unwrap_or_default())
    }

    async fn wait(&self, pause: &mut Duration, until: Instant) {
        tokio::time::sleep_until(until.min(Instant::now() + *pause)).await;
        *pause = (*pause * 2).min(LONGEST_PAUSE);
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
    async fn look(&self, expected: &mut Expected) {
        let found = match &self.topology {
            Topology::Single(server) => self.ask_master(server, None, expected).await,
            Topology::Sentinel { sentinels, master, .. } => self.ask_sentinels(sentinels, master, expected).await,
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
            self.metrics.topology_changes.inc();
            let former = self.map.swap(Arc::new(map));
            self.changed.notify_waiters();
            self.leave(&former);
        }
    }

    /// Ends the connections to masters that are none any more: what waits for one that hangs is asked of its successor at once.
    fn leave(&self, former: &Map) {
        let map = self.map.load();
        let is_master = |map: &Map, server: &Server| map.shards.iter().any(|shard| shard.master == *server);
        let mut left = Vec::new();
        self.nodes().retain(|server, node| {
            let stays = is_master(&map, server) || !is_master(former, server);
            if !stays {
                left.push(Arc::clone(node));
            }
            stays
        });
        left.iter().for_each(|node| node.end());
    }

    /// The whole keyspace is that master's; how many replicas it is to have is not for it alone to say.
    async fn ask_master(&self, server: &Server, watched: Option<Watched>, expected: &mut Expected) -> Option<Map> {
        let replicas = self.replicas_of(server).await?;
        let Demand { replicas: demanded, given_up } = expected.of(server, replicas.len(), watched, Instant::now());
        if given_up {
            warn!(
                %server, replicas = replicas.len(), after = ?HELD,
                "replicas of the store are missing, and nobody says what became of them: what is written does not wait for them any more"
            );
        }
        Some(Map::whole(Shard { master: server.clone(), replicas: Some(replicas), expected: demanded }))
    }

    /// Asks a master for its replicas: `ROLE`.
    async fn replicas_of(&self, server: &Server) -> Option<Vec<Server>> {
        // One that is known already and does not answer may have been replaced: those who know it are to be asked again soon.
        let is_known = self.map.load().shards.iter().any(|shard| shard.master == *server && shard.replicas.is_some());
        let until = Instant::now() + if is_known { ANSWER_AGAIN } else { ANSWER };
        let replies = self.node(server).call(&[Command::new("ROLE")], until).await.ok()?;
        self.tell_refusal(server, "role", replies.first()?);
        let role = replies.first()?.list()?;
        if role.first()?.text()? != "master" {
            return None;
        }
        let follower = |reply: &Reply| {
            let reply = reply.list()?;
            Some(Server { host: reply.first()?.text()?.to_owned(), port: reply.get(1)?.number()? })
        };
        Some(role.get(2)?.list()?.iter().filter_map(follower).collect())
    }

    /// A server that does not say who owns what, or which replicas there are, cannot be used for long.
    fn tell_refusal(&self, server: &Server, command: &str, reply: &Reply) {
        if let Reply::Error(why) = reply
            && self.told.look.is_due()
        {
            warn!(%server, why, "the store does not say how its servers stand to each other: allow `+{command}` to its user");
        }
    }

    /// Asks all Sentinels at once. The master that more than half of them name is the one, if it says so itself.
    async fn ask_sentinels(&self, sentinels: &[Server], master: &str, expected: &mut Expected) -> Option<Map> {
        let until = Instant::now() + self.ask.within;
        let mut asking = JoinSet::new();
        for sentinel in sentinels {
            let (ask, sentinel) = (self.ask.clone(), sentinel.clone());
            let questions = [topology::ask_sentinel(master), topology::ask_sentinel_for_replicas(master)];
            asking.spawn(async move {
                let why = |broken: Broken| format!("{sentinel}: {broken}");
                let link = ask.link(&sentinel).await.map_err(why)?;
                let replies = link.call_all(&questions, until).await.map_err(why)?;
                link.give_up();
                let named = replies.first().and_then(topology::named_by_sentinel);
                let watched = replies.get(1).and_then(topology::watched_by_sentinel);
                Ok((named.ok_or_else(|| format!("{sentinel}: it knows no such master"))?, watched))
            });
        }
        let (mut votes, mut trouble) = (HashMap::<_, Votes>::new(), "they do not answer in time".to_owned());
        while let Ok(Some(vote)) = timeout_at(until, asking.join_next()).await {
            let Ok(vote) = vote else { continue };
            let (server, watched) = match vote {
                Ok(vote) => vote,
                Err(why) => {
                    trouble = why;
                    continue;
                }
            };
            let votes_for = votes.entry(server).or_default();
            votes_for.add(watched);
            if votes_for.count * 2 > sentinels.len() {
                break;
            }
        }
        // Whoever is cut off together with a former master and few Sentinels must not believe them.
        let Some((server, votes)) = votes.into_iter().find(|(_, votes)| votes.count * 2 > sentinels.len()) else {
            if self.told.look.is_due() {
                warn!(why = trouble, "no master is named by more than half of the Sentinels");
            }
            return None;
        };
        self.ask_master(&server, votes.watched, expected).await
    }

    /// Asks all servers that are up at once, and takes what they agree on; those that no longer belong to it are let go.
    async fn ask_cluster(&self, seeds: &[Server]) -> Option<Map> {
        let mut until = Instant::now() + ANSWER;
        for seed in seeds {
            self.node(seed);
        }
        let nodes: Vec<_> = self.nodes().values().cloned().collect();
        let most = nodes.len() / 2 + 1;
        let mut asking = JoinSet::new();
        for node in nodes {
            asking.spawn(async move {
                let question = [Command::new("CLUSTER").arg("NODES")];
                let reply = node.call(&question, until).await.ok()?.pop()?;
                Some((node.server.clone(), reply))
            });
        }
        let mut views = Vec::new();
        while let Ok(Some(answer)) = timeout_at(until, asking.join_next()).await {
            let Ok(Some((server, reply))) = answer else { continue };
            self.tell_refusal(&server, "cluster|nodes", &reply);
            views.extend(reply.text().map(|text| View::read(text, &server)));
            // Those who do not answer, of whom one is mostly the reason to ask, hold up nobody for long.
            if views.len() >= most {
                until = until.min(Instant::now() + STRAGGLERS);
            }
        }
        // Who still does not answer is to be known for it.
        asking.detach_all();
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

/// Sentinels that name one master, and what they know of its replicas.
#[derive(Debug, Default)]
struct Votes {
    count: usize,
    watched: Option<Watched>,
}

impl Votes {
    fn add(&mut self, watched: Option<Watched>) {
        self.count += 1;
        self.watched = match (self.watched, watched) {
            (Some(known), Some(watched)) => Some(known.stricter(watched)),
            (known, watched) => known.or(watched),
        };
    }
}

/// What was told lately.
#[derive(Debug, Default)]
struct Told {
    /// That a server refuses `WAIT`.
    wait: Seldom,
    /// That a server does not say who owns what.
    look: Seldom,
}

/// One more command is under way, until this is dropped.
struct InFlight<'m>(&'m IntGauge);

impl<'m> InFlight<'m> {
    fn of(gauge: &'m IntGauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Places of commands that are under way. What must be durable has its own: a flood of loads refuses no revocation.
#[derive(Debug)]
struct Places {
    common: Semaphore,
    durable: Semaphore,
}

impl Default for Places {
    fn default() -> Self {
        Self { common: Semaphore::new(PLACES), durable: Semaphore::new(DURABLE_PLACES) }
    }
}

impl Places {
    const fn of(&self, lane: Lane) -> &Semaphore {
        match lane {
            Lane::Common => &self.common,
            Lane::Sign | Lane::Durable => &self.durable,
        }
    }
}

/// What is asked of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    /// A read, or a write that may be lost.
    Common,
    /// A sign of life: loads take no place away from it.
    Sign,
    /// A write that waits until replicas have it.
    Durable,
}

/// What an answer means for the router.
enum Meaning {
    /// It is the answer.
    Answer(Reply),
    /// The script is not known there: send its text.
    Unknown,
    Moved(Server),
    Ask(Server),
    /// Not now.
    Later(String),
    /// Not at all.
    Refused(String),
}

fn meaning(reply: Reply, said_by: &Server) -> Meaning {
    let Reply::Error(error) = reply else { return Meaning::Answer(reply) };
    if let Some((kind, _, to)) = topology::redirection(&error, said_by) {
        return match kind {
            Redirected::Moved => Meaning::Moved(to),
            Redirected::Ask => Meaning::Ask(to),
        };
    }
    match error.split(' ').next().unwrap_or_default() {
        "NOSCRIPT" => Meaning::Unknown,
        "CLUSTERDOWN" | "MASTERDOWN" | "TRYAGAIN" | "LOADING" | "READONLY" | "NOREPLICAS" | "BUSY" | "UNBLOCKED" => {
            Meaning::Later(error)
        }
        _ => Meaning::Refused(error),
    }
}

/// Looks at the topology when there is doubt, and regularly.
async fn watch(inner: Arc<Inner>) {
    let mut expected = Expected::default();
    loop {
        // From its beginning: a look that waited for a silent server in vain needs no rest after it.
        let spaced = tokio::time::sleep(SPACING);
        tokio::select! {
            () = inner.stop.cancelled() => return,
            () = inner.look(&mut expected) => {}
        }
        let known = |map: &Map| !map.shards.is_empty() && map.shards.iter().all(|shard| shard.replicas.is_some());
        let rest = if known(&inner.map.load()) { LOOK_EVERY } else { SPACING };
        tokio::select! {
            () = inner.stop.cancelled() => return,
            () = tokio::time::sleep(rest) => {}
            () = async { tokio::join!(inner.doubt.notified(), spaced); } => {}
        }
    }
}

/// Commands that may be under way at one time; more are refused at once.
pub(super) const PLACES: usize = 4_096;
/// Of those that have to be durable.
pub(super) const DURABLE_PLACES: usize = 4_096;
/// How long one server may take, before another attempt is made.
pub(super) const ATTEMPT: Duration = Duration::from_millis(250);
const PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(50);
const ANSWER: Duration = Duration::from_millis(300);
/// The same, of one about which everything is known.
const ANSWER_AGAIN: Duration = Duration::from_millis(100);
/// How long the last ones to answer are waited for once most have.
const STRAGGLERS: Duration = Duration::from_millis(20);
const SPACING: Duration = Duration::from_millis(100);
const LOOK_EVERY: Duration = Duration::from_secs(5);
