//! What an edge is made from, already valid. Only the `postern` crate knows `config.yaml`; tests build this by hand.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use postern_identity::{CookieAttributes, IdpId, Keyring, ProgramHosts, Secret};
use postern_policy::IpMatcher;
use url::Url;

use crate::Host;
use crate::assertion::SigningKeys;
use crate::limits::EdgeLimits;
use crate::listener::{Challenges, IssuedCertificates};
use crate::mtls::DownstreamMtls;
use crate::route::{CircuitBreakers, Route, UpstreamEndpoint};
use crate::upstream::{Dns, SourceAddress};

/// A whole edge.
#[derive(Debug, Clone)]
pub struct EdgeConfig {
    /// Where to listen; fixed for the life of the process.
    pub listeners: Listeners,
    /// The certificates of the public listener.
    pub certificates: Certificates,
    /// `downstream_mtls`: what it asks of clients.
    pub downstream_mtls: DownstreamMtls,
    /// Where sign-in happens.
    pub authenticate: AuthenticateTarget,
    /// The session cookie.
    pub cookie: CookieConfig,
    /// All derived keys.
    pub keyring: Arc<Keyring>,
    /// What upstreams are told.
    pub identity: IdentityConfig,
    /// How a request is made canonical.
    pub request: PathConfig,
    /// `X-Forwarded-*` and upstream trust.
    pub proxy: ProxyConfig,
    /// Time-outs of the public listener.
    pub timeouts: Timeouts,
    /// All other bounds: `limits`.
    pub limits: EdgeLimits,
    /// What is logged of each exchange.
    pub logs: LogConfig,
    /// Headers set on every response, errors and our own pages too (01 §1.10).
    pub response_headers: ResponseHeaders,
    /// In the order of the file.
    pub routes: Vec<Arc<Route>>,
    /// `tls_downstream_server_name` of routes: hosts that have our own paths and no route, whatever wildcards there are.
    pub own_hosts: Vec<Host>,
}

/// Bound addresses. Changing one needs a restart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listeners {
    /// The public listener: `address` and `insecure_server`.
    pub public: PublicListener,
    /// `http_redirect_addr`: plain HTTP that sends everybody to https.
    pub redirect: Vec<SocketAddr>,
    /// `use_proxy_protocol`: every connection begins with a PROXY header, which says whose it is.
    pub proxy_protocol: bool,
}

/// The public listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PublicListener {
    /// TLS, certificates by SNI, ALPN as listed (`codec_type`).
    Tls {
        /// Where; several for a host that is empty.
        addresses: Vec<SocketAddr>,
        /// Offer h2.
        h2: bool,
        /// Offer http/1.1.
        http1: bool,
    },
    /// Plain HTTP, behind something that ends TLS (`insecure_server`).
    Plain {
        /// Where.
        addresses: Vec<SocketAddr>,
    },
}

/// Certificates, in order of preference; the first is served where no name fits. With none a TLS listener does not start.
#[derive(Debug, Clone, Default)]
pub struct Certificates {
    /// From `certificate` and `certificate_key` (inline PEM chain and key).
    pub inline: Vec<(Vec<u8>, Secret<Vec<u8>>)>,
    /// From `certificates[]` and `certificate_file`: read at start and again when they change.
    pub files: Vec<CertifiedFiles>,
    /// What an authority has issued to this process (`autocert`).
    pub issued: IssuedCertificates,
    /// What goes behind all others: derived (`tls_derive`), or standing in for one (inline PEM chain and key).
    pub last: Vec<(Vec<u8>, Secret<Vec<u8>>)>,
    /// What authorities look at before they issue one.
    pub challenges: Challenges,
}

/// A certificate chain and its key, as files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertifiedFiles {
    /// PEM chain, leaf first.
    pub certificate: PathBuf,
    /// PEM key.
    pub key: PathBuf,
}

/// Where the edge sends browsers to sign in, and where it forwards what belongs to authn.
#[derive(Debug, Clone)]
pub struct AuthenticateTarget {
    /// `authenticate_service_url`: scheme, host and port as the browser sees them.
    pub url: Url,
    /// Where authn listens.
    pub upstream: AuthnUpstream,
    /// Who vouches where no route says who: the default identity provider, if there is one.
    pub idp: Option<IdpId>,
    /// `programmatic_redirect_domain_whitelist`: where programs may wait for what a sign-in hands them.
    pub programs: ProgramHosts,
}

impl AuthenticateTarget {
    /// Where browsers are sent to sign in, before it says what for.
    pub(crate) fn sign_in(&self) -> Url {
        let mut url = self.url.clone();
        url.set_path("/.pomerium/sign_in");
        url
    }
}

