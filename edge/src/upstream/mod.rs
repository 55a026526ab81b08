//! Where permitted requests go: one endpoint is chosen, its name resolved, and a peer made of it.

mod line;
mod peer;
mod resolve;
mod roots;

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use pingora_core::protocols::tls::CaType;
use pingora_core::upstreams::peer::HttpPeer;

pub(crate) use self::line::Line;
use self::peer::PeerSpec;
pub(crate) use self::peer::hurry;
use self::resolve::Resolver;
pub(crate) use self::resolve::Unresolved;
pub use self::roots::RootsError;
use self::roots::roots;
use crate::metrics::Metrics;
use crate::route::{Route, Upstream, UpstreamEndpoint};
use crate::{AuthnUpstream, EdgeConfig, ProxyConfig};

/// What all exchanges share on their way up.
#[derive(Debug)]
pub(crate) struct Upstreams {
    resolver: Resolver,
    trust: ArcSwap<Trust>,
    turn: AtomicUsize,
}

/// The roots of one configuration.
#[derive(Debug, Default)]
struct Trust {
    extra: Option<Vec<u8>>,
    roots: Option<Arc<CaType>>,
}

impl Upstreams {
    /// Reads the roots of `config`.
    ///
    /// # Errors
    /// [`RootsError`].
    pub(crate) fn new(config: &EdgeConfig, metrics: Metrics) -> Result<Self, RootsError> {
        let trust = ArcSwap::from_pointee(Trust::read(&config.proxy)?);
        Ok(Self { resolver: Resolver::new(metrics), trust, turn: AtomicUsize::new(0) })
    }

    /// Takes over the roots and names of a new configuration, or nothing at all.
    ///
    /// # Errors
    /// [`RootsError`].
    pub(crate) fn reload(&self, config: &EdgeConfig) -> Result<(), RootsError> {
        if self.trust.load().extra != config.proxy.extra_roots {
            self.trust.store(Arc::new(Trust::read(&config.proxy)?));
        }
        let authn = match &config.authenticate.upstream {
            AuthnUpstream::Here(_) => None,
            AuthnUpstream::Elsewhere(endpoint) => Some(endpoint),
        };
        let dialled: HashSet<_> = config
            .routes
            .iter()
            .flat_map(|route| endpoints(route))
            .chain(authn)
            .map(|endpoint| &*endpoint.host)
            .collect();
        self.resolver.keep(|name| dialled.contains(name));
        Ok(())
    }

    /// The endpoint of the next attempt: each in turn, but if there is another, not the one of this authority that has `failed`.
    pub(crate) fn choose<'a>(&self, upstream: &'a Upstream, failed: &str) -> Option<&'a UpstreamEndpoint> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let at = turn.checked_rem(upstream.endpoints.len())?;
        let mut in_turn = upstream.endpoints.iter().cycle().skip(at).take(upstream.endpoints.len());
        in_turn.clone().find(|endpoint| endpoint.authority != failed).or_else(|| in_turn.next())
    }

    /// A peer for `endpoint` of `route` under configuration `version`. `websocket` if this request may upgrade.
    ///
    /// # Errors
    /// [`Unresolved`].
    pub(crate) async fn peer(
        &self,
        route: &Route,
        endpoint: &UpstreamEndpoint,
        version: u64,
        websocket: bool,
    ) -> Result<HttpPeer, Unresolved> {
        let ip = self.resolver.resolve(&endpoint.host).await?;
        let trust = self.trust.load();
        let silence = route.timeout.into_iter().chain(route.idle_timeout).min();
        let spec = PeerSpec {
            address: SocketAddr::new(ip, endpoint.port),
            server_name: server_name(endpoint),
            cluster: &route.id,
            version,
            roots: trust.roots.as_ref(),
            websocket,
            connect: CONNECT,
            silence: if websocket { route.idle_timeout } else { silence },
        };
        Ok(spec.peer())
    }

    /// A peer for authn: its answers wait for nothing but the identity provider.
    ///
    /// # Errors
    /// [`Unresolved`].
    pub(crate) async fn authn_peer(&self, authn: &AuthnUpstream, version: u64) -> Result<HttpPeer, Unresolved> {
        let trust = self.trust.load();
        let (address, server_name) = match authn {
            AuthnUpstream::Here(address) => (*address, None),
            AuthnUpstream::Elsewhere(endpoint) => {
                // A dead authn is told in time, whatever of it is dead.
                let resolved = tokio::time::timeout(AUTHN_NAME, self.resolver.resolve(&endpoint.host)).await;
                (SocketAddr::new(resolved.unwrap_or(Err(Unresolved))?, endpoint.port), server_name(endpoint))
            }
        };
        let spec = PeerSpec {
            address,
            server_name,
            cluster: "authn",
            version,
            roots: trust.roots.as_ref(),
            websocket: false,
            connect: AUTHN_CONNECT,
            silence: Some(AUTHN_SILENCE),
        };
        Ok(spec.peer())
    }
}

/// The name that its certificate must have; none without TLS.
fn server_name(endpoint: &UpstreamEndpoint) -> Option<&str> {
    endpoint.tls.then(|| endpoint.host.trim_start_matches('[').trim_end_matches(']'))
}

impl Trust {
    fn read(config: &ProxyConfig) -> Result<Self, RootsError> {
        Ok(Self { extra: config.extra_roots.clone(), roots: roots(config.extra_roots.as_deref())? })
    }
}

fn endpoints(route: &Route) -> &[UpstreamEndpoint] {
    match &route.target {
        crate::route::Target::Upstream(upstream) => &upstream.endpoints,
        crate::route::Target::Redirect(_) | crate::route::Target::Response { .. } => &[],
    }
}

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
    use crate::testing::config;

    #[test]
    fn a_second_attempt_asks_another_endpoint_whoever_else_took_a_turn() {
        let metrics = Metrics::register(&prometheus::Registry::new()).unwrap();
        let upstreams = Upstreams::new(&config(Vec::new()), metrics).unwrap();
        let endpoint = |authority: &str| UpstreamEndpoint {
            tls: false,
            host: authority.to_owned(),
            port: 80,
            authority: authority.to_owned(),
        };
        let chosen = |upstream: &Upstream, failed: &str| upstreams.choose(upstream, failed).unwrap().authority.clone();
        let two = Upstream { endpoints: [endpoint("a"), endpoint("b")].into() };
        assert_eq!([chosen(&two, ""), chosen(&two, ""), chosen(&two, "")], ["a", "b", "a"]);
        for _ in 0..3 {
            assert_eq!(chosen(&two, "a"), "b");
        }
        assert_eq!(chosen(&Upstream { endpoints: [endpoint("a")].into() }, "a"), "a", "there is no other");
        assert!(upstreams.choose(&Upstream { endpoints: Box::default() }, "").is_none());
    }
}
