//! What an upstream has to do at the moment, and how much it is given at most: `circuit_breaker_thresholds` (01 §1.3), and the
//! budget of second attempts. One word holds all counts, so that a request costs one step to enter and one to leave.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

use super::peer::STREAMS;
use crate::route::CircuitBreakers;

/// The load of one upstream. It outlives configurations, for as long as there is a route of that identity.
#[derive(Debug)]
pub(crate) struct Load {
    /// [`Counts`], packed.
    counts: AtomicU64,
    /// [`Limits`], packed.
    limits: AtomicU64,
    /// Second attempts under way.
    again: AtomicU32,
    /// A connection is free again, and somebody waits for one.
    freed: Notify,
}

/// What is counted, each at most [`u16::MAX`]: more requests than the edge carries at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Counts {
    /// Requests without a complete answer.
    requests: u16,
    /// Those of them that have a connection for themselves.
    connections: u16,
    /// Requests that wait for one.
    pending: u16,
    /// What is left for second attempts, in tenths.
    budget: u16,
}

impl Counts {
    const fn of(word: u64) -> Self {
        let [a, b, c, d, e, f, g, h] = word.to_le_bytes();
        Self {
            requests: u16::from_le_bytes([a, b]),
            connections: u16::from_le_bytes([c, d]),
            pending: u16::from_le_bytes([e, f]),
            budget: u16::from_le_bytes([g, h]),
        }
    }

    const fn word(self) -> u64 {
        let ([a, b], [c, d]) = (self.requests.to_le_bytes(), self.connections.to_le_bytes());
        let ([e, f], [g, h]) = (self.pending.to_le_bytes(), self.budget.to_le_bytes());
        u64::from_le_bytes([a, b, c, d, e, f, g, h])
    }
}

/// The thresholds in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Limits {
    connections: u16,
    pending: u16,
    requests: u16,
    retries: u16,
}

impl Limits {
    fn of(breakers: CircuitBreakers) -> Self {
        let limit =
            |written: Option<u32>, usual: u16| written.map_or(usual, |most| most.try_into().unwrap_or(u16::MAX));
        Self {
            connections: limit(breakers.connections, USUAL),
            pending: limit(breakers.pending_requests, USUAL),
            requests: limit(breakers.requests, USUAL),
            retries: limit(breakers.retries, RETRIES),
        }
    }

    const fn word(self) -> u64 {
        let counts = Counts {
            requests: self.requests,
            connections: self.connections,
            pending: self.pending,
            budget: self.retries,
        };
        counts.word()
    }

    const fn from_word(word: u64) -> Self {
        let Counts { requests, connections, pending, budget } = Counts::of(word);
        Self { connections, pending, requests, retries: budget }
    }
}

/// There is too much to do already: what of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Overflow {
    /// `max_connections`, and nobody may wait.
    Connections,
    /// `max_pending_requests`, or one of them waited too long.
    Pending,
    /// `max_requests`.
    Requests,
}

impl Overflow {
    /// For metrics.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::Pending => "pending",
            Self::Requests => "requests",
        }
    }
}

/// Requests, connections and waiting requests, unless the configuration says otherwise (01 §1.3).
const USUAL: u16 = 1024;
/// Second attempts under way.
const RETRIES: u16 = 3;
/// A request earns one, a second attempt costs so many: a tenth of the requests may be tried again.
const ATTEMPT: u16 = 10;
/// What there is to begin with.
const BUDGET: u16 = 100;
/// What can be saved.
const SAVED: u16 = 1000;
/// So long a request waits for a connection at most.
const PENDING: Duration = Duration::from_secs(30);

impl Load {
    pub(super) fn new(breakers: CircuitBreakers) -> Arc<Self> {
        let counts = Counts { requests: 0, connections: 0, pending: 0, budget: BUDGET };
        Arc::new(Self {
            counts: AtomicU64::new(counts.word()),
            limits: AtomicU64::new(Limits::of(breakers).word()),
            again: AtomicU32::new(0),
            freed: Notify::new(),
        })
    }

    /// Other limits from now on.
    pub(super) fn limit(&self, breakers: CircuitBreakers) {
        self.limits.store(Limits::of(breakers).word(), Ordering::Relaxed);
        self.freed.notify_waiters();
    }

    fn limits(&self) -> Limits {
        Limits::from_word(self.limits.load(Ordering::Relaxed))
    }

    /// Changes the counts in one step and gives what they were; nothing is changed where `change` says why not.
    fn change<E>(&self, change: impl Fn(&mut Counts) -> Result<(), E>) -> Result<Counts, E> {
        let mut word = self.counts.load(Ordering::Relaxed);
        loop {
            let before = Counts::of(word);
            let mut counts = before;
            change(&mut counts)?;
            match self.counts.compare_exchange_weak(word, counts.word(), Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return Ok(before),
                Err(now) => word = now,
            }
        }
    }

