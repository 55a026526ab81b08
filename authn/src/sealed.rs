//! What authn lets a browser carry: sealed, and bound to a purpose and a context. Fields of it are only ever added.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use postern_identity::{Keyring, Purpose, RandomError};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// `value` as text for a cookie or an address.
pub(crate) fn seal(
    keyring: &Keyring,
    purpose: Purpose,
    context: &str,
    value: &impl Serialize,
) -> Result<String, RandomError> {
    let plain = serde_json::to_vec(value).unwrap_or_default();
    Ok(URL_SAFE_NO_PAD.encode(keyring.seal(purpose, context.as_bytes(), &plain)?))
}

/// What [`seal`] sealed for this very purpose and context.
pub(crate) fn open<T: DeserializeOwned>(
    keyring: &Keyring,
    purpose: Purpose,
    context: &str,
    text: impl AsRef<[u8]>,
) -> Option<T> {
    let sealed = URL_SAFE_NO_PAD.decode(text).ok()?;
    serde_json::from_slice(&keyring.open(purpose, context.as_bytes(), &sealed)?).ok()
}
