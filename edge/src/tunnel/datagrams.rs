//! Carries datagrams between the capsules of a client and a socket of UDP (RFC 9298). Nothing is queued here: while the client
//! takes nothing, nothing is read from the socket, whose own buffer is the bound, and what comes then is lost, as it is with UDP.

use std::io::{self, ErrorKind};
use std::mem::{self, MaybeUninit};
use std::ops::Range;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UdpSocket;
use tokio::task::consume_budget;
use tokio::time::timeout;

use super::capsule::{self, Capsules, HEADER, Next};
use super::pipe::{BUFFER, Ended, Ends, LAST_WORDS, Meter};

/// What is to be known of a datagram that did not simply pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// The first one came from the upstream: there is somebody.
    Heard,
    /// One to the upstream was lost, or an earlier one, as the system says now.
    Lost(Lost),
}

/// Why a datagram was lost on its way up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lost {
    /// Nobody listens there, or no way leads there. The system says so when the next one is sent or received.
    Unreachable,
    /// It is larger than any packet to there may be.
    TooLarge,
    /// The system did not send it: it has no memory for it, or may not.
    Unsent,
}

impl Lost {
    /// For metrics.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::TooLarge => "too-large",
            Self::Unsent => "unsent",
        }
    }

    /// What an error says of one datagram; `None`: of the socket itself, which is of no use any more. That nobody listens ends no
    /// tunnel: a server that is started anew would cost every client its own, and anybody can write such a message who guesses
    /// two ports (RFC 5927 §4.2).
    fn of(error: &io::Error) -> Option<Self> {
        match error.raw_os_error()? {
            libc::EMSGSIZE => Some(Self::TooLarge),
            libc::ENOBUFS | libc::ENOMEM | libc::EPERM => Some(Self::Unsent),
            libc::ECONNREFUSED
            | libc::EHOSTUNREACH
            | libc::EHOSTDOWN
            | libc::ENETUNREACH
            | libc::ENETDOWN
            | libc::ENOPROTOOPT
            | libc::EPROTO
            | libc::EACCES => Some(Self::Unreachable),
            // A message that says so of the host alone (RFC 792: code 8).
            #[cfg(target_os = "linux")]
            libc::ENONET => Some(Self::Unreachable),
            _ => None,
        }
    }
}

/// Carries until one side is gone, the client is done, or as `ends` says.
pub(super) async fn relay<D>(
    mut down: D,
    socket: &UdpSocket,
    meter: &Meter,
    ends: Ends,
    tell: &(dyn Fn(Event) + Sync),
) -> Ended
where
    D: AsyncRead + AsyncWrite + Unpin,
{
    let path = Path { socket, meter, tell };
    let (mut up, mut downwards, mut turn) = (Upwards::new(), Downwards::default(), false);
    let carrying = std::future::poll_fn(|cx| {
        // Neither direction takes all the time that there is.
        turn = !turn;
        if turn && let Poll::Ready(ended) = up.poll(cx, &mut down, path) {
            return Poll::Ready(ended);
        }
        if let Poll::Ready(ended) = downwards.poll(cx, &mut down, path) {
            return Poll::Ready(ended);
        }
        if turn { Poll::Pending } else { up.poll(cx, &mut down, path) }
    });
    let ended = tokio::select! {
        ended = carrying => ended,
        () = meter.silence(ends.idle) => Ended::Silent,
        () = meter.end_of_half(ends.half) => Ended::Whole,
    };
    if ended == Ended::Whole {
        let ending = std::future::poll_fn(|cx| downwards.poll_end(cx, &mut down));
        let _gone_or_slow = timeout(LAST_WORDS, ending).await;
    }
    ended
}

/// What both directions have in common.
#[derive(Clone, Copy)]
struct Path<'p> {
    socket: &'p UdpSocket,
    meter: &'p Meter,
    tell: &'p (dyn Fn(Event) + Sync),
}

/// From the client to the upstream.
struct Upwards {
    capsules: Capsules,
    buffer: Vec<u8>,
    /// What of the buffer was read and not looked at.
    held: Range<usize>,
    /// What of it is to be sent next.
    payload: Option<Range<usize>>,
    done: bool,
}

