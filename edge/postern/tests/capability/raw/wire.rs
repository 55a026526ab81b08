//! HTTP/2 as it is on the wire: frames as bytes, and a client with nothing between it and the socket.

use std::pin::pin;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures_util::FutureExt as _;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf, split};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

use super::bytes::text;

/// How long a frame may take: generous, for a busy machine.
const DEADLINE: Duration = Duration::from_secs(10);

pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
pub(super) const CONTINUATION: u8 = 9;

/// Of DATA and HEADERS; the same bit is ACK in SETTINGS and PING.
pub(super) const END_STREAM: u8 = 1;
pub(super) const ACK: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;

/// The error codes of RFC 9113 §7, by their number.
const CODES: &[&str] = &[
    "NO_ERROR",
    "PROTOCOL_ERROR",
    "INTERNAL_ERROR",
    "FLOW_CONTROL_ERROR",
    "SETTINGS_TIMEOUT",
    "STREAM_CLOSED",
    "FRAME_SIZE_ERROR",
    "REFUSED_STREAM",
    "CANCEL",
    "COMPRESSION_ERROR",
    "CONNECT_ERROR",
    "ENHANCE_YOUR_CALM",
    "INADEQUATE_SECURITY",
    "HTTP_1_1_REQUIRED",
];

/// One frame. What is read is well formed; what is sent need not be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) kind: u8,
    pub(super) flags: u8,
    /// With the reserved bit in front.
    pub(super) stream: u32,
    pub(super) payload: Vec<u8>,
    /// What its head says in place of the length of the payload.
    pub(super) length: Option<usize>,
}

impl Frame {
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let length = self.length.unwrap_or(self.payload.len());
        head(&mut out, length, (self.kind, self.flags, self.stream.to_be_bytes()));
        out.extend(&self.payload);
        out
    }

    pub(super) const fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// The error code of RST_STREAM and GOAWAY, by its name.
    pub(super) fn code(&self) -> String {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        let code =
            self.payload.get(at..at + 4).and_then(|code| code.try_into().ok()).map_or(u32::MAX, u32::from_be_bytes);
        let name = usize::try_from(code).ok().and_then(|code| CODES.get(code));
        name.map_or_else(|| format!("{code:#x}"), |name| (*name).to_owned())
    }

    /// The status of an answer's head. Whoever asks keeps the edge from a dynamic table: `:status` stands for itself.
    pub(super) fn status(&self) -> Option<u16> {
        // Updates of the table's size come first (RFC 7541 §6.3).
        let block = self.payload.iter().position(|byte| byte & 0xe0 != 0x20).and_then(|at| self.payload.get(at..))?;
        let (first, rest) = block.split_first()?;
        match first {
            0x88..=0x8e => [200, 204, 206, 304, 400, 404, 500].get(usize::from(first - 0x88)).copied(),
            // `:status` and a value that is not in the static table, however it is to be indexed.
            0x48 | 0x08 | 0x18 => {
                let (length, value) = rest.split_first()?;
                let value = value.get(..usize::from(length & 0x7f))?;
                let digits = if length & 0x80 == 0 { text(value) } else { digits(value)? };
                digits.parse().ok()
            }
            _ => None,
        }
    }
}

/// Three digits in the code of RFC 7541 Appendix B.
fn digits(coded: &[u8]) -> Option<String> {
    let bits: String = coded.iter().map(|byte| format!("{byte:08b}")).collect();
    let (mut rest, mut digits) = (bits.as_str(), String::new());
    while digits.len() < 3 {
        let (digit, code) = DIGITS.iter().find(|(_, code)| rest.starts_with(code))?;
        digits.push(*digit);
        rest = rest.get(code.len()..)?;
    }
    Some(digits)
}

const DIGITS: &[(char, &str)] = &[
    ('0', "00000"),
    ('1', "00001"),
    ('2', "00010"),
    ('3', "011001"),
    ('4', "011010"),
    ('5', "011011"),
    ('6', "011100"),
    ('7', "011101"),
    ('8', "011110"),
    ('9', "011111"),
];

/// The nine bytes in front of a payload.
pub(super) fn head(out: &mut Vec<u8>, length: usize, (kind, flags, stream): (u8, u8, [u8; 4])) {
    let [.., high, middle, low] = length.to_be_bytes();
    out.extend([high, middle, low, kind, flags]);
    out.extend(stream);
}

/// An integer of RFC 7541 §5.1 behind a prefix of so many bits; the bits before it are those of `first`.
pub(super) fn integer(out: &mut Vec<u8>, first: u8, prefix: u32, value: usize) {
    let most = 2_usize.pow(prefix) - 1;
    let Some(mut rest) = value.checked_sub(most) else {
        out.extend(u8::try_from(value).map(|value| first | value));
        return;
    };
    out.extend(u8::try_from(most).map(|most| first | most));
    while rest >= 128 {
        out.extend(u8::try_from(rest % 128 + 128));
        rest /= 128;
    }
    out.extend(u8::try_from(rest));
}

