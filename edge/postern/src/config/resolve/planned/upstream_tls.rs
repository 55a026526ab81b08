//! TLS to the upstream (01 §2.12), and certificates of the clients of one route (01 §1.6).

use postern_identity::Secret;

use super::{authorities, either, host};
use crate::config::Code;
use crate::config::block::Block;
use crate::config::context::Context;
use crate::config::resolve::certificates;

/// `tls_*` of a route.
#[derive(Debug, Clone, Default)]
pub struct UpstreamTls {
    /// `tls_skip_verify`: whatever the upstream shows will do.
    pub skip_verify: bool,
    /// `tls_upstream_server_name`, else `tls_server_name`: the name that it must have; `None` is the host of the URL.
    pub name: Option<String>,
    /// `tls_custom_ca(_file)`, as PEM: it takes the place of all other authorities.
    pub authorities: Option<Vec<u8>>,
    /// `tls_client_cert(_file)` and `tls_client_key(_file)`, as PEM.
    pub client: Option<(Vec<u8>, Secret<Vec<u8>>)>,
    /// `tls_downstream_client_ca(_file)`, as PEM: who vouches for clients of this route.
    pub client_authorities: Option<Vec<u8>>,
    /// `tls_downstream_server_name`: another host that has a certificate here.
    pub downstream_name: Option<String>,
}

pub(super) fn resolve(cx: &mut Context<'_>, route: &Block<'_>) -> UpstreamTls {
    let (upstream, server) = (host(cx, route, "tls_upstream_server_name"), host(cx, route, "tls_server_name"));
    let custom = either(cx, route, "tls_custom_ca", "tls_custom_ca_file");
    let downstream = either(cx, route, "tls_downstream_client_ca", "tls_downstream_client_ca_file");
    UpstreamTls {
        skip_verify: route.flag(cx, "tls_skip_verify"),
        name: upstream.or(server),
        authorities: authorities(cx, custom),
        client: client(cx, route),
        client_authorities: authorities(cx, downstream),
        downstream_name: host(cx, route, "tls_downstream_server_name"),
    }
}

fn client(cx: &mut Context<'_>, route: &Block<'_>) -> Option<(Vec<u8>, Secret<Vec<u8>>)> {
    let written = |key: &str| route.find(key).or(route.find(&format!("{key}_file")));
    let half = match (written("tls_client_cert"), written("tls_client_key")) {
        (Some(_), Some(_)) => None,
        (Some(half), None) | (None, Some(half)) => Some(half.at.clone()),
        (None, None) => return None,
    };
    if let Some(at) = half {
        let what = "a client certificate and its key go together, and one of them is missing";
        cx.fatal(Code::MissingKey, &at, what, "write both `tls_client_cert_file` and `tls_client_key_file`");
        return None;
    }
    let certificate = either(cx, route, "tls_client_cert", "tls_client_cert_file");
    let key = either(cx, route, "tls_client_key", "tls_client_key_file");
    let ((at, certificate), key) = (certificate?, Secret::new(key?.1));
    certificates::matching(cx, &at, &certificate, &key).then_some((certificate, key))
}
