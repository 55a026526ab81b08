//! Those who ask, at a pace that is given.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tokio::task::JoinSet;
use tokio::time::{sleep, sleep_until, timeout};

use crate::compare::{Dial, Stream};

/// Connections to some edges.
pub(crate) struct Clients {
    dials: Vec<Dial>,
    /// For each edge as many.
    streams: Vec<Vec<Stream>>,
}

/// A request.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    /// Of the edges, by its place.
    pub(crate) edge: usize,
    pub(crate) request: Arc<str>,
    /// Over a new connection, in the place of one that ends.
    pub(crate) fresh: bool,
}

/// For each edge.
const CONNECTIONS: usize = 32;
const PATIENCE: Duration = Duration::from_secs(20);
/// A request that is answered only after this is not answered.
const LONGEST: Duration = Duration::from_secs(60);
const A_MOMENT: Duration = Duration::from_millis(50);
/// A pace that is not kept says little of what a pace costs.
const LATE: f64 = 1.2;
/// Of so many requests one may fail.
const SELDOM: usize = 50;

impl Clients {
    pub(crate) async fn connect(dials: Vec<Dial>) -> Result<Self> {
        let mut streams = Vec::new();
        for dial in &dials {
            let mut own = Vec::new();
            for _ in 0..CONNECTIONS {
                own.push(dial.connect().await?);
            }
            streams.push(own);
        }
        Ok(Self { dials, streams })
    }

    /// Asks so many times a second, each when it is due or as soon after that as it can; gives the time that it took. What fails
    /// is asked once more, as a machine that is busy may need it; if that is often, nothing is measured here.
    pub(crate) async fn ask(&mut self, jobs: Vec<Job>, rate: f64) -> Result<Duration> {
        let (began, count) = (Instant::now(), jobs.len());
        let planned = u32::try_from(count).map_or(0.0, f64::from) / rate;
        let mut clients = JoinSet::new();
        let queues = queues(jobs, self.dials.len(), rate);
        for (edge, (queues, streams)) in queues.into_iter().zip(&mut self.streams).enumerate() {
            let dial = self.dials.get(edge).context("an edge that is not there")?;
            for (queue, stream) in queues.into_iter().zip(std::mem::take(streams)) {
                clients.spawn(one(dial.clone(), stream, began, queue, edge));
            }
        }
        let mut failed = 0;
        while let Some(ended) = clients.join_next().await {
            let (edge, stream, again) = ended??;
            self.streams.get_mut(edge).context("an edge that is not there")?.push(stream);
            failed += again;
        }
        ensure!(failed * SELDOM <= count, "{failed} of {count} requests failed: this machine has too much to do");
        let took = began.elapsed();
        if planned > 1.0 && took.as_secs_f64() > planned * LATE {
            eprintln!(
                "it took {took:.1?} in the place of {planned:.1} s: the figures are of a machine that has too much to do"
            );
        }
        Ok(took)
    }
}

/// What one connection is to ask, and when.
type Queue = VecDeque<(Duration, Job)>;

/// For each edge that of each connection.
fn queues(jobs: Vec<Job>, edges: usize, rate: f64) -> Vec<Vec<Queue>> {
    let mut queues = vec![vec![Queue::new(); CONNECTIONS]; edges];
    let mut turns = vec![0_usize; edges];
    for (number, job) in (0_u32..).zip(jobs) {
        let due = Duration::from_secs_f64(f64::from(number) / rate);
        if let (Some(queues), Some(turn)) = (queues.get_mut(job.edge), turns.get_mut(job.edge)) {
            *turn += 1;
            if let Some(queue) = queues.get_mut(*turn % CONNECTIONS) {
                queue.push_back((due, job));
            }
        }
    }
    queues
}

/// Gives the connection back, and how many requests had to be repeated.
async fn one(
    dial: Dial,
    mut stream: Stream,
    began: Instant,
    queue: Queue,
    edge: usize,
) -> Result<(usize, Stream, usize)> {
    let (mut buffer, mut again) = (Vec::new(), 0);
    for (due, job) in queue {
        sleep_until((began + due).into()).await;
        let mut fresh = job.fresh;
        loop {
            let once = async {
                if fresh {
                    stream = dial.connect().await?;
                }
                dial.exchange(&job.request, &mut stream, &mut buffer).await
            };
            let outcome = timeout(PATIENCE, once).await.context("no answer within 20 s").and_then(|answered| answered);
            match outcome {
                Ok(false) => break,
                Ok(true) => {
                    stream = dial.connect().await?;
                    break;
                }
                Err(error) if began.elapsed() > due + LONGEST => return Err(error),
                Err(_) => {
                    (fresh, again) = (true, again + 1);
                    sleep(A_MOMENT).await;
                }
            }
        }
    }
    Ok((edge, stream, again))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_due_at_the_rate_of_all_edges_and_each_connection_has_its_turn() {
        let job = |edge| Job { edge, request: Arc::from(""), fresh: false };
        let queues = queues((0..200).map(|number| job(number % 2)).collect(), 2, 10.0);
        let due: Vec<_> = queues[1].iter().flatten().map(|(due, _)| *due).collect();
        assert_eq!((due.len(), due.iter().max()), (100, Some(&Duration::from_millis(19_900))));
        assert!(queues.iter().flatten().all(|queue| (3..=4).contains(&queue.len())), "100 for 32 connections");
    }
}
