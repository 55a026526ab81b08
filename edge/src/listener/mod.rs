//! Accepts connections: what is known about one before its first request, and what its bytes did wrong.

mod accept;
mod address;
mod bind;
mod certificate;
mod challenge;
mod clock;
mod guard;
mod handshakes;
mod proxy_header;
mod redirect;
mod stream;
mod tickets;
mod tls;
mod violation;
mod watch;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

pub(crate) use self::watch::CertificateWatch;
pub(crate) use accept::{Accepted, Door, Place, Tls};
pub use bind::{Bound, Inherited, Purpose};
pub(crate) use certificate::CertificateStore;
pub use certificate::{CertificateError, Issued, IssuedCertificates, Staple, certified_names, demands_staple};
pub use challenge::{Challenges, ChallengesElsewhere, NoCertificate};
pub(crate) use clock::Alarm;
pub use clock::Patience;
pub use guard::Limits;
pub(crate) use handshakes::Handshakes;
use http::HeaderValue;
pub(crate) use redirect::answer_redirect;
pub(crate) use stream::{Farewell, GOING_AWAY};
#[cfg(test)]
pub(crate) use stream::{GuardedStream, Wire};
pub(crate) use tls::{TlsAcceptor, provider};
use tokio::sync::watch::Receiver;
use tokio::time::sleep;
pub use violation::Violation;
pub use watch::CertificateReader;

use crate::mtls::ClientCert;

/// One accepted stream, after TLS. Every request on it reads the same value.
#[derive(Debug)]
pub struct Connection {
    /// The other end of the TCP connection.
    pub peer: SocketAddr,
    /// Our end.
    pub local: SocketAddr,
    /// TLS ended here.
    pub tls: bool,
    /// The server name of the ClientHello, lower-case, without a trailing dot.
    pub sni: Option<String>,
    /// The client certificate, if one was presented.
    pub client_cert: Option<Arc<ClientCert>>,
    violation: OnceLock<Violation>,
    /// A request has been handed over and is not over; meaningful on h1, where there is one at a time.
    exchange: AtomicBool,
    /// Requests so far; of h1 alone.
    requests: AtomicU32,
    tunnel: OnceLock<Tunnel>,
    /// The address of the other end, as a field has it.
    peer_field: OnceLock<HeaderValue>,
    names: Option<Arc<dyn CertificateNames>>,
}

/// What a connection becomes that is HTTP no longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tunnel {
    /// A WebSocket, which can be told that we leave.
    WebSocket,
    /// Another protocol that was agreed on with a 101.
    Upgraded,
    /// A connection to somewhere else, asked for with CONNECT (S-106), or datagrams, with CONNECT-UDP.
    Connect,
}

/// How many connections there may be (03 §2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// Open at once, on all listeners together.
    pub connections: usize,
    /// In their handshake at once; for another, the one that has taken longest makes way, or that of a network which has a good part.
    pub handshakes: usize,
    /// How long a handshake may take, ClientHello included.
    pub handshake_time: Duration,
    /// Open at once of one address, or one /64 of IPv6, and sixteen times as many of one /48; `None`: as many as there may be.
    pub per_address: Option<usize>,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self { connections: 10_000, handshakes: 500, handshake_time: Duration::from_secs(10), per_address: None }
    }
}

/// In which a connection that was just taken may still come to its first request once we stop: its client could not know.
pub(crate) const LAST_MOMENT: Duration = Duration::from_secs(1);

/// Waits for the stop, and for a moment more; a sender that is gone means it too.
pub(crate) async fn told(stop: &mut Receiver<bool>) {
    // What this gives is a lock: it is not kept.
    drop(stop.wait_for(|stop| *stop).await);
    sleep(LAST_MOMENT).await;
}

/// Which names lead to which certificate; what the 421 rule asks (S-029).
pub trait CertificateNames: std::fmt::Debug + Send + Sync {
    /// Whether a ClientHello with `sni` and one with `host` are answered with the same certificate.
    fn same_certificate(&self, sni: Option<&str>, host: &str) -> bool;
}

impl Connection {
    /// A connection without TLS.
    #[must_use]
    pub const fn plain(peer: SocketAddr, local: SocketAddr) -> Self {
        Self {
            peer,
            local,
            tls: false,
            sni: None,
            client_cert: None,
            violation: OnceLock::new(),
            exchange: AtomicBool::new(false),
            requests: AtomicU32::new(0),
            tunnel: OnceLock::new(),
            peer_field: OnceLock::new(),
            names: None,
        }
    }

    /// A connection after a handshake for `sni`; `names` knows the certificates of its listener.
    #[must_use]
    pub fn tls(peer: SocketAddr, local: SocketAddr, sni: Option<&str>, names: Arc<dyn CertificateNames>) -> Self {
        let sni = sni.map(|name| name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase());
        Self { tls: true, sni, names: Some(names), ..Self::plain(peer, local) }
    }

    /// The same, on which the client showed this certificate.
    #[must_use]
    pub fn with_certificate(self, shown: Option<Arc<ClientCert>>) -> Self {
        Self { client_cert: shown, ..self }
    }

    /// Whether `host` (canonical, without port) is served by the certificate that this connection was opened with; if not, the
    /// answer is 421 and no policy is run (S-029). Always true without TLS.
    #[must_use]
    pub fn serves(&self, host: &str) -> bool {
        let sni = self.sni.as_deref();
        sni == Some(host) || self.names.as_ref().is_none_or(|names| names.same_certificate(sni, host))
    }

    /// The address of the other end, as a field has it: written once, since most connections carry several requests.
    pub(crate) fn peer_field(&self) -> HeaderValue {
        let write = || HeaderValue::try_from(self.peer.ip().to_canonical().to_string());
        // No address has a byte that no field may have.
        self.peer_field.get_or_init(|| write().unwrap_or(HeaderValue::from_static("unknown"))).clone()
    }

    /// What the head guard found wrong with the bytes of the current request; the connection ends with its answer.
    #[must_use]
    pub fn violation(&self) -> Option<Violation> {
        self.violation.get().copied()
    }

    /// Notes what is wrong; the first finding stays.
    pub fn violate(&self, violation: Violation) {
        let _first_stays = self.violation.set(violation);
    }

    pub(crate) fn begin_exchange(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.exchange.store(true, Ordering::Release);
    }

    /// The requests that it has carried, with the one that is under way; 0 on h2.
    pub(crate) fn requests(&self) -> u32 {
        self.requests.load(Ordering::Relaxed)
    }

    /// The next head may be read.
    pub(crate) fn end_exchange(&self) {
        self.exchange.store(false, Ordering::Release);
    }

    pub(crate) fn in_exchange(&self) -> bool {
        self.exchange.load(Ordering::Acquire)
    }

    /// From here on the bytes are not HTTP: a 101 was answered, or a CONNECT or CONNECT-UDP was granted (S-009).
    pub(crate) fn begin_tunnel(&self, tunnel: Tunnel) {
        let _only_once = self.tunnel.set(tunnel);
    }

    /// What it has become.
    pub(crate) fn tunnel(&self) -> Option<Tunnel> {
        self.tunnel.get().copied()
    }
}
