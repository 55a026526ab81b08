//! The ID token: what it must be before anything it says is believed (S-056 to S-067).
//!
//! The signature, the header and the claims are checked here and nowhere else, on the bytes that the provider sent.

use std::time::Duration;

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use postern_identity::{Timestamp, same};
use serde_json::{Map, Value};

use super::json;
use super::key_set::{Algorithm, KeyError, KeySet};

/// 03 §2.
const MAX_LEN: usize = 64 * 1024;
const SKEW: Duration = Duration::from_secs(60);
/// How old a token may be when it comes straight from the token endpoint (S-065).
const MAX_AGE: Duration = Duration::from_secs(600);

/// Why an ID token is not believed; each has a stable reason code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.reason())]
pub(crate) enum IdTokenError {
    Missing,
    TooLarge,
    Malformed,
    Algorithm,
    Header,
    UnknownKey,
    WeakKey,
    Signature,
    Issuer,
    Audience,
    AuthorizedParty,
    Nonce,
    Subject,
    Expired,
    Expiry,
    IssuedAt,
    NotBefore,
    AccessTokenHash,
}

impl IdTokenError {
    /// Whether a token that was duly signed is of or for somebody else: it ends the session that it came for (S-075).
    pub(crate) const fn is_of_another(self) -> bool {
        matches!(self, Self::Issuer | Self::Audience | Self::AuthorizedParty | Self::Subject)
    }

    /// The stable reason.
    pub(crate) const fn reason(self) -> &'static str {
        match self {
            Self::Missing => "id-token-missing",
            Self::TooLarge => "id-token-too-large",
            Self::Malformed => "id-token-malformed",
            Self::Algorithm => "id-token-algorithm",
            Self::Header => "id-token-header",
            Self::UnknownKey => "id-token-key-unknown",
            Self::WeakKey => "id-token-key-weak",
            Self::Signature => "id-token-signature",
            Self::Issuer => "id-token-issuer",
            Self::Audience => "id-token-audience",
            Self::AuthorizedParty => "id-token-azp",
            Self::Nonce => "id-token-nonce",
            Self::Subject => "id-token-subject",
            Self::Expired => "id-token-expired",
            Self::Expiry => "id-token-exp",
            Self::IssuedAt => "id-token-iat",
            Self::NotBefore => "id-token-nbf",
            Self::AccessTokenHash => "id-token-at-hash",
        }
    }
}

/// What the token must say.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expected<'a> {
    pub(crate) issuer: &'a str,
    pub(crate) client_id: &'a str,
    /// What the provider's metadata promises to sign with.
    pub(crate) algorithms: &'a [Algorithm],
    pub(crate) access_token: &'a str,
    /// What the sign-in sent; a refresh sends none (OpenID Connect Core 1.0 §12.2).
    pub(crate) nonce: Option<&'a str>,
    pub(crate) now: Timestamp,
}

/// A token in its form, of which nothing is believed yet.
#[derive(Debug)]
pub(crate) struct Unverified<'t> {
    algorithm: Algorithm,
    kid: Option<String>,
    signed: &'t str,
    signature: &'t str,
    claims: Map<String, Value>,
}

/// The claims of a token that was verified.
#[derive(Clone, Debug)]
pub(crate) struct IdToken {
    /// `sub`.
    pub(crate) subject: String,
    /// All of them.
    pub(crate) claims: Map<String, Value>,
}

impl<'t> Unverified<'t> {
    /// Reads three parts of strict base64url, two of which are JSON objects without repeated names.
    ///
    /// # Errors
    /// [`IdTokenError`].
    pub(crate) fn parse(raw: &'t str) -> Result<Self, IdTokenError> {
        if raw.len() > MAX_LEN {
            return Err(IdTokenError::TooLarge);
        }
        let (signed, signature) = raw.rsplit_once('.').ok_or(IdTokenError::Malformed)?;
        let (header, claims) = signed.split_once('.').ok_or(IdTokenError::Malformed)?;
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| IdTokenError::Malformed);
        let object = |part: &str| json::object(&decode(part)?).ok_or(IdTokenError::Malformed);
        let header = object(header)?;
        let (algorithm, kid) = read_header(&header)?;
        decode(signature)?;
        Ok(Self { algorithm, kid, signed, signature, claims: object(claims)? })
    }

    /// Its claims, for a token that was verified when it was saved.
    pub(crate) fn verified_before(self) -> Map<String, Value> {
        self.claims
    }

    /// Whether `keys` has a key that could vouch for it.
    pub(crate) fn is_known_to(&self, keys: &KeySet) -> bool {
        keys.knows(self.kid.as_deref(), self.algorithm)
    }

    /// The claims, if a published key vouches for them and they are what was expected.
    ///
    /// # Errors
    /// [`IdTokenError`].
    pub(crate) fn verify(self, keys: &KeySet, expected: &Expected<'_>) -> Result<IdToken, IdTokenError> {
        if !expected.algorithms.contains(&self.algorithm) {
            return Err(IdTokenError::Algorithm);
        }
        keys.verify(self.kid.as_deref(), self.algorithm, self.signed.as_bytes(), self.signature).map_err(|error| {
            match error {
                KeyError::Unknown => IdTokenError::UnknownKey,
                KeyError::Weak => IdTokenError::WeakKey,
                KeyError::Signature => IdTokenError::Signature,
            }
        })?;
        let claims = Claims(&self.claims);
        claims.check_parties(expected)?;
        claims.check_times(expected)?;
        claims.check_access_token(self.algorithm, expected.access_token)?;
        let subject = claims.subject().ok_or(IdTokenError::Subject)?.to_owned();
        expected.nonce.map_or(Ok(()), |nonce| claims.check_nonce(nonce))?;
        Ok(IdToken { subject, claims: self.claims })
    }
}

