//! Randomness, from the operating system only (S-120).

use std::cell::RefCell;

use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};

/// The operating system gave no randomness; the request that asked for it must end (S-120).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the operating system gave no random bytes")]
pub struct RandomError;

/// `N` fresh random bytes.
///
/// # Errors
/// [`RandomError`] if the system's generator fails.
pub fn random<const N: usize>() -> Result<[u8; N], RandomError> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| RandomError)?;
    Ok(bytes)
}

/// A random UUID (RFC 9562, version 4), which is a name and no secret: its bytes are drawn for some that come later too.
///
/// # Errors
/// [`RandomError`] if the system's generator fails.
pub fn uuid() -> Result<String, RandomError> {
    DRAWN.with_borrow_mut(|drawn| {
        if drawn.is_empty() {
            let fresh = random::<{ 16 * AT_ONCE }>()?;
            drawn.extend(fresh.as_chunks::<16>().0);
        }
        drawn.pop().map(version_four).ok_or(RandomError)
    })
}

/// How many names a thread draws bytes for.
const AT_ONCE: usize = 64;

thread_local! {
    static DRAWN: RefCell<Vec<[u8; 16]>> = const { RefCell::new(Vec::new()) };
}

fn version_four(random: [u8; 16]) -> String {
    let bits = u128::from_be_bytes(random);
    let bits = (bits & !(0xf << 76) & !(0x3 << 62)) | (0x4 << 76) | (0x2 << 62);
    let mut text = String::with_capacity(36);
    for (at, byte) in bits.to_be_bytes().into_iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        for digit in [byte >> 4, byte & 0xf] {
            text.push(char::from(if digit < 10 { b'0' + digit } else { b'a' + digit - 10 }));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_says_that_it_is_random() {
        assert_eq!(version_four([0xff; 16]), "ffffffff-ffff-4fff-bfff-ffffffffffff");
        assert_eq!(version_four([0; 16]), "00000000-0000-4000-8000-000000000000");
        let counted = std::array::from_fn(|at| u8::try_from(at * 17).unwrap());
        assert_eq!(version_four(counted), "00112233-4455-4677-8899-aabbccddeeff");
    }

    #[test]
    fn no_name_is_given_twice() {
        let names: std::collections::HashSet<_> = (0..3 * AT_ONCE).map(|_| uuid().unwrap()).collect();
        assert_eq!(names.len(), 3 * AT_ONCE);
        let elsewhere = std::thread::spawn(|| uuid().unwrap()).join().unwrap();
        assert!(!names.contains(&elsewhere));
    }
}
