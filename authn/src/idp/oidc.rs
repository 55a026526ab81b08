//! The code flow with a standard provider: what is sent there, and what comes back.

use std::pin::Pin;
use std::time::Duration;

use http::StatusCode;
use openidconnect::core::{
    CoreAuthDisplay, CoreAuthPrompt, CoreErrorResponseType, CoreGenderClaim, CoreJsonWebKey, CoreJsonWebKeySet,
    CoreJweContentEncryptionAlgorithm, CoreJwsSigningAlgorithm, CoreResponseType, CoreRevocableToken,
    CoreRevocationErrorResponse, CoreTokenIntrospectionResponse, CoreTokenType,
};
use openidconnect::{
    AccessToken, AsyncHttpClient, AuthType, AuthUrl, AuthenticationFlow, AuthorizationCode, Client, ClientId,
    ClientSecret, CsrfToken, EmptyAdditionalClaims, EndpointNotSet, EndpointSet, HttpRequest, HttpResponse, IdToken,
    IssuerUrl, Nonce, OAuth2TokenResponse, PkceCodeChallenge, PkceCodeVerifier, RedirectUrl, RefreshToken,
    RequestTokenError, Scope, StandardErrorResponse, TokenResponse, TokenUrl,
};
use postern_identity::Secret;
use serde::{Deserialize, Serialize};
use url::Url;

use super::fetch::{Fetch, FetchError, Operation};
use super::metadata::Metadata;
use super::{CodeGrant, Proof, ProviderError};
use crate::IdpConfig;

/// A client at one provider, for one call.
pub(crate) struct OidcClient(Inner);

type Inner = Client<
    EmptyAdditionalClaims,
    CoreAuthDisplay,
    CoreGenderClaim,
    CoreJweContentEncryptionAlgorithm,
    CoreJsonWebKey,
    CoreAuthPrompt,
    StandardErrorResponse<CoreErrorResponseType>,
    TokenAnswer,
    CoreTokenIntrospectionResponse,
    CoreRevocableToken,
    CoreRevocationErrorResponse,
    EndpointSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointSet,
    EndpointNotSet,
>;

impl OidcClient {
    /// Our client at the provider of that metadata.
    pub(crate) fn new(config: &IdpConfig, metadata: &Metadata, redirect_uri: &Url) -> Result<Self, ProviderError> {
        let issuer = IssuerUrl::new(config.issuer.clone()).map_err(|_| FetchError::NotHttps)?;
        let auth_type = if metadata.secret_in_body { AuthType::RequestBody } else { AuthType::BasicAuth };
        let client = Client::new(ClientId::new(config.client_id.clone()), issuer, CoreJsonWebKeySet::default())
            .set_auth_uri(AuthUrl::from_url(metadata.authorization.clone()))
            .set_token_uri(TokenUrl::from_url(metadata.token.clone()))
            .set_redirect_uri(RedirectUrl::from_url(redirect_uri.clone()))
            .set_auth_type(auth_type);
        Ok(Self(match &config.client_secret {
            Some(secret) => client.set_client_secret(ClientSecret::new(secret.expose().clone())),
            None => client,
        }))
    }

    /// Where the browser goes to sign in: the code flow, with PKCE S256 whatever the metadata says (S-051, S-052).
    pub(crate) fn authorization_url(&self, config: &IdpConfig, proof: &Proof) -> Url {
        let (state, nonce) = (CsrfToken::new(proof.state.clone()), Nonce::new(proof.nonce.clone()));
        let verifier = PkceCodeVerifier::new(proof.verifier.expose().clone());
        let flow = AuthenticationFlow::<CoreResponseType>::AuthorizationCode;
        let mut request = self
            .0
            .authorize_url(flow, move || state, move || nonce)
            .set_pkce_challenge(PkceCodeChallenge::from_code_verifier_sha256(&verifier))
            .add_scopes(config.scopes.iter().filter(|scope| *scope != "openid").cloned().map(Scope::new));
        for (name, value) in config.request_params.iter().filter(|(name, value)| may_be_added(name, value)) {
            request = request.add_extra_param(name.clone(), value.clone());
        }
        request.url().0
    }

    /// Redeems the code at the token endpoint, and only there is the client secret sent (S-070).
    ///
    /// # Errors
    /// [`ProviderError`].
    pub(crate) async fn redeem(&self, fetch: &Fetch, grant: &CodeGrant) -> Result<TokenAnswer, ProviderError> {
        self.0
            .exchange_code(AuthorizationCode::new(grant.code.expose().clone()))
            .set_pkce_verifier(PkceCodeVerifier::new(grant.verifier.expose().clone()))
            .request_async(&TokenEndpoint(fetch))
            .await
            .map_err(|error| failed(error, |_| ProviderError::CodeRefused))
    }

    /// Asks for new tokens (RFC 6749 §6).
    ///
    /// # Errors
    /// [`ProviderError`]; of them only [`ProviderError::GrantRefused`] says that the session is over.
    pub(crate) async fn refresh(&self, fetch: &Fetch, token: &Secret<String>) -> Result<TokenAnswer, ProviderError> {
        let token = RefreshToken::new(token.expose().clone());
        self.0.exchange_refresh_token(&token).request_async(&TokenEndpoint(fetch)).await.map_err(|error| {
            failed(
                error,
                |code| {
                    if ends_the_grant(code) { ProviderError::GrantRefused } else { ProviderError::ClientRefused }
                },
            )
        })
    }
}

