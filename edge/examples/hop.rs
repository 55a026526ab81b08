//! A hop of Pingora with nothing of ours: TLS from whoever asks, plain HTTP to one application. What a request costs beyond it is
//! the gate's: `postern-load-tests compare` measures both in the same rounds. It runs as an edge does on one core: one thread, one
//! runtime, the same TLS, what is written small sent together.
//!
//! `hop ADDRESS APPLICATION CERTIFICATE KEY [bare|heads]`; with `heads` it writes the fields that an edge does, in both directions,
//! so that what those cost in Pingora can be told from what deciding costs.

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_trait::async_trait;
use http::header::{self, HeaderName, HeaderValue};
use pingora_core::apps::ServerApp as _;
use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_core::protocols::tls::{SslDigest, TlsRef};
use pingora_core::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, TimingDigest, UniqueID,
    UniqueIDType,
};
use pingora_core::server::configuration::ServerConf;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::{ProxyHttp, Session, http_proxy};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, BufWriter, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut next =
        |what: &str| arguments.next().ok_or_else(|| format!("no {what}: ADDRESS APPLICATION CERTIFICATE KEY"));
    let (address, application): (SocketAddr, SocketAddr) = (next("address")?.parse()?, next("application")?.parse()?);
    let tls = acceptor(&next("certificate")?, &next("key")?)?;
    let heads = match arguments.next().as_deref() {
        None | Some("bare") => None,
        Some("heads") => Some(Heads::new(application)?),
        Some(other) => return Err(format!("{other} is neither bare nor heads").into()),
    };
    let hop = Hop { peer: HttpPeer::new(application, false, String::new()), heads };
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(serve(address, hop, tls))?;
    Ok(())
}

fn acceptor(certificate: &str, key: &str) -> Result<TlsAcceptor, Box<dyn Error>> {
    let chain = CertificateDer::pem_file_iter(certificate)?.collect::<Result<Vec<_>, _>>()?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, PrivateKeyDer::from_pem_file(key)?)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

async fn serve(address: SocketAddr, hop: Hop, tls: TlsAcceptor) -> io::Result<()> {
    let conf = ServerConf { threads: 1, upstream_keepalive_pool_size: 512, ..ServerConf::default() };
    let (proxy, listener) = (Arc::new(http_proxy(&Arc::new(conf), hop)), TcpListener::bind(address).await?);
    let (_never_told, stop) = watch::channel(false);
    let mut end = signal(SignalKind::terminate())?;
    loop {
        let (stream, _) = tokio::select! {
            accepted = listener.accept() => accepted?,
            // In order, so that a build that counts what it does writes its counts.
            _ = end.recv() => return Ok(()),
        };
        stream.set_nodelay(true)?;
        let (proxy, tls, stop) = (Arc::clone(&proxy), tls.clone(), stop.clone());
        drop(tokio::spawn(async move {
            if let Ok(stream) = Box::pin(tls.accept(stream)).await {
                proxy.process_new(Box::new(Wire(BufWriter::with_capacity(WRITTEN, stream))), &stop).await;
            }
        }));
    }
}

/// One record of TLS.
const WRITTEN: usize = 16 * 1024;

/// Sends everything to one application.
struct Hop {
    peer: HttpPeer,
    heads: Option<Heads>,
}

#[async_trait]
impl ProxyHttp for Hop {
    type CTX = ();

    fn new_ctx(&self) -> Self::CTX {}

    async fn upstream_peer(&self, _: &mut Session, (): &mut Self::CTX) -> pingora_core::Result<Box<HttpPeer>> {
        Ok(Box::new(self.peer.clone()))
    }

    async fn upstream_request_filter(
        &self,
        _: &mut Session,
        head: &mut RequestHeader,
        (): &mut Self::CTX,
    ) -> pingora_core::Result<()> {
        let Some(heads) = &self.heads else { return Ok(()) };
        head.remove_header(&header::COOKIE);
        heads.up.iter().try_for_each(|(name, value)| head.insert_header(name.clone(), value.clone()))
    }

    async fn response_filter(
        &self,
        _: &mut Session,
        head: &mut ResponseHeader,
        (): &mut Self::CTX,
    ) -> pingora_core::Result<()> {
        let Some(heads) = &self.heads else { return Ok(()) };
        heads.down.iter().try_for_each(|(name, value)| head.insert_header(name.clone(), value.clone()))
    }
}

/// Fields of the names and lengths that an edge writes, the same ones for each request.
struct Heads {
    up: [(HeaderName, HeaderValue); 7],
    down: [(HeaderName, HeaderValue); 3],
}

impl Heads {
    fn new(application: SocketAddr) -> Result<Self, Box<dyn Error>> {
        let id = (HeaderName::from_static("x-request-id"), HeaderValue::from_static(ID));
        let field = |name, value| (HeaderName::from_static(name), HeaderValue::from_static(value));
        let up = [
            (header::HOST, HeaderValue::try_from(application.to_string())?),
            (HeaderName::from_static("x-pomerium-jwt-assertion"), HeaderValue::try_from("x".repeat(ASSERTION))?),
            field("x-forwarded-for", "127.0.0.1"),
            field("x-forwarded-host", "app.bench.localhost:18443"),
            field("x-forwarded-port", "18443"),
            field("x-forwarded-proto", "https"),
            id.clone(),
        ];
        let down = [field("x-frame-options", "SAMEORIGIN"), field("x-xss-protection", "1; mode=block"), id];
        Ok(Self { up, down })
    }
}

/// A request id.
const ID: &str = "8f14e45f-ceea-467f-a8a2-2b8f1c1d0e5a";

/// Bytes of an assertion for somebody with a name, an address and two groups.
const ASSERTION: usize = 700;

/// A connection as Pingora wants it.
#[derive(Debug)]
struct Wire(BufWriter<TlsStream<TcpStream>>);

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[async_trait]
impl Shutdown for Wire {
    async fn shutdown(&mut self) {
        let _it_may_be_gone = self.0.shutdown().await;
    }
}

impl UniqueID for Wire {
    fn id(&self) -> UniqueIDType {
        self.0.get_ref().get_ref().0.as_raw_fd()
    }
}

impl Ssl for Wire {
    fn get_ssl(&self) -> Option<&TlsRef> {
        None
    }

    fn get_ssl_digest(&self) -> Option<Arc<SslDigest>> {
        None
    }

    fn selected_alpn_proto(&self) -> Option<ALPN> {
        let chosen = self.0.get_ref().get_ref().1.alpn_protocol();
        chosen.map(|name| if name == b"h2" { ALPN::H2 } else { ALPN::H1 })
    }
}

impl GetTimingDigest for Wire {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
    }
}

impl GetProxyDigest for Wire {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        None
    }
}

impl GetSocketDigest for Wire {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        None
    }

    fn set_socket_digest(&mut self, _: SocketDigest) {}
}

impl Peek for Wire {}
