//! A client of HTTP/2 that sends frames no library would: the `h2` crate keeps up the connection and reads the answers,
//! and what it would send of a request is replaced on its way by what a case has in its place.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use axum::body::Bytes;
use h2::client::SendRequest;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf, duplex, split};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

use super::bytes::{latin1, text};
use super::got::Got;
use super::wire::{CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, head, string};

const DEADLINE: Duration = Duration::from_secs(10);

/// What stands in place of one request.
#[derive(Debug, Clone, Default)]
pub(super) struct Frames {
    /// All fields in order, pseudo fields too.
    pub(super) fields: Vec<(String, String)>,
    /// In how many frames they come.
    pub(super) pieces: usize,
    /// DATA frames; [`None`]: the fields end the stream.
    pub(super) data: Option<Vec<String>>,
    pub(super) trailers: Option<Vec<(String, String)>>,
    /// Nothing says that this is the end.
    pub(super) open: bool,
}

type Queue = Arc<Mutex<VecDeque<Frames>>>;

/// One connection.
#[derive(Debug)]
pub(super) struct Client {
    send: SendRequest<Bytes>,
    queue: Queue,
    _tasks: JoinSet<()>,
}

impl Client {
    pub(super) async fn new(stream: TlsStream<TcpStream>) -> Result<Self> {
        let (ours, theirs) = duplex(64 * 1024);
        let (queue, mut tasks) = (Queue::default(), JoinSet::new());
        let ((from_edge, to_edge), (from_client, to_client)) = (split(stream), split(theirs));
        tasks.spawn(forward(from_edge, to_client));
        tasks.spawn(replace(from_client, to_edge, Arc::clone(&queue)));
        let (send, connection) = h2::client::handshake(ours).await?;
        tasks.spawn(async move {
            let _over = connection.await;
        });
        Ok(Self { send, queue, _tasks: tasks })
    }

    /// The answer to these frames; [`None`]: a stream or connection error came instead.
    pub(super) async fn ask(&mut self, frames: Frames) -> Result<Option<Got>> {
        let method = frames.fields.iter().find(|(name, _)| name == ":method").map_or("GET", |(_, method)| method);
        // What the library thinks that it has asked decides how it reads the answer.
        let placeholder = http::Request::builder().method(if method == "HEAD" { "HEAD" } else { "GET" });
        let placeholder = placeholder.uri("https://placeholder.invalid/").body(())?;
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).push_back(frames);
        timeout(DEADLINE, self.exchange(placeholder)).await.context("neither answer nor error came")
    }

    async fn exchange(&mut self, placeholder: http::Request<()>) -> Option<Got> {
        let mut send = self.send.clone().ready().await.ok()?;
        let (answer, _) = send.send_request(placeholder, true).ok()?;
        let (head, mut body) = answer.await.ok()?.into_parts();
        let field = |(name, value): (&http::HeaderName, &http::HeaderValue)| (name.to_string(), text(value.as_bytes()));
        let mut got =
            Got { status: head.status.as_u16(), fields: head.headers.iter().map(field).collect(), ..Got::default() };
        while let Some(piece) = body.data().await {
            let Ok(piece) = piece else {
                got.short = true;
                return Some(got);
            };
            let _open = body.flow_control().release_capacity(piece.len());
            got.body += &text(&piece);
        }
        Some(got)
    }
}

async fn forward(mut from: ReadHalf<TlsStream<TcpStream>>, mut to: WriteHalf<DuplexStream>) {
    let _over = tokio::io::copy(&mut from, &mut to).await;
    let _over = to.shutdown().await;
}

/// Passes the client's frames on, but for HEADERS: those are the next of the queue.
async fn replace(mut from: ReadHalf<DuplexStream>, mut to: WriteHalf<TlsStream<TcpStream>>, queue: Queue) {
    let mut preface = [0; 24];
    if from.read_exact(&mut preface).await.is_err() || to.write_all(&preface).await.is_err() {
        return;
    }
    let mut header = [0; 9];
    while from.read_exact(&mut header).await.is_ok() {
        let [high, middle, low, kind, _, stream @ ..] = header;
        let mut frame = header.to_vec();
        let length = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
        frame.resize(header.len() + length, 0);
        let payload = frame.get_mut(header.len()..).unwrap_or_default();
        if from.read_exact(payload).await.is_err() {
            return;
        }
        let own = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let replaced = if kind == HEADERS { own().map(|frames| frames.bytes(stream)) } else { None };
        if to.write_all(&replaced.unwrap_or(frame)).await.is_err() || to.flush().await.is_err() {
            return;
        }
    }
}

/// What every peer takes (RFC 9113 §4.2).
const MAX_FRAME: usize = 16 * 1024;

impl Frames {
    fn bytes(&self, stream: [u8; 4]) -> Vec<u8> {
        let ends = |last: bool| if last && !self.open { END_STREAM } else { 0 };
        let nothing_follows = self.data.is_none() && self.trailers.is_none();
        let mut out = Vec::new();
        section(&mut out, &self.fields, self.pieces.max(1), (ends(nothing_follows), stream));
        let data = self.data.as_deref().unwrap_or_default();
        for (index, piece) in data.iter().enumerate() {
            let flags = ends(index + 1 == data.len() && self.trailers.is_none());
            frame(&mut out, (DATA, flags, stream), &latin1(piece));
        }
        if let Some(trailers) = &self.trailers {
            section(&mut out, trailers, 1, (ends(true), stream));
        }
        out
    }
}

/// A field section: HEADERS, and CONTINUATION if it is to come in pieces.
fn section(out: &mut Vec<u8>, fields: &[(String, String)], pieces: usize, (flags, stream): (u8, [u8; 4])) {
    let mut block = Vec::new();
    for (name, value) in fields {
        // A literal without indexing, its name new, nothing compressed (RFC 7541 §6.2.2).
        block.push(0);
        string(&mut block, &latin1(name));
        string(&mut block, &latin1(value));
    }
    let size = block.len().div_ceil(pieces).clamp(1, MAX_FRAME);
    let count = block.chunks(size).count();
    for (index, piece) in block.chunks(size).enumerate() {
        let end = if index + 1 == count { END_HEADERS } else { 0 };
        let (kind, flags) = if index == 0 { (HEADERS, flags | end) } else { (CONTINUATION, end) };
        frame(out, (kind, flags, stream), piece);
    }
}

fn frame(out: &mut Vec<u8>, kind: (u8, u8, [u8; 4]), payload: &[u8]) {
    head(out, payload.len(), kind);
    out.extend(payload);
}
