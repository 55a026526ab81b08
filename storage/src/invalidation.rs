//! What became of sessions since somebody read them: facts that deny, and that no stale copy can outvote.
//!
//! Facts are numbered, and each that denies stays for a while as a tombstone. A copy remembers the fact up to which it was
//! held against the tombstones ([`Fate`]). A table tells, for the hash of a session and of an owner, the number of the
//! latest fact about any of those that share it; only if that is newer than what the copy remembers are the tombstones
//! looked at again. So a live session costs the register nothing, and looking at one that nothing happened to takes no lock.
//!
//! Nothing is outrun. A tombstone is laid before its fact has a number, and the table shows the number before
//! [`Invalidation::publish`] returns. Who looks at the tombstones reads the count of facts first: what that count includes
//! has its tombstone laid, so what a copy remembers as seen was seen. A fact with a higher number shows in the table, for
//! copies that are there and for copies on their way into a cache, because these are held against the tombstones when
//! they arrive. A tombstone that was dropped leaves behind the number of its fact: a copy that had not seen it yet is
//! [`Standing::Forgotten`]. When something may have been missed, [`Invalidation::reset`] outdates every copy there is.
//!
//! The writer in this process calls this directly. A store that several processes share tails its changelog and calls
//! the same: [`Fact`]s for its entries, `reset` for a gap.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use postern_identity::{SessionHandle, Timestamp};

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
    resets: AtomicU32,
    facts: AtomicU64,
    /// By hash, the number of the latest fact about a session or an owner.
    latest: Box<[AtomicU64]>,
    sessions: Register<SessionHandle, u64>,
    owners: Register<Owner, i64>,
    /// Before when the sessions of all owners are over.
    everyone: AtomicI64,
    metrics: Arc<Metrics>,
}

/// Whose a session is, as far as a copy remembers: the beginning of the owner's name in the store, which is a keyed hash.
/// Two owners share one in 2^64 cases; then what ends the sessions of one also ends those of the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Owner(u64);

impl Owner {
    pub(crate) fn of(key: &Key) -> Self {
        Self(key.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes)))
    }
}

/// What of a copy decides whether a fact is about it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Marks<'a> {
    pub(crate) handle: &'a SessionHandle,
    pub(crate) owner: Owner,
    pub(crate) issued_at: Timestamp,
    pub(crate) generation: u64,
}

/// How a copy stands. In the order of what outvotes what, where it is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Standing {
    Good,
    Outdated,
    Revoked,
    /// Its time is over; only an entry knows.
    Over,
    /// Something may have happened to it whose tombstone is gone. Never remembered: who reads it again knows.
    Forgotten,
}

/// What a copy remembers: how it stands, in the two highest bits, and which fact was the latest that was heeded. It only ever
/// grows, so a worse standing is never taken back. One word, because the one is worth nothing without the other.
#[derive(Debug)]
pub(crate) struct Fate(AtomicU64);

impl Fate {
    pub(crate) const fn new(standing: Standing, facts: u64) -> Self {
        Self(AtomicU64::new(Self::word(standing, facts)))
    }

    /// Notes how the copy stands after so many facts.
    pub(crate) fn remember(&self, standing: Standing, facts: u64) {
        self.0.fetch_max(Self::word(standing, facts), Ordering::Relaxed);
    }

    const fn word(standing: Standing, facts: u64) -> u64 {
        let standing: u64 = match standing {
            Standing::Good | Standing::Forgotten => 0,
            Standing::Outdated => 1,
            Standing::Revoked => 2,
            Standing::Over => 3,
        };
        standing << FACT_BITS | facts
    }

    /// How the copy was found to stand, and after how many facts.
    fn known(&self) -> (Standing, u64) {
        // Relaxed: whatever the word says was true when it was written, and stays so.
        let word = self.0.load(Ordering::Relaxed);
        let standing = match word >> FACT_BITS {
            0 => Standing::Good,
            1 => Standing::Outdated,
            2 => Standing::Revoked,
            _ => Standing::Over,
        };
        (standing, word & !(u64::MAX << FACT_BITS))
    }
}

const FACT_BITS: u32 = 62;
const REVOKED: u64 = u64::MAX;

