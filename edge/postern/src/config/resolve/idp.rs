//! Identity providers: the one of the file, and the clients that routes override (01 §1.8, 02 §3.1).

use std::sync::Arc;

use postern_authn::{IdpConfig, ProviderKind};
use postern_edge::route::Route;
use postern_identity::{IdpId, Secret};

use super::secrets;
use crate::config::block::Block;
use crate::config::context::Context;
use crate::config::value::quoted;
use crate::config::{At, Code, Role};

/// What is known of a kind of provider.
#[derive(Debug)]
struct Kind {
    name: &'static str,
    kind: ProviderKind,
    issuer: Option<&'static str>,
    scopes: &'static [&'static str],
    params: &'static [(&'static str, &'static str)],
}

const USUAL: &[&str] = &["openid", "profile", "email", "offline_access"];
const WITHOUT_OFFLINE: &[&str] = &["openid", "profile", "email"];
const ONELOGIN: &[&str] = &["openid", "profile", "email", "groups", "offline_access"];

static KINDS: &[Kind] = &[
    Kind { name: "oidc", kind: ProviderKind::Oidc, issuer: None, scopes: USUAL, params: &[] },
    Kind { name: "auth0", kind: ProviderKind::Auth0, issuer: None, scopes: USUAL, params: &[] },
    Kind {
        name: "azure",
        kind: ProviderKind::Azure,
        issuer: Some("https://login.microsoftonline.com/common/v2.0"),
        scopes: USUAL,
        params: &[("prompt", "select_account")],
    },
    Kind { name: "cognito", kind: ProviderKind::Cognito, issuer: None, scopes: WITHOUT_OFFLINE, params: &[] },
    Kind {
        name: "gitlab",
        kind: ProviderKind::Gitlab,
        issuer: Some("https://gitlab.com"),
        scopes: WITHOUT_OFFLINE,
        params: &[],
    },
    Kind {
        name: "google",
        kind: ProviderKind::Google,
        issuer: Some("https://accounts.google.com"),
        scopes: WITHOUT_OFFLINE,
        params: &[("prompt", "select_account consent"), ("access_type", "offline")],
    },
    Kind { name: "okta", kind: ProviderKind::Okta, issuer: None, scopes: USUAL, params: &[] },
    Kind {
        name: "onelogin",
        kind: ProviderKind::OneLogin,
        issuer: Some("https://openid-connect.onelogin.com/oidc"),
        scopes: ONELOGIN,
        params: &[],
    },
    Kind { name: "ping", kind: ProviderKind::Ping, issuer: None, scopes: USUAL, params: &[] },
];

const NOT_YET: [&str; 3] = ["apple", "github", "hosted"];

/// Every provider in use, the default one first.
#[derive(Debug)]
pub(super) struct Idps {
    pub(super) list: Vec<IdpConfig>,
    /// An edge alone never speaks to the provider: it keeps no client's secret.
    keeps_secrets: bool,
    /// Something about the default provider has been refused already.
    refused: bool,
}

pub(super) fn resolve(cx: &mut Context<'_>, settings: &Block<'_>, role: Role) -> Idps {
    let before = cx.problems.count(crate::config::Severity::Fatal);
    let default = default(cx, settings, role);
    let refused = cx.problems.count(crate::config::Severity::Fatal) > before;
    Idps { list: default.into_iter().collect(), keeps_secrets: role != Role::Edge, refused }
}

impl Idps {
    /// The provider of a route: the default one, or the same with the route's own client.
    pub(super) fn of_route(&mut self, cx: &mut Context<'_>, route: &Block<'_>) -> IdpId {
        let client_id = route.filled(cx, "idp_client_id");
        let secret = route.filled(cx, "idp_client_secret");
        if let Some(secret) = &secret {
            secrets::tell_inline(cx, &secret.at, "idp_client_secret", "idp_client_secret_file");
        }
        let secret = secret.filter(|_| self.keeps_secrets);
        let Some(default) = self.list.first() else { return IdpId::new("none") };
        if client_id.is_none() && secret.is_none() {
            return default.id.clone();
        }
        let mut own = default.clone();
        own.client_id = client_id.map_or(own.client_id, |id| id.value);
        own.client_secret = secret.map_or(own.client_secret, |secret| Some(Secret::new(secret.value)));
        own.id = id(own.kind, &own.issuer, &own.client_id);
        let id = own.id.clone();
        match self.list.iter().find(|known| known.id == id) {
            None => self.list.push(own),
            Some(known) if same_secret(known, &own) => {}
            Some(_) => {
                let what = format!("the client {} has two secrets", quoted(&own.client_id));
                let hint = "write the secret of a client once, or the same one everywhere";
                cx.fatal(Code::Conflict, &route.at("idp_client_secret"), what, hint);
            }
        }
        id
    }

    /// Refuses routes that ask people to sign in where no provider could vouch for them.
    pub(super) fn finish(&self, cx: &mut Context<'_>, settings: &Block<'_>, routes: &[Arc<Route>]) {
        let guarded = routes.iter().find(|route| !route.public);
        if let (Some(route), true, false) = (guarded, self.list.is_empty(), self.refused) {
            let what = format!(
                "the route {} lets people in after they signed in, and no identity provider is configured",
                quoted(&route.name)
            );
            let hint = "write `idp_provider: oidc`, `idp_provider_url`, `idp_client_id` and `idp_client_secret_file`";
            cx.fatal(Code::NoProvider, &settings.at("idp_provider"), what, hint);
        }
    }
}

