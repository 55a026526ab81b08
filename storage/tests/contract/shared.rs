//! What several processes promise together: revocations are heard, whatever happens to connections and servers, and the
//! failure of one server is nobody else's.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use postern_identity::{SERVICE_ACCOUNT, Secret, Session, Timestamp, Tokens};
use postern_servers::{Answer, Bare, Cluster, Redis, Traffic, Watched};
use postern_storage::{
    CacheConfig, Cached, Committed, Credentials, Loaded, Lookup, Once, Part, RedisConfig, Server, SessionCache,
    Storage, StorageConfig, StorageError, Topology,
};
use prometheus::Registry;

use crate::support::{ISSUER, account, at, behind, id, keyring, session, tokens, until};

/// A process that writes sessions, and several that read them.
pub(super) struct Processes {
    pub(super) writer: Storage,
    pub(super) edges: Vec<(Storage, Arc<SessionCache>)>,
}

const EDGES: usize = 8;
/// Long enough for a machine that is busy.
const PATIENT: Duration = Duration::from_secs(5);
const HALF_A_MINUTE: Duration = Duration::from_secs(30);

impl Processes {
    pub(super) fn start(config: &RedisConfig) -> Self {
        let edges = (0..EDGES).map(|_| {
            let storage = open(config, Part::Reader, &Registry::new());
            let cache = storage.cache(patient());
            (storage, cache)
        });
        Self { writer: open(config, Part::Authn, &Registry::new()), edges: edges.collect() }
    }

    fn on(cluster: &Cluster) -> Self {
        Self::start(&through_relays(cluster))
    }

    pub(super) async fn in_contact(&self) {
        until("every edge is in contact", async || self.edges.iter().all(|(_, cache)| cache.is_in_contact())).await;
    }

    /// Sessions that every edge knows.
    pub(super) async fn known_everywhere(&self, numbers: std::ops::Range<u64>) -> Vec<Session> {
        self.in_contact().await;
        let mut created = Vec::new();
        for number in numbers {
            let session = session(number, &format!("user-{number}"));
            self.writer.sessions().create(&session, &tokens("a")).await.unwrap();
            for (_, cache) in &self.edges {
                cache.load(&id(number), at(1), HALF_A_MINUTE).await.unwrap();
            }
            created.push(session);
        }
        created
    }

    /// Ends a session as authn does: again and again until the store has said yes.
    pub(super) async fn revoke(&self, session: &Session) {
        until("the store takes the revocation", async || self.writer.sessions().revoke(&session.handle).await.is_ok())
            .await;
    }

    /// Until no edge serves it.
    pub(super) async fn refused_everywhere(&self, number: u64) {
        until(&format!("session {number} is refused everywhere"), async || {
            for (_, cache) in &self.edges {
                if serves(cache, number).await {
                    return false;
                }
            }
            true
        })
        .await;
    }

    pub(super) async fn end(self) {
        for (edge, _) in &self.edges {
            edge.close().await;
        }
        self.writer.close().await;
    }
}

fn open(config: &RedisConfig, part: Part, registry: &Registry) -> Storage {
    let config = RedisConfig { part, ..config.clone() };
    Storage::open(StorageConfig::Redis(Box::new(config)), keyring(), registry).unwrap()
}

fn patient() -> CacheConfig {
    CacheConfig { load_deadline: Duration::from_secs(2), ..CacheConfig::default() }
}

fn through_relays(cluster: &Cluster) -> RedisConfig {
    let seeds = cluster.members().iter().map(|member| Server::local(member.relay.port())).collect();
    RedisConfig::new(Topology::Cluster(seeds))
}

/// Ends the connections of all who read the changelog there.
fn end_readers(bare: &mut Bare) {
    let clients = bare.sure(&["CLIENT", "LIST"]).unwrap();
    for line in clients.text().lines().filter(|line| line.contains("cmd=xread")) {
        let id = line.split(' ').next().and_then(|id| id.strip_prefix("id=")).unwrap();
        bare.sure(&["CLIENT", "KILL", "ID", id]).unwrap();
    }
}

