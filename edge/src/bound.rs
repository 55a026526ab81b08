//! Until when an exchange may last. Set by its steps, kept by the task around them.

use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::Poll;
use std::time::Duration;

use futures_util::task::AtomicWaker;
use tokio::time::{Instant, timeout};
use tokio_util::task::AbortOnDropHandle;

use crate::listener::Alarm;
use crate::upstream::Line;
use crate::vigil::Vigil;
use crate::{Failure, Refusal};

tokio::task_local! {
    /// The bound of the exchange that runs in this task.
    static BOUND: Arc<Bound>;
}

/// The bound of one exchange, and its hold on the upstream connection: when the time is over, that connection is cut, and
/// whatever waits for it goes on and may end in words.
#[derive(Debug, Default)]
pub(crate) struct Bound {
    until: Mutex<Option<Instant>>,
    /// That of the exchange, for when somebody else ends it.
    task: AtomicWaker,
    line: Mutex<Option<Arc<Line>>>,
    ended: OnceLock<Box<Ended>>,
    active: AtomicBool,
    /// From when on somebody looks after it, if it lasts that long, and who.
    attended: OnceLock<Instant>,
    lasts: AtomicBool,
    vigil: Mutex<Option<Box<Vigil>>>,
}

/// Why somebody ended an exchange.
#[derive(Debug)]
pub(crate) enum Ended {
    /// It would not be allowed now.
    Refused(Refusal),
    /// It ended with the drain.
    Drained,
}

impl Ended {
    fn reason(&self) -> &'static str {
        match self {
            Self::Refused(refusal) => refusal.reason(),
            Self::Drained => CUT,
        }
    }
}

/// It was ended from outside.
pub(crate) const CUT: &str = "cut";

impl Bound {
    /// Runs `exchange` under a bound of its own. `None` if it did not end in time.
    pub(crate) async fn keep<T>(exchange: impl Future<Output = Option<T>>) -> Option<T> {
        let bound = Arc::new(Self::default());
        let mut exchange = pin!(BOUND.scope(Arc::clone(&bound), exchange));
        let mut looked_after = None;
        if let Some(output) = attend(&bound, bound.within(exchange.as_mut()), &mut looked_after).await {
            return output;
        }
        bound.cut();
        timeout(GRACE, exchange).await.unwrap_or_default()
    }

    /// That of the exchange that runs in this task.
    pub(crate) fn current() -> Arc<Self> {
        BOUND.try_with(Arc::clone).unwrap_or_default()
    }

    /// `None`: as long as it takes. What has passed stays so.
    pub(crate) fn set(&self, until: Option<Instant>) {
        if self.ended.get().is_none() && !self.has_passed() {
            self.replace(until);
        }
    }

    /// Ends the exchange now.
    pub(crate) fn end(&self, why: Ended) {
        let _first_stays = self.ended.set(Box::new(why));
        self.replace(Some(Instant::now()));
        self.task.wake();
    }

