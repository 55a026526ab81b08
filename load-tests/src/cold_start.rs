//! An edge that knows nothing yet, under the requests of people who are signed in.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use postern_servers::Cluster;
use postern_storage::{Cached, Loaded, SessionCache};
use tokio::task::JoinSet;

use crate::installation::{Installation, OPTIONS, on_cluster};
use crate::people::{Person, now};
use crate::table::{Goal, Seen, Table, millis, shown};

const PEOPLE: usize = 1_000;
/// A second.
const REQUESTS: usize = 2_000;
const TICK: Duration = Duration::from_millis(1);

/// Measures it.
pub(crate) async fn run(quick: bool) -> Result<Table> {
    let cluster = tokio::task::block_in_place(|| Cluster::start_plain(Duration::from_secs(2), &OPTIONS));
    let installation = Installation::start(&on_cluster(&cluster), 1).await?;
    let people = installation.sign_in(PEOPLE).await?;
    let edge = installation.edges.first().context("no edge")?;
    let before = tokio::task::block_in_place(|| reads(&cluster))?;
    let (took, failed) = requests(&edge.cache, &people, if quick { 2 } else { 5 } * REQUESTS).await;
    let read = tokio::task::block_in_place(|| reads(&cluster))? - before;
    installation.end().await;

    let mut table = Table::of_goals();
    let (what, some) = (format!("{REQUESTS} requests a second of {PEOPLE} people"), |seen: &Seen| {
        [50, 99, 100].map(|percent| shown(seen.percentile(percent), 2)).join(", ")
    });
    let first: Seen = took.iter().take(PEOPLE).copied().collect();
    let all: Seen = took.iter().copied().collect();
    table.goal(format!("{what}: sessions read from the store"), read.to_string(), Goal::Exactly(PEOPLE), true, {
        Some(f64::from(u32::try_from(read)?))
    });
    table.goal(format!("{what}: failed"), failed.to_string(), Goal::AtMost(0.0), true, Some(f64::from(failed)));
    let identify = "ms to identify, p50, p99, most";
    table.goal(format!("the first {PEOPLE}: {identify}"), some(&first), Goal::AtMost(50.0), true, first.percentile(99));
    table.goal(format!("all {}: {identify}", took.len()), some(&all), Goal::AtMost(50.0), true, all.percentile(99));
    Ok(table)
}

/// So many requests at a steady pace, each person in turn; how long each took from when it was due, and how many failed.
async fn requests(cache: &Arc<SessionCache>, people: &[Person], count: usize) -> (Vec<f64>, u32) {
    let (mut ticks, mut asking) = (tokio::time::interval(TICK), JoinSet::new());
    for (number, person) in people.iter().cycle().take(count).enumerate() {
        if number % (REQUESTS / 1_000) == 0 {
            ticks.tick().await;
        }
        let (cache, id, due) = (Arc::clone(cache), person.id.clone(), Instant::now());
        asking.spawn(async move { (number, identify(&cache, &id).await, millis(due.elapsed())) });
    }
    let mut all = asking.join_all().await;
    all.sort_by_key(|(number, _, _)| *number);
    let failed = all.iter().filter(|(_, identified, _)| !identified).count();
    (all.into_iter().map(|(_, _, took)| took).collect(), u32::try_from(failed).unwrap_or(u32::MAX))
}

/// As the edge does it: from the cache, else from the store.
async fn identify(cache: &Arc<SessionCache>, id: &postern_identity::SessionId) -> bool {
    match cache.get(id, now(), Duration::ZERO) {
        Cached::Hit(_) => true,
        Cached::Miss => matches!(cache.load(id, now(), Duration::ZERO).await, Ok(Loaded::Found(_))),
        Cached::Static(_) | Cached::Unknown | Cached::Revoked | Cached::Unavailable => false,
    }
}

/// How many sessions all servers have given out.
fn reads(cluster: &Cluster) -> Result<usize> {
    let mut reads = 0;
    for member in cluster.members() {
        let info = member.bare()?.call(&["INFO", "commandstats"])?;
        let calls = info.text().lines().find_map(|line| line.strip_prefix("cmdstat_hmget:calls="));
        let Some(calls) = calls else { continue };
        let Some((calls, _)) = calls.split_once(',') else { bail!("no calls in {calls}") };
        reads += calls.parse::<usize>()?;
    }
    Ok(reads)
}
