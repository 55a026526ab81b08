//! Dials upstreams, and keeps a hand on each connection. Pingora offers no way to end an exchange that waits for its upstream;
//! a connection that is cut under it is one.

use std::net::{self, IpAddr, Shutdown};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use async_trait::async_trait;
#[cfg(target_os = "linux")]
use nix::sys::socket::{setsockopt, sockopt::IpBindAddressNoPort};
use pingora_core::connectors::L4Connect;
use pingora_core::connectors::l4::BindTo;
use pingora_core::protocols::Digest;
use pingora_core::protocols::GetProxyDigest as _;
use pingora_core::protocols::l4::ext;
use pingora_core::protocols::l4::socket::SocketAddr;
use pingora_core::protocols::l4::stream::Stream;
use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_error::{Error, ErrorType, OkOrErr as _, OrErr as _, Result};
use pingora_http::ResponseHeader;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};

/// A second descriptor of an upstream connection: it lives as long as the connection does, so it never means another one.
#[derive(Debug)]
pub(crate) struct Line(OwnedFd);

impl Line {
    /// Ends the connection in both directions; reads and writes that wait for it come back.
    pub(crate) fn cut(&self) {
        if let Err(error) = SockRef::from(&self.0).shutdown(Shutdown::Both) {
            tracing::debug!(%error, "an upstream connection had ended already");
        }
    }

    /// One for a test.
    #[cfg(test)]
    pub(crate) fn over(socket: OwnedFd) -> Arc<Self> {
        Arc::new(Self(socket))
    }

    /// That of a connection which [`Dial`] made.
    pub(crate) fn of(digest: &Digest) -> Option<Arc<Self>> {
        digest.proxy_digest.as_ref()?.user_data.as_ref()?.downcast_ref::<Arc<Self>>().map(Arc::clone)
    }
}

/// Where connections to upstreams come from: `envoy_bind_config_*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SourceAddress {
    /// An address of this machine.
    pub ip: IpAddr,
    /// It may belong to nobody yet.
    pub freebind: bool,
}

/// Makes the connections.
#[derive(Debug, Default)]
pub(crate) struct Dial {
    source: Option<SourceAddress>,
}

/// What Pingora takes.
pub(crate) type Dialler = Arc<dyn L4Connect + Send + Sync>;

impl Dial {
    /// One whose connections come from there.
    pub(crate) fn from(source: Option<SourceAddress>) -> Dialler {
        Arc::new(Self { source })
    }

    async fn reach(&self, address: &net::SocketAddr) -> Result<TcpStream> {
        let Some(source) = self.source else { return ext::connect(address, None).await };
        if source.freebind {
            return from_anywhere(address, source.ip).await;
        }
        let mut bind = BindTo::default();
        bind.addr = Some(net::SocketAddr::new(source.ip, 0));
        ext::connect(address, Some(&bind)).await
    }
}

/// From an address that this machine need not have.
#[cfg(target_os = "linux")]
async fn from_anywhere(address: &net::SocketAddr, source: IpAddr) -> Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(*address), Type::STREAM.nonblocking(), Some(Protocol::TCP));
    let socket = socket.or_err(ErrorType::SocketError, "a socket")?;
    bind_freely(&socket, address.is_ipv4())?;
    // The port is chosen with the other end known: else each would be taken once, whoever is at the other end.
    setsockopt(&socket, IpBindAddressNoPort, &true).or_err(ErrorType::SocketError, "IP_BIND_ADDRESS_NO_PORT")?;
    socket.bind(&net::SocketAddr::new(source, 0).into()).or_err(ErrorType::BindError, "source address")?;
    let connected = TcpSocket::from_std_stream(socket.into()).connect(*address).await;
    let refused = |error: &std::io::Error| error.kind() == std::io::ErrorKind::ConnectionRefused;
    connected.map_err(|error| {
        let kind = if refused(&error) { ErrorType::ConnectRefused } else { ErrorType::ConnectError };
        Error::because(kind, "connect", error)
    })
}

/// Other systems have no such thing.
#[cfg(not(target_os = "linux"))]
async fn from_anywhere(_address: &net::SocketAddr, _source: IpAddr) -> Result<TcpStream> {
    Error::e_explain(ErrorType::BindError, "this system binds to its own addresses alone")
}

