//! The plain listener that sends everybody to https (01 §1.3). One answer, then the connection ends.

use std::os::fd::AsRawFd as _;
use std::sync::Arc;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::watch;

use super::stream::{GuardedStream, Wire};
use super::{Accepted, Challenges, Connection, Door, Limits, Patience, told};
use crate::request::Host;

/// Answers an accepted connection of the redirect listener.
/// Whoever has asked nothing by a moment after the `stop` is not waited for.
pub(crate) async fn answer_redirect(door: Arc<Door>, accepted: Accepted, mut stop: watch::Receiver<bool>) {
    let (mut stream, peer, _place) = accepted.into_parts();
    let Ok(local) = stream.local_addr() else { return };
    let client = tokio::select! {
        biased;
        client = door.client(&mut stream, peer) => client,
        () = told(&mut stop) => None,
    };
    let Some(client) = client else { return };
    let fd = stream.as_raw_fd();
    let connection = Arc::new(Connection::plain(client.address, local));
    let challenges = door.gate.snapshot().config.certificates.challenges.clone();
    answer(stream, fd, (connection, &challenges), door.bounds(), told(&mut stop)).await;
}

/// Reads one head from `io` and answers it, unless `stopped` comes first.
async fn answer<S>(
    io: S,
    fd: i32,
    (connection, challenges): (Arc<Connection>, &Challenges),
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
        None => {
            let told = tokio::select! {
                biased;
                told = challenged(&head, challenges) => told,
                () = &mut stopped => return,
            };
            match told {
                Some(authorization) => said(&authorization),
                None => location(&head).map_or_else(|| refusal("400"), |location| redirect(&location)),
            }
        }
    };
    if stream.write_all(answer.as_bytes()).await.is_ok() {
        pingora_core::protocols::Shutdown::shutdown(&mut stream).await;
    }
}

/// What an authority is told that looks at a challenge.
async fn challenged(head: &[u8], challenges: &Challenges) -> Option<String> {
    let (request_line, fields) = std::str::from_utf8(head).ok()?.split_once("\r\n")?;
    let (method, rest) = request_line.split_once(' ')?;
    let (path, _) = rest.split_once(' ')?;
    let host = host(fields);
    if method == "GET" { challenges.said(host.as_ref().map(Host::name), path).await } else { None }
}

/// The host that is asked for.
fn host(fields: &str) -> Option<Host> {
    let host = fields.split("\r\n").find_map(|field| {
        let (name, value) = field.split_once(':')?;
        name.eq_ignore_ascii_case("host").then(|| value.trim())
    })?;
    Host::parse(host.as_bytes()).ok()
}

/// Where the request belongs: https, the host without its port, path and query as they came.
fn location(head: &[u8]) -> Option<String> {
    let head = std::str::from_utf8(head).ok()?;
    let (request_line, fields) = head.split_once("\r\n")?;
    let target = request_line.split(' ').nth(1).filter(|target| target.starts_with('/'))?;
    let host = host(fields)?;
    let sound = !host.is_unnamed() && !target.starts_with("//") && !target.contains('\\');
    sound.then(|| format!("https://{}{target}", host.name()))
}

fn redirect(location: &str) -> String {
    format!("HTTP/1.1 301 Moved Permanently\r\nLocation: {location}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
}

fn said(authorization: &str) -> String {
    let length = authorization.len();
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{authorization}"
    )
}

fn refusal(status: &str) -> String {
    format!("HTTP/1.1 {status} Refused\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::*;

    async fn asked(request: &[u8]) -> String {
        asked_while(request, &Challenges::default()).await
    }

    async fn asked_while(request: &[u8], challenges: &Challenges) -> String {
        let (ours, mut client) = duplex(4096);
        let any = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
        client.write_all(request).await.unwrap();
        let connection = Arc::new(Connection::plain(any, any));
        let patience = Patience { linger: std::time::Duration::from_millis(10), ..Patience::DEFAULT };
        answer(ours, -1, (connection, challenges), (Limits::DEFAULT, patience), std::future::pending()).await;
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

    #[tokio::test]
    async fn an_authority_is_told_what_was_put_here_for_it_and_nobody_else_anything() {
        let challenges = Challenges::default();
        challenges.say("token", "token.print");
        let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: a.example\r\n\r\n").into_bytes();
        let told = asked_while(&get("/.well-known/acme-challenge/token"), &challenges).await;
        assert!(told.starts_with("HTTP/1.1 200 ") && told.ends_with("\r\n\r\ntoken.print"), "{told}");
        for request in [
            get("/.well-known/acme-challenge/other"),
            get("/.well-known/acme-challenge/token?x"),
            b"POST /.well-known/acme-challenge/token HTTP/1.1\r\nHost: a.example\r\nContent-Length: 0\r\n\r\n".to_vec(),
        ] {
            let told = asked_while(&request, &challenges).await;
            assert!(told.starts_with("HTTP/1.1 301 ") && !told.contains("print"), "{told}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_head_is_not_waited_for() {
        assert!(asked(b"GET / HTTP/1.1\r\nHost: a.example\r\n").await.starts_with("HTTP/1.1 408 "));
    }
}
