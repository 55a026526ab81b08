//! Who gives identity tokens out: the metadata server of the machine, or the token endpoint of an account.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use postern_identity::Timestamp;
use serde_json::Value;
use url::Url;

use super::{Account, Google};
use crate::https::{self, HttpsError};

/// An answer is not waited for longer.
const WHOLE_CALL: Duration = Duration::from_secs(10);
/// No token is larger.
const LARGEST: usize = 64 * 1024;
/// What a machine's metadata server is asked with, and answers with: nothing else on that address does.
const FLAVOR: (&str, &str) = ("metadata-flavor", "Google");
const GRANT: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub(super) enum SourceError {
    #[error("nobody answers")]
    Unreachable(#[source] reqwest::Error),
    #[error("the answer has status {0}")]
    Status(u16),
    #[error("what answers is no metadata server of Google's")]
    NotGoogle,
    #[error("the answer holds no token")]
    NoToken,
    #[error("the account's key cannot sign")]
    Key(#[from] jsonwebtoken::errors::Error),
}

/// Gives tokens out.
#[derive(Debug)]
pub(super) struct Source {
    client: reqwest::Client,
    google: Google,
}

impl Source {
    pub(super) fn new(google: &Google, extra_roots: Option<&[u8]>) -> Result<Self, HttpsError> {
        Ok(Self { client: https::client(extra_roots, WHOLE_CALL)?, google: google.clone() })
    }

    /// A token for `audience`, and when it expires.
    pub(super) async fn token(&self, audience: &str, now: Timestamp) -> Result<(String, Timestamp), SourceError> {
        let token = match &self.google.account {
            Some(account) => self.of_account(account, audience, now).await?,
            None => self.of_machine(audience).await?,
        };
        let expires_at = expiry(&token).filter(|expiry| *expiry > now).ok_or(SourceError::NoToken)?;
        Ok((token, expires_at))
    }

    async fn of_machine(&self, audience: &str) -> Result<String, SourceError> {
        let place = "computeMetadata/v1/instance/service-accounts/default/identity";
        let url = format!("http://{}/{place}", self.google.metadata);
        let mut url = Url::parse(&url).map_err(|_| SourceError::NotGoogle)?;
        url.query_pairs_mut().append_pair("audience", audience).append_pair("format", "full");
        let answer = self.client.get(url).header(FLAVOR.0, FLAVOR.1).send().await.map_err(unreachable)?;
        if answer.headers().get(FLAVOR.0).is_none_or(|flavor| flavor != FLAVOR.1) {
            return Err(SourceError::NotGoogle);
        }
        let text = String::from_utf8(body(answer).await?).map_err(|_| SourceError::NoToken)?;
        Ok(text.trim().to_owned())
    }

    async fn of_account(&self, account: &Account, audience: &str, now: Timestamp) -> Result<String, SourceError> {
        let assertion = account.assertion(audience, now)?;
        let form = [("grant_type", GRANT), ("assertion", assertion.as_str())];
        let answer = self.client.post(account.token_uri.clone()).form(&form).send().await.map_err(unreachable)?;
        let json: Value = serde_json::from_slice(&body(answer).await?).map_err(|_| SourceError::NoToken)?;
        json.get("id_token").and_then(Value::as_str).map(str::to_owned).ok_or(SourceError::NoToken)
    }
}

/// The body of a 200.
async fn body(answer: reqwest::Response) -> Result<Vec<u8>, SourceError> {
    if answer.status() != reqwest::StatusCode::OK {
        return Err(SourceError::Status(answer.status().as_u16()));
    }
    https::body(answer, LARGEST).await.map_err(unreachable)?.ok_or(SourceError::NoToken)
}

fn unreachable(error: reqwest::Error) -> SourceError {
    SourceError::Unreachable(error.without_url())
}

/// When a token says that it expires. Whoever it is for verifies it; we only have to know when to get another one.
fn expiry(token: &str) -> Option<Timestamp> {
    let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    let claims: Value = serde_json::from_slice(&payload).ok()?;
    claims.get("exp")?.as_i64().map(Timestamp::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_says_itself_when_it_expires() {
        let token = |payload: &str| format!("e30.{}.sig", URL_SAFE_NO_PAD.encode(payload));
        assert_eq!(expiry(&token(r#"{"exp": 1800000000}"#)), Some(Timestamp::from_secs(1_800_000_000)));
        for other in [token("{}"), token("text"), "<html>".to_owned(), String::new(), "a.b.c".to_owned()] {
            assert_eq!(expiry(&other), None, "{other}");
        }
    }
}
