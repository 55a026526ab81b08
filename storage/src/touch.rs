//! Last-seen times, gathered off the request path: the store sees one write a second, however many requests there are.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use postern_identity::{SessionHandle, Timestamp};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::backend::{Backend, Write};
use crate::metrics::Metrics;
use crate::record::Key;

/// What a look at a session tells the store, sooner or later or, under pressure, never.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Seen {
    /// It is in use: idleness ends it then, not earlier.
    Alive { handle: SessionHandle, idle_until: Timestamp },
    /// It was over at that time: a clock that jumps back must not revive it.
    Over { handle: SessionHandle, at: Timestamp },
}

/// Where looks are left. Never waits.
#[derive(Clone, Debug)]
pub(crate) struct Touches {
    queue: mpsc::Sender<Seen>,
    metrics: Arc<Metrics>,
}

impl Touches {
    /// The queue, and what is to be given to [`write_down`].
    pub(crate) fn new(metrics: Arc<Metrics>) -> (Self, mpsc::Receiver<Seen>) {
        let (queue, seen) = mpsc::channel(QUEUE);
        (Self { queue, metrics }, seen)
    }

    /// `false` if it was dropped.
    pub(crate) fn leave(&self, seen: Seen) -> bool {
        let left = self.queue.try_send(seen).is_ok();
        if !left {
            self.metrics.touches_dropped.inc();
        }
        left
    }
}

/// Writes looks down in batches, until told to stop; what waits then is still written.
pub(crate) async fn write_down(mut seen: mpsc::Receiver<Seen>, backend: Backend, stop: CancellationToken) {
    let mut batch = Vec::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            count = seen.recv_many(&mut batch, BATCH) => if count == 0 { return },
        }
        if batch.len() < BATCH {
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(GATHER) => {}
            }
            while batch.len() < BATCH {
                let Ok(next) = seen.try_recv() else { break };
                batch.push(next);
            }
        }
        write(&backend, batch.drain(..)).await;
    }
    seen.close();
    loop {
        write(&backend, batch.drain(..)).await;
        if seen.recv_many(&mut batch, BATCH).await == 0 {
            return;
        }
    }
}

async fn write(backend: &Backend, batch: impl Iterator<Item = Seen>) {
    let (mut touched, mut over) = (HashMap::<Key, i64>::new(), HashMap::<Key, i64>::new());
    for seen in batch {
        let (into, handle, at) = match seen {
            Seen::Alive { handle, idle_until } => (&mut touched, handle, idle_until),
            Seen::Over { handle, at } => (&mut over, handle, at),
        };
        let latest = into.entry(*handle.as_bytes()).or_insert(i64::MIN);
        *latest = (*latest).max(at.as_millis());
    }
    if touched.is_empty() && over.is_empty() {
        return;
    }
    let write = Write::Touch { touched: touched.into_iter().collect(), over: over.into_iter().collect() };
    if let Err(error) = backend.write(write).await {
        warn!(%error, "some last-seen times were lost");
    }
}

const QUEUE: usize = 8_192;
const BATCH: usize = 1_000;
const GATHER: Duration = Duration::from_secs(1);
