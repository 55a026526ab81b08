//! Carries bytes both ways between two streams, counts them, and ends what is silent for too long. Either side may end its half
//! and still hear the other (03 S-106); a side that does not read holds up whoever sends to it, and nobody else.
//! A side that breaks off ends the direction in which it failed, and what was read before is carried all the same.

use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
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
    /// What the client sent is none of what goes through such a tunnel.
    Malformed,
}

/// When a pipe ends by itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ends {
    /// Without a byte either way for so long; `None`: never.
    pub(super) idle: Option<Duration>,
    /// So long after one side is done; `None`: only once the other is, too.
    pub(super) half: Option<Duration>,
    /// The client is told by a reset that the upstream broke off.
    pub(super) resets: bool,
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
    broken: Notify,
}

impl Meter {
    pub(super) fn new(bound: Arc<Bound>) -> Self {
        let zero = || AtomicU64::new(0);
        Self {
            bound,
            began: Instant::now(),
            last: zero(),
            up: zero(),
            down: zero(),
            half: Notify::new(),
            broken: Notify::new(),
        }
    }

    /// The bytes that went up, and those that went down.
    pub(super) fn total(&self) -> (u64, u64) {
        (self.up.load(Ordering::Relaxed), self.down.load(Ordering::Relaxed))
    }

    /// A datagram of so many bytes went up.
    pub(super) fn passed_up(&self, bytes: usize) {
        Self::carried(&self.up, bytes);
        self.stir();
    }

    /// A datagram of so many bytes went down.
    pub(super) fn passed_down(&self, bytes: usize) {
        Self::carried(&self.down, bytes);
        self.stir();
    }

    /// One side is done.
    pub(super) fn end_half(&self) {
        self.half.notify_one();
    }

    /// So many bytes are on their way for good.
    fn carried(direction: &AtomicU64, bytes: usize) {
        direction.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Something moves.
    fn stir(&self) {
        let since = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(since, Ordering::Relaxed);
        self.bound.note_activity();
    }

    /// Until nothing has passed for so long.
    pub(super) async fn silence(&self, idle: Option<Duration>) {
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
    pub(super) async fn end_of_half(&self, half: Option<Duration>) {
        let Some(half) = half else { return std::future::pending().await };
        self.half.notified().await;
        sleep(half).await;
    }

    /// Until the other direction has had its time after one broke.
    async fn end_of_broken(&self) {
        self.broken.notified().await;
        sleep(LAST_WORDS).await;
    }
}

/// Carries until both sides are done, or as `ends` says. `first` came from the upstream before.
pub(super) async fn pipe<D, U>(down: D, (up, first): (U, Bytes), meter: &Meter, ends: Ends) -> Ended
where
    D: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
{
    let mut down = Side { io: down, first: Bytes::new(), gone: None, ended: false, resets: ends.resets };
    let mut up = Side { io: up, first, gone: None, ended: false, resets: false };
    let (mut upwards, mut downwards) = (Way::new(&meter.up), Way::new(&meter.down));
    let mut broke = None;
    let carrying = std::future::poll_fn(|cx| {
        loop {
            let gone = (down.gone, up.gone);
            let one = upwards.poll(cx, &mut down, &mut up, meter);
            broke = broke.or(upwards.failed.and_then(|at| match at {
                At::Source => (!down.ended).then_some(Ended::Downstream),
                At::Sink => Some(Ended::Upstream),
            }));
            let other = downwards.poll(cx, &mut up, &mut down, meter);
            broke = broke.or(downwards.failed.and_then(|at| match at {
                At::Source => Some(Ended::Upstream),
                // A client that was told of the end may leave as it likes.
                At::Sink => (!down.ended).then_some(Ended::Downstream),
            }));
            if one.is_ready() && other.is_ready() {
                return Poll::Ready(());
            }
            // Who is gone for one direction is gone for the other, which may have been looked at before.
            if gone == (down.gone, up.gone) {
                return Poll::Pending;
            }
        }
    });
    let silent = tokio::select! {
        () = carrying => false,
        () = meter.silence(ends.idle) => true,
        () = meter.end_of_half(ends.half) => false,
        () = meter.end_of_broken() => false,
    };
    match broke {
        // It wanted no more and said all that it had to say, to the end. After a reset that is told once, to whoever wrote, and
        // then reads as an end.
        Some(Ended::Upstream) if down.ended && up.gone.is_none_or(|kind| kind == ErrorKind::BrokenPipe) => Ended::Whole,
        Some(broke) => broke,
        None if silent => Ended::Silent,
        None => Ended::Whole,
    }
}

/// One of both streams.
struct Side<S> {
    io: S,
    /// Read before anything else.
    first: Bytes,
    /// Its connection is no more, either way, for this reason.
    gone: Option<ErrorKind>,
    /// All that was written to it is on its way, and its end.
    ended: bool,
    /// It is told of a break by a reset, which must not look like an end (RFC 9113 §8.5).
    resets: bool,
}

impl<S> Side<S> {
    fn note(&mut self, error: &io::Error) {
        let gone = [ErrorKind::ConnectionReset, ErrorKind::ConnectionAborted, ErrorKind::BrokenPipe];
        self.gone = self.gone.or_else(|| Some(error.kind()).filter(|kind| gone.contains(kind)));
    }
}

/// At which end of a direction something failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Source,
    Sink,
}

/// What is next in one direction.
#[derive(Clone, Copy, Debug)]
enum Step {
    Read,
    Write,
    Flush,
    Shut,
    Done,
}

/// One direction.
struct Way<'m> {
    carried: &'m AtomicU64,
    buffer: Box<[u8]>,
    /// What of the buffer was written, and what of it was read.
    written: usize,
    read: usize,
    step: Step,
    failed: Option<At>,
}