impl Upwards {
    fn new() -> Self {
        Self { capsules: Capsules::default(), buffer: vec![0; BUFFER], held: 0..0, payload: None, done: false }
    }

    /// Carries on; ready only if that ends all.
    fn poll<D>(&mut self, cx: &mut Context<'_>, down: &mut D, path: Path<'_>) -> Poll<Ended>
    where
        D: AsyncRead + Unpin,
    {
        while !self.done {
            if self.payload.is_some() {
                if let Some(ended) = ready!(self.poll_send(cx, path)) {
                    return Poll::Ready(ended);
                }
                continue;
            }
            match self.capsules.next(self.buffer.get(self.held.clone()).unwrap_or_default()) {
                Err(capsule::Malformed) => return Poll::Ready(Ended::Malformed),
                Ok(Next::Pass(bytes)) => self.held.start += bytes,
                Ok(Next::Payload(range)) => {
                    let start = self.held.start;
                    self.payload = Some(start + range.start..start + range.end);
                    self.held.start = start + range.end;
                }
                Ok(Next::Wants(bytes)) => {
                    if let Some(ended) = ready!(self.poll_fill(cx, down, bytes, path.meter)) {
                        return Poll::Ready(ended);
                    }
                }
            }
        }
        Poll::Pending
    }

    /// Sends what is to be sent next, or loses it.
    fn poll_send(&mut self, cx: &mut Context<'_>, path: Path<'_>) -> Poll<Option<Ended>> {
        let Some(range) = self.payload.clone() else { return Poll::Ready(None) };
        let payload = self.buffer.get(range).unwrap_or_default();
        let mut sent = ready!(path.socket.poll_send(cx, payload));
        let unreachable =
            |sent: &io::Result<usize>| sent.as_ref().is_err_and(|error| Lost::of(error) == Some(Lost::Unreachable));
        if unreachable(&sent) {
            // Most likely that was said of an earlier one, and this one was not sent for it.
            (path.tell)(Event::Lost(Lost::Unreachable));
            sent = ready!(path.socket.poll_send(cx, payload));
        }
        match sent.map_err(|error| Lost::of(&error)) {
            Ok(_) => path.meter.passed_up(payload.len()),
            Err(None) => return Poll::Ready(Some(Ended::Upstream)),
            // It is told of already.
            Err(Some(Lost::Unreachable)) => {}
            Err(Some(lost)) => (path.tell)(Event::Lost(lost)),
        }
        self.payload = None;
        Poll::Ready(None)
    }

    /// Reads more, so that there can be so many bytes.
    fn poll_fill<D>(&mut self, cx: &mut Context<'_>, down: &mut D, wanted: usize, meter: &Meter) -> Poll<Option<Ended>>
    where
        D: AsyncRead + Unpin,
    {
        // What is passed over costs nothing else that would let others have their turn.
        ready!(pin!(consume_budget()).poll(cx));
        self.make_room(wanted);
        let mut buffer = ReadBuf::new(self.buffer.get_mut(self.held.end..).unwrap_or_default());
        match ready!(Pin::new(down).poll_read(cx, &mut buffer)) {
            Err(_) => return Poll::Ready(Some(Ended::Downstream)),
            Ok(()) if buffer.filled().is_empty() => {
                if !self.held.is_empty() || !self.capsules.is_between() {
                    // RFC 9297 §3.3.
                    return Poll::Ready(Some(Ended::Malformed));
                }
                self.done = true;
                meter.end_half();
            }
            Ok(()) => self.held.end += buffer.filled().len(),
        }
        Poll::Ready(None)
    }

    /// The buffer is as large as it has to be for the next capsule, and no longer than that is so.
    fn make_room(&mut self, wanted: usize) {
        let size = wanted.clamp(BUFFER, capsule::MOST);
        let (start, end) = (self.held.start, self.held.end);
        if self.held.is_empty() || start + wanted > self.buffer.len() {
            self.buffer.copy_within(start..end, 0);
            self.held = 0..end - start;
        }
        if self.buffer.len() < size {
            self.buffer.resize(size, 0);
        } else if self.buffer.len() > BUFFER && self.held.is_empty() {
            self.buffer = vec![0; BUFFER];
        }
    }
}

/// From the upstream to the client.
#[derive(Default)]
struct Downwards {
    /// What is left of the last capsule, of which the client has not taken all at once.
    rest: Vec<u8>,
    written: usize,
    unflushed: bool,
    heard: bool,
}

impl Downwards {
    /// Carries on; ready only if that ends all.
    fn poll<D>(&mut self, cx: &mut Context<'_>, down: &mut D, path: Path<'_>) -> Poll<Ended>
    where
        D: AsyncWrite + Unpin,
    {
        loop {
            if ready!(self.poll_rest(cx, down)).is_err() {
                return Poll::Ready(Ended::Downstream);
            }
            match self.poll_datagram(cx, down, path) {
                Poll::Ready(None) => {}
                Poll::Ready(Some(ended)) => return Poll::Ready(ended),
                Poll::Pending => return self.poll_flush(cx, down),
            }
        }
    }

