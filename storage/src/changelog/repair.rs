//! Repeats what a fact asks of the records. Whoever wrote the fact may have gone away before it marked them, and a failover
//! may have brought back what was marked.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::StorageError;
use crate::config::Server;
use crate::invalidation::Fact;
use crate::metrics::Metrics;

/// Who can mark records.
#[async_trait]
pub(crate) trait Mark: Send + Sync + 'static {
    /// The server that has to answer for it, as far as is known.
    fn shard(&self, fact: Fact) -> Option<Server>;

    /// Marks what the fact speaks of, if it is not; gives whether it had to.
    async fn mark(&self, fact: Fact) -> Result<bool, StorageError>;
}

/// Facts that wait for their repair.
#[derive(Clone, Debug)]
pub(crate) struct Repair {
    queue: mpsc::Sender<(Instant, Fact)>,
    metrics: Arc<Metrics>,
}

impl Repair {
    /// Repairs in the background until told to stop.
    pub(crate) fn start(
        marks: impl Mark,
        metrics: Arc<Metrics>,
        stop: CancellationToken,
    ) -> (Self, impl Future<Output = ()>) {
        let (queue, facts) = mpsc::channel(QUEUE);
        let (repair, own) = (Self { queue, metrics: Arc::clone(&metrics) }, metrics);
        let work = async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = Work::new(marks, own, PACE).run(facts) => {}
            }
        };
        (repair, work)
    }

    /// Has a fact looked at in a while: by then whoever wrote it has mostly done it.
    pub(crate) fn later(&self, fact: Fact) {
        if fact.denies() && self.queue.try_send((Instant::now() + PACE.delay, fact)).is_err() {
            self.metrics.repairs_dropped.inc();
        }
    }
}

/// Each fact when its time has come, the shards side by side: one that does not answer holds up no other.
struct Work<M> {
    marks: Arc<M>,
    metrics: Arc<Metrics>,
    pace: Pace,
    /// Those whose time has not come, about in its order: each waits equally long.
    later: VecDeque<Job>,
    shards: HashMap<Option<Server>, Shard>,
    underway: JoinSet<(Job, Option<bool>)>,
}

#[derive(Clone, Copy)]
struct Job {
    due: Instant,
    fact: Fact,
    attempt: u32,
}

/// What is to be repaired on one server now.
struct Shard {
    ready: VecDeque<Job>,
    places: Arc<Semaphore>,
}

/// How patient it is.
#[derive(Clone, Copy)]
struct Pace {
    /// Before the first attempt, and between two.
    delay: Duration,
    /// One attempt, at most.
    within: Duration,
}

impl<M: Mark> Work<M> {
    fn new(marks: M, metrics: Arc<Metrics>, pace: Pace) -> Self {
        let (later, shards, underway) = (VecDeque::new(), HashMap::new(), JoinSet::new());
        Self { marks: Arc::new(marks), metrics, pace, later, shards, underway }
    }

    async fn run(mut self, mut facts: mpsc::Receiver<(Instant, Fact)>) {
        loop {
            let waiting = self.later.len() + self.shards.values().map(|shard| shard.ready.len()).sum::<usize>();
            self.metrics.repairs_waiting.set(i64::try_from(waiting).unwrap_or(i64::MAX));
            let due = self.later.front().map(|job| job.due);
            tokio::select! {
                Some((due, fact)) = facts.recv(), if waiting < QUEUE => {
                    self.later.push_back(Job { due, fact, attempt: 1 });
                }
                () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    if let Some(job) = self.later.pop_front() {
                        let shard = self.shards.entry(self.marks.shard(job.fact)).or_default();
                        shard.ready.push_back(job);
                    }
                }
                Some(ended) = self.underway.join_next() => self.note(ended.ok()),
                else => return,
            }
            self.begin();
        }
    }

    fn begin(&mut self) {
        for shard in self.shards.values_mut() {
            while let Some(job) = shard.ready.front().copied() {
                let Ok(place) = Arc::clone(&shard.places).try_acquire_owned() else { break };
                shard.ready.pop_front();
                let (marks, within) = (Arc::clone(&self.marks), self.pace.within);
                self.underway.spawn(async move {
                    let marked = tokio::time::timeout(within, marks.mark(job.fact)).await;
                    drop(place);
                    match marked {
                        Ok(Ok(had_to)) => (job, Some(had_to)),
                        Ok(Err(error)) => {
                            debug!(%error, job.attempt, "a record could not be repaired yet");
                            (job, None)
                        }
                        Err(_) => (job, None),
                    }
                });
            }
        }
        // A server that was replaced is not kept in mind.
        self.shards.retain(|_, shard| !shard.ready.is_empty() || shard.places.available_permits() < AT_ONCE);
    }

    fn note(&mut self, ended: Option<(Job, Option<bool>)>) {
        match ended {
            Some((_, Some(had_to))) => self.metrics.repairs.inc_by(u64::from(had_to)),
            Some((job, None)) if job.attempt < ATTEMPTS => {
                let due = Instant::now() + self.pace.delay;
                self.later.push_back(Job { due, attempt: job.attempt + 1, ..job });
            }
            Some((_, None)) | None => self.metrics.repairs_dropped.inc(),
        }
    }
}

