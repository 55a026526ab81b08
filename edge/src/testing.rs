//! A small deployment for tests: no socket and no clock.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Version};
use pingora_http::RequestHeader;
use postern_identity::{
    Claims, CookieAttributes, IdpId, Keyring, SERVICE_ACCOUNT, Secret, ServiceAccountToken, Session, SessionCookie,
    SessionId, Timestamp, Tokens, User,
};
use postern_policy::{Legacy, Policy};
use postern_storage::{CacheConfig, Storage, StorageConfig};
use serde_json::json;
use url::Url;

use crate::route::{
    Authority, Carries, HostPattern, HostRewrite, PathMatcher, Route, Target, TunnelMatch, Upgrades, Upstream,
    UpstreamEndpoint, UpstreamScheme,
};
use crate::*;

pub(crate) const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);
pub(crate) const TEST_ID: &str = "0192f0c1-test";

pub(crate) fn keyring() -> Arc<Keyring> {
    Arc::new(Keyring::derive(&Secret::new([1; 32]), &Secret::new([2; 32])))
}

/// A policy in the policy language.
pub(crate) fn ppl(text: &str) -> Policy {
    let document = postern_policy::document::read(text).unwrap();
    Policy::new(Vec::new(), postern_policy::ppl::parse(&document).unwrap())
}

pub(crate) fn public() -> Policy {
    Policy::new(Legacy { allow_public_unauthenticated_access: true, ..Legacy::default() }.rules(), Vec::new())
}

pub(crate) fn any_user() -> Policy {
    Policy::new(Legacy { allow_any_authenticated_user: true, ..Legacy::default() }.rules(), Vec::new())
}

pub(crate) fn exact(host: &str) -> HostPattern {
    HostPattern::Exact { host: host.to_owned(), port: None }
}

pub(crate) fn prefix(path: &str) -> PathMatcher {
    PathMatcher::Prefix(path.to_owned())
}

/// A public route to `http://up.internal:8080`.
pub(crate) fn route(host: &str, path: &str) -> Route {
    Route {
        id: format!("{host}{path}"),
        name: format!("{host}{path}"),
        hosts: if host.contains('*') { HostPattern::wildcard(host, None) } else { exact(host) },
        path: prefix(path),
        target: Target::Upstream(Upstream {
            endpoints: Box::new([UpstreamEndpoint {
                scheme: UpstreamScheme::Http,
                host: "up.internal".to_owned(),
                port: 8080,
                authority: "up.internal:8080".into(),
                weight: 1,
            }]),
            ..Upstream::default()
        }),
        policy: public(),
        client_trust: None,
        idp: IdpId::new("main"),
        rewrite: None,
        host_rewrite: HostRewrite::Upstream,
        request_headers: Vec::new(),
        response_headers: ResponseHeaders::default(),
        response_rewrites: Box::default(),
        pass_identity_headers: true,
        issuer_format: JwtIssuerFormat::HostOnly,
        groups_filter: None,
        timeout: None,
        idle_timeout: None,
        upgrades: Upgrades::default(),
        tunnel: None,
        credentials: None,
        public: true,
        static_window: Duration::ZERO,
        max_request_body: None,
        show_error_details: true,
        depends_on: Box::default(),
    }
}

/// A public route of connections to `tcp://up.internal:5432`, asked for with these authorities.
pub(crate) fn tunnel(name: &str, proxy: Option<&str>, authorities: &[&str]) -> Route {
    let authority = |text: &&str| {
        let (host, port) = text.rsplit_once(':').map_or((*text, None), |(host, port)| (host, port.parse().ok()));
        Authority { host: host.into(), port }
    };
    let authorities: Box<[_]> = authorities.iter().map(authority).collect();
    Route {
        id: name.to_owned(),
        name: name.to_owned(),
        hosts: authorities[0].pattern(),
        target: Target::Upstream(Upstream {
            endpoints: Box::new([UpstreamEndpoint {
                scheme: UpstreamScheme::Tcp,
                host: "up.internal".to_owned(),
                port: 5432,
                authority: "up.internal:5432".into(),
                weight: 1,
            }]),
            ..Upstream::default()
        }),
        tunnel: Some(Box::new(TunnelMatch {
            carries: Carries::Connections,
            authorities,
            proxy: proxy.map(Into::into),
        })),
        ..route("unused", "/")
    }
}

