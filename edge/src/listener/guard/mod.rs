//! Reads the bytes of HTTP/1 requests before Pingora does, and lets through only what has one meaning (S-002 to S-008).
//!
//! A pure state machine: bytes in, bytes out, no clock, no socket. How the input is cut into pieces never changes the result.
//! A head is held back until it is complete and sound. A body passes as it comes, counted; chunk headers are written anew
//! without their extensions, and trailers are dropped (S-011).

mod chunk;
mod head;

use bytes::{Buf as _, BytesMut};

use self::chunk::ChunkReader;
use self::head::{Framing, HeadReader};
use super::Violation;

/// What the head guard hands to Pingora in place of a head that broke a rule. The request it stands for is answered from
/// [`Connection::violation`](super::Connection::violation) and reaches no route.
pub(crate) const SYNTHETIC_HEAD: &[u8] = b"GET / HTTP/1.1\r\nHost: invalid.invalid\r\nConnection: close\r\n\r\n";

/// How large the parts of a request may be (03 §2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// A whole head, in bytes.
    pub head: usize,
    /// One field line, in bytes.
    pub field: usize,
    /// Number of fields.
    pub fields: usize,
    /// The request target, in bytes.
    pub target: usize,
    /// The extensions of one chunk, in bytes.
    pub chunk_extension: usize,
    /// All chunk extensions of a message, in bytes.
    pub chunk_extensions: usize,
    /// All trailers, in bytes.
    pub trailers: usize,
}

impl Limits {
    /// The values of 03 §2.
    pub const DEFAULT: Self = Self {
        head: 64 * 1024,
        field: 32 * 1024,
        fields: 200,
        target: 16 * 1024,
        chunk_extension: 256,
        chunk_extensions: 16 * 1024,
        trailers: 8 * 1024,
    };
}

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// Where a connection stands between two requests.
#[derive(Debug)]
pub(crate) struct Guard {
    limits: Limits,
    state: State,
}

#[derive(Debug)]
enum State {
    Head(HeadReader),
    Length(u64),
    Chunked(ChunkReader),
    Complete,
    Broken,
}

/// What a connection waits for, as far as its clocks are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waiting {
    /// The first byte of a head.
    Request,
    /// The rest of a head.
    Head,
    /// The rest of a body.
    Body,
    /// Nothing: the message is complete, or broken.
    Nothing,
}

impl Guard {
    pub(crate) fn new(limits: Limits) -> Self {
        Self { limits, state: State::Head(HeadReader::new()) }
    }

    /// Takes bytes from `input` and appends to `out` what may pass. Stops at the end of a message: what is left in `input`
    /// belongs to the next one.
    ///
    /// # Errors
    /// The rule that was broken; nothing passes any more.
    pub(crate) fn advance(&mut self, input: &mut BytesMut, out: &mut BytesMut) -> Result<(), Violation> {
        while !input.is_empty() && !matches!(self.state, State::Complete | State::Broken) {
            match self.step(input, out) {
                Ok(None) => {}
                Ok(Some(next)) => self.state = next,
                Err(violation) => {
                    self.state = State::Broken;
                    return Err(violation);
                }
            }
        }
        Ok(())
    }

    fn step(&mut self, input: &mut BytesMut, out: &mut BytesMut) -> Result<Option<State>, Violation> {
        Ok(match &mut self.state {
            State::Head(reader) => reader.advance(input, &self.limits)?.map(|(head, framing)| {
                out.unsplit(head);
                match framing {
                    Framing::None | Framing::Length(0) => State::Complete,
                    Framing::Length(length) => State::Length(length),
                    Framing::Chunked => State::Chunked(ChunkReader::new()),
                }
            }),
            State::Length(left) => {
                let take = input.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                out.unsplit(input.split_to(take));
                *left = left.saturating_sub(take as u64);
                (*left == 0).then_some(State::Complete)
            }
            State::Chunked(reader) => reader.advance(input, out, &self.limits)?.then_some(State::Complete),
            State::Complete | State::Broken => None,
        })
    }

    /// How many bytes of a body of known length may still come; they may be read past [`Self::advance`] and counted with
    /// [`Self::pass`].
    pub(crate) const fn length_left(&self) -> Option<u64> {
        match self.state {
            State::Length(left) => Some(left),
            State::Head(_) | State::Chunked(_) | State::Complete | State::Broken => None,
        }
    }

    /// Counts bytes of a body of known length that passed outside of [`Self::advance`].
    pub(crate) fn pass(&mut self, bytes: u64) {
        if let State::Length(left) = &mut self.state {
            *left = left.saturating_sub(bytes);
            if *left == 0 {
                self.state = State::Complete;
            }
        }
    }

    /// Whether the current message is complete.
    pub(crate) const fn is_complete(&self) -> bool {
        matches!(self.state, State::Complete)
    }

    /// Waits for the next head; only once a message is complete, so that no byte of a body is ever read as a head (S-008).
    pub(crate) fn next_message(&mut self) {
        if self.is_complete() {
            self.state = State::Head(HeadReader::new());
        }
    }

    /// Lets nothing pass any more.
    pub(crate) fn break_off(&mut self) {
        self.state = State::Broken;
    }

    /// What the peer owes us now.
    pub(crate) fn waiting(&self) -> Waiting {
        match &self.state {
            State::Head(reader) if reader.is_empty() => Waiting::Request,
            State::Head(_) => Waiting::Head,
            State::Length(_) | State::Chunked(_) => Waiting::Body,
            State::Complete | State::Broken => Waiting::Nothing,
        }
    }
}

/// A line without its CRLF, once it is complete; [`None`] while it is not.
fn take_line(input: &mut BytesMut, line: &mut BytesMut, limit: usize) -> Result<bool, LineError> {
    let end = memchr::memchr(b'\n', input);
    let take = end.map_or(input.len(), |at| at + 1);
    let room = limit.saturating_add(2).saturating_sub(line.len());
    if take > room {
        input.advance(take);
        return Err(LineError::TooLong);
    }
    line.unsplit(input.split_to(take));
    if end.is_none() {
        return Ok(false);
    }
    if !line.ends_with(b"\r\n") {
        return Err(LineError::BareLf);
    }
    line.truncate(line.len() - 2);
    Ok(true)
}

#[derive(Clone, Copy, Debug)]
enum LineError {
    TooLong,
    BareLf,
}

/// RFC 9110 §5.6.2.
const fn is_token_byte(byte: u8) -> bool {
    matches!(
        byte,
        b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
    ) || byte.is_ascii_alphanumeric()
}

/// RFC 9110 §5.5, obs-text included.
const fn is_value_byte(byte: u8) -> bool {
    (byte == b'\t') | ((byte >= 0x20) & (byte != 0x7f))
}

/// Name and trimmed value of a field line; `None` if it is none.
fn field(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = memchr::memchr(b':', line)?;
    let (name, rest) = line.split_at_checked(colon)?;
    let value = rest.split_first()?.1;
    // Without a way out half-way: that is many bytes at a time.
    let sound = value.iter().fold(true, |sound, byte| sound & is_value_byte(*byte));
    let sound = sound && !name.is_empty() && name.iter().copied().all(is_token_byte);
    sound.then(|| (name, value.trim_ascii()))
}

#[cfg(test)]
mod tests;
