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
    /// Whether something was gone that the store had said it has.
    pub(super) lost: bool,
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
    worked: Vec<(usize, Arc<Worked>)>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// A session that is read and written.
#[derive(Debug)]
struct Worked {
    person: Person,
    /// Its generation, as it was seen last.
    generation: AtomicU64,
    /// The latest one that the store has said yes to.
    acknowledged: AtomicU64,
}

/// How an operation ended that the store answered.
#[derive(Debug, PartialEq, Eq)]
enum Ended {
    Well,
    /// What the store had said it has is gone.
    Lost(String),
}

impl Load {
    /// Begins, with as much for each server.
    pub(super) fn start(sessions: &Sessions, shards: &Shards) -> Self {
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let mut load = Self { records: Arc::default(), worked: Vec::new(), stop, tasks };
        for (server, people) in &shards.whole {
            let worked: Vec<_> = people.iter().map(|person| Arc::new(Worked::new(person))).collect();
            load.worked.extend(worked.iter().map(|worked| (*server, Arc::clone(worked))));
            load.tasks.spawn(pace(sessions.clone(), *server, worked, load.clone_parts()));
        }
        load
    }

    fn clone_parts(&self) -> Self {
        let (stop, tasks) = (self.stop.clone(), self.tasks.clone());
        Self { records: Arc::clone(&self.records), worked: Vec::new(), stop, tasks }
    }

    /// Ends, waits for what is under way, and looks at every session once more.
    pub(super) async fn stop(self, sessions: &Sessions) -> Vec<Record> {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        for (server, worked) in &self.worked {
            let began = Instant::now();
            let read = loop {
                match read(sessions, worked).await {
                    Err(error) if began.elapsed() > PATIENCE => break Ended::Lost(error.to_string()),
                    Err(_) => tokio::time::sleep(EVERY).await,
                    Ok(read) => break read,
                }
            };
            // One that fails counts; that all is well now says nothing of when it was.
            if let Ended::Lost(why) = read {
                let took = began.elapsed();
                self.note(Record { server: *server, writes: false, began, took, failed: Some(why), lost: true });
            }
        }
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
            let (failed, lost) = match done {
                Ok(Ended::Well) => (None, false),
                Ok(Ended::Lost(why)) => (Some(why), true),
                Err(error) => (Some(error.to_string()), false),
            };
            notes.note(Record { server, writes, began, took: began.elapsed(), failed, lost });
        });
    }
}

impl Worked {
    fn new(person: &Person) -> Self {
        Self { person: person.clone(), generation: AtomicU64::new(1), acknowledged: AtomicU64::new(1) }
    }

    /// What was found after the store had said yes to `acknowledged`.
    fn judge(&self, acknowledged: u64, found: &Lookup) -> Ended {
        let Lookup::Found(session) = found else {
            return Ended::Lost("the session is gone, and nobody ended it".to_owned());
        };
        self.generation.store(session.generation, Ordering::SeqCst);
        if session.generation < acknowledged {
            let found = session.generation;
            return Ended::Lost(format!("a refresh is lost: generation {found} after {acknowledged} was acknowledged"));
        }
        Ended::Well
    }
}

/// Whether it is there, with all that the store has said it has.
async fn read(sessions: &Sessions, worked: &Worked) -> Result<Ended, StorageError> {
    let acknowledged = worked.acknowledged.load(Ordering::SeqCst);
    let found = sessions.load(&worked.person.session.handle, now()).await?;
    Ok(worked.judge(acknowledged, &found))
}

/// A refresh. That another one came first is no failure, if what is there then is not older than what was acknowledged.
async fn write(sessions: &Sessions, worked: &Worked) -> Result<Ended, StorageError> {
    let (person, generation) = (&worked.person, worked.generation.load(Ordering::SeqCst));
    let session = Session { generation, ..person.session.clone() };
    match sessions.commit(&session.handle, generation, &session, &person.tokens()).await? {
        Committed::Saved(next) => {
            worked.acknowledged.fetch_max(next, Ordering::SeqCst);
            worked.generation.fetch_max(next, Ordering::SeqCst);
            Ok(Ended::Well)
        }
        Committed::Moved | Committed::Ended => read(sessions, worked).await,
    }
}

/// A hundred a second for each server.
const EVERY: Duration = Duration::from_millis(10);
/// How long a server may take to answer once all is over.
const PATIENCE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generation_that_goes_back_behind_what_was_acknowledged_is_lost() {
        let person = Person::new(1).unwrap();
        let found = |generation| Lookup::Found(Arc::new(Session { generation, ..person.session.clone() }));
        let worked = Worked::new(&person);
        assert_eq!(worked.judge(3, &found(4)), Ended::Well, "one that nobody was told of");
        assert_eq!(worked.judge(3, &found(3)), Ended::Well, "and that is gone again");
        let Ended::Lost(why) = worked.judge(3, &found(2)) else { panic!("it is well") };
        assert!(why.contains("generation 2 after 3"), "{why}");
        assert!(matches!(worked.judge(1, &Lookup::Unknown), Ended::Lost(_)));
        assert_eq!(worked.generation.load(Ordering::SeqCst), 2, "the next refresh begins with what is there");
    }
}
