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
