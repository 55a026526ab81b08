//! Identity providers: who vouches for users, and how far they are believed.
//!
//! Everything a provider publishes is fetched when it is first needed and again when it is old, never at start.

mod cached;
mod claims;
mod fetch;
mod id_token;
mod json;
mod key_set;
mod metadata;
mod oidc;
mod refresh;
mod revocation;

use std::sync::Arc;
use std::time::Duration;

use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderMap};
use openidconnect::OAuth2TokenResponse as _;
use postern_identity::{Claims, IdpId, Secret, Timestamp, Tokens, User};
use serde_json::{Map, Value};
use url::Url;

use self::cached::{Cached, Fetched};
use self::fetch::{Fetch, FetchError, Operation};
use self::id_token::{Expected, IdToken, IdTokenError, Unverified};
use self::key_set::KeySet;
use self::metadata::Metadata;
use self::oidc::{OidcClient, TokenAnswer};
use crate::metrics::Metrics;
use crate::{AuthnError, IdpConfig};

pub use self::claims::truth;
pub(crate) use self::fetch::Trust;
use self::refresh::Refreshing;
pub(crate) use self::refresh::{Believed, Granted, REFRESHES_AT_ONCE};

/// How long metadata is fresh.
const METADATA_FRESH: Duration = Duration::from_secs(3600);
/// After a failed discovery the next try waits this long.
const DISCOVERY_GAP: Duration = Duration::from_secs(1);
/// Unknown keys cause no more fetches than this (03 §2).
const KEYS_GAP: Duration = Duration::from_secs(5);
/// How long a key set may be fresh, whatever its cache field says (03 §2).
const KEYS_FRESH: (Duration, Duration) = (Duration::from_secs(300), Duration::from_secs(24 * 3600));

/// What ties an authorization request to its answer; each at least 128 fresh random bits (S-051).
#[derive(Clone, Debug)]
pub(crate) struct Proof {
    pub(crate) state: String,
    pub(crate) nonce: String,
    pub(crate) verifier: Secret<String>,
}

/// A code that came back to the browser that asked for it, and what proves it to the token endpoint.
#[derive(Debug)]
pub(crate) struct CodeGrant {
    pub(crate) code: Secret<String>,
    pub(crate) verifier: Secret<String>,
    pub(crate) nonce: String,
}

/// What the provider vouches for.
#[derive(Debug)]
pub(crate) struct Vouched {
    pub(crate) user: User,
    /// Of the ID token.
    pub(crate) claims: Claims,
    pub(crate) tokens: Tokens,
}

/// Why the provider vouches for nobody.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProviderError {
    /// A call gave nothing that can be used.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// The token endpoint refused the code or our client.
    #[error("the provider refused the code")]
    CodeRefused,
    /// The token endpoint refused the refresh token: the user is to sign in again.
    #[error("the provider refused the refresh token")]
    GrantRefused,
    /// The token endpoint refused our client, or the way that it asked.
    #[error("the provider refused to let our client refresh")]
    ClientRefused,
    /// The ID token is not believed.
    #[error("the ID token is not believed: {0}")]
    Token(#[from] IdTokenError),
    /// The access token is of a kind that we cannot use.
    #[error("the access token is no bearer token")]
    TokenType,
    /// Userinfo speaks of somebody else (S-068).
    #[error("userinfo is about another subject")]
    OtherSubject,
}

impl ProviderError {
    /// The stable reason.
    pub(crate) const fn reason(&self) -> &'static str {
        match self {
            Self::Fetch(error) => error.reason(),
            Self::CodeRefused => "idp-code-refused",
            Self::GrantRefused => "idp-grant-refused",
            Self::ClientRefused => "idp-client-refused",
            Self::Token(error) => error.reason(),
            Self::TokenType => "idp-token-type",
            Self::OtherSubject => "userinfo-subject",
        }
    }

    /// Whether it may pass by itself.
    pub(crate) fn is_temporary(&self) -> bool {
        match self {
            Self::Fetch(error) => error.is_temporary(),
            Self::CodeRefused
            | Self::GrantRefused
            | Self::ClientRefused
            | Self::Token(_)
            | Self::TokenType
            | Self::OtherSubject => false,
        }
    }
}

