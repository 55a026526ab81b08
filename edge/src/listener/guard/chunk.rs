//! The chunked body: sizes, ends and trailers (S-005, S-011).

use bytes::{Buf as _, BufMut as _, BytesMut};

use super::{Limits, field, is_value_byte, take_line};
use crate::listener::Violation;

/// A chunked body as far as it has been read.
#[derive(Debug)]
pub(super) struct ChunkReader {
    state: State,
    size: u64,
    digits: usize,
    extension: usize,
    extensions: usize,
    trailers: usize,
    line: BytesMut,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Size,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    Trailers,
}

impl ChunkReader {
    pub(super) fn new() -> Self {
        Self { state: State::Size, size: 0, digits: 0, extension: 0, extensions: 0, trailers: 0, line: BytesMut::new() }
    }

    /// Reads on; whether the body is complete.
    pub(super) fn advance(
        &mut self,
        input: &mut BytesMut,
        out: &mut BytesMut,
        limits: &Limits,
    ) -> Result<bool, Violation> {
        while let Some(byte) = input.first().copied() {
            match self.state {
                State::Data => self.data(input, out),
                State::Trailers => {
                    if self.trailer(input, limits)? {
                        out.extend_from_slice(b"0\r\n\r\n");
                        return Ok(true);
                    }
                }
                State::Size | State::Extension | State::SizeLf | State::DataCr | State::DataLf => {
                    input.advance(1);
                    self.state = self.framing_byte(byte, out, limits)?;
                }
            }
        }
        Ok(false)
    }

    fn framing_byte(&mut self, byte: u8, out: &mut BytesMut, limits: &Limits) -> Result<State, Violation> {
        match (self.state, byte) {
            (State::Size, b'\r') | (State::Size, b';') if self.digits == 0 => Err(Violation::Chunk),
            (State::Size | State::Extension, b'\r') => Ok(State::SizeLf),
            (State::Size, b';') => Ok(State::Extension),
            (State::Size, _) => self.size_digit(byte),
            (State::Extension, _) => self.extension_byte(byte, limits),
            (State::SizeLf, b'\n') => Ok(self.begin_chunk(out)),
            (State::DataCr, b'\r') => Ok(State::DataLf),
            (State::DataLf, b'\n') => {
                out.extend_from_slice(b"\r\n");
                Ok(State::Size)
            }
            (State::SizeLf | State::DataCr | State::DataLf | State::Data | State::Trailers, _) => Err(Violation::Chunk),
        }
    }

    fn size_digit(&mut self, byte: u8) -> Result<State, Violation> {
        let digit = char::from(byte).to_digit(16).ok_or(Violation::Chunk)?;
        self.digits += 1;
        self.size = (self.size << 4) | u64::from(digit);
        // 16 digits never shift anything out; the top bit would not fit a signed reader.
        let fits = self.digits <= 16 && i64::try_from(self.size).is_ok();
        if fits { Ok(State::Size) } else { Err(Violation::Chunk) }
    }

    const fn extension_byte(&mut self, byte: u8, limits: &Limits) -> Result<State, Violation> {
        self.extension += 1;
        self.extensions += 1;
        let sound = is_value_byte(byte)
            && self.extension <= limits.chunk_extension
            && self.extensions <= limits.chunk_extensions;
        if sound { Ok(State::Extension) } else { Err(Violation::Chunk) }
    }

    fn begin_chunk(&mut self, out: &mut BytesMut) -> State {
        (self.digits, self.extension) = (0, 0);
        if self.size == 0 {
            return State::Trailers;
        }
        out.put_slice(format!("{:x}\r\n", self.size).as_bytes());
        State::Data
    }

    fn data(&mut self, input: &mut BytesMut, out: &mut BytesMut) {
        let take = input.len().min(usize::try_from(self.size).unwrap_or(usize::MAX));
        out.unsplit(input.split_to(take));
        self.size -= take as u64;
        if self.size == 0 {
            self.state = State::DataCr;
        }
    }

    /// Reads a trailer line and forgets it; whether it was the empty one.
    fn trailer(&mut self, input: &mut BytesMut, limits: &Limits) -> Result<bool, Violation> {
        let left = limits.trailers.saturating_sub(self.trailers);
        if !take_line(input, &mut self.line, left).map_err(|_| Violation::Chunk)? {
            return Ok(false);
        }
        let line = self.line.split();
        self.trailers += line.len() + 2;
        if line.is_empty() {
            return Ok(true);
        }
        field(&line).map(|_| false).ok_or(Violation::Chunk)
    }
}
