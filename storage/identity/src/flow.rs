//! The cookie that ties a sign-in to the browser that began it (S-054, 03 §3.5).
//!
//! The edge sets one on the route's host for each redirect to sign-in; the sign-in request carries only its hash;
//! the ticket that comes back is honoured only beside the cookie.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::{CookieAttributes, Keyring, Purpose, RandomError, Timestamp, delete_cookie, random, set_cookie};

/// More sign-ins than this at once in one browser: the oldest are dropped (03 §2).
pub const MAX_FLOWS_PER_BROWSER: usize = 5;

/// How long a browser may take over one sign-in, restarts included.
const LIFETIME: Duration = Duration::from_secs(3600);

/// What the sign-in request and the ticket carry in place of the cookie's value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FlowHash([u8; 16]);

impl FlowHash {
    /// For a URL parameter; 22 characters.
    #[must_use]
    pub fn encode(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.0)
    }

    /// Reads what [`encode`](Self::encode) gave.
    #[must_use]
    pub fn decode(text: &str) -> Option<Self> {
        URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok().map(Self)
    }

    /// The raw bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// The hash of these raw bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }
}

/// One sign-in in progress, as the browser holds it: `__Host-<session cookie>_flow_<seconds><random>=<32 random bytes>`.
#[derive(Clone, Debug)]
pub struct FlowCookie {
    name: String,
    value: String,
}

impl FlowCookie {
    /// A fresh flow for a deployment whose session cookie has that name.
    ///
    /// # Errors
    /// If the system gives no randomness.
    pub fn begin(cookie_name: &str, now: Timestamp) -> Result<Self, RandomError> {
        let tag: [u8; 4] = random()?;
        let value: [u8; 32] = random()?;
        let seconds = now.as_secs();
        let name = format!("{}{seconds:012x}{:08x}", Self::prefix(cookie_name), u32::from_be_bytes(tag));
        Ok(Self { name, value: URL_SAFE_NO_PAD.encode(value) })
    }

    /// As every cookie of ours with `__Host-`, it never goes upstream (S-041).
    fn prefix(cookie_name: &str) -> String {
        format!("__Host-{cookie_name}_flow_")
    }

    /// The hash that stands for this flow in URLs.
    #[must_use]
    pub fn hash(&self, keyring: &Keyring) -> FlowHash {
        let mut out = [0; 16];
        for (to, from) in out.iter_mut().zip(keyring.mac(Purpose::Flow, &[self.value.as_bytes()])) {
            *to = from;
        }
        FlowHash(out)
    }

    /// The `Set-Cookie` value that starts this flow.
    #[must_use]
    pub fn set(&self) -> String {
        set_cookie(&self.name, &self.value, &CookieAttributes::default(), LIFETIME)
    }

    /// The `Set-Cookie` values that drop the oldest flows of a browser that sent `fields`, so that with the new one no
    /// more than [`MAX_FLOWS_PER_BROWSER`] stay.
    #[must_use]
    pub fn drop_oldest<'h>(cookie_name: &str, fields: impl Iterator<Item = &'h [u8]>) -> Vec<String> {
        let prefix = Self::prefix(cookie_name);
        let mut names: Vec<&str> = fields
            .flat_map(|field| Self::pairs(field, &prefix))
            .filter_map(|(name, _)| std::str::from_utf8(name).ok())
            .take(64)
            .collect();
        names.sort_unstable();
        let excess = (names.len() + 1).saturating_sub(MAX_FLOWS_PER_BROWSER);
        names.into_iter().take(excess).map(Self::drop_named).collect()
    }

    /// The name of the flow cookie in `fields` whose hash is `wanted`, if the browser holds it.
    #[must_use]
    pub fn find<'h>(
        keyring: &Keyring,
        cookie_name: &str,
        wanted: &FlowHash,
        fields: impl Iterator<Item = &'h [u8]>,
    ) -> Option<String> {
        let prefix = Self::prefix(cookie_name);
        fields
            .flat_map(|field| Self::pairs(field, &prefix))
            .take(64)
            .find(|(_, value)| keyring.verify(Purpose::Flow, &[value], &wanted.0))
            .and_then(|(name, _)| String::from_utf8(name.to_vec()).ok())
    }

    /// The `Set-Cookie` value that ends the flow of that cookie name.
    #[must_use]
    pub fn drop_named(name: &str) -> String {
        delete_cookie(name, &CookieAttributes::default())
    }

    fn pairs<'h>(field: &'h [u8], prefix: &str) -> impl Iterator<Item = (&'h [u8], &'h [u8])> {
        field.split(|byte| *byte == b';').filter_map(move |pair| {
            let pair = pair.trim_ascii();
            let at = pair.iter().position(|byte| *byte == b'=')?;
            let (name, value) = pair.split_at_checked(at)?;
            let plain = name.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'));
            (plain && name.starts_with(prefix.as_bytes())).then(|| (name, value.get(1..).unwrap_or_default()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Secret;

    #[test]
    fn s_054_a_flow_is_found_only_in_the_browser_that_holds_it() {
        let ring = Keyring::derive(&Secret::new([1; 32]), &Secret::new([2; 32]));
        let flow = FlowCookie::begin("_pomerium", Timestamp::from_secs(1_700_000_000)).unwrap();
        let set = flow.set();
        let pair = set.split(';').next().unwrap();
        let hash = flow.hash(&ring);
        assert!(
            FlowCookie::find(&ring, "_pomerium", &hash, [b"a=b".as_slice(), pair.as_bytes()].into_iter()).is_some()
        );
        let other = FlowCookie::begin("_pomerium", Timestamp::from_secs(1_700_000_000)).unwrap();
        assert!(FlowCookie::find(&ring, "_pomerium", &other.hash(&ring), std::iter::once(pair.as_bytes())).is_none());
        assert_eq!(FlowHash::decode(&hash.encode()), Some(hash));
        let rotating = Keyring::derive_with(&Secret::new([3; 32]), &[Secret::new([1; 32])], &Secret::new([2; 32]));
        let found = FlowCookie::find(&rotating, "_pomerium", &hash, std::iter::once(pair.as_bytes()));
        assert!(found.is_some(), "while the secret is replaced");
    }

    #[test]
    fn the_oldest_flows_are_dropped_when_a_browser_holds_five() {
        let held: Vec<String> = (0..6)
            .map(|n| {
                FlowCookie::begin("_p", Timestamp::from_secs(1000 + n))
                    .unwrap()
                    .set()
                    .split(';')
                    .next()
                    .unwrap()
                    .to_owned()
            })
            .collect();
        let field = held.join("; ");
        let dropped = FlowCookie::drop_oldest("_p", std::iter::once(field.as_bytes()));
        assert_eq!(dropped.len(), 2);
        assert!(dropped[0].starts_with(held[0].split('=').next().unwrap()));
        assert!(dropped[0].contains("Max-Age=0"));
        assert!(FlowCookie::drop_oldest("_p", std::iter::empty()).is_empty());
    }
}
