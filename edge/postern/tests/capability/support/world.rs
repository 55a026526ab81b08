//! A world of a test's own: a folder, a certificate authority, names, ports, and the text of a configuration.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme, SupportedProtocolVersion};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{DEADLINE, bounded};

/// Everything that a Postern of this test needs around it.
#[derive(Debug)]
pub(crate) struct World {
    folder: TempDir,
    authority: CertifiedIssuer<'static, KeyPair>,
    /// The public listener's port.
    pub(crate) port: u16,
    /// Health's port.
    pub(crate) health: u16,
    /// The metrics' port.
    pub(crate) metrics: u16,
}

impl World {
    /// A fresh one, its certificate written.
    pub(crate) fn new() -> Result<Self> {
        install_crypto();
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "Test authority");
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        let world = Self {
            folder: TempDir::new()?,
            authority,
            port: free_port()?,
            health: free_port()?,
            metrics: free_port()?,
        };
        world.renew_certificate()?;
        std::fs::write(world.path("ca.pem"), world.authority.pem())?;
        Ok(world)
    }

    /// The domain below which everything lives; browsers resolve it to this machine.
    pub(crate) const DOMAIN: &'static str = "corp.localhost";

    /// A file of this world.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Its folder.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// `name` below the domain, with the public port, as in a Host header.
    pub(crate) fn host(&self, name: &str) -> String {
        format!("{name}.{}:{}", Self::DOMAIN, self.port)
    }

    /// An https URL of the public listener.
    pub(crate) fn url(&self, name: &str, path: &str) -> String {
        format!("https://{}{path}", self.host(name))
    }

    /// The authority's certificate, PEM.
    pub(crate) fn ca_pem(&self) -> String {
        self.authority.pem()
    }

    /// Writes a new certificate and key for `*.corp.localhost` over the old ones, as a renewal would; gives the
    /// certificate's DER.
    pub(crate) fn renew_certificate(&self) -> Result<Vec<u8>> {
        let names = [format!("*.{}", Self::DOMAIN), Self::DOMAIN.to_owned()];
        self.issue(("certificate.pem", "key.pem"), &names)
    }

    /// Writes a new certificate and key of these names to these files; gives the certificate's DER.
    pub(crate) fn issue(&self, (file, key_file): (&str, &str), names: &[String]) -> Result<Vec<u8>> {
        let key = KeyPair::generate()?;
        let certificate = CertificateParams::new(names)?.signed_by(&key, &self.authority)?;
        replace(&self.path(key_file), key.serialize_pem().as_bytes())?;
        replace(&self.path(file), certificate.pem().as_bytes())?;
        Ok(certificate.der().to_vec())
    }

    /// A configuration: names, ports and secrets of this world, then `settings` and `routes` as they are.
    pub(crate) fn config(&self, settings: &str, routes: &str) -> String {
        let Self { port, health, metrics, .. } = self;
        let (certificate, key, store) = (self.path("certificate.pem"), self.path("key.pem"), self.path("store"));
        let authenticate = self.url("authenticate", "");
        let (certificate, key, store) = (certificate.display(), key.display(), store.display());
        format!(
            "address: 127.0.0.1:{port}\n\
             health_check_addr: 127.0.0.1:{health}\n\
             metrics_address: 127.0.0.1:{metrics}\n\
             certificate_file: {certificate}\n\
             certificate_key_file: {key}\n\
             authenticate_service_url: {authenticate}\n\
             shared_secret: {SHARED_SECRET}\n\
             cookie_secret: {COOKIE_SECRET}\n\
             databroker_storage_type: file\n\
             databroker_storage_connection_string: file://{store}\n\
             {settings}\n\
             routes:\n{routes}"
        )
    }

    /// A route of a configuration: `name` below the domain leads `to` there, with these further lines.
    pub(crate) fn route(&self, name: &str, to: &str, lines: &[&str]) -> String {
        let lines: String = lines.iter().map(|line| format!("    {line}\n")).collect();
        format!("  - from: {}\n    to: {to}\n{lines}", self.url(name, ""))
    }

    /// Writes a configuration (over the old one) and gives its path.
    pub(crate) fn write_config(&self, text: &str) -> Result<PathBuf> {
        let path = self.path("config.yaml");
        replace(&path, text.as_bytes())?;
        Ok(path)
    }

    /// Sends one HTTP/1.1 request as it is and gives all that comes back until the connection ends: so it should ask for
    /// `Connection: close`.
    pub(crate) async fn exchange(&self, name: &str, request: &str) -> Result<String> {
        let mut stream = self.connect(name, &["http/1.1"]).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        // Some servers end TLS without a word; what came before counts.
        let _unclean = bounded(DEADLINE, "the end of the answer", stream.read_to_end(&mut answer)).await?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }

    /// A TLS connection to the public listener for `name`, offering these protocols.
    pub(crate) async fn connect(&self, name: &str, alpn: &[&str]) -> Result<TlsStream<TcpStream>> {
        self.connect_with(name, alpn, rustls::ALL_VERSIONS).await
    }

    /// As [`Self::connect`], with these versions of TLS alone.
    pub(crate) async fn connect_with(
        &self,
        name: &str,
        alpn: &[&str],
        versions: &[&'static SupportedProtocolVersion],
    ) -> Result<TlsStream<TcpStream>> {
        let (named, tls) = (ServerName::try_from(format!("{name}.{}", Self::DOMAIN))?, self.tls(alpn, versions, None)?);
        let connecting = async {
            let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).await?;
            TlsConnector::from(Arc::new(tls)).connect(named, stream).await
        };
        Ok(bounded(DEADLINE, &format!("a TLS connection to {name}"), connecting).await??)
    }

    /// The certificate that is served for `name`, whoever vouches for it.
    pub(crate) async fn shown(&self, name: &str) -> Result<CertificateDer<'static>> {
        let stream = self.unverified(name).await?;
        let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        Ok(shown.context("no certificate")?.clone().into_owned())
    }

    /// The OCSP response that is stapled for `name`, if there is one.
    pub(crate) async fn stapled(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let anybody = Arc::new(Anybody::default());
        drop(self.taken_by(&anybody, name).await?);
        let stapled = std::mem::take(&mut *anybody.stapled.lock().unwrap_or_else(PoisonError::into_inner));
        Ok(Some(stapled).filter(|stapled| !stapled.is_empty()))
    }

    /// A TLS connection for `name` that takes any certificate.
    pub(crate) async fn unverified(&self, name: &str) -> Result<TlsStream<TcpStream>> {
        self.taken_by(&Arc::new(Anybody::default()), name).await
    }

    async fn taken_by(&self, anybody: &Arc<Anybody>, name: &str) -> Result<TlsStream<TcpStream>> {
        let mut config = self.tls(&["http/1.1"], rustls::ALL_VERSIONS, None)?;
        let verifier: Arc<Anybody> = Arc::clone(anybody);
        config.dangerous().set_certificate_verifier(verifier);
        let named = ServerName::try_from(format!("{name}.{}", Self::DOMAIN))?;
        let connecting = async {
            let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).await?;
            TlsConnector::from(Arc::new(config)).connect(named, stream).await
        };
        Ok(bounded(DEADLINE, &format!("a TLS connection to {name}"), connecting).await??)
    }

    /// A TLS client that trusts this world's authority alone, and shows this certificate if it is asked for one.
    pub(super) fn tls(
        &self,
        alpn: &[&str],
        versions: &[&'static SupportedProtocolVersion],
        identity: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
    ) -> Result<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.der().clone())?;
        let builder = ClientConfig::builder_with_protocol_versions(versions).with_root_certificates(roots);
        let mut config = match identity {
            Some((chain, key)) => builder.with_client_auth_cert(chain, key)?,
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        Ok(config)
    }
}

