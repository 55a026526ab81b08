//! An upstream that keeps the raw bytes of every connection: what it did not get, no parser can hide.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// A running recorder; it ends with its owner. Answers every whole request with 200 and `ok`.
#[derive(Debug)]
pub(crate) struct Recorder {
    address: SocketAddr,
    connections: Connections,
    server: JoinHandle<()>,
}

type Connections = Arc<Mutex<Vec<Vec<u8>>>>;

impl Recorder {
    /// Starts one on a port of its own.
    pub(crate) async fn start() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let (address, connections) = (listener.local_addr()?, Connections::default());
        let log = connections.clone();
        let server = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let index = with(&log, |all| {
                    all.push(Vec::new());
                    all.len() - 1
                });
                tokio::spawn(record(stream, log.clone(), index));
            }
        });
        Ok(Self { address, connections, server })
    }

    /// Where it listens.
    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// What to write after `to:`.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The bytes of every connection so far, in order of arrival.
    pub(crate) fn connections(&self) -> Vec<Vec<u8>> {
        with(&self.connections, |all| all.clone())
    }

    /// All bytes of all connections so far, as text.
    pub(crate) fn text(&self) -> String {
        self.connections().iter().map(|bytes| String::from_utf8_lossy(bytes).into_owned()).collect()
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.server.abort();
    }
}

fn with<T>(connections: &Connections, act: impl FnOnce(&mut Vec<Vec<u8>>) -> T) -> T {
    act(&mut connections.lock().unwrap_or_else(PoisonError::into_inner))
}

async fn record(mut stream: TcpStream, log: Connections, index: usize) {
    let (mut pending, mut piece) = (Vec::new(), vec![0; 16 * 1024]);
    while let Ok(read) = stream.read(&mut piece).await {
        let Some(bytes) = piece.get(..read).filter(|bytes| !bytes.is_empty()) else { return };
        pending.extend_from_slice(bytes);
        with(&log, |all| all.get_mut(index).map(|connection| connection.extend_from_slice(bytes)));
        while let Some(length) = whole_request(&pending) {
            pending.drain(..length);
            if stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.is_err() {
                return;
            }
        }
    }
}

/// The length of the request at the front, once it is there as a whole.
fn whole_request(bytes: &[u8]) -> Option<usize> {
    let head = position(bytes, b"\r\n\r\n")? + 4;
    let text = String::from_utf8_lossy(bytes.get(..head)?).to_ascii_lowercase();
    if text.contains("\r\ntransfer-encoding:") {
        let rest = bytes.get(head..)?;
        let end = if rest.starts_with(b"0\r\n\r\n") { 0 } else { position(rest, b"\r\n0\r\n\r\n")? + 2 };
        return Some(head + end + 5);
    }
    let length = text.split("\r\ncontent-length:").nth(1).and_then(|rest| rest.lines().next());
    let length: usize = length.map_or(Some(0), |length| length.trim().parse().ok())?;
    (bytes.len() >= head + length).then_some(head + length)
}

fn position(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}
