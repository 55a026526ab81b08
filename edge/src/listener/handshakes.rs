//! Who is in a handshake. Where there is no room left, whoever has been in it longest makes way: an honest client is done in
//! milliseconds, so it is one that only sits there.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use tokio::sync::oneshot;
use tokio::time::timeout;

use super::ConnectionLimits;

/// All handshakes under way, up to the bound in force.
#[derive(Debug, Default)]
pub(crate) struct Handshakes {
    queue: Mutex<Queue>,
}

/// Oldest first. A sender that is dropped tells its handshake to make way.
#[derive(Debug, Default)]
struct Queue {
    next: u64,
    waiting: BTreeMap<u64, oneshot::Sender<()>>,
}

/// Why a handshake did not come to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Interrupted {
    /// It took too long.
    Late,
    /// Another one wanted its place.
    Displaced,
}

impl Handshakes {
    /// What `work` gives, within the time and beside as many others as the limits say.
    pub(crate) async fn run<T>(
        &self,
        limits: &ConnectionLimits,
        work: impl Future<Output = T>,
    ) -> Result<T, Interrupted> {
        let (place, displaced) = self.enter(limits.handshakes);
        let outcome = tokio::select! {
            biased;
            done = timeout(limits.handshake_time, work) => done.map_err(|_| Interrupted::Late),
            _ = displaced => Err(Interrupted::Displaced),
        };
        drop(place);
        outcome
    }

    fn enter(&self, most: usize) -> (Place<'_>, oneshot::Receiver<()>) {
        let (sender, displaced) = oneshot::channel();
        let id = self.with(|queue| {
            // A reload may have left more than there may be.
            while queue.waiting.len() >= most.max(1) {
                queue.waiting.pop_first();
            }
            queue.next += 1;
            queue.waiting.insert(queue.next, sender);
            queue.next
        });
        (Place { of: self, id }, displaced)
    }

    fn with<T>(&self, act: impl FnOnce(&mut Queue) -> T) -> T {
        act(&mut self.queue.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A place among them, given back on drop.
struct Place<'h> {
    of: &'h Handshakes,
    id: u64,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.of.with(|queue| queue.waiting.remove(&self.id));
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use std::time::Duration;

    use super::*;

    fn limits(handshakes: usize) -> ConnectionLimits {
        ConnectionLimits { handshakes, handshake_time: Duration::from_secs(10), ..ConnectionLimits::default() }
    }

    #[tokio::test(start_paused = true)]
    async fn r_001_the_handshake_that_takes_longest_makes_way_for_another() {
        let (handshakes, limits) = (Handshakes::default(), limits(2));
        let first = handshakes.run(&limits, pending::<()>());
        let second = handshakes.run(&limits, pending::<()>());
        let others = async {
            tokio::task::yield_now().await;
            handshakes.run(&limits, ready(3)).await
        };
        let (first, second, third) = tokio::join!(first, second, others);
        assert_eq!((first, third), (Err(Interrupted::Displaced), Ok(3)));
        assert_eq!(second, Err(Interrupted::Late));
    }

    #[tokio::test(start_paused = true)]
    async fn a_place_that_is_given_back_is_free() {
        let (handshakes, limits) = (Handshakes::default(), limits(1));
        assert_eq!(handshakes.run(&limits, ready(1)).await, Ok(1));
        let dropped = timeout(Duration::ZERO, handshakes.run(&limits, pending::<()>())).await;
        assert!(dropped.is_err());
        assert!(handshakes.with(|queue| queue.waiting.is_empty()));
    }
}
