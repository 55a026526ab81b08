//! What a request asks its connection to become (RFC 9110 §7.8).

use http::{Method, Version, header};
use pingora_http::RequestHeader;

use super::{CONNECT_UDP, has_token, tokens};

/// A protocol that a connection may change to, spelled as the client spells it; the case of its letters means nothing.
#[derive(Clone, Debug, Eq)]
pub struct Upgrade(Box<str>);

impl Upgrade {
    /// The token of WebSockets (RFC 6455).
    pub const WEBSOCKET: &str = "websocket";

    /// A WebSocket.
    pub(super) fn websocket() -> Self {
        Self(Self::WEBSOCKET.into())
    }

    /// Datagrams in capsules.
    pub(crate) fn connect_udp() -> Self {
        Self(CONNECT_UDP.into())
    }

    /// One for a test.
    #[cfg(test)]
    pub(crate) fn named(token: &str) -> Self {
        Self(token.into())
    }

    /// The token as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether that is the protocol of this token.
    #[must_use]
    pub fn is(&self, token: &str) -> bool {
        self.0.eq_ignore_ascii_case(token)
    }

    /// Whether it is a WebSocket.
    #[must_use]
    pub fn is_websocket(&self) -> bool {
        self.is(Self::WEBSOCKET)
    }

    /// Those that a head asks for, in its order; none in HTTP/2, HTTP/1.0, without `Connection: upgrade`, or by HEAD, whose answer
    /// has nothing behind its head. What is HTTP all the same, such as `h2c`, is not asked for at all: it goes on as it is (S-010).
    pub(super) fn asked(head: &RequestHeader) -> Vec<Self> {
        let fields = head.headers.get_all(header::UPGRADE);
        let may = head.version == Version::HTTP_11 && head.method != Method::HEAD;
        if !may || !has_token(head, header::CONNECTION, b"upgrade") {
            return Vec::new();
        }
        let tokens = fields.iter().flat_map(tokens).take(MOST).filter_map(|token| std::str::from_utf8(token).ok());
        let asked = tokens.filter(|token| is_upgrade(token)).map(|token| Self(token.into()));
        // WebSockets are opened with GET alone (RFC 6455 §4.1).
        asked.filter(|upgrade| head.method == Method::GET || !upgrade.is_websocket()).collect()
    }
}

impl PartialEq for Upgrade {
    fn eq(&self, other: &Self) -> bool {
        self.is(&other.0)
    }
}

/// Whether a token names a protocol that a connection may change to: not another version of HTTP, nor TLS below it.
#[must_use]
pub fn is_upgrade(token: &str) -> bool {
    let mut parts = token.split('/');
    let (name, version, more) = (parts.next().unwrap_or_default(), parts.next(), parts.next());
    let is_token = |part: &str| !part.is_empty() && part.bytes().all(is_token_byte);
    // Drafts had names such as `h2c-14`.
    let bare = name.split('-').next().unwrap_or_default();
    let http = ["h2", "h2c", "h3", "http", "tls"].iter().any(|own| bare.eq_ignore_ascii_case(own));
    more.is_none() && is_token(name) && version.is_none_or(is_token) && !http
}

/// RFC 9110 §5.6.2.
const fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(byte, b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^'..=b'`' | b'|' | b'~')
}

/// More tokens than this are not looked at.
const MOST: usize = 8;
