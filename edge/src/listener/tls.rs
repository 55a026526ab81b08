//! TLS as the public listener speaks it: 1.2 and 1.3, forward secrecy and AEAD only, no early data (03 §2).

use std::io;
use std::sync::Arc;

use pingora_core::protocols::ALPN;
use pingora_core::protocols::tls::SslDigest;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::ResolvesServerCert;
use rustls::{ServerConfig, ServerConnection};
use tokio::net::TcpStream;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

/// The process's cryptography, passed explicitly so that no order of initialisation matters.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// Ends TLS for new connections.
#[derive(Debug, Clone)]
pub(crate) struct TlsAcceptor {
    config: Arc<ServerConfig>,
}

impl TlsAcceptor {
    /// Certificates by `resolver`; `h2` and `http1` are what ALPN offers.
    ///
    /// # Errors
    /// The provider has no suite for these versions.
    pub(crate) fn new(
        resolver: Arc<dyn ResolvesServerCert>,
        provider: Arc<CryptoProvider>,
        h2: bool,
        http1: bool,
    ) -> Result<Self, rustls::Error> {
        // Every suite of this provider is ECDHE with AES-GCM or ChaCha20-Poly1305; a test holds it to that.
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
            .with_no_client_auth()
            .with_cert_resolver(resolver);
        let offered = [(h2, b"h2".to_vec()), (http1, b"http/1.1".to_vec())];
        config.alpn_protocols = offered.into_iter().filter_map(|(on, name)| on.then_some(name)).collect();
        config.max_early_data_size = 0;
        Ok(Self { config: Arc::new(config) })
    }

    /// The handshake. The ClientHello is read first, so that a name can choose how the rest goes.
    ///
    /// # Errors
    /// The client left, or does not speak our TLS.
    pub(crate) async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let start = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), stream).await?;
        start.into_stream(Arc::clone(&self.config)).await
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
