//! Whether this process hears of revocations, and what may be served while it does not (S-084, R-006, R-008).

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use postern_identity::Timestamp;

/// A moment by both clocks: by the one that is set, and by the one that only ever runs on. Whoever has read both already, as when a
/// request began, spares others to read them again. Made anew for each request: by an old one, a lease that is over would
/// seem to hold.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// For what is written down.
    pub now: Timestamp,
    /// For how long ago something was heard of in this process.
    pub steady: Instant,
}

impl From<Timestamp> for Moment {
    /// Reads the steady clock: for whoever has only the other time.
    fn from(now: Timestamp) -> Self {
        Self { now, steady: Instant::now() }
    }
}

/// Since when this process has heard nothing of the changelog. A store of its own has none to listen to.
#[derive(Debug)]
pub(crate) struct Contact {
    /// How long one heartbeat is good for; `None` where every change is made in this process.
    lease: Option<Duration>,
    /// What the times below count from.
    start: Instant,
    /// When the question was asked that the latest heartbeat answered, in milliseconds, counted from 1; [`NEVER`] before
    /// the first.
    heard: AtomicU64,
}

const NEVER: u64 = 0;

impl Contact {
    /// That of a store which belongs to this process alone: nothing happens that is not heard of.
    pub(crate) fn own() -> Self {
        Self { lease: None, start: Instant::now(), heard: AtomicU64::new(NEVER) }
    }

    /// That of a shared store: lost until [`heard`](Self::heard) is called, and from `lease` after it.
    pub(crate) fn leased(lease: Duration) -> Self {
        Self { lease: Some(lease), ..Self::own() }
    }

    /// A heartbeat was read that was written after this question was asked: nothing older waits unseen.
    pub(crate) fn heard(&self, asked: Instant) {
        let millis = u64::try_from(asked.saturating_duration_since(self.start).as_millis()).unwrap_or(u64::MAX);
        self.heard.fetch_max(millis.saturating_add(1), Ordering::AcqRel);
    }

    /// How long ago everything that was written had been heard; since the start, if that never was.
    pub(crate) fn heard_ago(&self) -> Duration {
        let heard = self.heard.load(Ordering::Acquire).saturating_sub(1);
        self.start.elapsed().saturating_sub(Duration::from_millis(heard))
    }

    /// How long one heartbeat is good for; `None` where every change is made in this process.
    pub(crate) const fn lease(&self) -> Option<Duration> {
        self.lease
    }

    /// For how long the lease still holds.
    pub(crate) fn lease_left(&self) -> Duration {
        let was_heard = self.heard.load(Ordering::Acquire) != NEVER;
        self.lease.filter(|_| was_heard).map_or(Duration::ZERO, |lease| lease.saturating_sub(self.heard_ago()))
    }

    /// Which outage this is, while nothing is heard: another number for each.
    pub(crate) fn outage(&self) -> Option<u64> {
        self.lost_for().map(|_| self.heard.load(Ordering::Acquire))
    }

    /// For how long the lease has been over; `None`: it holds. [`Duration::MAX`] if there never was contact.
    pub(crate) fn lost_for(&self) -> Option<Duration> {
        self.lost_at(Instant::now())
    }

    /// For how long it had been over then.
    pub(crate) fn lost_at(&self, then: Instant) -> Option<Duration> {
        let lease = self.lease?;
        let heard = self.heard.load(Ordering::Acquire);
        if heard == NEVER {
            return Some(Duration::MAX);
        }
        then.saturating_duration_since(self.start).checked_sub(Duration::from_millis(heard - 1) + lease)
    }
}

impl Contact {
    /// For how long there has been none, from the start on if there never was; zero while there is.
    pub(crate) fn trouble(&self) -> Duration {
        self.lost_for().map_or(Duration::ZERO, |lost| lost.min(self.start.elapsed()))
    }
}

/// How old a copy of a session may become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ages {
    /// While there is contact (`session_max_age`).
    pub(crate) fresh: Duration,
    /// How long it may be served without, and how much older it may become where it cannot be read again
    /// (`session_static_window`).
    pub(crate) window: Duration,
}

impl Ages {
    /// Whether a copy of that age may stand in for a store that does not answer. A copy that was fresh when the store fell silent
    /// may for the whole window, however late the silence is noticed.
    fn bridge(self, age: Duration) -> bool {
        !self.window.is_zero() && age <= self.fresh.saturating_add(self.window)
    }
}

/// What is to be done with a copy of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    /// Serve it.
    Serve,
    /// Serve it, and have it read again meanwhile.
    Renew,
    /// Serve it although nothing is heard of revocations.
    Static,
    /// Read it again first.
    Ask,
    /// Serve nothing: the store cannot be trusted to have been heard.
    Refuse,
}

