//! What became of sessions since somebody read them: facts that deny, and that no stale copy can outvote.
//!
//! Each cached session shares two cells with this register: one for the session, one for its owner. A change sets the
//! cell, and with it every copy, those in the cache and those on their way into it, at once and without a search. A cell
//! that nobody holds stays for a while as a tombstone, so that a copy which was read before the change and arrives after
//! it is denied as well. When something may have been missed, [`Invalidation::reset`] outdates every copy there is.
//!
//! The writer in this process calls this directly. A store that several processes share tails its changelog and calls
//! the same: [`Fact`]s for its entries, `reset` for a gap.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use postern_identity::{Session, SessionHandle, Timestamp};

use crate::metrics::Metrics;
use crate::record::{EVERYONE, Key};

/// One thing that happened to sessions. Idempotent, and in any order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fact {
    /// It was ended.
    Revoked(SessionHandle),
    /// Copies of an earlier generation are out of date.
    Rewritten(SessionHandle, u64),
    /// The owner's sessions that began before that time are over; those of all if it is [`EVERYONE`].
    OwnerRevoked(Key, Timestamp),
    /// A session began: what was said of its id may be wrong.
    Created,
}

impl Fact {
    /// Whether it only ever refuses, so that making it known without need is safe.
    pub(crate) const fn denies(self) -> bool {
        matches!(self, Self::Revoked(_) | Self::OwnerRevoked(..))
    }
}

/// The register of facts.
#[derive(Debug)]
pub(crate) struct Invalidation {
    resets: AtomicU64,
    facts: AtomicU64,
    sessions: Register<SessionHandle, AtomicU64>,
    owners: Register<Key, AtomicI64>,
    /// Before when the sessions of all owners are over.
    everyone: AtomicI64,
    metrics: Arc<Metrics>,
}

/// What is known to have happened to one session; shared by all of its copies.
#[derive(Clone, Debug)]
pub(crate) struct Fate {
    /// The oldest generation that is not out of date; [`REVOKED`] for none.
    generation: Arc<AtomicU64>,
    not_before: Arc<AtomicI64>,
    issued_at: Timestamp,
}

/// How a copy stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    Good,
    /// Its time is over; only an entry knows.
    Over,
    Outdated,
    Revoked,
}

const REVOKED: u64 = u64::MAX;

impl Fate {
    /// That of a session that nothing happened to, and nothing will.
    pub(crate) fn untouched(session: &Session) -> Self {
        let (generation, not_before) = (Arc::default(), Arc::new(AtomicI64::new(i64::MIN)));
        Self { generation, not_before, issued_at: session.issued_at }
    }

    /// How a copy of that generation stands now.
    pub(crate) fn standing(&self, generation: u64) -> Standing {
        let oldest = self.generation.load(Ordering::Acquire);
        if oldest == REVOKED || self.issued_at.as_millis() < self.not_before.load(Ordering::Acquire) {
            Standing::Revoked
        } else if generation < oldest {
            Standing::Outdated
        } else {
            Standing::Good
        }
    }
}

