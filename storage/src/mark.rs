//! Marks by which a process, or one attempt of it, knows itself again among others.

use postern_identity::{RandomError, random};

/// A mark that nobody else has: 32 digits, `0` to `f`.
///
/// # Errors
/// [`RandomError`] if the system's generator fails.
pub(crate) fn mark() -> Result<String, RandomError> {
    random().map(|bytes| format!("{:032x}", u128::from_be_bytes(bytes)))
}
