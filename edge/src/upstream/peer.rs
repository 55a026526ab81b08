//! The one place where a Pingora peer is made, so that no option is ever forgotten.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use pingora_core::protocols::l4::ext::TcpKeepalive;
use pingora_core::protocols::tls::CaType;
use pingora_core::upstreams::peer::{H1UpgradePolicy, HttpPeer, HttpUpstreamRequestPolicy};

use super::line::Dial;

/// Everything that tells one upstream connection from another.
#[derive(Debug, Clone)]
pub(crate) struct PeerSpec<'a> {
    /// Where to dial.
    pub(crate) address: SocketAddr,
    /// TLS, and the name that the certificate must have.
    pub(crate) server_name: Option<&'a str>,
    /// Whose connections they are: never shared with another cluster.
    pub(crate) cluster: &'a str,
    /// The configuration under whose rules they are verified.
    pub(crate) version: u64,
    /// Instead of the system's roots.
    pub(crate) roots: Option<&'a Arc<CaType>>,
    /// An upgrade may be passed on.
    pub(crate) websocket: bool,
    /// To connect, TLS included.
    pub(crate) connect: Duration,
    /// Without a byte, once connected. `None` for what may be silent.
    pub(crate) silence: Option<Duration>,
}

impl PeerSpec<'_> {
    /// The peer. Its `group_key` keeps pooled connections apart that Pingora's own key would mix up: its key knows neither the
    /// roots nor the configuration under which a certificate was verified.
    pub(crate) fn peer(&self) -> HttpPeer {
        // A socket address: given a name, Pingora would look it up, blocking, and panic if that fails.
        let mut peer =
            HttpPeer::new(self.address, self.server_name.is_some(), self.server_name.unwrap_or_default().to_owned());
        peer.group_key = self.group_key();
        let options = &mut peer.options;
        options.set_http_version(1, 1);
        options.ca = self.roots.map(Arc::clone);
        options.custom_l4 = Some(Dial::shared());
        options.connection_timeout = Some(self.connect);
        options.total_connection_timeout = Some(self.connect);
        options.read_timeout = self.silence;
        options.write_timeout = Some(WRITE);
        options.idle_timeout = Some(POOLED);
        options.tcp_keepalive = Some(KEEPALIVE);
        options.http_upstream_request_policy = HttpUpstreamRequestPolicy {
            h1_upgrade: if self.websocket { H1UpgradePolicy::WebSocketOnly } else { H1UpgradePolicy::Deny },
            // The gate has judged what `Connection` names: it can take neither Cookie nor Authorization away (S-039).
            strip_connection_nominated: false,
            ..HttpUpstreamRequestPolicy::standard()
        };
        peer
    }

    fn group_key(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (self.cluster, self.version, self.server_name, self.roots.is_some()).hash(&mut hasher);
        hasher.finish()
    }
}

/// Leaves no more time than that to connect: who asked waits no longer.
pub(crate) fn hurry(peer: &mut HttpPeer, left: Duration) {
    let options = &mut peer.options;
    for bound in [&mut options.connection_timeout, &mut options.total_connection_timeout] {
        *bound = Some(bound.map_or(left, |bound| bound.min(left)));
    }
}

/// For one write to be taken.
const WRITE: Duration = Duration::from_secs(30);
/// Idle in the pool (03 §2).
const POOLED: Duration = Duration::from_secs(60);
/// Finds peers that vanished while nothing is sent, as in a silent WebSocket.
const KEEPALIVE: TcpKeepalive = TcpKeepalive {
    idle: Duration::from_secs(30),
    interval: Duration::from_secs(30),
    count: 3,
    #[cfg(target_os = "linux")]
    user_timeout: Duration::from_secs(90),
};

#[cfg(test)]
mod tests {
    use pingora_core::upstreams::peer::Peer as _;

    use super::*;

    fn spec() -> PeerSpec<'static> {
        PeerSpec {
            address: ([192, 0, 2, 1], 443).into(),
            server_name: Some("a.example"),
            cluster: "route-a",
            version: 1,
            roots: None,
            websocket: false,
            connect: Duration::from_secs(5),
            silence: Some(Duration::from_secs(30)),
        }
    }

    #[test]
    fn pooled_connections_are_never_shared_over_a_line_of_trust() {
        let roots: Arc<CaType> = Arc::new([]);
        let same = spec().peer().reuse_hash();
        assert_eq!(same, spec().peer().reuse_hash());
        for other in [
            PeerSpec { cluster: "route-b", ..spec() },
            PeerSpec { version: 2, ..spec() },
            PeerSpec { server_name: Some("b.example"), ..spec() },
            PeerSpec { server_name: None, ..spec() },
            PeerSpec { roots: Some(&roots), ..spec() },
        ] {
            assert_ne!(same, other.peer().reuse_hash(), "{other:?}");
        }
    }

    #[test]
    fn every_peer_has_every_time_out() {
        let options = spec().peer().options;
        assert_eq!(options.connection_timeout, Some(Duration::from_secs(5)));
        assert_eq!(options.total_connection_timeout, Some(Duration::from_secs(5)));
        assert_eq!(options.read_timeout, Some(Duration::from_secs(30)));
        assert!(options.write_timeout.is_some() && options.idle_timeout.is_some() && options.tcp_keepalive.is_some());
        assert!(options.verify_cert && options.verify_hostname);
    }

    #[test]
    fn no_more_time_is_spent_on_connecting_than_is_left() {
        let mut peer = spec().peer();
        hurry(&mut peer, Duration::from_secs(60));
        assert_eq!(peer.options.total_connection_timeout, Some(Duration::from_secs(5)));
        hurry(&mut peer, Duration::from_secs(1));
        let options = peer.options;
        assert_eq!(options.total_connection_timeout, Some(Duration::from_secs(1)));
        assert_eq!(options.connection_timeout, options.total_connection_timeout);
    }

    #[test]
    fn an_upgrade_is_passed_on_only_where_it_is_allowed() {
        let policy = |websocket| PeerSpec { websocket, ..spec() }.peer().options.http_upstream_request_policy;
        assert_eq!(policy(false).h1_upgrade, H1UpgradePolicy::Deny);
        assert_eq!(policy(true).h1_upgrade, H1UpgradePolicy::WebSocketOnly);
        assert!(policy(true).strip_hop_by_hop && !policy(true).strip_connection_nominated);
    }
}
