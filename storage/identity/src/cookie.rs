//! The session cookie, both ways: authn writes it, the edge reads it; and the attributes of every cookie of ours (03 §3.5).

use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::{Keyring, Purpose, SessionId};

/// The value of the session cookie: a version byte, the session id, and a MAC that binds it to one host, or to the
/// cookie domain where one is configured (S-089). Opaque to everybody else.
pub struct SessionCookie {
    id: [u8; 32],
    tag: [u8; MAC_LEN],
}

const VERSION: u8 = 1;
const MAC_LEN: usize = 16;
const RAW_LEN: usize = 1 + 32 + MAC_LEN;
const MAX_VALUES: usize = 8;

impl SessionCookie {
    /// How long a cookie value is, in bytes.
    pub const LENGTH: usize = (RAW_LEN * 8).div_ceil(6);

    /// The cookie value that makes `id` a session on `scope`: the request's canonical host without port, or `cookie_domain`.
    #[must_use]
    pub fn seal(keyring: &Keyring, scope: &str, id: &SessionId) -> String {
        let mut raw = Vec::with_capacity(RAW_LEN);
        raw.push(VERSION);
        raw.extend_from_slice(id.as_bytes());
        let tag = keyring.mac_by(id.secret(), Purpose::SessionCookie, &[scope.as_bytes(), id.as_bytes()]);
        raw.extend(tag.iter().take(MAC_LEN));
        URL_SAFE_NO_PAD.encode(raw)
    }

    /// The session id in a cookie value, if its MAC holds for `scope`; any change of a byte gives `None` (S-083).
    #[must_use]
    pub fn open(keyring: &Keyring, scope: &str, value: &[u8]) -> Option<SessionId> {
        Self::read(value)?.verify(keyring, scope)
    }

    /// A cookie value of this form, whoever made it.
    #[must_use]
    pub fn read(value: &[u8]) -> Option<Self> {
        let mut buffer = [0_u8; RAW_LEN + 2];
        let length = URL_SAFE_NO_PAD.decode_slice(value, &mut buffer).ok()?;
        let raw = buffer.get(..length).filter(|raw| raw.len() == RAW_LEN)?;
        let (version, rest) = raw.split_first()?;
        let (id, tag) = rest.split_first_chunk()?;
        let tag = tag.first_chunk()?;
        (*version == VERSION).then_some(Self { id: *id, tag: *tag })
    }

    /// What it says the id is. Nothing vouches for that before it is [verified](Self::verify).
    #[must_use]
    pub const fn unverified_id(&self) -> &[u8; 32] {
        &self.id
    }

    /// The session id, if the MAC holds for `scope` (S-083).
    #[must_use]
    pub fn verify(&self, keyring: &Keyring, scope: &str) -> Option<SessionId> {
        let secret = keyring.verify_by(Purpose::SessionCookie, &[scope.as_bytes(), &self.id], &self.tag)?;
        Some(SessionId::of(secret, self.id))
    }
}

/// Shows nothing of it: whoever reads it is signed in (S-108).
impl fmt::Debug for SessionCookie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionCookie").finish_non_exhaustive()
    }
}

/// The one thing that `values` of a cookie, or of what programs show, lead to. Those that do not open are nothing; two that open
/// and differ are none (03 §3.5), and of very many only the first are looked at (S-092).
pub fn only_one<'v, T: PartialEq>(
    values: impl IntoIterator<Item = &'v [u8]>,
    open: impl Fn(&'v [u8]) -> Option<T>,
) -> Option<T> {
    let mut opened = values.into_iter().take(MAX_VALUES).filter_map(open);
    let first = opened.next()?;
    opened.all(|other| other == first).then_some(first)
}

/// `SameSite` of a cookie; ours is `Lax` unless configured (rulings).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum SameSite {
    /// Sent on top-level navigation from elsewhere.
    #[default]
    Lax,
    /// Never sent from elsewhere.
    Strict,
    /// Always sent.
    None,
}

impl SameSite {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Lax => "Lax",
            Self::Strict => "Strict",
            Self::None => "None",
        }
    }
}

/// How a cookie of ours is written. `Secure` and `Path=/` are always set (01 §1.7).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CookieAttributes {
    /// `Domain`; `None` keeps it to the host.
    pub domain: Option<String>,
    /// `HttpOnly`.
    pub http_only: bool,
    /// `SameSite`.
    pub same_site: SameSite,
}

impl Default for CookieAttributes {
    fn default() -> Self {
        Self { domain: None, http_only: true, same_site: SameSite::Lax }
    }
}

/// The `Set-Cookie` value that sets `name` to `value` for `max_age`.
#[must_use]
pub fn set_cookie(name: &str, value: &str, attributes: &CookieAttributes, max_age: Duration) -> String {
    let mut out = format!("{name}={value}; Path=/; Max-Age={}; Secure", max_age.as_secs());
    if attributes.http_only {
        out.push_str("; HttpOnly");
    }
    out.push_str("; SameSite=");
    out.push_str(attributes.same_site.as_str());
    if let Some(domain) = &attributes.domain {
        out.push_str("; Domain=");
        out.push_str(domain);
    }
    out
}