/// Where authn listens. Both kinds of edge prove to it that they are one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuthnUpstream {
    /// In this process, on loopback; what other edges send for authn is handed on to it.
    Here(SocketAddr),
    /// In other processes, dialled as the upstream of a route is.
    Elsewhere(UpstreamEndpoint),
}

/// The session cookie.
#[derive(Debug, Clone)]
pub struct CookieConfig {
    /// `cookie_name`.
    pub name: String,
    /// Its attributes.
    pub attributes: CookieAttributes,
}

/// What upstreams are told about the subject (01 §5).
#[derive(Debug, Clone)]
pub struct IdentityConfig {
    /// Signs assertions; all its public keys are published.
    pub keys: Arc<SigningKeys>,
    /// `jwt_claims_headers`.
    pub claim_headers: Vec<ClaimHeader>,
    /// `jwt_issuer_format`; a route may say otherwise.
    pub issuer_format: JwtIssuerFormat,
    /// `pass_identity_headers`; a route may say otherwise.
    pub pass_identity_headers: bool,
    /// `jwt_groups_filter`: the groups that an assertion may name; `None`: all. A route may name more.
    pub groups_filter: Option<GroupsFilter>,
    /// Runtime flag `pomerium_jwt_endpoint`: `/.pomerium/jwt` gives signed-in users their assertion.
    pub jwt_endpoint: bool,
}

/// The groups that an assertion may name.
pub type GroupsFilter = Arc<BTreeSet<String>>;

/// One header that carries one claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimHeader {
    /// The header.
    pub header: HeaderName,
    /// The claim, flat and dotted.
    pub claim: String,
}

/// `iss` of the assertion (01 §5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum JwtIssuerFormat {
    /// The host.
    #[default]
    HostOnly,
    /// `https://HOST/`.
    Uri,
}

/// How a request is made canonical (03 §3.1 to §3.3); the defaults are the strict ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PathConfig {
    /// `normalize_path`.
    pub normalize: bool,
    /// `merge_slashes`.
    pub merge_slashes: bool,
    /// `path_with_escaped_slashes_action`.
    pub escaped_slashes: EscapedSlashes,
    /// `headers_with_underscores_action`.
    pub underscores: UnderscoreHeaders,
    /// Runtime flag `match_any_incoming_port`.
    pub match_any_incoming_port: bool,
}

impl Default for PathConfig {
    fn default() -> Self {
        Self {
            normalize: true,
            merge_slashes: true,
            escaped_slashes: EscapedSlashes::Reject,
            underscores: UnderscoreHeaders::Reject,
            match_any_incoming_port: true,
        }
    }
}

/// `path_with_escaped_slashes_action`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EscapedSlashes {
    /// 400.
    #[default]
    Reject,
    /// Stays encoded, is matched encoded, is never decoded by us.
    Keep,
    /// Decoded, and the client is redirected there.
    UnescapeAndRedirect,
    /// Decoded, and matched as decoded.
    UnescapeAndForward,
}

/// `headers_with_underscores_action`; an underscore spelling of a reserved name is refused whatever this says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum UnderscoreHeaders {
    /// 400.
    #[default]
    Reject,
    /// The field is dropped.
    Drop,
    /// The field passes.
    Allow,
}

/// Who is believed, and what upstream certificates are believed.
#[derive(Debug, Clone, Default)]
pub struct ProxyConfig {
    /// `xff_num_trusted_hops`: the client address is that entry from the right of `X-Forwarded-For`; 0 believes nobody.
    pub trusted_hops: u32,
    /// `xff_trusted_peers`: only behind these peers are hops counted; `None` is behind any.
    pub trusted_peers: Option<IpMatcher>,
    /// `skip_xff_append`.
    pub skip_xff_append: bool,
    /// PEM of `certificate_authority(_file)`: added to the system's roots for upstreams.
    pub extra_roots: Option<Vec<u8>>,
    /// `circuit_breaker_thresholds` of all routes.
    pub breakers: CircuitBreakers,
    /// How names of upstreams are looked up.
    pub dns: Dns,
    /// Where connections to upstreams come from; `None`: wherever the system says.
    pub source: Option<SourceAddress>,
}

/// Time-outs of the public listener; `None` is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// `timeout_read`: a whole request, head and body.
    pub read: Option<Duration>,
    /// `timeout_write`: a whole exchange.
    pub write: Option<Duration>,
    /// `timeout_idle`: a connection without a request.
    pub idle: Option<Duration>,
    /// `default_upstream_timeout`: a route that names none.
    pub upstream: Option<Duration>,
    /// How long a drain may take.
    pub drain: Duration,
}