    /// Takes a share, if there is one. Who does not `wait` already gets in behind those who do.
    fn try_enter(self: &Arc<Self>, uses: Uses, waits: bool) -> Result<Share, Overflow> {
        let limits = self.limits();
        self.change(|counts| {
            // Before requests are counted, so that who lacks a connection alone may wait for one.
            let full = counts.connections >= limits.connections || (counts.pending > 0 && !waits);
            if uses == Uses::Connection && full {
                return Err(Overflow::Connections);
            }
            let most = match uses {
                Uses::Connection => limits.requests,
                // Streams that fit into as many connections.
                Uses::Stream => {
                    let streams = u32::from(limits.connections) * STREAMS;
                    limits.requests.min(streams.try_into().unwrap_or(u16::MAX))
                }
            };
            if counts.requests >= most {
                return Err(Overflow::Requests);
            }
            counts.connections += u16::from(uses == Uses::Connection);
            counts.requests += 1;
            counts.budget = counts.budget.saturating_add(1).min(SAVED);
            Ok(())
        })?;
        Ok(Share { load: Arc::clone(self), connection: uses == Uses::Connection })
    }

    /// A share for a request; waits for a connection if there are too many, where that is allowed.
    ///
    /// # Errors
    /// [`Overflow`].
    pub(crate) async fn enter(self: &Arc<Self>, uses: Uses) -> Result<Share, Overflow> {
        match self.try_enter(uses, false) {
            Err(Overflow::Connections) => {}
            outcome => return outcome,
        }
        let most = self.limits().pending;
        self.change(|counts| {
            if counts.pending >= most {
                return Err(if most == 0 { Overflow::Connections } else { Overflow::Pending });
            }
            counts.pending += 1;
            Ok(())
        })?;
        let _waiting = Waiting(self);
        let turn = async {
            loop {
                let mut freed = pin!(self.freed.notified());
                // Before it is looked, so that nothing is missed in between.
                freed.as_mut().enable();
                match self.try_enter(uses, true) {
                    Err(Overflow::Connections) => freed.await,
                    outcome => return outcome,
                }
            }
        };
        tokio::time::timeout(PENDING, turn).await.unwrap_or(Err(Overflow::Pending))
    }

    /// Leave to send something once more, if there is something left for it, and not too many do the same.
    fn again(self: &Arc<Self>) -> Option<Again> {
        let most = u32::from(self.limits().retries);
        // Given back by the drop, also where the budget says no.
        let again = Again(Arc::clone(self));
        if self.again.fetch_add(1, Ordering::AcqRel) >= most {
            return None;
        }
        let paid = self.change(|counts| {
            counts.budget = counts.budget.checked_sub(ATTEMPT).ok_or(())?;
            Ok::<(), ()>(())
        });
        paid.ok().map(|_| again)
    }
}

/// What a request takes of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Uses {
    /// All of it.
    Connection,
    /// One stream of it, or that is not known yet.
    Stream,
}

/// A request's share of the load; given back with its end.
#[derive(Debug)]
pub(crate) struct Share {
    load: Arc<Load>,
    connection: bool,
}

impl Share {
    /// The connection turned out to be all for this request.
    ///
    /// # Errors
    /// There are too many of those.
    pub(crate) fn take_connection(&mut self) -> Result<(), Overflow> {
        if self.connection {
            return Ok(());
        }
        let most = self.load.limits().connections;
        self.load.change(|counts| {
            if counts.connections >= most {
                return Err(Overflow::Connections);
            }
            counts.connections += 1;
            Ok(())
        })?;
        self.connection = true;
        Ok(())
    }

    /// Leave to send the request once more, if there is.
    pub(crate) fn again(&self) -> Option<Again> {
        self.load.again()
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let Ok(before) = self.load.change(|counts| {
            counts.requests = counts.requests.saturating_sub(1);
            counts.connections = counts.connections.saturating_sub(self.connection.into());
            Ok::<(), Infallible>(())
        });
        if before.pending > 0 {
            self.load.freed.notify_one();
        }
    }
}

/// Leave for a second attempt; given back with its end.
#[derive(Debug)]
pub(crate) struct Again(Arc<Load>);

impl Drop for Again {
    fn drop(&mut self) {
        self.0.again.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Waits for a connection, and is counted as long as that.
struct Waiting<'l>(&'l Load);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let Ok(_before) = self.0.change(|counts| {
            counts.pending = counts.pending.saturating_sub(1);
            Ok::<(), Infallible>(())
        });
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn load(connections: u32, pending: u32, requests: u32, retries: u32) -> Arc<Load> {
        let [connections, pending_requests, requests, retries] = [connections, pending, requests, retries].map(Some);
        Load::new(CircuitBreakers { connections, pending_requests, requests, retries })
    }

    fn counts(load: &Load) -> (u16, u16, u16) {
        let Counts { requests, connections, pending, .. } = Counts::of(load.counts.load(Ordering::SeqCst));
        (requests, connections, pending)
    }

