//! Routes: what to match, who may pass, and where it leads.

mod balancing;
mod credentials;
mod glob;
mod matcher;
mod named;
mod paths;
mod regexes;
mod rewrite;
mod substitution;
mod table;
#[cfg(test)]
mod tests;
mod trace;
mod tree;
mod tunnels;
mod upgrades;

use std::fmt;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, StatusCode};
use postern_identity::{IdpId, Secret};

pub use balancing::{
    Balancing, CircuitBreakers, Consecutive, FailureShare, GrpcCheck, HealthCheck, HttpCheck, LoadBalancing,
    OutlierDetection, Payload, Probe, StatusRange, SuccessRate, TcpCheck,
};
pub use credentials::{IdentityToken, UpstreamCredentials, bearer};
pub(crate) use glob::matches as matches_pattern;
pub use regexes::PathRegex;
pub(crate) use rewrite::Rewritten;
pub use substitution::{RegexRewrite, SubstitutionError};
pub use table::{Group, RouteTable};
pub use trace::Miss;
pub use tunnels::{Authority, Carries, TunnelMatch};
pub use upgrades::Upgrades;

use crate::{ClientTrust, GroupsFilter, HeaderRule, Host, JwtIssuerFormat, ResponseHeaders};

/// One route of the configuration, ready to serve.
#[derive(Debug)]
pub struct Route {
    /// Stable for the same match and target (01 §2.9): the hash that logs and metrics use.
    pub id: String,
    /// `name`, or a readable form of `from` and the path; unique enough to recognise, used in logs, metrics and pages.
    pub name: String,
    /// The hosts of `from`, already in canonical form; of a route of tunnels the first that is asked for.
    pub hosts: HostPattern,
    /// It is for connections or datagrams, which are asked for with these (`tcp+https`, `udp+https`), and for no request.
    pub tunnel: Option<Box<TunnelMatch>>,
    /// The path match.
    pub path: PathMatcher,
    /// Where it leads.
    pub target: Target,
    /// Who may pass. Compiled; the legacy keys are part of it.
    pub policy: postern_policy::Policy,
    /// Who vouches for client certificates here: the route's own authorities, else those of all routes. `None`: nobody, and
    /// whatever is shown will do, also nothing (01 §1.6).
    pub client_trust: Option<Arc<ClientTrust>>,
    /// Which identity provider vouches here: a session of another one is no session.
    pub idp: IdpId,
    /// Changes of the request path on the way up.
    pub rewrite: Option<PathRewrite>,
    /// The Host that the upstream sees.
    pub host_rewrite: HostRewrite,
    /// `set_request_headers`, then `remove_request_headers`: removal is last (01 §2.10). Reserved names are refused at load (S-047).
    pub request_headers: Vec<HeaderRule>,
    /// The global set merged with the route's own.
    pub response_headers: ResponseHeaders,
    /// `rewrite_response_headers`, each once, in the order of the file.
    pub response_rewrites: Box<[ResponseRewrite]>,
    /// The identity headers go upstream.
    pub pass_identity_headers: bool,
    /// `iss` of this route's assertions.
    pub issuer_format: JwtIssuerFormat,
    /// The groups that this route's assertions may name, those of all routes among them; `None`: all.
    pub groups_filter: Option<GroupsFilter>,
    /// From the whole request received to the whole response sent; `None` is none (01 §2.6).
    pub timeout: Option<Duration>,
    /// Without a byte either way; `None` is none.
    pub idle_timeout: Option<Duration>,
    /// `allow_websockets`, `allow_spdy`, `allow_upgrades`: what connections may become.
    pub upgrades: Upgrades,
    /// What the upstream is shown of ours; `None`: nothing, as mostly.
    pub credentials: Option<Box<UpstreamCredentials>>,
    /// The policy admits everybody without looking (public), but for a client certificate: used for lints and `robots.txt` only,
    /// never to skip the policy.
    pub public: bool,
    /// How long a session that is known at the edge is believed while revocations by other processes are not heard of; zero
    /// for not at all. At most [`postern_storage::LONGEST_WINDOW`].
    pub static_window: Duration,
    /// `max_request_body_bytes`; `None`: what holds for all routes.
    pub max_request_body: Option<NonZeroU64>,
    /// Why it was refused may be shown in words on the 403 page.
    pub show_error_details: bool,
    /// `depends_on`: hosts that whoever signs in here gets a cookie on as well, as written.
    pub depends_on: Box<[Host]>,
}

