//! What the provider signs: ID tokens, and access tokens for its own userinfo.

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{Jwk, ThumbprintHash};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use postern_identity::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::state::Issued;
use super::users::User;

/// How long access and ID tokens are good, in seconds.
pub(super) const TOKEN_SECONDS: i64 = 300;

/// The provider's key and name.
pub(super) struct Signer {
    issuer: String,
    client_id: String,
    encoding: EncodingKey,
    decoding: DecodingKey,
    kid: String,
    public: Value,
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signer").field("issuer", &self.issuer).field("kid", &self.kid).finish_non_exhaustive()
    }
}

/// The access token's claims, as far as the provider looks at them.
#[derive(Debug, Deserialize)]
pub(super) struct Access {
    pub(super) sub: String,
    pub(super) family: String,
}

/// The claims of an `id_token_hint`, as far as the provider looks at them.
#[derive(Debug, Deserialize)]
pub(super) struct Hint {
    pub(super) sid: String,
}

impl Signer {
    /// From a P-256 key as PKCS#8 PEM.
    pub(super) fn new(pem: &str, issuer: String, client_id: String) -> Result<Self, jsonwebtoken::errors::Error> {
        let encoding = EncodingKey::from_ec_pem(pem.as_bytes())?;
        let mut public = Jwk::from_encoding_key(&encoding, Algorithm::ES256)?;
        let kid = public.thumbprint(ThumbprintHash::SHA256)?;
        public.common.key_id = Some(kid.clone());
        public.common.public_key_use = Some(jsonwebtoken::jwk::PublicKeyUse::Signature);
        let decoding = DecodingKey::from_jwk(&public)?;
        Ok(Self { issuer, client_id, encoding, decoding, kid, public: json!({ "keys": [public] }) })
    }

    /// The key set, as published.
    pub(super) const fn key_set(&self) -> &Value {
        &self.public
    }

    /// The name of the provider.
    pub(super) fn issuer(&self) -> &str {
        &self.issuer
    }

    /// An access token, for the provider's own use.
    pub(super) fn access_token(&self, issued: &Issued, now: Timestamp) -> Result<String, jsonwebtoken::errors::Error> {
        let claims = json!({
            "iss": self.issuer, "aud": self.issuer, "client_id": self.client_id,
            "sub": issued.browser.user, "family": issued.family, "scope": issued.scope,
            "iat": now.as_secs(), "exp": now.as_secs().saturating_add(TOKEN_SECONDS),
        });
        self.sign("at+jwt", &claims)
    }

    /// The ID token that comes with that access token (OpenID Connect Core §2).
    pub(super) fn id_token(
        &self,
        user: &User,
        issued: &Issued,
        access_token: &str,
        now: Timestamp,
    ) -> Result<String, jsonwebtoken::errors::Error> {
        let hash = digest(&SHA256, access_token.as_bytes());
        let mut claims = claims_of(user);
        let mut put = |name: &str, value: Value| claims.insert(name.to_owned(), value);
        put("iss", json!(self.issuer));
        put("aud", json!(self.client_id));
        put("iat", json!(now.as_secs()));
        put("exp", json!(now.as_secs().saturating_add(TOKEN_SECONDS)));
        put("auth_time", json!(issued.browser.since));
        put("sid", json!(issued.browser.sid));
        put("at_hash", json!(URL_SAFE_NO_PAD.encode(hash.as_ref().get(..16).unwrap_or_default())));
        if let Some(nonce) = &issued.nonce {
            put("nonce", json!(nonce));
        }
        self.sign("JWT", &Value::Object(claims))
    }

    /// The claims of an access token of ours that has not expired.
    pub(super) fn open_access(&self, token: &str) -> Option<Access> {
        let mut rules = self.rules(&self.issuer);
        rules.validate_exp = true;
        let opened = jsonwebtoken::decode::<Access>(token, &self.decoding, &rules).ok()?;
        (opened.header.typ.as_deref() == Some("at+jwt")).then_some(opened.claims)
    }

    /// The claims of an ID token of ours, expired or not (RP-Initiated Logout §4).
    pub(super) fn open_hint(&self, token: &str) -> Option<Hint> {
        let mut rules = self.rules(&self.client_id);
        rules.validate_exp = false;
        jsonwebtoken::decode::<Hint>(token, &self.decoding, &rules).ok().map(|opened| opened.claims)
    }

    fn rules(&self, audience: &str) -> Validation {
        let mut rules = Validation::new(Algorithm::ES256);
        rules.set_issuer(&[&self.issuer]);
        rules.set_audience(&[audience]);
        rules.leeway = 0;
        rules
    }

    fn sign(&self, kind: &str, claims: &Value) -> Result<String, jsonwebtoken::errors::Error> {
        let mut header = Header::new(Algorithm::ES256);
        header.typ = Some(kind.to_owned());
        header.kid = Some(self.kid.clone());
        jsonwebtoken::encode(&header, claims, &self.encoding)
    }
}

/// What the provider says about a person, in ID tokens and userinfo alike.
pub(super) fn claims_of(user: &User) -> serde_json::Map<String, Value> {
    let claims = json!({
        "sub": user.id, "name": user.name(), "given_name": user.given_name, "family_name": user.family_name,
        "preferred_username": user.id, "email": user.email, "email_verified": user.email_verified, "groups": user.groups,
    });
    claims.as_object().cloned().unwrap_or_default()
}
