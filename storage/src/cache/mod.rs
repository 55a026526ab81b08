//! Sessions near the request: copies in front of the store.
//!
//! A hit takes no lock, computes no MAC, and reads no clock where the caller gives a [`Moment`]. What happened to a session
//! since it was read, the [`Invalidation`] register tells at each look, so a revocation in this process is effective at once
//! and cannot be outrun by a load (S-084). Whatever is missing is loaded once, however many wait for it.

mod copies;
mod entry;
mod flight;
mod negatives;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use postern_identity::{CompactSession, Session, SessionId, Timestamp, Words, same};
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::contact::{self, Ages, Contact, Moment, Use};
use crate::invalidation::{Fate, Invalidation, Marks, Standing};
use crate::metrics::Metrics;
use crate::sessions::{Lookup, Sessions};
use crate::{StorageError, clock};

use copies::{Copies, Share};
use flight::{Flight, Id};
use negatives::{Negative, Negatives};

pub use entry::Entry;

/// How much is kept, and for how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheConfig {
    /// Sessions that are kept at most; about 380 bytes each of somebody in eight groups.
    pub max_entries: usize,
    /// How old an entry may become without being read again. From half of it on it is read again in the background.
    pub max_age: Duration,
    /// How long "there is none" is believed; at most a second is sensible.
    pub negative_life: Duration,
    /// How long a request waits for a load.
    pub load_deadline: Duration,
    /// Requests that may wait for loads at one time; more are refused at once.
    pub max_waiting: usize,
}

impl CacheConfig {
    /// How long a session is kept that nobody asks for: as long as it may be served in any case.
    fn kept(&self) -> Duration {
        (self.max_age * 2).max(self.max_age.saturating_add(LONGEST_WINDOW))
    }
}

/// No route serves what it knows for longer than this while nothing is heard of revocations.
pub const LONGEST_WINDOW: Duration = Duration::from_secs(300);

impl Default for CacheConfig {
    fn default() -> Self {
        Self {
            max_entries: 1_000_000,
            max_age: Duration::from_secs(60),
            negative_life: Duration::from_secs(1),
            load_deadline: Duration::from_millis(250),
            max_waiting: 4_096,
        }
    }
}

/// What the cache says of a session id, without leaving the process.
#[derive(Debug)]
pub enum Cached<X> {
    /// A live session.
    Hit(Arc<Entry<X>>),
    /// A session that was live when revocations were last heard of, not longer ago than the caller allows.
    Static(Arc<Entry<X>>),
    /// There was none a moment ago.
    Unknown,
    /// It was ended before its time.
    Revoked,
    /// Ask the store: [`SessionCache::load`].
    Miss,
    /// Nothing is heard of revocations, and what is known here is not to be served without.
    Unavailable,
}

/// What the store says of a session id.
#[derive(Debug)]
pub enum Loaded<X> {
    /// A live session.
    Found(Arc<Entry<X>>),
    /// The store did not answer; this session was live not longer ago than the caller allows.
    Static(Arc<Entry<X>>),
    /// There is none, or it has expired.
    Unknown,
    /// It was ended before its time.
    Revoked,
}

/// The face that the edge sees: reads sessions, and writes nothing but when they were last seen.
///
/// `X` is what the edge keeps beside each session, such as its signed assertions; it lives exactly as long as the
/// session's content stays the same.
#[derive(Debug)]
pub struct SessionCache<X: Send + Sync + 'static = ()> {
    entries: Copies<X>,
    words: Arc<Words>,
    negatives: Negatives,
    flights: Mutex<HashMap<Id, Flight<X>>>,
    waiting: Semaphore,
    crowded: Arc<Notify>,
    config: CacheConfig,
    sessions: Sessions,
    invalidation: Arc<Invalidation>,
    contact: Arc<Contact>,
    metrics: Arc<Metrics>,
}

/// What the world was like before the store was asked.
#[derive(Clone, Copy, Debug)]
struct Asked {
    now: Timestamp,
    resets: u32,
    facts: u64,
}