impl Invalidation {
    pub(crate) fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            resets: AtomicU32::new(0),
            facts: AtomicU64::new(0),
            latest: (0..SLOTS).map(|_| AtomicU64::new(0)).collect(),
            sessions: Register::default(),
            owners: Register::default(),
            everyone: AtomicI64::new(i64::MIN),
            metrics,
        }
    }

    /// Makes a fact known, after the store knows it: when this returns, no copy contradicts it.
    pub(crate) fn publish(&self, fact: Fact) {
        match fact {
            Fact::Created => {
                self.count();
            }
            Fact::Revoked(handle) => self.bury(&self.sessions, handle, REVOKED),
            Fact::Rewritten(handle, generation) => self.bury(&self.sessions, handle, generation),
            Fact::OwnerRevoked(EVERYONE, not_before) => {
                self.everyone.fetch_max(not_before.as_millis(), Ordering::AcqRel);
                self.count();
            }
            Fact::OwnerRevoked(owner, not_before) => {
                self.bury(&self.owners, Owner::of(&owner), not_before.as_millis());
            }
        }
    }

    fn bury<K: Spread, V: Ord + Copy>(&self, register: &Register<K, V>, key: K, least: V) {
        let latest = self.latest.get(key.slot());
        let number = || {
            let fact = self.count();
            if let Some(latest) = latest {
                latest.fetch_max(fact, Ordering::AcqRel);
            }
            fact
        };
        register.bury(key, least, number, || self.reset());
    }

    /// One fact more; its number.
    fn count(&self) -> u64 {
        self.facts.fetch_add(1, Ordering::AcqRel) + 1
    }

    /// Outdates every copy: something may have been missed.
    pub(crate) fn reset(&self) {
        self.resets.fetch_add(1, Ordering::AcqRel);
        // Nor may an answer that was asked for before be shared with who asks after.
        self.count();
        self.metrics.resets.inc();
    }

    /// How often everything was outdated. A copy is good only while this is what it was before the copy was read.
    pub(crate) fn resets(&self) -> u32 {
        self.resets.load(Ordering::Acquire)
    }

    /// How many facts there were. What the store said may be shared with those who ask later only while this is what it
    /// was before the store was asked: so nobody who saw a write end is given an answer from before it.
    pub(crate) fn facts(&self) -> u64 {
        self.facts.load(Ordering::Acquire)
    }

    /// How a copy stands that comes from the store just now, which was asked after so many facts; and after how many it stands so.
    pub(crate) fn meet(&self, copy: Marks<'_>, asked: u64) -> (Standing, u64) {
        self.look(copy, asked)
    }

    /// How a copy stands now that remembers `fate`.
    pub(crate) fn standing(&self, copy: Marks<'_>, fate: &Fate) -> Standing {
        let (known, seen) = fate.known();
        if known >= Standing::Revoked {
            return known;
        }
        if self.is_over_for_all(copy) {
            return Standing::Revoked;
        }
        if self.latest(copy.handle) <= seen && self.latest(&copy.owner) <= seen {
            return known;
        }
        match self.look(copy, seen) {
            (Standing::Forgotten, _) => Standing::Forgotten,
            (found, facts) => {
                fate.remember(found, facts);
                found.max(known)
            }
        }
    }

    /// Holds a copy that has seen so many facts against the tombstones; the count of facts that this includes.
    fn look(&self, copy: Marks<'_>, seen: u64) -> (Standing, u64) {
        // Before the tombstones, see above.
        let facts = self.facts();
        let (generation, gone) = self.sessions.find(copy.handle);
        let (not_before, owner_gone) = self.owners.find(&copy.owner);
        let began_too_early = not_before.is_some_and(|not_before| copy.issued_at.as_millis() < not_before);
        let standing = if generation == Some(REVOKED) || began_too_early || self.is_over_for_all(copy) {
            Standing::Revoked
        } else if seen < gone.max(owner_gone) {
            Standing::Forgotten
        } else if generation.is_some_and(|oldest| copy.generation < oldest) {
            Standing::Outdated
        } else {
            Standing::Good
        };
        (standing, facts)
    }

    fn is_over_for_all(&self, copy: Marks<'_>) -> bool {
        copy.issued_at.as_millis() < self.everyone.load(Ordering::Acquire)
    }

    /// The latest fact about anything of that hash.
    fn latest(&self, key: &impl Spread) -> u64 {
        self.latest.get(key.slot()).map_or(u64::MAX, |latest| latest.load(Ordering::Acquire))
    }

    /// Drops tombstones whose time is over.
    pub(crate) fn sweep(&self, now: Instant) {
        self.sessions.sweep(now);
        self.owners.sweep(now);
    }
}