    #[tokio::test]
    async fn requests_beyond_the_limit_are_refused_at_once() {
        let load = load(10, 10, 2, 3);
        let (one, _two) = (load.enter(Uses::Stream).await.unwrap(), load.enter(Uses::Connection).await.unwrap());
        assert_eq!(load.enter(Uses::Stream).await.unwrap_err(), Overflow::Requests);
        assert_eq!(load.enter(Uses::Connection).await.unwrap_err(), Overflow::Requests);
        drop(one);
        assert_eq!(counts(&load), (1, 1, 0));
        load.enter(Uses::Stream).await.unwrap();
        assert_eq!(counts(&load), (1, 1, 0));
    }

    #[tokio::test]
    async fn who_may_wait_gets_the_next_connection_and_who_comes_later_waits_behind() {
        let load = load(1, 1, 10, 3);
        let first = load.enter(Uses::Connection).await.unwrap();
        let waiter = Arc::clone(&load);
        let second = tokio::spawn(async move { waiter.enter(Uses::Connection).await });
        while counts(&load).2 == 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(load.enter(Uses::Connection).await.unwrap_err(), Overflow::Pending);
        drop(first);
        assert_eq!(load.try_enter(Uses::Connection, false).unwrap_err(), Overflow::Connections, "somebody waits");
        let second = second.await.unwrap().unwrap();
        assert_eq!(counts(&load), (1, 1, 0));
        drop(second);
        assert_eq!(counts(&load), (0, 0, 0));
    }

    #[tokio::test]
    async fn where_nothing_is_configured_who_finds_all_connections_busy_waits_for_one() {
        let load = Load::new(CircuitBreakers::default());
        let mut busy = Vec::new();
        for _ in 0..USUAL {
            busy.push(load.enter(Uses::Connection).await.unwrap());
        }
        let mut next = Box::pin(load.enter(Uses::Connection));
        assert!(next.as_mut().now_or_never().is_none(), "refused, though it may wait");
        assert_eq!(
            load.enter(Uses::Stream).await.unwrap_err(),
            Overflow::Requests,
            "it needs no connection of its own"
        );
        drop(busy.pop());
        next.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_ever_and_who_gives_up_is_not_counted() {
        let load = load(1, 5, 10, 3);
        let _first = load.enter(Uses::Connection).await.unwrap();
        assert_eq!(load.enter(Uses::Connection).await.unwrap_err(), Overflow::Pending);
        let left = tokio::time::timeout(Duration::from_secs(1), load.enter(Uses::Connection)).await;
        assert!(left.is_err());
        assert_eq!(counts(&load), (1, 1, 0));
    }

    #[tokio::test]
    async fn nobody_waits_where_none_may() {
        let load = load(1, 0, 10, 3);
        let _first = load.enter(Uses::Connection).await.unwrap();
        assert_eq!(load.enter(Uses::Connection).await.unwrap_err(), Overflow::Connections);
    }

    #[tokio::test]
    async fn a_stream_that_turns_out_to_be_a_connection_counts_as_one() {
        let load = load(1, 9, 500, 3);
        let mut one = load.enter(Uses::Stream).await.unwrap();
        let mut two = load.enter(Uses::Stream).await.unwrap();
        one.take_connection().unwrap();
        one.take_connection().unwrap();
        assert_eq!(two.take_connection().unwrap_err(), Overflow::Connections);
        assert_eq!(counts(&load), (2, 1, 0));
        drop(one);
        two.take_connection().unwrap();
        let streams: Vec<_> =
            std::iter::repeat_with(|| load.try_enter(Uses::Stream, false)).take_while(Result::is_ok).collect();
        assert_eq!(streams.len(), 99, "as many as fit into one connection");
    }

    #[tokio::test]
    async fn r_016_a_tenth_of_the_requests_is_tried_again_and_no_more() {
        let load = load(10, 10, 10, 3);
        let one_by_one = || std::iter::repeat_with(|| load.again()).take_while(Option::is_some).count();
        assert_eq!(one_by_one(), 10);
        for _ in 0..50 {
            load.enter(Uses::Stream).await.unwrap();
        }
        assert_eq!(one_by_one(), 5);
    }

    #[tokio::test]
    async fn so_many_are_tried_again_at_the_same_time() {
        let load = load(10, 10, 10, 2);
        let (one, _two) = (load.again().unwrap(), load.again().unwrap());
        assert!(load.again().is_none());
        drop(one);
        assert!(load.again().is_some());
        assert!(Load::new(CircuitBreakers { retries: Some(0), ..CircuitBreakers::default() }).again().is_none());
    }

    #[tokio::test]
    async fn limits_can_change_while_requests_are_under_way() {
        let load = load(1, 1, 1, 1);
        let _one = load.enter(Uses::Stream).await.unwrap();
        load.limit(CircuitBreakers::default());
        let _two = load.enter(Uses::Connection).await.unwrap();
        assert_eq!(Limits::from_word(load.limits.load(Ordering::SeqCst)), Limits::of(CircuitBreakers::default()));
    }
}
