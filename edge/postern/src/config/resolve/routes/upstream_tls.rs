//! TLS to the upstream of a route (01 §2.12).

use postern_edge::route::{Target, Upstream, UpstreamScheme, UpstreamTls};

use crate::config::Code;
use crate::config::block::Block;
use crate::config::context::Context;
use crate::config::resolve::planned::{authorities, either, host, pair};

/// What the route says of it, for whatever `target` it leads to.
pub(super) fn resolve(cx: &mut Context<'_>, route: &Block<'_>, target: Option<&mut Target>) {
    let (upstream, server) = (host(cx, route, "tls_upstream_server_name"), host(cx, route, "tls_server_name"));
    let custom = either(cx, route, "tls_custom_ca", "tls_custom_ca_file");
    let tls = UpstreamTls {
        skip_verify: route.flag(cx, "tls_skip_verify"),
        name: upstream.or(server),
        authorities: authorities(cx, custom),
        client: pair(cx, route, "tls_client_cert", "tls_client_key"),
    };
    let Some(target) = target else { return };
    match target {
        Target::Upstream(upstream) if is_spoken(upstream) => {
            tell_of_trust(cx, route, &tls);
            refuse_nameless(cx, route, upstream, &tls);
            upstream.tls = Some(Box::new(tls)).filter(|tls| !tls.is_usual());
        }
        Target::Upstream(_) | Target::Redirect(_) | Target::Response { .. } => tell_unused(cx, route),
    }
}

const KEYS: [&str; 9] = [
    "tls_skip_verify",
    "tls_server_name",
    "tls_upstream_server_name",
    "tls_custom_ca",
    "tls_custom_ca_file",
    "tls_client_cert",
    "tls_client_cert_file",
    "tls_client_key",
    "tls_client_key_file",
];

fn is_spoken(upstream: &Upstream) -> bool {
    upstream.endpoints.iter().any(|endpoint| endpoint.scheme.is_tls())
}

/// Whoever is in between can read and change everything (S-118); and then it does not matter whom else is believed.
fn tell_of_trust(cx: &mut Context<'_>, route: &Block<'_>, tls: &UpstreamTls) {
    if !tls.skip_verify {
        return;
    }
    let hint = "name the authority that vouches for it: `tls_custom_ca_file: FILE`";
    let what = "the certificate of this upstream is not looked at: whoever answers is believed";
    cx.advise(Code::UnverifiedUpstream, &route.at("tls_skip_verify"), what, hint);
    for key in ["tls_custom_ca", "tls_custom_ca_file"] {
        if route.find(key).is_some() {
            let what = format!("`{key}` has no effect beside `tls_skip_verify`");
            cx.advise(Code::NoEffect, &route.at(key), what, "remove `tls_skip_verify`");
        }
    }
}

/// A socket has no name that its certificate could have.
fn refuse_nameless(cx: &mut Context<'_>, route: &Block<'_>, upstream: &Upstream, tls: &UpstreamTls) {
    let socket = upstream.endpoints.iter().any(|endpoint| endpoint.scheme == UpstreamScheme::HttpsUnix);
    if socket && tls.name.is_none() && !tls.skip_verify {
        let what = "a socket has no name that its certificate could be held to";
        cx.fatal(Code::BadTo, &route.at("to"), what, "write the name in its certificate as `tls_server_name`");
    }
}

fn tell_unused(cx: &mut Context<'_>, route: &Block<'_>) {
    for key in KEYS {
        let field = route.find(key).filter(|field| field.node.as_text().is_some_and(|text| !is_off(&text)));
        if let Some(field) = field {
            let what = format!("`{key}` has no effect: no upstream of this route is spoken to over TLS");
            cx.advise(Code::NoEffect, &field.key_at(), what, "write an https URL as `to`, or remove the key");
        }
    }
}

fn is_off(text: &str) -> bool {
    text.is_empty() || text.eq_ignore_ascii_case("false")
}
