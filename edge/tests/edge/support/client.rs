//! A client that sends exactly the bytes that it is given.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// An answer.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Response {
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (field, value) = line.split_once(':')?;
            field.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// A TLS connection, with what was read ahead.
pub(crate) struct Wire {
    pub(crate) stream: TlsStream<TcpStream>,
    buffer: Vec<u8>,
}

impl Wire {
    pub(crate) async fn open(
        address: SocketAddr,
        name: &str,
        root: &CertificateDer<'static>,
        alpn: &[&str],
    ) -> std::io::Result<Self> {
        Self::over(TcpStream::connect(address).await?, name, root, alpn).await
    }

    pub(crate) async fn over(
        tcp: TcpStream,
        name: &str,
        root: &CertificateDer<'static>,
        alpn: &[&str],
    ) -> std::io::Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add(root.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let mut config = builder.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        tcp.set_nodelay(true)?;
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let stream = TlsConnector::from(Arc::new(config)).connect(name, tcp).await?;
        Ok(Self { stream, buffer: Vec::new() })
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    /// The next answer to a request that is not HEAD; `None` if the connection ends first.
    pub(crate) async fn response(&mut self) -> Option<Response> {
        timeout(PATIENCE, self.read_response()).await.expect("an answer in time")
    }

    async fn read_response(&mut self) -> Option<Response> {
        let head = self.head().await?;
        let status = head.split(' ').nth(1)?.parse().unwrap();
        let mut response = Response { status, head, body: Vec::new() };
        if status < 200 || status == 204 || status == 304 {
            return Some(response);
        }
        if let Some(length) = response.field("content-length") {
            let length: usize = length.parse().unwrap();
            while self.buffer.len() < length {
                if self.more().await == 0 {
                    break;
                }
            }
            let rest = self.buffer.split_off(length.min(self.buffer.len()));
            response.body = std::mem::replace(&mut self.buffer, rest);
        } else if response.field("transfer-encoding").is_some() {
            while let Some(chunk) = self.chunk().await {
                if chunk.is_empty() {
                    break;
                }
                response.body.extend(chunk);
            }
        }
        Some(response)
    }

    /// The next head.
    pub(crate) async fn head(&mut self) -> Option<String> {
        loop {
            if let Some(at) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                let rest = self.buffer.split_off(at + 4);
                return String::from_utf8(std::mem::replace(&mut self.buffer, rest)).ok();
            }
            if self.more().await == 0 {
                return None;
            }
        }
    }

    /// The next chunk; `None` if the stream ends within it.
    pub(crate) async fn chunk(&mut self) -> Option<Vec<u8>> {
        let at = loop {
            if let Some(at) = self.buffer.windows(2).position(|window| window == b"\r\n") {
                break at;
            }
            if self.more().await == 0 {
                return None;
            }
        };
        let size = usize::from_str_radix(std::str::from_utf8(&self.buffer[..at]).unwrap(), 16).unwrap();
        while self.buffer.len() < at + 2 + size + 2 {
            if self.more().await == 0 {
                return None;
            }
        }
        let chunk = self.buffer[at + 2..at + 2 + size].to_vec();
        self.buffer.drain(..at + 2 + size + 2);
        Some(chunk)
    }

    /// Reads what comes next, raw.
    pub(crate) async fn raw(&mut self, length: usize) -> Vec<u8> {
        while self.buffer.len() < length {
            assert_ne!(timeout(PATIENCE, self.more()).await.unwrap(), 0, "the connection ended");
        }
        let rest = self.buffer.split_off(length);
        std::mem::replace(&mut self.buffer, rest)
    }

    /// Whatever has come or comes next; nothing if the connection ended.
    pub(crate) async fn take(&mut self) -> Vec<u8> {
        if self.buffer.is_empty() {
            self.more().await;
        }
        self.buffer.split_off(0)
    }

    /// Whether the other side has closed, without a further byte.
    pub(crate) async fn is_closed(&mut self) -> bool {
        self.buffer.is_empty() && timeout(PATIENCE, self.more()).await.expect("closed in time") == 0
    }

    async fn more(&mut self) -> usize {
        timeout(PATIENCE, self.stream.read_buf(&mut self.buffer))
            .await
            .expect("bytes, or the end, in time")
            .unwrap_or(0)
    }
}

const PATIENCE: Duration = Duration::from_secs(20);
