//! What is worth a line in the log, but not with every command that meets it.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Says yes once, and then not again for [`APART`].
#[derive(Debug, Default)]
pub(super) struct Seldom {
    last: Mutex<Option<Instant>>,
}

impl Seldom {
    /// Whether it is to be told now; who asks and hears yes tells it.
    pub(super) fn is_due(&self) -> bool {
        self.is_due_at(Instant::now())
    }

    fn is_due_at(&self, now: Instant) -> bool {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = last.is_none_or(|last| now.saturating_duration_since(last) >= APART);
        if is_due {
            *last = Some(now);
        }
        is_due
    }
}

/// Between two lines about one thing.
const APART: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_on_is_told_once_a_minute() {
        let (seldom, start) = (Seldom::default(), Instant::now());
        let told = [0, 1, 59, 60, 61, 119, 120].map(|secs| seldom.is_due_at(start + Duration::from_secs(secs)));
        assert_eq!(told, [true, false, false, true, false, false, true]);
    }
}
