//! Stops asking a store that hangs, but for one probe a second: who waits in vain costs memory and patience.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Counts calls in a row that were not answered in time.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    unanswered: u32,
    /// While it is open: when the next probe may pass.
    probe_at: Option<Instant>,
}

impl Breaker {
    /// Whether a call may be made now.
    pub(super) fn lets_pass(&self, now: Instant) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match state.probe_at {
            Some(probe_at) if now < probe_at => false,
            Some(_) => {
                state.probe_at = now.checked_add(PROBE_EVERY);
                true
            }
            None => true,
        }
    }

    /// Notes whether a call was answered in time, with whatever answer.
    pub(super) fn saw(&self, answered: bool, now: Instant) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if answered {
            *state = State::default();
            return;
        }
        state.unanswered = state.unanswered.saturating_add(1);
        if state.unanswered >= UNANSWERED_IN_A_ROW {
            state.probe_at = now.checked_add(PROBE_EVERY);
        }
    }
}

const UNANSWERED_IN_A_ROW: u32 = 5;
const PROBE_EVERY: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r_007_a_store_that_hangs_is_asked_once_a_second_until_it_answers() {
        let (breaker, start) = (Breaker::default(), Instant::now());
        for _ in 0..UNANSWERED_IN_A_ROW {
            assert!(breaker.lets_pass(start));
            breaker.saw(false, start);
        }
        assert!(!breaker.lets_pass(start));
        let later = start + PROBE_EVERY;
        assert!(breaker.lets_pass(later), "one probe passes");
        assert!(!breaker.lets_pass(later), "and no second");
        breaker.saw(true, later);
        assert!(breaker.lets_pass(later) && breaker.lets_pass(later));
    }

    #[test]
    fn answers_in_between_keep_it_closed() {
        let (breaker, start) = (Breaker::default(), Instant::now());
        for _ in 0..10 {
            breaker.saw(false, start);
            breaker.saw(true, start);
        }
        assert!(breaker.lets_pass(start));
    }
}
