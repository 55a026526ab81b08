//! A deployment in miniature: authn over an in-memory store, a provider that does as it is told, and a browser.

mod browser;
mod log;
mod provider;

use std::sync::Arc;
use std::time::Duration;

use postern_authn::{Authn, AuthnConfig, IdpConfig, ProviderKind, RouteHosts};
use postern_identity::{CookieAttributes, FlowCookie, IdpId, Keyring, Recipient, Secret, SignInRequest, Timestamp};
use postern_servers::Redis;
use postern_storage::{
    CacheConfig, RedisConfig, Server, SessionCache, SessionSummary, Sessions, Storage, StorageConfig, Topology,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use url::Url;

pub(crate) use browser::{Arrived, Browser};
pub(crate) use log::log;
pub(crate) use provider::{Provider, Script, base64};

pub(crate) const AUTHN: &str = "https://auth.example.com";
pub(crate) const APP: &str = "https://app.example.com";
pub(crate) const OTHER_APP: &str = "https://wiki.example.com";
pub(crate) const API: &str = "https://api.example.com";
pub(crate) const FILES: &str = "https://files.example.net:8443";

/// Applications of a deployment.
#[derive(Debug)]
pub(crate) struct Hosts(pub(crate) &'static [&'static str]);

impl RouteHosts for Hosts {
    fn serves(&self, url: &Url) -> bool {
        self.0.contains(&url.origin().ascii_serialization().as_str())
    }
}

/// One deployment. It ends with the test.
pub(crate) struct World {
    pub(crate) provider: Provider,
    pub(crate) sessions: Sessions,
    pub(crate) keyring: Arc<Keyring>,
    pub(crate) config: AuthnConfig,
    pub(crate) registry: prometheus::Registry,
    pub(crate) authn: Authn,
    pub(crate) address: std::net::SocketAddr,
    storage: Storage,
    shutdown: CancellationToken,
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    /// A deployment whose configuration was changed first.
    pub(crate) async fn with(change: impl FnOnce(&mut AuthnConfig)) -> Self {
        Self::over(StorageConfig::Memory, change).await
    }

    /// A deployment whose store can be closed, in `folder`.
    pub(crate) async fn on_a_file(folder: &tempfile::TempDir) -> Self {
        Self::over(StorageConfig::File { path: folder.path().join("store") }, |_| {}).await
    }

    /// A deployment over a server of Redis.
    pub(crate) async fn on_a_server(server: &Redis) -> Self {
        let patient = Duration::from_secs(5);
        let config = RedisConfig::new(Topology::Single(Server::local(server.port())));
        let config = RedisConfig { copies: 0, connect: patient, operation: patient, ..config };
        Self::over(StorageConfig::Redis(Box::new(config)), |_| {}).await
    }

    async fn over(store: StorageConfig, change: impl FnOnce(&mut AuthnConfig)) -> Self {
        log::keep();
        let provider = Provider::start().await;
        let keyring = Arc::new(Keyring::derive(&Secret::new([1; 32]), &Secret::new([2; 32])));
        let mut config = config(&keyring, vec![idp("main", &provider.issuer)]);
        change(&mut config);
        let registry = prometheus::Registry::new();
        let storage = Storage::open(store, Arc::clone(&keyring), &registry).unwrap();
        let sessions = storage.sessions();
        let shutdown = CancellationToken::new();
        let authn = Authn::new(config.clone(), sessions.clone(), &registry).unwrap();
        let address = serve(&authn, &shutdown).await;
        Self { provider, sessions, keyring, config, registry, authn, address, storage, shutdown }
    }

    /// A second authn over the same store and the same keys.
    pub(crate) async fn second(&self) -> std::net::SocketAddr {
        serve(&self.other_authn(), &self.shutdown).await
    }

    /// The same, as after a restart or on another node: it was told nothing.
    pub(crate) fn other_authn(&self) -> Authn {
        Authn::new(self.config.clone(), self.sessions.clone(), &prometheus::Registry::new()).unwrap()
    }

    /// Authn and the store of `folder`, under another `shared_secret`.
    pub(crate) fn after_a_restart_with_other_keys(&self, folder: &tempfile::TempDir) -> (Authn, Sessions) {
        let keyring = Arc::new(Keyring::derive(&Secret::new([9; 32]), &Secret::new([2; 32])));
        let (store, registry) =
            (StorageConfig::File { path: folder.path().join("store") }, prometheus::Registry::new());
        let sessions = Storage::open(store, Arc::clone(&keyring), &registry).unwrap().sessions();
        let config = AuthnConfig { keyring, ..self.config.clone() };
        (Authn::new(config, sessions.clone(), &registry).unwrap(), sessions)
    }