impl<X: Default + Send + Sync + 'static> SessionCache<X> {
    pub(crate) fn new(
        config: CacheConfig,
        sessions: Sessions,
        (invalidation, contact): (Arc<Invalidation>, Arc<Contact>),
        metrics: Arc<Metrics>,
    ) -> Self {
        metrics.capacity.set(i64::try_from(config.max_entries).unwrap_or(i64::MAX));
        Self {
            entries: Copies::default(),
            words: Arc::default(),
            negatives: Negatives::new(config.negative_life),
            flights: Mutex::default(),
            waiting: Semaphore::new(config.max_waiting.min(Semaphore::MAX_PERMITS)),
            crowded: Arc::default(),
            config,
            sessions,
            invalidation,
            contact,
            metrics,
        }
    }

    /// Says that a session of this id may be asked for soon: the first of two waits for memory begins.
    #[inline]
    pub fn expect(&self, id: &[u8; 32]) {
        self.entries.prefetch_line(id);
    }

    /// Says that this session is asked for in a moment: the second one begins.
    #[inline]
    pub fn prefetch(&self, id: &SessionId) {
        self.entries.prefetch(id);
    }

    /// What is known here of a session, for a request that began `at`. Never waits. `window` is for how long the caller may be
    /// served what is known, while nothing is heard of revocations.
    #[must_use]
    pub fn get(self: &Arc<Self>, id: &SessionId, at: impl Into<Moment>, window: Duration) -> Cached<X> {
        let at = at.into();
        let cached = self.entries.look(id, |entry| self.judge(id, entry, at, window));
        let cached = cached.unwrap_or_else(|| self.judge_absent(id, at));
        match &cached {
            Cached::Hit(_) => self.metrics.hits.inc(),
            Cached::Static(entry) => self.count_static(entry),
            Cached::Unknown => self.metrics.unknown.inc(),
            Cached::Revoked => self.metrics.revoked.inc(),
            Cached::Miss => self.metrics.misses.inc(),
            Cached::Unavailable => self.metrics.cut_off.inc(),
        }
        cached
    }

    /// Asks the store, together with everybody else who asks for this session now. What was found is kept. If the store does
    /// not answer, what is known here is served for `window`.
    ///
    /// # Errors
    /// [`StorageError::Unavailable`] if the store does not answer within the deadline, if nothing is heard of revocations, or if
    /// too many wait already.
    pub async fn load(
        self: &Arc<Self>,
        id: &SessionId,
        now: Timestamp,
        window: Duration,
    ) -> Result<Loaded<X>, StorageError> {
        if self.contact.lost_for().is_some() {
            return self.bridge(id, now, window).ok_or_else(StorageError::cut_off);
        }
        let resets = self.invalidation.resets();
        let mut landed = self.landed(id, now).await;
        let is_outdated = match &landed {
            Ok(Loaded::Found(entry)) => !entry.is_from(self.invalidation.resets()),
            Ok(Loaded::Static(_) | Loaded::Unknown | Loaded::Revoked) => false,
            Err(_) => self.invalidation.resets() != resets,
        };
        if is_outdated {
            // It was asked for before something was missed.
            landed = self.landed(id, now).await;
        }
        let loaded = match landed {
            Ok(loaded) => loaded,
            Err(error) => return self.bridge(id, now, window).ok_or(error),
        };
        // It may have ended between the moment it was read, maybe for somebody who came earlier, and this one.
        let Loaded::Found(entry) = &loaded else { return Ok(loaded) };
        Ok(match self.standing(entry) {
            Standing::Revoked => Loaded::Revoked,
            Standing::Over => Loaded::Unknown,
            Standing::Forgotten => return Err(too_many_ended()),
            Standing::Good | Standing::Outdated if entry.is_expired(now) => Loaded::Unknown,
            Standing::Good | Standing::Outdated => loaded,
        })
    }

    /// What the store says, within the deadline and if there is a place to wait.
    async fn landed(self: &Arc<Self>, id: &SessionId, now: Timestamp) -> Result<Loaded<X>, StorageError> {
        let Ok(_place) = self.waiting.try_acquire() else {
            self.metrics.loads_refused.inc();
            return Err(StorageError::unavailable("too many requests wait for sessions"));
        };
        let landed = tokio::time::timeout(self.config.load_deadline, flight::join(self, id, now)?).await;
        landed.unwrap_or_else(|_| Err(StorageError::unavailable("it took too long to load a session")))
    }

    /// Whether a session is still good as far as this process knows, for streams that stay open: not revoked, not expired,
    /// not left idle. Costs a few atomic reads. Ask for it by its id now and then: that also notices what was missed.
    #[must_use]
    pub fn is_live(&self, entry: &Entry<X>, now: Timestamp) -> bool {
        matches!(self.standing(entry), Standing::Good | Standing::Outdated) && !entry.is_expired(now)
    }

    /// Notes that a session is in use, so that idleness does not end it. The store hears of it rarely and later.
    pub fn touch(&self, entry: &Entry<X>, now: Timestamp) {
        let Some((heard, until)) = entry.touch(now) else { return };
        if !self.sessions.touch(entry.session.handle, until) {
            entry.unheard(heard, until);
        }
    }

    /// Whether revocations by other processes are heard of now; what is not kept here can be looked up only then.
    #[must_use]
    pub fn is_in_contact(&self) -> bool {
        self.contact.lost_for().is_none()
    }

    /// How many sessions are kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether no session is kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Drops copies that are over, outdated or unused: of one share with each turn, or of all where there are more than `max_entries`;
    /// where that is not enough, others until a tenth is free. A copy that waits to be dropped is not served; it costs memory alone.
    pub(crate) fn sweep(&self, now: Timestamp, turn: usize) {
        let (resets, most) = (self.invalidation.resets(), self.config.max_entries);
        let share = if self.len() > most { Share::ALL } else { Share::of(turn, SWEEPS) };
        self.entries.retain(share, |entry| {
            let useful = entry.is_from(resets) && self.standing(entry) == Standing::Good;
            useful && now < entry.session.expires_at && now.since(entry.read_at()) < self.config.kept()
        });
        let kept = self.len();
        // The keys are random, so whatever comes first is a fair choice.
        let mut excess = if kept > most { kept - most / 10 * 9 } else { 0 };
        if excess > 0 {
            self.entries.retain(Share::ALL, |_| {
                let stays = excess == 0;
                excess = excess.saturating_sub(1);
                stays
            });
        }
        self.metrics.entries.set(i64::try_from(self.len()).unwrap_or(i64::MAX));
        self.metrics.contact_lost.set(i64::try_from(self.contact.trouble().as_secs()).unwrap_or(i64::MAX));
    }

    /// How a copy stands now.
    fn standing(&self, entry: &Entry<X>) -> Standing {
        self.invalidation.standing(entry.marks(), &entry.fate)
    }

    /// The copy is counted last: before a count is taken a processor waits for all that it reads, so what is read of the copy
    /// first comes from memory at one time.
    fn judge(self: &Arc<Self>, id: &SessionId, entry: &Arc<Entry<X>>, at: Moment, window: Duration) -> Cached<X> {
        let now = at.now;
        entry.session.prefetch();
        // Read before the standing: a heartbeat that comes in between says nothing of what was looked at before it.
        let lost = self.contact.lost_at(at.steady);
        match self.standing(entry) {
            Standing::Revoked => return Cached::Revoked,
            Standing::Over => return Cached::Unknown,
            Standing::Outdated | Standing::Forgotten => return Cached::Miss,
            Standing::Good if !entry.is_from(self.invalidation.resets()) => return Cached::Miss,
            Standing::Good => {}
        }
        if now >= entry.session.expires_at {
            // Marked, so that a clock that jumps back does not revive it.
            entry.end();
            self.sessions.over(entry.session.handle, now);
            return Cached::Unknown;
        }
        if entry.is_expired(now) {
            return Cached::Miss;
        }
        let ages = Ages { fresh: self.config.max_age, window };
        match contact::judge(lost, entry.age(now), ages) {
            Use::Serve => Cached::Hit(Arc::clone(entry)),
            Use::Renew => {
                if entry.may_ask_again(now) {
                    flight::refresh(self, id, now);
                }
                Cached::Hit(Arc::clone(entry))
            }
            Use::Static => Cached::Static(Arc::clone(entry)),
            Use::Ask => Cached::Miss,
            Use::Refuse => Cached::Unavailable,
        }
    }

    /// Of an id that is not kept here. A revocation that was heard of stays one; that there is no such session may have
    /// changed while nothing was heard.
    fn judge_absent(&self, id: &SessionId, at: Moment) -> Cached<X> {
        let lost = self.contact.lost_at(at.steady).is_some();
        match self.negatives.find(id, self.invalidation.facts(), at.now) {
            Some(Negative::Revoked) => Cached::Revoked,
            _ if lost => Cached::Unavailable,
            Some(Negative::Unknown) => Cached::Unknown,
            None => Cached::Miss,
        }
    }

    /// What is known of a session that could not be read again, if it may be served.
    fn bridge(&self, id: &SessionId, now: Timestamp, window: Duration) -> Option<Loaded<X>> {
        let entry = self.entries.look(id, Arc::clone)?;
        // Before the standing, as above.
        let lost = self.contact.lost_for();
        let good = self.standing(&entry) == Standing::Good && entry.is_from(self.invalidation.resets());
        let ages = Ages { fresh: self.config.max_age, window };
        let used = contact::judge_unanswered(lost, entry.age(now), ages);
        if !good || entry.is_expired(now) || used != Use::Static {
            return None;
        }
        self.count_static(&entry);
        Some(Loaded::Static(entry))
    }

    fn count_static(&self, entry: &Entry<X>) {
        self.metrics.statics.inc();
        if self.contact.outage().is_some_and(|outage| entry.bridges(outage)) {
            self.metrics.static_sessions.inc();
        }
    }

    /// Asks the store and keeps what it says.
    async fn fetch(&self, id: &SessionId, now: Timestamp) -> Result<Loaded<X>, StorageError> {
        let asked = Asked { now, resets: self.invalidation.resets(), facts: self.invalidation.facts() };
        let handle = self.sessions.handle_of(id);
        Ok(match self.sessions.load(&handle, now).await? {
            Lookup::Found(session) => self.keep(id, &session, asked)?,
            Lookup::Unknown => {
                self.forget(id, Negative::Unknown, asked);
                Loaded::Unknown
            }
            Lookup::Revoked => {
                self.forget(id, Negative::Revoked, asked);
                Loaded::Revoked
            }
        })
    }

    fn keep(&self, id: &SessionId, session: &Session, asked: Asked) -> Result<Loaded<X>, StorageError> {
        let owner = self.sessions.owner_of(session);
        let Session { handle, issued_at, generation, .. } = session;
        let marks = Marks { handle, owner, issued_at: *issued_at, generation: *generation };
        let (standing, facts) = self.invalidation.meet(marks, asked.facts);
        match standing {
            Standing::Revoked | Standing::Over => return Ok(Loaded::Revoked),
            Standing::Forgotten => return Err(too_many_ended()),
            Standing::Good | Standing::Outdated => {}
        }
        let known = self.entries.look(id, Arc::clone).filter(|entry| entry.is_from(asked.resets));
        if let Some(entry) = known.filter(|entry| entry.session.generation == *generation) {
            entry.fate.remember(standing, facts);
            entry.read_again(session, asked.now);
            return Ok(Loaded::Found(entry));
        }
        let session = (CompactSession::with_words(session, &self.words), entry::idle_end(session));
        let fate = (owner, Fate::new(standing, facts));
        let entry = Arc::new(Entry::new(id.clone(), session, fate, (asked.resets, asked.now)));
        if self.len() < self.config.max_entries.saturating_add(self.config.max_entries / 8) {
            self.entries.keep(Arc::clone(&entry));
        } else {
            self.crowded.notify_one();
        }
        Ok(Loaded::Found(entry))
    }

    fn forget(&self, id: &SessionId, negative: Negative, asked: Asked) {
        self.entries.remove(id);
        self.negatives.note(id, negative, asked.facts, asked.now);
    }
}

