//! An upstream that keeps what it got and answers as it is told.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// One request as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Recorded {
    /// Which connection, from 0.
    pub(crate) connection: usize,
    /// The head, byte for byte.
    pub(crate) head: String,
    /// The body, without its framing.
    pub(crate) body: Vec<u8>,
    /// The whole message arrived.
    pub(crate) complete: bool,
}

impl Recorded {
    /// The values of a field.
    pub(crate) fn fields(&self, name: &str) -> Vec<&str> {
        let named = |line: &&str| line.split_once(':').is_some_and(|(field, _)| field.eq_ignore_ascii_case(name));
        self.head.lines().skip(1).filter(named).filter_map(|line| Some(line.split_once(':')?.1.trim())).collect()
    }

    /// The request line.
    pub(crate) fn line(&self) -> &str {
        self.head.lines().next().unwrap_or_default()
    }
}

/// What a path is answered with.
#[derive(Clone, Debug)]
pub(crate) enum Script {
    /// These bytes, as they are; the connection stays open.
    Bytes(Vec<u8>),
    /// These bytes before the body is read.
    Early(Vec<u8>),
    /// These bytes, and then the end.
    Close(Vec<u8>),
    /// The request body, with its length.
    Echo,
    /// Nothing, ever.
    Hang,
    /// Nothing, and it does not even read.
    Deaf,
    /// The head of an answer, one chunk, and then nothing.
    Stall,
    /// A body of that many bytes.
    Large(u64),
    /// 101 to what was asked for, and then every byte back.
    WebSocket,
    /// `100 Continue`, then as [`Self::Echo`].
    Continue,
    /// These bytes, one every 20 ms.
    Drip(Vec<u8>),
    /// Waits for the permission of [`Upstream::release`], then answers "late".
    Gate,
}

#[derive(Clone)]
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    requests: Arc<Mutex<Vec<Recorded>>>,
    scripts: Arc<Mutex<HashMap<String, Script>>>,
    gate: Arc<tokio::sync::Semaphore>,
    sent: Arc<std::sync::atomic::AtomicU64>,
    sockets: Arc<std::sync::atomic::AtomicUsize>,
}

impl Upstream {
    pub(crate) async fn plain() -> Self {
        Self::start(None).await
    }

