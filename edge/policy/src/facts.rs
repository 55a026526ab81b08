//! What a policy may look at; borrowed, nothing is copied to decide.

use std::net::IpAddr;

use postern_identity::Session;

/// Everything that is known about one request when it is decided (01 §3.3).
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The live session; `None` for anonymous requests.
    pub session: Option<&'a Session>,
    /// The request method, as sent.
    pub method: &'a str,
    /// The canonical path, percent-decoded, without query; empty if it is not valid UTF-8 once decoded.
    pub path: &'a str,
    /// The trusted client address.
    pub source: IpAddr,
    /// `OPTIONS` with non-empty `Origin` and `Access-Control-Request-Method` (S-035).
    pub cors_preflight: bool,
    /// The client certificate of the connection.
    pub client_certificate: ClientCertificate<'a>,
}

impl<'a> Facts<'a> {
    /// The subject's e-mail as e-mail rules see it.
    #[must_use]
    pub fn email(&self) -> Email<'a> {
        match self.session {
            None => Email::NoSession,
            Some(session) if session.user.email_verified == Some(false) => Email::Unverified,
            Some(session) => Email::Address(session.user.email.as_deref().unwrap_or_default()),
        }
    }
}

/// The e-mail of a subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Email<'a> {
    /// There is nobody.
    NoSession,
    /// The provider says that it is not verified: no e-mail rule matches, whatever its operator (S-069).
    Unverified,
    /// The address; empty if the provider gave none.
    Address(&'a str),
}

/// The client certificate of a connection, and the verdict on it (01 §1.6).
#[derive(Clone, Copy, Debug)]
pub struct ClientCertificate<'a> {
    /// The presented leaf, DER, trusted or not.
    pub leaf: Option<&'a [u8]>,
    /// The verdict of CA, CRL, SAN and depth checks; `true` when no CA applies.
    pub valid: bool,
}

impl ClientCertificate<'_> {
    /// No certificate, and none wanted.
    pub const NONE: Self = Self { leaf: None, valid: true };
}