impl Invalidation {
    pub(crate) fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            resets: AtomicU64::new(0),
            facts: AtomicU64::new(0),
            sessions: Register::default(),
            owners: Register::default(),
            everyone: AtomicI64::new(i64::MIN),
            metrics,
        }
    }

    /// Makes a fact known, after the store knows it: when this returns, no copy contradicts it.
    pub(crate) fn publish(&self, fact: Fact) {
        let overflow = || self.reset();
        match fact {
            Fact::Created => {}
            Fact::Revoked(handle) => {
                self.sessions.bury(handle, |cell| cell.store(REVOKED, Ordering::Release), overflow);
            }
            Fact::Rewritten(handle, generation) => {
                let raise = |cell: &AtomicU64| {
                    cell.fetch_max(generation, Ordering::AcqRel);
                };
                self.sessions.bury(handle, raise, overflow);
            }
            Fact::OwnerRevoked(EVERYONE, not_before) => {
                // First for owners who come from now on, then for those who are there.
                self.everyone.fetch_max(not_before.as_millis(), Ordering::SeqCst);
                self.owners.each(|cell| {
                    cell.fetch_max(not_before.as_millis(), Ordering::AcqRel);
                });
            }
            Fact::OwnerRevoked(owner, not_before) => {
                let raise = |cell: &AtomicI64| {
                    cell.fetch_max(not_before.as_millis(), Ordering::AcqRel);
                };
                self.owners.bury(owner, raise, overflow);
            }
        }
        self.facts.fetch_add(1, Ordering::AcqRel);
    }

    /// Outdates every copy: something may have been missed.
    pub(crate) fn reset(&self) {
        self.resets.fetch_add(1, Ordering::AcqRel);
        // Nor may an answer that was asked for before be shared with who asks after.
        self.facts.fetch_add(1, Ordering::AcqRel);
        self.metrics.resets.inc();
    }

    /// How often everything was outdated. A copy is good only while this is what it was before the copy was read.
    pub(crate) fn resets(&self) -> u64 {
        self.resets.load(Ordering::Acquire)
    }

    /// How many facts there were. What the store said may be shared with those who ask later only while this is what it
    /// was before the store was asked: so nobody who saw a write end is given an answer from before it.
    pub(crate) fn facts(&self) -> u64 {
        self.facts.load(Ordering::Acquire)
    }

    /// The fate of a session, for as long as somebody holds it.
    pub(crate) fn fate(&self, session: &Session, owner: Key) -> Fate {
        let not_before = self.owners.cell(owner);
        not_before.fetch_max(self.everyone.load(Ordering::SeqCst), Ordering::AcqRel);
        Fate { generation: self.sessions.cell(session.handle), not_before, issued_at: session.issued_at }
    }

    /// Forgets cells that nobody holds and whose time as tombstones is over.
    pub(crate) fn sweep(&self, now: Instant) {
        self.sessions.sweep(now);
        self.owners.sweep(now);
    }
}

/// Cells by key. The locks are for loads and changes; whoever holds a cell reads it without.
#[derive(Debug)]
struct Register<K, C> {
    shards: [Mutex<Shard<K, C>>; SHARDS],
}

#[derive(Debug)]
struct Shard<K, C> {
    graves: HashMap<K, Grave<C>>,
    tombstones: usize,
}

#[derive(Debug)]
struct Grave<C> {
    cell: Arc<C>,
    /// Until when it stays although nobody holds it: a tombstone.
    keep_until: Option<Instant>,
}

const SHARDS: usize = 16;
/// As long as any copy may be on its way from a store to a cache, replicas that lag included (store.md §1.3).
const TOMBSTONE_LIFE: Duration = Duration::from_secs(15 * 60);
/// Tombstones of one shard; beyond them everything is outdated instead. Together 128 000: a sign-out storm of 140/s.
const TOMBSTONES_PER_SHARD: usize = 8_000;

impl<K, C> Default for Register<K, C> {
    fn default() -> Self {
        Self { shards: std::array::from_fn(|_| Mutex::new(Shard { graves: HashMap::new(), tombstones: 0 })) }
    }
}

impl<K: Hash + Eq + Copy + Spread, C: Default> Register<K, C> {
    fn cell(&self, key: K) -> Arc<C> {
        let mut shard = self.shard(&key);
        let grave = shard.graves.entry(key).or_insert_with(|| Grave { cell: Arc::default(), keep_until: None });
        Arc::clone(&grave.cell)
    }

    /// Changes every cell there is.
    fn each(&self, change: impl Fn(&C)) {
        for shard in &self.shards {
            lock(shard).graves.values().for_each(|grave| change(&grave.cell));
        }
    }

    /// Changes a cell and keeps it. If the shard has too many tombstones they are given up, after `overflow` outdated
    /// all that they may have denied.
    fn bury(&self, key: K, change: impl FnOnce(&C), overflow: impl FnOnce()) {
        let shard = &mut *self.shard(&key);
        let grave = shard.graves.entry(key).or_insert_with(|| Grave { cell: Arc::default(), keep_until: None });
        if grave.keep_until.is_none() {
            shard.tombstones += 1;
        }
        grave.keep_until = Instant::now().checked_add(TOMBSTONE_LIFE);
        change(&grave.cell);
        if shard.tombstones > TOMBSTONES_PER_SHARD {
            overflow();
            shard.graves.retain(|_, grave| Arc::strong_count(&grave.cell) > 1);
            shard.graves.values_mut().for_each(|grave| grave.keep_until = None);
            shard.tombstones = 0;
        }
    }

    fn sweep(&self, now: Instant) {
        for shard in &self.shards {
            let shard = &mut *lock(shard);
            for grave in shard.graves.values_mut() {
                grave.keep_until = grave.keep_until.filter(|until| now < *until);
            }
            // Nobody can begin to hold a cell while the shard is locked, so a count of one is final.
            shard.graves.retain(|_, grave| Arc::strong_count(&grave.cell) > 1 || grave.keep_until.is_some());
            shard.tombstones = shard.graves.values().filter(|grave| grave.keep_until.is_some()).count();
        }
    }

