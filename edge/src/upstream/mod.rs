//! Where permitted requests go: one endpoint is chosen, its name resolved, and a peer made of it.

mod balance;
mod cluster;
mod dns;
mod health;
mod inward;
mod line;
mod load;
mod member;
mod outlier;
mod peer;
mod resolve;
mod table;
mod tend;
mod tls;
mod way;

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pingora_core::upstreams::peer::HttpPeer;
use tokio::runtime::Handle;
use tokio_util::task::AbortOnDropHandle;

use self::balance::Choosing;
pub(crate) use self::balance::{NoMember, key_of};
use self::cluster::{Cluster, upstream};
pub(crate) use self::cluster::{Clusters, Http};
pub use self::dns::{Dns, DnsFamily, DnsServer};
use self::inward::leads_inward;
pub use self::line::SourceAddress;
pub(crate) use self::line::{Line, socket_to};
pub(crate) use self::load::Overflow;
use self::load::Uses;
pub(crate) use self::outlier::Outcome;
pub(crate) use self::peer::hurry;
use self::peer::{PATIENT, PeerSpec, Place};
use self::resolve::{Resolver, Unresolved};
use self::tend::Tended;
use self::tls::Identity;
pub use self::tls::UpstreamTlsError;
pub(crate) use self::way::Way;
use crate::metrics::Metrics;
use crate::route::{Route, Upstream, UpstreamEndpoint};
use crate::{AuthnUpstream, EdgeConfig, Snapshot};

/// What all exchanges share on their way up.
#[derive(Debug)]
pub(crate) struct Upstreams {
    resolver: Arc<Resolver>,
    control: Handle,
    metrics: Metrics,
    /// What is looked after; each ends when it is dropped.
    tended: Mutex<Vec<AbortOnDropHandle<()>>>,
}

/// Why there is no way up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoWay {
    /// There is no address to dial, or none of which anything good is known.
    #[error(transparent)]
    Member(#[from] NoMember),
    /// The upstream has too much to do.
    #[error("the upstream has too much to do")]
    Overflow(Overflow),
    /// The configuration has found it before.
    #[error("the endpoint cannot be dialled as it is written")]
    Unusable,
}

impl From<Unresolved> for NoWay {
    fn from(unresolved: Unresolved) -> Self {
        Self::Member(unresolved.into())
    }
}

impl From<Overflow> for NoWay {
    fn from(overflow: Overflow) -> Self {
        Self::Overflow(overflow)
    }
}

impl Upstreams {
    /// Nothing is known yet. Whatever is done aside is done in the runtime `control`.
    pub(crate) fn new(config: &EdgeConfig, control: Handle, metrics: Metrics) -> Self {
        let resolver = Arc::new(Resolver::new(&config.proxy.dns, control.clone(), metrics.clone()));
        Self { resolver, control, metrics, tended: Mutex::default() }
    }

    /// Looks after the endpoints of this configuration from now on, and after no others.
    pub(crate) fn tend(&self, snapshot: &Snapshot) {
        let mut tended = self.tended.lock().unwrap_or_else(PoisonError::into_inner);
        tended.clear();
        // Routes that are gone are not told of for ever.
        self.metrics.0.upstream_endpoints.reset();
        for (route, cluster) in snapshot.clusters.balanced(&snapshot.config) {
            let one = Tended::of(route, cluster, (snapshot.clusters.dial(), snapshot.version), &self.metrics);
            let Some(one) = one else { continue };
            let tending = self.control.spawn(one.tend(Arc::clone(&self.resolver)));
            tended.push(AbortOnDropHandle::new(tending));
        }
    }

    /// Takes over the names of a new configuration.
    pub(crate) fn reload(&self, config: &EdgeConfig) {
        let authn = match &config.authenticate.upstream {
            AuthnUpstream::Here(_) => None,
            AuthnUpstream::Elsewhere(endpoint) => Some(endpoint),
        };
        let up = config.routes.iter().filter_map(|route| upstream(route)).flat_map(|upstream| &upstream.endpoints);
        let dialled: HashSet<_> = up.chain(authn).map(|endpoint| &*endpoint.host).collect();
        self.resolver.reload(&config.proxy.dns, |name| dialled.contains(name));
    }

