//! Carries bytes both ways between two streams, counts them, and ends what is silent for too long. Either side may end its half
//! and still hear the other (03 S-106); a side that does not read holds up whoever sends to it, and nobody else.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional_with_sizes};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};

use crate::bound::Bound;

/// How a pipe ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// Both sides were done.
    Whole,
    /// The client's side broke off.
    Downstream,
    /// The upstream's side broke off.
    Upstream,
    /// Not a byte passed for too long.
    Silent,
}

/// When a pipe ends by itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ends {
    /// Without a byte either way for so long; `None`: never.
    pub(super) idle: Option<Duration>,
    /// So long after one side is done; `None`: only once the other is, too.
    pub(super) half: Option<Duration>,
}

/// What has passed.
#[derive(Debug)]
pub(super) struct Meter {
    bound: Arc<Bound>,
    began: Instant,
    /// In milliseconds from `began` on.
    last: AtomicU64,
    up: AtomicU64,
    down: AtomicU64,
    half: Notify,
}

impl Meter {
    pub(super) fn new(bound: Arc<Bound>) -> Self {
        let zero = || AtomicU64::new(0);
        Self { bound, began: Instant::now(), last: zero(), up: zero(), down: zero(), half: Notify::new() }
    }

    /// The bytes that went up, and those that went down.
    pub(super) fn total(&self) -> (u64, u64) {
        (self.up.load(Ordering::Relaxed), self.down.load(Ordering::Relaxed))
    }

    fn note(&self, direction: &AtomicU64, bytes: usize) {
        direction.fetch_add(bytes as u64, Ordering::Relaxed);
        let since = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(since, Ordering::Relaxed);
        self.bound.note_activity();
    }

    /// Until nothing has passed for so long.
    async fn silence(&self, idle: Option<Duration>) {
        let Some(idle) = idle else { return std::future::pending().await };
        loop {
            let due = self.began + Duration::from_millis(self.last.load(Ordering::Relaxed)) + idle;
            if Instant::now() >= due {
                return;
            }
            sleep_until(due).await;
        }
    }

    /// Until so long after one side was done.
    async fn end_of_half(&self, half: Option<Duration>) {
        let Some(half) = half else { return std::future::pending().await };
        self.half.notified().await;
        sleep(half).await;
    }
}

/// Carries until both sides are done, or as `ends` says. `first` came from the upstream before.
pub(super) async fn pipe<D, U>(down: D, (up, first): (U, Bytes), meter: &Meter, ends: Ends) -> Ended
where
    D: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
{
    let mut down = Side { io: down, first: Bytes::new(), meter, direction: &meter.down, failed: false, ended: false };
    let mut up = Side { io: up, first, meter, direction: &meter.up, failed: false, ended: false };
    let outcome = tokio::select! {
        copied = copy_bidirectional_with_sizes(&mut down, &mut up, BUFFER, BUFFER) => copied.map(|_| Ended::Whole),
        () = meter.silence(ends.idle) => Ok(Ended::Silent),
        () = meter.end_of_half(ends.half) => Ok(Ended::Whole),
    };
    // A client that was told of the end may leave as it likes.
    outcome.unwrap_or(match (down.failed, down.ended) {
        (true, true) => Ended::Whole,
        (true, false) => Ended::Downstream,
        (false, _) => Ended::Upstream,
    })
}

/// One of both streams. What is written to it has passed in its direction.
struct Side<'m, S> {
    io: S,
    /// Read before anything else.
    first: Bytes,
    meter: &'m Meter,
    direction: &'m AtomicU64,
    failed: bool,
    /// All that was written to it is on its way, and its end.
    ended: bool,
}

