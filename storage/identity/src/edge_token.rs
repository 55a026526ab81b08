//! How the edge proves to authn that a request came through it (S-114): authn believes `X-Forwarded-*` from nobody else.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::{Keyring, Purpose};

/// The request header that carries the token. It is of the reserved family, so no client can send it past the edge (S-038).
pub const EDGE_TOKEN_HEADER: &str = "x-pomerium-edge";

/// The token of this deployment: derived, so that every edge and every authn with the same secret knows it.
#[must_use]
pub fn edge_token(keyring: &Keyring) -> String {
    URL_SAFE_NO_PAD.encode(keyring.mac(Purpose::EdgeToAuthn, &[b"edge"]))
}

/// Whether `value` is the token, compared in constant time.
#[must_use]
pub fn is_edge_token(keyring: &Keyring, value: &[u8]) -> bool {
    let Ok(shown) = URL_SAFE_NO_PAD.decode(value) else { return false };
    shown.len() == 32 && keyring.verify(Purpose::EdgeToAuthn, &[b"edge"], &shown)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Secret;

    #[test]
    fn s_114_only_the_same_deployment_knows_the_token() {
        let ours = Keyring::derive(&Secret::new([1; 32]), &Secret::new([2; 32]));
        let theirs = Keyring::derive(&Secret::new([3; 32]), &Secret::new([2; 32]));
        assert!(is_edge_token(&ours, edge_token(&ours).as_bytes()));
        assert!(!is_edge_token(&ours, edge_token(&theirs).as_bytes()));
        assert!(!is_edge_token(&ours, b""));
        let half = URL_SAFE_NO_PAD.encode(&URL_SAFE_NO_PAD.decode(edge_token(&ours)).unwrap()[..16]);
        assert!(!is_edge_token(&ours, half.as_bytes()));
        let rotating = Keyring::derive_with(&Secret::new([3; 32]), &[Secret::new([1; 32])], &Secret::new([2; 32]));
        assert!(is_edge_token(&rotating, edge_token(&ours).as_bytes()), "while the secret is replaced");
        assert!(!is_edge_token(&ours, edge_token(&rotating).as_bytes()));
    }
}
