//! Tells the client of a WebSocket that this process leaves: one Close frame between two frames of the upstream. What
//! follows is the closing handshake of RFC 6455 §7: the client's own Close goes up, and the upstream ends the connection.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::sync::watch;

/// FIN and opcode 8, two bytes: 1001, "going away". A server's frames are not masked.
pub(crate) const GOING_AWAY: [u8; 4] = [0x88, 0x02, 0x03, 0xe9];

/// Who waits for the end of this process, and knows when a frame may be put in.
pub(crate) struct Farewell {
    leaving: Leaving,
    frames: Frames,
    said: bool,
}

/// Nothing of it is needed before a connection becomes a tunnel, which few do.
enum Leaving {
    Unasked(watch::Receiver<bool>),
    Waiting(Pin<Box<dyn Future<Output = ()> + Send + Sync>>),
    Now,
}

impl Farewell {
    /// For a process that leaves once `stop` says so.
    pub(super) fn new(stop: watch::Receiver<bool>) -> Self {
        Self { leaving: Leaving::Unasked(stop), frames: Frames::Head(0), said: false }
    }

    /// The same, for a stream on which there was no head of a 101.
    pub(crate) fn between(stop: watch::Receiver<bool>) -> Self {
        Self { frames: Frames::Between, ..Self::new(stop) }
    }

    /// These bytes went down, from the head of the 101 on.
    pub(crate) fn passed(&mut self, bytes: &[u8]) {
        self.frames.pass(bytes);
    }

    /// It was said: nothing may follow.
    pub(crate) const fn is_said(&self) -> bool {
        self.said
    }

    /// Whether it is to be said now; only once. If it is too early, the task is woken later.
    pub(crate) fn is_due(&mut self, cx: &mut Context<'_>) -> bool {
        let due = !self.said && self.leaving.poll(cx).is_ready() && matches!(self.frames, Frames::Between);
        self.said |= due;
        due
    }
}

impl Leaving {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Self::Unasked(stop) = self {
            let mut stop = stop.clone();
            // Whoever could say it is gone: that means the same.
            *self = Self::Waiting(Box::pin(async move { drop(stop.wait_for(|stop| *stop).await) }));
        }
        if let Self::Waiting(wait) = self {
            std::task::ready!(wait.as_mut().poll(cx));
            *self = Self::Now;
        }
        Poll::Ready(())
    }
}

/// Where in the upstream's bytes we are, as far as it takes to find the ends of frames (RFC 6455 §5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Frames {
    /// In the head of the 101; so many bytes of the blank line at its end have passed.
    Head(u8),
    /// Between two frames.
    Between,
    /// After the first byte of a frame.
    Opened,
    /// In its extended length: so many bytes of it are to come.
    Length { left: u8, length: u64, masked: bool },
    /// In its mask and payload: so many bytes are to come.
    Payload(u64),
    /// The upstream has said Close itself.
    Over,
}

impl Frames {
    fn pass(&mut self, mut bytes: &[u8]) {
        while let Some((byte, rest)) = bytes.split_first() {
            if let Self::Payload(left) = self {
                let take = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                *self = Self::payload(left.saturating_sub(take as u64), false);
                bytes = bytes.get(take..).unwrap_or_default();
            } else {
                *self = self.after(*byte);
                bytes = rest;
            }
        }
    }

    fn after(self, byte: u8) -> Self {
        match self {
            Self::Head(seen) => match (seen, byte) {
                (3, b'\n') => Self::Between,
                (1, b'\n') => Self::Head(2),
                (2, b'\r') => Self::Head(3),
                (_, b'\r') => Self::Head(1),
                _ => Self::Head(0),
            },
            Self::Between if byte & 0x0f == 0x08 => Self::Over,
            Self::Between => Self::Opened,
            Self::Opened => {
                let masked = byte & 0x80 != 0;
                match byte & 0x7f {
                    126 => Self::Length { left: 2, length: 0, masked },
                    127 => Self::Length { left: 8, length: 0, masked },
                    length => Self::payload(length.into(), masked),
                }
            }
            Self::Length { left, length, masked } => {
                let length = length << 8 | u64::from(byte);
                if left > 1 { Self::Length { left: left - 1, length, masked } } else { Self::payload(length, masked) }
            }
            Self::Payload(_) | Self::Over => self,
        }
    }

    const fn payload(length: u64, masked: bool) -> Self {
        match length.saturating_add(if masked { 4 } else { 0 }) {
            0 => Self::Between,
            left => Self::Payload(left),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEAD: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n";

    fn after(bytes: &[u8]) -> Frames {
        let mut frames = Frames::Head(0);
        frames.pass(HEAD);
        frames.pass(bytes);
        frames
    }

    #[test]
    fn the_head_of_the_101_is_no_frame() {
        let mut frames = Frames::Head(0);
        for byte in HEAD {
            assert_ne!(frames, Frames::Between);
            frames.pass(&[*byte]);
        }
        assert_eq!(frames, Frames::Between);
    }

    #[test]
    fn after_a_close_of_the_upstream_there_is_no_between_any_more() {
        assert_eq!(after(&[0x88, 0]), Frames::Over);
        assert_eq!(after(&[0x81, 1, b'x', 0x88, 2, 3, 0xe8, 0x81, 0]), Frames::Over);
    }

    fn frame() -> impl Strategy<Value = Vec<u8>> {
        let sizes = prop_oneof![0_usize..4, Just(125), Just(126), 65_530_usize..65_540];
        let opcode = prop_oneof![Just(0x81_u8), Just(0x02), Just(0x00), Just(0x89), Just(0xc2)];
        (opcode, sizes, any::<bool>()).prop_map(|(opcode, size, masked)| {
            let mask = if masked { 0x80 } else { 0 };
            let mut frame = vec![opcode];
            match size {
                0..126 => frame.push(mask | u8::try_from(size).unwrap()),
                126..65_536 => {
                    frame.push(mask | 126);
                    frame.extend(u16::try_from(size).unwrap().to_be_bytes());
                }
                _ => {
                    frame.push(mask | 127);
                    frame.extend((size as u64).to_be_bytes());
                }
            }
            frame.resize(frame.len() + size + if masked { 4 } else { 0 }, 0x88);
            frame
        })
    }

    proptest! {
        #[test]
        fn r_033_between_is_after_every_whole_frame_and_nowhere_else(
            frames in prop::collection::vec(frame(), 1..5),
            cut in any::<prop::sample::Index>(),
        ) {
            let all = frames.concat();
            let at = cut.index(all.len());
            let ends: Vec<usize> = frames.iter().scan(0, |end, frame| { *end += frame.len(); Some(*end) }).collect();
            prop_assert_eq!(after(&all[..at]) == Frames::Between, at == 0 || ends.contains(&at));
            let mut pieces = after(&all[..at]);
            pieces.pass(&all[at..]);
            prop_assert_eq!(pieces, Frames::Between);
        }
    }
}
