//! The request head: line by line, then as a whole.

use bytes::{Buf as _, BytesMut};

use super::{Limits, field, is_token_byte};
use crate::listener::Violation;

/// How the body of a request is framed; there is no third way (S-001).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// No body.
    None,
    /// Content-Length.
    Length(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
}

/// A head as far as it has been read.
#[derive(Debug)]
pub(super) struct HeadReader {
    /// Sound lines with their ends, and what is there of the next one.
    head: BytesMut,
    /// Where that one begins.
    line: usize,
    seen: Seen,
}

/// What the lines have said.
#[derive(Debug, Default)]
struct Seen {
    http_1_0: bool,
    request_line: bool,
    fields: usize,
    hosts: usize,
    length: Option<u64>,
    chunked: bool,
}

/// Few heads are larger.
const USUAL: usize = 2048;

impl HeadReader {
    pub(super) fn new() -> Self {
        Self { head: BytesMut::new(), line: 0, seen: Seen::default() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.head.is_empty()
    }

    /// Reads up to the end of the head; gives it with its framing once it is complete.
    pub(super) fn advance(
        &mut self,
        input: &mut BytesMut,
        limits: &Limits,
    ) -> Result<Option<(BytesMut, Framing)>, Violation> {
        // Most heads come in one piece, and so their room is made once; what is more may be a body.
        self.head.reserve(input.len().min(USUAL));
        while !input.is_empty() {
            if !self.take_line(input, limits)? {
                return Ok(None);
            }
            let ended = self.head.get(self.line..).and_then(|line| line.strip_suffix(b"\r\n"));
            let line = ended.ok_or(if self.seen.request_line { Violation::Field } else { Violation::RequestLine })?;
            if !self.seen.request_line {
                self.seen.request_line(line, limits)?;
            } else if line.is_empty() {
                return Ok(Some((self.head.split(), self.seen.framing()?)));
            } else {
                self.seen.field(line, limits)?;
            }
            self.line = self.head.len();
        }
        Ok(None)
    }

    /// Whether the line is complete with what could be taken.
    fn take_line(&mut self, input: &mut BytesMut, limits: &Limits) -> Result<bool, Violation> {
        let (longest, too_long) = if self.seen.request_line {
            (limits.field, Violation::HeadTooLarge)
        } else {
            (limits.target.saturating_add(LONGEST_METHOD_AND_VERSION), Violation::TargetTooLong)
        };
        let left = limits.head.saturating_sub(self.line);
        let too_long = if left < longest { Violation::HeadTooLarge } else { too_long };
        let end = memchr::memchr(b'\n', input);
        let take = end.map_or(input.len(), |at| at + 1);
        if self.head.len() - self.line + take > longest.min(left).saturating_add(CRLF) {
            return Err(too_long);
        }
        self.head.extend_from_slice(input.get(..take).unwrap_or_default());
        input.advance(take);
        Ok(end.is_some())
    }
}

impl Seen {
    fn request_line(&mut self, line: &[u8], limits: &Limits) -> Result<(), Violation> {
        self.request_line = true;
        let mut tokens = line.split(|byte| *byte == b' ');
        let (Some(method), Some(target), Some(version), None) =
            (tokens.next(), tokens.next(), tokens.next(), tokens.next())
        else {
            return Err(Violation::RequestLine);
        };
        self.http_1_0 = version == b"HTTP/1.0";
        if !self.http_1_0 && version != b"HTTP/1.1" || method.is_empty() || !method.iter().copied().all(is_token_byte) {
            return Err(Violation::RequestLine);
        }
        if target.len() > limits.target {
            return Err(Violation::TargetTooLong);
        }
        // Without a way out half-way: that is many bytes at a time.
        let sound = target.iter().fold(true, |sound, byte| sound & matches!(byte, 0x21..=0x7e) & (*byte != b'#'));
        if target.is_empty() || !sound { Err(Violation::Target) } else { Ok(()) }
    }

    fn field(&mut self, line: &[u8], limits: &Limits) -> Result<(), Violation> {
        let (name, value) = field(line).ok_or(Violation::Field)?;
        self.fields += 1;
        if self.fields > limits.fields {
            return Err(Violation::HeadTooLarge);
        }
        if name.eq_ignore_ascii_case(b"host") {
            self.hosts += 1;
        } else if name.eq_ignore_ascii_case(b"content-length") {
            let first = self.length.is_none();
            self.length = Some(content_length(value).filter(|_| first).ok_or(Violation::ContentLength)?);
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
                return Err(Violation::TransferEncoding);
            }
            self.chunked = true;
        }
        Ok(())
    }

    const fn framing(&self) -> Result<Framing, Violation> {
        match (self.length, self.chunked) {
            _ if self.hosts > 1 => Err(Violation::Host),
            (Some(_), true) => Err(Violation::TwoFramings),
            (None, true) if self.http_1_0 => Err(Violation::TransferEncoding),
            (None, true) => Ok(Framing::Chunked),
            (Some(length), false) => Ok(Framing::Length(length)),
            (None, false) => Ok(Framing::None),
        }
    }
}

/// 1 to 18 digits (S-004), so that it fits whatever reads it after us.
fn content_length(value: &[u8]) -> Option<u64> {
    if !(1..=18).contains(&value.len()) {
        return None;
    }
    value.iter().try_fold(0_u64, |sum, byte| {
        byte.is_ascii_digit().then(|| sum.saturating_mul(10).saturating_add(u64::from(byte - b'0')))
    })
}

/// What a request line may hold besides its target.
const LONGEST_METHOD_AND_VERSION: usize = 64;
/// The end of a line.
const CRLF: usize = 2;
