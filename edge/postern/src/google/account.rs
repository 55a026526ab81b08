//! A service account as Google gives it away: a JSON file with its key.

use std::fmt;

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use postern_identity::{Secret, Timestamp};
use serde_json::{Value, json};
use url::Url;

/// A service account.
#[derive(Clone)]
pub struct Account {
    email: String,
    key_id: Option<String>,
    key: EncodingKey,
    /// The PEM that `key` was read from: two accounts are the same if it is.
    pem: Secret<String>,
    /// Where its tokens are given out.
    pub token_uri: Url,
}

/// Where the tokens of an account are given out that does not say it.
const TOKEN_URI: &str = "https://oauth2.googleapis.com/token";
/// How long what we sign of ourselves is good for; no more is taken.
const LIFETIME: i64 = 3600;

impl Account {
    /// Reads the file.
    ///
    /// # Errors
    /// What is missing or cannot be used.
    pub fn parse(json: &str) -> Result<Self, &'static str> {
        let Ok(Value::Object(object)) = serde_json::from_str(json) else { return Err("it is no JSON object") };
        let text = |name: &str| object.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
        if text("type").is_some_and(|kind| kind != "service_account") {
            return Err("its `type` is not `service_account`");
        }
        let email = text("client_email").ok_or("it has no `client_email`")?.to_owned();
        let pem = text("private_key").ok_or("it has no `private_key`")?;
        let key = EncodingKey::from_rsa_pem(pem.as_bytes()).map_err(|_| "its `private_key` is no RSA key in PEM")?;
        let token_uri = Url::parse(text("token_uri").unwrap_or(TOKEN_URI)).map_err(|_| "its `token_uri` is no URL")?;
        let key_id = text("private_key_id").map(str::to_owned);
        Ok(Self { email, key_id, key, pem: Secret::new(pem.to_owned()), token_uri })
    }

    /// What this account says of itself, to be given a token for `audience`.
    ///
    /// # Errors
    /// The key cannot sign.
    pub(super) fn assertion(&self, audience: &str, now: Timestamp) -> Result<String, jsonwebtoken::errors::Error> {
        let header = Header { kid: self.key_id.clone(), ..Header::new(Algorithm::RS256) };
        let claims = json!({
            "iss": self.email,
            "sub": self.email,
            "aud": self.token_uri,
            "target_audience": audience,
            "iat": now.as_secs(),
            "exp": now.as_secs() + LIFETIME,
        });
        jsonwebtoken::encode(&header, &claims, &self.key)
    }
}

impl PartialEq for Account {
    fn eq(&self, other: &Self) -> bool {
        let same = |a: &Self, b: &Self| (&a.email, &a.key_id, &a.token_uri) == (&b.email, &b.key_id, &b.token_uri);
        same(self, other) && postern_identity::same(self.pem.expose().as_bytes(), other.pem.expose().as_bytes())
    }
}

impl Eq for Account {}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Account")
            .field("email", &self.email)
            .field("token_uri", &self.token_uri.as_str())
            .finish_non_exhaustive()
    }
}