/// Tombstones by key: of a session the oldest generation that is not out of date, or [`REVOKED`]; of an owner the time
/// before which no session may have begun.
#[derive(Debug)]
struct Register<K, V> {
    shards: [Mutex<Shard<K, V>>; SHARDS],
}

#[derive(Debug)]
struct Shard<K, V> {
    tombstones: HashMap<K, Tombstone<V>>,
    /// The latest fact whose tombstone was dropped.
    gone: u64,
}

#[derive(Debug)]
struct Tombstone<V> {
    /// What is less than this is denied.
    least: V,
    fact: u64,
    laid: Instant,
}

const SHARDS: usize = 16;
/// Of the table of latest facts; 128 KiB, so that it stays near the processor beside what else requests read. A fact makes one live
/// session of 8 thousand look at the tombstones once.
const SLOTS: usize = 1 << SLOT_BITS;
const SLOT_BITS: u32 = 14;
/// As long as any copy may be on its way from a store to a cache, replicas that lag included (store.md §1.3).
const TOMBSTONE_LIFE: Duration = Duration::from_secs(15 * 60);
/// Tombstones of one shard; beyond them everything is outdated instead. Together 512 000: a sign-out storm of 560/s.
const TOMBSTONES_PER_SHARD: usize = 32_000;

impl<K, V> Default for Register<K, V> {
    fn default() -> Self {
        Self { shards: std::array::from_fn(|_| Mutex::new(Shard { tombstones: HashMap::new(), gone: 0 })) }
    }
}

impl<K: Spread, V: Ord + Copy> Register<K, V> {
    /// What is denied of that key, and the latest fact of which that cannot be said any more.
    fn find(&self, key: &K) -> (Option<V>, u64) {
        let shard = self.shard(key);
        (shard.tombstones.get(key).map(|tombstone| tombstone.least), shard.gone)
    }

    /// Lays a tombstone, and then numbers its fact. If the shard has too many they are given up, after `overflow` outdated
    /// all that they may have denied.
    fn bury(&self, key: K, least: V, number: impl FnOnce() -> u64, overflow: impl FnOnce()) {
        let shard = &mut *self.shard(&key);
        let new = Tombstone { least, fact: 0, laid: Instant::now() };
        let tombstone = shard.tombstones.entry(key).or_insert(new);
        tombstone.least = tombstone.least.max(least);
        tombstone.laid = Instant::now();
        let fact = number();
        tombstone.fact = fact;
        if shard.tombstones.len() > TOMBSTONES_PER_SHARD {
            overflow();
            shard.keep(|tombstone| tombstone.fact == fact);
        }
    }

    fn sweep(&self, now: Instant) {
        for shard in &self.shards {
            lock(shard).keep(|tombstone| now.saturating_duration_since(tombstone.laid) < TOMBSTONE_LIFE);
        }
    }

    fn shard(&self, key: &K) -> MutexGuard<'_, Shard<K, V>> {
        #[expect(clippy::indexing_slicing, reason = "the index was reduced to the length of the array")]
        lock(&self.shards[key.slot() % SHARDS])
    }
}

impl<K, V> Shard<K, V> {
    fn keep(&mut self, keep: impl Fn(&Tombstone<V>) -> bool) {
        let gone = &mut self.gone;
        self.tombstones.retain(|_, tombstone| {
            let stays = keep(tombstone);
            if !stays {
                *gone = tombstone.fact.max(*gone);
            }
            stays
        });
    }
}

/// A keyed hash: any bits of it spread evenly.
trait Spread: Hash + Eq {
    /// Less than [`SLOTS`].
    fn slot(&self) -> usize;
}

