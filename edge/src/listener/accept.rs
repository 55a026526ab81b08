//! Accepts connections, up to a bound, and brings each through its handshake, up to a time.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pingora_core::protocols::Stream;
use postern_policy::IpMatcher;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::address::{AddressPlace, Addresses};
use super::certificate::CertificateStore;
use super::handshakes::{Handshakes, Interrupted};
use super::proxy_header;
use super::stream::{GuardedStream, Wire};
use super::tls::{Shaken, TlsAcceptor, alpn, digest};
use super::{Connection, ConnectionLimits, Limits, Patience, told};
use crate::admit::Gate;
use crate::metrics::{Metrics, Raised};
use crate::mtls::ClientCert;

/// Everything that accepting a connection needs; shared by all cores, because the bounds are.
#[derive(Debug)]
pub(crate) struct Door {
    pub(crate) tls: Option<Tls>,
    /// Connections begin with a PROXY header.
    pub(crate) proxy_protocol: bool,
    pub(crate) gate: Arc<Gate>,
    pub(crate) open: Arc<AtomicUsize>,
    pub(crate) handshakes: Handshakes,
    /// Who is to say whom a connection is from; apart, since all of them come from the same few addresses.
    pub(crate) claims: Handshakes,
    pub(crate) addresses: Arc<Addresses>,
    /// When the log last told that accept fails.
    pub(crate) told: Mutex<Option<Instant>>,
    pub(crate) metrics: Metrics,
}

/// How a listener ends TLS.
#[derive(Debug)]
pub(crate) struct Tls {
    pub(crate) acceptor: TlsAcceptor,
    pub(crate) certificates: Arc<CertificateStore>,
}

/// A place under a bound, given back on drop.
#[derive(Debug)]
pub(crate) struct Place<C: std::borrow::Borrow<AtomicUsize>>(C);

impl<C: std::borrow::Borrow<AtomicUsize>> Place<C> {
    pub(crate) fn take(count: C, most: usize) -> Option<Self> {
        let free = |taken: usize| (taken < most).then_some(taken + 1);
        count.borrow().fetch_update(Ordering::AcqRel, Ordering::Acquire, free).ok()?;
        Some(Self(count))
    }
}

impl<C: std::borrow::Borrow<AtomicUsize>> Drop for Place<C> {
    fn drop(&mut self) {
        self.0.borrow().fetch_sub(1, Ordering::AcqRel);
    }
}

/// Whose connection it is, and its place among those of its address.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) address: SocketAddr,
    pub(crate) place: Option<AddressPlace>,
}

/// A connection that has its place.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) stream: TcpStream,
    pub(crate) peer: SocketAddr,
    place: Place<Arc<AtomicUsize>>,
    raised: Raised,
}

impl Accepted {
    /// The stream, its peer, and what must live as long as the stream does.
    pub(crate) fn into_parts(self) -> (TcpStream, SocketAddr, impl Sized) {
        (self.stream, self.peer, (self.place, self.raised))
    }
}

impl Door {
    /// The next connection; `None` once `shutdown` says so. Over the bound, connections are closed at once and counted.
    pub(crate) async fn next(&self, listener: &TcpListener, shutdown: &mut watch::Receiver<bool>) -> Option<Accepted> {
        loop {
            let accepted = tokio::select! {
                biased;
                _ = shutdown.wait_for(|stop| *stop) => return None,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => {
                    if let Some(accepted) = self.admit(stream, peer) {
                        return Some(accepted);
                    }
                }
                Err(error) => self.rest(&error).await,
            }
        }
    }

    fn admit(&self, stream: TcpStream, peer: SocketAddr) -> Option<Accepted> {
        let Some(place) = Place::take(Arc::clone(&self.open), self.limits().connections) else {
            self.count("refused");
            return None;
        };
        let set = stream.set_nodelay(true).and_then(|()| SockRef::from(&stream).set_tcp_keepalive(&KEEPALIVE));
        if let Err(error) = set {
            tracing::debug!(%error, "connection ended before it began");
            return None;
        }
        self.count("accepted");
        Some(Accepted { stream, peer, place, raised: Raised::new(&self.metrics.0.connections) })
    }

    /// An error of accept is most often a lack of descriptors: those come back in time, not by asking again.
    async fn rest(&self, error: &io::Error) {
        self.metrics.0.accept_errors.inc();
        self.tell(error);
        sleep(ACCEPT_REST).await;
    }

    /// Each core meets it twenty times a second for as long as it lasts: the log has it once a minute.
    fn tell(&self, error: &io::Error) {
        let (now, mut told) = (Instant::now(), self.told.lock().unwrap_or_else(PoisonError::into_inner));
        if told.is_none_or(|told| now.duration_since(told) >= ACCEPT_TOLD) {
            *told = Some(now);
            tracing::warn!(%error, "accept fails: new connections wait");
        }
    }

    /// How many connections there may be under the configuration in force.
    fn limits(&self) -> ConnectionLimits {
        self.gate.snapshot().config.limits.connections
    }

    /// What a new connection is held to.
    pub(crate) fn bounds(&self) -> (Limits, Patience) {
        let snapshot = self.gate.snapshot();
        let (limits, timeouts) = (&snapshot.config.limits, snapshot.config.timeouts);
        let longest = limits.patience.idle;
        let idle = timeouts.idle.map_or(longest, |idle| idle.min(longest));
        (limits.bytes, Patience { idle, request: timeouts.read, ..limits.patience })
    }

