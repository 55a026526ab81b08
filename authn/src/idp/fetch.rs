//! The one way to call a provider: bounded in time and size, over verified TLS, following no redirect (S-070, S-071).

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{Request, Response, StatusCode};
use reqwest::redirect::Policy;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use tokio::sync::Semaphore;
use tracing::warn;
use url::{Host, Url};

use crate::AuthnError;
use crate::metrics::Metrics;

/// 03 §2.
const CONNECT: Duration = Duration::from_secs(3);
const WHOLE_CALL: Duration = Duration::from_secs(10);
/// Calls to one provider at once. A slow provider fills its own places, nobody else's.
const PLACES: usize = 64;

/// Whose certificates are believed: the system's roots and the operator's own.
#[derive(Clone, Debug)]
pub(crate) struct Trust {
    roots: Arc<RootCertStore>,
    config: Arc<ClientConfig>,
}

/// Whether the same roots are believed.
impl PartialEq for Trust {
    fn eq(&self, other: &Self) -> bool {
        self.roots.roots == other.roots.roots
    }
}

impl Eq for Trust {}

impl Trust {
    /// Reads the system's roots (`SSL_CERT_FILE` is honoured) and adds those in `extra` (PEM).
    pub(crate) fn new(extra: Option<&[u8]>) -> Result<Self, AuthnError> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        let own: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(extra.unwrap_or_default()).collect();
        let own = own.map_err(|_| AuthnError::Roots)?;
        if own.is_empty() && extra.is_some_and(|pem| !pem.is_empty()) {
            return Err(AuthnError::Roots);
        }
        for certificate in own {
            roots.add(certificate).map_err(|_| AuthnError::Roots)?;
        }
        if roots.is_empty() {
            warn!("this system has no trusted roots: no identity provider can be reached over https");
        }
        let (provider, roots) = (Arc::new(rustls::crypto::aws_lc_rs::default_provider()), Arc::new(roots));
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(AuthnError::Tls)?
            .with_root_certificates(Arc::clone(&roots))
            .with_no_client_auth();
        Ok(Self { roots, config: Arc::new(config) })
    }
}

/// What a call is for: its name in metrics, and the largest answer that is read (03 §2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Discovery,
    Keys,
    Token,
    Userinfo,
    Revocation,
}

impl Operation {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Discovery => "discovery",
            Self::Keys => "keys",
            Self::Token => "token",
            Self::Userinfo => "userinfo",
            Self::Revocation => "revocation",
        }
    }

    const fn limit(self) -> usize {
        match self {
            Self::Discovery | Self::Token | Self::Userinfo | Self::Revocation => 256 * 1024,
            Self::Keys => 512 * 1024,
        }
    }
}

/// Why a call gave nothing that can be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    #[error("the provider cannot be reached")]
    Unreachable(#[source] reqwest::Error),
    #[error("the provider did not answer in time")]
    TimedOut,
    #[error("too many calls to the provider are under way")]
    Busy,
    #[error("the provider could not be reached a moment ago")]
    FailedJustNow,
    #[error("the provider answered with a redirect")]
    Redirected,
    #[error("the provider's answer is too large")]
    TooLarge,
    #[error("the provider answered with status {0}")]
    Status(StatusCode),
    #[error("the provider's answer cannot be read: {0}")]
    Malformed(&'static str),
    #[error("the provider's metadata names another issuer")]
    OtherIssuer,
    #[error("the provider names an address that is not https")]
    NotHttps,
}

impl FetchError {
    /// The stable reason.
    pub(crate) const fn reason(&self) -> &'static str {
        match self {
            Self::Unreachable(_) | Self::FailedJustNow => "idp-unreachable",
            Self::TimedOut => "idp-timed-out",
            Self::Busy => "idp-busy",
            Self::Redirected => "idp-redirected",
            Self::TooLarge => "idp-answer-too-large",
            Self::Status(_) => "idp-status",
            Self::Malformed(_) => "idp-answer-malformed",
            Self::OtherIssuer => "idp-issuer-mismatch",
            Self::NotHttps => "idp-not-https",
        }
    }

    /// Whether it may pass by itself.
    pub(crate) fn is_temporary(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::TimedOut | Self::Busy | Self::FailedJustNow => true,
            Self::Status(status) => status.is_server_error() || *status == StatusCode::TOO_MANY_REQUESTS,
            Self::Redirected | Self::TooLarge | Self::Malformed(_) | Self::OtherIssuer | Self::NotHttps => false,
        }
    }
}

