//! TLS to the upstream (01 §2.12).

use postern_identity::Secret;

use super::{authorities, either, host, pair};
use crate::config::block::Block;
use crate::config::context::Context;

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
    /// `tls_downstream_server_name`: another host that has a certificate here.
    pub downstream_name: Option<String>,
}

pub(super) fn resolve(cx: &mut Context<'_>, route: &Block<'_>) -> UpstreamTls {
    let (upstream, server) = (host(cx, route, "tls_upstream_server_name"), host(cx, route, "tls_server_name"));
    let custom = either(cx, route, "tls_custom_ca", "tls_custom_ca_file");
    UpstreamTls {
        skip_verify: route.flag(cx, "tls_skip_verify"),
        name: upstream.or(server),
        authorities: authorities(cx, custom),
        client: pair(cx, route, "tls_client_cert", "tls_client_key"),
        downstream_name: host(cx, route, "tls_downstream_server_name"),
    }
}
