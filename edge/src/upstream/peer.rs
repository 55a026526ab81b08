//! The one place where a Pingora peer is made, so that no option is ever forgotten.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use pingora_core::protocols::l4::ext::TcpKeepalive;
use pingora_core::upstreams::peer::{H1UpgradePolicy, HttpPeer, HttpUpstreamRequestPolicy};

use super::cluster::Http;
use super::line::Dialler;
use super::tls::Identity;

/// Everything that tells one upstream connection from another.
#[derive(Clone)]
pub(crate) struct PeerSpec<'a> {
    /// Where to dial.
    pub(crate) place: Place<'a>,
    /// How TLS is spoken, and the name that the certificate must have.
    pub(crate) tls: Option<(&'a Identity, &'a str)>,
    /// Whose connections they are: never shared with another cluster.
    pub(crate) cluster: &'a str,
    /// The configuration under whose rules they are verified.
    pub(crate) version: u64,
    /// What is spoken.
    pub(crate) http: Http,
    /// To connect, TLS included.
    pub(crate) connect: Duration,
    /// So long it is kept while nobody uses it.
    pub(crate) idle: Duration,
    /// Makes the connection.
    pub(crate) dial: &'a Dialler,
    /// Without a byte, once connected. `None` for what may be silent.
    pub(crate) silence: Option<Duration>,
}

/// Where an endpoint is.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Place<'a> {
    /// At an address of a network.
    Address(SocketAddr),
    /// At a socket in the file system.
    Socket(&'a Path),
}

impl PeerSpec<'_> {
    /// The peer. Its `group_key` keeps pooled connections apart that Pingora's own key would mix up: its key knows nothing of
    /// the identity or of the configuration under which a certificate was verified or shown.
    ///
    /// # Errors
    /// A path that is none; the configuration has found it before.
    pub(crate) fn peer(&self) -> pingora_error::Result<Box<HttpPeer>> {
        let name = self.tls.map_or("", |(_, name)| name).to_owned();
        let mut peer = Box::new(match self.place {
            // A socket address: given a name, Pingora would look it up, blocking, and panic if that fails.
            Place::Address(address) => HttpPeer::new(address, self.tls.is_some(), name),
            Place::Socket(path) => HttpPeer::new_uds(&path.to_string_lossy(), self.tls.is_some(), name)?,
        });
        peer.group_key = self.group_key();
        let options = &mut peer.options;
        match self.http {
            Http::One => options.set_http_version(1, 1),
            Http::Two => options.set_http_version(2, 2),
            Http::Negotiated => options.set_http_version(2, 1),
        }
        options.max_h2_streams = STREAMS as usize;
        options.h2_stream_window_size = Some(STREAM_WINDOW);
        // Room for all streams at once: a client that does not read holds up its own stream and no other.
        options.h2_connection_window_size = Some(STREAM_WINDOW * STREAMS);
        options.client_config = self.tls.map(|(identity, _)| Arc::clone(&identity.config));
        options.custom_l4 = Some(Arc::clone(self.dial));
        options.connection_timeout = Some(self.connect);
        options.total_connection_timeout = Some(self.connect);
        options.read_timeout = self.silence;
        options.write_timeout = Some(WRITE);
        options.idle_timeout = Some(self.idle);
        options.tcp_keepalive = Some(KEEPALIVE);
        options.http_upstream_request_policy = HttpUpstreamRequestPolicy {
            // What the connection may become is said by whoever prepares the head, with the permit in hand (S-009).
            h1_upgrade: H1UpgradePolicy::Deny,
            // The gate has judged what `Connection` names: it can take neither Cookie nor Authorization away (S-039).
            strip_connection_nominated: false,
            ..HttpUpstreamRequestPolicy::standard()
        };
        Ok(peer)
    }

    fn group_key(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        let tls = self.tls.map(|(identity, name)| (identity.digest, name));
        (self.cluster, self.version, tls, self.http as u8).hash(&mut hasher);
        hasher.finish()
    }
}

/// Leaves no more time than that to connect: who asked waits no longer. Where streams share a connection, it cannot be cut
/// under one of them when the time is over: there, no more time to answer either, once the request is complete. Until then
/// what is left is the time to send it.
pub(crate) fn hurry(peer: &mut HttpPeer, left: Duration, complete: bool) {
    let options = &mut peer.options;
    let shared = options.alpn.get_max_http_version() > 1;
    let answer = (shared && complete).then_some(&mut options.read_timeout);
    for bound in [&mut options.connection_timeout, &mut options.total_connection_timeout].into_iter().chain(answer) {
        *bound = Some(bound.map_or(left, |bound| bound.min(left)));
    }
}

