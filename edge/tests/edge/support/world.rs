//! One edge with its upstream.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use postern_edge::listener::Purpose;
use postern_edge::route::{
    HostPattern, HostRewrite, PathMatcher, Route, Target, Upgrades, Upstream as RouteUpstream, UpstreamEndpoint,
    UpstreamScheme,
};
use postern_edge::{
    AssertionSlot, AuthenticateTarget, AuthnUpstream, Certificates, CookieConfig, Edge, EdgeConfig, EdgeLimits,
    EdgeOptions, Gate, IdentityConfig, Inherited, JwtIssuerFormat, Listeners, LogConfig, Metrics, PathConfig,
    ProxyConfig, PublicListener, ResponseHeaders, RunningEdge, SigningKeys, Snapshot, Timeouts,
};
use postern_identity::{
    Claims, CookieAttributes, IdpId, Keyring, Secret, Session, SessionCookie, SessionHandle, SessionId, Timestamp,
    Tokens, User,
};
use postern_policy::{Legacy, Policy};
use postern_storage::{CacheConfig, Storage, StorageConfig};
use rustls::pki_types::CertificateDer;

use super::{Upstream, Wire};

/// Names that the edge's certificate has.
pub(crate) const HOST: &str = "app.localhost";

pub(crate) struct World {
    pub(crate) edge: RunningEdge,
    pub(crate) address: SocketAddr,
    pub(crate) redirect: SocketAddr,
    pub(crate) root: CertificateDer<'static>,
    pub(crate) upstream: Upstream,
    pub(crate) registry: prometheus::Registry,
    pub(crate) storage: Storage,
    config: EdgeConfig,
    version: u64,
}

pub(crate) struct WorldBuilder {
    pub(crate) config: EdgeConfig,
    pub(crate) options: EdgeOptions,
    pub(crate) upstream: Upstream,
    cache: CacheConfig,
    root: CertificateDer<'static>,
}

impl World {
    /// One public host in front of one plain upstream.
    pub(crate) async fn new() -> Self {
        WorldBuilder::new().await.start()
    }

    /// A TLS connection that speaks HTTP/1.1.
    pub(crate) async fn wire(&self) -> Wire {
        Wire::open(self.address, HOST, &self.root, &["http/1.1"]).await.unwrap()
    }

    /// The value of a metric, all labels summed that contain `labels`.
    pub(crate) fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let families = self.registry.gather();
        let family = families.iter().filter(|family| family.name() == name);
        let matching = family.flat_map(prometheus::proto::MetricFamily::get_metric).filter(|metric| {
            labels.iter().all(|(name, value)| {
                metric.get_label().iter().any(|label| label.name() == *name && label.value() == *value)
            })
        });
        matching.map(|metric| metric.get_counter().get_value() + metric.get_gauge().get_value()).sum()
    }

    /// Signs alice in, for an hour unless changed. Gives her session, and the cookie for [`HOST`].
    pub(crate) async fn sign_in(&self, change: impl FnOnce(&mut Session)) -> (Session, String) {
        let id = SessionId::generate().unwrap();
        let mut session = alice(id.handle(&self.config.keyring));
        change(&mut session);
        self.storage.sessions().create(&session, &tokens()).await.unwrap();
        let cookie = SessionCookie::seal(&self.config.keyring, HOST, &id);
        (session, format!("Cookie: {}={cookie}\r\n", self.config.cookie.name))
    }

    /// What is shown to authorities that look.
    pub(crate) fn challenges(&self) -> postern_edge::Challenges {
        self.config.certificates.challenges.clone()
    }

    /// Takes a changed configuration.
    pub(crate) fn reload(&mut self, change: impl FnOnce(&mut EdgeConfig)) {
        change(&mut self.config);
        self.version += 1;
        self.edge.reload(Snapshot::new(self.config.clone(), self.version).unwrap()).unwrap();
    }
}

impl WorldBuilder {
    pub(crate) async fn new() -> Self {
        let upstream = Upstream::plain().await;
        let made = rcgen::generate_simple_self_signed([HOST.to_owned(), "*.app.localhost".to_owned()]).unwrap();
        let pair = (made.cert.pem().into_bytes(), Secret::new(made.signing_key.serialize_pem().into_bytes()));
        let routes = vec![Arc::new(route("app", HOST, upstream.address))];
        let options = EdgeOptions { workers: 2, ..EdgeOptions::default() };
        let root = made.cert.der().clone();
        Self { config: config(pair, routes), options, cache: CacheConfig::default(), root, upstream }
    }

    pub(crate) fn change(mut self, change: impl FnOnce(&mut EdgeConfig)) -> Self {
        change(&mut self.config);
        self
    }

    /// Changes the one route.
    pub(crate) fn route(mut self, change: impl FnOnce(&mut Route)) -> Self {
        let mut changed = route("app", HOST, self.upstream.address);
        change(&mut changed);
        self.config.routes = vec![Arc::new(changed)];
        self
    }

    pub(crate) fn limits(mut self, change: impl FnOnce(&mut EdgeLimits)) -> Self {
        change(&mut self.config.limits);
        self
    }

    pub(crate) fn options(mut self, change: impl FnOnce(&mut EdgeOptions)) -> Self {
        change(&mut self.options);
        self
    }

    pub(crate) fn cache(mut self, change: impl FnOnce(&mut CacheConfig)) -> Self {
        change(&mut self.cache);
        self
    }

