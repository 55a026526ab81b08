//! One downstream connection as Pingora sees it: guarded bytes in, coalesced bytes out, and a clock on everything.

mod farewell;

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::{Buf as _, BytesMut};
use pingora_core::protocols::l4::socket::SocketAddr;
use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_core::protocols::tls::{SslDigest, TlsRef};
use pingora_core::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, TimingDigest, UniqueID,
    UniqueIDType,
};
use pingora_http::ResponseHeader;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

pub(crate) use self::farewell::{Farewell, GOING_AWAY};
use super::clock::{Alarm, Patience, ReadClock};
use super::guard::{Guard, Limits, SYNTHETIC_HEAD, Waiting};
use super::{Connection, Tunnel, Violation};

/// What Pingora is to know of a connection besides its bytes.
#[derive(Debug)]
pub(crate) struct Wire {
    /// The descriptor, for socket options.
    pub(crate) fd: i32,
    /// What ALPN chose.
    pub(crate) alpn: Option<ALPN>,
    /// Version and cipher, on TLS.
    pub(crate) tls: Option<SslDigest>,
}

/// A downstream connection.
pub(crate) struct GuardedStream<S> {
    io: S,
    connection: Arc<Connection>,
    /// `None` on h2: there the framing is the h2 crate's.
    guard: Option<Guard>,
    /// Bytes from the socket that no guard has seen.
    inbox: BytesMut,
    /// Bytes that may pass.
    outbox: BytesMut,
    read_clock: ReadClock,
    written: BytesMut,
    /// Below us lies what was written and is not sent yet, as TLS keeps it for a slow client.
    unflushed: bool,
    write_stall: Option<Instant>,
    write_alarm: Alarm,
    /// What a WebSocket is told when this process leaves.
    farewell: Option<Farewell>,
    patience: Patience,
    digests: Digests,
}

struct Digests {
    fd: i32,
    alpn: Option<ALPN>,
    tls: Option<Arc<SslDigest>>,
    socket: Option<Arc<SocketDigest>>,
    connection: Option<Arc<ProxyDigest>>,
    established: SystemTime,
}

