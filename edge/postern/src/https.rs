//! A client for the few servers that this process asks by itself: bounded in time and size, over verified TLS, following no
//! redirect.

use std::sync::Arc;
use std::time::Duration;

use reqwest::redirect::Policy;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(3);

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum HttpsError {
    /// An authority that is to be trusted cannot be.
    #[error("what is to be trusted is no list of certificates")]
    Roots,
    /// TLS cannot be spoken.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// The client cannot be made.
    #[error("no client: {0}")]
    Client(#[from] reqwest::Error),
}

/// A client that takes no longer than `whole` for a call, and believes the system's roots and those in `extra` (PEM).
pub(crate) fn client(extra: Option<&[u8]>, whole: Duration) -> Result<reqwest::Client, HttpsError> {
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    for certificate in CertificateDer::pem_slice_iter(extra.unwrap_or_default()) {
        store.add(certificate.map_err(|_| HttpsError::Roots)?).map_err(|_| HttpsError::Roots)?;
    }
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(store)
        .with_no_client_auth();
    let client = reqwest::Client::builder()
        .tls_backend_preconfigured(config)
        .redirect(Policy::none())
        .no_proxy()
        .connect_timeout(CONNECT)
        .timeout(whole)
        .user_agent(concat!("postern/", env!("CARGO_PKG_VERSION")));
    Ok(client.build()?)
}

/// The body of an answer; `None` if it is longer than `limit`.
pub(crate) async fn body(mut answer: reqwest::Response, limit: usize) -> Result<Option<Vec<u8>>, reqwest::Error> {
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await? {
        if body.len() + chunk.len() > limit {
            return Ok(None);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Some(body))
}
