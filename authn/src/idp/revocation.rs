//! Taking tokens back at the provider (RFC 7009): nobody can use what nobody holds any more.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Request;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use postern_identity::Tokens;
use tracing::debug;
use url::{Url, form_urlencoded};

use super::Idp;
use super::fetch::{FetchError, Operation};
use super::metadata::Metadata;

impl Idp {
    /// Takes these tokens back, if the provider has a place for that: the refresh token, and with it all that came of it
    /// (RFC 7009 §2.1); the access token where there is no other. That it fails is only logged (02 §1.7).
    pub(crate) async fn take_back(&self, tokens: &Tokens) {
        if let Err(error) = self.revoke(tokens).await {
            debug!(postern.idp = self.config.id.as_str(), %error, "tokens could not be taken back");
        }
    }

    async fn revoke(&self, tokens: &Tokens) -> Result<(), FetchError> {
        let metadata = self.metadata().await?;
        let Some(url) = &metadata.revocation else { return Ok(()) };
        let request = self.revocation(&metadata, url, tokens).map_err(|_| FetchError::Malformed("no address"))?;
        let status = self.fetch.call(Operation::Revocation, request).await?.status();
        if status.is_success() { Ok(()) } else { Err(FetchError::Status(status)) }
    }

    fn revocation(&self, metadata: &Metadata, url: &Url, tokens: &Tokens) -> Result<Request<Vec<u8>>, http::Error> {
        let (token, kind) = match &tokens.refresh {
            Some(refresh) => (refresh, "refresh_token"),
            None => (&tokens.access, "access_token"),
        };
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair("token", token.expose()).append_pair("token_type_hint", kind);
        let mut request = Request::post(url.as_str()).header(CONTENT_TYPE, "application/x-www-form-urlencoded");
        match &self.config.client_secret {
            // RFC 6749 §2.3.1: each half is encoded as a form value first.
            Some(secret) if !metadata.secret_in_body => {
                let half = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
                let both = STANDARD.encode(format!("{}:{}", half(&self.config.client_id), half(secret.expose())));
                request = request.header(AUTHORIZATION, format!("Basic {both}"));
            }
            secret => {
                form.append_pair("client_id", &self.config.client_id);
                form.extend_pairs(secret.iter().map(|secret| ("client_secret", secret.expose())));
            }
        }
        request.body(form.finish().into_bytes())
    }
}
