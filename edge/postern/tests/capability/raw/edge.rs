//! The edge under attack: one real Postern with a route of every kind, alice signed in, and the upstream behind it.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

use anyhow::{Context, Result};
use rcgen::{CertificateParams, KeyPair};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::h1;
use super::upstream::Upstream;
use crate::support::{Browser, NO_PROVIDER, Postern, Provider, World};

/// A running edge with everything around it.
#[derive(Debug)]
pub(super) struct Edge {
    world: World,
    pub(super) postern: Postern,
    pub(super) upstream: Upstream,
    _provider: Option<Provider>,
    /// Alice's session cookie on each host where she has signed in.
    sessions: BTreeMap<String, String>,
}

/// The hosts where alice signs in.
const SIGNED_IN: &[&str] = &["app", "anonymous", "team", "mixed", "cors", "sockets"];

impl Edge {
    /// Starts one, and signs alice in.
    pub(super) async fn start() -> Result<Self> {
        let world = World::new()?;
        let provider = Provider::start(&world, Some("alice"))?;
        let settings = provider.settings();
        let mut edge = Self::with(world, &settings).await?;
        edge._provider = Some(provider);
        let mut browser = Browser::new(&edge.world.ca_pem())?;
        for name in SIGNED_IN {
            browser.visit(edge.world.url(name, "/signed-in")).await.with_context(|| edge.postern.told())?;
            let host = format!("{name}.{}", World::DOMAIN);
            let session = browser.cookie(&host, "_pomerium").with_context(|| format!("no session on {name}"))?;
            edge.sessions.insert((*name).to_owned(), session.to_owned());
        }
        Ok(edge)
    }

    /// Starts one where nobody can sign in.
    pub(super) async fn start_without_provider() -> Result<Self> {
        Self::start_with("").await
    }

    /// The same, with these settings.
    pub(super) async fn start_with(settings: &str) -> Result<Self> {
        Self::with(World::new()?, &format!("{NO_PROVIDER}{settings}")).await
    }

    async fn with(world: World, provider: &str) -> Result<Self> {
        let upstream = Upstream::start()?;
        write_second_certificate(&world)?;
        let second = world.path("second.pem");
        let key = world.path("second-key.pem");
        let settings =
            format!("{provider}{SETTINGS}certificates:\n  - cert: {}\n    key: {}\n", second.display(), key.display());
        let routes = ROUTES.replace("UPSTREAM", &upstream.url());
        let postern = Postern::run(&world, &world.config(&settings, &routes)).await?;
        Ok(Self { world, postern, upstream, _provider: None, sessions: BTreeMap::new() })
    }

    /// A TLS connection that names `name` below the domain, or nobody if it is empty, and offers that protocol. Whose
    /// certificate comes is not what these cases are about.
    pub(super) async fn connect(&self, name: &str, alpn: &str) -> Result<TlsStream<TcpStream>> {
        let mut config = ClientConfig::builder()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anyone))
            .with_no_client_auth();
        config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
        config.enable_sni = !name.is_empty();
        let host =
            if name.is_empty() || name == "elsewhere." { "elsewhere.localhost".to_owned() } else { self.host(name) };
        let stream = self.reach().await?;
        Ok(TlsConnector::from(Arc::new(config)).connect(ServerName::try_from(host)?, stream).await?)
    }

    /// A TCP connection that says nothing yet.
    pub(super) async fn reach(&self) -> Result<TcpStream> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.world.port)).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    pub(super) fn host(&self, name: &str) -> String {
        format!("{name}.{}", World::DOMAIN)
    }

    /// Alice's cookie on that host.
    pub(super) fn session(&self, name: &str) -> &str {
        self.sessions.get(name).map(String::as_str).unwrap_or_default()
    }

    /// All cookies of hers: none of them may ever be seen upstream.
    pub(super) fn all_sessions(&self) -> impl Iterator<Item = &str> {
        self.sessions.values().map(String::as_str)
    }

    /// `{session:NAME}` and `{port}` in a text of the table.
    pub(super) fn fill(&self, text: &str) -> String {
        let filled = text.replace("{port}", &self.world.port.to_string());
        self.sessions.iter().fold(filled, |text, (name, value)| text.replace(&format!("{{session:{name}}}"), value))
    }

    /// What is wrong with the assertion of a request for `host`: it must verify against the published keys.
    pub(super) async fn faults_of_assertion(&self, token: &str, host: &str) -> Result<Vec<String>> {
        let mut client = h1::Client::new(self.connect("open", "http/1.1").await?);
        client.send("GET /.well-known/pomerium/jwks.json HTTP/1.1\r\nHost: open.corp.localhost\r\n\r\n").await;
        let keys = client.answer(false).await?.context("no key set")?.body;
        let header = jsonwebtoken::decode_header(token)?;
        let keys: jsonwebtoken::jwk::JwkSet = serde_json::from_str(&keys)?;
        let key = keys.find(&header.kid.context("no kid")?).context("no such key")?;
        let mut rules = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::ES256);
        rules.set_audience(&[host]);
        rules.set_required_spec_claims(&["iss", "aud", "sub", "exp"]);
        let key = jsonwebtoken::DecodingKey::from_jwk(key)?;
        let claims = jsonwebtoken::decode::<serde_json::Value>(token, &key, &rules)?.claims;
        let number = |name| claims.get(name).and_then(serde_json::Value::as_i64).unwrap_or_default();
        let mut faults = Vec::new();
        if number("exp") - number("iat") != 300 {
            faults.push(format!("S-042: it does not live five minutes: {claims}"));
        }
        if claims.get("jti").is_none() {
            faults.push(format!("S-042: it has no jti: {claims}"));
        }
        Ok(faults)
    }

    /// What `postern check` says to a configuration with these routes, and whether it takes it.
    pub(super) fn check(&self, routes: &str) -> Result<(bool, String)> {
        let path = self.world.path("checked.yaml");
        let provider =
            "idp_provider: oidc\nidp_provider_url: http://127.0.0.1:9\nidp_client_id: a\nidp_client_secret: b\n";
        std::fs::write(&path, self.world.config(provider, routes))?;
        let finished = Postern::once(self.world.folder(), &["check", &path.display().to_string()])?;
        Ok((finished.status.success(), format!("{}{}", finished.stdout, finished.stderr)))
    }
}

