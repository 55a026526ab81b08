//! What one shard that does not answer must not do to what belongs to others.

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use futures_util::stream::{self, StreamExt as _};
use postern_identity::Session;
use postern_servers::{Cluster, Member, Traffic};
use postern_storage::{
    CacheConfig, Loaded, Lookup, RedisConfig, Server, SessionCache, Storage, StorageConfig, Topology,
};
use prometheus::Registry;

use crate::support::{at, id, idle, keyring, session, tokens, until};

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