impl Route {
    /// The hosts on which people sign in to pass here: those that requests are for, or those that clients connect to who ask for a
    /// tunnel.
    #[must_use]
    pub fn door(&self) -> HostPattern {
        match (self.tunnel.as_deref().map(|tunnel| tunnel.proxy.as_deref()), &self.hosts) {
            (None, hosts) => hosts.clone(),
            (Some(Some(proxy)), _) => HostPattern::Exact { host: proxy.to_owned(), port: None },
            (Some(None), HostPattern::Exact { host, .. }) => HostPattern::Exact { host: host.clone(), port: None },
            (Some(None), HostPattern::Wildcard { pattern, .. }) => HostPattern::wildcard(pattern, None),
        }
    }
}

/// The host set of `from` (01 §2.2).
#[derive(Debug, Clone)]
pub enum HostPattern {
    /// Exactly this host, lower-case, no trailing dot; with a port only if one other than the default was written.
    Exact {
        /// The host.
        host: String,
        /// The port it insists on.
        port: Option<u16>,
    },
    /// A host with `*`, lower-case, matched against the whole host without port.
    Wildcard {
        /// The pattern.
        pattern: String,
        /// The port it insists on.
        port: Option<u16>,
    },
}

/// What the canonical path must be (01 §2.4).
#[derive(Debug, Clone)]
pub enum PathMatcher {
    /// Begins with this text; `/` is every path. No segment boundary.
    Prefix(String),
    /// Equals this text.
    Exact(String),
    /// Matches as a whole (S-026).
    Regex(PathRegex),
}

/// Where a route leads.
#[derive(Debug, Clone)]
pub enum Target {
    /// One or more upstream addresses of one kind.
    Upstream(Upstream),
    /// Elsewhere, at once (01 §2.8).
    Redirect(Box<Redirect>),
    /// A fixed answer.
    Response {
        /// The status.
        status: StatusCode,
        /// The body, sent as `text/plain`.
        body: String,
    },
}

/// The upstream of a route.
#[derive(Debug, Clone, Default)]
pub struct Upstream {
    /// In order of the file; the first one's path acts as prefix rewrite (already in [`Route::rewrite`]).
    pub endpoints: Box<[UpstreamEndpoint]>,
    /// How TLS is spoken to those that want it; `None`: as to most.
    pub tls: Option<Box<UpstreamTls>>,
    /// How one of them is chosen, and how they are looked after; `None`: as in most.
    pub balancing: Option<Box<Balancing>>,
}

/// What a route says of TLS to its upstream (01 §2.12).
#[derive(Debug, Clone, Default)]
pub struct UpstreamTls {
    /// `tls_skip_verify`: whatever the upstream shows will do.
    pub skip_verify: bool,
    /// `tls_upstream_server_name`, else `tls_server_name`: the name that it must have, where `*` stands for any text; `None` is
    /// that of the endpoint.
    pub name: Option<String>,
    /// `tls_custom_ca(_file)`, as PEM: it takes the place of all other authorities.
    pub authorities: Option<Vec<u8>>,
    /// `tls_client_cert(_file)` and `tls_client_key(_file)`, as PEM.
    pub client: Option<(Vec<u8>, Secret<Vec<u8>>)>,
}

impl UpstreamTls {
    /// Whether it says nothing of its own.
    #[must_use]
    pub const fn is_usual(&self) -> bool {
        !self.skip_verify && self.name.is_none() && self.authorities.is_none() && self.client.is_none()
    }
}

