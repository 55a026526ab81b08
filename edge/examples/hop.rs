//! A hop of Pingora without a gate: TLS from whoever asks, plain HTTP to one application, on one thread as an edge on one core.
//! `postern-load-tests compare` measures it in the same rounds as Postern, and tells the difference.
//!
//! `hop ADDRESS APPLICATION CERTIFICATE KEY [fields]`. With `fields` it sets those that an edge sets, in both directions: then the
//! difference leaves out what Pingora does with them. TLS, allocator, pages and Pingora are an edge's.

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd as _;
use std::os::unix::process::CommandExt as _;
use std::pin::Pin;
use std::process::Command;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_trait::async_trait;
use http::header::{self, HeaderName, HeaderValue};
use nix::sys::prctl::{get_thp_disable, set_thp_disable};
use pingora_core::apps::ServerApp as _;
use pingora_core::modules::http::HttpModules;
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

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> Result<(), Box<dyn Error>> {
    // Small pages only, as an edge has them, for what runs before this too.
    if !get_thp_disable()? {
        set_thp_disable(true)?;
        return Err(Command::new(std::env::current_exe()?).args(std::env::args_os().skip(1)).exec().into());
    }
    let mut arguments = std::env::args().skip(1);
    let mut next = |what: &str| arguments.next().ok_or_else(|| format!("no {what}: {USAGE}"));
    let (address, application): (SocketAddr, SocketAddr) = (next("address")?.parse()?, next("application")?.parse()?);
    let tls = acceptor(&next("certificate")?, &next("key")?)?;
    let fields = match arguments.next().as_deref() {
        None => false,
        Some("fields") => true,
        Some(other) => return Err(format!("{other} is too much: {USAGE}").into()),
    };
    let hop = Hop { peer: HttpPeer::new(application, false, String::new()), fields };
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(serve(address, hop, tls))?;
    Ok(())
}

const USAGE: &str = "hop ADDRESS APPLICATION CERTIFICATE KEY [fields]";

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
    fields: bool,
}

#[async_trait]
impl ProxyHttp for Hop {
    type CTX = ();

    fn new_ctx(&self) -> Self::CTX {}

    fn init_downstream_modules(&self, _: &mut HttpModules) {}

    async fn upstream_peer(&self, _: &mut Session, (): &mut Self::CTX) -> pingora_core::Result<Box<HttpPeer>> {
        Ok(Box::new(self.peer.clone()))
    }

    async fn upstream_request_filter(
        &self,
        _: &mut Session,
        head: &mut RequestHeader,
        (): &mut Self::CTX,
    ) -> pingora_core::Result<()> {
        if self.fields {
            head.remove_header(&header::COOKIE);
            UP.iter().try_for_each(|(name, value)| head.insert_header(name.clone(), value.clone()))?;
        }
        Ok(())
    }

    async fn response_filter(
        &self,
        _: &mut Session,
        head: &mut ResponseHeader,
        (): &mut Self::CTX,
    ) -> pingora_core::Result<()> {
        if self.fields {
            DOWN.iter().try_for_each(|(name, value)| head.insert_header(name.clone(), value.clone()))?;
        }
        Ok(())
    }
}

/// What an edge sets in the head that goes up: the same names and lengths, always the same values.
static UP: [(HeaderName, HeaderValue); 7] = [
    field("host", "127.0.0.1:40000"),
    field("x-pomerium-jwt-assertion", ASSERTION),
    field("x-forwarded-for", "127.0.0.1"),
    field("x-forwarded-host", "app.bench.localhost:18443"),
    field("x-forwarded-port", "18443"),
    field("x-forwarded-proto", "https"),
    REQUEST_ID,
];

/// The same of the head that comes down.
static DOWN: [(HeaderName, HeaderValue); 4] = [
    field("x-frame-options", "SAMEORIGIN"),
    field("x-xss-protection", "1; mode=block"),
    field("strict-transport-security", "max-age=31536000; includeSubDomains"),
    REQUEST_ID,
];

const REQUEST_ID: (HeaderName, HeaderValue) = field("x-request-id", "8f14e45f-ceea-467f-a8a2-2b8f1c1d0e5a");

/// As long as one of the comparison's.
const ASSERTION: &str = match std::str::from_utf8(&[b'x'; 614]) {
    Ok(text) => text,
    Err(_) => "",
};

const fn field(name: &'static str, value: &'static str) -> (HeaderName, HeaderValue) {
    (HeaderName::from_static(name), HeaderValue::from_static(value))
}

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