    /// Says to the client that there is no more.
    fn poll_end<D>(&mut self, cx: &mut Context<'_>, down: &mut D) -> Poll<io::Result<()>>
    where
        D: AsyncWrite + Unpin,
    {
        ready!(self.poll_rest(cx, down))?;
        ready!(Pin::new(&mut *down).poll_flush(cx))?;
        Pin::new(down).poll_shutdown(cx)
    }

    fn poll_rest<D: AsyncWrite + Unpin>(&mut self, cx: &mut Context<'_>, down: &mut D) -> Poll<io::Result<()>> {
        while let Some(rest) = self.rest.get(self.written..).filter(|rest| !rest.is_empty()) {
            let bytes = ready!(Pin::new(&mut *down).poll_write(cx, rest))?;
            if bytes == 0 {
                return Poll::Ready(Err(ErrorKind::WriteZero.into()));
            }
            (self.written, self.unflushed) = (self.written + bytes, true);
        }
        if self.written > 0 {
            (self.rest, self.written) = (Vec::new(), 0);
        }
        Poll::Ready(Ok(()))
    }

    /// Receives one datagram, and writes its capsule as far as the client takes it.
    fn poll_datagram<D>(&mut self, cx: &mut Context<'_>, down: &mut D, path: Path<'_>) -> Poll<Option<Ended>>
    where
        D: AsyncWrite + Unpin,
    {
        // Not in each tunnel: most of them rest, and this is as large as a packet can be.
        let mut scratch = [MaybeUninit::uninit(); SCRATCH];
        let mut buffer = ReadBuf::uninit(&mut scratch);
        buffer.put_slice(&[0; HEADER]);
        if let Err(error) = ready!(path.socket.poll_recv(cx, &mut buffer)) {
            let Some(lost) = Lost::of(&error) else { return Poll::Ready(Some(Ended::Upstream)) };
            (path.tell)(Event::Lost(lost));
            return Poll::Ready(None);
        }
        if !mem::replace(&mut self.heard, true) {
            (path.tell)(Event::Heard);
        }
        let bytes = buffer.filled_mut();
        let payload = bytes.len().saturating_sub(HEADER);
        let (header, start) = capsule::header(payload);
        for (place, byte) in bytes.iter_mut().zip(header) {
            *place = byte;
        }
        let capsule = bytes.get(start..).unwrap_or_default();
        let taken = match Pin::new(down).poll_write(cx, capsule) {
            Poll::Ready(Ok(taken)) => taken,
            Poll::Ready(Err(_)) => return Poll::Ready(Some(Ended::Downstream)),
            Poll::Pending => 0,
        };
        self.unflushed |= taken > 0;
        self.rest.extend_from_slice(capsule.get(taken..).unwrap_or_default());
        path.meter.passed_down(payload);
        Poll::Ready(None)
    }

    /// Nothing more is to be written now.
    fn poll_flush<D: AsyncWrite + Unpin>(&mut self, cx: &mut Context<'_>, down: &mut D) -> Poll<Ended> {
        if self.unflushed {
            match ready!(Pin::new(down).poll_flush(cx)) {
                Ok(()) => self.unflushed = false,
                Err(_) => return Poll::Ready(Ended::Downstream),
            }
        }
        Poll::Pending
    }
}

/// Room for the largest packet, and what is put before it.
const SCRATCH: usize = capsule::MOST_PAYLOAD + HEADER;

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
    use tokio::task::JoinHandle;
    use tokio::time::Instant;