impl<S> std::fmt::Debug for GuardedStream<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GuardedStream").field("connection", &self.connection).field("guard", &self.guard).finish()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> GuardedStream<S> {
    /// Guards `io`, unless ALPN chose h2.
    pub(crate) fn new(io: S, wire: Wire, connection: Arc<Connection>, limits: Limits, patience: Patience) -> Self {
        let guard = (wire.alpn != Some(ALPN::H2)).then(|| Guard::new(limits));
        Self {
            io,
            guard,
            inbox: BytesMut::new(),
            outbox: BytesMut::new(),
            read_clock: ReadClock::new(patience, Instant::now()),
            written: BytesMut::new(),
            unflushed: false,
            write_stall: None,
            write_alarm: Alarm::default(),
            farewell: None,
            patience,
            digests: Digests::new(wire, &connection),
            connection,
        }
    }

    /// The same, for a process that leaves once `stop` says so: WebSockets are told.
    pub(crate) fn until(self, stop: watch::Receiver<bool>) -> Self {
        Self { farewell: Some(Farewell::new(stop)), ..self }
    }

    fn poll_guarded(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            if !self.outbox.is_empty() {
                let take = self.outbox.len().min(buf.remaining());
                buf.put_slice(self.outbox.get(..take).unwrap_or_default());
                self.outbox.advance(take);
                return Poll::Ready(Ok(()));
            }
            let Some(guard) = &mut self.guard else { return Pin::new(&mut self.io).poll_read(cx, buf) };
            if self.connection.tunnel().is_some() {
                // After a 101 nothing is HTTP any more; what came early passes first.
                self.outbox = self.inbox.split();
                self.guard = None;
                continue;
            }
            if guard.is_complete() {
                if self.connection.in_exchange() {
                    return self.poll_watch(cx);
                }
                guard.next_message();
                self.read_clock.restart(Instant::now());
                self.let_go();
            }
            if self.connection.violation().is_some() {
                // The answer to the violation is the last thing that happens here.
                return Poll::Ready(Ok(()));
            }
            if !self.inbox.is_empty() {
                self.pass_inbox()?;
                if !self.outbox.is_empty() || self.inbox_is_held() {
                    continue;
                }
            }
            if ready!(self.poll_more(cx, buf))? {
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Between two requests a connection keeps no buffer: most of them rest there.
    fn let_go(&mut self) {
        for buffer in [&mut self.inbox, &mut self.outbox, &mut self.written] {
            if buffer.is_empty() {
                *buffer = BytesMut::new();
            }
        }
    }

    fn inbox_is_held(&self) -> bool {
        !self.inbox.is_empty()
    }

    /// Shows the inbox to the guard.
    fn pass_inbox(&mut self) -> io::Result<()> {
        let Some(guard) = &mut self.guard else { return Ok(()) };
        let (before, seen) = (guard.waiting(), self.inbox.len());
        let outcome = guard.advance(&mut self.inbox, &mut self.outbox);
        let after = guard.waiting();
        self.read_clock.received(seen, after, Instant::now());
        match outcome {
            Err(violation) => self.violate(before, violation),
            Ok(()) => {
                if matches!(before, Waiting::Request | Waiting::Head) && !self.outbox.is_empty() {
                    self.connection.begin_exchange();
                }
                Ok(())
            }
        }
    }

    /// A broken head becomes the synthetic one, which is answered; a broken body ends the read.
    fn violate(&mut self, waiting: Waiting, violation: Violation) -> io::Result<()> {
        self.connection.violate(violation);
        if let Some(guard) = &mut self.guard {
            guard.break_off();
        }
        if matches!(waiting, Waiting::Request | Waiting::Head) {
            self.outbox = BytesMut::from(SYNTHETIC_HEAD);
            self.connection.begin_exchange();
            return Ok(());
        }
        Err(io::Error::new(io::ErrorKind::InvalidData, violation.reason()))
    }

    /// Reads from the socket: `true` if `buf` has what is to be returned (also when that is the end of the stream).
    fn poll_more(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<bool>> {
        let straight = self.guard.as_ref().and_then(Guard::length_left).filter(|_| self.inbox.is_empty());
        let read = match straight {
            Some(left) => poll_read_at_most(&mut self.io, cx, buf, left),
            None => poll_read_into(&mut self.io, cx, &mut self.inbox),
        };
        let bytes = match read {
            Poll::Ready(bytes) => bytes?,
            Poll::Pending => {
                // An answer may have begun before the request is complete.
                self.push(cx)?;
                ready!(self.read_clock.poll_expired(cx));
                return Poll::Ready(self.expire());
            }
        };
        let Some(guard) = &mut self.guard else { return Poll::Ready(Ok(true)) };
        if bytes == 0 {
            let cut = guard.waiting() == Waiting::Body;
            return Poll::Ready(if cut { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(true) });
        }
        if straight.is_some() {
            guard.pass(bytes as u64);
            self.read_clock.received(bytes, guard.waiting(), Instant::now());
        }
        Poll::Ready(Ok(straight.is_some()))
    }

    /// The client took too long.
    fn expire(&mut self) -> io::Result<bool> {
        let waiting = self.guard.as_ref().map_or(Waiting::Nothing, Guard::waiting);
        match waiting {
            Waiting::Request | Waiting::Nothing => Ok(true),
            Waiting::Head => self.violate(waiting, Violation::HeadTimeout).map(|()| false),
            Waiting::Body => {
                self.connection.violate(Violation::BodyTimeout);
                Err(io::ErrorKind::TimedOut.into())
            }
        }
    }

    /// Sends what was kept for a moment. To be asked where a read waits: nothing more is to be written now.
    fn push(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.written.is_empty() && !self.unflushed {
            return Ok(());
        }
        let stall = self.write_stall;
        match Pin::new(&mut *self).poll_flush(cx) {
            Poll::Ready(outcome) => outcome,
            Poll::Pending => {
                // Woken for it, whoever reads comes back here. How much of it TLS could send meanwhile is not seen, so nobody is
                // held to have taken nothing but by what waits to be written.
                self.write_stall = stall;
                Ok(())
            }
        }
    }

    /// While an exchange is under way, the client may only leave; what it sends ahead is kept, up to a bound.
    fn poll_watch(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.push(cx)?;
        while self.inbox.len() < READ_AHEAD {
            if ready!(poll_read_into(&mut self.io, cx, &mut self.inbox))? == 0 {
                // A client that asked ahead and closed its half still wants its answers.
                return if self.inbox.is_empty() { Poll::Ready(Ok(())) } else { Poll::Pending };
            }
        }
        Poll::Pending
    }

    /// Tells the client of a WebSocket that we leave, once that is so and the upstream is not in the middle of a frame.
    fn poll_farewell(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let Some(farewell) = self.farewell.as_mut().filter(|_| self.connection.tunnel() == Some(Tunnel::WebSocket))
        else {
            return Ok(());
        };
        if farewell.is_due(cx) {
            self.written.extend_from_slice(&GOING_AWAY);
        }
        if !farewell.is_said() {
            return Ok(());
        }
        self.push(cx)
    }

    /// Takes what is to be sent, and keeps it for a moment if it is small.
    fn poll_take(&mut self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.written.len() + buf.len() > COALESCE {
            ready!(self.poll_drain(cx))?;
        }
        if buf.len() < COALESCE {
            self.written.extend_from_slice(buf);
            return Poll::Ready(Ok(buf.len()));
        }
        match Pin::new(&mut self.io).poll_write(cx, buf) {
            Poll::Ready(outcome) => {
                (self.write_stall, self.unflushed) = (None, true);
                Poll::Ready(outcome)
            }
            Poll::Pending => self.poll_stalled(cx),
        }
    }

    /// Sends what was written, or fails once the client has taken nothing for too long.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.written.is_empty() {
            match Pin::new(&mut self.io).poll_write(cx, &self.written) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(bytes)) => {
                    self.written.advance(bytes);
                    (self.write_stall, self.unflushed) = (None, true);
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return self.poll_stalled(cx),
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_stalled<T>(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        if self.connection.tunnel() == Some(Tunnel::Connect) {
            // Who speaks through it knows best how long it may take: a person reads one page after the other.
            return Poll::Pending;
        }
        let stalled = *self.write_stall.get_or_insert_with(Instant::now);
        ready!(self.write_alarm.poll(stalled + self.patience.write_stall, cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    /// Closes our half, and reads on for a moment if the client is still sending: a reset would take our answer with it.
    async fn close(&mut self) {
        let _too_late_to_care = timeout(self.patience.write_stall, self.shutdown_write()).await;
        let begun = |guard: &Guard| !guard.is_complete() && guard.waiting() != Waiting::Request;
        let owed = self.guard.as_ref().is_some_and(begun);
        if owed || !self.inbox.is_empty() {
            let _too_late_to_care = timeout(self.patience.linger, self.read_off()).await;
        }
    }

    async fn shutdown_write(&mut self) -> io::Result<()> {
        AsyncWriteExt::shutdown(self).await
    }

    /// However much it is: a client that writes all before it reads would not get its answer.
    async fn read_off(&mut self) {
        let mut scratch = [0; READ_SIZE];
        while let Ok(1..) = self.io.read(&mut scratch).await {}
    }
}

impl Digests {
    fn new(wire: Wire, connection: &Arc<Connection>) -> Self {
        let socket = SocketDigest::from_raw_fd(wire.fd);
        let _only_set_once = socket.peer_addr.set(Some(SocketAddr::Inet(connection.peer)));
        // The only slot through which Pingora carries a value of ours to the filters.
        let connection = ResponseHeader::build_no_case(200, Some(0))
            .ok()
            .map(|unused| Arc::new(ProxyDigest::new(Box::new(unused), Some(Box::new(Arc::clone(connection))))));
        Self {
            fd: wire.fd,
            alpn: wire.alpn,
            tls: wire.tls.map(Arc::new),
            socket: Some(Arc::new(socket)),
            connection,
            established: SystemTime::now(),
        }
    }
}

fn poll_read_into<S: AsyncRead + Unpin>(
    io: &mut S,
    cx: &mut Context<'_>,
    inbox: &mut BytesMut,
) -> Poll<io::Result<usize>> {
    // Not into the inbox itself: it would have to have the room for as long as nothing comes.
    let mut scratch = [MaybeUninit::uninit(); READ_SIZE];
    let mut read = ReadBuf::uninit(&mut scratch);
    ready!(Pin::new(io).poll_read(cx, &mut read))?;
    inbox.extend_from_slice(read.filled());
    Poll::Ready(Ok(read.filled().len()))
}

fn poll_read_at_most<S: AsyncRead + Unpin>(
    io: &mut S,
    cx: &mut Context<'_>,
    buf: &mut ReadBuf<'_>,
    most: u64,
) -> Poll<io::Result<usize>> {
    let room = buf.remaining().min(usize::try_from(most).unwrap_or(usize::MAX));
    let mut part = ReadBuf::new(buf.initialize_unfilled_to(room));
    ready!(Pin::new(io).poll_read(cx, &mut part))?;
    let bytes = part.filled().len();
    buf.advance(bytes);
    Poll::Ready(Ok(bytes))
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for GuardedStream<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.poll_farewell(cx)?;
        this.poll_guarded(cx, buf)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for GuardedStream<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.connection.tunnel() != Some(Tunnel::WebSocket) {
            return this.poll_take(cx, buf);
        }
        if this.farewell.as_ref().is_some_and(Farewell::is_said) {
            // After a Close no frame may follow.
            return Poll::Ready(Ok(buf.len()));
        }
        let taken = ready!(this.poll_take(cx, buf))?;
        if let (Some(farewell), Some(passed)) = (&mut this.farewell, buf.get(..taken)) {
            farewell.passed(passed);
        }
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_drain(cx))?;
        match Pin::new(&mut this.io).poll_flush(cx) {
            Poll::Ready(outcome) => {
                (this.write_stall, this.unflushed) = (None, false);
                Poll::Ready(outcome)
            }
            Poll::Pending => this.poll_stalled(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_drain(cx))?;
        Pin::new(&mut this.io).poll_shutdown(cx)
    }
}

#[async_trait]
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Shutdown for GuardedStream<S> {
    async fn shutdown(&mut self) {
        self.close().await;
    }
}

impl<S> UniqueID for GuardedStream<S> {
    fn id(&self) -> UniqueIDType {
        self.digests.fd
    }
}

impl<S> Ssl for GuardedStream<S> {
    fn get_ssl(&self) -> Option<&TlsRef> {
        None
    }

    fn get_ssl_digest(&self) -> Option<Arc<SslDigest>> {
        self.digests.tls.clone()
    }

    fn selected_alpn_proto(&self) -> Option<ALPN> {
        self.digests.alpn.clone()
    }
}

impl<S> GetTimingDigest for GuardedStream<S> {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        vec![Some(TimingDigest { established_ts: self.digests.established, ..TimingDigest::default() })]
    }
}

impl<S> GetProxyDigest for GuardedStream<S> {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        self.digests.connection.clone()
    }
}

impl<S> GetSocketDigest for GuardedStream<S> {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.digests.socket.clone()
    }

    fn set_socket_digest(&mut self, digest: SocketDigest) {
        self.digests.socket = Some(Arc::new(digest));
    }
}

#[async_trait]
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Peek for GuardedStream<S> {
    /// Waits until there is a request of HTTP/1 to be read; an error where none comes any more. No byte is given.
    async fn try_peek(&mut self, _: &mut [u8]) -> io::Result<bool> {
        if self.guard.is_none() {
            return Ok(false);
        }
        std::future::poll_fn(|cx| self.poll_guarded(cx, &mut ReadBuf::new(&mut []))).await?;
        if self.outbox.is_empty() { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(true) }
    }
}

/// One TLS record: what is smaller is sent together.
const COALESCE: usize = 16 * 1024;
const READ_SIZE: usize = 8 * 1024;
/// What a client may send ahead of an answer before we stop reading.
const READ_AHEAD: usize = 16 * 1024;

#[cfg(test)]
mod tests;
