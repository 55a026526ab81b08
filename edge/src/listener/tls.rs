//! TLS as the public listener speaks it: 1.2 and 1.3, forward secrecy and AEAD only, no early data (03 §2).

use std::io;
use std::sync::Arc;

use arc_swap::ArcSwap;
use pingora_core::protocols::ALPN as Chosen;
use pingora_core::protocols::tls::SslDigest;
use postern_identity::Keyring;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::ResolvesServerCert;
use rustls::server::danger::ClientCertVerifier;
use rustls::{CipherSuite, ServerConfig, ServerConnection};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use super::challenge::{ALPN, Challenges};
use super::tickets::Tickets;
use crate::mtls::{Asking, DownstreamMtls};

/// The process's cryptography, passed explicitly so that no order of initialisation matters.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// Ends TLS for new connections.
#[derive(Debug, Clone)]
pub(crate) struct TlsAcceptor(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    resolver: Arc<dyn ResolvesServerCert>,
    provider: Arc<CryptoProvider>,
    alpn: Vec<Vec<u8>>,
    keyring: Arc<Keyring>,
    /// What holds for handshakes from now on.
    current: ArcSwap<Current>,
}

/// How handshakes go.
#[derive(Debug)]
struct Current {
    /// For who knows TLS 1.3: with tickets that every edge opens, unless clients are asked for certificates.
    config: Arc<ServerConfig>,
    /// For everybody else, without.
    older: Arc<ServerConfig>,
    mtls: DownstreamMtls,
    asking: Option<Arc<Asking>>,
}

/// A connection after its handshake.
#[derive(Debug)]
pub(crate) struct Shaken {
    pub(crate) stream: TlsStream<TcpStream>,
    /// What was asked of the client.
    pub(crate) asking: Option<Arc<Asking>>,
}

impl TlsAcceptor {
    /// Certificates by `resolver`; `h2` and `http1` are what ALPN offers; `mtls` is what clients are asked for.
    ///
    /// # Errors
    /// The provider has no suite for these versions.
    pub(crate) fn new(
        resolver: Arc<dyn ResolvesServerCert>,
        provider: Arc<CryptoProvider>,
        (h2, http1): (bool, bool),
        (mtls, keyring): (&DownstreamMtls, &Arc<Keyring>),
    ) -> Result<Self, rustls::Error> {
        let offered = [(h2, b"h2".to_vec()), (http1, b"http/1.1".to_vec())];
        let alpn: Vec<_> = offered.into_iter().filter_map(|(on, name)| on.then_some(name)).collect();
        let keyring = Arc::clone(keyring);
        let current = Current::new(&resolver, &provider, (&alpn, &keyring), mtls)?;
        Ok(Self(Arc::new(Shared { resolver, provider, alpn, keyring, current: ArcSwap::from_pointee(current) })))
    }

    /// Asks clients for something else from now on. What was resumed before begins anew.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub(crate) fn ask(&self, mtls: &DownstreamMtls) -> Result<(), rustls::Error> {
        let Shared { resolver, provider, alpn, keyring, current } = &*self.0;
        if !current.load().mtls.is_same(mtls) {
            current.store(Arc::new(Current::new(resolver, provider, (alpn, keyring), mtls)?));
        }
        Ok(())
    }

    /// The handshake. The ClientHello is read first, so that a name can choose how the rest goes. `None`: it was an authority
    /// that looked at a challenge, and that was all.
    ///
    /// # Errors
    /// The client left, or does not speak our TLS.
    pub(crate) async fn accept(&self, stream: TcpStream, challenges: &Challenges) -> io::Result<Option<Shaken>> {
        let start = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), stream).await?;
        let hello = start.client_hello();
        // It offers that and nothing else (RFC 8737 §3): who offers more is no authority.
        if hello.alpn().is_some_and(|offered| offered.eq([ALPN])) {
            let name = hello.server_name().unwrap_or_default().to_owned();
            let config = challenges.shown(&name).await;
            let config = config.ok_or_else(|| io::Error::other("a challenge for a name that has none open"))?;
            start.into_stream(config).await?.shutdown().await?;
            return Ok(None);
        }
        let current = self.0.current.load_full();
        let newer = hello.cipher_suites().iter().any(|suite| TLS13.contains(suite));
        let config = if newer { &current.config } else { &current.older };
        let stream = start.into_stream(Arc::clone(config)).await?;
        Ok(Some(Shaken { stream, asking: current.asking.clone() }))
    }
}

impl Current {
    fn new(
        resolver: &Arc<dyn ResolvesServerCert>,
        provider: &Arc<CryptoProvider>,
        (alpn, keyring): (&[Vec<u8>], &Arc<Keyring>),
        mtls: &DownstreamMtls,
    ) -> Result<Self, rustls::Error> {
        // Every suite of this provider is ECDHE with AES-GCM or ChaCha20-Poly1305; a test holds it to that.
        let builder = ServerConfig::builder_with_provider(Arc::clone(provider))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?;
        let asking = Asking::of(mtls);
        let builder = match &asking {
            Some(asking) => builder.with_client_cert_verifier(Arc::clone(asking) as Arc<dyn ClientCertVerifier>),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_cert_resolver(Arc::clone(resolver));
        config.alpn_protocols = alpn.to_vec();
        config.max_early_data_size = 0;
        let older = Arc::new(config.clone());
        // A ticket carries the certificate that was shown, and a new one comes with each resumption: one that every edge opens
        // would stand for its client for ever, wherever its bytes are. Where one is asked for, sessions stay in this process.
        if asking.is_none() {
            config.ticketer = Tickets::new(Arc::clone(keyring));
        }
        Ok(Self { config: Arc::new(config), older, mtls: mtls.clone(), asking })
    }
}

/// Who offers one of these knows TLS 1.3.
const TLS13: [CipherSuite; 3] = [
    CipherSuite::TLS13_AES_128_GCM_SHA256,
    CipherSuite::TLS13_AES_256_GCM_SHA384,
    CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
];

/// What ALPN chose.
pub(crate) fn alpn(connection: &ServerConnection) -> Option<Chosen> {
    match connection.alpn_protocol() {
        Some(b"h2") => Some(Chosen::H2),
        Some(b"http/1.1") => Some(Chosen::H1),
        _ => None,
    }
}

/// Version and cipher, for Pingora.
pub(crate) fn digest(connection: &ServerConnection) -> SslDigest {
    let cipher = connection.negotiated_cipher_suite().and_then(|suite| suite.suite().as_str()).unwrap_or_default();
    let version = connection.protocol_version().and_then(|version| version.as_str()).unwrap_or_default();
    SslDigest::new(cipher, version, None, None, Vec::new())
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_suite_has_forward_secrecy_and_an_aead() {
        for suite in &super::provider().cipher_suites {
            let name = format!("{:?}", suite.suite());
            let forward = name.starts_with("TLS13_") || name.starts_with("TLS_ECDHE_");
            let aead = name.contains("_GCM_") || name.contains("CHACHA20_POLY1305");
            assert!(forward && aead && !name.contains("CBC"), "{name}");
        }
    }
}