    /// Why it was ended, if somebody ended it.
    pub(crate) fn reason(&self) -> Option<&'static str> {
        self.ended.get().map(|ended| ended.reason())
    }

    /// The refusal that it ends with, if somebody ended it.
    pub(crate) fn refusal(&self) -> Option<&Refusal> {
        match &**self.ended.get()? {
            Ended::Refused(refusal) => Some(refusal),
            Ended::Drained => Some(&Refusal::Failed(Failure::Stopping)),
        }
    }

    /// Has the exchange looked after from then on, if it lasts that long. Once.
    pub(crate) fn look_after(&self, from: Instant, vigil: Vigil) {
        *self.vigil.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(vigil));
        let _first_stays = self.attended.set(from);
    }

    /// Whether it has passed.
    pub(crate) fn has_passed(&self) -> bool {
        self.until().is_some_and(|until| Instant::now() >= until)
    }

    /// How much time is left, if there is an end to it.
    pub(crate) fn left(&self) -> Option<Duration> {
        self.until().map(|until| until.saturating_duration_since(Instant::now()))
    }

    /// It does last: whoever looks after it begins now.
    pub(crate) fn lasts(&self) {
        self.lasts.store(true, Ordering::Relaxed);
    }

    /// The exchange uses this upstream connection from now on, or none any more.
    pub(crate) fn hold(&self, line: Option<Arc<Line>>) {
        *self.line.lock().unwrap_or_else(PoisonError::into_inner) = line;
    }

    pub(crate) fn cut(&self) {
        if let Some(line) = &*self.line.lock().unwrap_or_else(PoisonError::into_inner) {
            line.cut();
        }
    }

    /// Bytes have passed.
    pub(crate) fn note_activity(&self) {
        self.active.store(true, Ordering::Relaxed);
    }

    /// Whether bytes have passed since this was last asked.
    pub(crate) fn take_activity(&self) -> bool {
        self.active.swap(false, Ordering::Relaxed)
    }

    /// The output of `work`, unless the bound passes first. What the work itself sets is seen at once, since both are one task.
    ///
    /// It is pinned before: what a future is given by value it keeps twice.
    pub(crate) async fn within<F: Future>(&self, mut work: Pin<&mut F>) -> Option<F::Output> {
        let mut alarm = Alarm::default();
        std::future::poll_fn(|cx| {
            self.task.register(cx.waker());
            if let Poll::Ready(output) = work.as_mut().poll(cx) {
                return Poll::Ready(Some(output));
            }
            self.until().map_or(Poll::Pending, |until| alarm.poll(until, cx).map(|()| None))
        })
        .await
    }

    fn until(&self) -> Option<Instant> {
        *self.until.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn replace(&self, until: Option<Instant>) {
        *self.until.lock().unwrap_or_else(PoisonError::into_inner) = until;
    }
}

/// The output of `work`, which is looked after by a task of its own once the time for that has come.
async fn attend<T>(bound: &Arc<Bound>, work: impl Future<Output = T>, task: &mut Option<AbortOnDropHandle<()>>) -> T {
    let (mut work, mut alarm) = (pin!(work), Alarm::default());
    std::future::poll_fn(|cx| {
        let output = work.as_mut().poll(cx);
        if output.is_pending()
            && task.is_none()
            && let Some(from) = bound.attended.get()
            // A timer alone says nothing to a task that never rests.
            && (bound.lasts.load(Ordering::Relaxed) || Instant::now() >= *from || alarm.poll(*from, cx).is_ready())
        {
            let vigil = bound.vigil.lock().unwrap_or_else(PoisonError::into_inner).take();
            *task = vigil.map(|vigil| AbortOnDropHandle::new(tokio::spawn(vigil.keep(Arc::clone(bound)))));
        }
        output
    })
    .await
}

/// In which an exchange may still end in words.
const GRACE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_bound_that_is_set_again_counts_from_then_on() {
        let start = Instant::now();
        let ended = Bound::keep(async {
            let bound = Bound::current();
            bound.set(Some(start + Duration::from_secs(5)));
            tokio::time::sleep(Duration::from_secs(4)).await;
            bound.set(Some(start + Duration::from_secs(9)));
            std::future::pending::<Option<()>>().await
        });
        assert_eq!(ended.await, None);
        assert_eq!(start.elapsed(), Duration::from_secs(9) + GRACE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_bound_that_has_passed_cannot_be_moved() {
        let ended = Bound::keep(async {
            let bound = Bound::current();
            bound.set(Some(Instant::now()));
            tokio::time::sleep(GRACE / 2).await;
            bound.set(None);
            Some(bound.has_passed())
        });
        assert_eq!(ended.await, Some(true));
    }

    #[tokio::test(start_paused = true)]
    async fn work_goes_on_until_the_bound_passes_and_no_longer() {
        let bound = Bound::default();
        assert_eq!((bound.left(), bound.within(pin!(async { 1 })).await), (None, Some(1)));
        bound.set(Some(Instant::now() + Duration::from_secs(5)));
        let start = Instant::now();
        assert_eq!(bound.within(pin!(std::future::pending::<()>())).await, None);
        assert_eq!((start.elapsed(), bound.left()), (Duration::from_secs(5), Some(Duration::ZERO)));
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_ended_stays_ended_and_has_a_moment_for_its_last_words() {
        let ended = Bound::keep(async {
            let bound = Bound::current();
            bound.end(Ended::Refused(Refusal::SessionEnded));
            bound.set(None);
            assert!(bound.has_passed());
            tokio::time::sleep(GRACE / 2).await;
            bound.reason()
        });
        assert_eq!(ended.await, Some("session-ended"));
    }
}