impl<S> Side<'_, S> {
    fn noted<T>(&mut self, outcome: io::Result<T>) -> Poll<io::Result<T>> {
        self.failed |= outcome.is_err();
        Poll::Ready(outcome)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Side<'_, S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.first.is_empty() {
            let take = this.first.len().min(buf.remaining());
            buf.put_slice(&this.first.split_to(take));
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        let outcome = ready!(Pin::new(&mut this.io).poll_read(cx, buf));
        if outcome.is_ok() && buf.filled().len() == before {
            this.meter.half.notify_one();
        }
        this.noted(outcome)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Side<'_, S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let outcome = ready!(Pin::new(&mut this.io).poll_write(cx, buf));
        if let Ok(bytes) = outcome {
            this.meter.note(this.direction, bytes);
        }
        this.noted(outcome)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let outcome = ready!(Pin::new(&mut this.io).poll_flush(cx));
        this.noted(outcome)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // Who is gone already is not told any more, and what it sent before is carried all the same.
        let _gone_already = ready!(Pin::new(&mut this.io).poll_shutdown(cx));
        this.ended = true;
        Poll::Ready(Ok(()))
    }
}

/// What is held of each direction.
const BUFFER: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

    use super::*;

    const FOREVER: Ends = Ends { idle: None, half: None };
    type Piping = tokio::task::JoinHandle<(Ended, (u64, u64))>;

    /// The client's end, the upstream's end, and what becomes of the pipe between them.
    fn open(first: &'static [u8], ends: Ends) -> (DuplexStream, DuplexStream, Piping) {
        let ((client, down), (up, upstream)) = (duplex(64), duplex(64));
        let piping = tokio::spawn(async move {
            let meter = Meter::new(Arc::default());
            let ended = pipe(down, (up, Bytes::from_static(first)), &meter, ends).await;
            (ended, meter.total())
        });
        (client, upstream, piping)
    }

    #[tokio::test]
    async fn s_106_who_has_ended_its_half_still_hears_the_other() {
        let (mut client, mut upstream, piping) = open(b"banner ", FOREVER);
        client.write_all(b"question").await.unwrap();
        client.shutdown().await.unwrap();
        let mut asked = Vec::new();
        upstream.read_to_end(&mut asked).await.unwrap();
        assert_eq!(asked, b"question");
        let answer = vec![b'x'; 10_000];
        let (sent, heard) = tokio::join!(
            async {
                upstream.write_all(&answer).await.unwrap();
                upstream.shutdown().await
            },
            async {
                let mut heard = Vec::new();
                client.read_to_end(&mut heard).await.map(|_| heard)
            }
        );
        sent.unwrap();
        assert_eq!(heard.unwrap(), [b"banner ", &answer[..]].concat(), "what came first comes first");
        assert_eq!(piping.await.unwrap(), (Ended::Whole, (8, 10_007)));
    }

    #[tokio::test(start_paused = true)]
    async fn silence_ends_it_and_a_byte_either_way_puts_that_off() {
        let idle = Some(Duration::from_secs(10));
        let (mut client, mut upstream, piping) = open(b"", Ends { idle, half: None });
        let began = Instant::now();
        sleep(Duration::from_secs(8)).await;
        client.write_all(b"a").await.unwrap();
        sleep(Duration::from_secs(8)).await;
        upstream.write_all(b"b").await.unwrap();
        let (ended, total) = piping.await.unwrap();
        assert_eq!((ended, total, began.elapsed().as_secs()), (Ended::Silent, (1, 1), 26));
    }

    #[tokio::test(start_paused = true)]
    async fn where_one_side_is_not_enough_the_other_is_waited_for_a_moment_only() {
        let half = Some(Duration::from_secs(5));
        let (_client, upstream, piping) = open(b"", Ends { idle: None, half });
        let began = Instant::now();
        drop(upstream);
        assert_eq!(piping.await.unwrap().0, Ended::Whole);
        assert_eq!(began.elapsed().as_secs(), 5);
    }

    #[tokio::test]
    async fn a_side_that_breaks_off_is_told_from_the_other() {
        let (client, mut upstream, piping) = open(b"", FOREVER);
        drop(client);
        let mut heard = Vec::new();
        upstream.read_to_end(&mut heard).await.unwrap();
        upstream.write_all(b"to nobody").await.unwrap();
        assert_eq!(piping.await.unwrap().0, Ended::Downstream);
    }
}
