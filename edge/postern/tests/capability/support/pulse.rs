//! Whether the machine runs at all: one that is paused, or whose cores are away, makes everybody late.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A thread that does nothing but notice how late it wakes up; it ends with this.
#[derive(Debug)]
pub(crate) struct Pulse(Arc<AtomicU64>);

impl Pulse {
    pub(crate) fn start() -> Self {
        let pulse = Self(Arc::default());
        let longest = Arc::downgrade(&pulse.0);
        std::thread::spawn(move || {
            let mut before = Instant::now();
            while let Some(longest) = longest.upgrade() {
                std::thread::sleep(Duration::from_millis(20));
                longest.fetch_max(u64::try_from(before.elapsed().as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
                before = Instant::now();
            }
        });
        pulse
    }

    /// The longest that it was not woken for.
    pub(crate) fn longest_pause(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::Relaxed))
    }
}
