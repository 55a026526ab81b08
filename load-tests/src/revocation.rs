//! How soon the last of many edges refuses a session after the store said that it is ended, and after what became of the
//! connections in between.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use postern_servers::{Cluster, Member, Traffic};
use postern_storage::{Cached, SessionCache};
use tokio::task::JoinSet;

use crate::installation::{Edge, Installation, OPTIONS, on_cluster, patiently};
use crate::people::{Person, now};
use crate::table::{Goal, Seen, Table, millis, shown};

/// Measures all of it.
pub(crate) async fn run(edges: usize, quick: bool) -> Result<Table> {
    let few = if quick { 10 } else { 1 };
    let (many, some, races) = (300 / few, 100 / few, 10_000 / few);
    let mut table = Table::of_goals();
    let mut note = |what: &str, heard: &Heard| {
        let missing = if heard.missing == 0 { String::new() } else { format!("; {} never", heard.missing) };
        let after = |seen: &Seen| [50, 99, 100].map(|percent| shown(seen.percentile(percent), 1)).join(", ");
        let seen = format!("{} (from the call: {}){missing}", after(&heard.after_answer), after(&heard.after_call));
        let what = format!("{what}: ms until the last of {edges} edges refuses, p50, p99, most");
        table.goal(what, seen, WITHIN, heard.missing == 0, heard.after_answer.percentile(99));
    };

    let mut cluster = tokio::task::block_in_place(|| Cluster::start_plain(NODE_TIMEOUT, &OPTIONS));
    let installation = Installation::start(&on_cluster(&cluster), edges).await?;
    let people = installation.sign_in(many + 2 * some).await?;
    let (first, rest) = people.split_at(many);
    let (second, third) = rest.split_at(some);
    installation.know(first).await?;
    note(&format!("{many} revocations"), &revoke(&installation, first).await?);
    installation.know(second).await?;
    tokio::task::block_in_place(|| kill_connections(&cluster))?;
    note(&format!("{some} after all connections were killed"), &revoke(&installation, second).await?);
    let stale = race(&installation, races).await?;
    installation.know(third).await?;
    tokio::task::block_in_place(|| {
        let (master, _) = cluster.shard("{chg}log");
        cluster.members_mut()[master].server.kill();
    });
    note(&format!("{some} after the changelog's master died"), &revoke(&installation, third).await?);
    installation.end().await;
    drop(cluster);

    let cluster = tokio::task::block_in_place(|| Cluster::start(NODE_TIMEOUT, &OPTIONS));
    let installation = Installation::start(&on_cluster(&cluster), edges).await?;
    let people = installation.sign_in(some).await?;
    installation.know(&people).await?;
    set(&cluster, Traffic::Held);
    let dropped = async {
        tokio::time::sleep(Duration::from_secs(6)).await;
        set(&cluster, Traffic::Passes);
    };
    let (heard, ()) = tokio::join!(revoke(&installation, &people), dropped);
    note(&format!("{some} during 6 s of dropped packets"), &heard?);
    installation.end().await;

    let what = format!("{races} revocations that race with loads: sessions served a second after the answer");
    table.zero(what, stale);
    Ok(table)
}

/// What edges heard.
struct Heard {
    after_answer: Seen,
    after_call: Seen,
    missing: usize,
}

/// Ends these people's sessions, which all edges have just read, at a steady pace, each until the store says yes, and waits
/// until all edges have heard.
async fn revoke(installation: &Installation, people: &[Person]) -> Result<Heard> {
    let (sent, resets) = (Arc::new(AtomicUsize::new(0)), installation.resets());
    let caches: Vec<_> = installation.edges.iter().map(|edge| Arc::clone(&edge.cache)).collect();
    let (all, shared) = (people.to_vec(), Arc::clone(&sent));
    let hearing = tokio::task::spawn_blocking(move || hear(&caches, &all, &shared));
    let (mut ticks, mut revoking) = (tokio::time::interval(EVERY), JoinSet::new());
    for (number, person) in people.iter().enumerate() {
        ticks.tick().await;
        let (sessions, handle) = (installation.writer.sessions(), person.session.handle);
        sent.store(number + 1, Ordering::SeqCst);
        revoking.spawn(async move {
            let called = Instant::now();
            while sessions.revoke(&handle).await.is_err() {
                ensure!(called.elapsed() < PATIENCE, "the store never took a revocation");
                tokio::time::sleep(EVERY).await;
            }
            Ok((number, called, Instant::now()))
        });
    }
    let answers: Vec<_> = revoking.join_all().await.into_iter().collect::<Result<_>>()?;
    let heard = hearing.await?;
    // After a reset a copy is a miss too, and would be taken for a refusal.
    ensure!(installation.resets() <= resets, "an edge dropped copies of which it had heard nothing");
    let since = |from: &dyn Fn(&(usize, Instant, Instant)) -> Instant| {
        let heard = answers.iter().filter_map(|answer| Some((heard.get(answer.0)?.as_ref()?, from(answer))));
        heard.map(|(heard, from)| millis(heard.saturating_duration_since(from))).collect()
    };
    Ok(Heard {
        after_answer: since(&|(_, _, answered)| *answered),
        after_call: since(&|(_, called, _)| *called),
        missing: heard.iter().filter(|heard| heard.is_none()).count(),
    })
}