    fn shard(&self, key: &K) -> MutexGuard<'_, Shard<K, C>> {
        let index = usize::from(key.any_byte()) % SHARDS;
        #[expect(clippy::indexing_slicing, reason = "the index was reduced to the length of the array")]
        lock(&self.shards[index])
    }
}

/// A keyed hash: any byte of it spreads evenly.
trait Spread {
    fn any_byte(&self) -> u8;
}

impl Spread for Key {
    fn any_byte(&self) -> u8 {
        self[0]
    }
}

impl Spread for SessionHandle {
    fn any_byte(&self) -> u8 {
        self.as_bytes()[0]
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn register() -> Invalidation {
        Invalidation::new(Arc::new(Metrics::register(&prometheus::Registry::new(), "none").unwrap()))
    }

    fn handle(number: u64) -> SessionHandle {
        let mut bytes = [0; 32];
        bytes[24..].copy_from_slice(&number.to_be_bytes());
        SessionHandle::from_bytes(bytes)
    }

    #[test]
    fn a_tombstone_outlives_the_copies_that_may_be_on_their_way_and_no_longer() {
        let register = register();
        register.publish(Fact::Revoked(handle(1)));
        register.sweep(Instant::now() + TOMBSTONE_LIFE / 2);
        assert_eq!(register.sessions.cell(handle(1)).load(Ordering::SeqCst), REVOKED);
        register.sweep(Instant::now() + TOMBSTONE_LIFE * 2);
        assert_eq!(register.sessions.cell(handle(1)).load(Ordering::SeqCst), 0);
    }

    #[test]
    fn a_cell_that_is_held_is_never_replaced() {
        let register = register();
        let held = register.sessions.cell(handle(1));
        register.sweep(Instant::now() + TOMBSTONE_LIFE * 2);
        register.publish(Fact::Revoked(handle(1)));
        assert_eq!(held.load(Ordering::SeqCst), REVOKED);
    }

    #[test]
    fn r_004_more_tombstones_than_fit_outdate_everything_instead() {
        let register = register();
        let held = register.sessions.cell(handle(0));
        // All in one shard: it goes by the first byte.
        for number in 1..=TOMBSTONES_PER_SHARD as u64 {
            register.publish(Fact::Revoked(handle(number)));
        }
        assert_eq!(register.resets(), 0);
        register.publish(Fact::Revoked(handle(u64::MAX)));
        assert_eq!(register.resets(), 1);
        assert_eq!(register.sessions.shard(&handle(0)).graves.len(), 1, "only what is held stays");
        register.publish(Fact::Revoked(handle(0)));
        assert_eq!(held.load(Ordering::SeqCst), REVOKED);
    }

    #[test]
    fn s_095_the_end_of_all_sessions_holds_for_copies_that_are_there_and_that_come_later() {
        let register = register();
        let session = |issued_at| Session {
            handle: handle(1),
            user: postern_identity::User::default(),
            claims: postern_identity::Claims::default(),
            idp: postern_identity::IdpId::new("one"),
            issued_at: Timestamp::from_secs(issued_at),
            expires_at: Timestamp::from_secs(100),
            idle: None,
            generation: 1,
        };
        let held = register.fate(&session(5), [7; 32]);
        register.publish(Fact::OwnerRevoked(EVERYONE, Timestamp::from_secs(10)));
        register.publish(Fact::OwnerRevoked(EVERYONE, Timestamp::from_secs(3)));
        assert_eq!(held.standing(1), Standing::Revoked);
        assert_eq!(register.fate(&session(9), [8; 32]).standing(1), Standing::Revoked, "a copy that was on its way");
        assert_eq!(register.fate(&session(10), [9; 32]).standing(1), Standing::Good, "who signed in afterwards");
    }

    #[test]
    fn facts_hold_in_any_order() {
        let register = register();
        for generation in [5, 3] {
            register.publish(Fact::Rewritten(handle(1), generation));
        }
        assert_eq!(register.sessions.cell(handle(1)).load(Ordering::SeqCst), 5);
        register.publish(Fact::Revoked(handle(1)));
        register.publish(Fact::Rewritten(handle(1), 9));
        assert_eq!(register.sessions.cell(handle(1)).load(Ordering::SeqCst), REVOKED, "nothing revives it");
    }
}
