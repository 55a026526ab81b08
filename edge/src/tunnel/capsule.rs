//! The capsules in which datagrams travel on a stream (RFC 9297 §3): `DATAGRAM` with context 0, which is UDP payload (RFC 9298
//! §5). What else may come is passed over, and what may not come ends the stream.

use std::ops::Range;

/// Finds the payloads in the bytes of a client. It keeps no bytes: of a capsule that is passed over nothing has to be there at once.
#[derive(Debug, Default)]
pub(super) struct Capsules {
    /// So much of a capsule that nobody wants is still to come.
    skip: u64,
}

/// What the next bytes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// More have to be there to say so, with those that are: at least so many, which is never more than [`MOST`].
    Wants(usize),
    /// So many are nothing for us.
    Pass(usize),
    /// At this place the payload of a datagram, at whose end the next capsule begins.
    Payload(Range<usize>),
}

/// What comes is no capsule, or a datagram that is larger than UDP has any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

impl Capsules {
    /// What is at the beginning of `bytes`, which is where the one before ended.
    ///
    /// # Errors
    /// [`Malformed`], and nothing that follows means anything.
    pub(super) fn next(&mut self, bytes: &[u8]) -> Result<Next, Malformed> {
        if self.skip > 0 && !bytes.is_empty() {
            let take = usize::try_from(self.skip).unwrap_or(usize::MAX).min(bytes.len());
            self.skip -= take as u64;
            return Ok(Next::Pass(take));
        }
        let mut reader = Reader { bytes, at: 0 };
        let Some((kind, length)) = reader.integer().and_then(|kind| Some((kind, reader.integer()?))) else {
            return Ok(Next::Wants(reader.wanted()));
        };
        if kind != DATAGRAM {
            return Ok(self.pass(reader.at, length));
        }
        let header = reader.at;
        // The context is a part of the capsule, and may not be longer than it.
        let shortest = bytes.get(header).map_or(1, |first| width(*first));
        if shortest as u64 > length {
            return Err(Malformed);
        }
        let Some(context) = reader.integer() else { return Ok(Next::Wants(reader.wanted())) };
        if context != UDP {
            return Ok(self.pass(header, length));
        }
        let payload = length - (reader.at - header) as u64;
        let payload = usize::try_from(payload).ok().filter(|payload| *payload <= MOST_PAYLOAD).ok_or(Malformed)?;
        let end = reader.at + payload;
        Ok(if bytes.len() < end { Next::Wants(end) } else { Next::Payload(reader.at..end) })
    }

    /// Whether no capsule has begun and not ended, as far as it was read.
    pub(super) const fn is_between(&self) -> bool {
        self.skip == 0
    }

    /// A capsule of this length behind its header is passed over.
    const fn pass(&mut self, header: usize, length: u64) -> Next {
        self.skip = length;
        Next::Pass(header)
    }
}

/// What stands before a payload: at its end, and from which place on.
pub(super) fn header(payload: usize) -> ([u8; HEADER], usize) {
    let length = payload.saturating_add(1).min(MOST_PAYLOAD + 1) as u64;
    let mut all = [0; HEADER];
    // Type and context are zero, in one byte each.
    let (tag, bytes) = match length {
        0..=0x3f => (0, 1),
        0x40..=0x3fff => (0x40, 2),
        _ => (0x80, 4),
    };
    let end = HEADER - 1;
    let start = end - bytes;
    for (place, byte) in all.iter_mut().take(end).skip(start).zip(length.to_be_bytes().iter().skip(8 - bytes)) {
        *place = *byte;
    }
    if let Some(first) = all.get_mut(start) {
        *first |= tag;
    }
    (all, start - 1)
}

/// Reads variable-length integers (RFC 9000 §16).
struct Reader<'b> {
    bytes: &'b [u8],
    at: usize,
}

impl Reader<'_> {
    /// The next one, if it is all there.
    fn integer(&mut self) -> Option<u64> {
        let rest = self.bytes.get(self.at..)?;
        let width = width(*rest.first()?);
        let (first, others) = rest.get(..width)?.split_first()?;
        self.at += width;
        Some(others.iter().fold(u64::from(first & 0x3f), |value, byte| value << 8 | u64::from(*byte)))
    }

    /// How many bytes there must be for the one that was not.
    fn wanted(&self) -> usize {
        self.at + self.bytes.get(self.at).map_or(1, |first| width(*first))
    }
}