/// One identity provider, and what is known of it.
#[derive(Debug)]
pub(crate) struct Idp {
    config: IdpConfig,
    redirect_uri: Url,
    trust: Trust,
    fetch: Fetch,
    metadata: Cached<Metadata>,
    keys: Cached<KeySet>,
    /// A provider that hangs holds its own places, nobody else's.
    refreshing: Refreshing,
}

impl Idp {
    /// The provider of that configuration; nothing is asked of it yet. If one of that name and issuer was there `before`, what
    /// is under way at it takes the places of both.
    pub(crate) fn new(
        config: IdpConfig,
        authn: &Url,
        trust: &Trust,
        metrics: Metrics,
        before: Option<&Self>,
    ) -> Result<Self, AuthnError> {
        let before = before.filter(|old| (&old.config.id, &old.config.issuer) == (&config.id, &config.issuer));
        Ok(Self {
            redirect_uri: redirect_uri(authn),
            trust: trust.clone(),
            fetch: Fetch::new(trust, config.id.as_str(), metrics, before.map(|old| &old.fetch))?,
            metadata: Cached::new("metadata", DISCOVERY_GAP),
            keys: Cached::new("keys", KEYS_GAP),
            refreshing: Refreshing::new(before.map(|old| &old.refreshing)),
            config,
        })
    }

    /// Whether it is the provider of that configuration, seen by the same roots, so that what is known of it still holds.
    pub(crate) fn is_of(&self, config: &IdpConfig, authn: &Url, trust: &Trust) -> bool {
        self.config.is_same_as(config) && self.redirect_uri == redirect_uri(authn) && self.trust == *trust
    }

    /// Its id in the configuration.
    pub(crate) const fn id(&self) -> &IdpId {
        &self.config.id
    }

    /// Whether its answer comes as a form that the provider's page posts (so from another site).
    pub(crate) fn answers_by_post(&self) -> bool {
        self.config.request_params.iter().any(|(name, value)| name == "response_mode" && value == "form_post")
    }

    /// Where the browser goes to sign in.
    ///
    /// # Errors
    /// [`ProviderError`].
    pub(crate) async fn authorization_url(&self, proof: &Proof) -> Result<Url, ProviderError> {
        let client = OidcClient::new(&self.config, &*self.metadata().await?, &self.redirect_uri)?;
        Ok(client.authorization_url(&self.config, proof))
    }

    /// Whether an authorization answer that names this issuer, or none, can be of this provider (S-058, RFC 9207 §2.4).
    ///
    /// # Errors
    /// [`ProviderError`].
    pub(crate) async fn answers_as(&self, issuer: Option<&str>) -> Result<bool, ProviderError> {
        match issuer {
            Some(issuer) => Ok(issuer == self.config.issuer),
            None => Ok(!self.metadata().await?.names_issuer),
        }
    }

    /// Redeems a code for the user it stands for.
    ///
    /// # Errors
    /// [`ProviderError`].
    pub(crate) async fn redeem(&self, grant: &CodeGrant, now: Timestamp) -> Result<Vouched, ProviderError> {
        let metadata = self.metadata().await?;
        let client = OidcClient::new(&self.config, &metadata, &self.redirect_uri)?;
        let answer = client.redeem(&self.fetch, grant).await?;
        if !answer.is_bearer() {
            return Err(ProviderError::TokenType);
        }
        let token = self.verify(&metadata, &answer, Some(&grant.nonce), now).await?;
        let userinfo = self.userinfo(&metadata, answer.access_token().secret(), &token.subject).await?;
        let user = claims::user(self.config.kind, &self.config.issuer, &token.subject, &token.claims, userinfo);
        Ok(Vouched { user, claims: claims::session_claims(&token.claims), tokens: tokens(&answer, now) })
    }