    /// A peer for a request to `upstream` of `route` under `snapshot`, and the endpoint that it is; `way` is what the request
    /// holds of the upstream from now on, and says what came of an attempt before.
    ///
    /// # Errors
    /// [`NoWay`].
    pub(crate) async fn peer<'r>(
        &self,
        (route, upstream): (&Route, &'r Upstream),
        snapshot: &Snapshot,
        wants: Wants,
        way: &mut Way,
    ) -> Result<(Box<HttpPeer>, &'r UpstreamEndpoint), NoWay> {
        let cluster = snapshot.clusters.of(route);
        let spoken = cluster.map_or(Http::One, |cluster| cluster.http);
        let newer = || cluster.is_some_and(|cluster| cluster.newer.load(Ordering::Relaxed));
        let older = match wants.older {
            Older::No => false,
            Older::Rather => !newer(),
            Older::Must => true,
        };
        let one = wants.upgrade || (older && spoken == Http::Negotiated);
        let http = if one { Http::One } else { spoken };
        let uses = if http == Http::One { Uses::Connection } else { Uses::Stream };
        way.enter(|| snapshot.clusters.load(route), uses).await?;
        let (endpoint, address) = match cluster.and_then(|cluster| cluster.balancer.as_ref()) {
            None => {
                let endpoint = upstream.endpoints.first().ok_or(Unresolved)?;
                let address = if endpoint.scheme.is_socket() {
                    None
                } else {
                    let ip = self.resolver.resolve(&endpoint.host, way.tried()).await?;
                    way.begin_at(ip);
                    if route.tunnel.is_some() && leads_inward(&endpoint.host, ip) {
                        inward::tell(&route.name, &endpoint.host, ip);
                        return Err(Unresolved.into());
                    }
                    Some(SocketAddr::new(ip, endpoint.port))
                };
                (endpoint, address)
            }
            Some(balancer) => {
                let failed = way.state().cloned();
                let choosing = Choosing { key: wants.key, failed: failed.as_ref() };
                let chosen = balancer.choose(&self.resolver, choosing).await?;
                let endpoint = upstream.endpoints.get(chosen.endpoint).ok_or(NoWay::Unusable)?;
                way.begin(balancer, chosen.busy);
                (endpoint, chosen.address)
            }
        };
        let silence = route.timeout.into_iter().chain(route.idle_timeout).min();
        let spec = PeerSpec {
            place: address.map_or_else(|| Place::Socket(Path::new(&endpoint.host)), Place::Address),
            tls: tls(cluster, endpoint)?,
            http,
            cluster: &route.id,
            version: snapshot.version,
            connect: snapshot.config.limits.upstream.connect,
            idle: snapshot.config.limits.upstream.idle,
            dial: snapshot.clusters.dial(),
            // The bound of the exchange keeps the route's time until the connection has become something else.
            silence: if wants.upgrade { route.idle_timeout } else { silence },
        };
        let mut peer = spec.peer().map_err(|_| NoWay::Unusable)?;
        if route.tunnel.is_some() {
            peer.options.tcp_keepalive = Some(PATIENT);
        }
        Ok((peer, endpoint))
    }

    /// A peer for authn: its answers wait for nothing but the identity provider.
    ///
    /// # Errors
    /// [`NoWay`].
    pub(crate) async fn authn_peer(&self, snapshot: &Snapshot, way: &mut Way) -> Result<Box<HttpPeer>, NoWay> {
        let (address, tls) = match &snapshot.config.authenticate.upstream {
            AuthnUpstream::Here(address) => (*address, None),
            AuthnUpstream::Elsewhere(endpoint) => {
                // A dead authn is told in time, whatever of it is dead.
                let resolving = self.resolver.resolve(&endpoint.host, way.tried());
                let ip = tokio::time::timeout(AUTHN_NAME, resolving).await.unwrap_or(Err(Unresolved))?;
                way.begin_at(ip);
                let address = SocketAddr::new(ip, endpoint.port);
                let identity = &**snapshot.clusters.authn().ok_or(NoWay::Unusable)?;
                (address, endpoint.scheme.is_tls().then(|| (identity, identity.server_name(endpoint))))
            }
        };
        let spec = PeerSpec {
            place: Place::Address(address),
            tls,
            http: Http::One,
            cluster: "authn",
            version: snapshot.version,
            connect: AUTHN_CONNECT,
            idle: snapshot.config.limits.upstream.idle,
            dial: snapshot.clusters.dial(),
            silence: Some(AUTHN_SILENCE),
        };
        spec.peer().map_err(|_| NoWay::Unusable)
    }
}

/// What a request wants of its peer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wants {
    /// Its connection may become something else, which HTTP/2 has no way for.
    pub(crate) upgrade: bool,
    /// How it is better carried.
    pub(crate) older: Older,
    /// The hash of what its client is known by, where the same client gets to the same endpoint.
    pub(crate) key: u64,
}

/// Whether a request is carried in HTTP/1.1 where both are spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Older {
    /// It need not be.
    No,
    /// If its upstream speaks it.
    Rather,
    /// Nothing else is right.
    Must,
}

/// How TLS is spoken to `endpoint`, and the name that its certificate must have. Without an identity nothing is dialled that
/// wants one.
fn tls<'a>(
    cluster: Option<&'a Cluster>,
    endpoint: &'a UpstreamEndpoint,
) -> Result<Option<(&'a Identity, &'a str)>, NoWay> {
    if !endpoint.scheme.is_tls() {
        return Ok(None);
    }
    let identity = cluster.and_then(|cluster| cluster.tls.as_deref()).ok_or(NoWay::Unusable)?;
    Ok(Some((identity, identity.server_name(endpoint))))
}

/// A dead authn is told within 2 s.
const AUTHN_CONNECT: Duration = Duration::from_millis(1500);
/// And so long for its name before that.
const AUTHN_NAME: Duration = Duration::from_millis(400);
/// A callback waits for the provider, which has 10 s a call (03 §2).
const AUTHN_SILENCE: Duration = Duration::from_secs(25);
