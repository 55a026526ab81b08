//! Routes of the Model Context Protocol: `mcp` (01 §2.1), and whom they trust.

use postern_identity::Secret;
use url::Url;

use crate::config::Code;
use crate::config::block::Block;
use crate::config::context::Context;
use crate::config::keys::{MCP, MCP_CLIENT, MCP_OAUTH2, MCP_OAUTH2_ENDPOINT, MCP_SERVER};
use crate::config::resolve::flags::Flags;
use crate::config::value::quoted;

/// `mcp`.
#[derive(Debug, Clone)]
pub enum Mcp {
    /// The upstream is a server of tools.
    Server(Box<McpServer>),
    /// The upstream is a client of them.
    Client,
}

/// `mcp.server`.
#[derive(Debug, Clone)]
pub struct McpServer {
    /// `upstream_oauth2`: the upstream wants tokens of its own.
    pub oauth2: Option<McpOauth2>,
    /// `max_request_bytes`: how much of a request is looked at.
    pub max_request_bytes: u32,
    /// `path`: where the upstream answers.
    pub path: String,
    /// `authorization_server_url`.
    pub authorization_server: Option<Url>,
}

/// `mcp.server.upstream_oauth2`.
#[derive(Debug, Clone)]
pub struct McpOauth2 {
    /// `client_id`.
    pub client_id: String,
    /// `client_secret`.
    pub client_secret: Option<Secret<String>>,
    /// `endpoint.auth_url`.
    pub auth_url: Url,
    /// `endpoint.token_url`.
    pub token_url: Url,
    /// `endpoint.auth_style`: the secret is sent in the header, or among the parameters; `None` is found out.
    pub in_header: Option<bool>,
    /// `scopes`.
    pub scopes: Vec<String>,
    /// `authorization_url_params`.
    pub params: Vec<(String, String)>,
}

/// `max_request_bytes` unless written.
const MAX_REQUEST_BYTES: u32 = 4096;

pub(super) fn resolve(cx: &mut Context<'_>, route: &Block<'_>) -> Option<Mcp> {
    let block = route.inner(cx, "mcp", &MCP)?;
    let server = block.inner(cx, "server", &MCP_SERVER);
    let client = block.inner(cx, "client", &MCP_CLIENT);
    match (server, client) {
        (Some(server), None) => Some(Mcp::Server(Box::new(self::server(cx, &server)))),
        (None, Some(_)) => Some(Mcp::Client),
        (Some(_), Some(client)) => {
            let what = "a route is a server or a client of MCP, not both";
            cx.fatal(Code::Conflict, &client.at, what, "write each as a route of its own");
            None
        }
        (None, None) => {
            let what = "`mcp` says neither `server` nor `client`";
            cx.fatal(Code::MissingKey, &block.at, what, "write `mcp: {server: {}}` or `mcp: {client: {}}`");
            None
        }
    }
}

fn server(cx: &mut Context<'_>, block: &Block<'_>) -> McpServer {
    let authorization_server = block.url(cx, "authorization_server_url");
    if authorization_server.as_ref().is_some_and(|url| url.scheme() != "https") {
        let at = block.at("authorization_server_url");
        cx.fatal(Code::BadUrl, &at, "an authorization server is asked over https only", "write an https URL");
    }
    let path = block.filled(cx, "path");
    if let Some(path) = path.as_ref().filter(|path| !path.value.starts_with('/')) {
        let what = format!("{} is no path", quoted(&path.value));
        cx.fatal(Code::BadTarget, &path.at, what, "write a path that begins with `/`");
    }
    let oauth2 = block.inner(cx, "upstream_oauth2", &MCP_OAUTH2);
    McpServer {
        oauth2: oauth2.and_then(|block| self::oauth2(cx, &block)),
        max_request_bytes: block.number(cx, "max_request_bytes").unwrap_or(MAX_REQUEST_BYTES),
        path: path.map_or_else(|| "/".to_owned(), |path| path.value),
        authorization_server,
    }
}

fn oauth2(cx: &mut Context<'_>, block: &Block<'_>) -> Option<McpOauth2> {
    let hint = "write the client id that the upstream's server gave you";
    let client_id = block.required(cx, "client_id", "`upstream_oauth2` has no `client_id`", hint);
    let client_secret = block.filled(cx, "client_secret").map(|text| Secret::new(text.value));
    let scopes = block.names(cx, "scopes");
    let params = block.pairs(cx, "authorization_url_params").unwrap_or_default();
    let Some(endpoint) = block.inner(cx, "endpoint", &MCP_OAUTH2_ENDPOINT) else {
        let what = "`upstream_oauth2` has no `endpoint`";
        cx.fatal(Code::MissingKey, &block.at("endpoint"), what, "write `endpoint: {auth_url: URL, token_url: URL}`");
        return None;
    };
    let styles = [("", None), ("header", Some(true)), ("params", Some(false))];
    let in_header = endpoint.choice(cx, "auth_style", "", &styles).flatten();
    let (auth_url, token_url) = (url(cx, &endpoint, "auth_url"), url(cx, &endpoint, "token_url"));
    Some(McpOauth2 {
        client_id: client_id?.value,
        client_secret,
        auth_url: auth_url?,
        token_url: token_url?,
        in_header,
        scopes,
        params: params.into_iter().map(|(name, value)| (name.value, value.value)).collect(),
    })
}

fn url(cx: &mut Context<'_>, block: &Block<'_>, key: &str) -> Option<Url> {
    let what = format!("`endpoint` has no `{key}`");
    block.required(cx, key, &what, "write the URL that the upstream's server documents")?;
    block.url(cx, key)
}

/// Domains, with or without `*.` before them. Empty ones are refused while the flag `mcp` is on (01 §1.8).
pub(super) fn domains(cx: &mut Context<'_>, settings: &Block<'_>, key: &str, flags: Flags) -> Vec<String> {
    let mut found = Vec::new();
    for text in settings.texts(cx, key).unwrap_or_default() {
        let domain = text.value.trim();
        let name = domain.strip_prefix("*.").unwrap_or(domain);
        if super::super::routes::is_authority(name) {
            found.push(domain.to_ascii_lowercase());
        } else if flags.mcp || !domain.is_empty() {
            let what = if domain.is_empty() {
                "a domain is empty".to_owned()
            } else {
                format!("{} is no domain", quoted(domain))
            };
            cx.fatal(Code::BadHost, &text.at, what, "write a domain: `example.com`, or `*.example.com`");
        }
    }
    found
}
