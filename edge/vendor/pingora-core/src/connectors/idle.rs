// Postern: a pool of idle connections that needs no task for each of them, which cost every request of HTTP/1 one.

use super::test_reusable_stream;
use crate::protocols::Stream;
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// How often idle connections are looked at. One that its server closed in between is found when it is taken.
const PERIOD: Duration = Duration::from_secs(1);

/// Idle connections by what they may be used for.
pub(super) struct IdleStreams {
    pool: Arc<Mutex<Pool>>,
    capacity: usize,
    unexpected_data: Arc<AtomicU64>,
}

#[derive(Default)]
struct Pool {
    streams: HashMap<u64, VecDeque<Idle>>,
    count: usize,
    watched: bool,
}

struct Idle {
    stream: Stream,
    since: Instant,
    until: Option<Instant>,
}

impl IdleStreams {
    pub(super) fn new(capacity: usize, unexpected_data: Arc<AtomicU64>) -> Self {
        IdleStreams {
            pool: Arc::default(),
            capacity,
            unexpected_data,
        }
    }

    /// The one that was used last, if it is still good.
    pub(super) fn take(&self, key: u64) -> Option<Stream> {
        let mut pool = self.pool.lock();
        loop {
            let mut idle = pool.streams.get_mut(&key)?.pop_back()?;
            pool.count -= 1;
            if idle.is_good(Instant::now(), &self.unexpected_data) {
                return Some(idle.stream);
            }
        }
    }

    /// Keeps one, in place of the one that is idle for longest if there are too many.
    pub(super) fn put(&self, key: u64, stream: Stream, timeout: Option<Duration>) {
        if self.capacity == 0 {
            return;
        }
        let since = Instant::now();
        let until = timeout.and_then(|timeout| since.checked_add(timeout));
        let mut pool = self.pool.lock();
        if pool.count >= self.capacity {
            pool.evict();
        }
        let idle = Idle { stream, since, until };
        pool.streams.entry(key).or_default().push_back(idle);
        pool.count += 1;
        if !pool.watched {
            pool.watched = true;
            let watching = watch(Arc::downgrade(&self.pool), self.unexpected_data.clone());
            pingora_runtime::current_handle().spawn(watching);
        }
    }
}

impl Idle {
    /// Whether its time is not over and its server has neither closed it nor said anything.
    fn is_good(&mut self, now: Instant, unexpected_data: &AtomicU64) -> bool {
        self.until.map_or(true, |until| now < until)
            && test_reusable_stream(&mut self.stream, unexpected_data)
    }
}

impl Pool {
    fn evict(&mut self) {
        let since = |streams: &VecDeque<Idle>| streams.front().map(|idle| idle.since);
        let waiting = self.streams.iter().filter(|(_, streams)| !streams.is_empty());
        let longest = waiting.min_by_key(|(_, streams)| since(streams));
        let Some(key) = longest.map(|(key, _)| *key) else { return };
        if let Some(streams) = self.streams.get_mut(&key) {
            streams.pop_front();
            self.count -= 1;
            if streams.is_empty() {
                self.streams.remove(&key);
            }
        }
    }

    /// Drops what is over, and what its server has closed.
    fn sweep(&mut self, unexpected_data: &AtomicU64) {
        let now = Instant::now();
        for streams in self.streams.values_mut() {
            streams.retain_mut(|idle| idle.is_good(now, unexpected_data));
        }
        self.streams.retain(|_, streams| !streams.is_empty());
        self.count = self.streams.values().map(VecDeque::len).sum();
    }
}

/// Looks at the pool for as long as there is something in it.
async fn watch(pool: Weak<Mutex<Pool>>, unexpected_data: Arc<AtomicU64>) {
    let watch = Watch(pool);
    loop {
        tokio::time::sleep(PERIOD).await;
        let Some(pool) = watch.0.upgrade() else { return };
        let mut pool = pool.lock();
        pool.sweep(&unexpected_data);
        if pool.count == 0 {
            // Under the same lock, so that what comes next is watched again.
            pool.watched = false;
            return;
        }
    }
}

/// However the watch ends, the next connection begins another.
struct Watch(Weak<Mutex<Pool>>);

impl Drop for Watch {
    fn drop(&mut self) {
        if std::thread::panicking() {
            if let Some(pool) = self.0.upgrade() {
                pool.lock().watched = false;
            }
        }
    }
}
