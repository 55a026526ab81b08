//! Repeats what a fact asks of the records. Whoever wrote the fact may have gone away before it marked them, and a failover
//! may have brought back what was marked.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::StorageError;
use crate::invalidation::Fact;
use crate::metrics::Metrics;

/// Who can mark records.
#[async_trait]
pub(crate) trait Mark: Send + Sync + 'static {
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
                () = work(marks, facts, own) => {}
            }
        };
        (repair, work)
    }

    /// Has a fact looked at in a while: by then whoever wrote it has mostly done it.
    pub(crate) fn later(&self, fact: Fact) {
        if fact.denies() && self.queue.try_send((Instant::now() + DELAY, fact)).is_err() {
            self.metrics.repairs_dropped.inc();
        }
    }
}

async fn work(marks: impl Mark, mut facts: mpsc::Receiver<(Instant, Fact)>, metrics: Arc<Metrics>) {
    while let Some((due, fact)) = facts.recv().await {
        tokio::time::sleep_until(due).await;
        for attempt in 1..=ATTEMPTS {
            match marks.mark(fact).await {
                Ok(true) => metrics.repairs.inc(),
                Ok(false) => {}
                Err(error) if attempt < ATTEMPTS => {
                    debug!(%error, attempt, "a record could not be repaired yet");
                    tokio::time::sleep(DELAY).await;
                    continue;
                }
                Err(_) => metrics.repairs_dropped.inc(),
            }
            break;
        }
    }
}

/// Facts that may wait: a quarter of an hour of sign-outs of a million sessions.
const QUEUE: usize = 20_000;
const DELAY: Duration = Duration::from_secs(5);
/// So many times a fact is tried: a failover takes no longer.
const ATTEMPTS: u32 = 6;
