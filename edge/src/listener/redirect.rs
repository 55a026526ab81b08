//! The plain listener that sends everybody to https (01 §1.3). One answer, then the connection ends.

use std::os::fd::AsRawFd as _;
use std::sync::Arc;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::watch;

use super::stream::{GuardedStream, Wire};
use super::{Accepted, Connection, Door, Limits, Patience};
use crate::request::Host;

/// Answers an accepted connection of the redirect listener.
/// Whoever has asked nothing by the time of `stop` is not waited for.
pub(crate) async fn answer_redirect(door: Arc<Door>, accepted: Accepted, mut stop: watch::Receiver<bool>) {
    let (mut stream, peer, _place) = accepted.into_parts();
    let Ok(local) = stream.local_addr() else { return };
    let client = tokio::select! {
        biased;
        client = door.client(&mut stream, peer) => client,
        _ = stop.wait_for(|stop| *stop) => None,
    };
    let Some(peer) = client else { return };
    let fd = stream.as_raw_fd();
    let connection = Arc::new(Connection::plain(peer, local));
    let stopped = async { drop(stop.wait_for(|stop| *stop).await) };
    answer(stream, fd, connection, (door.bytes, door.patience()), stopped).await;
}

/// Reads one head from `io` and answers it, unless `stopped` comes first.
async fn answer<S>(
    io: S,
    fd: i32,
    connection: Arc<Connection>,
    (bytes, patience): (Limits, Patience),
    stopped: impl Future<Output = ()>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let wire = Wire { fd, alpn: None, tls: None };
    let mut stream = GuardedStream::new(io, wire, Arc::clone(&connection), bytes, patience);
    let mut head = BytesMut::new();
    let mut stopped = std::pin::pin!(stopped);
    while !head.ends_with(b"\r\n\r\n") {
        // The guard gives whole heads only; more than one turn is a matter of buffer space.
        let read = tokio::select! {
            biased;
            read = stream.read_buf(&mut head) => read,
            () = &mut stopped => return,
        };
        match read {
            Ok(1..) => {}
            Ok(0) | Err(_) => return,
        }
    }
    let answer = match connection.violation() {
        Some(violation) => refusal(violation.status().as_str()),
        None => location(&head).map_or_else(|| refusal("400"), |location| redirect(&location)),
    };
    if stream.write_all(answer.as_bytes()).await.is_ok() {
        pingora_core::protocols::Shutdown::shutdown(&mut stream).await;
    }
}

/// Where the request belongs: https, the host without its port, path and query as they came.
fn location(head: &[u8]) -> Option<String> {
    let head = std::str::from_utf8(head).ok()?;
    let (request_line, fields) = head.split_once("\r\n")?;
    let target = request_line.split(' ').nth(1).filter(|target| target.starts_with('/'))?;
    let host = fields.split("\r\n").find_map(|field| {
        let (name, value) = field.split_once(':')?;
        name.eq_ignore_ascii_case("host").then(|| value.trim())
    })?;
    let host = Host::parse(host.as_bytes()).ok()?;
    let sound = !host.is_unnamed() && !target.starts_with("//") && !target.contains('\\');
    sound.then(|| format!("https://{}{target}", host.name()))
}

fn redirect(location: &str) -> String {
    format!("HTTP/1.1 301 Moved Permanently\r\nLocation: {location}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
}

fn refusal(status: &str) -> String {
    format!("HTTP/1.1 {status} Refused\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::*;

    async fn asked(request: &[u8]) -> String {
        let (ours, mut client) = duplex(4096);
        let any = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
        client.write_all(request).await.unwrap();
        let connection = Arc::new(Connection::plain(any, any));
        let patience = Patience { linger: std::time::Duration::from_millis(10), ..Patience::DEFAULT };
        answer(ours, -1, connection, (Limits::DEFAULT, patience), std::future::pending()).await;
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn everybody_is_sent_to_https_without_the_port() {
        let answer = asked(b"GET /a/b?c=d HTTP/1.1\r\nHost: A.example:8080\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 301 "), "{answer}");
        assert!(answer.contains("\r\nLocation: https://a.example/a/b?c=d\r\n"), "{answer}");
        assert!(answer.contains("\r\nConnection: close\r\n"), "{answer}");
    }

    #[tokio::test]
    async fn what_has_no_sound_host_or_target_is_sent_nowhere() {
        for request in [
            "GET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: user@a.example\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a.example\r\nHost: b.example\r\n\r\n",
            "GET //evil.example HTTP/1.1\r\nHost: a.example\r\n\r\n",
            "GET /\\evil.example HTTP/1.1\r\nHost: a.example\r\n\r\n",
            "GET http://evil.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n",
            "OPTIONS * HTTP/1.1\r\nHost: a.example\r\n\r\n",
            "GET  / HTTP/1.1\r\nHost: a.example\r\n\r\n",
        ] {
            let answer = asked(request.as_bytes()).await;
            assert!(answer.starts_with("HTTP/1.1 400 ") && !answer.contains("Location"), "{request:?}: {answer}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_head_is_not_waited_for() {
        assert!(asked(b"GET / HTTP/1.1\r\nHost: a.example\r\n").await.starts_with("HTTP/1.1 408 "));
    }
}
