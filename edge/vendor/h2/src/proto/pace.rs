//! Postern: how often a peer has done what costs it next to nothing, and how its streams have ended. Tested in
//! `edge/tests/edge/pace.rs`: nobody runs the tests of a copy.

use std::time::{Duration, Instant};

/// A second each.
const PARTS: usize = 10;

/// How often within the last ten seconds: the present second and the nine before it, so that what came slower is never cut.
/// A leaky bucket would be smaller, but takes its bound at once and then again while it empties.
#[derive(Debug, Default)]
pub(crate) struct Lately {
    /// When the present second began.
    began: Option<Instant>,
    /// The present one first.
    parts: [u16; PARTS],
}

impl Lately {
    /// Counts one more.
    pub(crate) fn count(&mut self, now: Instant) {
        self.roll(now);
        self.parts[0] = self.parts[0].saturating_add(1);
    }

    /// How many there were.
    pub(crate) fn total(&mut self, now: Instant) -> usize {
        self.roll(now);
        self.parts.iter().copied().map(usize::from).sum()
    }

    /// Counts one more, and says whether it is one too many.
    pub(crate) fn exceeds(&mut self, most: usize, now: Instant) -> bool {
        self.count(now);
        self.total(now) > most
    }

    fn roll(&mut self, now: Instant) {
        let began = *self.began.get_or_insert(now);
        let passed = now.saturating_duration_since(began).as_secs();
        if passed > 0 {
            let gone = usize::try_from(passed).map_or(PARTS, |passed| passed.min(PARTS));
            self.parts.rotate_right(gone);
            self.parts.iter_mut().take(gone).for_each(|part| *part = 0);
            self.began = Some(began + Duration::from_secs(passed));
        }
    }
}

/// So many streams may be cut.
const MOST: usize = 100;
/// And so many times as many resets may come late.
const LATE: usize = 5;

/// How the streams of a connection have ended lately.
#[derive(Debug)]
pub(crate) struct Endings {
    most: usize,
    /// Answered to the end.
    whole: Lately,
    /// Reset by either side, with something of the answer still to be sent.
    cut: Lately,
    /// Resets of what was over: they end no work, and come of frames that cross.
    late: Lately,
}

impl Endings {
    /// For a connection that may have so many streams at once: whoever has opened them may think better of all.
    pub(crate) fn of(streams: Option<usize>) -> Self {
        let most = streams.unwrap_or(0).max(MOST);
        Self { most, whole: Lately::default(), cut: Lately::default(), late: Lately::default() }
    }

    /// So many streams may end before their time.
    pub(crate) fn most(&self) -> usize {
        self.most
    }

    pub(crate) fn whole(&mut self, now: Instant) {
        self.whole.count(now);
    }

    pub(crate) fn cut(&mut self, now: Instant) {
        self.cut.count(now);
    }

    pub(crate) fn late(&mut self, now: Instant) {
        self.late.count(now);
    }

    /// Whether the connection is to end: so many were cut, and not even half of all came to their end; or too many resets came
    /// late.
    pub(crate) fn exceeded(&mut self, now: Instant) -> bool {
        let cut = self.cut.total(now);
        cut >= self.most && self.whole.total(now) < cut || self.late.total(now) >= LATE * self.most
    }
}
