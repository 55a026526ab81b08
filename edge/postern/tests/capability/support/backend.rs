//! An upstream that can be reached in every way: in the clear, over TLS, over a socket in the file system, in HTTP/1.1 and in
//! HTTP/2. It tells how it was asked, and answers as it is told.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, Method};
use axum::response::Response;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

/// What a backend shows of itself, and asks of who comes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Shown {
    /// Files with its chain and its key.
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    /// It asks for a certificate that one of these vouches for (PEM).
    pub(crate) clients: String,
    /// The protocols that it speaks.
    pub(crate) alpn: Vec<&'static str>,
}

/// How one request came.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Seen {
    /// Whose request it is.
    pub(crate) backend: String,
    /// Which connection, from 0.
    pub(crate) connection: usize,
    pub(crate) version: String,
    /// The name that TLS asked for; empty without.
    pub(crate) asked_for: String,
    /// The certificate that was shown to it, in hex; empty without.
    pub(crate) certificate: String,
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, String)>,
}

impl Seen {
    /// The value of that header, if it came exactly once.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.iter().filter(|(key, _)| key == name).map(|(_, value)| value.as_str());
        values.next().filter(|_| values.next().is_none())
    }
}

#[derive(Debug)]
struct Inner {
    name: String,
    connections: AtomicUsize,
    seen: Mutex<Vec<Seen>>,
}

/// A running backend; it ends with its owner, and so do its connections.
#[derive(Debug)]
pub(crate) struct Backend {
    address: Option<SocketAddr>,
    inner: Arc<Inner>,
    server: JoinHandle<()>,
}

impl Backend {
    /// One that speaks in the clear.
    pub(crate) async fn plain(name: &str) -> Result<Self> {
        Self::at(name, (Ipv4Addr::LOCALHOST, 0).into()).await
    }

    /// The same, at that address.
    pub(crate) async fn at(name: &str, address: SocketAddr) -> Result<Self> {
        Self::tcp(name, address, None, Router::new()).await
    }

    /// One that speaks TLS.
    pub(crate) async fn secure(name: &str, shown: &Shown) -> Result<Self> {
        Self::tcp(name, (Ipv4Addr::LOCALHOST, 0).into(), Some(acceptor(shown)?), Router::new()).await
    }

    /// One at a socket of the file system.
    pub(crate) fn socket(name: &str, path: &Path) -> Result<Self> {
        let (listener, inner) = (UnixListener::bind(path)?, inner(name));
        let serving = Arc::clone(&inner);
        let server = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(Arc::clone(&serving), stream, Seen::default(), Router::new()));
            }
        });
        Ok(Self { address: None, inner, server })
    }

    /// One with these answers of its own, where a path has one.
    pub(crate) async fn tcp(name: &str, at: SocketAddr, tls: Option<TlsAcceptor>, routes: Router) -> Result<Self> {
        let (listener, inner) = (TcpListener::bind(at).await?, inner(name));
        let address = Some(listener.local_addr()?);
        let serving = Arc::clone(&inner);
        let server = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (serving, tls, routes) = (Arc::clone(&serving), tls.clone(), routes.clone());
                connections.spawn(async move {
                    let Some(tls) = tls else { return serve(serving, stream, Seen::default(), routes).await };
                    let Ok(stream) = tls.accept(stream).await else { return };
                    let session = stream.get_ref().1;
                    let shown = session.peer_certificates().and_then(<[_]>::first).map(hex::encode);
                    let how = Seen {
                        asked_for: session.server_name().unwrap_or_default().to_owned(),
                        certificate: shown.unwrap_or_default(),
                        ..Seen::default()
                    };
                    serve(serving, stream, how, routes).await;
                });
            }
        });
        Ok(Self { address, inner, server })
    }

    pub(crate) fn address(&self) -> Result<SocketAddr> {
        self.address.context("a socket has no address")
    }

    /// `SCHEME://HOST:PORT`.
    pub(crate) fn url(&self, scheme: &str, host: &str) -> Result<String> {
        Ok(format!("{scheme}://{host}:{}", self.address()?.port()))
    }

    /// Every request so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.inner.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.server.abort();
    }
}

fn inner(name: &str) -> Arc<Inner> {
    Arc::new(Inner { name: name.to_owned(), connections: AtomicUsize::new(0), seen: Mutex::default() })
}

/// TLS as it is shown.
pub(crate) fn acceptor(shown: &Shown) -> Result<TlsAcceptor> {
    let chain = CertificateDer::pem_file_iter(&shown.certificate)?.collect::<Result<Vec<_>, _>>()?;
    let key = rustls::pki_types::PrivateKeyDer::from_pem_file(&shown.key)?;
    let builder = if shown.clients.is_empty() {
        ServerConfig::builder().with_no_client_auth()
    } else {
        let mut roots = RootCertStore::empty();
        for root in CertificateDer::pem_slice_iter(shown.clients.as_bytes()) {
            roots.add(root?)?;
        }
        ServerConfig::builder().with_client_cert_verifier(WebPkiClientVerifier::builder(roots.into()).build()?)
    };
    let mut config = builder.with_single_cert(chain, key)?;
    config.alpn_protocols = shown.alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    Ok(TlsAcceptor::from(Arc::new(config)))
}

async fn serve<S>(inner: Arc<Inner>, stream: S, how: Seen, routes: Router)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let connection = inner.connections.fetch_add(1, Ordering::SeqCst);
    let how = Seen { backend: inner.name.clone(), connection, ..how };
    let routes = routes.fallback(async move |request: Request| answer(&inner, request, &how).await);
    let service = TowerToHyperService::new(routes);
    let builder = auto::Builder::new(TokioExecutor::new());
    let _ended = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).await;
}

/// Nothing at all to `/silent`; the body that came to a POST; to all else, how it was asked.
async fn answer(inner: &Inner, request: Request, how: &Seen) -> Response {
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let seen = Seen {
        version: format!("{:?}", request.version()),
        path: request.uri().path().to_owned(),
        headers: request.headers().iter().map(|(name, value)| (name.to_string(), text(value))).collect(),
        ..how.clone()
    };
    inner.seen.lock().unwrap_or_else(PoisonError::into_inner).push(seen.clone());
    if seen.path == "/silent" {
        return std::future::pending().await;
    }
    if request.method() == Method::POST {
        let (head, body) = request.into_parts();
        let kind = head.headers.get(CONTENT_TYPE).cloned();
        let mut answer = Response::new(body);
        answer.headers_mut().extend(kind.map(|kind| (CONTENT_TYPE, kind)));
        return answer;
    }
    Response::new(Body::from(serde_json::to_string(&seen).unwrap_or_default()))
}