/// How long an integer is that begins with this byte.
const fn width(first: u8) -> usize {
    1 << (first >> 6)
}

/// The type of the capsules that have datagrams in them (RFC 9297 §3.5).
const DATAGRAM: u64 = 0;
/// The context of UDP payload (RFC 9298 §4).
const UDP: u64 = 0;
/// No UDP packet holds more (RFC 9298 §5).
pub(super) const MOST_PAYLOAD: usize = 65_527;
/// What stands before a payload of ours, at most: type, length and context.
pub(super) const HEADER: usize = 6;
/// So many bytes are wanted at once, at most: a payload, and three integers as long as they may be written.
pub(super) const MOST: usize = MOST_PAYLOAD + 3 * 8;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn integer(value: u64, width: usize) -> Vec<u8> {
        let mut bytes = value.to_be_bytes()[8 - width..].to_vec();
        bytes[0] |= match width {
            1 => 0,
            2 => 0x40,
            4 => 0x80,
            _ => 0xc0,
        };
        bytes
    }

    fn shortest(value: u64) -> Vec<u8> {
        let width = [1, 2, 4].into_iter().find(|width| value < 1 << (8 * width - 2)).unwrap_or(8);
        integer(value, width)
    }

    fn capsule(kind: u64, value: &[u8]) -> Vec<u8> {
        [shortest(kind), shortest(value.len() as u64), value.to_vec()].concat()
    }

    fn datagram(payload: &[u8]) -> Vec<u8> {
        capsule(0, &[&[0][..], payload].concat())
    }

    /// All payloads, with the bytes as they come; and how it ended: between two capsules, within one, or by what none is.
    fn read(pieces: &[&[u8]]) -> (Vec<Vec<u8>>, Result<bool, Malformed>) {
        let (mut capsules, mut held, mut found) = (Capsules::default(), Vec::new(), Vec::new());
        for piece in pieces {
            held.extend_from_slice(piece);
            loop {
                match capsules.next(&held) {
                    Err(malformed) => return (found, Err(malformed)),
                    Ok(Next::Wants(wants)) => {
                        assert!(wants > held.len() && wants <= MOST, "{wants} of {}", held.len());
                        break;
                    }
                    Ok(Next::Pass(bytes)) => {
                        assert!(bytes > 0, "it goes on");
                        held.drain(..bytes);
                    }
                    Ok(Next::Payload(range)) => {
                        found.push(held[range.clone()].to_vec());
                        held.drain(..range.end);
                    }
                }
            }
        }
        (found, Ok(capsules.is_between() && held.is_empty()))
    }

    /// The same, read in the plainest way.
    fn expected(bytes: &[u8]) -> (Vec<Vec<u8>>, Result<bool, Malformed>) {
        fn integer(bytes: &[u8], at: &mut usize) -> Option<u64> {
            let width = 1 << (bytes.get(*at)? >> 6);
            let mut value = [0; 8];
            value[8 - width..].copy_from_slice(bytes.get(*at..*at + width)?);
            value[8 - width] &= 0x3f;
            *at += width;
            Some(u64::from_be_bytes(value))
        }
        let (mut at, mut found) = (0, Vec::new());
        while at < bytes.len() {
            let header = integer(bytes, &mut at).zip(integer(bytes, &mut at));
            let Some((kind, length)) = header else { return (found, Ok(false)) };
            let end = (at as u64).saturating_add(length);
            let mut inner = at;
            let starts = (bytes.get(at), kind == 0);
            if kind == 0 && length == 0 {
                return (found, Err(Malformed));
            }
            if let (Some(first), true) = starts
                && 1 << (first >> 6) > length
            {
                return (found, Err(Malformed));
            }
            let context = if kind == 0 { integer(bytes, &mut inner) } else { None };
            if context == Some(0) && end - inner as u64 > 65_527 {
                return (found, Err(Malformed));
            }
            let Some(end) = usize::try_from(end).ok().filter(|end| *end <= bytes.len()) else {
                return (found, Ok(false));
            };
            if context == Some(0) {
                found.push(bytes[inner..end].to_vec());
            }
            at = end;
        }
        (found, Ok(true))
    }

    #[test]
    fn rfc_9298_datagrams_of_context_0_are_found_and_all_else_is_passed_over() {
        let large = vec![7; 65_527];
        let bytes = [
            datagram(b"one"),
            capsule(0x17, b"unknown"),
            datagram(b""),
            capsule(0, b"\x02of a context that nobody has registered"),
            capsule(0, b"\x02"),
            datagram(&large),
            // Written longer than it need be.
            [integer(0, 8), integer(11, 4), integer(0, 8), b"two".to_vec()].concat(),
            capsule(0x2eac_0de5, b""),
        ]
        .concat();
        let payloads = vec![b"one".to_vec(), Vec::new(), large, b"two".to_vec()];
        assert_eq!(read(&[&bytes]), (payloads.clone(), Ok(true)));
        let bytewise: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(read(&bytewise), (payloads, Ok(true)));
    }

    #[test]
    fn rfc_9297_what_is_no_datagram_or_too_large_a_one_is_known_before_it_is_there() {
        let announced = |length: u64, value: &[u8]| [shortest(0), shortest(length), value.to_vec()].concat();
        for bytes in [
            announced(0, b""),
            // The context does not fit into its capsule.
            announced(1, b"\x40"),
            announced(3, b"\xc0"),
            // One byte more than any UDP packet.
            announced(65_529, b"\0"),
            announced((1 << 62) - 1, b"\0"),
        ] {
            assert_eq!(read(&[&bytes]), (Vec::new(), Err(Malformed)), "{bytes:02x?}");
        }
        // Whatever length is announced of what nobody wants, nothing of it is held.
        for (kind, value) in [(0x17, &b"x"[..]), (0, b"\x01x")] {
            let bytes = [shortest(kind), shortest((1 << 62) - 1), value.to_vec()].concat();
            assert_eq!(read(&[&bytes]), (Vec::new(), Ok(false)), "{bytes:02x?}");
        }
        let half = datagram(b"half");
        assert_eq!(read(&[&half[..half.len() - 1]]), (Vec::new(), Ok(false)), "the rest is missing");
    }

    #[test]
    fn what_is_written_is_as_short_as_it_can_be_and_is_read_again() {
        for payload in [0, 1, 62, 63, 64, 0x3ffe, 0x3fff, 65_507, 65_527] {
            let payload = vec![9; payload];
            let (header, start) = header(payload.len());
            let written = [&header[start..], &payload].concat();
            assert_eq!(written, datagram(&payload), "{}", payload.len());
            assert_eq!(read(&[&written]), (vec![payload], Ok(true)));
        }
    }

    /// Capsules in order, and what is broken, short or not from here.
    fn stream() -> impl Strategy<Value = Vec<u8>> {
        let payload = proptest::collection::vec(any::<u8>(), 0..80);
        let width = || prop_oneof![Just(1_usize), Just(2), Just(4), Just(8)];
        let known = (payload.clone(), width(), width()).prop_map(|(payload, kind, context)| {
            let context = integer(0, context);
            let length = shortest((context.len() + payload.len()) as u64);
            [integer(0, kind), length, context, payload].concat()
        });
        let other = (0_u64..200, payload.clone()).prop_map(|(kind, value)| capsule(kind, &value));
        let context = (1_u64..40, payload).prop_map(|(id, value)| capsule(0, &[shortest(id), value].concat()));
        let lying = (0_u64..3, 0_u64..1 << 62).prop_map(|(kind, length)| [shortest(kind), shortest(length)].concat());
        let noise = proptest::collection::vec(any::<u8>(), 0..12);
        let one = prop_oneof![6 => known, 2 => other, 2 => context, 1 => lying, 1 => noise];
        proptest::collection::vec(one, 0..8).prop_map(|all| all.concat())
    }

    proptest! {
        #[test]
        fn however_bytes_are_cut_they_mean_the_same(
            bytes in stream(),
            cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..12),
        ) {
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).chain([0, bytes.len()]).collect();
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
            let (found, ended) = read(&pieces);
            let (payloads, end) = expected(&bytes);
            prop_assert_eq!(found, payloads);
            prop_assert_eq!(ended, end);
        }
    }
}
