//! How an application checks the identity assertion: signature, issuer, audience and time, with the key set that the
//! edge publishes.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::{Deserialize, Serialize};

use crate::demo::{DemoError, hosts};

/// What an assertion says, as far as the application shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Identity {
    /// Empty for nobody.
    #[serde(default)]
    pub(super) sub: String,
    #[serde(default)]
    pub(super) email: String,
    #[serde(default)]
    pub(super) name: String,
    #[serde(default)]
    pub(super) groups: Vec<String>,
}

/// Checks assertions.
#[derive(Debug)]
pub(super) struct Verifier {
    client: reqwest::Client,
    url: String,
    cached: Mutex<Option<Cached>>,
}

#[derive(Debug, Clone)]
struct Cached {
    keys: Arc<JwkSet>,
    since: Instant,
}

/// A key set is used this long, and asked for again at most this often when a key is missing.
const FRESH: Duration = Duration::from_secs(300);
const RETRY: Duration = Duration::from_secs(5);
const TIMEOUT: Duration = Duration::from_secs(5);

impl Verifier {
    /// A verifier that asks the edge at `port` of this machine, and trusts `authority` alone.
    pub(super) fn new(port: u16, authority: &str) -> Result<Self, DemoError> {
        let authority = reqwest::Certificate::from_pem(authority.as_bytes()).map_err(DemoError::Client)?;
        let host = format!("{}.localhost", hosts::HELLO);
        let client = reqwest::Client::builder()
            .tls_certs_only([authority])
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            // Not every resolver knows names below localhost.
            .resolve(&host, SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
            .pool_max_idle_per_host(0)
            .timeout(TIMEOUT)
            .build()
            .map_err(DemoError::Client)?;
        let url = format!("https://{host}:{port}/.well-known/pomerium/jwks.json");
        Ok(Self { client, url, cached: Mutex::new(None) })
    }

    /// Who an assertion for `host` names; or why it is not believed.
    pub(super) async fn verify(&self, assertion: &str, host: &str) -> Result<Identity, &'static str> {
        let header = jsonwebtoken::decode_header(assertion).map_err(|_| "the assertion is not a JWT")?;
        let kid = header.kid.ok_or("the assertion names no key")?;
        let keys = self.keys_with(&kid).await?;
        let key = keys.find(&kid).ok_or("the assertion was signed by an unknown key")?;
        let key = DecodingKey::from_jwk(key).map_err(|_| "the key set holds an unusable key")?;
        check(assertion, &key, host)
    }

    /// The key set; asked for again if it is old or lacks that key.
    async fn keys_with(&self, kid: &str) -> Result<Arc<JwkSet>, &'static str> {
        let cached = self.cached.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(Cached { keys, since }) = cached {
            let life = if keys.find(kid).is_some() { FRESH } else { RETRY };
            if since.elapsed() < life {
                return Ok(keys);
            }
        }
        let keys = Arc::new(self.fetch().await.map_err(|_| "the key set could not be fetched")?);
        let cached = Cached { keys: Arc::clone(&keys), since: Instant::now() };
        *self.cached.lock().unwrap_or_else(PoisonError::into_inner) = Some(cached);
        Ok(keys)
    }

    async fn fetch(&self) -> reqwest::Result<JwkSet> {
        self.client.get(&self.url).send().await?.error_for_status()?.json().await
    }
}

fn check(assertion: &str, key: &DecodingKey, host: &str) -> Result<Identity, &'static str> {
    let mut rules = Validation::new(Algorithm::ES256);
    rules.set_issuer(&[host]);
    rules.set_audience(&[host]);
    rules.set_required_spec_claims(&["exp", "iss", "aud"]);
    rules.leeway = 5;
    let opened = jsonwebtoken::decode::<Identity>(assertion, key, &rules);
    opened.map(|opened| opened.claims).map_err(|_| "the assertion is forged, too old or not for this application")
}

#[cfg(test)]
mod tests {
    use super::*;
    use jsonwebtoken::{EncodingKey, Header, encode};
    use serde_json::json;

    fn pair() -> (EncodingKey, DecodingKey) {
        let key = rcgen::KeyPair::generate().unwrap();
        let private = EncodingKey::from_ec_pem(key.serialize_pem().as_bytes()).unwrap();
        (private, DecodingKey::from_ec_pem(key.public_key_pem().as_bytes()).unwrap())
    }

    fn signed(key: &EncodingKey, host: &str, lasts: i64) -> String {
        let exp = i64::try_from(jsonwebtoken::get_current_timestamp()).unwrap() + lasts;
        let claims = json!({"iss": host, "aud": host, "exp": exp, "sub": "alice", "groups": ["admins"]});
        encode(&Header::new(Algorithm::ES256), &claims, key).unwrap()
    }

    #[test]
    fn an_assertion_for_this_host_is_believed() {
        let (private, public) = pair();
        let identity = check(&signed(&private, "hello.localhost", 60), &public, "hello.localhost").unwrap();
        assert_eq!((identity.sub.as_str(), identity.groups), ("alice", vec!["admins".to_owned()]));
    }

    #[test]
    fn an_assertion_for_another_host_of_another_key_or_too_old_is_not() {
        let (private, public) = pair();
        let (stranger, _) = pair();
        for assertion in [
            signed(&private, "admin.localhost", 60),
            signed(&stranger, "hello.localhost", 60),
            signed(&private, "hello.localhost", -60),
        ] {
            assert!(check(&assertion, &public, "hello.localhost").is_err());
        }
    }
}