impl<'m> Way<'m> {
    fn new(carried: &'m AtomicU64) -> Self {
        let buffer = vec![0; BUFFER].into_boxed_slice();
        Self { carried, buffer, written: 0, read: 0, step: Step::Read, failed: None }
    }

    /// Carries on, to the end. What was read is written and flushed whatever comes after it.
    fn poll<R, W>(&mut self, cx: &mut Context<'_>, from: &mut Side<R>, to: &mut Side<W>, meter: &Meter) -> Poll<()>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        loop {
            if to.gone.is_some() && !matches!(self.step, Step::Done) {
                self.step = Step::Done;
            }
            match self.step {
                Step::Read => match ready!(self.poll_fill(cx, from)) {
                    Ok(0) => {
                        meter.end_half();
                        self.step = Step::Shut;
                    }
                    Ok(_) => self.step = Step::Write,
                    Err(error) => {
                        from.note(&error);
                        self.fail(At::Source, Step::Shut, meter);
                    }
                },
                Step::Write => {
                    let rest = self.buffer.get(self.written..self.read).unwrap_or_default();
                    if rest.is_empty() {
                        self.step = Step::Flush;
                        continue;
                    }
                    let wrote = ready!(Pin::new(&mut to.io).poll_write(cx, rest));
                    match wrote.and_then(|bytes| if bytes == 0 { Err(ErrorKind::WriteZero.into()) } else { Ok(bytes) })
                    {
                        Ok(bytes) => {
                            meter.stir();
                            self.written += bytes;
                        }
                        Err(error) => {
                            to.note(&error);
                            self.fail(At::Sink, Step::Done, meter);
                        }
                    }
                }
                Step::Flush => match ready!(Pin::new(&mut to.io).poll_flush(cx)) {
                    Ok(()) => {
                        Meter::carried(self.carried, self.written);
                        self.step = Step::Read;
                    }
                    Err(error) => {
                        to.note(&error);
                        self.fail(At::Sink, Step::Done, meter);
                    }
                },
                Step::Shut if to.resets && self.failed.is_some() => self.step = Step::Done,
                Step::Shut => {
                    // Who is gone already is not told any more, and what it sent before is carried all the same.
                    let _gone_already = ready!(Pin::new(&mut to.io).poll_shutdown(cx));
                    to.ended |= self.failed.is_none();
                    self.step = Step::Done;
                }
                Step::Done => return Poll::Ready(()),
            }
        }
    }

    /// The number of bytes that are in the buffer now; 0 at the end.
    fn poll_fill<R: AsyncRead + Unpin>(&mut self, cx: &mut Context<'_>, from: &mut Side<R>) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(&mut self.buffer);
        if from.first.is_empty() {
            ready!(Pin::new(&mut from.io).poll_read(cx, &mut buffer))?;
        } else {
            let take = from.first.len().min(buffer.remaining());
            buffer.put_slice(&from.first.split_to(take));
        }
        (self.written, self.read) = (0, buffer.filled().len());
        Poll::Ready(Ok(self.read))
    }

    fn fail(&mut self, at: At, next: Step, meter: &Meter) {
        self.failed = Some(at);
        self.step = next;
        meter.broken.notify_one();
    }
}