/// Calls one provider.
#[derive(Debug)]
pub(crate) struct Fetch {
    client: reqwest::Client,
    idp: String,
    places: Arc<Semaphore>,
    metrics: Metrics,
}

impl Fetch {
    /// Calls the provider of that name. Its places are those of the one `before`, if there was one at the same issuer: what
    /// that one began is still under way.
    pub(crate) fn new(trust: &Trust, idp: &str, metrics: Metrics, before: Option<&Self>) -> Result<Self, AuthnError> {
        let places = before.map_or_else(|| Arc::new(Semaphore::new(PLACES)), |before| Arc::clone(&before.places));
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(ClientConfig::clone(&trust.config))
            .redirect(Policy::none())
            .no_proxy()
            .connect_timeout(CONNECT)
            .timeout(WHOLE_CALL)
            .pool_max_idle_per_host(8)
            .user_agent(concat!("postern/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(AuthnError::Client)?;
        Ok(Self { client, idp: idp.to_owned(), places, metrics })
    }

    /// One call, from its first byte to its last.
    ///
    /// # Errors
    /// [`FetchError`]. Any status that is no redirect is an answer.
    pub(crate) async fn call(
        &self,
        operation: Operation,
        request: Request<Vec<u8>>,
    ) -> Result<Response<Vec<u8>>, FetchError> {
        let begun = Instant::now();
        let answer = match tokio::time::timeout(WHOLE_CALL, self.call_unbounded(operation, request)).await {
            Ok(answer) => answer,
            Err(_) => Err(FetchError::TimedOut),
        };
        let outcome = answer.as_ref().map_or_else(FetchError::reason, |_| "ok");
        self.metrics.called_idp(&self.idp, operation.name(), outcome, begun.elapsed());
        answer
    }

    async fn call_unbounded(
        &self,
        operation: Operation,
        request: Request<Vec<u8>>,
    ) -> Result<Response<Vec<u8>>, FetchError> {
        let url = Url::parse(&request.uri().to_string()).map_err(|_| FetchError::NotHttps)?;
        if !is_safe(&url) {
            return Err(FetchError::NotHttps);
        }
        let _place = self.places.try_acquire().map_err(|_| FetchError::Busy)?;
        let request = reqwest::Request::try_from(request).map_err(failed)?;
        let mut answer = self.client.execute(request).await.map_err(failed)?;
        if answer.status().is_redirection() {
            return Err(FetchError::Redirected);
        }
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(failed)? {
            if body.len() + chunk.len() > operation.limit() {
                return Err(FetchError::TooLarge);
            }
            body.extend_from_slice(&chunk);
        }
        let mut response = Response::new(body);
        *response.status_mut() = answer.status();
        *response.headers_mut() = answer.headers().clone();
        Ok(response)
    }

    /// A GET whose answer must be 200; gives it whole.
    pub(crate) async fn read(
        &self,
        operation: Operation,
        url: &Url,
        bearer: Option<&str>,
    ) -> Result<Response<Vec<u8>>, FetchError> {
        let mut request = Request::get(url.as_str()).header(http::header::ACCEPT, "application/json");
        if let Some(token) = bearer {
            request = request.header(http::header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let request = request.body(Vec::new()).map_err(|_| FetchError::Malformed("no address"))?;
        let answer = self.call(operation, request).await?;
        if answer.status() == StatusCode::OK { Ok(answer) } else { Err(FetchError::Status(answer.status())) }
    }
}

fn failed(error: reqwest::Error) -> FetchError {
    if error.is_timeout() { FetchError::TimedOut } else { FetchError::Unreachable(error.without_url()) }
}

/// Whether what is sent there stays secret: https, or plain http that does not leave this machine.
pub(crate) fn is_safe(url: &Url) -> bool {
    let stays = match url.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(address)) => IpAddr::V4(address).is_loopback(),
        Some(Host::Ipv6(address)) => IpAddr::V6(address).is_loopback(),
        None => false,
    };
    url.scheme() == "https" || (url.scheme() == "http" && stays)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s_070_secrets_travel_over_https_or_not_beyond_this_machine() {
        for safe in ["https://idp.example/token", "http://127.0.0.1:9/t", "http://[::1]:9/t", "http://localhost:9/t"] {
            assert!(is_safe(&Url::parse(safe).unwrap()), "{safe}");
        }
        for open in
            ["http://idp.example/token", "http://10.0.0.1/t", "ftp://localhost/", "http://localhost.evil.example/"]
        {
            assert!(!is_safe(&Url::parse(open).unwrap()), "{open}");
        }
    }
}
