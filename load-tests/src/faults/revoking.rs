//! Revocations while something is wrong: each is repeated until the store says yes, as authn does, and from then on every
//! edge is held to what is promised.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;
use postern_storage::{Cached, Loaded, Lookup, SessionCache, Sessions};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::installation::{Installation, LEASE, UNCONFIRMED};
use crate::people::{Person, now};
use crate::table::{Seen, millis};

/// Revocations under way.
#[derive(Debug)]
pub(super) struct Revoking {
    stop: CancellationToken,
    tasks: TaskTracker,
    said: Arc<Said>,
    watching: JoinHandle<Vec<Watched>>,
}

/// What the store said so far.
#[derive(Debug, Default)]
struct Said {
    sent: AtomicUsize,
    refused: AtomicUsize,
    yes: Mutex<Vec<(Person, Instant)>>,
}

/// A revocation that the store has taken, and one edge.
#[derive(Debug)]
struct Watched {
    person: Person,
    edge: usize,
    taken: Instant,
    heard: Option<Instant>,
    /// When it was served last on a route whose static window is [`WINDOW`], and on a strict one.
    served: [Option<Instant>; 2],
}

/// What became of all revocations.
#[derive(Debug)]
pub(super) struct Revoked {
    pub(super) sent: usize,
    /// Those that the store did not take at once.
    pub(super) refused: usize,
    /// Milliseconds from the store's yes to the last edge that heard of it.
    pub(super) heard: Seen,
    /// Sessions that an edge served for longer than is promised.
    pub(super) late: usize,
    /// Revocations that the store had taken, and knows nothing of in the end, or an edge.
    pub(super) lost: usize,
}

/// The static window of one of the routes; the other one's is nothing.
const WINDOW: Duration = Duration::from_secs(2);
const WINDOWS: [Duration; 2] = [WINDOW, Duration::ZERO];
/// What this machine may take to look.
const TOLERATED: Duration = Duration::from_millis(100);
const EVERY: Duration = Duration::from_millis(50);

impl Revoking {
    /// Begins to end these people's sessions, one after the other.
    pub(super) fn start(installation: &Installation, people: Vec<Person>) -> Self {
        let (stop, tasks, said) = (CancellationToken::new(), TaskTracker::new(), Arc::<Said>::default());
        let caches = installation.edges.iter().map(|edge| Arc::clone(&edge.cache)).collect();
        let watching = tokio::spawn(watch(caches, Arc::clone(&said), stop.clone()));
        let sessions = installation.writer.sessions();
        tasks.spawn(pace(sessions, people, Arc::clone(&said), (stop.clone(), tasks.clone())));
        Self { stop, tasks, said, watching }
    }

    /// Sends no more, waits until all that was sent has been taken and heard of, and looks at what the store knows.
    pub(super) async fn stop(self, installation: &Installation) -> Result<Revoked> {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        let watched = self.watching.await?;
        installation.in_contact(Duration::from_secs(30)).await?;
        let mut revoked = Revoked {
            sent: self.said.sent.load(Ordering::SeqCst),
            refused: self.said.refused.load(Ordering::SeqCst),
            heard: watched_by_all(&watched),
            late: watched.iter().filter(|watched| watched.is_late()).count(),
            lost: watched.iter().filter(|watched| watched.heard.is_none()).count(),
        };
        let taken = self.said.taken();
        for (person, _) in &taken {
            if let Lookup::Found(_) = installation.writer.sessions().load(&person.session.handle, now()).await? {
                revoked.lost += 1;
            }
            for edge in &installation.edges {
                if let Ok(Loaded::Found(_)) = edge.cache.load(&person.id, now(), Duration::ZERO).await {
                    revoked.lost += 1;
                }
            }
        }
        revoked.lost += revoked.sent - taken.len();
        Ok(revoked)
    }
}

impl Said {
    fn taken(&self) -> Vec<(Person, Instant)> {
        self.yes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Watched {
    fn is_late(&self) -> bool {
        WINDOWS.iter().zip(self.served).any(|(window, served)| {
            let bound = LEASE + UNCONFIRMED + *window + TOLERATED;
            served.is_some_and(|served| served.saturating_duration_since(self.taken) > bound)
        })
    }
}

/// Of each revocation that every edge has heard of, how long that took in milliseconds.
fn watched_by_all(watched: &[Watched]) -> Seen {
    let mut slowest = std::collections::HashMap::new();
    for watched in watched {
        let Some(heard) = watched.heard else { continue };
        let took = heard.saturating_duration_since(watched.taken);
        let slow = slowest.entry(watched.person.session.handle).or_insert(took);
        *slow = took.max(*slow);
    }
    slowest.into_values().map(millis).collect()
}

async fn pace(
    sessions: Sessions,
    people: Vec<Person>,
    said: Arc<Said>,
    (stop, tasks): (CancellationToken, TaskTracker),
) {
    let mut ticks = tokio::time::interval(EVERY);
    for person in people {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        said.sent.fetch_add(1, Ordering::SeqCst);
        tasks.spawn(revoke(sessions.clone(), person, Arc::clone(&said)));
    }
}

/// Until the store says yes, for half a minute at most.
async fn revoke(sessions: Sessions, person: Person, said: Arc<Said>) {
    let (began, mut refused) = (Instant::now(), false);
    while began.elapsed() < Duration::from_secs(30) {
        if sessions.revoke(&person.session.handle).await.is_ok() {
            said.yes.lock().unwrap_or_else(PoisonError::into_inner).push((person, Instant::now()));
            break;
        }
        refused = true;
        tokio::time::sleep(EVERY).await;
    }
    said.refused.fetch_add(usize::from(refused), Ordering::SeqCst);
}

/// Looks at every edge again and again, until everything that was taken has been heard of, or for half a minute after the
/// last was sent.
async fn watch(caches: Vec<Arc<SessionCache>>, said: Arc<Said>, stop: CancellationToken) -> Vec<Watched> {
    let (mut all, mut open, mut known, mut over) = (Vec::new(), Vec::<Watched>::new(), 0, None);
    loop {
        let fresh = said.taken().split_off(known);
        known += fresh.len();
        for (person, taken) in fresh {
            let of_edge = |edge| Watched { person: person.clone(), edge, taken, heard: None, served: [None; 2] };
            open.extend((0..caches.len()).map(of_edge));
        }
        for watched in &mut open {
            let Some(cache) = caches.get(watched.edge) else { continue };
            look(cache, watched);
        }
        let (heard, waiting): (Vec<_>, Vec<_>) = open.into_iter().partition(|watched| watched.heard.is_some());
        all.extend(heard);
        open = waiting;
        if stop.is_cancelled() {
            let over = *over.get_or_insert_with(Instant::now);
            let complete = open.is_empty() && known == said.sent.load(Ordering::SeqCst);
            if complete || over.elapsed() > Duration::from_secs(35) {
                all.extend(open);
                return all;
            }
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn look(cache: &Arc<SessionCache>, watched: &mut Watched) {
    for (window, served) in WINDOWS.iter().zip(&mut watched.served) {
        match cache.get(&watched.person.id, now(), *window) {
            Cached::Hit(_) | Cached::Static(_) => *served = Some(Instant::now()),
            // One that was removed after it was heard of is asked of the store at the end.
            Cached::Revoked | Cached::Unknown | Cached::Miss => watched.heard = Some(Instant::now()),
            Cached::Unavailable => {}
        }
    }
}