impl Default for Timeouts {
    /// 01 §1.3; drain as 03 §2.
    fn default() -> Self {
        Self {
            read: Some(Duration::from_secs(30)),
            write: None,
            idle: Some(Duration::from_secs(300)),
            upstream: Some(Duration::from_secs(30)),
            drain: Duration::from_secs(30),
        }
    }
}

/// What is logged of each exchange (01 §1.10).
#[derive(Debug, Clone)]
pub struct LogConfig {
    /// `access_log_fields`.
    pub access: Vec<AccessField>,
    /// `authorize_log_fields`.
    pub authorize: Vec<AuthorizeField>,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { access: AccessField::DEFAULT.to_vec(), authorize: AuthorizeField::DEFAULT.to_vec() }
    }
}

macro_rules! fields {
    ($(#[$doc:meta])* $name:ident { $($variant:ident = $text:literal),* $(,)? } default { $($default:ident),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        #[expect(missing_docs, reason = "each variant is its own text")]
        pub enum $name { $($variant,)* Header(HeaderName) }

        impl $name {
            /// What is logged unless configured.
            pub const DEFAULT: &'static [Self] = &[$(Self::$default),*];
            /// The names that can be written in the configuration, apart from `headers.NAME`.
            pub const NAMES: &'static [&'static str] = &[$($text),*];

            /// The field of that name, `headers.NAME` included.
            #[must_use]
            pub fn parse(name: &str) -> Option<Self> {
                match name {
                    $($text => Some(Self::$variant),)*
                    other => HeaderName::from_bytes(other.strip_prefix("headers.")?.as_bytes()).ok().map(Self::Header),
                }
            }

            /// The key in the log line; `None` for [`Self::Header`], which is `headers.NAME`.
            #[must_use]
            pub const fn name(&self) -> Option<&'static str> {
                match self { $(Self::$variant => Some($text),)* Self::Header(_) => None }
            }
        }
    };
}

fields! {
    /// A field of the access log.
    AccessField {
        Authority = "authority", ClientCertificate = "client-certificate", ClusterStatName = "cluster-stat-name", Duration = "duration",
        ForwardedFor = "forwarded-for", Ip = "ip", Method = "method", Path = "path", Query = "query", Referer = "referer", RequestId = "request-id",
        ResponseCode = "response-code", ResponseCodeDetails = "response-code-details", Size = "size", UpstreamCluster = "upstream-cluster",
        UserAgent = "user-agent",
    } default {
        UpstreamCluster, Method, Authority, Path, UserAgent, Referer, ForwardedFor, RequestId, Duration, Size, ResponseCode, ResponseCodeDetails,
    }
}

fields! {
    /// A field of the authorize log.
    AuthorizeField {
        Body = "body", CheckRequestId = "check-request-id", ClusterStatName = "cluster-stat-name", Email = "email",
        EnvoyRouteChecksum = "envoy-route-checksum", EnvoyRouteId = "envoy-route-id", Headers = "headers", Host = "host", IdToken = "id-token",
        IdTokenClaims = "id-token-claims", ImpersonateEmail = "impersonate-email", ImpersonateSessionId = "impersonate-session-id",
        ImpersonateUserId = "impersonate-user-id", Ip = "ip", McpMethod = "mcp-method", McpTool = "mcp-tool",
        McpToolParameters = "mcp-tool-parameters", Method = "method", Path = "path", Query = "query", RemovedGroupsCount = "removed-groups-count",
        RequestId = "request-id", RouteChecksum = "route-checksum", RouteId = "route-id", ServiceAccountId = "service-account-id",
        SessionId = "session-id", User = "user",
    } default {
        RequestId, CheckRequestId, Method, Path, Host, Ip, SessionId, ImpersonateSessionId, ImpersonateUserId, ImpersonateEmail, RemovedGroupsCount,
        ServiceAccountId, User, Email, EnvoyRouteChecksum, EnvoyRouteId, RouteChecksum, RouteId,
    }
}

/// One rule on the fields of a head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeaderRule {
    /// Sets the field, replacing what is there.
    Set(HeaderName, HeaderValue),
    /// Removes the field.
    Remove(HeaderName),
}

/// `set_response_headers`: already merged with the defaults, or emptied by `disable`. Routes that say nothing share the global
/// ones.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResponseHeaders(pub Arc<[(HeaderName, HeaderValue)]>);
