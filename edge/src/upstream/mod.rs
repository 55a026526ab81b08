//! Where permitted requests go: one endpoint is chosen, its name resolved, and a peer made of it.

mod cluster;
mod line;
mod peer;
mod resolve;
mod tls;

use std::collections::HashSet;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use pingora_core::upstreams::peer::HttpPeer;

pub(crate) use self::cluster::Clusters;
use self::cluster::{Cluster, Http, upstream};
pub(crate) use self::line::Line;
pub(crate) use self::peer::hurry;
use self::peer::{PATIENT, PeerSpec, Place};
use self::resolve::Resolver;
pub(crate) use self::resolve::Unresolved;
use self::tls::Identity;
pub use self::tls::UpstreamTlsError;
use crate::metrics::Metrics;
use crate::route::{Route, Upstream, UpstreamEndpoint};
use crate::{AuthnUpstream, EdgeConfig, Snapshot};

/// What all exchanges share on their way up.
#[derive(Debug)]
pub(crate) struct Upstreams {
    resolver: Resolver,
    turn: AtomicUsize,
}

impl Upstreams {
    /// Nothing is known yet.
    pub(crate) fn new(metrics: Metrics) -> Self {
        Self { resolver: Resolver::new(metrics), turn: AtomicUsize::new(0) }
    }

    /// Takes over the names of a new configuration.
    pub(crate) fn reload(&self, config: &EdgeConfig) {
        let authn = match &config.authenticate.upstream {
            AuthnUpstream::Here(_) => None,
            AuthnUpstream::Elsewhere(endpoint) => Some(endpoint),
        };
        let up = config.routes.iter().filter_map(|route| upstream(route)).flat_map(|upstream| &upstream.endpoints);
        let dialled: HashSet<_> = up.chain(authn).map(|endpoint| &*endpoint.host).collect();
        self.resolver.keep(|name| dialled.contains(name));
    }

    /// The endpoint of the next attempt: each in turn, but if there is another, not the one of this authority that has `failed`.
    pub(crate) fn choose<'a>(&self, upstream: &'a Upstream, failed: &str) -> Option<&'a UpstreamEndpoint> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let at = turn.checked_rem(upstream.endpoints.len())?;
        let (earlier, from) = upstream.endpoints.split_at_checked(at)?;
        let mut in_turn = from.iter().chain(earlier);
        in_turn.clone().find(|endpoint| endpoint.authority != failed).or_else(|| in_turn.next())
    }

    /// A peer for `endpoint` of `route` under `snapshot`, for such a request.
    ///
    /// # Errors
    /// [`Unresolved`].
    pub(crate) async fn peer(
        &self,
        route: &Route,
        endpoint: &UpstreamEndpoint,
        snapshot: &Snapshot,
        Wants { upgrade, older }: Wants,
    ) -> Result<HttpPeer, Unresolved> {
        let cluster = snapshot.clusters.of(route);
        let place = if endpoint.scheme.is_socket() {
            Place::Socket(Path::new(&endpoint.host))
        } else {
            let address = self.resolver.resolve(&endpoint.host).await?;
            if route.tunnel.is_some() && is_inward(endpoint, address) {
                tracing::warn!(postern.route = route.name, upstream.host = endpoint.host, %address,
                    "a tunnel may lead to this machine only where its route names it");
                return Err(Unresolved);
            }
            Place::Address(SocketAddr::new(address, endpoint.port))
        };
        let one = upgrade || (older && cluster.http == Http::Negotiated);
        let http = if one { Http::One } else { cluster.http };
        let silence = route.timeout.into_iter().chain(route.idle_timeout).min();
        let spec = PeerSpec {
            place,
            tls: tls(cluster, endpoint)?,
            http,
            cluster: &route.id,
            version: snapshot.version,
            connect: CONNECT,
            silence: if upgrade { route.idle_timeout } else { silence },
        };
        let mut peer = spec.peer().map_err(|_| Unresolved)?;
        if route.tunnel.is_some() {
            peer.options.tcp_keepalive = Some(PATIENT);
        }
        Ok(peer)
    }

    /// A peer for authn: its answers wait for nothing but the identity provider.
    ///
    /// # Errors
    /// [`Unresolved`].
    pub(crate) async fn authn_peer(&self, snapshot: &Snapshot) -> Result<HttpPeer, Unresolved> {
        let (address, tls) = match &snapshot.config.authenticate.upstream {
            AuthnUpstream::Here(address) => (*address, None),
            AuthnUpstream::Elsewhere(endpoint) => {
                // A dead authn is told in time, whatever of it is dead.
                let resolved = tokio::time::timeout(AUTHN_NAME, self.resolver.resolve(&endpoint.host)).await;
                let address = SocketAddr::new(resolved.unwrap_or(Err(Unresolved))?, endpoint.port);
                (address, tls(snapshot.clusters.authn().ok_or(Unresolved)?, endpoint)?)
            }
        };
        let spec = PeerSpec {
            place: Place::Address(address),
            tls,
            http: Http::One,
            cluster: "authn",
            version: snapshot.version,
            connect: AUTHN_CONNECT,
            silence: Some(AUTHN_SILENCE),
        };
        spec.peer().map_err(|_| Unresolved)
    }
}

