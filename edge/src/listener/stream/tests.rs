//! The connection in paused time, over a pipe.

use std::time::Duration;

use tokio::io::{DuplexStream, duplex};

use super::*;

fn connection() -> Arc<Connection> {
    let any = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
    Arc::new(Connection::plain(any, any))
}

fn guarded(room: usize) -> (GuardedStream<DuplexStream>, DuplexStream, Arc<Connection>) {
    let ((ours, client), connection) = (duplex(room), connection());
    let wire = Wire { fd: -1, alpn: None, tls: None };
    let stream = GuardedStream::new(ours, wire, Arc::clone(&connection), Limits::DEFAULT, Patience::DEFAULT);
    (stream, client, connection)
}

async fn read(stream: &mut GuardedStream<DuplexStream>) -> io::Result<Vec<u8>> {
    let mut buf = Vec::with_capacity(64 * 1024);
    stream.read_buf(&mut buf).await.map(|_| buf)
}

#[tokio::test(start_paused = true)]
async fn a_slow_head_is_answered_after_fifteen_seconds() {
    let (mut stream, mut client, connection) = guarded(1024);
    let drip = tokio::spawn(async move {
        for byte in b"GET / HTTP/1.1\r\nHost: a.example\r\n".iter().cycle() {
            client.write_all(&[*byte]).await.unwrap();
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
    });
    let began = Instant::now();
    assert_eq!(read(&mut stream).await.unwrap(), SYNTHETIC_HEAD);
    assert_eq!(connection.violation(), Some(Violation::HeadTimeout));
    assert_eq!(began.elapsed().as_secs(), 15);
    drip.abort();
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_ends_after_a_minute() {
    let (mut stream, _client, connection) = guarded(1024);
    let began = Instant::now();
    assert_eq!(read(&mut stream).await.unwrap(), b"");
    assert_eq!((began.elapsed().as_secs(), connection.violation()), (60, None));
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_rests_is_closed_at_once_whoever_stays() {
    let (mut stream, mut client, connection) = guarded(1024);
    client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    read(&mut stream).await.unwrap();
    connection.end_exchange();
    assert!(futures_now(std::pin::pin!(stream.try_peek(&mut []))).is_none());
    let began = Instant::now();
    stream.close().await;
    assert_eq!(began.elapsed(), Duration::ZERO);
    assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_stops_is_cut_after_thirty_seconds() {
    let (mut stream, mut client, connection) = guarded(1024);
    client.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc").await.unwrap();
    read(&mut stream).await.unwrap();
    let began = Instant::now();
    assert_eq!(read(&mut stream).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
    assert_eq!((began.elapsed().as_secs(), connection.violation()), (30, Some(Violation::BodyTimeout)));
}

#[tokio::test(start_paused = true)]
async fn a_body_that_drips_is_cut_although_it_never_stops() {
    let ((ours, mut client), connection) = (duplex(1024), connection());
    let patience = Patience { request: None, ..Patience::DEFAULT };
    let wire = Wire { fd: -1, alpn: None, tls: None };
    let mut stream = GuardedStream::new(ours, wire, Arc::clone(&connection), Limits::DEFAULT, patience);
    tokio::spawn(async move {
        client.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n").await.unwrap();
        while client.write_all(b"drip").await.is_ok() {
            tokio::time::sleep(Duration::from_secs(10)).await;
        }
    });
    let began = Instant::now();
    let error = loop {
        match read(&mut stream).await {
            Ok(bytes) => assert!(!bytes.is_empty()),
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    assert_eq!((began.elapsed().as_secs(), connection.violation()), (30, Some(Violation::BodyTimeout)));
}

#[tokio::test(start_paused = true)]
async fn the_time_in_which_nobody_reads_does_not_count_against_the_client() {
    let ((ours, mut client), connection) = (duplex(1024), connection());
    let patience = Patience { request: None, ..Patience::DEFAULT };
    let wire = Wire { fd: -1, alpn: None, tls: None };
    let mut stream = GuardedStream::new(ours, wire, Arc::clone(&connection), Limits::DEFAULT, patience);
    client.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\n\r\nabcd").await.unwrap();
    read(&mut stream).await.unwrap();
    tokio::time::sleep(Duration::from_secs(300)).await;
    client.write_all(b"efgh").await.unwrap();
    assert_eq!(read(&mut stream).await.unwrap(), b"efgh");
}

#[tokio::test]
async fn s_012_a_body_that_is_cut_off_is_an_error_not_an_end() {
    let (mut stream, mut client, _) = guarded(1024);
    client.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab").await.unwrap();
    drop(client);
    read(&mut stream).await.unwrap();
    assert_eq!(read(&mut stream).await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
}

#[tokio::test]
async fn a_request_sent_ahead_waits_until_the_first_is_over() {
    let (mut stream, mut client, connection) = guarded(1024);
    let request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    client.write_all(&request.repeat(2)).await.unwrap();
    assert_eq!(read(&mut stream).await.unwrap(), request);
    assert!(futures_now(std::pin::pin!(read(&mut stream))).is_none(), "the second must wait");
    connection.end_exchange();
    assert_eq!(read(&mut stream).await.unwrap(), request);
}

#[tokio::test]
async fn a_client_that_leaves_during_an_exchange_is_noticed() {
    let (mut stream, mut client, _) = guarded(1024);
    client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    read(&mut stream).await.unwrap();
    drop(client);
    assert_eq!(read(&mut stream).await.unwrap(), b"");
}

#[tokio::test]
async fn s_009_after_an_upgrade_the_bytes_pass_as_they_are() {
    let (mut stream, mut client, connection) = guarded(1024);
    client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n\x81\x00early").await.unwrap();
    read(&mut stream).await.unwrap();
    assert!(futures_now(std::pin::pin!(read(&mut stream))).is_none(), "nothing passes before the 101");
    connection.begin_tunnel(Tunnel::WebSocket);
    assert_eq!(read(&mut stream).await.unwrap(), b"\x81\x00early");
    client.write_all(b"\0\xff").await.unwrap();
    assert_eq!(read(&mut stream).await.unwrap(), b"\0\xff");
}

/// A WebSocket whose upstream has sent the 101 and these bytes.
async fn websocket(frames: &[u8]) -> (GuardedStream<DuplexStream>, DuplexStream, watch::Sender<bool>) {
    let (stream, mut client, connection) = guarded(1024);
    let (stop, stopped) = watch::channel(false);
    let mut stream = stream.until(stopped);
    client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    read(&mut stream).await.unwrap();
    connection.begin_tunnel(Tunnel::WebSocket);
    stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\n\r\n").await.unwrap();
    stream.write_all(frames).await.unwrap();
    stream.flush().await.unwrap();
    let mut head = [0; 36];
    client.read_exact(&mut head).await.unwrap();
    assert!(head.ends_with(b"\r\n\r\n"));
    (stream, client, stop)
}

#[tokio::test]
async fn r_033_a_websocket_is_told_between_two_frames_and_hears_nothing_more() {
    let (mut stream, mut client, stop) = websocket(b"\x81\x05hel").await;
    stop.send_replace(true);
    assert!(futures_now(std::pin::pin!(read(&mut stream))).is_none());
    stream.write_all(b"lo").await.unwrap();
    stream.flush().await.unwrap();
    assert!(futures_now(std::pin::pin!(read(&mut stream))).is_none());
    stream.write_all(b"\x81\x05never").await.unwrap();
    stream.flush().await.unwrap();
    client.write_all(b"the client's own close").await.unwrap();
    assert_eq!(read(&mut stream).await.unwrap(), b"the client's own close");
    drop(stream);
    let mut heard = Vec::new();
    client.read_to_end(&mut heard).await.unwrap();
    assert_eq!(heard, [&b"\x81\x05hello"[..], &GOING_AWAY].concat());
}

#[tokio::test]
async fn r_033_what_is_no_websocket_is_told_nothing_that_it_would_not_understand() {
    let (stream, mut client, connection) = guarded(1024);
    let (stop, stopped) = watch::channel(false);
    let mut stream = stream.until(stopped);
    client.write_all(b"POST / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    read(&mut stream).await.unwrap();
    connection.begin_tunnel(Tunnel::Upgraded);
    stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\n\r\n").await.unwrap();
    stop.send_replace(true);
    assert!(futures_now(std::pin::pin!(read(&mut stream))).is_none());
    stream.write_all(b"\x80\x03").await.unwrap();
    stream.flush().await.unwrap();
    drop(stream);
    let mut heard = Vec::new();
    client.read_to_end(&mut heard).await.unwrap();
    assert_eq!(heard, b"HTTP/1.1 101 Switching Protocols\r\n\r\n\x80\x03");
}

#[tokio::test]
async fn r_033_a_silent_websocket_is_told_at_once() {
    let (mut stream, mut client, stop) = websocket(b"").await;
    let reading = tokio::spawn(async move { read(&mut stream).await });
    tokio::task::yield_now().await;
    stop.send_replace(true);
    let mut heard = [0; 4];
    timeout(Duration::from_secs(20), client.read_exact(&mut heard)).await.expect("told").unwrap();
    assert_eq!(heard, GOING_AWAY);
    drop(client);
    assert_eq!(reading.await.unwrap().unwrap(), b"");
}

#[tokio::test]
async fn a_bad_head_becomes_the_synthetic_one_and_then_the_end() {
    let (mut stream, mut client, connection) = guarded(1024);
    client.write_all(b"GET  / HTTP/1.1\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    assert_eq!(read(&mut stream).await.unwrap(), SYNTHETIC_HEAD);
    assert_eq!(connection.violation(), Some(Violation::RequestLine));
    connection.end_exchange();
    assert_eq!(read(&mut stream).await.unwrap(), b"");
}

#[tokio::test]
async fn small_writes_leave_together() {
    let (mut stream, mut client, _) = guarded(64 * 1024);
    stream.write_all(b"head").await.unwrap();
    stream.write_all(b"body").await.unwrap();
    let mut buf = Vec::new();
    assert!(futures_now(std::pin::pin!(client.read_buf(&mut buf))).is_none());
    stream.flush().await.unwrap();
    client.read_buf(&mut buf).await.unwrap();
    assert_eq!(buf, b"headbody");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_nothing_is_left_after_thirty_seconds() {
    let (mut stream, _client, _) = guarded(16);
    stream.write_all(&[0; 64]).await.unwrap();
    let began = Instant::now();
    assert_eq!(stream.flush().await.unwrap_err().kind(), io::ErrorKind::TimedOut);
    assert_eq!(began.elapsed().as_secs(), 30);
}

/// Takes everything at once and sends it only when it is flushed, which it is ready for when it is told so; as TLS for a slow client.
#[derive(Default)]
struct Lazy {
    kept: Vec<u8>,
    sent: Arc<std::sync::Mutex<Vec<u8>>>,
    ready: Arc<std::sync::atomic::AtomicBool>,
    said: &'static [u8],
}

impl AsyncRead for Lazy {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let said = std::mem::take(&mut self.get_mut().said);
        buf.put_slice(said);
        if said.is_empty() { Poll::Pending } else { Poll::Ready(Ok(())) }
    }
}

impl AsyncWrite for Lazy {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().kept.extend_from_slice(buf);
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.ready.load(std::sync::atomic::Ordering::SeqCst) {
            return Poll::Pending;
        }
        this.sent.lock().unwrap().append(&mut this.kept);
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(cx)
    }
}

#[tokio::test]
async fn a_flush_that_had_to_wait_is_not_forgotten() {
    for request in
        [&b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..], b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n"]
    {
        let io = Lazy { said: request, ..Lazy::default() };
        let (sent, ready) = (Arc::clone(&io.sent), Arc::clone(&io.ready));
        let wire = Wire { fd: -1, alpn: None, tls: None };
        let mut stream = GuardedStream::new(io, wire, connection(), Limits::DEFAULT, Patience::DEFAULT);
        let now = |stream: &mut GuardedStream<Lazy>| {
            futures_now(std::pin::pin!(stream.read_buf(&mut Vec::with_capacity(1024)))).is_some()
        };
        assert!(now(&mut stream), "the request");
        stream.write_all(b"the head of an answer").await.unwrap();
        assert!(!now(&mut stream) && sent.lock().unwrap().is_empty());
        ready.store(true, std::sync::atomic::Ordering::SeqCst);
        assert!(!now(&mut stream));
        assert_eq!(*sent.lock().unwrap(), b"the head of an answer");
    }
}

#[tokio::test(start_paused = true)]
async fn r_004_who_takes_the_tail_of_an_answer_slowly_is_not_left_while_the_upstream_is_silent() {
    let io = Lazy { said: b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", ..Lazy::default() };
    let wire = Wire { fd: -1, alpn: None, tls: None };
    let mut stream = GuardedStream::new(io, wire, connection(), Limits::DEFAULT, Patience::DEFAULT);
    stream.read_buf(&mut Vec::with_capacity(1024)).await.unwrap();
    stream.write_all(b"an event").await.unwrap();
    for _ in 0..4 {
        let mut rest = Vec::with_capacity(1024);
        let read = timeout(Duration::from_secs(29), stream.read_buf(&mut rest)).await;
        assert!(read.is_err(), "{read:?}");
    }
}

/// The output of a future that is ready at once.
fn futures_now<F: Future>(future: Pin<&mut F>) -> Option<F::Output> {
    match future.poll(&mut Context::from_waker(std::task::Waker::noop())) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}
