//! Postern: how often a peer may do what costs it next to nothing. A span begins with the first of them.

use std::time::{Duration, Instant};

const SPAN: Duration = Duration::from_secs(10);

/// How often within the present span.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    began: Option<Instant>,
    count: usize,
}

impl Pace {
    /// Counts one more, and says whether it is one too many.
    pub(crate) fn exceeds(&mut self, most: usize) -> bool {
        self.count += 1;
        // The clock is asked only for the first and for those beyond.
        if self.count > 1 && self.count <= most {
            return false;
        }
        if self.began.map_or(true, |began| began.elapsed() >= SPAN) || self.count == 1 {
            self.began = Some(Instant::now());
            self.count = 1;
        }
        self.count > most
    }
}

/// Streams that ended before their time, against all.
#[derive(Debug, Default)]
pub(crate) struct Resets {
    began: Option<Instant>,
    resets: usize,
    opened: usize,
}

/// Of them, within a span.
const MOST: usize = 100;

impl Resets {
    pub(crate) fn opened(&mut self) {
        self.opened = self.opened.saturating_add(1);
    }

    /// Counts one more, of either side.
    /// Of the streams that were opened before the span, no more count than it allows resets: nobody saves them up.
    pub(crate) fn record(&mut self) {
        if self.began.map_or(true, |began| began.elapsed() >= SPAN) {
            self.began = Some(Instant::now());
            self.resets = 0;
            self.opened = self.opened.min(MOST);
        }
        self.resets += 1;
    }

    /// Whether these are too many: less than half of the streams came to their end.
    pub(crate) fn exceeded(&self) -> bool {
        self.resets >= MOST && self.opened < 2 * self.resets
    }
}