fn too_many_ended() -> StorageError {
    StorageError::unavailable("too many sessions ended at one time")
}

/// Sweeps a cache until it is gone or told to stop.
pub(crate) async fn sweep_regularly<X: Default + Send + Sync + 'static>(
    cache: std::sync::Weak<SessionCache<X>>,
    stop: CancellationToken,
) {
    let Some(crowded) = cache.upgrade().map(|alive| Arc::clone(&alive.crowded)) else { return };
    for turn in (0..SWEEPS).cycle() {
        tokio::select! {
            () = stop.cancelled() => return,
            () = crowded.notified() => {}
            () = tokio::time::sleep(SWEEP_EVERY) => {}
        }
        let Some(alive) = cache.upgrade() else { return };
        // On a thread of its own: among a million entries a share takes some ten milliseconds.
        if tokio::task::spawn_blocking(move || alive.sweep(clock(), turn)).await.is_err() {
            return;
        }
    }
}

const SWEEP_EVERY: Duration = Duration::from_secs(2);
/// In so many turns each copy is looked at once. That is a wait for memory of some 180 ns: to look at all of 100,000 takes 18 ms.
const SWEEPS: usize = 16;

/// Whether both are one id, in constant time (S-110). The same bytes under another secret are another session, if they are one.
fn is_same(one: &SessionId, other: &SessionId) -> bool {
    same(one.as_bytes(), other.as_bytes()) && one.secret() == other.secret()
}

impl<X> Clone for Loaded<X> {
    fn clone(&self) -> Self {
        match self {
            Self::Found(entry) => Self::Found(Arc::clone(entry)),
            Self::Static(entry) => Self::Static(Arc::clone(entry)),
            Self::Unknown => Self::Unknown,
            Self::Revoked => Self::Revoked,
        }
    }
}