/// Keys come from the published set alone: a header that brings or points to one is refused, as is any extension that we
/// are told to understand (S-061), or a type that says that it is another kind of token (S-096).
fn read_header(header: &Map<String, Value>) -> Result<(Algorithm, Option<String>), IdTokenError> {
    let name = header.get("alg").and_then(Value::as_str).ok_or(IdTokenError::Algorithm)?;
    let algorithm = Algorithm::parse(name).ok_or(IdTokenError::Algorithm)?;
    let is_foreign =
        ["jwk", "jku", "x5u", "x5c", "crit", "b64", "enc", "zip"].iter().any(|name| header.contains_key(*name));
    let is_jwt = |kind: &Value| kind.as_str().is_some_and(|kind| kind.eq_ignore_ascii_case("JWT"));
    if is_foreign || !header.get("typ").is_none_or(is_jwt) {
        return Err(IdTokenError::Header);
    }
    match header.get("kid") {
        None => Ok((algorithm, None)),
        Some(Value::String(kid)) => Ok((algorithm, Some(kid.clone()))),
        Some(_) => Err(IdTokenError::Header),
    }
}

struct Claims<'a>(&'a Map<String, Value>);

impl<'a> Claims<'a> {
    fn text(&self, name: &str) -> Option<&'a str> {
        self.0.get(name).and_then(Value::as_str)
    }

    fn subject(&self) -> Option<&'a str> {
        self.text("sub").filter(|subject| !subject.is_empty())
    }

    fn check_parties(&self, expected: &Expected<'_>) -> Result<(), IdTokenError> {
        if self.text("iss") != Some(expected.issuer) {
            return Err(IdTokenError::Issuer);
        }
        let audiences = self.audiences().ok_or(IdTokenError::Audience)?;
        if !audiences.contains(&expected.client_id) {
            return Err(IdTokenError::Audience);
        }
        let is_ours = |party: &Value| party.as_str() == Some(expected.client_id);
        match self.0.get("azp") {
            Some(party) if is_ours(party) => Ok(()),
            None if audiences.len() == 1 => Ok(()),
            Some(_) | None => Err(IdTokenError::AuthorizedParty),
        }
    }

    /// One text, or a list of nothing but texts.
    fn audiences(&self) -> Option<Vec<&'a str>> {
        match self.0.get("aud")? {
            Value::String(one) => Some(vec![one]),
            Value::Array(many) => many.iter().map(Value::as_str).collect(),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => None,
        }
    }

    fn check_times(&self, expected: &Expected<'_>) -> Result<(), IdTokenError> {
        let now = expected.now;
        let expires = self.time("exp").ok_or(IdTokenError::Expiry)?.ok_or(IdTokenError::Expiry)?;
        if now.minus(SKEW) >= expires {
            return Err(IdTokenError::Expired);
        }
        let issued = self.time("iat").ok_or(IdTokenError::IssuedAt)?.ok_or(IdTokenError::IssuedAt)?;
        if issued > now.plus(SKEW) || issued < now.minus(MAX_AGE) {
            return Err(IdTokenError::IssuedAt);
        }
        match self.time("nbf") {
            None => Ok(()),
            Some(Some(begins)) if begins <= now.plus(SKEW) => Ok(()),
            Some(_) => Err(IdTokenError::NotBefore),
        }
    }

    /// A claim in seconds since the epoch, fractions cut: `None` if it is missing, `Some(None)` if it is no time.
    #[expect(clippy::option_option, reason = "missing and wrong are told apart: `nbf` may be missing, but not wrong")]
    fn time(&self, name: &str) -> Option<Option<Timestamp>> {
        let value = self.0.get(name)?;
        let whole = value.as_i64().or_else(|| fraction(value.as_f64()?));
        Some(whole.filter(|seconds| (0..=LAST_SECOND).contains(seconds)).map(Timestamp::from_secs))
    }

    /// A claim that is there and the very same text (S-056).
    fn check_nonce(&self, nonce: &str) -> Result<(), IdTokenError> {
        let is_same = self.text("nonce").is_some_and(|own| same(own.as_bytes(), nonce.as_bytes()));
        if is_same { Ok(()) } else { Err(IdTokenError::Nonce) }
    }

    fn check_access_token(&self, algorithm: Algorithm, access_token: &str) -> Result<(), IdTokenError> {
        let Some(claimed) = self.0.get("at_hash") else { return Ok(()) };
        let full = digest::digest(algorithm.hash(), access_token.as_bytes());
        let (half, _) = full.as_ref().split_at(full.as_ref().len() / 2);
        let is_same = claimed.as_str().is_some_and(|text| text == URL_SAFE_NO_PAD.encode(half));
        if is_same { Ok(()) } else { Err(IdTokenError::AccessTokenHash) }
    }
}

/// 9999-12-31: later times are mistakes.
const LAST_SECOND: i64 = 253_402_300_799;

#[expect(
    clippy::cast_possible_truncation,
    reason = "`as` saturates, and what is out of range is refused by the caller"
)]
fn fraction(seconds: f64) -> Option<i64> {
    seconds.is_finite().then_some(seconds as i64)
}