impl Default for Shard {
    fn default() -> Self {
        Self { ready: VecDeque::new(), places: Arc::new(Semaphore::new(AT_ONCE)) }
    }
}

/// Facts that may wait: a quarter of an hour of sign-outs of a million sessions.
const QUEUE: usize = 20_000;
/// Repairs that are under way at one time on one server.
const AT_ONCE: usize = 8;
const PACE: Pace = Pace { delay: Duration::from_secs(5), within: Duration::from_secs(10) };
/// So many times a fact is tried: a failover takes no longer.
const ATTEMPTS: u32 = 6;

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use postern_identity::SessionHandle;

    use super::*;

    /// A store whose first server never answers, and whose second refuses.
    #[derive(Default)]
    struct Marks {
        asked: [AtomicUsize; 3],
    }

    fn number(fact: Fact) -> usize {
        let Fact::Revoked(handle) = fact else { panic!("{fact:?}") };
        usize::from(handle.as_bytes()[0])
    }

    #[async_trait]
    impl Mark for Arc<Marks> {
        fn shard(&self, fact: Fact) -> Option<Server> {
            Some(Server { host: "a".to_owned(), port: u16::try_from(number(fact)).unwrap() })
        }

        async fn mark(&self, fact: Fact) -> Result<bool, StorageError> {
            self.asked[number(fact)].fetch_add(1, Ordering::SeqCst);
            match number(fact) {
                0 => std::future::pending().await,
                1 => Err(StorageError::unavailable("no")),
                _ => Ok(true),
            }
        }
    }

    #[tokio::test]
    async fn r_007_repairs_of_one_shard_are_held_up_by_no_other() {
        let metrics = Arc::new(Metrics::register(&prometheus::Registry::new(), "none").unwrap());
        let marks = Arc::<Marks>::default();
        let pace = Pace { delay: Duration::from_millis(1), within: Duration::from_secs(3600) };
        let (queue, facts) = mpsc::channel(QUEUE);
        let work = tokio::spawn(Work::new(Arc::clone(&marks), Arc::clone(&metrics), pace).run(facts));
        let (own, others) = (AT_ONCE * 4, 100);
        for (shard, count) in [(0, own), (1, 1), (2, others)] {
            for _ in 0..count {
                let fact = Fact::Revoked(SessionHandle::from_bytes([shard; 32]));
                queue.send((Instant::now(), fact)).await.unwrap();
            }
        }
        let deadline = Instant::now() + Duration::from_secs(20);
        while metrics.repairs.get() < 100 || metrics.repairs_dropped.get() < 1 {
            assert!(Instant::now() < deadline, "{} repaired", metrics.repairs.get());
            tokio::task::yield_now().await;
        }
        let asked = marks.asked.each_ref().map(|asked| asked.load(Ordering::SeqCst));
        assert_eq!(asked, [AT_ONCE, 6, others], "one server has so many places, and each fact so many tries");
        work.abort();
    }

    #[tokio::test]
    async fn a_repair_that_never_ends_is_given_up() {
        let metrics = Arc::new(Metrics::register(&prometheus::Registry::new(), "none").unwrap());
        let pace = Pace { delay: Duration::from_millis(1), within: Duration::from_millis(1) };
        let (queue, facts) = mpsc::channel(QUEUE);
        queue.send((Instant::now(), Fact::Revoked(SessionHandle::from_bytes([0; 32])))).await.unwrap();
        drop(queue);
        Work::new(Arc::<Marks>::default(), Arc::clone(&metrics), pace).run(facts).await;
        assert_eq!((metrics.repairs.get(), metrics.repairs_dropped.get()), (0, 1));
    }
}