/// The decision for a copy of that age, by how long contact has been lost. The whole table is in the test below.
pub(crate) fn judge(lost_for: Option<Duration>, age: Duration, ages: Ages) -> Use {
    match lost_for {
        None if age < ages.fresh / 2 => Use::Serve,
        None if age < ages.fresh => Use::Renew,
        None => Use::Ask,
        Some(lost) if lost <= ages.window && ages.bridge(age) => Use::Static,
        Some(_) => Use::Refuse,
    }
}

/// The decision for a copy that was to be read again, when the part of the store that holds it did not answer. Its
/// tombstones still arrive, if the changelog does.
pub(crate) fn judge_unanswered(lost_for: Option<Duration>, age: Duration, ages: Ages) -> Use {
    match lost_for {
        None if ages.bridge(age) => Use::Static,
        None => Use::Refuse,
        Some(_) => judge(lost_for, age, ages),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn r_006_r_008_what_is_served_by_contact_and_age() {
        let (default, strict) = (Ages { fresh: secs(60), window: secs(30) }, Ages { fresh: secs(60), window: secs(0) });
        let (fresh, lost) = (None, |secs| Some(Duration::from_secs(secs)));
        let never = Some(Duration::MAX);
        let table = [
            // contact, age, default route, strict route
            (fresh, 0, Use::Serve, Use::Serve),
            (fresh, 29, Use::Serve, Use::Serve),
            (fresh, 30, Use::Renew, Use::Renew),
            (fresh, 59, Use::Renew, Use::Renew),
            (fresh, 60, Use::Ask, Use::Ask),
            (fresh, 9_999, Use::Ask, Use::Ask),
            (lost(0), 0, Use::Static, Use::Refuse),
            (lost(0), 60, Use::Static, Use::Refuse),
            (lost(0), 63, Use::Static, Use::Refuse),
            (lost(0), 91, Use::Refuse, Use::Refuse),
            (lost(30), 90, Use::Static, Use::Refuse),
            (lost(30), 91, Use::Refuse, Use::Refuse),
            (lost(31), 0, Use::Refuse, Use::Refuse),
            (never, 0, Use::Refuse, Use::Refuse),
        ];
        for (contact, age, on_default, on_strict) in table {
            assert_eq!(judge(contact, secs(age), default), on_default, "{contact:?} {age}");
            assert_eq!(judge(contact, secs(age), strict), on_strict, "{contact:?} {age}, strict");
        }
    }

    #[test]
    fn r_006_a_part_of_the_store_that_is_away_is_bridged_for_the_window() {
        let (default, strict) = (Ages { fresh: secs(60), window: secs(30) }, Ages { fresh: secs(60), window: secs(0) });
        assert_eq!(judge_unanswered(None, secs(90), default), Use::Static);
        assert_eq!(judge_unanswered(None, secs(91), default), Use::Refuse);
        assert_eq!(judge_unanswered(None, secs(60), strict), Use::Refuse);
        assert_eq!(judge_unanswered(Some(secs(31)), secs(0), default), Use::Refuse);
    }

    #[test]
    fn a_clock_that_jumped_back_makes_no_copy_young() {
        let ages = Ages { fresh: secs(60), window: secs(30) };
        assert_eq!(judge(None, Duration::MAX, ages), Use::Ask);
        assert_eq!(judge(Some(secs(1)), Duration::MAX, ages), Use::Refuse);
    }

    #[test]
    fn contact_lasts_for_a_lease_and_begins_with_the_first_heartbeat() {
        assert_eq!(Contact::own().lost_for(), None);
        let contact = Contact::leased(secs(3600));
        assert_eq!(contact.lost_for(), Some(Duration::MAX));
        contact.heard(Instant::now());
        assert_eq!(contact.lost_for(), None);
        let contact = Contact::leased(Duration::ZERO);
        contact.heard(contact.start);
        assert!(contact.lost_for().is_some());
        assert_eq!((contact.lease_left(), contact.outage()), (Duration::ZERO, Some(1)));
    }

    #[test]
    fn contact_is_judged_as_of_a_moment() {
        let contact = Contact::leased(secs(10));
        assert_eq!(contact.lost_at(contact.start), Some(Duration::MAX), "never heard");
        contact.heard(contact.start + secs(5));
        let lost_at = |second| contact.lost_at(contact.start + secs(second));
        assert_eq!((lost_at(14), lost_at(15), lost_at(22)), (None, Some(Duration::ZERO), Some(secs(7))));
        assert_eq!(lost_at(1), None, "who began before the latest heartbeat loses nothing by it");
    }

    #[test]
    fn an_older_heartbeat_shortens_no_lease() {
        let contact = Contact::leased(secs(1));
        contact.heard(contact.start + secs(3600));
        contact.heard(contact.start);
        assert_eq!((contact.lost_for(), contact.outage()), (None, None));
        assert_eq!((contact.heard_ago(), contact.lease_left()), (Duration::ZERO, secs(1)));
    }
}