impl Spread for SessionHandle {
    fn slot(&self) -> usize {
        let [high, low, ..] = *self.as_bytes();
        slot([high, low])
    }
}

impl Spread for Owner {
    fn slot(&self) -> usize {
        let [high, low, ..] = self.0.to_be_bytes();
        slot([high, low])
    }
}

fn slot(bits: [u8; 2]) -> usize {
    usize::from(u16::from_be_bytes(bits)) >> (u16::BITS - SLOT_BITS)
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

    /// A copy, of generation 1, of a session that began after five seconds.
    #[derive(Debug)]
    struct Copied {
        handle: SessionHandle,
        owner: Owner,
        issued_at: Timestamp,
        fate: Fate,
    }

    impl Copied {
        fn arrives(register: &Invalidation, number: u64) -> Self {
            Self::began(register, number, 5)
        }

        fn began(register: &Invalidation, number: u64, secs: i64) -> Self {
            let (owner, issued_at) = (Owner::of(&[7; 32]), Timestamp::from_secs(secs));
            let fate = Fate::new(Standing::Good, 0);
            let copy = Self { handle: handle(number), owner, issued_at, fate };
            let (standing, facts) = register.meet(copy.marks(), register.facts());
            copy.fate.remember(standing, facts);
            copy
        }

        fn marks(&self) -> Marks<'_> {
            Marks { handle: &self.handle, owner: self.owner, issued_at: self.issued_at, generation: 1 }
        }

        fn stands(&self, register: &Invalidation) -> Standing {
            register.standing(self.marks(), &self.fate)
        }
    }

    #[test]
    fn what_is_told_twice_says_nothing_more_the_second_time() {
        let register = register();
        let (read_before, other) = (Copied::arrives(&register, 1), Copied::arrives(&register, 2));
        register.publish(Fact::Rewritten(handle(1), 1));
        register.publish(Fact::Rewritten(handle(2), 2));
        let read_after = Copied::arrives(&register, 1);
        register.publish(Fact::Rewritten(handle(1), 1));
        register.publish(Fact::Rewritten(handle(2), 2));
        assert_eq!([&read_before, &read_after].map(|copy| copy.stands(&register)), [Standing::Good; 2]);
        assert_eq!(other.stands(&register), Standing::Outdated);
        assert_eq!(register.resets(), 0);
    }

    #[test]
    fn a_tombstone_outlives_the_copies_that_may_be_on_their_way_and_no_longer() {
        let register = register();
        register.publish(Fact::Revoked(handle(1)));
        register.sweep(Instant::now() + TOMBSTONE_LIFE / 2);
        assert_eq!(Copied::arrives(&register, 1).stands(&register), Standing::Revoked);
        register.sweep(Instant::now() + TOMBSTONE_LIFE * 2);
        assert_eq!(Copied::arrives(&register, 1).stands(&register), Standing::Good);
    }

    #[test]
    fn s_084_a_copy_that_was_not_looked_at_until_its_tombstone_was_gone_is_good_for_nothing() {
        let register = register();
        let [revoked, other, looked_at] = [1, 2, 3].map(|number| Copied::arrives(&register, number));
        register.publish(Fact::Revoked(handle(1)));
        // They share a shard and a place in the table.
        assert_eq!(looked_at.stands(&register), Standing::Good);
        register.sweep(Instant::now() + TOMBSTONE_LIFE * 2);
        assert_eq!(revoked.stands(&register), Standing::Forgotten);
        assert_eq!(other.stands(&register), Standing::Forgotten, "it might be that one");
        assert_eq!(looked_at.stands(&register), Standing::Good);
        let (standing, facts) = register.meet(other.marks(), register.facts());
        other.fate.remember(standing, facts);
        assert_eq!(other.stands(&register), Standing::Good, "it was read again");
    }

    #[test]
    fn what_was_found_once_stays_without_its_tombstone() {
        let register = register();
        let [revoked, outdated] = [1, 2].map(|number| Copied::arrives(&register, number));
        register.publish(Fact::Revoked(handle(1)));
        register.publish(Fact::Rewritten(handle(2), 2));
        assert_eq!([&revoked, &outdated].map(|copy| copy.stands(&register)), [Standing::Revoked, Standing::Outdated]);
        register.sweep(Instant::now() + TOMBSTONE_LIFE * 2);
        assert_eq!([&revoked, &outdated].map(|copy| copy.stands(&register)), [Standing::Revoked, Standing::Outdated]);
        register.publish(Fact::Revoked(handle(2)));
        assert_eq!(outdated.stands(&register), Standing::Revoked, "worse can come");
    }

    #[test]
    fn what_happens_to_one_does_not_touch_those_that_share_its_place() {
        let register = register();
        let [one, other] = [1, 2].map(|number| Copied::arrives(&register, number));
        for fact in [Fact::Created, Fact::Revoked(handle(1)), Fact::OwnerRevoked([9; 32], Timestamp::from_secs(9))] {
            register.publish(fact);
        }
        assert_eq!((one.stands(&register), other.stands(&register)), (Standing::Revoked, Standing::Good));
        assert_eq!(other.fate.known(), (Standing::Good, 3));
        register.publish(Fact::OwnerRevoked([9; 32], Timestamp::from_secs(9)));
        assert_eq!(other.stands(&register), Standing::Good);
        assert_eq!(other.fate.known(), (Standing::Good, 3), "of another place nobody takes notice");
    }

    #[test]
    fn s_095_an_owners_sessions_are_over_that_began_before_and_no_others() {
        let register = register();
        let copies = [4, 5, 6].map(|secs| Copied::began(&register, 1, secs));
        for secs in [6, 3] {
            register.publish(Fact::OwnerRevoked([7; 32], Timestamp::from_secs(secs)));
        }
        let standings = copies.map(|copy| copy.stands(&register));
        assert_eq!(standings, [Standing::Revoked, Standing::Revoked, Standing::Good]);
        assert_eq!(Copied::began(&register, 2, 5).stands(&register), Standing::Revoked, "a copy that was on its way");
    }

    #[test]
    fn r_004_more_tombstones_than_fit_outdate_everything_instead() {
        let register = register();
        let copy = Copied::arrives(&register, 1);
        // All in one shard: it goes by the first bytes.
        for number in 1..=TOMBSTONES_PER_SHARD as u64 {
            register.publish(Fact::Revoked(handle(number)));
        }
        assert_eq!(register.resets(), 0);
        register.publish(Fact::Revoked(handle(u64::MAX)));
        assert_eq!(register.resets(), 1);
        assert_eq!(register.sessions.shard(&handle(0)).tombstones.len(), 1, "the one that was one too many");
        let (late, _) = register.meet(copy.marks(), 0);
        assert_eq!(late, Standing::Forgotten, "nor is a copy believed that was read before all that");
        assert_eq!(copy.stands(&register), Standing::Forgotten, "nor does a stream go on with what nobody remembers");
        register.publish(Fact::Revoked(handle(1)));
        assert_eq!(copy.stands(&register), Standing::Revoked);
    }

    #[test]
    fn s_095_the_end_of_all_sessions_holds_for_copies_that_are_there_and_that_come_later() {
        let register = register();
        let held = Copied::arrives(&register, 1);
        register.publish(Fact::OwnerRevoked(EVERYONE, Timestamp::from_secs(10)));
        register.publish(Fact::OwnerRevoked(EVERYONE, Timestamp::from_secs(3)));
        register.sweep(Instant::now() + TOMBSTONE_LIFE * 2);
        assert_eq!(held.stands(&register), Standing::Revoked);
        let later = |secs| Copied::began(&register, 2, secs).stands(&register);
        assert_eq!(later(9), Standing::Revoked, "a copy that was on its way");
        assert_eq!(later(10), Standing::Good, "who signed in afterwards");
    }

    #[test]
    fn facts_hold_in_any_order() {
        let register = register();
        for generation in [5, 3] {
            register.publish(Fact::Rewritten(handle(1), generation));
        }
        assert_eq!(register.sessions.find(&handle(1)).0, Some(5));
        register.publish(Fact::Revoked(handle(1)));
        register.publish(Fact::Rewritten(handle(1), 9));
        assert_eq!(register.sessions.find(&handle(1)).0, Some(REVOKED), "nothing revives it");
    }
}
