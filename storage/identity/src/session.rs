//! A subject's signed-in period.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::{Claims, Keyring, Purpose, RandomError, SERVICE_ACCOUNT, Secret, SecretIndex, Timestamp, random};

/// The secret that a browser carries: 256 bits from the system's generator (03 §2). Never logged, never stored.
///
/// It belongs to the `shared_secret` that was in force when it was made: that one names its session in the store, and makes
/// every cookie and ticket that carries it, also after another has come into force. So who reads one knows the name.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct SessionId {
    bytes: [u8; 32],
    secret: SecretIndex,
}

impl SessionId {
    /// A fresh id, of the secret in force (S-080).
    ///
    /// # Errors
    /// If the system gives no randomness.
    pub fn generate() -> Result<Self, RandomError> {
        random().map(Self::from_bytes)
    }

    /// The id of these bytes, of the secret in force.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self::of(SecretIndex::default(), bytes)
    }

    /// The id of these bytes, of the secret that made the cookie or ticket which they are from.
    #[must_use]
    pub const fn of(secret: SecretIndex, bytes: [u8; 32]) -> Self {
        Self { bytes, secret }
    }

    /// The raw bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.bytes
    }

    /// The secret that it belongs to.
    #[must_use]
    pub const fn secret(&self) -> SecretIndex {
        self.secret
    }

    /// The name under which the store knows this session (S-081).
    #[must_use]
    pub fn handle(&self, keyring: &Keyring) -> SessionHandle {
        SessionHandle(keyring.mac_by(self.secret, Purpose::StoreId, &[&self.bytes]))
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// The keyed hash of a [`SessionId`]: names the session in the store, in logs and in the `sid` claim; opens nothing (S-081).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionHandle([u8; 32]);

impl SessionHandle {
    /// The handle of these bytes, as read from the store.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The raw bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Reads what `Display` wrote; `None` for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok().map(Self)
    }
}

impl fmt::Display for SessionHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl fmt::Debug for SessionHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionHandle({self})")
    }
}

/// Which identity provider configuration vouched for a session: a short stable text made by the configuration
/// (provider, URL and client id; not the client secret, so that rotating it ends no session; 02 §3.1).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IdpId(Arc<str>);

impl IdpId {
    /// The id of that text.
    #[must_use]
    pub fn new(text: impl Into<Arc<str>>) -> Self {
        Self(text.into())
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The user of a session, as the identity provider described them at sign-in or at the last refresh.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct User {
    /// `sub` at the issuer; what `user` criteria compare and what the assertion calls `sub`.
    pub id: String,
    /// Who vouches: identity is (issuer, id) (S-069).
    pub issuer: String,
    /// As given by the provider; `None` if it gave none.
    pub email: Option<String>,
    /// `Some(false)` only if the provider said so; e-mail rules then do not match (S-069).
    pub email_verified: Option<bool>,
    /// Display name, if any.
    pub name: Option<String>,
    /// From userinfo merged over the ID token (02 §1.4 D). In policy these win over the session's (01 §3.3).
    pub claims: Claims,
}

impl User {
    /// What a page calls them: their name, else their e-mail address, else their id.
    #[must_use]
    pub fn shown_name(&self) -> &str {
        let words = [&self.name, &self.email].into_iter().flatten();
        words.map(String::as_str).find(|words| !words.is_empty()).unwrap_or(&self.id)
    }
}

/// What the edge needs to know of a session: who, until when, from which provider. Holds no token.
#[derive(Clone, Debug, PartialEq)]
pub struct Session {
    /// Its name in the store.
    pub handle: SessionHandle,
    /// Whose session it is.
    pub user: User,
    /// From the ID token.
    pub claims: Claims,
    /// The provider configuration that vouched.
    pub idp: IdpId,
    /// When the user signed in.
    pub issued_at: Timestamp,
    /// Absolute end, enforced by us (S-090).
    pub expires_at: Timestamp,
    /// Idle time-out, if one is configured, and when it next strikes unless touched.
    pub idle: Option<(Duration, Timestamp)>,
    /// Grows by one with each rewrite of the record (refresh); part of the key of cached assertions.
    pub generation: u64,
}

impl Session {
    /// Whether it is no person's, but that of a program to which an operator gave it (02 §4.3).
    #[must_use]
    pub fn is_service_account(&self) -> bool {
        self.idp.as_str() == SERVICE_ACCOUNT
    }

    /// Whether its absolute or idle end has come.
    #[must_use]
    pub fn is_expired(&self, now: Timestamp) -> bool {
        now >= self.expires_at || self.idle.is_some_and(|(_, until)| now >= until)
    }
}

/// What the identity provider issued. Kept sealed in the store; only authn reads it.
#[derive(Clone, Debug)]
pub struct Tokens {
    /// The access token.
    pub access: Secret<String>,
    /// When the access token ends, if the provider said.
    pub access_expires_at: Option<Timestamp>,
    /// The refresh token, if one was issued.
    pub refresh: Option<Secret<String>>,
    /// The raw ID token: the hint at sign-out.
    pub id_token: Secret<String>,
    /// When new ones are to be asked for; `None` if that cannot be.
    pub refresh_at: Option<Timestamp>,
}

impl Tokens {
    /// Those of a service account, for which no provider issues any.
    #[must_use]
    pub fn none() -> Self {
        let nothing = || Secret::new(String::new());
        Self { access: nothing(), access_expires_at: None, refresh: None, id_token: nothing(), refresh_at: None }
    }
}
