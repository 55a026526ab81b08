//! One session in the cache.

use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};
use std::time::Duration;

use postern_identity::{CompactSession, Session, SessionId, Timestamp, prefetch};

use crate::invalidation::{Fate, Marks, Owner, Standing};

/// A session that is kept near the request, and what the edge keeps beside it.
///
/// In this order, so that what each look reads is in two lines of the processor's cache, or in three: among a million copies each
/// that is not beside another is a wait for memory.
#[derive(Debug)]
#[repr(C)]
pub struct Entry<X> {
    pub(super) fate: Fate,
    owner: Owner,
    read_at: AtomicI64,
    idle_until: AtomicI64,
    resets: u32,
    /// The outage in which it was served last.
    bridged: AtomicU32,
    /// What it is found by.
    pub(super) id: SessionId,
    /// The session as it was read.
    pub session: CompactSession,
    /// The idle end that the store knows of, or will soon.
    heard: AtomicI64,
    /// In seconds, as far as they fit.
    asked_at: AtomicU32,
    /// The edge's own; made by `Default` when the session is first read and whenever its content changed.
    pub extra: X,
}

impl<X> Entry<X> {
    /// A copy that no cache keeps and nothing happens to, of a session that was not read from the store.
    #[must_use]
    pub fn alone(session: &Session, now: Timestamp) -> Self
    where
        X: Default,
    {
        let untouched = (Owner::of(&[0; 32]), Fate::new(Standing::Good, 0));
        Self::new(SessionId::from_bytes([0; 32]), (session.into(), idle_end(session)), untouched, (0, now))
    }

    /// A copy of a session with its idle end, read after so many resets and at that time.
    pub(super) fn new(
        id: SessionId,
        (session, idle_end): (CompactSession, i64),
        (owner, fate): (Owner, Fate),
        (resets, now): (u32, Timestamp),
    ) -> Self
    where
        X: Default,
    {
        Self {
            id,
            session,
            extra: X::default(),
            fate,
            owner,
            resets,
            bridged: AtomicU32::new(0),
            read_at: AtomicI64::new(now.as_millis()),
            asked_at: AtomicU32::new(second(now)),
            idle_until: AtomicI64::new(idle_end),
            heard: AtomicI64::new(idle_end),
        }
    }

    /// Asks for all of it before it is read: by a field in every 64 bytes, as they lie now.
    #[inline]
    pub(super) fn prefetch(&self) {
        let CompactSession { expires_at, generation, .. } = &self.session;
        prefetch(&self.fate);
        prefetch(&self.id);
        prefetch(expires_at);
        prefetch(generation);
        prefetch(&self.heard);
        prefetch(&self.extra);
    }

    /// What facts can be about.
    pub(super) fn marks(&self) -> Marks<'_> {
        let CompactSession { handle, issued_at, generation, .. } = &self.session;
        Marks { handle, owner: self.owner, issued_at: *issued_at, generation: *generation }
    }

    /// Whether it was read after the last reset.
    pub(super) const fn is_from(&self, resets: u32) -> bool {
        self.resets == resets
    }

    /// Its time is over, whatever a clock says later.
    pub(super) fn end(&self) {
        self.fate.remember(Standing::Over, 0);
    }

    pub(super) fn read_at(&self) -> Timestamp {
        Timestamp::from_millis(self.read_at.load(Ordering::Relaxed))
    }

    /// How long ago it was read; endless if that was in the future, because then the clock jumped back.
    pub(super) fn age(&self, now: Timestamp) -> Duration {
        let read_at = self.read_at();
        if read_at.since(now) > TOLERATED { Duration::MAX } else { now.since(read_at) }
    }

    /// Whether its end has come, as far as is known here: idleness may have been ended elsewhere.
    #[must_use]
    pub fn is_expired(&self, now: Timestamp) -> bool {
        now >= self.session.expires_at || now.as_millis() >= self.idle_until.load(Ordering::Relaxed)
    }

    /// Whether the caller is the one who reads it again. Once in a second at most, so that a store that is down is not
    /// asked with each request.
    pub(super) fn may_ask_again(&self, now: Timestamp) -> bool {
        let second = second(now);
        let known = self.asked_at.load(Ordering::Relaxed);
        // Whoever read the clock a second earlier is late.
        let due = known != second && known != second.wrapping_add(1);
        due && self.asked_at.compare_exchange(known, second, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// Notes that it is served in that outage; whether that is the first time.
    pub(super) fn bridges(&self, outage: u64) -> bool {
        let outage = low(outage);
        self.bridged.swap(outage, Ordering::Relaxed) != outage
    }

    /// Notes that the store said the same again.
    pub(super) fn read_again(&self, session: &Session, now: Timestamp) {
        self.read_at.store(now.as_millis(), Ordering::Relaxed);
        if let Some((_, until)) = session.idle {
            self.heard.fetch_max(until.as_millis(), Ordering::Relaxed);
            self.idle_until.fetch_max(until.as_millis(), Ordering::Relaxed);
        }
    }

    /// Moves the idle end. If the store should hear of it: what it heard before, and what it is to hear.
    pub(super) fn touch(&self, now: Timestamp) -> Option<(i64, Timestamp)> {
        let idle = self.session.idle()?;
        let until = now.plus(idle).min(self.session.expires_at);
        self.idle_until.fetch_max(until.as_millis(), Ordering::Relaxed);
        let heard = self.heard.load(Ordering::Relaxed);
        let lag = until.since(Timestamp::from_millis(heard));
        let won = lag > tolerated_lag(idle)
            && self.heard.compare_exchange(heard, until.as_millis(), Ordering::Relaxed, Ordering::Relaxed).is_ok();
        won.then_some((heard, until))
    }

    /// Takes back what the store did not hear after all.
    pub(super) fn unheard(&self, before: i64, until: Timestamp) {
        let _newer = self.heard.compare_exchange(until.as_millis(), before, Ordering::Relaxed, Ordering::Relaxed);
    }
}

/// When idleness ends it, as far as the store knows, in milliseconds.
pub(super) fn idle_end(session: &Session) -> i64 {
    session.idle.map_or(i64::MAX, |(_, until)| until.as_millis())
}

/// The second in which an exchange began, as far as it fits.
fn second(now: Timestamp) -> u32 {
    low(now.as_secs().cast_unsigned())
}

fn low(number: u64) -> u32 {
    u32::try_from(number & u64::from(u32::MAX)).unwrap_or_default()
}

/// How far the store's idle end may lag: writing it for each request would cost more than the request.
fn tolerated_lag(idle: Duration) -> Duration {
    Duration::from_secs(60).max(idle / 10).min(idle / 4)
}

/// Exchanges read the clock when they begin, so a later one may carry an earlier time.
const TOLERATED: Duration = Duration::from_secs(2);
