//! The request head: line by line, then as a whole.

use bytes::BytesMut;

use super::{Limits, LineError, field, is_token_byte, take_line};
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
    /// Complete, sound lines with their ends.
    head: BytesMut,
    /// The line that is not complete yet.
    line: BytesMut,
    http_1_0: bool,
    request_line_seen: bool,
    fields: usize,
    hosts: usize,
    length: Option<u64>,
    chunked: bool,
}

impl HeadReader {
    pub(super) fn new() -> Self {
        Self {
            head: BytesMut::new(),
            line: BytesMut::new(),
            http_1_0: false,
            request_line_seen: false,
            fields: 0,
            hosts: 0,
            length: None,
            chunked: false,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.head.is_empty() && self.line.is_empty()
    }

    /// Reads up to the end of the head; gives it with its framing once it is complete.
    pub(super) fn advance(
        &mut self,
        input: &mut BytesMut,
        limits: &Limits,
    ) -> Result<Option<(BytesMut, Framing)>, Violation> {
        while !input.is_empty() {
            if !self.take_line(input, limits)? {
                return Ok(None);
            }
            let line = self.line.split();
            self.head.extend_from_slice(&line);
            self.head.extend_from_slice(b"\r\n");
            if !self.request_line_seen {
                self.request_line(&line, limits)?;
            } else if line.is_empty() {
                return Ok(Some((self.head.split(), self.framing()?)));
            } else {
                self.field(&line, limits)?;
            }
        }
        Ok(None)
    }

    fn take_line(&mut self, input: &mut BytesMut, limits: &Limits) -> Result<bool, Violation> {
        let (longest, too_long) = if self.request_line_seen {
            (limits.field, Violation::HeadTooLarge)
        } else {
            (limits.target.saturating_add(LONGEST_METHOD_AND_VERSION), Violation::TargetTooLong)
        };
        let left = limits.head.saturating_sub(self.head.len());
        let too_long = if left < longest { Violation::HeadTooLarge } else { too_long };
        take_line(input, &mut self.line, longest.min(left)).map_err(|error| match error {
            LineError::TooLong => too_long,
            LineError::BareLf if self.request_line_seen => Violation::Field,
            LineError::BareLf => Violation::RequestLine,
        })
    }

    fn request_line(&mut self, line: &[u8], limits: &Limits) -> Result<(), Violation> {
        self.request_line_seen = true;
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
        let sound = |byte: &u8| matches!(byte, 0x21..=0x7e) && *byte != b'#';
        if target.is_empty() || !target.iter().all(sound) { Err(Violation::Target) } else { Ok(()) }
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
