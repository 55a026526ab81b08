//! What authn lets a browser carry: sealed, and bound to a purpose and a context. Fields of it are only ever added.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use postern_identity::{Keyring, Purpose, RandomError, SecretIndex};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// `value` as text for a cookie or an address.
pub(crate) fn seal(
    keyring: &Keyring,
    purpose: Purpose,
    context: &str,
    value: &impl Serialize,
) -> Result<String, RandomError> {
    seal_by(SecretIndex::default(), keyring, purpose, context, value)
}

/// The same by another secret than the one in force.
pub(crate) fn seal_by(
    secret: SecretIndex,
    keyring: &Keyring,
    purpose: Purpose,
    context: &str,
    value: &impl Serialize,
) -> Result<String, RandomError> {
    let plain = serde_json::to_vec(value).unwrap_or_default();
    Ok(URL_SAFE_NO_PAD.encode(keyring.seal_by(secret, purpose, context.as_bytes(), &plain)?))
}

/// What [`seal`] sealed for this very purpose and context.
pub(crate) fn open<T: DeserializeOwned>(
    keyring: &Keyring,
    purpose: Purpose,
    context: &str,
    text: impl AsRef<[u8]>,
) -> Option<T> {
    open_by(keyring, purpose, context, text).map(|(_, value)| value)
}

/// The same with the secret that sealed it.
pub(crate) fn open_by<T: DeserializeOwned>(
    keyring: &Keyring,
    purpose: Purpose,
    context: &str,
    text: impl AsRef<[u8]>,
) -> Option<(SecretIndex, T)> {
    let sealed = URL_SAFE_NO_PAD.decode(text).ok()?;
    let (secret, plain) = keyring.open_by(purpose, context.as_bytes(), &sealed)?;
    Some((secret, serde_json::from_slice(&plain).ok()?))
}
