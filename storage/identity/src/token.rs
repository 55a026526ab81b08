//! The form of what programs show: a signed JWT (RFC 7515 §3.1), because clients look into it for `exp`; to everybody but us it
//! is opaque.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use crate::{Keyring, Purpose, SessionId};

/// One kind of tokens: none ever opens as another one, by its header, by its scope and by its key (S-085, S-096).
pub(crate) struct Form {
    /// As it is written, in base64url.
    pub(crate) header: &'static str,
    pub(crate) purpose: Purpose,
}

/// The longest, of a service account whose user has the longest name, has 967 bytes.
pub(crate) const MAX_TOKEN: usize = 1024;

impl Form {
    /// A token with these claims, whose `jti` is the [`jti`] of `id`.
    pub(crate) fn seal(&self, keyring: &Keyring, scope: &str, id: &SessionId, claims: &Value) -> String {
        let claims = URL_SAFE_NO_PAD.encode(claims.to_string());
        let tag = keyring.mac_by(id.secret(), self.purpose, &[scope.as_bytes(), claims.as_bytes()]);
        format!("{}.{claims}.{}", self.header, URL_SAFE_NO_PAD.encode(tag))
    }

    /// The session id in a token, if it is one of ours for `scope`; any change of a byte gives `None` (S-083).
    pub(crate) fn open(&self, keyring: &Keyring, scope: &str, token: &[u8]) -> Option<SessionId> {
        let token = token.get(..token.len().min(MAX_TOKEN + 1)).filter(|token| token.len() <= MAX_TOKEN)?;
        let rest = token.strip_prefix(self.header.as_bytes())?.strip_prefix(b".")?;
        let (claims, tag) = rest.split_at_checked(rest.iter().position(|byte| *byte == b'.')?)?;
        let tag = URL_SAFE_NO_PAD.decode(tag.strip_prefix(b".")?).ok().filter(|tag| tag.len() == 32)?;
        let secret = keyring.verify_by(self.purpose, &[scope.as_bytes(), claims], &tag)?;
        let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok()?;
        let id = URL_SAFE_NO_PAD.decode(claims.get("jti")?.as_str()?).ok()?;
        id.try_into().ok().map(|id| SessionId::of(secret, id))
    }
}

/// The session id as a claim.
pub(crate) fn jti(id: &SessionId) -> String {
    URL_SAFE_NO_PAD.encode(id.as_bytes())
}