/// What a request wants of its peer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wants {
    /// Its connection may become something else, which HTTP/2 has no way for.
    pub(crate) upgrade: bool,
    /// It is better carried in HTTP/1.1 where both are spoken.
    pub(crate) older: bool,
}

/// How TLS is spoken to `endpoint`, and the name that its certificate must have. Without an identity nothing is dialled that
/// wants one.
fn tls<'a>(
    cluster: &'a Cluster,
    endpoint: &'a UpstreamEndpoint,
) -> Result<Option<(&'a Identity, &'a str)>, Unresolved> {
    if !endpoint.scheme.is_tls() {
        return Ok(None);
    }
    let identity = cluster.tls.as_deref().ok_or(Unresolved)?;
    Ok(Some((identity, identity.server_name(endpoint))))
}

/// Whether a name leads to this machine or to what clouds tell of it, which nobody meant who wrote a name (S-105).
fn is_inward(endpoint: &UpstreamEndpoint, address: IpAddr) -> bool {
    let named = endpoint.host.parse::<IpAddr>().is_ok() || endpoint.host.eq_ignore_ascii_case("localhost");
    let inward = match address.to_canonical() {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_link_local() || v4.is_unspecified(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unicast_link_local() || v6.is_unspecified() || v6 == METADATA,
    };
    inward && !named
}

/// Where one cloud tells of its machines over IPv6; the others use link-local addresses.
const METADATA: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);

/// To connect, TLS included (03 §2).
const CONNECT: Duration = Duration::from_secs(5);
/// A dead authn is told within 2 s.
const AUTHN_CONNECT: Duration = Duration::from_millis(1500);
/// And so long for its name before that.
const AUTHN_NAME: Duration = Duration::from_millis(400);
/// A callback waits for the provider, which has 10 s a call (03 §2).
const AUTHN_SILENCE: Duration = Duration::from_secs(25);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::UpstreamScheme;

    #[test]
    fn a_second_attempt_asks_another_endpoint_whoever_else_took_a_turn() {
        let upstreams = Upstreams::new(Metrics::register(&prometheus::Registry::new()).unwrap());
        let endpoint = |authority: &str| UpstreamEndpoint {
            scheme: UpstreamScheme::Http,
            host: authority.to_owned(),
            port: 80,
            authority: authority.to_owned(),
        };
        let chosen = |upstream: &Upstream, failed: &str| upstreams.choose(upstream, failed).unwrap().authority.clone();
        let two = Upstream { endpoints: [endpoint("a"), endpoint("b")].into(), ..Upstream::default() };
        assert_eq!([chosen(&two, ""), chosen(&two, ""), chosen(&two, "")], ["a", "b", "a"]);
        for _ in 0..3 {
            assert_eq!(chosen(&two, "a"), "b");
        }
        assert_eq!(
            chosen(&Upstream { endpoints: [endpoint("a")].into(), ..Upstream::default() }, "a"),
            "a",
            "there is no other"
        );
        assert!(upstreams.choose(&Upstream::default(), "").is_none());
    }
}
