//! Before when all sessions are over, as this process knows it: read whenever it connects to the changelog, and then heard of.
//! So a look at a session does not depend on one more server, as long as the changelog is heard.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use crate::contact::Contact;

/// What is known of the end of all sessions.
#[derive(Debug)]
pub(super) struct Everyone {
    /// The latest that was read or heard of.
    not_before: AtomicI64,
    /// Whether it was ever read: before that there may be a later one.
    read: AtomicBool,
    /// Whether a later one would have been heard of.
    contact: Arc<Contact>,
}

/// Before everything.
pub(super) const NEVER: i64 = i64::MIN;

/// So long what was heard of stands in for its server, when that is away too: a replica takes over within that, and edges serve
/// as long by themselves (`session_static_window`).
const STANDS_IN: Duration = Duration::from_secs(30);

impl Everyone {
    pub(super) const fn new(contact: Arc<Contact>) -> Self {
        Self { not_before: AtomicI64::new(NEVER), read: AtomicBool::new(false), contact }
    }

    /// What is known, [`NEVER`] if they are not over; `None` if it has to be read, as a later one may not have been heard of.
    pub(super) fn known(&self) -> Option<i64> {
        self.known_until(Duration::ZERO)
    }

    /// The same where it cannot be read: what was known while the changelog was heard, for a while.
    pub(super) fn known_lately(&self) -> Option<i64> {
        self.known_until(STANDS_IN)
    }

    fn known_until(&self, longest: Duration) -> Option<i64> {
        let is_heard = self.contact.lost_for().is_none_or(|lost| lost < longest);
        (is_heard && self.read.load(Ordering::SeqCst)).then(|| self.not_before.load(Ordering::SeqCst))
    }

    /// It was read; gives the latest that is known.
    pub(super) fn learn(&self, not_before: i64) -> i64 {
        self.raise(not_before);
        self.read.store(true, Ordering::SeqCst);
        self.not_before.load(Ordering::SeqCst)
    }

    /// It was heard of.
    pub(super) fn raise(&self, not_before: i64) {
        self.not_before.fetch_max(not_before, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn what_is_heard_before_it_was_read_may_not_be_all() {
        let everyone = Everyone::new(Arc::new(Contact::own()));
        everyone.raise(5);
        assert_eq!(everyone.known(), None);
        assert_eq!(everyone.learn(3), 5);
        assert_eq!(everyone.known(), Some(5));
        everyone.raise(9);
        everyone.learn(NEVER);
        assert_eq!(everyone.known(), Some(9), "it only moves forward");
    }

    #[test]
    fn s_095_what_may_have_been_missed_is_read_again() {
        let contact = Arc::new(Contact::leased(Duration::from_secs(60)));
        let everyone = Everyone::new(Arc::clone(&contact));
        everyone.learn(5);
        assert_eq!((everyone.known(), everyone.known_lately()), (None, None), "nothing has been heard yet");
        contact.heard(Instant::now());
        assert_eq!(everyone.known(), Some(5));
        let contact = Arc::new(Contact::leased(Duration::ZERO));
        let everyone = Everyone::new(Arc::clone(&contact));
        everyone.learn(5);
        contact.heard(Instant::now());
        assert_eq!((everyone.known(), everyone.known_lately()), (None, Some(5)), "the lease is over");
    }
}
