//! What authn is made from, already valid.

use std::sync::Arc;
use std::time::Duration;

use postern_identity::{CookieAttributes, IdpId, Keyring, ProgramHosts, Secret};
use url::Url;

/// A whole authn.
#[derive(Debug, Clone)]
pub struct AuthnConfig {
    /// `authenticate_service_url`, as browsers see it.
    pub url: Url,
    /// All derived keys.
    pub keyring: Arc<Keyring>,
    /// `cookie_name`; authn's own session cookie is `<name>_authenticate`.
    pub cookie_name: String,
    /// How session cookies are written, on authn's host and on the routes'.
    pub cookie: CookieAttributes,
    /// `cookie_expire`: absolute life of a session.
    pub session_lifetime: Duration,
    /// Every identity provider in use; the first is the default.
    pub idps: Vec<IdpConfig>,
    /// `signout_redirect_url`.
    pub sign_out_redirect: Option<Url>,
    /// PEM of `certificate_authority(_file)`, added to the system's roots.
    pub extra_roots: Option<Vec<u8>>,
    /// `programmatic_redirect_domain_whitelist`: where programs may wait for what a sign-in hands them.
    pub programs: ProgramHosts,
    /// The hosts of routes: where a browser may be sent (03 §3.4). Answers for a canonical host and port.
    pub hosts: Arc<dyn RouteHosts>,
}

/// Knows which hosts belong to routes of this deployment; the configuration answers, by the rules of the edge.
pub trait RouteHosts: Send + Sync + std::fmt::Debug {
    /// Whether some route serves this https origin.
    fn serves(&self, url: &Url) -> bool;
}

/// One identity provider and our client there.
#[derive(Debug, Clone)]
pub struct IdpConfig {
    /// Its stable id.
    pub id: IdpId,
    /// Which quirks apply.
    pub kind: ProviderKind,
    /// `idp_provider_url`: the issuer, byte for byte (S-057).
    pub issuer: String,
    /// `idp_client_id`.
    pub client_id: String,
    /// `idp_client_secret`, if any.
    pub client_secret: Option<Secret<String>>,
    /// `idp_scopes`, or the kind's defaults.
    pub scopes: Vec<String>,
    /// `idp_request_params`, or the kind's defaults.
    pub request_params: Vec<(String, String)>,
}

impl IdpConfig {
    /// Whether nothing differs.
    pub(crate) fn is_same_as(&self, other: &Self) -> bool {
        let Self { id, kind, issuer, client_id, client_secret, scopes, request_params } = self;
        (id, kind, issuer, client_id, scopes, request_params)
            == (&other.id, &other.kind, &other.issuer, &other.client_id, &other.scopes, &other.request_params)
            && client_secret.as_ref().map(Secret::expose) == other.client_secret.as_ref().map(Secret::expose)
    }
}

/// `idp_provider` (02 §3.1), as far as discovery and claims suffice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProviderKind {
    /// Any provider by discovery; Keycloak, Dex, Authentik, Zitadel and others.
    Oidc,
    /// `auth0`.
    Auth0,
    /// `azure`.
    Azure,
    /// `cognito`.
    Cognito,
    /// `gitlab`.
    Gitlab,
    /// `google`.
    Google,
    /// `okta`.
    Okta,
    /// `onelogin`.
    OneLogin,
    /// `ping`.
    Ping,
}