/// For `elsewhere.localhost`, which the first certificate does not cover.
fn write_second_certificate(world: &World) -> Result<()> {
    let key = KeyPair::generate()?;
    let certificate = CertificateParams::new(vec!["elsewhere.localhost".to_owned()])?.self_signed(&key)?;
    std::fs::write(world.path("second.pem"), certificate.pem())?;
    std::fs::write(world.path("second-key.pem"), key.serialize_pem())?;
    Ok(())
}

const SETTINGS: &str = "\
pass_identity_headers: false
jwt_claims_headers:
  X-Pomerium-Claim-Email: email
  X-Company-Groups: groups
";

/// A route of every kind. The hosts have no port: they serve on any (01 §2.2).
const ROUTES: &str = r#"
  - from: https://open.corp.localhost
    to: UPSTREAM
    allow_public_unauthenticated_access: true
    preserve_host_header: true
  - from: https://elsewhere.localhost
    to: UPSTREAM
    allow_public_unauthenticated_access: true
  - from: https://app.corp.localhost
    to: UPSTREAM
    allow_any_authenticated_user: true
    pass_identity_headers: true
    preserve_host_header: true
  - from: https://anonymous.corp.localhost
    to: UPSTREAM
    allow_any_authenticated_user: true
    pass_identity_headers: false
    preserve_host_header: true
  - from: https://told.corp.localhost
    to: UPSTREAM
    allow_public_unauthenticated_access: true
    pass_identity_headers: true
    preserve_host_header: true
  - from: https://team.corp.localhost
    to: UPSTREAM
    policy: [{ allow: { and: [{ groups: { has: engineering } }] } }]
  - from: https://nobody.corp.localhost
    to: UPSTREAM
    policy: []
  - from: https://mixed.corp.localhost
    prefix: /public/
    to: UPSTREAM
    allow_public_unauthenticated_access: true
  - from: https://mixed.corp.localhost
    path: /exact
    to: UPSTREAM
    allow_public_unauthenticated_access: true
  - from: https://mixed.corp.localhost
    regex: /n[0-9]+/.*
    to: UPSTREAM
    allow_public_unauthenticated_access: true
  - from: https://mixed.corp.localhost
    prefix: /closed/
    to: UPSTREAM
    policy: [{ allow: { and: [{ groups: { has: engineering } }] } }]
  - from: https://mixed.corp.localhost
    prefix: /
    to: UPSTREAM
    policy:
      - allow: { and: [{ authenticated_user: true }] }
      - deny: { or: [{ http_path: { starts_with: /secret } }] }
  - from: https://narrow.corp.localhost
    prefix: /only/
    to: UPSTREAM
    allow_public_unauthenticated_access: true
  - from: https://rewritten.corp.localhost
    prefix: /in/
    prefix_rewrite: /out/deep/
    to: UPSTREAM
    allow_public_unauthenticated_access: true
  - from: https://bare.corp.localhost
    prefix: /in
    prefix_rewrite: /
    to: UPSTREAM
    allow_public_unauthenticated_access: true
  - from: https://named.corp.localhost
    to: UPSTREAM
    allow_public_unauthenticated_access: true
    host_rewrite: inside.example
    set_request_headers: { X-Set: by-us, X-Gone: by-us }
    remove_request_headers: [X-Gone, X-Unwanted]
    set_response_headers: { X-Answer: ours }
  - from: https://*.wild.corp.localhost
    to: UPSTREAM
    allow_public_unauthenticated_access: true
    preserve_host_header: true
  - from: https://exact.wild.corp.localhost
    prefix: /here/
    to: UPSTREAM
    allow_public_unauthenticated_access: true
  - from: https://ported.corp.localhost:8444
    to: UPSTREAM
    allow_public_unauthenticated_access: true
  - from: https://127.0.0.9
    to: UPSTREAM
    allow_public_unauthenticated_access: true
  - from: https://cors.corp.localhost
    to: UPSTREAM
    allow_any_authenticated_user: true
    cors_allow_preflight: true
  - from: https://sockets.corp.localhost
    to: UPSTREAM
    allow_any_authenticated_user: true
    allow_websockets: true
    pass_identity_headers: true
    preserve_host_header: true
  - from: https://pipe.corp.localhost
    to: UPSTREAM
    allow_public_unauthenticated_access: true
    allow_websockets: true
  - from: https://spdy.corp.localhost
    to: UPSTREAM
    allow_public_unauthenticated_access: true
    allow_spdy: true
  - from: https://custom.corp.localhost
    to: UPSTREAM
    allow_public_unauthenticated_access: true
    allow_upgrades: [TCP, foo/2]
  - from: https://go.corp.localhost
    redirect: { host_redirect: there.example, response_code: 302 }
    allow_public_unauthenticated_access: true
  - from: https://fixed.corp.localhost
    response: { status: 200, body: "fixed\n" }
    allow_public_unauthenticated_access: true
"#;

/// Takes every certificate.
#[derive(Debug)]
struct Anyone;

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let provider = CryptoProvider::get_default();
        provider.map(|provider| provider.signature_verification_algorithms.supported_schemes()).unwrap_or_default()
    }
}
