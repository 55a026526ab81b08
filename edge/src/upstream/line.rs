//! Dials upstreams, and keeps a hand on each connection. Pingora offers no way to end an exchange that waits for its upstream;
//! a connection that is cut under it is one.

use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, LazyLock};

use async_trait::async_trait;
use pingora_core::connectors::L4Connect;
use pingora_core::protocols::Digest;
use pingora_core::protocols::GetProxyDigest as _;
use pingora_core::protocols::l4::ext;
use pingora_core::protocols::l4::socket::SocketAddr;
use pingora_core::protocols::l4::stream::Stream;
use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_error::{ErrorType, OkOrErr as _, OrErr as _, Result};
use pingora_http::ResponseHeader;
use socket2::SockRef;

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

/// Makes the connections.
#[derive(Debug)]
pub(crate) struct Dial;

impl Dial {
    /// The one there is.
    pub(crate) fn shared() -> Arc<dyn L4Connect + Send + Sync> {
        static DIAL: LazyLock<Arc<Dial>> = LazyLock::new(|| Arc::new(Dial));
        Arc::<Self>::clone(&DIAL)
    }
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
            SocketAddr::Inet(address) => over(ext::connect(address, None).await?)?,
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