    pub(crate) fn browser(&self) -> Browser {
        Browser::new(self.address, &self.keyring)
    }

    /// What an edge does with a browser that has no session: a flow cookie, and the way to authn.
    pub(crate) fn send_to_sign_in(&self, browser: &mut Browser, target: &str) -> Url {
        self.send_to_sign_in_at(browser, target, "main", now())
    }

    pub(crate) fn send_to_sign_in_at(&self, browser: &mut Browser, target: &str, idp: &str, now: Timestamp) -> Url {
        self.send(browser, target, &[], (idp, now))
    }

    /// The same on a route that depends on hosts.
    pub(crate) fn send_through(&self, browser: &mut Browser, target: &str, hosts: &[&str]) -> Url {
        self.send(browser, target, hosts, ("main", now()))
    }

    fn send(&self, browser: &mut Browser, target: &str, hosts: &[&str], (idp, now): (&str, Timestamp)) -> Url {
        let target = Url::parse(target).unwrap();
        let flow = FlowCookie::begin(&self.config.cookie_name, now).unwrap();
        browser.take_cookie(&target, &flow.set());
        let request = SignInRequest {
            redirect_uri: target,
            idp: IdpId::new(idp),
            recipient: Recipient::Browser(flow.hash(&self.keyring)),
            restarted: false,
            additional_hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
        };
        request.to_url(&self.keyring, Url::parse(AUTHN).unwrap().join("/.pomerium/sign_in").unwrap(), now)
    }

    /// The whole sign-in, as far as the browser gets.
    pub(crate) async fn sign_in(&self, browser: &mut Browser, target: &str) -> Arrived {
        let there = self.send_to_sign_in(browser, target);
        browser.follow(there).await
    }

    /// The live sessions of the provider's one user.
    pub(crate) async fn live_sessions(&self) -> Vec<SessionSummary> {
        self.sessions.list(&self.provider.issuer, "alice", now()).await.unwrap()
    }

    /// What an edge sees.
    pub(crate) fn cache(&self) -> Arc<SessionCache<()>> {
        self.storage.cache(CacheConfig::default())
    }

    /// From now on the store answers nobody.
    pub(crate) async fn close_the_store(&self) {
        self.storage.close().await;
    }

    /// A counter's value, by its name and one of its labels.
    pub(crate) fn counted(&self, name: &str, label: &str) -> f64 {
        let families = self.registry.gather();
        let metrics = families.iter().filter(|family| family.name() == name).flat_map(|family| family.get_metric());
        let matching = metrics.filter(|metric| metric.get_label().iter().any(|pair| pair.value() == label));
        matching.map(|metric| metric.get_counter().get_value()).sum()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

async fn serve(authn: &Authn, shutdown: &CancellationToken) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (authn, shutdown) = (authn.clone(), shutdown.clone());
    tokio::spawn(async move { authn.serve(listener, shutdown).await.unwrap() });
    address
}

pub(crate) fn config(keyring: &Arc<Keyring>, idps: Vec<IdpConfig>) -> AuthnConfig {
    AuthnConfig {
        url: Url::parse(AUTHN).unwrap(),
        keyring: Arc::clone(keyring),
        cookie_name: "_pomerium".into(),
        cookie: CookieAttributes::default(),
        session_lifetime: Duration::from_secs(14 * 3600),
        idps,
        sign_out_redirect: None,
        extra_roots: None,
        programs: postern_identity::ProgramHosts::default(),
        hosts: Arc::new(Hosts(&[APP, OTHER_APP, API, FILES])),
    }
}

pub(crate) fn idp(id: &str, issuer: &str) -> IdpConfig {
    IdpConfig {
        id: IdpId::new(id),
        kind: ProviderKind::Oidc,
        issuer: issuer.into(),
        client_id: "postern".into(),
        client_secret: Some(Secret::new("client-secret-marked".into())),
        scopes: ["openid", "profile", "email"].map(String::from).to_vec(),
        request_params: Vec::new(),
    }
}

pub(crate) fn now() -> Timestamp {
    std::time::SystemTime::now().into()
}
