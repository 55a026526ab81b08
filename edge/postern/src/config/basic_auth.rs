//! A user and a password that stand before an address for operators.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;

use super::watched::hash;

/// A user and a password, of which only the SHA-256 is kept.
#[derive(Clone, PartialEq, Eq)]
pub struct BasicAuth {
    digest: [u8; 32],
}

impl BasicAuth {
    /// Of `user:password`; none if there is no colon in it.
    pub(super) fn of(pair: &[u8]) -> Option<Self> {
        pair.contains(&b':').then(|| hash(pair)).flatten().map(|digest| Self { digest })
    }

    /// Whether an `Authorization` field shows them (RFC 7617).
    #[must_use]
    pub fn admits(&self, authorization: Option<&HeaderValue>) -> bool {
        let shown = authorization.and_then(|value| value.to_str().ok()?.split_once(' '));
        let pair = shown.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("basic"));
        let digest = pair.and_then(|(_, pair)| STANDARD.decode(pair.trim()).ok()).and_then(|pair| hash(&pair));
        digest.is_some_and(|digest| postern_identity::same(&digest, &self.digest))
    }
}

/// A password that is easy to guess can be guessed from its hash.
impl fmt::Debug for BasicAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BasicAuth([redacted])")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_pair_itself_is_admitted_and_it_never_prints() {
        let auth = BasicAuth::of(b"prom:hunter:2").unwrap();
        let admits = |text: &str| auth.admits(Some(&HeaderValue::from_str(text).unwrap()));
        let basic = |pair: &str| format!("Basic {}", STANDARD.encode(pair));
        assert!(admits(&basic("prom:hunter:2")) && admits(&basic("prom:hunter:2").replace("Basic", "bAsIc")));
        for wrong in
            [basic("prom:hunter"), basic("prom:"), basic(""), "Basic".to_owned(), "Bearer x".to_owned(), String::new()]
        {
            assert!(!admits(&wrong), "{wrong}");
        }
        assert!(!auth.admits(None));
        assert_eq!(BasicAuth::of(b"prom"), None);
        assert_eq!(format!("{auth:?}"), "BasicAuth([redacted])");
    }
}
