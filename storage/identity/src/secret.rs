//! Values that never print.

use std::fmt;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroize;

/// A secret: its `Debug` is `[redacted]`, it has no `PartialEq`, and its memory is wiped when it is dropped (S-107, S-110).
#[derive(Clone)]
pub struct Secret<T: Zeroize>(T);

impl<T: Zeroize> Secret<T> {
    /// Wraps `value`.
    pub const fn new(value: T) -> Self {
        Self(value)
    }

    /// The secret itself; call it as late as possible.
    pub const fn expose(&self) -> &T {
        &self.0
    }
}

impl<T: Zeroize> Drop for Secret<T> {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl<T: Zeroize> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// Whether two byte strings are equal, in time that depends on their lengths only (S-110). All that differs is
/// gathered, and then compared once.
#[must_use]
pub fn same(a: &[u8], b: &[u8]) -> bool {
    let ((words, rest), (other_words, other_rest)) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    let word = |(a, b): (&[u8; 8], &[u8; 8])| u64::from_ne_bytes(*a) ^ u64::from_ne_bytes(*b);
    let differing = words.iter().zip(other_words).map(word).fold(0, |all, this| all | this);
    a.len() == b.len() && (std::hint::black_box(differing).ct_eq(&0) & rest.ct_eq(other_rest)).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s_110_what_is_the_same_is_the_same_in_every_byte() {
        for length in 0..40 {
            let (one, mut other) = (vec![7; length], vec![7; length]);
            assert!(same(&one, &other), "{length}");
            for at in 0..length {
                other[at] ^= 0x80;
                assert!(!same(&one, &other), "{length}, {at}");
                other[at] ^= 0x80;
            }
            for longer in 1..10 {
                other.push(7);
                assert!(!same(&one, &other) && !same(&other, &one), "{length} and {longer}");
            }
        }
    }
}