fn same_secret(a: &IdpConfig, b: &IdpConfig) -> bool {
    let bytes = |idp: &IdpConfig| idp.client_secret.as_ref().map(|secret| secret.expose().clone().into_bytes());
    match (bytes(a), bytes(b)) {
        (Some(a), Some(b)) => postern_identity::same(&a, &b),
        (None, None) => true,
        (Some(_), None) | (None, Some(_)) => false,
    }
}

fn default(cx: &mut Context<'_>, settings: &Block<'_>, role: Role) -> Option<IdpConfig> {
    let kind = kind(cx, settings)?;
    let issuer = issuer(cx, settings, kind);
    let hint = "write the client id that the provider gave you";
    let client_id = settings.required(cx, "idp_client_id", "`idp_client_id` is missing", hint);
    let client_secret = (role != Role::Edge)
        .then(|| secrets::line(cx, settings, "idp_client_secret", "idp_client_secret_file"))
        .flatten();
    let scopes = settings.names(cx, "idp_scopes");
    let params = settings.pairs(cx, "idp_request_params").filter(|params| !params.is_empty());
    let (issuer, client_id) = (issuer?, client_id?.value);
    Some(IdpConfig {
        id: id(kind.kind, &issuer, &client_id),
        kind: kind.kind,
        issuer,
        client_id,
        client_secret,
        scopes: if scopes.is_empty() { owned(kind.scopes) } else { scopes },
        request_params: params.map_or_else(
            || pairs(kind.params),
            |params| params.into_iter().map(|(name, value)| (name.value, value.value)).collect(),
        ),
    })
}

fn owned(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn kind(cx: &mut Context<'_>, settings: &Block<'_>) -> Option<&'static Kind> {
    let Some(name) = settings.filled(cx, "idp_provider") else {
        for key in ["idp_provider_url", "idp_client_id", "idp_client_secret", "idp_client_secret_file"] {
            if settings.find(key).is_some() {
                let at = settings.at(key);
                cx.fatal(
                    Code::NoProvider,
                    &at,
                    format!("`{key}` says nothing without `idp_provider`"),
                    "write `idp_provider: oidc`",
                );
                break;
            }
        }
        return None;
    };
    let lower = name.value.to_ascii_lowercase();
    let found = KINDS.iter().find(|kind| kind.name == lower);
    if found.is_none() {
        let known: Vec<_> = KINDS.iter().map(|kind| format!("`{}`", kind.name)).collect();
        let (code, what) = if NOT_YET.contains(&lower.as_str()) {
            (Code::NotYet, format!("the provider {} is not supported yet", quoted(&name.value)))
        } else {
            (Code::BadChoice, format!("there is no provider {}", quoted(&name.value)))
        };
        let hint = format!(
            "write `oidc` for any provider with OpenID discovery (Keycloak, Dex, Authentik, Zitadel), or one of {}",
            known.join(", ")
        );
        cx.fatal(code, &name.at, what, hint);
    }
    found
}

/// The issuer, byte for byte as written (S-057); an Auth0 issuer ends in a slash (02 §3.1).
fn issuer(cx: &mut Context<'_>, settings: &Block<'_>, kind: &Kind) -> Option<String> {
    let Some(text) = settings.filled(cx, "idp_provider_url") else {
        let Some(issuer) = kind.issuer else {
            let what = format!("`idp_provider: {}` needs `idp_provider_url`", kind.name);
            cx.fatal(Code::MissingKey, &settings.at("idp_provider"), what, "write the issuer URL of the provider");
            return None;
        };
        refuse_all_tenants(cx, &settings.at("idp_provider"), kind, issuer);
        return Some(issuer.to_owned());
    };
    let url = settings.find("idp_provider_url")?.url(cx)?;
    refuse_plain(cx, &text.at, &url);
    refuse_all_tenants(cx, &text.at, kind, &text.value);
    let slash = if kind.kind == ProviderKind::Auth0 && !text.value.ends_with('/') { "/" } else { "" };
    Some(format!("{}{slash}", text.value.trim()))
}

/// Azure's issuer for everybody names no tenant, so no token ever has it (S-057).
fn refuse_all_tenants(cx: &mut Context<'_>, at: &At, kind: &Kind, issuer: &str) {
    let everybody = ["/common/", "/organizations/", "/consumers/"].iter().any(|part| issuer.contains(part));
    if kind.kind == ProviderKind::Azure && everybody {
        let what = "signing in with every tenant of Azure is not supported yet";
        cx.fatal(Code::NotYet, at, what, "write `idp_provider_url: https://login.microsoftonline.com/TENANT/v2.0`");
    }
}

/// Codes and tokens go only over TLS, except on this machine (S-070).
pub(super) fn refuse_plain(cx: &mut Context<'_>, at: &At, url: &url::Url) {
    if url.scheme() == "http" && !super::authenticate::is_loopback(url) {
        let what = "the identity provider would be asked without TLS";
        cx.fatal(Code::BadUrl, at, what, "write an https URL; http is for a provider on this machine only");
    }
}

/// A stable id that a change of the client secret does not change (02 §3.1).
fn id(kind: ProviderKind, issuer: &str, client_id: &str) -> IdpId {
    IdpId::new(super::routes::digest(&[&format!("{kind:?}"), issuer, client_id]))
}
