//! Keys that nothing acts on yet: read, checked and made into the types that will be acted on. `check` says of each that it
//! is not supported yet until then.

mod access;
mod branding;
mod cluster;
mod listener;
mod mcp;
mod metrics;
mod ssh;
mod tokens;
mod tracing;
mod tunnel;

use postern_identity::Secret;
use regex::Regex;

pub use access::{RouteAccess, SubPolicy};
pub use branding::Branding;
pub use cluster::{BlobStorage, Cluster, ClusterNode};
pub use listener::Listener;
pub use mcp::{Mcp, McpOauth2, McpServer};
pub use metrics::MetricsTls;
pub use ssh::Ssh;
pub(super) use tokens::format as token_format;
pub use tokens::{BearerTokens, IdentityProvider, TokenFormat};
pub use tracing::{Otlp, OtlpProtocol, Tracing};
pub use tunnel::{Carried, Endpoint, Scheme, Tunnel};

use super::certificates;
use super::flags::Flags;
use crate::config::block::Block;
use crate::config::context::Context;
use crate::config::value::{Spanned, quoted};
use crate::config::{At, Code};

/// What the top of the file asks for, and each route that asks for something.
#[derive(Debug, Clone, Default)]
pub struct Planned {
    /// Listeners.
    pub listener: Listener,
    /// Bearer tokens in place of a session.
    pub tokens: BearerTokens,
    /// SSH.
    pub ssh: Ssh,
    /// Several stores that agree.
    pub cluster: Cluster,
    /// `blob_storage`.
    pub blob_storage: Option<BlobStorage>,
    /// How metrics are encrypted.
    pub metrics_tls: Option<MetricsTls>,
    /// Where traces go.
    pub tracing: Tracing,
    /// How pages look.
    pub branding: Branding,
    /// `mcp_allowed_client_id_domains`.
    pub mcp_client_domains: Vec<String>,
    /// `mcp_allowed_as_metadata_domains`.
    pub mcp_metadata_domains: Vec<String>,
    /// Routes of SSH: the key of each, and what is asked for.
    pub tunnels: Vec<(String, Tunnel)>,
    /// Upstreams that are not dialled yet: the key of each route, and its upstreams.
    pub endpoints: Vec<(String, Vec<Endpoint>)>,
    /// In the order of the file.
    pub routes: Vec<PlannedRoute>,
}

/// What one route asks for.
#[derive(Debug, Clone)]
pub struct PlannedRoute {
    /// Its key: `routes[3]`.
    pub key: String,
    /// Who may pass, with what, and what else is opened for them.
    pub access: RouteAccess,
    /// `mcp`.
    pub mcp: Option<Mcp>,
    /// `identity_providers`: the names of those whose tokens are taken here; none: of all.
    pub identity_providers: Vec<String>,
    /// `logo_url`.
    pub logo_url: Option<String>,
}

pub(super) fn resolve(cx: &mut Context<'_>, settings: &Block<'_>, flags: Flags, format: TokenFormat) {
    if !settings.asks_ahead {
        return;
    }
    cx.planned = Planned {
        listener: listener::resolve(cx, settings),
        tokens: tokens::resolve(cx, settings, format),
        ssh: ssh::resolve(cx, settings),
        cluster: cluster::resolve(cx, settings),
        blob_storage: cluster::blob_storage(cx, settings),
        metrics_tls: metrics::tls(cx, settings),
        tracing: tracing::resolve(cx, settings),
        branding: branding::resolve(cx, settings),
        mcp_client_domains: mcp::domains(cx, settings, "mcp_allowed_client_id_domains", flags),
        mcp_metadata_domains: mcp::domains(cx, settings, "mcp_allowed_as_metadata_domains", flags),
        tunnels: Vec::new(),
        endpoints: Vec::new(),
        routes: Vec::new(),
    };
}

/// What a route asks for, if it asks for anything.
pub(super) fn of_route(cx: &mut Context<'_>, route: &Block<'_>, format: Option<TokenFormat>) {
    if !route.asks_ahead {
        return;
    }
    let identity_providers = tokens::of_route(cx, route, format);
    let planned = PlannedRoute {
        key: route.at.key.as_str().to_owned(),
        access: access::resolve(cx, route),
        mcp: mcp::resolve(cx, route),
        identity_providers,
        logo_url: branding::picture(cx, route, "logo_url"),
    };
    cx.planned.routes.push(planned);
}

