//! An edge that has just started, a process of its own, under the requests of people who are signed in.

use std::ops::Sub;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use postern_servers::Cluster;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::compare::{Dial, build};
use crate::edge::{Edge, Provider, application, cluster_url};
use crate::installation::{Installation, OPTIONS, on_cluster};
use crate::people::Person;
use crate::table::{Goal, Seen, Table, millis, shown};

/// How long, and of what.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// For a shorter time
    #[arg(long)]
    quick: bool,
    /// The binary of Postern; built as a release if none is named
    #[arg(long, value_name = "FILE")]
    postern: Option<PathBuf>,
}

const PEOPLE: usize = 1_000;
/// People whose first request waits for nobody else's.
const ALONE: usize = 500;
/// A second.
const REQUESTS: usize = 2_000;
/// Connections, on which requests are due in turn.
const CLIENTS: usize = 64;

/// Measures it.
pub(crate) async fn run(options: &Options) -> Result<Table> {
    let binary = tokio::task::block_in_place(|| options.postern.clone().map_or_else(build, Ok))?;
    let cluster = tokio::task::block_in_place(|| Cluster::start_plain(Duration::from_secs(2), &OPTIONS));
    let installation = Installation::start(&on_cluster(&cluster), 0).await?;
    let provider = Provider::start().await?;
    let people = installation.sign_in_at(PEOPLE, &provider.idp(), Person::tokens).await?;
    let alone = installation.sign_in_at(ALONE, &provider.idp(), Person::tokens).await?;
    let start = || Edge::start(Command::new(&binary), &cluster_url(&cluster), &provider, application()?, "");
    let edge = tokio::task::block_in_place(start)?;
    let dial = edge.dial()?;
    let mut streams = Vec::new();
    for _ in 0..CLIENTS {
        streams.push(dial.connect().await?);
    }
    edge.is_ready().await?;
    let before = tokio::task::block_in_place(|| Reads::of(&cluster))?;
    let requests: Arc<[String]> = people.iter().map(|person| edge.request(person, 5)).collect();
    let (took, failures) = ask(&dial, streams, &requests, if options.quick { 2 } else { 5 } * REQUESTS).await;
    let read = tokio::task::block_in_place(|| Reads::of(&cluster))? - before;
    let first_alone = one_by_one(&edge, &alone).await?;
    installation.end().await;
    for failure in failures.iter().take(5) {
        eprintln!("{failure}");
    }

    let mut table = Table::of_goals();
    let (what, some) = (format!("{REQUESTS} requests a second of {PEOPLE} people"), |seen: &Seen| {
        [50, 99, 100].map(|percent| shown(seen.percentile(percent), 2)).join(", ")
    });
    for (of, count) in [("sessions", read.sessions), ("ends of users", read.ends())] {
        let judged = Some(f64::from(u32::try_from(count)?));
        table.goal(format!("{what}: {of} read from the store"), count.to_string(), Goal::Exactly(PEOPLE), true, judged);
    }
    table.zero(format!("{what}: requests to the provider"), provider.asked());
    table.zero(format!("{what}: failed"), failures.len());
    let first: Seen = took.iter().take(PEOPLE).copied().collect();
    let all: Seen = took.iter().copied().collect();
    let answer = "ms to the answer, p50, p99, most";
    table.goal(format!("the first {PEOPLE}: {answer}"), some(&first), Goal::AtMost(50.0), true, first.percentile(99));
    table.goal(format!("all {}: {answer}", took.len()), some(&all), Goal::AtMost(50.0), true, all.percentile(99));
    let what = format!("{ALONE} others, one after the other, the first request of each: {answer}");
    table.goal(what, some(&first_alone), Goal::AtMost(2.0), true, first_alone.percentile(99));
    Ok(table)
}

/// How long the first request of each of these takes in ms, while nobody else asks.
async fn one_by_one(edge: &Edge, people: &[Person]) -> Result<Seen> {
    let (dial, mut buffer, mut took) = (edge.dial()?, Vec::new(), Vec::new());
    let mut stream = dial.connect().await?;
    for person in people {
        let (request, began) = (edge.request(person, 5), Instant::now());
        dial.exchange(&request, &mut stream, &mut buffer).await?;
        took.push(millis(began.elapsed()));
    }
    Ok(took.into_iter().collect())
}

/// So many requests at a steady pace, each person in turn: how long each took from when it was due, in their order, and what
/// failed.
async fn ask(
    dial: &Dial,
    streams: Vec<crate::compare::Stream>,
    requests: &Arc<[String]>,
    count: usize,
) -> (Vec<f64>, Vec<String>) {
    let (began, mut clients) = (Instant::now(), JoinSet::new());
    let pause = Duration::from_secs(1) / u32::try_from(REQUESTS).unwrap_or(1);
    for (client, mut stream) in streams.into_iter().enumerate() {
        let (dial, requests) = (dial.clone(), Arc::clone(requests));
        clients.spawn(async move {
            let (mut took, mut failures, mut buffer) = (Vec::new(), Vec::new(), Vec::new());
            for number in (client..count).step_by(CLIENTS) {
                let due = began + pause * u32::try_from(number).unwrap_or(u32::MAX);
                tokio::time::sleep_until(due.into()).await;
                let Some(request) = requests.get(number % requests.len()) else { continue };
                match timeout(Duration::from_secs(10), dial.exchange(request, &mut stream, &mut buffer)).await {
                    Ok(Ok(false)) => {}
                    outcome => {
                        match outcome {
                            Ok(Ok(_closed)) => {}
                            Ok(Err(error)) => failures.push(format!("request {number}: {error:#}")),
                            Err(_) => failures.push(format!("request {number}: no answer within 10 s")),
                        }
                        match dial.connect().await {
                            Ok(other) => stream = other,
                            Err(error) => {
                                failures.push(format!("connecting anew: {error:#}"));
                                return (took, failures);
                            }
                        }
                    }
                }
                took.push((number, millis(due.elapsed())));
            }
            (took, failures)
        });
    }
    let (took, failures): (Vec<_>, Vec<_>) = clients.join_all().await.into_iter().unzip();
    let mut took: Vec<_> = took.into_iter().flatten().collect();
    took.sort_by_key(|(number, _)| *number);
    (took.into_iter().map(|(_, took)| took).collect(), failures.into_iter().flatten().collect())
}

/// What all servers have given out.
#[derive(Debug, Clone, Copy, Default)]
struct Reads {
    sessions: usize,
    values: usize,
    /// While nobody signs in all of them are heartbeats, each of which reads a value.
    scripts: usize,
}

impl Reads {
    fn of(cluster: &Cluster) -> Result<Self> {
        let mut reads = Self::default();
        for member in cluster.members() {
            let info = member.bare()?.call(&["INFO", "commandstats"])?;
            let calls = |command: &str| -> Result<usize> {
                let mark = format!("cmdstat_{command}:calls=");
                let Some(line) = info.text().lines().find_map(|line| line.strip_prefix(&mark)) else { return Ok(0) };
                Ok(line.split(',').next().context("no number of calls")?.parse()?)
            };
            reads.sessions += calls("hmget")?;
            reads.values += calls("get")?;
            reads.scripts += calls("evalsha")? + calls("eval")?;
        }
        Ok(reads)
    }

    /// Before when a user's sessions are over.
    const fn ends(self) -> usize {
        self.values.saturating_sub(self.scripts)
    }
}

impl Sub for Reads {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            sessions: self.sessions - before.sessions,
            values: self.values - before.values,
            scripts: self.scripts - before.scripts,
        }
    }
}