    use super::*;

    /// What became of a relay: how it ended, the bytes of both ways, and what was told.
    type Relayed = JoinHandle<(Ended, (u64, u64), Vec<Event>)>;

    const UNTIL_THE_CLIENT_ENDS: Ends = Ends { idle: None, half: Some(Duration::from_millis(10)), resets: false };

    async fn socket() -> UdpSocket {
        UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap()
    }

    /// The client's end, the upstream's socket, connected, and what becomes of the relay between them.
    async fn open(room: usize, ends: Ends) -> (DuplexStream, UdpSocket, Relayed) {
        let ((client, down), (near, far)) = (duplex(room), (socket().await, socket().await));
        near.connect(far.local_addr().unwrap()).await.unwrap();
        far.connect(near.local_addr().unwrap()).await.unwrap();
        (client, far, tokio::spawn(carry(down, near, ends)))
    }

    async fn carry(down: DuplexStream, near: UdpSocket, ends: Ends) -> (Ended, (u64, u64), Vec<Event>) {
        let (meter, told) = (Meter::new(Arc::default()), Mutex::new(Vec::new()));
        let tell = |event| told.lock().unwrap().push(event);
        let ended = relay(down, &near, &meter, ends, &tell).await;
        (ended, meter.total(), told.into_inner().unwrap())
    }

    fn capsule(payload: &[u8]) -> Vec<u8> {
        let (header, start) = capsule::header(payload.len());
        [&header[start..], payload].concat()
    }

    async fn received(socket: &UdpSocket) -> Vec<u8> {
        let mut packet = vec![0; 70_000];
        let length = socket.recv(&mut packet).await.unwrap();
        packet.truncate(length);
        packet
    }

    #[tokio::test]
    async fn datagrams_pass_whole_and_in_order_however_slowly_the_client_takes_them() {
        let (mut client, upstream, relayed) = open(50, UNTIL_THE_CLIENT_ENDS).await;
        let (sent, empty) = ([1_u8; 1000], [0_u8; 0]);
        let writing = async {
            for payload in [&sent[..], &empty, b"x"] {
                client.write_all(&capsule(payload)).await.unwrap();
            }
        };
        let hearing = async {
            for payload in [&sent[..], &empty, b"x"] {
                assert_eq!(received(&upstream).await, payload);
                upstream.send(payload).await.unwrap();
            }
        };
        tokio::join!(writing, hearing);
        let all = [capsule(&sent), capsule(&empty), capsule(b"x")].concat();
        let mut back = vec![0; all.len()];
        client.read_exact(&mut back).await.unwrap();
        assert_eq!(back, all);
        drop(client);
        let (ended, total, told) = relayed.await.unwrap();
        assert_eq!((ended, total, told), (Ended::Whole, (1001, 1001), vec![Event::Heard]));
    }

    #[tokio::test]
    async fn the_largest_datagram_passes_and_a_larger_one_than_its_network_has_is_lost_alone() {
        let (mut client, upstream, relayed) = open(1 << 20, UNTIL_THE_CLIENT_ENDS).await;
        let (largest, larger) = (vec![7; 65_507], vec![8; 65_508]);
        for payload in [&largest, &larger, &b"next".to_vec()] {
            client.write_all(&capsule(payload)).await.unwrap();
        }
        assert_eq!(received(&upstream).await, largest);
        assert_eq!(received(&upstream).await, b"next");
        upstream.send(&largest).await.unwrap();
        let mut back = vec![0; capsule(&largest).len()];
        client.read_exact(&mut back).await.unwrap();
        assert_eq!(back, capsule(&largest));
        drop(client);
        let (_, total, told) = relayed.await.unwrap();
        assert_eq!((total, told), ((65_511, 65_507), vec![Event::Lost(Lost::TooLarge), Event::Heard]));
    }

