//! Before when all sessions are over, as this process knows it: read whenever it connects to the changelog, and then heard of.
//! So a look at a session does not depend on one more server.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

/// What is known of the end of all sessions.
#[derive(Debug)]
pub(super) struct Everyone {
    /// The latest that was read or heard of.
    not_before: AtomicI64,
    /// Whether it was ever read: before that there may be a later one.
    read: AtomicBool,
}

/// Before everything.
pub(super) const NEVER: i64 = i64::MIN;

impl Default for Everyone {
    fn default() -> Self {
        Self { not_before: AtomicI64::new(NEVER), read: AtomicBool::new(false) }
    }
}

impl Everyone {
    /// What is known, [`NEVER`] if they are not over; `None` if it has to be read.
    pub(super) fn known(&self) -> Option<i64> {
        self.read.load(Ordering::SeqCst).then(|| self.not_before.load(Ordering::SeqCst))
    }

    /// It was read.
    pub(super) fn learn(&self, not_before: i64) {
        self.raise(not_before);
        self.read.store(true, Ordering::SeqCst);
    }

    /// It was heard of.
    pub(super) fn raise(&self, not_before: i64) {
        self.not_before.fetch_max(not_before, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_heard_before_it_was_read_may_not_be_all() {
        let everyone = Everyone::default();
        everyone.raise(5);
        assert_eq!(everyone.known(), None);
        everyone.learn(3);
        assert_eq!(everyone.known(), Some(5));
        everyone.raise(9);
        everyone.learn(NEVER);
        assert_eq!(everyone.known(), Some(9), "it only moves forward");
    }
}