/// Streams of one connection.
pub(super) const STREAMS: u32 = 100;
/// What an upstream may send of one answer before somebody has read it.
const STREAM_WINDOW: u32 = 256 * 1024;

/// For one write to be taken.
const WRITE: Duration = Duration::from_secs(30);
/// Finds peers that vanished while nothing is sent, as in a silent WebSocket.
const KEEPALIVE: TcpKeepalive = TcpKeepalive {
    idle: Duration::from_secs(30),
    interval: Duration::from_secs(30),
    count: 3,
    #[cfg(target_os = "linux")]
    user_timeout: Duration::from_secs(90),
};

/// The same of a tunnel, whose other end may let it wait for long: only one that is gone is given up.
pub(super) const PATIENT: TcpKeepalive = TcpKeepalive {
    #[cfg(target_os = "linux")]
    user_timeout: Duration::ZERO,
    ..KEEPALIVE
};

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use pingora_core::upstreams::peer::Peer as _;

    use super::super::line::Dial;
    use super::*;
    use crate::route::UpstreamTls;

    static DIAL: LazyLock<Dialler> = LazyLock::new(|| Dial::from(None));

    /// The same each time.
    fn identity(index: usize) -> &'static Identity {
        static MADE: LazyLock<[Arc<Identity>; 2]> = LazyLock::new(|| {
            let skip = UpstreamTls { skip_verify: true, ..UpstreamTls::default() };
            [UpstreamTls::default(), skip].map(|tls| Identity::of_route("a", None, &tls).unwrap())
        });
        &MADE[index]
    }

    fn spec() -> PeerSpec<'static> {
        PeerSpec {
            place: Place::Address(([192, 0, 2, 1], 443).into()),
            tls: Some((identity(0), "a.example")),
            cluster: "route-a",
            version: 1,
            http: Http::One,
            connect: Duration::from_secs(5),
            idle: Duration::from_secs(60),
            dial: &DIAL,
            silence: Some(Duration::from_secs(30)),
        }
    }

    #[test]
    fn pooled_connections_are_never_shared_over_a_line_of_trust() {
        let same = spec().peer().unwrap().reuse_hash();
        assert_eq!(same, spec().peer().unwrap().reuse_hash());
        for other in [
            PeerSpec { cluster: "route-b", ..spec() },
            PeerSpec { version: 2, ..spec() },
            PeerSpec { tls: Some((identity(0), "b.example")), ..spec() },
            PeerSpec { tls: Some((identity(1), "a.example")), ..spec() },
            PeerSpec { tls: None, ..spec() },
            PeerSpec { http: Http::Negotiated, ..spec() },
            PeerSpec { place: Place::Socket(Path::new("/run/a")), ..spec() },
        ] {
            assert_ne!(same, other.peer().unwrap().reuse_hash(), "{:?}", other.place);
        }
    }

    #[test]
    fn every_peer_has_every_time_out() {
        let options = spec().peer().unwrap().options;
        assert_eq!(options.connection_timeout, Some(Duration::from_secs(5)));
        assert_eq!(options.total_connection_timeout, Some(Duration::from_secs(5)));
        assert_eq!(options.read_timeout, Some(Duration::from_secs(30)));
        assert!(options.write_timeout.is_some() && options.idle_timeout.is_some() && options.tcp_keepalive.is_some());
        assert!(options.verify_cert && options.verify_hostname);
    }

    #[test]
    fn no_more_time_is_spent_on_connecting_than_is_left() {
        let mut peer = spec().peer().unwrap();
        hurry(&mut peer, Duration::from_secs(60), true);
        assert_eq!(peer.options.total_connection_timeout, Some(Duration::from_secs(5)));
        hurry(&mut peer, Duration::from_secs(1), true);
        let options = peer.options;
        assert_eq!(options.total_connection_timeout, Some(Duration::from_secs(1)));
        assert_eq!(options.connection_timeout, options.total_connection_timeout);
        assert_eq!(options.read_timeout, Some(Duration::from_secs(30)), "its connection is cut instead");
        let mut shared = PeerSpec { http: Http::Two, ..spec() }.peer().unwrap();
        hurry(&mut shared, Duration::from_secs(1), false);
        assert_eq!(shared.options.read_timeout, Some(Duration::from_secs(30)), "what is left is for the request");
        hurry(&mut shared, Duration::from_secs(1), true);
        assert_eq!(shared.options.read_timeout, Some(Duration::from_secs(1)));
    }

    #[test]
    fn s_009_no_upgrade_of_the_clients_is_passed_on_by_itself() {
        let policy = spec().peer().unwrap().options.http_upstream_request_policy;
        assert_eq!(policy.h1_upgrade, H1UpgradePolicy::Deny);
        assert!(policy.strip_hop_by_hop && !policy.strip_connection_nominated);
    }
}