/// A direction whose other one has broken has so long for what is still on its way; so has a WebSocket of which one side is
/// done, and a tunnel of datagrams whose client is.
pub(super) const LAST_WORDS: Duration = Duration::from_secs(5);
/// What is held of each direction.
pub(super) const BUFFER: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

    use super::*;

    const FOREVER: Ends = Ends { idle: None, half: None, resets: false };
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
        let (mut client, mut upstream, piping) = open(b"", Ends { idle, half: None, resets: false });
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
        let (_client, upstream, piping) = open(b"", Ends { idle: None, half, resets: false });
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

    /// Says this, and breaks off in the same breath; hears nothing.
    struct Breaks(&'static [u8], ErrorKind);

    impl AsyncRead for Breaks {
        fn poll_read(self: Pin<&mut Self>, _cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            let this = self.get_mut();
            if this.0.is_empty() {
                return Poll::Ready(Err(this.1.into()));
            }
            buf.put_slice(std::mem::take(&mut this.0));
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncWrite for Breaks {
        fn poll_write(self: Pin<&mut Self>, _cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok(buf.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn s_106_what_was_said_before_a_break_is_carried() {
        for (kind, waits) in [(ErrorKind::ConnectionReset, 0), (ErrorKind::UnexpectedEof, 5)] {
            let (mut client, down) = duplex(64);
            let meter = Meter::new(Arc::default());
            let began = Instant::now();
            let piping =
                pipe(tokio::io::BufWriter::new(down), (Breaks(b"last words", kind), Bytes::new()), &meter, FOREVER);
            let mut heard = Vec::new();
            let (ended, read) = tokio::join!(piping, client.read_to_end(&mut heard));
            read.unwrap();
            assert_eq!(
                (ended, heard.as_slice(), meter.total()),
                (Ended::Upstream, &b"last words"[..], (0, 10)),
                "{kind}"
            );
            assert_eq!(began.elapsed().as_secs(), waits, "{kind}: what is not gone is still heard a moment");
        }
    }

    /// Takes nothing any more; says this, and ends in order.
    struct Deaf(&'static [u8], ErrorKind);

    impl AsyncRead for Deaf {
        fn poll_read(self: Pin<&mut Self>, _cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            buf.put_slice(std::mem::take(&mut self.get_mut().0));
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncWrite for Deaf {
        fn poll_write(self: Pin<&mut Self>, _cx: &mut Context<'_>, _buf: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Ready(Err(self.1.into()))
        }

        fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn s_106_who_wants_no_more_and_ends_in_order_has_not_broken_off() {
        for (kind, outcome) in [(ErrorKind::BrokenPipe, Ended::Whole), (ErrorKind::ConnectionReset, Ended::Upstream)] {
            let (mut client, down) = duplex(64);
            client.write_all(b"more than was wanted").await.unwrap();
            let meter = Meter::new(Arc::default());
            let ends = Ends { resets: true, ..FOREVER };
            let deaf = Deaf(b"that will do", kind);
            let piping = pipe(tokio::io::BufWriter::new(down), (deaf, Bytes::new()), &meter, ends);
            let mut heard = Vec::new();
            let (ended, read) = tokio::join!(piping, client.read_to_end(&mut heard));
            read.unwrap();
            assert_eq!((ended, heard.as_slice()), (outcome, &b"that will do"[..]), "{kind:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn s_106_who_broke_off_one_half_still_gets_its_answer() {
        let (up, mut upstream) = duplex(64);
        let meter = Meter::new(Arc::default());
        let down = Breaks(b"question", ErrorKind::UnexpectedEof);
        let piping = pipe(down, (tokio::io::BufWriter::new(up), Bytes::new()), &meter, FOREVER);
        let answering = async {
            let mut asked = Vec::new();
            upstream.read_to_end(&mut asked).await.unwrap();
            sleep(Duration::from_secs(1)).await;
            upstream.write_all(b"answer").await.unwrap();
            drop(upstream);
            asked
        };
        let (ended, asked) = tokio::join!(piping, answering);
        assert_eq!((ended, asked.as_slice(), meter.total()), (Ended::Downstream, &b"question"[..], (8, 6)));
    }
}