fn failed(
    error: RequestTokenError<FetchError, StandardErrorResponse<CoreErrorResponseType>>,
    refused: impl FnOnce(&CoreErrorResponseType) -> ProviderError,
) -> ProviderError {
    match error {
        RequestTokenError::ServerResponse(answer) => refused(answer.error()),
        RequestTokenError::Request(error) => ProviderError::Fetch(error),
        RequestTokenError::Parse(..) => FetchError::Malformed("the token answer cannot be read").into(),
        RequestTokenError::Other(_) => FetchError::Malformed("the token answer is empty or no JSON").into(),
    }
}

/// Whether the provider wants the user, or has withdrawn the grant. The other codes speak of our client, and an operator's
/// mistake there signs nobody out.
fn ends_the_grant(code: &CoreErrorResponseType) -> bool {
    const WANTS_THE_USER: [&str; 5] =
        ["access_denied", "account_selection_required", "consent_required", "interaction_required", "login_required"];
    match code {
        CoreErrorResponseType::InvalidGrant => true,
        CoreErrorResponseType::Extension(code) => WANTS_THE_USER.contains(&code.as_str()),
        CoreErrorResponseType::InvalidClient
        | CoreErrorResponseType::InvalidRequest
        | CoreErrorResponseType::InvalidScope
        | CoreErrorResponseType::UnauthorizedClient
        | CoreErrorResponseType::UnsupportedGrantType => false,
    }
}

/// The library's view of [`Fetch`]. A closure would do, but the compiler cannot see that its future is `Send`.
struct TokenEndpoint<'f>(&'f Fetch);

impl<'c> AsyncHttpClient<'c> for TokenEndpoint<'_> {
    type Error = FetchError;
    type Future = Pin<Box<dyn Future<Output = Result<HttpResponse, FetchError>> + Send + 'c>>;

    fn call(&'c self, request: HttpRequest) -> Self::Future {
        Box::pin(async move {
            let answer = self.0.call(Operation::Token, request).await?;
            // What a provider in trouble says in its body is no refusal.
            if answer.status().is_server_error() || answer.status() == StatusCode::TOO_MANY_REQUESTS {
                return Err(FetchError::Status(answer.status()));
            }
            Ok(answer)
        })
    }
}

/// Parameters that carry the security of the flow are ours alone; the code never comes back in a fragment.
fn may_be_added(name: &str, value: &str) -> bool {
    match name {
        "response_mode" => matches!(value, "query" | "form_post"),
        "client_id"
        | "client_secret"
        | "code_challenge"
        | "code_challenge_method"
        | "nonce"
        | "redirect_uri"
        | "request"
        | "request_uri"
        | "response_type"
        | "scope"
        | "state" => false,
        _ => true,
    }
}

/// The answer of the token endpoint. The ID token stays as it came: it is checked on its own bytes.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct TokenAnswer {
    access_token: AccessToken,
    token_type: CoreTokenType,
    #[serde(default)]
    expires_in: Option<Seconds>,
    #[serde(default)]
    refresh_token: Option<RefreshToken>,
    #[serde(default)]
    id_token: Option<RawToken>,
}

/// Some providers write the number as a text.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(untagged)]
enum Seconds {
    Number(u64),
    Text(String),
}

/// A token that does not print.
#[derive(Clone, Deserialize, Serialize)]
#[serde(transparent)]
struct RawToken(String);

impl std::fmt::Debug for RawToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[redacted]")
    }
}

impl TokenAnswer {
    /// The ID token as it came.
    pub(crate) fn raw_id_token(&self) -> Option<&str> {
        self.id_token.as_ref().map(|token| token.0.as_str())
    }

    /// Whether the access token is used as a bearer, the only way that we know (RFC 6749 §7.1).
    pub(crate) fn is_bearer(&self) -> bool {
        matches!(&self.token_type, CoreTokenType::Bearer)
            || matches!(&self.token_type, CoreTokenType::Extension(kind) if kind.eq_ignore_ascii_case("bearer"))
    }
}

impl OAuth2TokenResponse for TokenAnswer {
    type TokenType = CoreTokenType;

    fn access_token(&self) -> &AccessToken {
        &self.access_token
    }

    fn token_type(&self) -> &CoreTokenType {
        &self.token_type
    }

    fn expires_in(&self) -> Option<Duration> {
        match self.expires_in.as_ref()? {
            Seconds::Number(seconds) => Some(Duration::from_secs(*seconds)),
            Seconds::Text(text) => text.parse().ok().map(Duration::from_secs),
        }
    }

    fn refresh_token(&self) -> Option<&RefreshToken> {
        self.refresh_token.as_ref()
    }

    fn scopes(&self) -> Option<&Vec<Scope>> {
        None
    }
}

impl TokenResponse<EmptyAdditionalClaims, CoreGenderClaim, CoreJweContentEncryptionAlgorithm, CoreJwsSigningAlgorithm>
    for TokenAnswer
{
    /// The library is not asked to read the ID token: `id_token.rs` does, and is stricter.
    fn id_token(
        &self,
    ) -> Option<
        &IdToken<EmptyAdditionalClaims, CoreGenderClaim, CoreJweContentEncryptionAlgorithm, CoreJwsSigningAlgorithm>,
    > {
        None
    }
}
