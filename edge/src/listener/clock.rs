//! How long a client may take: for a request to begin, for its head, for its body (03 §2).

use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

use super::guard::Waiting;

/// How much patience there is with a client. `None` is none at all to lose: no bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// Without a request on an open connection.
    pub idle: Duration,
    /// First byte of a head to its last.
    pub head: Duration,
    /// First byte of a request to the last of its body (`timeout_read`).
    pub request: Option<Duration>,
    /// Without a byte of a body that is not complete; also the span over which [`Self::body_rate`] is measured.
    pub body_idle: Duration,
    /// Bytes a second that a body must bring.
    pub body_rate: u64,
    /// Without a byte taken of what we send.
    pub write_stall: Duration,
    /// Reading on after the last answer, so that the client gets to see it (S-008).
    pub linger: Duration,
}

impl Patience {
    /// The values of 03 §2.
    pub const DEFAULT: Self = Self {
        idle: Duration::from_secs(60),
        head: Duration::from_secs(15),
        request: Some(Duration::from_secs(30)),
        body_idle: Duration::from_secs(30),
        body_rate: 1024,
        write_stall: Duration::from_secs(30),
        linger: Duration::from_secs(1),
    };
}

impl Default for Patience {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// Measures the time for which we wait for the client; the time for which the client waits for us does not count.
#[derive(Debug)]
pub(crate) struct ReadClock {
    patience: Patience,
    alarm: Alarm,
    /// When this wait for a request, or this request, began.
    began: Instant,
    waiting: Waiting,
    waiting_since: Option<Instant>,
    waited: Duration,
    received: u64,
}

impl ReadClock {
    pub(crate) fn new(patience: Patience, now: Instant) -> Self {
        Self {
            patience,
            alarm: Alarm::default(),
            began: now,
            waiting: Waiting::Request,
            waiting_since: None,
            waited: Duration::ZERO,
            received: 0,
        }
    }

    /// The wait for the next request begins.
    pub(crate) fn restart(&mut self, now: Instant) {
        *self = Self { alarm: std::mem::take(&mut self.alarm), ..Self::new(self.patience, now) };
    }

    /// Bytes came; `waiting` is what is owed after them.
    pub(crate) fn received(&mut self, bytes: usize, waiting: Waiting, now: Instant) {
        if self.waiting == Waiting::Request {
            self.began = now;
        }
        self.waiting = waiting;
        self.waited += self.waiting_since.take().map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        self.received = self.received.saturating_add(bytes as u64);
        self.close_window();
    }

    /// Ready once patience has run out. To be polled whenever the socket has nothing.
    pub(crate) fn poll_expired(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let now = Instant::now();
            let since = *self.waiting_since.get_or_insert(now);
            let Some(deadline) = self.deadline(since) else { return Poll::Pending };
            if self.alarm.poll(deadline, cx).is_pending() {
                return Poll::Pending;
            }
            if self.waiting != Waiting::Body || self.body_is_late(since, Instant::now()) {
                return Poll::Ready(());
            }
        }
    }

    fn deadline(&self, since: Instant) -> Option<Instant> {
        let whole = self.patience.request.map(|request| self.began + request);
        match self.waiting {
            Waiting::Nothing => None,
            Waiting::Request => Some(self.began + self.patience.idle),
            Waiting::Head => Some(whole.map_or(self.head_end(), |whole| whole.min(self.head_end()))),
            Waiting::Body => {
                let idle = since + self.patience.body_idle;
                let window = since + self.patience.body_idle.saturating_sub(self.waited);
                Some(idle.min(window).min(whole.unwrap_or(idle)))
            }
        }
    }

    fn head_end(&self) -> Instant {
        self.began + self.patience.head
    }

    /// Whether the alarm of a body means that it is too slow; if it only ended a window, a new one begins.
    fn body_is_late(&mut self, since: Instant, now: Instant) -> bool {
        let whole = self.patience.request.is_some_and(|request| now >= self.began + request);
        if whole || now >= since + self.patience.body_idle {
            return true;
        }
        self.waited += now.saturating_duration_since(since);
        self.waiting_since = Some(now);
        self.is_slow() || {
            self.close_window();
            false
        }
    }

    fn is_slow(&self) -> bool {
        self.received < self.patience.body_rate.saturating_mul(self.patience.body_idle.as_secs())
    }

    fn close_window(&mut self) {
        if self.waited >= self.patience.body_idle && !self.is_slow() {
            (self.waited, self.received) = (Duration::ZERO, 0);
        }
    }
}

/// One timer. That its deadline moves on, as it does with every request, costs nothing until the earlier one is over.
#[derive(Debug, Default)]
pub(crate) struct Alarm(Option<Pin<Box<Sleep>>>);

impl Alarm {
    /// Ready at `deadline`.
    pub(crate) fn poll(&mut self, deadline: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let sleep = self.0.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        loop {
            if sleep.deadline() > deadline {
                sleep.as_mut().reset(deadline);
            }
            if sleep.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            if sleep.deadline() >= deadline {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(deadline);
        }
    }
}