    #[tokio::test]
    async fn that_nobody_listens_costs_the_datagrams_that_found_nobody_and_no_other() {
        let ((mut client, down), near) = (duplex(1000), socket().await);
        let nobody = socket().await;
        let address = nobody.local_addr().unwrap();
        near.connect(address).await.unwrap();
        drop(nobody);
        let from = near.local_addr().unwrap();
        let relayed = tokio::spawn(carry(down, near, UNTIL_THE_CLIENT_ENDS));
        for _ in 0..3 {
            client.write_all(&capsule(b"lost")).await.unwrap();
            tokio::task::yield_now().await;
        }
        let back = UdpSocket::bind(address).await.unwrap();
        client.write_all(&capsule(b"found")).await.unwrap();
        // Some of those before may be later than it.
        while received(&back).await != b"found" {}
        back.send_to(b"answer", from).await.unwrap();
        let mut answer = vec![0; capsule(b"answer").len()];
        client.read_exact(&mut answer).await.unwrap();
        drop(client);
        let (ended, _, told) = relayed.await.unwrap();
        assert_eq!(ended, Ended::Whole);
        assert_eq!(told.first(), Some(&Event::Lost(Lost::Unreachable)));
        assert_eq!(told.last(), Some(&Event::Heard));
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_has_ended_still_hears_the_upstream_for_a_moment_and_is_told_the_end() {
        let half = Some(LAST_WORDS);
        let (mut client, upstream, relayed) = open(1000, Ends { half, ..UNTIL_THE_CLIENT_ENDS }).await;
        let began = Instant::now();
        client.shutdown().await.unwrap();
        upstream.send(b"answer").await.unwrap();
        let mut heard = Vec::new();
        client.read_to_end(&mut heard).await.unwrap();
        assert_eq!((heard, began.elapsed().as_secs()), (capsule(b"answer"), LAST_WORDS.as_secs()));
        assert_eq!(relayed.await.unwrap().0, Ended::Whole);
    }

    #[tokio::test]
    async fn rfc_9297_what_is_no_capsule_or_half_a_one_ends_it() {
        let half = capsule(b"half");
        let unknown = [0x17, 0x05, 1, 2];
        for bytes in [&[0, 0][..], &[0, 0x80, 1, 0, 0, 0], &half[..half.len() - 1], &half[..1], &unknown] {
            let (mut client, _upstream, relayed) = open(1000, UNTIL_THE_CLIENT_ENDS).await;
            client.write_all(bytes).await.unwrap();
            drop(client);
            assert_eq!(relayed.await.unwrap().0, Ended::Malformed, "{bytes:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn silence_ends_it_where_that_is_asked_for() {
        let idle = Some(Duration::from_secs(120));
        let (_client, _upstream, relayed) = open(1000, Ends { idle, ..UNTIL_THE_CLIENT_ENDS }).await;
        let began = Instant::now();
        assert_eq!(relayed.await.unwrap().0, Ended::Silent);
        assert_eq!(began.elapsed().as_secs(), 120);
    }

    #[test]
    fn errors_of_one_datagram_are_told_from_those_of_the_socket() {
        for (errno, lost) in [
            (libc::ECONNREFUSED, Some(Lost::Unreachable)),
            (libc::ENETUNREACH, Some(Lost::Unreachable)),
            #[cfg(target_os = "linux")]
            (libc::ENONET, Some(Lost::Unreachable)),
            (libc::EMSGSIZE, Some(Lost::TooLarge)),
            (libc::EPERM, Some(Lost::Unsent)),
            (libc::EBADF, None),
            (libc::EINVAL, None),
        ] {
            assert_eq!(Lost::of(&io::Error::from_raw_os_error(errno)), lost, "{errno}");
        }
    }
}