/// One `to` URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamEndpoint {
    /// How it is spoken to.
    pub scheme: UpstreamScheme,
    /// Name or address to dial; of a socket its path.
    pub host: String,
    /// Port to dial; of a socket 0.
    pub port: u16,
    /// `host[:port]` exactly as written: the default `Host`. Of a socket empty.
    pub authority: Arc<str>,
    /// Its share of the requests, against those of the others: at least 1.
    pub weight: u32,
}

impl fmt::Display for UpstreamEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = if self.scheme.is_socket() { &*self.host } else { &*self.authority };
        write!(f, "{}://{at}", self.scheme.name())
    }
}

/// How an upstream is spoken to (01 §2.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum UpstreamScheme {
    /// HTTP/1.1 in the clear.
    Http,
    /// HTTP over TLS.
    Https,
    /// HTTP/2 in the clear, without asking first.
    H2c,
    /// HTTP/1.1 over a socket in the file system.
    Unix,
    /// HTTP over TLS over such a socket.
    HttpsUnix,
    /// Whatever is spoken over a connection: of routes of connections alone.
    Tcp,
    /// Whatever is said in datagrams: of routes of datagrams alone.
    Udp,
}

impl UpstreamScheme {
    /// As `to` writes it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
            Self::H2c => "h2c",
            Self::Unix => "unix",
            Self::HttpsUnix => "https+unix",
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }

    /// Whether TLS is spoken.
    #[must_use]
    pub const fn is_tls(self) -> bool {
        matches!(self, Self::Https | Self::HttpsUnix)
    }

    /// Whether it is a socket in the file system.
    #[must_use]
    pub const fn is_socket(self) -> bool {
        matches!(self, Self::Unix | Self::HttpsUnix)
    }

    /// Whether what a tunnel carries is sent there as it is, and not to a proxy that is asked in turn.
    #[must_use]
    pub const fn is_bare(self) -> bool {
        matches!(self, Self::Tcp | Self::Udp)
    }
}

/// How the path changes on the way up (01 §2.7).
#[derive(Debug, Clone)]
pub enum PathRewrite {
    /// The matched part (the prefix, or the whole path for `path` and `regex`) becomes this.
    Prefix(String),
    /// `regex_rewrite_pattern`, `regex_rewrite_substitution`.
    Regex(RegexRewrite),
}

/// The Host that the upstream sees (01 §2.7).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostRewrite {
    /// The authority of the chosen endpoint.
    Upstream,
    /// As the client sent it.
    Preserve,
    /// This one.
    Literal(Box<HeaderValue>),
    /// `host_rewrite_header`: what this field of the request says; as the client sent it, where it says nothing.
    Header(HeaderName),
    /// `host_path_regex_rewrite_pattern` and `_substitution`: made from the canonical path.
    Path(RegexRewrite),
}

/// An entry of `rewrite_response_headers`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResponseRewrite {
    /// Which field.
    pub header: HeaderName,
    /// What it must begin with.
    pub prefix: String,
    /// What takes its place.
    pub value: HeaderValue,
}

/// A redirect target (01 §2.8).
#[derive(Debug, Clone, Default)]
pub struct Redirect {
    /// `https_redirect` or `scheme_redirect`.
    pub scheme: Option<String>,
    /// `host_redirect`, as written.
    pub host: Option<String>,
    /// `port_redirect`.
    pub port: Option<u16>,
    /// `path_redirect`: the whole path.
    pub path: Option<String>,
    /// `prefix_rewrite`, ignored if `path` is set.
    pub prefix: Option<String>,
    /// `response_code`: 301 unless written.
    pub status: StatusCode,
    /// `strip_query`.
    pub strip_query: bool,
}

/// The route at that place in the order of the file.
fn route(all: &[Arc<Route>], order: tree::Order) -> Option<&Arc<Route>> {
    all.get(usize::try_from(order).ok()?)
}
