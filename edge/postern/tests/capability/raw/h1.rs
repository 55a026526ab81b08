//! A client of HTTP/1 that writes what it is told to, and reads answers strictly.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

use super::bytes::{latin1, text};
use super::got::Got;

/// How long an answer may take: generous, for a busy machine.
const DEADLINE: Duration = Duration::from_secs(10);

/// One connection.
#[derive(Debug)]
pub(super) struct Client {
    stream: TlsStream<TcpStream>,
    pending: Vec<u8>,
    over: bool,
}

impl Client {
    pub(super) const fn new(stream: TlsStream<TcpStream>) -> Self {
        Self { stream, pending: Vec::new(), over: false }
    }

    /// Writes bytes at once. That the other side has closed shows when its answer is read.
    pub(super) async fn send(&mut self, bytes: &str) {
        let _closed = self.stream.write_all(&latin1(bytes)).await;
        let _closed = self.stream.flush().await;
    }

    /// Ends our half.
    pub(super) async fn half_close(&mut self) {
        let _closed = self.stream.shutdown().await;
    }

    /// The next answer that is not interim; [`None`]: the connection ended instead.
    pub(super) async fn answer(&mut self, head_only: bool) -> Result<Option<Got>> {
        loop {
            let Some(head) = self.until(b"\r\n\r\n").await? else { return Ok(None) };
            let mut got = read_head(&text(&head))?;
            if got.status / 100 == 1 && got.status != 101 {
                continue;
            }
            self.body(&mut got, head_only).await?;
            return Ok(Some(got));
        }
    }

    /// Reads what is left: whether the connection ended, and what came before that.
    pub(super) async fn end(&mut self) -> Result<(bool, String)> {
        while self.more().await? {}
        Ok((true, text(&self.pending)))
    }

    /// That many bytes, or what there is of them.
    pub(super) async fn bytes(&mut self, length: usize) -> Result<String> {
        while self.pending.len() < length && self.more().await? {}
        let taken: Vec<u8> = self.pending.drain(..length.min(self.pending.len())).collect();
        Ok(text(&taken))
    }

    async fn body(&mut self, got: &mut Got, head_only: bool) -> Result<()> {
        if head_only || matches!(got.status, 101 | 204 | 304) {
            return Ok(());
        }
        let (lengths, codings) = (got.values("content-length"), got.values("transfer-encoding"));
        ensure!(lengths.len() + codings.len() <= 1, "an answer is framed twice: {got:?}");
        if let Some(length) = lengths.first() {
            let length = length.parse().with_context(|| format!("{got:?}"))?;
            got.body = self.bytes(length).await?;
            got.short = got.body.len() < length;
        } else if codings.is_empty() {
            got.body = self.bytes(usize::MAX).await?;
        } else {
            got.short = !self.chunks(&mut got.body).await?;
        }
        Ok(())
    }

    /// Whether the chunks came to their end.
    async fn chunks(&mut self, body: &mut String) -> Result<bool> {
        loop {
            let Some(line) = self.until(b"\r\n").await? else { return Ok(false) };
            let line = text(&line);
            let size = usize::from_str_radix(line.trim_end(), 16).with_context(|| format!("chunk size {line:?}"))?;
            *body += &self.bytes(size).await?;
            let Some(end) = self.until(b"\r\n").await? else { return Ok(false) };
            ensure!(end == b"\r\n", "no end of a chunk: {:?}", text(&end));
            if size == 0 {
                return Ok(true);
            }
        }
    }

    /// What comes up to and with these bytes.
    async fn until(&mut self, end: &[u8]) -> Result<Option<Vec<u8>>> {
        loop {
            if let Some(at) = self.pending.windows(end.len()).position(|window| window == end) {
                return Ok(Some(self.pending.drain(..at + end.len()).collect()));
            }
            if !self.more().await? {
                return Ok(None);
            }
        }
    }

    /// Reads on; whether something came. Only silence is an error.
    async fn more(&mut self) -> Result<bool> {
        if self.over {
            return Ok(false);
        }
        let mut piece = vec![0; 16 * 1024];
        let read = timeout(DEADLINE, self.stream.read(&mut piece)).await;
        let read = read.with_context(|| format!("neither answer nor end came after {:?}", text(&self.pending)))?;
        // An end without TLS's farewell is one too.
        let read = read.unwrap_or(0);
        self.over = read == 0;
        self.pending.extend(piece.iter().take(read));
        Ok(!self.over)
    }
}

fn read_head(head: &str) -> Result<Got> {
    let mut lines = head.trim_end_matches("\r\n").split("\r\n");
    let line = lines.next().unwrap_or_default();
    let status = line
        .strip_prefix("HTTP/1.1 ")
        .or_else(|| line.strip_prefix("HTTP/1.0 "))
        .and_then(|rest| rest.get(..3))
        .and_then(|status| status.parse().ok());
    let status = status.with_context(|| format!("no status line: {line:?}"))?;
    let mut got = Got { status, ..Got::default() };
    for line in lines {
        let (name, value) = line.split_once(':').with_context(|| format!("no field: {line:?}"))?;
        got.fields.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    Ok(got)
}