/// A string of RFC 7541 §5.2, not compressed.
pub(super) fn string(out: &mut Vec<u8>, bytes: &[u8]) {
    integer(out, 0, 7, bytes.len());
    out.extend(bytes);
}

/// One connection.
#[derive(Debug)]
pub(super) struct Wire {
    read: ReadHalf<TlsStream<TcpStream>>,
    write: WriteHalf<TlsStream<TcpStream>>,
    pending: Vec<u8>,
}

impl Wire {
    /// Says nothing yet.
    pub(super) fn silent(stream: TlsStream<TcpStream>) -> Self {
        let (read, write) = split(stream);
        Self { read, write, pending: Vec::new() }
    }

    /// Both sides have said their SETTINGS and taken the other's. Ours: no dynamic table, so that statuses can be read.
    pub(super) async fn open(stream: TlsStream<TcpStream>) -> Result<Self> {
        let mut wire = Self::silent(stream);
        let ours = Frame { kind: SETTINGS, payload: vec![0, 1, 0, 0, 0, 0], ..Frame::default() };
        wire.send(&[PREFACE, &ours.bytes()].concat()).await;
        let (mut said, mut taken) = (false, false);
        while !(said && taken) {
            let frame = wire.next().await?.context("the connection ended in place of SETTINGS")?;
            if frame.kind != SETTINGS {
                continue;
            }
            if frame.has(ACK) {
                taken = true;
            } else {
                said = true;
                wire.send(&Frame { kind: SETTINGS, flags: ACK, ..Frame::default() }.bytes()).await;
            }
        }
        Ok(wire)
    }

    /// Writes bytes, and meanwhile reads: a side that is flooded with answers must not wait for us. That the other side has
    /// closed shows when its frames are read.
    pub(super) async fn send(&mut self, bytes: &[u8]) {
        let Self { read, write, pending } = self;
        let mut written = pin!(async {
            let _closed = write.write_all(bytes).await;
            let _closed = write.flush().await;
        });
        let mut piece = vec![0; 16 * 1024];
        loop {
            tokio::select! {
                () = &mut written => return,
                read = read.read(&mut piece) => match read {
                    Ok(read @ 1..) => pending.extend(piece.iter().take(read)),
                    Ok(0) | Err(_) => return,
                },
            }
        }
    }

    /// Whether the edge has ended the connection, or a stream of it, as far as that shows without waiting. What has come is read.
    pub(super) fn is_cut(&mut self) -> bool {
        let mut piece = vec![0; 16 * 1024];
        let ended = loop {
            match self.read.read(&mut piece).now_or_never() {
                Some(Ok(read @ 1..)) => self.pending.extend(piece.iter().take(read)),
                Some(Ok(0) | Err(_)) => break true,
                None => break false,
            }
        };
        let ends = |frame: Frame| match frame.kind {
            RST_STREAM | GOAWAY => true,
            kind => matches!(kind, HEADERS | DATA) && frame.has(END_STREAM),
        };
        ended || std::iter::from_fn(|| self.take()).any(ends)
    }

    /// The next frame; [`None`]: the connection ended.
    pub(super) async fn next(&mut self) -> Result<Option<Frame>> {
        timeout(DEADLINE, self.frame()).await.context("neither a frame nor the end came")
    }

    async fn frame(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.take() {
                return Some(frame);
            }
            let mut piece = vec![0; 16 * 1024];
            match self.read.read(&mut piece).await {
                Ok(read @ 1..) => self.pending.extend(piece.iter().take(read)),
                Ok(0) | Err(_) => return None,
            }
        }
    }

    fn take(&mut self) -> Option<Frame> {
        let head: [u8; 9] = self.pending.get(..9)?.try_into().ok()?;
        let [high, middle, low, kind, flags, stream @ ..] = head;
        let end = 9 + (usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low));
        let payload = self.pending.get(9..end)?.to_vec();
        self.pending.drain(..end);
        Some(Frame { kind, flags, stream: u32::from_be_bytes(stream), payload, length: None })
    }

    /// Reads to the end of the connection, which must come.
    pub(super) async fn ends(&mut self) -> Result<()> {
        while self.next().await?.is_some() {}
        Ok(())
    }

    /// Asks for a path on a stream of its own, and reads whatever comes until the answer to it is whole: its status.
    pub(super) async fn ask(&mut self, stream: u32, bytes: &[u8]) -> Result<u16> {
        self.send(bytes).await;
        let mut status = None;
        while let Some(frame) = self.next().await? {
            match frame.kind {
                HEADERS if frame.stream == stream => status = frame.status(),
                RST_STREAM if frame.stream == stream => bail!("the stream was reset: {}", frame.code()),
                GOAWAY => bail!("the connection was given up: {}", frame.code()),
                _ => {}
            }
            if frame.stream == stream && matches!(frame.kind, DATA | HEADERS) && frame.has(END_STREAM) {
                return status.context("no status");
            }
        }
        bail!("the connection ended in place of an answer")
    }
}