    pub(crate) fn start(self) -> World {
        let _twice_is_fine = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let registry = prometheus::Registry::new();
        let storage = Storage::open(StorageConfig::Memory, Arc::clone(&self.config.keyring), &registry).unwrap();
        let sessions = storage.cache::<AssertionSlot>(self.cache);
        let snapshot = Snapshot::new(self.config.clone(), 1).unwrap();
        let gate = Arc::new(Gate::new(snapshot, sessions));
        let metrics = Metrics::register(&registry).unwrap();
        let bound = Edge::bind(&self.config.listeners, &mut Inherited::default()).unwrap();
        let addresses = bound.addresses();
        let at = |wanted| addresses.iter().find(|(purpose, _)| *purpose == wanted).unwrap().1;
        let edge = Edge::start(bound, gate, &metrics, self.options).unwrap();
        World {
            edge,
            address: at(Purpose::Public),
            redirect: at(Purpose::Redirect),
            root: self.root,
            upstream: self.upstream,
            registry,
            storage,
            config: self.config,
            version: 1,
        }
    }
}

fn alice(handle: SessionHandle) -> Session {
    let user = User {
        id: "u-alice".to_owned(),
        issuer: "https://idp.example".to_owned(),
        email: Some("alice@example.com".to_owned()),
        email_verified: Some(true),
        name: Some("Alice".to_owned()),
        claims: Claims::default(),
    };
    Session {
        handle,
        user,
        claims: Claims::default(),
        idp: IdpId::new("idp"),
        issued_at: now(),
        expires_at: now().plus(Duration::from_secs(3600)),
        idle: None,
        generation: 1,
    }
}

pub(crate) fn tokens() -> Tokens {
    let secret = |text: &str| Secret::new(text.to_owned());
    Tokens {
        access: secret("access"),
        access_expires_at: None,
        refresh: None,
        refresh_at: None,
        id_token: secret("id"),
    }
}

pub(crate) fn now() -> Timestamp {
    std::time::SystemTime::now().into()
}

/// The upstream at an address.
pub(crate) fn target(at: SocketAddr, tls: bool) -> Target {
    let scheme = if tls { UpstreamScheme::Https } else { UpstreamScheme::Http };
    let endpoint = UpstreamEndpoint {
        scheme,
        host: at.ip().to_string(),
        port: at.port(),
        authority: at.to_string().into(),
        weight: 1,
    };
    Target::Upstream(RouteUpstream { endpoints: [endpoint].into(), ..RouteUpstream::default() })
}

/// A public route to a plain upstream.
pub(crate) fn route(name: &str, host: &str, upstream: SocketAddr) -> Route {
    let public = Legacy { allow_public_unauthenticated_access: true, ..Legacy::default() };
    Route {
        id: format!("route-{name}"),
        name: name.to_owned(),
        hosts: HostPattern::Exact { host: host.to_owned(), port: None },
        path: PathMatcher::Prefix("/".to_owned()),
        target: target(upstream, false),
        policy: Policy::new(public.rules(), Vec::new()),
        client_trust: None,
        idp: IdpId::new("idp"),
        rewrite: None,
        host_rewrite: HostRewrite::Preserve,
        request_headers: Vec::new(),
        response_headers: frame_options(),
        response_rewrites: Box::default(),
        pass_identity_headers: false,
        issuer_format: JwtIssuerFormat::HostOnly,
        groups_filter: None,
        timeout: Some(Duration::from_secs(30)),
        idle_timeout: None,
        upgrades: Upgrades::default(),
        tunnel: None,
        credentials: None,
        public: true,
        static_window: Duration::ZERO,
        max_request_body: None,
        show_error_details: false,
        depends_on: Box::default(),
    }
}

fn config(pair: (Vec<u8>, Secret<Vec<u8>>), routes: Vec<Arc<Route>>) -> EdgeConfig {
    let nowhere = AuthnUpstream::Here(([127, 0, 0, 1], 1).into());
    EdgeConfig {
        listeners: Listeners {
            public: PublicListener::Tls { addresses: vec![([127, 0, 0, 1], 0).into()], h2: true, http1: true },
            redirect: vec![([127, 0, 0, 1], 0).into()],
            proxy_protocol: false,
        },
        downstream_mtls: postern_edge::DownstreamMtls::default(),
        certificates: Certificates { inline: vec![pair], ..Certificates::default() },
        authenticate: AuthenticateTarget {
            url: "https://auth.localhost".parse().unwrap(),
            upstream: nowhere,
            idp: None,
            programs: postern_identity::ProgramHosts::default(),
        },
        cookie: CookieConfig { name: "_pomerium".to_owned(), attributes: CookieAttributes::default() },
        keyring: Arc::new(Keyring::derive(&Secret::new([1; 32]), &Secret::new([2; 32]))),
        identity: IdentityConfig {
            keys: Arc::new(SigningKeys::derive([&[1; 32]]).unwrap()),
            claim_headers: Vec::new(),
            issuer_format: JwtIssuerFormat::HostOnly,
            pass_identity_headers: false,
            jwt_endpoint: false,
            groups_filter: None,
        },
        request: PathConfig::default(),
        proxy: ProxyConfig::default(),
        timeouts: Timeouts::default(),
        logs: LogConfig::default(),
        response_headers: frame_options(),
        routes,
        limits: EdgeLimits::default(),
        own_hosts: Vec::new(),
    }
}

fn frame_options() -> ResponseHeaders {
    ResponseHeaders([(http::header::X_FRAME_OPTIONS, HeaderValue::from_static("SAMEORIGIN"))].into())
}

/// Waits until `condition` holds.
pub(crate) async fn until(what: &str, condition: impl Fn() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), waiting).await.unwrap_or_else(|_| panic!("never: {what}"));
}