    /// Whose connection it is: where there are PROXY headers, what that of this one says. `None` if there is none, it does not
    /// come in time, its sender is not among the peers that are believed, or who sends it has too many.
    pub(crate) async fn client(&self, stream: &mut TcpStream, peer: SocketAddr) -> Option<Client> {
        let address = if self.proxy_protocol { self.proxied(stream, peer).await? } else { peer };
        let place = match self.limits().per_address {
            None => None,
            Some(most) => {
                let place = self.addresses.take(address.ip(), most);
                if place.is_none() {
                    self.count("address_refused");
                    return None;
                }
                place
            }
        };
        Some(Client { address, place })
    }

    async fn proxied(&self, stream: &mut TcpStream, peer: SocketAddr) -> Option<SocketAddr> {
        let error = match self.claimed(stream, peer).await? {
            Ok(client) => return Some(client.unwrap_or(peer)),
            Err(error) => error,
        };
        self.count("proxy_header");
        tracing::debug!(client.address = %peer.ip(), %error, "listener connection failure");
        None
    }

    /// What Pingora gets of a connection; `None` if it ended in its handshake, or was still in it a moment after the `stop`:
    /// nothing is under way there yet. Later the stream is told of it as far as Pingora does not.
    pub(crate) async fn open(
        &self,
        mut stream: TcpStream,
        peer: SocketAddr,
        mut stop: watch::Receiver<bool>,
    ) -> Option<(Stream, Option<AddressPlace>)> {
        let local = stream.local_addr().ok()?;
        let Client { address: peer, place } = tokio::select! {
            biased;
            client = self.client(&mut stream, peer) => client?,
            () = told(&mut stop) => return None,
        };
        let fd = stream.as_raw_fd();
        let Some(tls) = &self.tls else {
            let connection = Arc::new(Connection::plain(peer, local));
            let wire = Wire { fd, alpn: None, tls: None };
            return Some((self.guarded(stream, wire, connection, stop), place));
        };
        let Shaken { stream, asking } = tokio::select! {
            biased;
            shaken = self.handshake(&tls.acceptor, stream, peer) => shaken?,
            () = told(&mut stop) => {
                self.count("handshake_dropped");
                return None;
            }
        };
        let session = stream.get_ref().1;
        let names = Arc::clone(&tls.certificates) as Arc<dyn super::CertificateNames>;
        let shown = session.peer_certificates().and_then(ClientCert::of);
        if asking.is_some_and(|asking| !asking.takes(shown.as_ref())) {
            self.count("handshake_failed");
            let error = "the client certificate of a resumed connection is not valid any more";
            tracing::debug!(client.address = %peer.ip(), error, "listener connection failure");
            return None;
        }
        let connection = Connection::tls(peer, local, session.server_name(), names).with_certificate(shown);
        let connection = Arc::new(connection);
        let wire = Wire { fd, alpn: alpn(session), tls: Some(digest(session)) };
        Some((self.guarded(stream, wire, connection, stop), place))
    }

    fn guarded<S>(&self, io: S, wire: Wire, connection: Arc<Connection>, stop: watch::Receiver<bool>) -> Stream
    where
        GuardedStream<S>: pingora_core::protocols::IO,
        S: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        let (bytes, patience) = self.bounds();
        Box::new(GuardedStream::new(io, wire, connection, bytes, patience).until(stop))
    }

    /// What the PROXY header of a connection says; nothing where it had to make way for another.
    async fn claimed(&self, stream: &mut TcpStream, peer: SocketAddr) -> Option<io::Result<Option<SocketAddr>>> {
        // Who is not believed waits for nothing, and so takes no place of those who are.
        let is_stranger = |peers: &IpMatcher| !peers.contains(peer.ip());
        if self.gate.snapshot().config.proxy.trusted_peers.as_ref().is_some_and(is_stranger) {
            return Some(Err(io::Error::other("its sender is not among `xff_trusted_peers`")));
        }
        let limits = self.limits();
        match self.claims.run(&limits, peer.ip(), proxy_header::read(stream)).await {
            Ok(header) => Some(header),
            Err(Interrupted::Late) => Some(Err(io::ErrorKind::TimedOut.into())),
            Err(Interrupted::Displaced) => {
                self.count("handshake_refused");
                None
            }
        }
    }

    async fn handshake(&self, acceptor: &TlsAcceptor, stream: TcpStream, peer: SocketAddr) -> Option<Shaken> {
        let limits = self.limits();
        let _raised = Raised::new(&self.metrics.0.handshakes);
        let challenges = self.gate.snapshot().config.certificates.challenges.clone();
        match self.handshakes.run(&limits, peer.ip(), acceptor.accept(stream, &challenges)).await {
            Ok(Ok(Some(shaken))) => return Some(shaken),
            Ok(Ok(None)) => {
                self.count("challenge");
                tracing::debug!(client.address = %peer.ip(), "an authority looked at a challenge");
            }
            Ok(Err(error)) => {
                self.count("handshake_failed");
                tracing::debug!(client.address = %peer.ip(), %error, "listener connection failure");
            }
            Err(Interrupted::Displaced) => self.count("handshake_refused"),
            Err(Interrupted::Late) => {
                self.count("handshake_timeout");
                tracing::debug!(client.address = %peer.ip(), error = "timed out", "listener connection failure");
            }
        }
        None
    }

    fn count(&self, outcome: &str) {
        self.metrics.0.connections_total.with_label_values(&[outcome]).inc();
    }
}

const ACCEPT_REST: Duration = Duration::from_millis(50);
const ACCEPT_TOLD: Duration = Duration::from_secs(60);

/// A client that vanished without a word is found out after two minutes of silence: that ends also what has no other time, such
/// as a WebSocket.
const KEEPALIVE: TcpKeepalive =
    TcpKeepalive::new().with_time(Duration::from_secs(60)).with_interval(Duration::from_secs(15)).with_retries(4);
