//! Certificates of clients: who vouches for them, and what a policy sees of them (01 §1.6).
//!
//! The handshake asks for a certificate and takes any, but with `reject_connection`. The verdict falls afterwards, once for a
//! connection and again after a while, for the authorities of each route: so that a resumed connection, another configuration
//! and the passing of time count as well, and so that who is refused is told in words.

mod names;
mod presented;
mod revoked;
#[cfg(test)]
mod tests;
mod trust;
mod verifier;

pub use names::{NameKind, NamePattern};
pub use presented::ClientCert;
pub(crate) use presented::Presented;
pub use revoked::{Due, Revocations, UnreadableList};
pub use trust::{ClientTrust, NoAuthorities, Terms};
pub(crate) use verifier::Asking;

use std::sync::Arc;

/// What the public listener asks of clients.
#[derive(Debug, Clone, Default)]
pub struct DownstreamMtls {
    /// Everybody who vouches for clients, of whichever route; `None`: no certificate is asked for.
    pub everybody: Option<Arc<ClientTrust>>,
    /// `reject_connection`: who has no certificate that one of them vouches for is not spoken to.
    pub reject: bool,
}

impl DownstreamMtls {
    /// Whether handshakes go the same way.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.digest() == other.digest()
    }

    /// Stands for all of it: the same on every edge that asks the same.
    pub(crate) fn digest(&self) -> Vec<u8> {
        let id = self.everybody.as_ref().map(|trust| trust.id().as_slice()).unwrap_or_default();
        [id, &[u8::from(self.reject)]].concat()
    }
}