/// `host:port` with a port that can be bound; the host is not looked up.
fn address(cx: &mut Context<'_>, block: &Block<'_>, key: &str) -> Option<String> {
    let text = block.filled(cx, key)?;
    let port = text.value.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
    if port.is_none_or(|port| port == 0) || text.value.contains(char::is_whitespace) {
        super::listeners::refuse(cx, &text.at, &text.value, "it needs a port from 1 to 65535");
        return None;
    }
    Some(text.value)
}

/// A host name as it may stand in a certificate; `*` stands for a part of it.
pub(super) fn host(cx: &mut Context<'_>, block: &Block<'_>, key: &str) -> Option<String> {
    let text = block.filled(cx, key)?;
    let name = text.value.trim();
    if super::routes::is_authority(&name.replace('*', "x")) {
        return Some(name.to_owned());
    }
    cx.fatal(Code::BadHost, &text.at, format!("{} is no host name", quoted(name)), "write a name: `app.example.com`");
    None
}

/// The two keys of one thing, of which only one may be written (01 §1.1): inline base64, or a file.
pub(super) fn one_of(cx: &mut Context<'_>, block: &Block<'_>, key: &str, file_key: &str) -> Option<(At, Vec<u8>)> {
    if are_both(cx, block, key, file_key) { None } else { either(cx, block, key, file_key) }
}

/// Whether both keys of one thing are written, which is refused.
pub(super) fn are_both(cx: &mut Context<'_>, block: &Block<'_>, key: &str, file_key: &str) -> bool {
    let (inline, file) = (block.filled(cx, key), block.filled(cx, file_key));
    if let (Some(_), Some(file)) = (&inline, &file) {
        let what = format!("`{key}` and `{file_key}` say the same thing twice");
        cx.fatal(Code::Conflict, &file.at, what, format!("remove `{key}`, or `{file_key}`"));
    }
    inline.is_some() && file.is_some()
}

/// The same, of keys where the inline form goes before the file.
pub(super) fn either(cx: &mut Context<'_>, block: &Block<'_>, key: &str, file_key: &str) -> Option<(At, Vec<u8>)> {
    let file = block.filled(cx, file_key);
    if let Some(inline) = block.filled(cx, key) {
        if let Some(file) = file {
            let what = format!("`{file_key}` is not looked at next to `{key}`");
            cx.advise(Code::Conflict, &file.at, what, format!("remove `{key}`, or `{file_key}`"));
        }
        return Some((inline.at, block.find(key)?.base64(cx)?));
    }
    let file = file?;
    let content = cx.file(&file.at, &file.value)?;
    Some((file.at, content))
}

/// A certificate and its key as PEM, each inline or from a file; both have to be written, or neither.
pub(super) fn pair(
    cx: &mut Context<'_>,
    block: &Block<'_>,
    certificate: &str,
    key: &str,
) -> Option<(Vec<u8>, Secret<Vec<u8>>)> {
    let (certificate_file, key_file) = (format!("{certificate}_file"), format!("{key}_file"));
    match (written(block, certificate, &certificate_file), written(block, key, &key_file)) {
        (Some(_), Some(_)) => {}
        (None, None) => return None,
        (Some(half), None) | (None, Some(half)) => {
            let what = "a certificate and its key go together, and one of them is missing";
            let hint = format!("write both `{certificate_file}` and `{key_file}`");
            cx.fatal(Code::MissingKey, half, what, hint);
            return None;
        }
    }
    let certificate = either(cx, block, certificate, &certificate_file);
    let key = either(cx, block, key, &key_file);
    let ((at, certificate), key) = (certificate?, Secret::new(key?.1));
    certificates::matching(cx, &at, &certificate, &key).then_some((certificate, key))
}

/// Where one of two keys stands.
fn written<'b>(block: &'b Block<'_>, key: &str, file_key: &str) -> Option<&'b At> {
    block.find(key).or(block.find(file_key)).map(|field| &field.at)
}

/// One or more certificates of authorities, as PEM.
pub(super) fn authorities(cx: &mut Context<'_>, found: Option<(At, Vec<u8>)>) -> Option<Vec<u8>> {
    found.and_then(|(at, pem)| certificates::trusted(cx, &at, pem))
}

/// An expression of RE2's syntax; `whole`: it must match from end to end.
pub(super) fn regex(cx: &mut Context<'_>, text: &Spanned<String>, whole: bool) -> Option<Regex> {
    let written = if whole { format!("^(?:{})$", text.value) } else { text.value.clone() };
    let compiled = Regex::new(&written);
    if let Err(error) = &compiled {
        let why = error.to_string();
        let why = why.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
        let what = format!("this expression cannot be compiled: {why}");
        cx.fatal(Code::BadRegex, &text.at, what, "RE2 syntax holds: no look-around and no back-references");
    }
    compiled.ok()
}
