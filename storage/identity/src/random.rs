//! Randomness, from the operating system only (S-120).

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

/// A random UUID (RFC 9562, version 4).
///
/// # Errors
/// [`RandomError`] if the system's generator fails.
pub fn uuid() -> Result<String, RandomError> {
    random().map(version_four)
}

fn version_four(random: [u8; 16]) -> String {
    let bits = u128::from_be_bytes(random);
    let bits = (bits & !(0xf << 76) & !(0x3 << 62)) | (0x4 << 76) | (0x2 << 62);
    let hex = format!("{bits:032x}");
    let cuts = [0..8, 8..12, 12..16, 16..20, 20..32];
    cuts.into_iter().filter_map(|cut| hex.get(cut)).collect::<Vec<_>>().join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_says_that_it_is_random() {
        assert_eq!(version_four([0xff; 16]), "ffffffff-ffff-4fff-bfff-ffffffffffff");
        assert_eq!(version_four([0; 16]), "00000000-0000-4000-8000-000000000000");
    }
}
