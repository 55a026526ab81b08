//! Reads and writes of sessions at a steady pace, whatever becomes of those before: a server that stalls makes them late, not
//! fewer.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use postern_identity::Session;
use postern_storage::{Committed, Lookup, Sessions, StorageError};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::shards::Shards;
use crate::people::{Person, now};

/// One operation.
#[derive(Debug, Clone)]
pub(super) struct Record {
    /// Which server has all that it was about.
    pub(super) server: usize,
    pub(super) writes: bool,
    pub(super) began: Instant,
    pub(super) took: Duration,
    /// Why it failed, if it did.
    pub(super) failed: Option<String>,
}

impl Record {
    pub(super) fn ended(&self) -> Instant {
        self.began + self.took
    }
}

/// Load that goes on until it is stopped.
#[derive(Debug)]
pub(super) struct Load {
    records: Arc<Mutex<Vec<Record>>>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// A session that is read and written, and its generation.
#[derive(Debug)]
struct Worked {
    person: Person,
    generation: AtomicU64,
}

impl Load {
    /// Begins, with as much for each server.
    pub(super) fn start(sessions: &Sessions, shards: &Shards) -> Self {
        let load = Self { records: Arc::default(), stop: CancellationToken::new(), tasks: TaskTracker::new() };
        for (server, people) in &shards.whole {
            let worked = |person: &Person| Arc::new(Worked { person: person.clone(), generation: AtomicU64::new(1) });
            let people = people.iter().map(worked).collect();
            load.tasks.spawn(pace(sessions.clone(), *server, people, load.clone_parts()));
        }
        load
    }

    fn clone_parts(&self) -> Self {
        Self { records: Arc::clone(&self.records), stop: self.stop.clone(), tasks: self.tasks.clone() }
    }

    /// Ends, and waits for what is under way.
    pub(super) async fn stop(self) -> Vec<Record> {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        std::mem::take(&mut *self.records.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn note(&self, record: Record) {
        self.records.lock().unwrap_or_else(PoisonError::into_inner).push(record);
    }
}

/// Each of them in turn; every fifth operation writes.
async fn pace(sessions: Sessions, server: usize, people: Vec<Arc<Worked>>, load: Load) {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    for (number, worked) in (0_u64..).zip(people.iter().cycle()) {
        tokio::select! {
            () = load.stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let (sessions, worked, notes, writes) =
            (sessions.clone(), Arc::clone(worked), load.clone_parts(), number % 5 == 4);
        load.tasks.spawn(async move {
            let began = Instant::now();
            let done = if writes { write(&sessions, &worked).await } else { read(&sessions, &worked).await };
            let failed = done.map_or_else(
                |error| Some(error.to_string()),
                |there| (!there).then(|| "the session is gone".to_owned()),
            );
            notes.note(Record { server, writes, began, took: began.elapsed(), failed });
        });
    }
}

/// Whether it is there: nobody ended it.
async fn read(sessions: &Sessions, worked: &Worked) -> Result<bool, StorageError> {
    let found = sessions.load(&worked.person.session.handle, now()).await?;
    if let Lookup::Found(session) = &found {
        worked.generation.fetch_max(session.generation, Ordering::Relaxed);
    }
    Ok(matches!(found, Lookup::Found(_)))
}

/// A refresh. That another one came first is no failure.
async fn write(sessions: &Sessions, worked: &Worked) -> Result<bool, StorageError> {
    let (person, generation) = (&worked.person, worked.generation.load(Ordering::Relaxed));
    let session = Session { generation, ..person.session.clone() };
    let committed = sessions.commit(&session.handle, generation, &session, &person.tokens()).await?;
    if let Committed::Saved(next) = committed {
        worked.generation.fetch_max(next, Ordering::Relaxed);
    }
    Ok(committed != Committed::Ended)
}

/// A hundred a second for each server.
const EVERY: Duration = Duration::from_millis(10);
