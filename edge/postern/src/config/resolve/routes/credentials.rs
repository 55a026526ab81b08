//! Credentials of ours that an upstream is shown: of a Kubernetes service account, and Google's identity tokens (01 §2.1,
//! §2.13).

use std::sync::Arc;

use postern_edge::HeaderRule;
use postern_edge::route::{IdentityToken, Target, Upstream, UpstreamCredentials, bearer};
use url::Url;

use super::to;
use crate::config::Code;
use crate::config::block::Block;
use crate::config::context::Context;
use crate::config::resolve::{planned, secrets};
use crate::config::value::quoted;

const TOKEN: &str = "kubernetes_service_account_token";
const TOKEN_FILE: &str = "kubernetes_service_account_token_file";
const SERVERLESS: &str = "enable_google_cloud_serverless_authentication";

/// What the upstream of `target` is shown of ours, if anything.
pub(super) fn resolve(
    cx: &mut Context<'_>,
    route: &Block<'_>,
    target: Option<&Target>,
) -> Option<Box<UpstreamCredentials>> {
    let kubernetes = kubernetes(cx, route);
    let serverless = route.flag(cx, SERVERLESS);
    let upstream = match target {
        Some(Target::Upstream(upstream)) => upstream,
        other => {
            if (kubernetes.is_some() || serverless) && other.is_some() {
                let what = "credentials of ours have no effect here: this route has no upstream to be shown them";
                cx.advise(Code::NoEffect, &route.at("from"), what, format!("remove `{TOKEN}` and `{SERVERLESS}`"));
            }
            return None;
        }
    };
    let serverless = serverless.then(|| audience(cx, route, upstream)).flatten();
    let serverless = serverless.map(|audience| Arc::new(IdentityToken::new(audience)));
    let found = UpstreamCredentials { kubernetes, serverless };
    if found.is_empty() {
        return None;
    }
    if let Some(endpoint) = upstream.endpoints.iter().find(|endpoint| to::is_exposed(endpoint)) {
        let what = format!("a token of ours goes to {} without encryption", quoted(&endpoint.authority));
        cx.advise(Code::PlainIdentity, &route.at("to"), what, "write an https URL as `to`");
    }
    Some(Box::new(found))
}

/// The token of the service account, as the field that it goes up in.
fn kubernetes(cx: &mut Context<'_>, route: &Block<'_>) -> Option<http::HeaderValue> {
    if planned::are_both(cx, route, TOKEN, TOKEN_FILE) {
        return None;
    }
    let token = secrets::line(cx, route, TOKEN, TOKEN_FILE)?;
    let field = bearer(token.expose());
    if field.is_none() {
        let at = if route.find(TOKEN_FILE).is_some() { TOKEN_FILE } else { TOKEN };
        let what = "this is no token: it is empty, or holds what no token does, such as a space";
        cx.fatal(Code::BadSecret, &route.at(at), what, "give the token alone, in one line, as Kubernetes made it");
    }
    field
}

/// `https://` and the host of the last upstream: for whom its token is.
fn audience(cx: &mut Context<'_>, route: &Block<'_>, upstream: &Upstream) -> Option<String> {
    let last = upstream.endpoints.last()?;
    let url = Url::parse(&format!("https://{}", last.authority)).ok().filter(|_| !last.scheme.is_socket());
    let host = url.and_then(|url| url.host_str().map(str::to_owned));
    if host.is_none() {
        let what = format!("`{SERVERLESS}` needs a host that the token can be for, and a socket has none");
        cx.fatal(
            Code::BadTo,
            &route.at("to"),
            what,
            "write the URL of the service: `to: https://app-abc-ew.a.run.app`",
        );
    }
    host.map(|host| format!("https://{host}"))
}

/// Refuses what a route to a Kubernetes API sets or removes of the fields that say whom a request speaks for: without one of
/// them it would speak for the service account itself.
pub(super) fn refuse_other_words(
    cx: &mut Context<'_>,
    route: &Block<'_>,
    credentials: Option<&UpstreamCredentials>,
    rules: &[HeaderRule],
) {
    if credentials.is_none_or(|credentials| credentials.kubernetes.is_none()) {
        return;
    }
    for rule in rules {
        let (name, key) = match rule {
            HeaderRule::Set(name, _) => (name, "set_request_headers"),
            HeaderRule::Remove(name) => (name, "remove_request_headers"),
        };
        if *name == http::header::AUTHORIZATION || name.as_str().starts_with("impersonate-") {
            let what = format!("`{name}` says at a Kubernetes API who asks, and this route has a token for that");
            cx.fatal(Code::Conflict, &route.at(key), what, format!("take `{name}` out, or remove `{TOKEN}`"));
        }
    }
}
