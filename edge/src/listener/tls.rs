//! TLS as the public listener speaks it: 1.2 and 1.3, forward secrecy and AEAD only, no early data (03 §2).

use std::io;
use std::sync::Arc;

use arc_swap::ArcSwap;
use pingora_core::protocols::ALPN;
use pingora_core::protocols::tls::SslDigest;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::ResolvesServerCert;
use rustls::server::danger::ClientCertVerifier;
use rustls::{ServerConfig, ServerConnection};
use tokio::net::TcpStream;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

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
    /// What holds for handshakes from now on.
    current: ArcSwap<Current>,
}

/// How handshakes go.
#[derive(Debug)]
struct Current {
    config: Arc<ServerConfig>,
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
        mtls: &DownstreamMtls,
    ) -> Result<Self, rustls::Error> {
        let offered = [(h2, b"h2".to_vec()), (http1, b"http/1.1".to_vec())];
        let alpn: Vec<_> = offered.into_iter().filter_map(|(on, name)| on.then_some(name)).collect();
        let current = Current::new(&resolver, &provider, &alpn, mtls)?;
        Ok(Self(Arc::new(Shared { resolver, provider, alpn, current: ArcSwap::from_pointee(current) })))
    }

    /// Asks clients for something else from now on. What was resumed before begins anew.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub(crate) fn ask(&self, mtls: &DownstreamMtls) -> Result<(), rustls::Error> {
        let Shared { resolver, provider, alpn, current } = &*self.0;
        if !current.load().mtls.is_same(mtls) {
            current.store(Arc::new(Current::new(resolver, provider, alpn, mtls)?));
        }
        Ok(())
    }

    /// The handshake. The ClientHello is read first, so that a name can choose how the rest goes.
    ///
    /// # Errors
    /// The client left, or does not speak our TLS.
    pub(crate) async fn accept(&self, stream: TcpStream) -> io::Result<Shaken> {
        let start = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), stream).await?;
        let current = self.0.current.load_full();
        let stream = start.into_stream(Arc::clone(&current.config)).await?;
        Ok(Shaken { stream, asking: current.asking.clone() })
    }
}

impl Current {
    fn new(
        resolver: &Arc<dyn ResolvesServerCert>,
        provider: &Arc<CryptoProvider>,
        alpn: &[Vec<u8>],
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
        Ok(Self { config: Arc::new(config), mtls: mtls.clone(), asking })
    }
}

/// What ALPN chose.
pub(crate) fn alpn(connection: &ServerConnection) -> Option<ALPN> {
    match connection.alpn_protocol() {
        Some(b"h2") => Some(ALPN::H2),
        Some(b"http/1.1") => Some(ALPN::H1),
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
