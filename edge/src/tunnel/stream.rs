//! One stream of HTTP/2 as a stream of bytes: DATA frames in both directions, END_STREAM for the end of a half (RFC 9113 §8.5,
//! RFC 8441 §5).

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use h2::SendStream;
use pingora_core::protocols::http::v2::server::HttpSession;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::listener::{Farewell, GOING_AWAY};

/// The stream of a request that was granted.
pub(super) struct Stream<'s> {
    session: &'s mut HttpSession,
    send: SendStream<Bytes>,
    /// Received, and not read yet: at most one frame.
    rest: Bytes,
    /// What a WebSocket is told when this process leaves.
    farewell: Option<Farewell>,
    /// What is still to be sent of that.
    owed: &'static [u8],
    ended: bool,
    queue: Arc<Queue>,
}

/// The pieces that the connection was given and has not sent yet. A reset would discard them.
#[derive(Debug, Default)]
struct Queue {
    pieces: AtomicUsize,
    empty: AtomicWaker,
}

/// One of them; the connection drops it once it is sent.
struct Piece {
    data: Box<[u8]>,
    queue: Arc<Queue>,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        if self.queue.pieces.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.queue.empty.wake();
        }
    }
}

impl Queue {
    fn piece(self: &Arc<Self>, data: &[u8]) -> Bytes {
        self.pieces.fetch_add(1, Ordering::AcqRel);
        Bytes::from_owner(Piece { data: data.into(), queue: Arc::clone(self) })
    }

    fn poll_empty(&self, cx: &Context<'_>) -> Poll<()> {
        self.empty.register(cx.waker());
        if self.pieces.load(Ordering::Acquire) == 0 { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl<'s> Stream<'s> {
    /// That of `session`, whose head was answered; `None` if it was not.
    pub(super) fn of(session: &'s mut HttpSession, farewell: Option<Farewell>) -> Option<Self> {
        let send = session.take_response_body_writer()?;
        Some(Self { session, send, rest: Bytes::new(), farewell, owed: &[], ended: false, queue: Arc::default() })
    }

    /// Sends as much of `data` as there is room for.
    fn poll_send(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        if data.is_empty() {
            return Poll::Ready(Ok(0));
        }
        self.send.reserve_capacity(data.len());
        loop {
            let room = match ready!(self.send.poll_capacity(cx)) {
                Some(Ok(room)) => room.min(data.len()),
                Some(Err(error)) => {
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionReset, error)));
                }
                None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            };
            if let Some(part) = data.get(..room).filter(|part| !part.is_empty()) {
                let sent = self.send.send_data(self.queue.piece(part), false);
                return Poll::Ready(sent.map(|()| room).map_err(io::Error::other));
            }
        }
    }

    /// Tells a WebSocket that we leave, once that is so and the upstream is not in the middle of a frame.
    fn poll_farewell(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.farewell.as_mut().is_some_and(|farewell| farewell.is_due(cx)) {
            self.owed = &GOING_AWAY;
        }
        while !self.owed.is_empty() {
            let owed = self.owed;
            match self.poll_send(cx, owed) {
                Poll::Ready(sent) => self.owed = owed.get(sent?..).unwrap_or_default(),
                Poll::Pending => return Ok(()),
            }
        }
        Ok(())
    }
}

impl AsyncRead for Stream<'_> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.poll_farewell(cx)?;
        while this.rest.is_empty() {
            match ready!(this.session.poll_read_body_bytes(cx)) {
                // The stream is gone, either way.
                Some(bytes) => {
                    this.rest = bytes.map_err(|error| io::Error::new(io::ErrorKind::ConnectionReset, error))?;
                }
                None => return Poll::Ready(Ok(())),
            }
        }
        let take = this.rest.len().min(buf.remaining());
        buf.put_slice(&this.rest.split_to(take));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream<'_> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.farewell.as_ref().is_some_and(Farewell::is_said) {
            // After a Close no frame may follow.
            return Poll::Ready(Ok(buf.len()));
        }
        let sent = ready!(this.poll_send(cx, buf))?;
        if let (Some(farewell), Some(passed)) = (&mut this.farewell, buf.get(..sent)) {
            farewell.passed(passed);
        }
        // This may have been the end of the frame that it waits for.
        this.poll_farewell(cx)?;
        Poll::Ready(Ok(sent))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // The connection sends what it was given by itself, or drops it where the client has reset the stream.
        ready!(this.queue.poll_empty(cx));
        match this.send.poll_reset(cx) {
            Poll::Ready(_) => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            Poll::Pending => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !std::mem::replace(&mut this.ended, true) {
            this.send.send_data(Bytes::new(), true).map_err(io::Error::other)?;
        }
        Poll::Ready(Ok(()))
    }
}