/// The `Set-Cookie` value that removes `name`, with the attributes it was set with (S-091).
#[must_use]
pub fn delete_cookie(name: &str, attributes: &CookieAttributes) -> String {
    let mut out = set_cookie(name, "", attributes, Duration::ZERO);
    out.push_str("; Expires=Thu, 01 Jan 1970 00:00:00 GMT");
    out
}

/// The values of every cookie of that name in one `Cookie` field, in order (RFC 6265 §5.4). Call it for each field.
pub fn cookies_named<'h>(field: &'h [u8], name: &'h str) -> impl Iterator<Item = &'h [u8]> {
    field
        .split(|byte| *byte == b';')
        .filter_map(move |pair| pair.trim_ascii().strip_prefix(name.as_bytes())?.strip_prefix(b"="))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Secret;

    fn keyring() -> Keyring {
        Keyring::derive(&Secret::new([1; 32]), &Secret::new([2; 32]))
    }

    #[test]
    fn s_089_a_cookie_of_one_host_is_no_session_on_another() {
        let (ring, id) = (keyring(), SessionId::from_bytes([7; 32]));
        let value = SessionCookie::seal(&ring, "a.example.com", &id);
        assert_eq!(SessionCookie::open(&ring, "a.example.com", value.as_bytes()), Some(id));
        assert_eq!(SessionCookie::open(&ring, "b.example.com", value.as_bytes()), None);
        let read = SessionCookie::read(value.as_bytes()).unwrap();
        assert_eq!(read.unverified_id(), &[7; 32]);
        assert_eq!(format!("{read:?}"), "SessionCookie { .. }");
    }

    /// What version 1 of the cookie looks like: of id `[7; 32]` on `a.example.com`, under the keyring above.
    const VERSION_1: &str = "AQcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHATbRlvDQp2tNJvTvOOUMmg";

    #[test]
    fn a_cookie_leads_to_the_same_session_while_its_secret_is_replaced_and_after() {
        let ring = |in_force: u8, accepted: &[u8]| {
            let accepted: Vec<_> = accepted.iter().map(|byte| Secret::new([*byte; 32])).collect();
            Keyring::derive_with(&Secret::new([in_force; 32]), &accepted, &Secret::new([2; 32]))
        };
        let name = SessionId::from_bytes([7; 32]).handle(&keyring());
        let named = |ring: &Keyring, host, cookie: &str| {
            SessionCookie::open(ring, host, cookie.as_bytes()).map(|id| id.handle(ring))
        };
        for ring in [keyring(), ring(1, &[3]), ring(3, &[1]), ring(4, &[3, 1])] {
            assert_eq!(named(&ring, "a.example.com", VERSION_1), Some(name), "r_023: of every version");
            // The same session gets a cookie on another host, which holds for everybody else too.
            let id = SessionCookie::open(&ring, "a.example.com", VERSION_1.as_bytes()).unwrap();
            let elsewhere = SessionCookie::seal(&ring, "b.example.com", &id);
            assert_eq!(named(&ring, "b.example.com", &elsewhere), Some(name));
            assert_eq!(named(&keyring(), "b.example.com", &elsewhere), Some(name));
        }
        assert_eq!(named(&ring(3, &[]), "a.example.com", VERSION_1), None, "without the old one it is nothing");
    }

    #[test]
    fn s_083_any_changed_byte_of_a_cookie_is_no_session() {
        let ring = keyring();
        let value = SessionCookie::seal(&ring, "h", &SessionId::from_bytes([9; 32])).into_bytes();
        for index in 0..value.len() {
            for byte in [b'A', b'z', b'-', b'=', b' ', 0, 0xff] {
                let mut damaged = value.clone();
                if damaged[index] != byte {
                    damaged[index] = byte;
                    assert_eq!(SessionCookie::open(&ring, "h", &damaged), None);
                }
            }
        }
        assert_eq!(SessionCookie::open(&ring, "h", &value[1..]), None);
        assert_eq!(SessionCookie::open(&ring, "h", &[&value[..], b"A"].concat()), None);
        assert_eq!(SessionCookie::open(&ring, "h", b""), None);
        assert_eq!(SessionCookie::open(&ring, "h", &[b'A'; 100_000]), None);
    }

    #[test]
    fn two_sessions_at_once_are_none() {
        let (ring, [a, b]) = (keyring(), [7, 8].map(|byte| SessionId::from_bytes([byte; 32])));
        let [sealed_a, sealed_b] = [&a, &b].map(|id| SessionCookie::seal(&ring, "h", id).into_bytes());
        let one = |values: &[&[u8]]| only_one(values.iter().copied(), |value| SessionCookie::open(&ring, "h", value));
        assert_eq!(one(&[b"x", &sealed_a, &sealed_a]), Some(a));
        assert_eq!(one(&[&sealed_a, &sealed_b]), None);
        assert_eq!(one(&[&[b"x".as_slice(); MAX_VALUES][..], &[&sealed_b]].concat()), None);
    }

    #[test]
    fn every_cookie_of_a_name_is_found_and_no_other() {
        let found: Vec<_> = cookies_named(b"x=1; _p=a;_p=b; __p=c; _p2=d;_p=", "_p").collect();
        assert_eq!(found, [&b"a"[..], b"b", b""]);
    }
}
