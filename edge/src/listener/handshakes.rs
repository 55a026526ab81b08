//! Who is in a handshake. Where there is no room left, whoever has been in it longest makes way: an honest client is done in
//! milliseconds, so it is one that only sits there.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

/// All handshakes under way, up to a bound.
#[derive(Debug)]
pub(crate) struct Handshakes {
    most: usize,
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
    pub(crate) fn new(most: usize) -> Self {
        Self { most, queue: Mutex::default() }
    }

    /// What `work` gives, within `limit`.
    pub(crate) async fn run<T>(&self, limit: Duration, work: impl Future<Output = T>) -> Result<T, Interrupted> {
        let (place, displaced) = self.enter();
        let outcome = tokio::select! {
            biased;
            done = timeout(limit, work) => done.map_err(|_| Interrupted::Late),
            _ = displaced => Err(Interrupted::Displaced),
        };
        drop(place);
        outcome
    }

    fn enter(&self) -> (Place<'_>, oneshot::Receiver<()>) {
        let (sender, displaced) = oneshot::channel();
        let id = self.with(|queue| {
            if queue.waiting.len() >= self.most {
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

    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn r_001_the_handshake_that_takes_longest_makes_way_for_another() {
        let handshakes = Handshakes::new(2);
        let first = handshakes.run(LIMIT, pending::<()>());
        let second = handshakes.run(LIMIT, pending::<()>());
        let others = async {
            tokio::task::yield_now().await;
            handshakes.run(LIMIT, ready(3)).await
        };
        let (first, second, third) = tokio::join!(first, second, others);
        assert_eq!((first, third), (Err(Interrupted::Displaced), Ok(3)));
        assert_eq!(second, Err(Interrupted::Late));
    }

    #[tokio::test(start_paused = true)]
    async fn a_place_that_is_given_back_is_free() {
        let handshakes = Handshakes::new(1);
        assert_eq!(handshakes.run(LIMIT, ready(1)).await, Ok(1));
        let dropped = timeout(Duration::ZERO, handshakes.run(LIMIT, pending::<()>())).await;
        assert!(dropped.is_err());
        assert!(handshakes.with(|queue| queue.waiting.is_empty()));
    }
}