/// Takes any certificate: what is served is looked at, not believed.
#[derive(Debug, Default)]
struct Anybody {
    /// What came with it.
    stapled: Mutex<Vec<u8>>,
}

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        *self.stapled.lock().unwrap_or_else(PoisonError::into_inner) = ocsp_response.to_vec();
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

/// Two secrets with marks that no output may ever show (S-108).
pub(crate) const SHARED_SECRET: &str = "c2hhcmVkLW1hcmstc2hhcmVkLW1hcmstMTIzNDU2Nzg=";
/// See [`SHARED_SECRET`].
pub(crate) const COOKIE_SECRET: &str = "Y29va2llLW1hcmstY29va2llLW1hcmstMTIzNDU2Nzg=";

/// Settings with a provider that nobody will need.
pub(crate) const NO_PROVIDER: &str =
    "idp_provider: oidc\nidp_provider_url: http://127.0.0.1:9\nidp_client_id: nobody\nidp_client_secret: none-needed\n";
/// The lines of a route for everybody.
pub(crate) const PUBLIC: &[&str] = &["allow_public_unauthenticated_access: true"];
/// The lines of a route for whoever is signed in.
pub(crate) const ANY_USER: &[&str] = &["allow_any_authenticated_user: true", "pass_identity_headers: true"];

/// aws-lc-rs for this process's TLS, as in the binary.
pub(crate) fn install_crypto() {
    // A second call is refused; the first one counts.
    let _already = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

/// A port of this machine that nobody listens on and that no outgoing connection is given: below the kernel's range.
pub(crate) fn free_port() -> Result<u16> {
    free_ports(1)
}

/// The first of so many such ports in a row.
pub(crate) fn free_ports(count: u16) -> Result<u16> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Another run on the same machine begins elsewhere.
    let offset = u16::try_from(std::process::id() % 120)?.saturating_mul(97);
    for _ in 0..500 {
        let first = 20_000 + (offset + NEXT.fetch_add(count, Ordering::Relaxed)) % 12_000;
        if (first..first + count).all(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()) {
            return Ok(first);
        }
    }
    anyhow::bail!("no free port")
}

/// Replaces a file at once, as careful tools do: a reader sees the old or the new one, never a half.
fn replace(path: &Path, content: &[u8]) -> Result<()> {
    let beside = path.with_extension("new");
    std::fs::write(&beside, content)?;
    std::fs::rename(&beside, path).with_context(|| format!("replacing {}", path.display()))
}
