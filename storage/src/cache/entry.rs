//! One session in the cache.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use postern_identity::{Session, Timestamp};

use crate::invalidation::{Fate, Standing};

/// A session that is kept near the request, and what the edge keeps beside it.
#[derive(Debug)]
pub struct Entry<X> {
    /// The session as it was read.
    pub session: Arc<Session>,
    /// The edge's own; made by `Default` when the session is first read and whenever its content changed.
    pub extra: X,
    fate: Fate,
    resets: u64,
    over: AtomicBool,
    /// The outage in which it was served last.
    bridged: AtomicU64,
    read_at: AtomicI64,
    asked_at: AtomicI64,
    idle_until: AtomicI64,
    /// The idle end that the store knows of, or will soon.
    heard: AtomicI64,
}

impl<X> Entry<X> {
    /// Whether the session is still good as far as this process knows, for streams that stay open: not revoked, not
    /// expired, not left idle. Costs a few atomic reads. Ask the cache itself now and then: it also notices what was missed.
    #[must_use]
    pub fn is_live(&self, now: Timestamp) -> bool {
        !matches!(self.standing(), Standing::Revoked | Standing::Over) && !self.is_expired(now)
    }

    /// A copy that no cache keeps and nothing happens to, of a session that was not read from the store.
    #[must_use]
    pub fn alone(session: Arc<Session>, now: Timestamp) -> Self
    where
        X: Default,
    {
        let fate = Fate::untouched(&session);
        Self::new(session, fate, 0, now)
    }

    pub(super) fn new(session: Arc<Session>, fate: Fate, resets: u64, now: Timestamp) -> Self
    where
        X: Default,
    {
        let idle_until = session.idle.map_or(i64::MAX, |(_, until)| until.as_millis());
        Self {
            session,
            extra: X::default(),
            fate,
            resets,
            over: AtomicBool::new(false),
            bridged: AtomicU64::new(0),
            read_at: AtomicI64::new(now.as_millis()),
            asked_at: AtomicI64::new(now.as_millis()),
            idle_until: AtomicI64::new(idle_until),
            heard: AtomicI64::new(idle_until),
        }
    }

    /// How this copy stands.
    pub(super) fn standing(&self) -> Standing {
        if self.over.load(Ordering::Acquire) { Standing::Over } else { self.fate.standing(self.session.generation) }
    }

    /// Whether it was read after the last reset.
    pub(super) const fn is_from(&self, resets: u64) -> bool {
        self.resets == resets
    }

    pub(super) fn end(&self) {
        self.over.store(true, Ordering::Release);
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
    pub(super) fn is_expired(&self, now: Timestamp) -> bool {
        now >= self.session.expires_at || now.as_millis() >= self.idle_until.load(Ordering::Relaxed)
    }

    /// Whether the caller is the one who reads it again. Once a second at most, so that a store that is down is not
    /// asked with each request.
    pub(super) fn may_ask_again(&self, now: Timestamp) -> bool {
        let asked_at = self.asked_at.load(Ordering::Relaxed);
        let due = now.since(Timestamp::from_millis(asked_at)) >= ASK_EVERY || asked_at > now.as_millis();
        due && self.asked_at.compare_exchange(asked_at, now.as_millis(), Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// Notes that it is served in that outage; whether that is the first time.
    pub(super) fn bridges(&self, outage: u64) -> bool {
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
        let (idle, _) = self.session.idle?;
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

/// How far the store's idle end may lag: writing it for each request would cost more than the request.
fn tolerated_lag(idle: Duration) -> Duration {
    Duration::from_secs(60).max(idle / 10).min(idle / 4)
}

/// Exchanges read the clock when they begin, so a later one may carry an earlier time.
const TOLERATED: Duration = Duration::from_secs(2);
const ASK_EVERY: Duration = Duration::from_secs(1);
