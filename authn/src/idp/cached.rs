//! What a provider publishes, kept for a while, fetched by one request at a time (S-072, R-027).

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use tokio::sync::Mutex;
use tracing::warn;

use super::fetch::FetchError;

/// A fetched value and how long it is fresh.
#[derive(Debug)]
pub(crate) struct Fetched<T> {
    pub(crate) value: T,
    pub(crate) fresh_for: Duration,
}

/// An old value outlives a provider that does not answer, but not for ever.
const KEPT_AT_MOST: Duration = Duration::from_secs(24 * 3600);

/// The last value that was fetched, and when it was last tried.
#[derive(Debug)]
pub(crate) struct Cached<T> {
    what: &'static str,
    /// Between two fetches that fail or look for something unknown.
    gap: Duration,
    held: ArcSwapOption<Held<T>>,
    /// Held by the one that fetches; the rest wait for what it brings.
    tried: Mutex<Option<Instant>>,
}

#[derive(Debug)]
struct Held<T> {
    value: Arc<T>,
    fetched: Instant,
    fresh_for: Duration,
}

impl<T> Cached<T> {
    /// Nothing yet.
    pub(crate) fn new(what: &'static str, gap: Duration) -> Self {
        Self { what, gap, held: ArcSwapOption::empty(), tried: Mutex::new(None) }
    }

    /// A value that is fresh and pleases `wanted`; else, after at most one fetch, the best there is, which may not
    /// please. A failed fetch keeps the old value.
    ///
    /// # Errors
    /// What the fetch met, if there is no old value either.
    pub(crate) async fn find(
        &self,
        wanted: impl Fn(&T) -> bool,
        fetch: impl AsyncFnOnce() -> Result<Fetched<T>, FetchError>,
    ) -> Result<Arc<T>, FetchError> {
        if let Some(value) = self.fresh(&wanted) {
            return Ok(value);
        }
        let mut tried = self.tried.lock().await;
        if let Some(value) = self.fresh(&wanted) {
            return Ok(value);
        }
        if tried.is_some_and(|at| at.elapsed() < self.gap) {
            return self.old().ok_or(FetchError::FailedJustNow);
        }
        let is_routine = self.fresh(|_| true).is_none();
        *tried = Some(Instant::now());
        let fetched = fetch().await;
        // Told from its end: who waited for a slow failure does not try once more, one after the other.
        *tried = Some(Instant::now());
        match fetched {
            Ok(fetched) => {
                // Only failures and fetches for something unknown are held back: a key that is new just after a routine
                // fetch must be found (S-073).
                *tried = tried.filter(|_| !is_routine);
                Ok(self.hold(fetched))
            }
            Err(error) => self
                .old()
                .inspect(|_| warn!(%error, what = self.what, "fetch failed, the old one is kept"))
                .ok_or(error),
        }
    }

    fn hold(&self, fetched: Fetched<T>) -> Arc<T> {
        let value = Arc::new(fetched.value);
        let held = Held { value: Arc::clone(&value), fetched: Instant::now(), fresh_for: fetched.fresh_for };
        self.held.store(Some(Arc::new(held)));
        value
    }

    fn fresh(&self, wanted: impl Fn(&T) -> bool) -> Option<Arc<T>> {
        let held = self.held.load();
        let held = held.as_ref().filter(|held| held.fetched.elapsed() < held.fresh_for)?;
        wanted(&held.value).then(|| Arc::clone(&held.value))
    }

    fn old(&self) -> Option<Arc<T>> {
        let held = self.held.load();
        held.as_ref().filter(|held| held.fetched.elapsed() < KEPT_AT_MOST).map(|held| Arc::clone(&held.value))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[tokio::test]
    async fn s_072_many_unknown_keys_at_once_cause_one_fetch() {
        let cached = Arc::new(Cached::new("keys", HOUR));
        let fetches = Arc::new(AtomicU32::new(0));
        let count = |fetches: Arc<AtomicU32>| {
            async move || {
                tokio::task::yield_now().await;
                Ok(Fetched { value: fetches.fetch_add(1, Ordering::SeqCst), fresh_for: HOUR })
            }
        };
        cached.find(|_| true, count(Arc::clone(&fetches))).await.unwrap();
        let mut storm = tokio::task::JoinSet::new();
        for _ in 0..100 {
            let (cached, fetch) = (Arc::clone(&cached), count(Arc::clone(&fetches)));
            storm.spawn(async move { cached.find(|_| false, fetch).await.map(|value| *value) });
        }
        for found in storm.join_all().await {
            assert_eq!(found.unwrap(), 1, "the newly fetched set is the answer");
        }
        assert_eq!(fetches.load(Ordering::SeqCst), 2, "one routine fetch, one for the storm");
    }

    #[tokio::test]
    async fn s_072_a_failed_fetch_keeps_the_old_value() {
        let cached = Cached::new("keys", Duration::ZERO);
        let good = async || Ok(Fetched { value: 1, fresh_for: Duration::ZERO });
        assert_eq!(*cached.find(|_| true, good).await.unwrap(), 1);
        let bad = async || Err(FetchError::TimedOut);
        assert_eq!(*cached.find(|_| true, bad).await.unwrap(), 1);
    }

    #[tokio::test]
    async fn s_071_who_waited_for_a_slow_failure_does_not_try_one_after_the_other() {
        let gap = Duration::from_millis(500);
        let cached = Arc::new(Cached::<u8>::new("metadata", gap));
        let fetches = Arc::new(AtomicU32::new(0));
        let mut storm = tokio::task::JoinSet::new();
        for _ in 0..5 {
            let (cached, fetches) = (Arc::clone(&cached), Arc::clone(&fetches));
            storm.spawn(async move {
                let slow = async || {
                    fetches.fetch_add(1, Ordering::SeqCst);
                    tokio::time::sleep(gap * 2).await;
                    Err(FetchError::TimedOut)
                };
                cached.find(|_| true, slow).await.is_err()
            });
        }
        assert!(storm.join_all().await.into_iter().all(|failed| failed));
        assert_eq!(fetches.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn r_013_a_provider_that_comes_back_is_found_again() {
        let cached = Cached::new("metadata", Duration::ZERO);
        assert!(cached.find(|_: &u8| true, async || Err(FetchError::TimedOut)).await.is_err());
        let good = async || Ok(Fetched { value: 1, fresh_for: HOUR });
        assert_eq!(*cached.find(|_| true, good).await.unwrap(), 1);
    }
}