/// Whether an edge serves a session, from what it knows or from the store.
async fn serves(cache: &Arc<SessionCache>, number: u64) -> bool {
    match cache.get(&id(number), at(2), HALF_A_MINUTE) {
        Cached::Hit(_) | Cached::Static(_) => true,
        Cached::Revoked | Cached::Unknown | Cached::Unavailable => false,
        Cached::Miss => !matches!(cache.load(&id(number), at(2), HALF_A_MINUTE).await, Ok(Loaded::Revoked)),
    }
}

fn cluster() -> Cluster {
    Cluster::start(Duration::from_secs(1), &[])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s_084_a_revocation_is_heard_everywhere_also_after_every_connection_was_cut() {
    let cluster = cluster();
    let processes = Processes::on(&cluster);
    let sessions = processes.known_everywhere(0..30).await;
    for (number, session) in (0..10).zip(&sessions) {
        processes.revoke(session).await;
        processes.refused_everywhere(number).await;
    }
    for (number, session) in (10..20).zip(sessions.iter().skip(10)) {
        for member in cluster.members() {
            member.relay.cut();
        }
        processes.revoke(session).await;
        processes.refused_everywhere(number).await;
    }
    let user = &sessions[25].user;
    processes.writer.sessions().revoke_user(&user.issuer, &user.id, at(1)).await.unwrap();
    processes.refused_everywhere(25).await;
    let (_, cache) = &processes.edges[0];
    assert!(serves(cache, 26).await, "and nobody else's");

    processes.writer.sessions().revoke_everyone(at(1)).await.unwrap();
    for number in 26..30 {
        processes.refused_everywhere(number).await;
    }
    // Whoever starts when the changelog tells nothing of it any more.
    let _forgotten = cluster.members()[cluster.owner("{chg}log")].server.cli(&["DEL", "{chg}log"]);
    let late = Processes::on(&cluster);
    late.in_contact().await;
    for number in 26..30 {
        late.refused_everywhere(number).await;
    }
    late.end().await;
    processes.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s_084_whoever_finds_that_lines_of_the_changelog_are_gone_serves_no_copy_from_before() {
    let cluster = cluster();
    let processes = Processes::on(&cluster);
    processes.known_everywhere(0..1).await;
    processes.in_contact().await;
    let all = |traffic| cluster.members().iter().for_each(|member| member.relay.set(traffic));
    // Meanwhile nobody hears of a line, and no heartbeat is written.
    all(Traffic::Refused);
    let _gone = cluster.members()[cluster.owner("{chg}log")].server.cli(&["DEL", "{chg}log"]);
    all(Traffic::Passes);
    for (_, cache) in &processes.edges {
        until("the copy is outdated", async || matches!(cache.get(&id(0), at(2), HALF_A_MINUTE), Cached::Miss)).await;
        let is_found = async || matches!(cache.load(&id(0), at(2), HALF_A_MINUTE).await, Ok(Loaded::Found(_)));
        until("it is read again", is_found).await;
    }
    processes.end().await;
}

/// Who was cut off reads again what was written in the ten seconds before, and that may be much.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r_009_a_revocation_is_heard_while_much_of_the_changelog_is_still_to_be_read() {
    /// Facts at the end of what is read again: more than the others in it and those of a revocation that is repeated, so that
    /// who has heard fewer has not come to the end.
    const LAST: f64 = 100.0;
    let (cluster, registry) = (cluster(), Registry::new());
    let config = through_relays(&cluster);
    // One edge is enough to read so much.
    let edge = open(&config, Part::Reader, &registry);
    let cache: Arc<SessionCache> = edge.cache(patient());
    let writer = open(&config, Part::Authn, &Registry::new());
    let processes = Processes { writer, edges: vec![(edge, Arc::clone(&cache))] };
    let [session, ..] = &processes.known_everywhere(0..1).await[..] else { panic!("none was created") };
    let heard = || -> f64 {
        let families = registry.gather();
        let facts = families.iter().filter(|family| family.name() == "postern_storage_changelog_facts_total");
        facts.flat_map(|family| family.get_metric()).map(|metric| metric.get_counter().get_value()).sum()
    };
    // 150 questions of lines that say nothing to this version, with a fact now and then, and facts.
    let owner = &cluster.members()[cluster.owner("{chg}log")];
    let before = heard();
    // One connection for all: `WAIT` is about what its own has written.
    let mut bare = Bare::connect(owner.server.port(), PATIENT).unwrap();
    let mut lines = |count: &str, kind: &str| {
        let fill = "for _ = 1, ARGV[1] do redis.call('XADD', KEYS[1], '*', 'k', ARGV[2]) end";
        bare.sure(&["EVAL", fill, "1", "{chg}log", count, kind]).unwrap();
    };
    for _ in 0..15 {
        lines("1", "c");
        lines("10000", "?");
    }
    lines(&LAST.to_string(), "c");
    until("all of it is read", async || heard() >= before + 15.0 + LAST).await;
    assert_eq!(bare.sure(&["WAIT", "1", "4000"]).unwrap(), Answer::Number(1), "the replica has it");
    owner.relay.set(Traffic::Late(Duration::from_millis(20)));
    let base = heard();
    end_readers(&mut bare);
    until("it is read again", async || heard() > base).await;
    processes.revoke(session).await;
    until("it is heard", async || matches!(cache.get(&id(0), at(2), HALF_A_MINUTE), Cached::Revoked)).await;
    assert!(heard() < base + LAST, "before the other end of what is read again");
    processes.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r_009_a_revocation_is_heard_although_the_master_of_the_changelog_dies() {
    let mut cluster = cluster();
    let processes = Processes::on(&cluster);
    let sessions = processes.known_everywhere(0..20).await;
    let owner = cluster.owner("{chg}log");
    cluster.members_mut()[owner].server.kill();
    for (number, session) in (0..20).zip(&sessions) {
        processes.revoke(session).await;
        processes.refused_everywhere(number).await;
    }
    processes.in_contact().await;
    processes.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r_006_r_008_what_is_held_up_is_served_for_a_lease_and_a_window_and_no_longer() {
    let cluster = cluster();
    let mut config = RedisConfig::new(Topology::Cluster(Vec::new()));
    config.topology =
        Topology::Cluster(cluster.members().iter().map(|member| Server::local(member.relay.port())).collect());
    config.lease = Duration::from_millis(1_500);
    let processes = Processes::start(&config);
    processes.known_everywhere(0..1).await;
    let (_, cache) = &processes.edges[0];
    let ask = |window| cache.get(&id(0), at(2), window);
    for member in cluster.members() {
        member.relay.set(Traffic::Held);
    }
    until("the lease is lost", async || matches!(ask(Duration::ZERO), Cached::Unavailable)).await;
    assert!(matches!(ask(HALF_A_MINUTE), Cached::Static(_)), "a route with a window goes on");
    let unknown = cache.get(&id(99), at(2), HALF_A_MINUTE);
    assert!(matches!(unknown, Cached::Unavailable), "unavailable is never unknown: {unknown:?}");
    for member in cluster.members() {
        member.relay.set(Traffic::Passes);
    }
    until("the lease is back", async || matches!(ask(Duration::ZERO), Cached::Hit(_))).await;
    processes.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r_007_one_master_that_is_killed_or_hangs_is_nobody_elses_and_its_replica_takes_over() {
    let mut cluster = cluster();
    let processes = Processes::on(&cluster);
    let sessions = processes.known_everywhere(0..12).await;
    for kill in [true, false] {
        let owners = servers_of(&cluster, &sessions);
        let victim = cluster.owner("{chg}log");
        let server = &mut cluster.members_mut()[victim].server;
        if kill {
            server.kill();
        } else {
            server.pause();
        }
        let fell = Instant::now();
        let mut own_is_back = false;
        while !own_is_back {
            assert!(fell.elapsed() < Duration::from_secs(20), "the replica did not take over");
            own_is_back = true;
            for (session, owner) in sessions.iter().zip(&owners) {
                match processes.writer.sessions().load(&session.handle, at(1)).await {
                    Ok(_) => {}
                    Err(StorageError::Unavailable { .. }) if owner.contains(&victim) => own_is_back = false,
                    Err(error) => panic!("another server's session: {error}"),
                }
            }
        }
        let server = &mut cluster.members_mut()[victim].server;
        if kill {
            server.restart();
        } else {
            server.resume();
        }
        if kill {
            // Only once it follows its successor can the next victim be replaced.
            until("the former master follows", async || {
                cluster.members()[victim].server.cli(&["INFO", "replication"]).contains("master_link_status:up")
            })
            .await;
            break_even(&cluster).await;
        }
    }
    processes.end().await;
}

/// For each session the servers that a look at it asks: its own, and that of its user.
fn servers_of(cluster: &Cluster, sessions: &[Session]) -> Vec<[usize; 2]> {
    let mut users = HashMap::new();
    for member in cluster.members() {
        for key in member.server.cli(&["--scan", "--pattern", "u:*"]).lines() {
            let session = member.server.cli(&["ZRANGE", key, "0", "0"]);
            if !session.contains("MOVED") {
                users.insert(session, key.to_owned());
            }
        }
    }
    let owners = |session: &Session| {
        let name = BASE64.encode(session.handle.as_bytes());
        [cluster.owner(users.get(&name).unwrap()), cluster.owner(&name)]
    };
    sessions.iter().map(owners).collect()
}

/// Until each master has a replica again.
async fn break_even(cluster: &Cluster) {
    until("each master has a replica", async || {
        let masters = cluster.members().iter().filter(|member| member.server.cli(&["ROLE"]).starts_with("master"));
        masters.clone().count() == 3
            && masters.clone().all(|member| member.server.cli(&["INFO", "replication"]).contains("state=online"))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r_009_sentinels_name_another_master_and_the_store_follows() {
    for kill in [true, false] {
        let mut watched = Watched::start(Duration::from_secs(1));
        let processes = Processes::start(&RedisConfig::new(behind(&watched)));
        let sessions = processes.known_everywhere(0..3).await;
        let former = watched.master();
        if kill {
            watched.servers[0].kill();
        } else {
            watched.servers[0].pause();
        }
        // Confirmed by no replica any more: there is none left.
        for (number, session) in (0..3).zip(&sessions) {
            processes.revoke(session).await;
            processes.refused_everywhere(number).await;
        }
        assert_ne!(watched.master(), former);
        processes.in_contact().await;
        processes.end().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r_009_a_master_whose_replica_was_just_made_one_says_yes_to_nothing_that_it_alone_has() {
    let watched = Watched::start(Duration::from_secs(1));
    let processes = Processes::start(&RedisConfig::new(behind(&watched)));
    let sessions = processes.known_everywhere(0..2).await;
    let [master, replica] = &watched.servers;
    // What Sentinels do first in a failover, long before they name another master.
    assert_eq!(replica.cli(&["REPLICAOF", "NO", "ONE"]), "OK");
    until("the master has no replica", async || master.cli(&["ROLE"]).lines().count() == 2).await;
    // For longer than from one look to the next.
    for _ in 0..4 {
        let taken = processes.writer.sessions().revoke(&sessions[0].handle).await;
        assert!(taken.is_err(), "it would be lost when the master is replaced");
    }
    assert_eq!(replica.cli(&["REPLICAOF", "127.0.0.1", &master.port().to_string()]), "OK");
    processes.revoke(&sessions[0]).await;
    let name = BASE64.encode(sessions[0].handle.as_bytes());
    assert_eq!(replica.cli(&["HGET", &format!("s:{{{name}}}"), "x"]), "1", "who takes over knows of it");
    processes.refused_everywhere(0).await;
    processes.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r_009_a_replica_that_sentinels_call_down_is_not_waited_for() {
    let mut watched = Watched::start(Duration::from_secs(1));
    let processes = Processes::start(&RedisConfig::new(behind(&watched)));
    let sessions = processes.known_everywhere(0..1).await;
    watched.servers[1].kill();
    assert!(processes.writer.sessions().revoke(&sessions[0].handle).await.is_err(), "it may come back at once");
    let killed = Instant::now();
    processes.revoke(&sessions[0]).await;
    assert!(killed.elapsed() < Duration::from_secs(20), "sooner than where nobody can say");
    processes.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s_076_a_process_whose_clock_is_ahead_takes_no_refresh_that_another_one_holds() {
    let server = Redis::start(&[]);
    let config = RedisConfig::new(Topology::Single(Server::local(server.port())));
    let processes = Processes::start(&config);
    let (own, ahead) = (processes.writer.sessions(), processes.edges[0].0.sessions());
    let now = Timestamp::from(SystemTime::now());
    let after = |secs| now.plus(Duration::from_secs(secs));
    let session = Session { issued_at: now, expires_at: after(36_000), ..session(1, "alice") };
    let tokens = Tokens { refresh_at: Some(now), ..tokens("a") };
    until("it is saved", async || own.create(&session, &tokens).await.is_ok()).await;
    let [due] = own.due(now, 10).await.unwrap()[..] else { panic!("not due") };
    let claim = own.postpone(&due, after(120)).await.unwrap().unwrap();
    // Ten minutes ahead: to it the claim has run out.
    let [seen] = ahead.due(after(600), 10).await.unwrap()[..] else { panic!("not seen") };
    assert_eq!(seen, claim);
    assert_eq!(ahead.postpone(&seen, after(720)).await.unwrap(), None, "both would use one refresh token");
    let back = own.postpone(&claim, now).await.unwrap().unwrap();
    assert!(ahead.postpone(&back, after(720)).await.unwrap().is_some(), "what was given back is free");
    processes.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r_026_a_refresh_that_is_saved_leaves_no_claim_behind() {
    let server = Redis::start(&[]);
    let processes = Processes::start(&RedisConfig::new(Topology::Single(Server::local(server.port()))));
    let (own, other) = (processes.writer.sessions(), processes.edges[0].0.sessions());
    let now = Timestamp::from(SystemTime::now());
    let after = |secs| now.plus(Duration::from_secs(secs));
    let session = Session { issued_at: now, expires_at: after(36_000), ..session(1, "alice") };
    let old = Tokens { refresh_at: Some(now), ..tokens("a") };
    until("it is saved", async || own.create(&session, &old).await.is_ok()).await;
    let [due] = own.due(now, 10).await.unwrap()[..] else { panic!("not due") };
    own.postpone(&due, after(120)).await.unwrap().unwrap();
    let new = Tokens { refresh_at: Some(after(10)), ..tokens("b") };
    assert_eq!(own.commit_first(&session.handle, 1, &session, &new).await.unwrap(), Committed::Saved(2));
    let [half] = other.due(after(10), 10).await.unwrap()[..] else { panic!("not due again") };
    assert_eq!(other.postpone(&half, after(130)).await.unwrap(), None, "it is not over yet");
    assert_eq!(own.commit(&session.handle, 2, &session, &new).await.unwrap(), Committed::Saved(3));
    // Well before the claim would have run out.
    let [next] = other.due(after(10), 10).await.unwrap()[..] else { panic!("not due again") };
    let claim = other.postpone(&next, after(130)).await.unwrap();
    assert!(claim.is_some(), "who refreshed it last may be gone by now");
    let late = own.commit(&session.handle, 3, &session, &new).await.unwrap();
    assert_eq!(late, Committed::Moved, "who is late saves no token that another one has sent meanwhile");
    processes.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s_095_the_list_of_a_user_forgets_what_is_over_by_the_servers_own_time() {
    let server = Redis::start(&[]);
    let processes = Processes::start(&RedisConfig::new(Topology::Single(Server::local(server.port()))));
    let sessions = processes.writer.sessions();
    let now = Timestamp::from(SystemTime::now());
    let lives = Session { issued_at: now, expires_at: now.plus(Duration::from_secs(60)), ..session(1, "alice") };
    until("it is saved", async || sessions.create(&lives, &tokens("a")).await.is_ok()).await;
    sessions.create(&session(2, "alice"), &tokens("b")).await.unwrap();
    let over = server.cli(&["EVAL", "return redis.call('ZADD', redis.call('KEYS', 'u:*')[1], 1, 'over')", "0"]);
    assert_eq!(over, "1");
    sessions.create(&session(3, "alice"), &tokens("c")).await.unwrap();
    let index = server.cli(&["EVAL", "return redis.call('ZRANGE', redis.call('KEYS', 'u:*')[1], 0, -1)", "0"]);
    assert_eq!(index.lines().count(), 3, "{index}");
    assert!(!index.contains("over"));
    processes.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s_095_an_end_is_remembered_for_as_long_as_it_can_be_needed() {
    let server = Redis::start(&[]);
    let processes = Processes::start(&RedisConfig::new(Topology::Single(Server::local(server.port()))));
    let sessions = processes.writer.sessions();
    let years = |kind: &str| {
        let longest = "local most = -1 for _, key in ipairs(redis.call('KEYS', ARGV[1])) do most = math.max(most, \
                       redis.call('PTTL', key)) end return math.floor(most / 1000 / 3600 / 24 / 365)";
        server.cli(&["EVAL", longest, "0", &format!("{kind}:*")]).parse::<i64>().unwrap()
    };
    until("it is saved", async || sessions.create(&account(1, "ci"), &Tokens::none()).await.is_ok()).await;
    assert!(years("s") > 1_000, "it has no end");
    sessions.revoke(&account(1, "ci").handle).await.unwrap();
    assert_eq!(years("s"), 1, "r_010: its tombstone has");
    let now = Timestamp::from(SystemTime::now());
    sessions.revoke_user(ISSUER, "alice", now).await.unwrap();
    assert_eq!(years("ue"), 1, "no session of a person lasts longer");
    sessions.revoke_user(SERVICE_ACCOUNT, "ci", now).await.unwrap();
    assert!(years("ue") > 1_000, "one whose mark was lost stays ended");
    processes.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_time_of_a_store_is_that_of_its_server() {
    let server = Redis::start(&[]);
    let processes = Processes::start(&RedisConfig::new(Topology::Single(Server::local(server.port()))));
    processes.in_contact().await;
    let before = Timestamp::from(SystemTime::now());
    let theirs = processes.writer.sessions().time(at(0)).await.unwrap();
    let after = Timestamp::from(SystemTime::now());
    let second = Duration::from_secs(1);
    assert!(theirs.plus(second) >= before && theirs <= after.plus(second), "{before} {theirs} {after}");
    processes.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s_095_who_has_lost_the_changelog_sees_the_end_of_all_sessions() {
    let server = Redis::start(&[]);
    let config = RedisConfig::new(Topology::Single(Server::local(server.port())));
    let processes = Processes::start(&RedisConfig { lease: Duration::from_millis(1_000), ..config });
    let [session, ..] = &processes.known_everywhere(0..1).await[..] else { panic!("none was created") };
    let (other, cache) = &processes.edges[0];
    let mut bare = Bare::connect(server.port(), PATIENT).unwrap();
    // Nobody gets a new connection, so nobody reads the changelog again.
    bare.sure(&["CONFIG", "SET", "maxclients", "1"]).unwrap();
    end_readers(&mut bare);
    until("the changelog is lost", async || !cache.is_in_contact()).await;
    processes.writer.sessions().revoke_everyone(at(1)).await.unwrap();
    let found = other.sessions().load(&session.handle, at(2)).await.unwrap();
    assert!(matches!(found, Lookup::Revoked), "{found:?}");
    processes.end().await;
}

/// A session of which the tokens answer nonsense is not cleared, and neither is any other one lost by it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clearing_that_fails_keeps_its_place_and_loses_no_tokens() {
    let server = Redis::start(&[]);
    let config = RedisConfig::new(Topology::Single(Server::local(server.port())));
    let processes = Processes::start(&RedisConfig { operation: PATIENT, ..config });
    processes.in_contact().await;
    let sessions = processes.writer.sessions();
    for number in 0..5 {
        sessions.create(&session(number, "alice"), &tokens("a")).await.unwrap();
    }
    sessions.revoke_everyone(at(1)).await.unwrap();
    let broken = format!("t:{{{}}}", session(2, "").handle);
    assert_eq!(server.cli(&["RENAME", &broken, "kept"]), "OK");
    assert_eq!(server.cli(&["LPUSH", &broken, "?"]), "1");
    let left = sessions.clear(None, at(2), at(0)).await;
    assert!(left.failed.is_some() && left.next.is_none(), "{left:?}");
    assert_eq!((left.ended.len(), left.unsure.len()), (4, 0));
    assert!(left.ended.iter().all(|(_, tokens)| tokens.is_some()));
    assert_eq!(server.cli(&["RENAME", "kept", &broken]), "OK");
    let left = sessions.clear(left.next, at(2), at(0)).await;
    let [(last, Some(_))] = &left.ended[..] else { panic!("{left:?}") };
    assert_eq!(last.handle, session(2, "").handle);
    assert!(left.failed.is_none());

    // Deep inside of a walk.
    for number in 10..410 {
        sessions.create(&session(number, "bob"), &tokens("a")).await.unwrap();
    }
    let next = sessions.clear(None, at(2), at(0)).await.next;
    assert!(next.is_some());
    processes.writer.close().await;
    let left = sessions.clear(next, at(2), at(0)).await;
    assert!(left.failed.is_some());
    assert_eq!(left.next, next, "it goes on where it was");
    processes.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_user_of_the_guide_may_do_all_that_is_needed() {
    let guide = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/guides/store.md");
    let guide = std::fs::read_to_string(guide).unwrap();
    let line = guide.lines().find_map(|line| line.strip_prefix("user postern ")).unwrap();
    let server = Redis::start(&[]);
    let words = ["ACL", "SETUSER", "postern"].into_iter().chain(line.split(' '));
    assert_eq!(server.cli(&words.collect::<Vec<_>>()), "OK");
    let password = Secret::new("PASSWORD".to_owned());
    let credentials = Some(Credentials { username: Some("postern".to_owned()), password });
    let config = RedisConfig::new(Topology::Single(Server::local(server.port())));
    let processes = Processes::start(&RedisConfig { credentials, ..config });
    let [session, ..] = &processes.known_everywhere(0..1).await[..] else { panic!("none was created") };
    let sessions = processes.writer.sessions();
    let [due] = sessions.due(at(200), 10).await.unwrap()[..] else { panic!("not due") };
    assert!(sessions.postpone(&due, at(260)).await.unwrap().is_some());
    assert!(sessions.tokens(&session.handle).await.unwrap().is_some());
    let committed = sessions.commit(&session.handle, 1, session, &tokens("b")).await.unwrap();
    assert_eq!(committed, Committed::Saved(2));
    assert!(sessions.spend(Once::SignIn, b"state", at(0), at(60)).await.unwrap());
    assert_eq!(sessions.list(ISSUER, &session.user.id, at(1)).await.unwrap().len(), 1);
    processes.revoke(session).await;
    processes.refused_everywhere(0).await;
    sessions.revoke_user(ISSUER, &session.user.id, at(1)).await.unwrap();
    sessions.time(at(1)).await.unwrap();
    assert_eq!(server.cli(&["ACL", "LOG"]), "", "nothing was refused");
    processes.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s_084_what_a_replica_knows_denies_while_the_owner_of_the_changelog_is_away() {
    let mut master = Redis::start(&[]);
    let port = master.port().to_string();
    let replica = Redis::start(&["--replicaof", "127.0.0.1", &port]);
    until("the replica is there", async || master.cli(&["ROLE"]).contains(&replica.port().to_string())).await;
    let processes = Processes::start(&RedisConfig::new(Topology::Single(Server::local(master.port()))));
    let [session, ..] = &processes.known_everywhere(0..1).await[..] else { panic!("none was created") };
    master.kill();
    // Nobody tells anybody that it has taken over.
    assert_eq!(replica.cli(&["REPLICAOF", "NO", "ONE"]), "OK");
    let hex: String = session.handle.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    let write = "local id = ARGV[1]:gsub('..', function(two) return string.char(tonumber(two, 16)) end)
        redis.call('XADD', '{chg}log', '*', 'k', 'r', 'i', id) return 'OK'";
    assert_eq!(replica.cli(&["EVAL", write, "0", &hex]), "OK");
    until("every edge has heard of it", async || {
        let heard = |cache: &Arc<SessionCache>| matches!(cache.get(&id(0), at(2), HALF_A_MINUTE), Cached::Revoked);
        processes.edges.iter().all(|(_, cache)| heard(cache))
    })
    .await;
    let lost = async || processes.edges.iter().all(|(_, cache)| !cache.is_in_contact());
    until("that is no contact", lost).await;
    processes.end().await;
}

/// All live sessions, and what could not be read.
async fn listed(storage: &Storage) -> (usize, Vec<String>) {
    let (mut found, mut unread, mut place) = (0, Vec::new(), None);
    loop {
        let page = storage.sessions().page(place, at(1)).await.unwrap();
        found += page.sessions.len();
        unread.extend(page.unread.into_iter().map(|(name, _)| name));
        place = page.next;
        if place.is_none() {
            return (found, unread);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_lacks_only_what_a_server_that_is_away_has_to_say_and_names_it() {
    // Nobody is called dead meanwhile.
    let cluster = Cluster::start(HALF_A_MINUTE, &[]);
    let seeds = cluster.members().iter().map(|member| Server::local(member.relay.port())).collect();
    let config = RedisConfig { part: Part::Authn, ..RedisConfig::new(Topology::Cluster(seeds)) };
    let storage = Storage::open(StorageConfig::Redis(Box::new(config)), keyring(), &Registry::new()).unwrap();
    for number in 0..60 {
        storage.sessions().create(&session(number, &format!("user-{number}")), &tokens("a")).await.unwrap();
    }
    assert_eq!(listed(&storage).await, (60, Vec::new()));
    let log = cluster.owner("{chg}log");
    let away = (0..).map(|number| cluster.owner(&number.to_string())).find(|owner| *owner != log).unwrap();
    let relay = &cluster.members()[away].relay;
    relay.set(Traffic::Held);
    let (found, unread) = listed(&storage).await;
    let server = format!("all that 127.0.0.1:{} keeps", relay.port());
    assert!(found > 0 && unread.contains(&server), "{found} {unread:?}");
    // Kept by another server; whether its user's have ended only that one knows.
    let sessions = unread.len() - 1;
    assert!(sessions > 0 && found + sessions < 60, "{found} {unread:?}");
    relay.set(Traffic::Passes);
    until("all of them can be read", async || listed(&storage).await == (60, Vec::new())).await;
    storage.close().await;
}