    pub(crate) async fn start(tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let upstream = Self {
            address: listener.local_addr().unwrap(),
            requests: Arc::default(),
            scripts: Arc::default(),
            gate: Arc::new(tokio::sync::Semaphore::new(0)),
            sent: Arc::default(),
            sockets: Arc::default(),
        };
        let serving = upstream.clone();
        tokio::spawn(async move {
            for connection in 0.. {
                let Ok((stream, _)) = listener.accept().await else { return };
                let (serving, tls) = (serving.clone(), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => serving.serve(connection, stream).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                serving.serve(connection, stream).await;
                            }
                        }
                    }
                });
            }
        });
        upstream
    }

    pub(crate) fn answers(&self, path: &str, script: Script) -> &Self {
        self.scripts.lock().unwrap().insert(path.to_owned(), script);
        self
    }

    /// Lets one request of [`Script::Gate`] go on.
    pub(crate) fn release(&self) {
        self.gate.add_permits(1);
    }

    pub(crate) fn requests(&self) -> Vec<Recorded> {
        self.requests.lock().unwrap().clone()
    }

    /// How much of [`Script::Large`] has been taken from us.
    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// How many WebSockets are open.
    pub(crate) fn sockets(&self) -> usize {
        self.sockets.load(std::sync::atomic::Ordering::SeqCst)
    }

    async fn serve<S: AsyncRead + AsyncWrite + Unpin>(&self, connection: usize, mut stream: S) {
        let mut buffer = Vec::new();
        while let Some(head) = take_until(&mut stream, &mut buffer, b"\r\n\r\n").await {
            let head = String::from_utf8_lossy(&head).into_owned();
            let path = head.split(' ').nth(1).unwrap_or_default().split('?').next().unwrap_or_default().to_owned();
            let script = self.scripts.lock().unwrap().get(&path).cloned();
            let at = {
                let mut requests = self.requests.lock().unwrap();
                requests.push(Recorded { connection, head: head.clone(), body: Vec::new(), complete: false });
                requests.len() - 1
            };
            if let Some(Script::Early(bytes)) = &script {
                stream.write_all(bytes).await.ok();
            }
            if let Some(Script::Deaf) = &script {
                return std::future::pending().await;
            }
            if let Some(Script::Continue) = &script {
                stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.ok();
            }
            let body = self.read_body(&mut stream, &mut buffer, &head, at).await;
            if !self.requests.lock().unwrap()[at].complete {
                return;
            }
            if !self.answer(&mut stream, script, body, &head).await {
                return;
            }
        }
    }

    async fn read_body<S: AsyncRead + Unpin>(
        &self,
        stream: &mut S,
        buffer: &mut Vec<u8>,
        head: &str,
        at: usize,
    ) -> Vec<u8> {
        let probe = Recorded { connection: 0, head: head.to_owned(), body: Vec::new(), complete: false };
        let add = |part: &[u8]| self.requests.lock().unwrap()[at].body.extend_from_slice(part);
        if let Some(length) = probe.fields("content-length").first().and_then(|length| length.parse::<usize>().ok()) {
            while buffer.len() < length {
                if stream.read_buf(buffer).await.unwrap_or(0) == 0 {
                    add(buffer);
                    return Vec::new();
                }
            }
            let rest = buffer.split_off(length);
            add(buffer);
            *buffer = rest;
        } else if !probe.fields("transfer-encoding").is_empty() {
            loop {
                let Some(line) = take_until(stream, buffer, b"\r\n").await else { return Vec::new() };
                let size = usize::from_str_radix(String::from_utf8_lossy(&line).trim(), 16).unwrap();
                while buffer.len() < size + 2 {
                    if stream.read_buf(buffer).await.unwrap_or(0) == 0 {
                        return Vec::new();
                    }
                }
                let rest = buffer.split_off(size + 2);
                add(&buffer[..size]);
                *buffer = rest;
                if size == 0 {
                    break;
                }
            }
        }
        let mut requests = self.requests.lock().unwrap();
        requests[at].complete = true;
        requests[at].body.clone()
    }

    /// Whether the connection goes on.
    async fn answer<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: &mut S,
        script: Option<Script>,
        body: Vec<u8>,
        head: &str,
    ) -> bool {
        let ok = |body: &[u8]| {
            [format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes(), body].concat()
        };
        match script {
            None => stream.write_all(&ok(b"hello")).await.is_ok(),
            Some(Script::Bytes(bytes)) => stream.write_all(&bytes).await.is_ok(),
            Some(Script::Early(_) | Script::Deaf) => true,
            Some(Script::Close(bytes)) => {
                stream.write_all(&bytes).await.ok();
                stream.shutdown().await.ok();
                false
            }
            Some(Script::Echo | Script::Continue) => stream.write_all(&ok(&body)).await.is_ok(),
            Some(Script::Hang) => {
                let mut sink = [0; 64];
                while stream.read(&mut sink).await.unwrap_or(0) > 0 {}
                false
            }
            Some(Script::Stall) => {
                stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n").await.ok();
                std::future::pending().await
            }
            Some(Script::Large(size)) => {
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n");
                stream.write_all(head.as_bytes()).await.ok();
                let (piece, mut left) = (vec![b'x'; 64 * 1024], size);
                while left > 0 {
                    let take = left.min(piece.len() as u64);
                    if stream.write_all(&piece[..usize::try_from(take).unwrap()]).await.is_err() {
                        return false;
                    }
                    left -= take;
                    self.sent.fetch_add(take, std::sync::atomic::Ordering::Relaxed);
                }
                true
            }
            Some(Script::WebSocket) => {
                let said = |name: &str| {
                    let line = head.lines().find(|line| line.to_ascii_lowercase().starts_with(name));
                    line.map(|line| line.split(':').nth(1).unwrap().trim().to_owned()).unwrap_or_default()
                };
                let (key, upgrade) = (said("sec-websocket-key:"), said("upgrade:"));
                let accept = tokio_tungstenite::tungstenite::handshake::derive_accept_key(key.as_bytes());
                let head = format!(
                    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: {upgrade}\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
                );
                stream.write_all(head.as_bytes()).await.ok();
                self.sockets.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                let mut buffer = [0; 4096];
                while let Ok(read @ 1..) = stream.read(&mut buffer).await {
                    if stream.write_all(&buffer[..read]).await.is_err() {
                        break;
                    }
                }
                self.sockets.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                false
            }
            Some(Script::Drip(bytes)) => {
                for byte in bytes {
                    if stream.write_all(&[byte]).await.is_err() {
                        break;
                    }
                    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                }
                true
            }
            Some(Script::Gate) => {
                let _permit = self.gate.acquire().await.unwrap();
                stream.write_all(&ok(b"late")).await.is_ok()
            }
        }
    }
}

/// Reads up to and including `end`; `None` if the stream ends first.
async fn take_until<S: AsyncRead + Unpin>(stream: &mut S, buffer: &mut Vec<u8>, end: &[u8]) -> Option<Vec<u8>> {
    loop {
        if let Some(at) = buffer.windows(end.len()).position(|window| window == end) {
            let rest = buffer.split_off(at + end.len());
            return Some(std::mem::replace(buffer, rest));
        }
        if stream.read_buf(buffer).await.unwrap_or(0) == 0 {
            return None;
        }
    }
}