/// A public route of datagrams to `udp://up.internal:5432`, asked for with these authorities.
pub(crate) fn datagrams(name: &str, proxy: Option<&str>, authorities: &[&str]) -> Route {
    let mut route = tunnel(name, proxy, authorities);
    if let Some(tunnel) = &mut route.tunnel {
        tunnel.carries = Carries::Datagrams;
    }
    if let Target::Upstream(upstream) = &mut route.target {
        upstream.endpoints.iter_mut().for_each(|endpoint| endpoint.scheme = UpstreamScheme::Udp);
    }
    route
}

/// The fields that ask for datagrams in HTTP/1.1, on this host.
pub(crate) fn connect_udp(host: &str) -> [(&'static str, &str); 4] {
    [("host", host), ("connection", "Upgrade"), ("upgrade", "connect-udp"), ("capsule-protocol", "?1")]
}

/// The same, for whom a policy allows.
pub(crate) fn guarded(host: &str, path: &str, policy: Policy) -> Route {
    Route { policy, public: false, ..route(host, path) }
}

pub(crate) fn config(routes: Vec<Route>) -> EdgeConfig {
    EdgeConfig {
        listeners: Listeners {
            public: PublicListener::Plain { addresses: Vec::new() },
            redirect: Vec::new(),
            proxy_protocol: false,
        },
        certificates: Certificates::default(),
        downstream_mtls: DownstreamMtls::default(),
        authenticate: AuthenticateTarget {
            url: Url::parse("https://auth.example.com").unwrap(),
            upstream: AuthnUpstream::Here("127.0.0.1:1".parse().unwrap()),
            idp: Some(IdpId::new("main")),
            programs: postern_identity::ProgramHosts::default(),
        },
        cookie: CookieConfig { name: "_pomerium".to_owned(), attributes: CookieAttributes::default() },
        keyring: keyring(),
        identity: IdentityConfig {
            keys: Arc::new(SigningKeys::derive([&[1; 32]]).unwrap()),
            claim_headers: Vec::new(),
            issuer_format: JwtIssuerFormat::HostOnly,
            pass_identity_headers: true,
            jwt_endpoint: false,
            groups_filter: None,
        },
        request: PathConfig::default(),
        proxy: ProxyConfig::default(),
        timeouts: Timeouts::default(),
        limits: EdgeLimits::default(),
        logs: LogConfig::default(),
        response_headers: ResponseHeaders::default(),
        routes: routes.into_iter().map(Arc::new).collect(),
        own_hosts: Vec::new(),
    }
}

/// A client at 192.0.2.7, without TLS.
pub(crate) fn connection() -> Connection {
    let peer: SocketAddr = "192.0.2.7:4711".parse().unwrap();
    Connection::plain(peer, "192.0.2.1:443".parse().unwrap())
}

/// An HTTP/1.1 head for `app.example.com`, unless the fields name another host.
pub(crate) fn get(target: &str, fields: &[(&'static str, &str)]) -> RequestHeader {
    head("GET", target, fields)
}

pub(crate) fn head(method: &str, target: &str, fields: &[(&'static str, &str)]) -> RequestHeader {
    let mut head = RequestHeader::build(method, target.as_bytes(), None).unwrap();
    head.set_version(Version::HTTP_11);
    if !fields.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        head.append_header("Host", "app.example.com").unwrap();
    }
    for (name, value) in fields {
        head.append_header(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap()).unwrap();
    }
    head
}

/// An HTTP/2 head, as the library makes it of pseudo fields.
pub(crate) fn h2(method: &str, url: &str, fields: &[(&'static str, &str)]) -> RequestHeader {
    let mut builder = http::Request::builder().method(method).uri(url).version(Version::HTTP_2);
    for (name, value) in fields {
        builder = builder.header(*name, *value);
    }
    builder.body(()).unwrap().into_parts().0.into()
}

/// alice of the identity provider "main", in group ops.
pub(crate) fn alice() -> Session {
    let id = SessionId::from_bytes([7; 32]);
    let mut claims = Claims::default();
    claims.set("groups", vec![json!("ops"), json!("staff")]);
    claims.set("department", vec![json!("it")]);
    Session {
        handle: id.handle(&keyring()),
        user: User {
            id: "u-alice".to_owned(),
            issuer: "https://idp.example".to_owned(),
            email: Some("alice@example.com".to_owned()),
            email_verified: Some(true),
            name: Some("Alice".to_owned()),
            claims: Claims::default(),
        },
        claims,
        idp: IdpId::new("main"),
        issued_at: NOW,
        expires_at: NOW.plus(Duration::from_secs(3600)),
        idle: None,
        generation: 1,
    }
}

/// The cookie of [`alice`] on a host.
pub(crate) fn alices_cookie(host: &str) -> String {
    SessionCookie::seal(&keyring(), host, &SessionId::from_bytes([7; 32]))
}

/// The service account of the user `ci`, in group deployers.
pub(crate) fn deployer() -> Session {
    let mut claims = Claims::default();
    claims.set("groups", vec![json!("deployers")]);
    Session {
        handle: SessionId::from_bytes([9; 32]).handle(&keyring()),
        user: User {
            id: "ci".to_owned(),
            issuer: SERVICE_ACCOUNT.to_owned(),
            email: Some("ci@example.com".to_owned()),
            email_verified: None,
            name: Some("deploy".to_owned()),
            claims,
        },
        claims: Claims::default(),
        idp: IdpId::service_account(),
        ..alice()
    }
}

/// The token of [`deployer`].
pub(crate) fn deployers_token() -> String {
    let Session { user, issued_at, expires_at, .. } = deployer();
    ServiceAccountToken::seal(&keyring(), &SessionId::from_bytes([9; 32]), &user.id, issued_at, expires_at)
}

/// A gate in front of a store that knows [`alice`].
pub(crate) struct World {
    pub(crate) gate: Gate,
    pub(crate) storage: Storage,
}

impl World {
    pub(crate) async fn new(config: EdgeConfig) -> Self {
        Self::with(config, StorageConfig::Memory).await
    }

    pub(crate) async fn with(config: EdgeConfig, storage: StorageConfig) -> Self {
        let storage = Storage::open(storage, keyring(), &prometheus::Registry::new()).unwrap();
        let tokens = Tokens {
            access: Secret::new("access".to_owned()),
            access_expires_at: None,
            refresh: None,
            id_token: Secret::new("id".to_owned()),
            refresh_at: None,
        };
        storage.sessions().create(&alice(), &tokens).await.unwrap();
        let cache = storage.cache(CacheConfig::default());
        Self { gate: Gate::new(Snapshot::new(config, 1).unwrap(), cache), storage }
    }

    pub(crate) async fn admit(&self, head: &RequestHeader) -> Admission {
        self.gate.admit(&self.gate.snapshot(), head, &connection(), NOW.into()).await
    }

    /// The answer of ours, if the request is not carried.
    pub(crate) async fn answer(&self, head: &RequestHeader) -> Option<Answer> {
        let admission = self.admit(head).await;
        let snapshot = self.gate.snapshot();
        admission.verdict.answer(&admission.asked(&snapshot, head, TEST_ID, NOW))
    }

    /// The head that goes up, if the request is carried.
    pub(crate) async fn carried(&self, original: &RequestHeader) -> Option<RequestHeader> {
        let admission = self.admit(original).await;
        let mut head = original.clone();
        let id = HeaderValue::from_static(TEST_ID);
        prepare::request(admission.admitted()?, &self.gate.snapshot(), &id, ("up.internal:8080", NOW), &mut head);
        Some(head)
    }

    /// The status of the answer, or 200 with what goes up.
    pub(crate) async fn status(&self, head: &RequestHeader) -> u16 {
        self.answer(head).await.map_or(200, |answer| answer.head.status.as_u16())
    }
}

/// The values of a field, joined by `|`.
pub(crate) fn values(fields: &http::HeaderMap, name: &str) -> String {
    fields.get_all(name).iter().map(|value| value.to_str().unwrap()).collect::<Vec<_>>().join("|")
}