/// When the last edge refused each of those that were sent. Each edge has a copy that is not too old to be served, with or without
/// contact: one that has none any more has heard of its end, and swept it out.
fn hear(caches: &[Arc<SessionCache>], people: &[Person], sent: &AtomicUsize) -> Vec<Option<Instant>> {
    let waits = |person| Wait { person, edges: caches.iter().collect(), heard: None };
    let mut waits: Vec<_> = people.iter().map(waits).collect();
    let (began, mut last_sent) = (Instant::now(), Instant::now());
    loop {
        let sent = sent.load(Ordering::SeqCst);
        if sent < people.len() {
            last_sent = Instant::now();
        }
        let mut open = sent < people.len();
        for wait in waits.iter_mut().take(sent).filter(|wait| wait.heard.is_none()) {
            let is_young = began.elapsed() < YOUNG;
            let refuses = |cache: &Arc<SessionCache>| match cache.get(&wait.person.id, now(), LONG) {
                Cached::Revoked => true,
                // Swept out: a miss with contact, unavailable without. One that is older would look the same.
                Cached::Miss | Cached::Unavailable => is_young,
                Cached::Hit(_) | Cached::Static(_) | Cached::Unknown => false,
            };
            // Who refuses goes on to, so one that does not is enough to ask; those that hear need the processor.
            while wait.edges.pop_if(|cache| refuses(cache)).is_some() {}
            if wait.edges.is_empty() {
                wait.heard = Some(Instant::now());
            } else {
                open = true;
            }
        }
        if !open || last_sent.elapsed() > PATIENCE {
            return waits.into_iter().map(|wait| wait.heard).collect();
        }
        std::thread::sleep(Duration::from_micros(200));
    }
}

/// Somebody whose session is ended, and the edges of which it is not known that they have heard of it.
struct Wait<'h> {
    person: &'h Person,
    edges: Vec<&'h Arc<SessionCache>>,
    heard: Option<Instant>,
}

/// So many sessions that are loaded while they are ended; gives how many an edge serves a second later.
async fn race(installation: &Installation, count: usize) -> Result<u32> {
    let race = |number| async move {
        let person = Person::new(number)?;
        let sessions = installation.writer.sessions();
        patiently(async || sessions.create(&person.session, &person.tokens()).await).await?;
        let edges = installation.edges.iter().take(2);
        let loads = edges.clone().map(|edge| edge.cache.load(&person.id, now(), Duration::ZERO));
        let revoking = patiently(async || sessions.revoke(&person.session.handle).await);
        let (revoked, _whatever) = tokio::join!(revoking, futures_util::future::join_all(loads));
        revoked?;
        let (answered, mut serves) = (Instant::now(), true);
        while serves && answered.elapsed() < Duration::from_secs(1) {
            tokio::time::sleep(Duration::from_millis(1)).await;
            let cached = |edge: &Edge| edge.cache.get(&person.id, now(), Duration::ZERO);
            serves = edges.clone().any(|edge| matches!(cached(edge), Cached::Hit(_)));
        }
        anyhow::Ok(u32::from(serves))
    };
    let served: Vec<_> = stream::iter(0..count).map(race).buffer_unordered(16).try_collect().await?;
    Ok(served.into_iter().sum())
}

fn kill_connections(cluster: &Cluster) -> Result<()> {
    for mut bare in cluster.members().iter().map(Member::bare).collect::<Result<Vec<_>, _>>()? {
        bare.sure(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"])?;
    }
    Ok(())
}

fn set(cluster: &Cluster, traffic: Traffic) {
    cluster.members().iter().for_each(|member| member.relay.set(traffic));
}

/// Milliseconds for the slowest edge.
const WITHIN: Goal = Goal::AtMost(100.0);
/// As long as no copy is too old to be served (`CacheConfig::max_age`), those who read them being slow included.
const YOUNG: Duration = Duration::from_secs(45);
const NODE_TIMEOUT: Duration = Duration::from_secs(2);
const EVERY: Duration = Duration::from_millis(20);
const PATIENCE: Duration = Duration::from_secs(30);
const LONG: Duration = Duration::from_secs(60);
