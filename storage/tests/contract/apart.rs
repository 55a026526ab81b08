//! What one shard that does not answer must not do to what belongs to others.

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use futures_util::stream::{self, StreamExt as _};
use postern_identity::Session;
use postern_servers::{Cluster, Member, Traffic};
use postern_storage::{
    CacheConfig, Cached, Committed, Loaded, Lookup, RedisConfig, Server, SessionCache, Storage, StorageConfig, Topology,
};
use prometheus::Registry;

use crate::support::{at, id, idle, keyring, session, tokens, until};

/// Long enough for a machine that is busy.
const PATIENT: Duration = Duration::from_secs(4);
/// More than there are places for.
const SESSIONS: u64 = 400;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r_007_last_seen_times_of_other_shards_are_written_although_one_does_not_answer() {
    // Nobody takes over: the members themselves see each other.
    let cluster = Cluster::start(Duration::from_secs(60), &[]);
    let seeds = cluster.members().iter().map(|member| Server::local(member.relay.port())).collect();
    let config = StorageConfig::Redis(Box::new(RedisConfig::new(Topology::Cluster(seeds))));
    let storage = Storage::open(config, keyring(), &Registry::new()).unwrap();
    let cache: std::sync::Arc<SessionCache> =
        storage.cache(CacheConfig { load_deadline: Duration::from_secs(5), ..CacheConfig::default() });
    until("there is contact", async || cache.is_in_contact()).await;
    let sessions = storage.sessions();
    let created: Vec<Session> = (0..SESSIONS).map(|number| idle(session(number, "alice"), 50)).collect();
    stream::iter(&created)
        .for_each_concurrent(16, async |session| sessions.create(session, &tokens("a")).await.unwrap())
        .await;
    let mut entries = Vec::new();
    for number in 0..SESSIONS {
        let loaded = cache.load(&id(number), at(1), Duration::ZERO).await.unwrap();
        let Loaded::Found(entry) = loaded else { panic!("{loaded:?}") };
        entries.push(entry);
    }
    let keys = |member: &Member, pattern| member.server.cli(&["--scan", "--pattern", pattern]);
    let holds_no_user =
        |member: &&Member| member.server.cli(&["ROLE"]).starts_with("master") && keys(member, "u:*").is_empty();
    let away = cluster.members().iter().find(holds_no_user).unwrap();
    let theirs = keys(away, "s:*");
    let name = |session: &Session| BASE64.encode(session.handle.as_bytes());
    let others: Vec<_> = created.iter().filter(|session| !theirs.contains(&name(session))).collect();
    assert!((1..created.len()).contains(&others.len()), "{theirs}");
    away.relay.set(Traffic::Held);
    let begun = Instant::now();
    for entry in &entries {
        cache.touch(entry, at(30));
    }
    for session in others {
        // Had nobody heard of its use, it would have ended at 50.
        until("the store knows that it is in use", async || match sessions.load(&session.handle, at(1)).await {
            Ok(Lookup::Found(found)) => found.idle.is_some_and(|(_, until)| until == at(80)),
            Ok(Lookup::Revoked | Lookup::Unknown) | Err(_) => false,
        })
        .await;
    }
    assert!(begun.elapsed() < Duration::from_secs(20));
    away.relay.set(Traffic::Passes);
    storage.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r_007_a_refresh_does_not_wait_for_the_changelog_of_another_server_and_is_told_when_it_is_back() {
    let cluster = Cluster::start(Duration::from_secs(60), &[]);
    let seeds: Vec<_> = cluster.members().iter().map(|member| Server::local(member.relay.port())).collect();
    let open = || {
        let config = RedisConfig { operation: PATIENT, ..RedisConfig::new(Topology::Cluster(seeds.clone())) };
        Storage::open(StorageConfig::Redis(Box::new(config)), keyring(), &Registry::new()).unwrap()
    };
    let (storage, edge) = (open(), open());
    let cache: std::sync::Arc<SessionCache> = edge.cache(CacheConfig::default());
    until("there is contact", async || cache.is_in_contact()).await;
    let away = &cluster.members()[cluster.owner("{chg}log")];
    let holds = |key: &str| away.server.port() == cluster.members()[cluster.owner(key)].server.port();
    let mut found = None;
    for number in 0..60 {
        let session = session(number, &format!("user-{number}"));
        storage.sessions().create(&session, &tokens("a")).await.unwrap();
        let (name, part) = (BASE64.encode(session.handle.as_bytes()), session.handle.as_bytes()[31] % 16);
        let users = away.server.cli(&["--scan", "--pattern", "u:*"]);
        let own = |user: &str| away.server.cli(&["ZRANGE", user, "0", "0"]) == name;
        if !holds(&name) && !holds(&format!("{part:x}")) && !users.lines().any(own) {
            found = Some((number, session));
            break;
        }
    }
    let (number, mut session) = found.unwrap();
    let kept = cache.load(&id(number), at(1), Duration::ZERO).await.unwrap();
    assert!(matches!(kept, Loaded::Found(_)), "{kept:?}");

    away.relay.set(Traffic::Held);
    session.user.name = Some("Renamed".to_owned());
    let begun = Instant::now();
    let committed = storage.sessions().commit(&session.handle, 1, &session, &tokens("b")).await.unwrap();
    assert_eq!(committed, Committed::Saved(2));
    assert!(begun.elapsed() < PATIENT / 2, "it waited: {:?}", begun.elapsed());
    // For longer than one attempt to tell it takes.
    let own: std::sync::Arc<SessionCache> = storage.cache(CacheConfig::default());
    until("that is noticed", async || !cache.is_in_contact() && !own.is_in_contact()).await;
    let begun = Instant::now();
    let found = storage.sessions().load(&session.handle, at(1)).await.unwrap();
    assert!(matches!(found, Lookup::Found(_)), "{found:?}");
    assert!(begun.elapsed() < PATIENT / 2, "a look waited: {:?}", begun.elapsed());
    away.relay.set(Traffic::Passes);
    until("the edge knows that its copy is outdated", async || {
        cache.is_in_contact() && matches!(cache.get(&id(number), at(2), Duration::ZERO), Cached::Miss)
    })
    .await;
    edge.close().await;
    storage.close().await;
}