/// A socket that exchanges datagrams with this address alone. Nothing is sent for it.
///
/// # Errors
/// What we lack ourselves, or that no way leads there.
pub(crate) fn socket_to(address: net::SocketAddr, source: Option<SourceAddress>) -> Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP));
    let socket = socket.or_err(ErrorType::SocketError, "a socket")?;
    socket.set_nonblocking(true).or_err(ErrorType::SocketError, "O_NONBLOCK")?;
    if let Some(source) = source {
        if source.freebind {
            bind_freely(&socket, address.is_ipv4())?;
        }
        socket.bind(&net::SocketAddr::new(source.ip, 0).into()).or_err(ErrorType::BindError, "source address")?;
    }
    socket.connect(&address.into()).or_err(ErrorType::ConnectNoRoute, "connect")?;
    UdpSocket::from_std(socket.into()).or_err(ErrorType::SocketError, "a socket")
}

/// The address that a socket is bound to next need not be one that this machine has.
#[cfg(target_os = "linux")]
fn bind_freely(socket: &Socket, ipv4: bool) -> Result<()> {
    let free = if ipv4 { socket.set_freebind_v4(true) } else { socket.set_freebind_v6(true) };
    free.or_err(ErrorType::SocketError, "IP_FREEBIND")
}

/// Other systems have no such thing.
#[cfg(not(target_os = "linux"))]
fn bind_freely(_socket: &Socket, _ipv4: bool) -> Result<()> {
    Error::e_explain(ErrorType::BindError, "this system binds to its own addresses alone")
}

/// A connection, and a second descriptor of it.
fn over<S: AsFd + Into<Stream>>(socket: S) -> Result<(Stream, OwnedFd)> {
    let line = socket.as_fd().try_clone_to_owned().or_err(ErrorType::SocketError, "second descriptor")?;
    Ok((socket.into(), line))
}

#[async_trait]
impl L4Connect for Dial {
    async fn connect(&self, address: &SocketAddr) -> Result<Stream> {
        let (mut stream, line) = match address {
            SocketAddr::Inet(address) => over(self.reach(address).await?)?,
            SocketAddr::Unix(address) => {
                let path = address.as_pathname();
                let path = path.or_err(ErrorType::InternalError, "a socket without a path")?;
                over(ext::connect_uds(path).await?)?
            }
        };
        // The only slot through which Pingora carries a value of ours along with a connection.
        let unused = Box::new(ResponseHeader::build_no_case(200, Some(0))?);
        stream.set_proxy_digest(ProxyDigest::new(unused, Some(Box::new(Arc::new(Line(line))))));
        Ok(stream)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::net::TcpListener;

    use super::*;

    fn from(ip: [u8; 4], freebind: bool) -> Dial {
        Dial { source: Some(SourceAddress { ip: ip.into(), freebind }) }
    }

    #[tokio::test]
    async fn connections_come_from_where_they_are_to_come_from() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        for freebind in [false, true] {
            let _connected = from([127, 0, 0, 9], freebind).reach(&address).await.unwrap();
            assert_eq!(listener.accept().await.unwrap().1.ip(), IpAddr::from([127, 0, 0, 9]));
        }
        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        for freebind in [false, true] {
            let source = SourceAddress { ip: [127, 0, 0, 9].into(), freebind };
            let socket = socket_to(server.local_addr().unwrap(), Some(source)).unwrap();
            socket.send(b"x").await.unwrap();
            assert_eq!(server.recv_from(&mut [0]).await.unwrap().1.ip(), source.ip);
        }
        let nobodys = SourceAddress { ip: [192, 0, 2, 9].into(), freebind: false };
        let refused = socket_to(server.local_addr().unwrap(), Some(nobodys)).unwrap_err();
        assert_eq!(refused.etype, ErrorType::BindError);
        let refused = from([192, 0, 2, 9], false).reach(&address).await.unwrap_err();
        assert_eq!(refused.etype, ErrorType::BindError, "it belongs to nobody here");
        // Bound, whatever comes of it: answers to it lead nowhere.
        let dial = from([192, 0, 2, 9], true);
        if let Ok(Err(error)) = tokio::time::timeout(Duration::from_secs(1), dial.reach(&address)).await {
            assert_ne!(error.etype, ErrorType::BindError);
        }
    }
}