    /// Where the browser goes to end its session at the provider too (RP-initiated logout), if there is such a place.
    pub(crate) async fn end_session_url(&self, id_token: Option<&str>, back_to: &Url) -> Option<Url> {
        let metadata = self.metadata().await.ok()?;
        let mut url = metadata.end_session.clone()?;
        {
            let mut pairs = url.query_pairs_mut();
            pairs.extend_pairs(id_token.map(|token| ("id_token_hint", token)));
            pairs.append_pair("client_id", &self.config.client_id);
            pairs.append_pair("post_logout_redirect_uri", back_to.as_str());
        }
        Some(url)
    }

    async fn verify(
        &self,
        metadata: &Metadata,
        answer: &TokenAnswer,
        nonce: Option<&str>,
        now: Timestamp,
    ) -> Result<IdToken, ProviderError> {
        let token = Unverified::parse(answer.raw_id_token().ok_or(IdTokenError::Missing)?)?;
        let fetch = async || self.fetch_keys(&metadata.keys).await;
        let keys = self.keys.find(|keys| token.is_known_to(keys), fetch).await?;
        let expected = Expected {
            issuer: &self.config.issuer,
            client_id: &self.config.client_id,
            algorithms: &metadata.algorithms,
            access_token: answer.access_token().secret(),
            nonce,
            now,
        };
        Ok(token.verify(&keys, &expected)?)
    }

    /// What userinfo says of `subject`, and of nobody else (S-068); nothing if the provider has none.
    async fn userinfo(
        &self,
        metadata: &Metadata,
        access_token: &str,
        subject: &str,
    ) -> Result<Map<String, Value>, ProviderError> {
        let Some(url) = &metadata.userinfo else { return Ok(Map::new()) };
        let answer = self.fetch.read(Operation::Userinfo, url, Some(access_token)).await?;
        if !is_json(answer.headers()) {
            return Err(FetchError::Malformed("userinfo is no JSON").into());
        }
        let userinfo = json::object(answer.body()).ok_or(FetchError::Malformed("userinfo is no JSON object"))?;
        match userinfo.get("sub").and_then(Value::as_str) {
            Some(own) if own == subject => Ok(userinfo),
            Some(_) | None => Err(ProviderError::OtherSubject),
        }
    }

    async fn metadata(&self) -> Result<Arc<Metadata>, FetchError> {
        self.metadata.find(|_| true, async || self.discover().await).await
    }

    async fn discover(&self) -> Result<Fetched<Metadata>, FetchError> {
        let address = Metadata::address(&self.config.issuer).ok_or(FetchError::NotHttps)?;
        let answer = self.fetch.read(Operation::Discovery, &address, None).await?;
        Ok(Fetched { value: Metadata::parse(answer.body(), &self.config.issuer)?, fresh_for: METADATA_FRESH })
    }

    async fn fetch_keys(&self, address: &Url) -> Result<Fetched<KeySet>, FetchError> {
        let answer = self.fetch.read(Operation::Keys, address, None).await?;
        let value = KeySet::parse(answer.body()).map_err(FetchError::Malformed)?;
        Ok(Fetched { value, fresh_for: max_age(answer.headers()).clamp(KEYS_FRESH.0, KEYS_FRESH.1) })
    }
}

fn redirect_uri(authn: &Url) -> Url {
    crate::visit::at(authn, "/oauth2/callback")
}

fn tokens(answer: &TokenAnswer, now: Timestamp) -> Tokens {
    Tokens {
        access: Secret::new(answer.access_token().secret().clone()),
        access_expires_at: answer.expires_in().map(|life| now.plus(life)),
        refresh: answer.refresh_token().map(|token| Secret::new(token.secret().clone())),
        id_token: Secret::new(answer.raw_id_token().unwrap_or_default().to_owned()),
        refresh_at: None,
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let essence = kind.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json")
}

/// `max-age` of `Cache-Control`; zero if there is none (RFC 9111 §5.2.2.1).
fn max_age(headers: &HeaderMap) -> Duration {
    let fields = headers.get_all(CACHE_CONTROL).iter().filter_map(|field| field.to_str().ok());
    let mut ages = fields.flat_map(|field| field.split(',')).filter_map(|directive| {
        let (name, value) = directive.trim().split_once('=')?;
        if name.eq_ignore_ascii_case("max-age") { value.trim_matches('"').parse().ok() } else { None }
    });
    Duration::from_secs(ages.next().unwrap_or(0))
}
