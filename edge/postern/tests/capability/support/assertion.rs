//! Verifies an identity assertion as an upstream would: with the key set that its host publishes.

use anyhow::{Context, Result, ensure};
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{DecodingKey, Validation, decode, decode_header};
use serde_json::Value;

use super::Browser;

/// The keys that a host publishes.
#[derive(Debug, Clone)]
pub(crate) struct Keys(JwkSet);

impl Keys {
    /// Those at `origin`.
    pub(crate) async fn at(browser: &mut Browser, origin: &str) -> Result<Self> {
        let published = browser.peek(format!("{origin}/.well-known/pomerium/jwks.json")).await?;
        ensure!(!published.body.contains("\"d\""), "a private key is published: {}", published.body);
        Ok(Self(published.json()?))
    }

    /// The claims of an assertion made for `host`, verified (03 S-042 to S-044).
    pub(crate) fn verified(&self, host: &str, assertion: &str) -> Result<Value> {
        let header = decode_header(assertion)?;
        let key = self.0.find(header.kid.as_deref().context("no kid")?).context("the kid is not published")?;
        let mut rules = Validation::new(header.alg);
        rules.set_audience(&[host]);
        rules.set_issuer(&[host]);
        rules.set_required_spec_claims(&["iss", "aud", "sub", "iat", "exp", "jti"]);
        Ok(decode(assertion, &DecodingKey::from_jwk(key)?, &rules)?.claims)
    }
}

/// The claims of an assertion made for `host`, verified with the key set at `origin`.
pub(crate) async fn verified(browser: &mut Browser, origin: &str, host: &str, assertion: &str) -> Result<Value> {
    Keys::at(browser, origin).await?.verified(host, assertion)
}
