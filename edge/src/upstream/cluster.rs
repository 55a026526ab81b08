//! The upstreams of one configuration, ready to be dialled.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use hashbrown::HashMap;

use super::balance::{Balancer, Names};
use super::line::{Dial, Dialler};
use super::load::Load;
use super::table::mixed;
use super::tls::{Identity, UpstreamTlsError};
use crate::route::{CircuitBreakers, Route, Target, Upstream, UpstreamScheme};
use crate::{AuthnUpstream, EdgeConfig};

/// All of them.
pub(crate) struct Clusters {
    /// By the address of its route, which lives as long as the configuration. Of those that are spoken to in the clear and in
    /// HTTP/1.1, have one endpoint and say nothing of it, there is nothing to know.
    routes: HashMap<usize, Cluster>,
    /// What these have to do, once they have something to do.
    plain: Plain,
    /// `circuit_breaker_thresholds` of all routes.
    breakers: CircuitBreakers,
    dial: Dialler,
    authn: Option<Arc<Identity>>,
}

/// The upstream of one route, or authn.
#[derive(Debug)]
pub(crate) struct Cluster {
    /// How TLS is spoken to it; `None` if no endpoint wants it.
    pub(crate) tls: Option<Arc<Identity>>,
    /// What is spoken over that.
    pub(crate) http: Http,
    /// Somebody there has refused TLS for HTTP/1.1.
    pub(crate) newer: AtomicBool,
    /// How much it has to do.
    pub(crate) load: Arc<Load>,
    /// Chooses among its endpoints, where there is something to choose.
    pub(crate) balancer: Option<Arc<Balancer>>,
}

/// The versions of HTTP that an upstream is spoken to in (01 §2.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Http {
    /// HTTP/1.1 alone.
    One,
    /// HTTP/2 alone, without asking first.
    Two,
    /// Whichever TLS agrees on.
    Negotiated,
}

impl Http {
    /// That of an upstream; what may become a WebSocket is HTTP/1.1 from the beginning.
    fn of(upstream: &Upstream, websockets: bool) -> Self {
        let all = |wanted: fn(UpstreamScheme) -> bool| {
            !upstream.endpoints.is_empty() && upstream.endpoints.iter().all(|endpoint| wanted(endpoint.scheme))
        };
        if websockets {
            Self::One
        } else if all(UpstreamScheme::is_tls) {
            Self::Negotiated
        } else if all(|scheme| scheme == UpstreamScheme::H2c) {
            Self::Two
        } else {
            Self::One
        }
    }
}

impl std::fmt::Debug for Clusters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Clusters").field("routes", &self.routes.len()).finish_non_exhaustive()
    }
}

impl Clusters {
    /// Those of `config`.
    ///
    /// # Errors
    /// [`UpstreamTlsError`].
    pub(crate) fn new(config: &EdgeConfig) -> Result<Self, UpstreamTlsError> {
        let mut identities = Identities { extra: config.proxy.extra_roots.as_deref(), common: None };
        if identities.extra.is_some() {
            // Nothing is taken that could not be used, whether or not it is.
            identities.common()?;
        }
        let mut routes = HashMap::new();
        for (route, upstream) in config.routes.iter().filter_map(|route| Some((route, upstream(route)?))) {
            let tls = identities.of(&route.name, upstream)?;
            let http = Http::of(upstream, route.upgrades.has_websockets());
            let balancer = Balancer::of(&route.name, upstream, Names::of(route));
            let plain = tls.is_none() && http == Http::One && balancer.is_none() && upstream.balancing.is_none();
            if !plain {
                let load = Load::new(breakers(config, upstream));
                routes.insert(key(route), Cluster { tls, http, newer: AtomicBool::new(false), load, balancer });
            }
        }
        let authn = match &config.authenticate.upstream {
            AuthnUpstream::Here(_) => None,
            AuthnUpstream::Elsewhere(_) => Some(identities.common()?),
        };
        Ok(Self {
            routes,
            plain: Plain::default(),
            breakers: config.proxy.breakers,
            dial: Dial::from(config.proxy.source),
            authn,
        })
    }

    /// Takes over what is known of the upstreams of an older configuration: what they have to do, and how they are. Both with
    /// the configurations that they were made from.
    pub(crate) fn inherit(&mut self, config: &EdgeConfig, before: &Self, old: &EdgeConfig) {
        let known: HashMap<&str, &Arc<Route>> = old.routes.iter().map(|route| (route.id.as_str(), route)).collect();
        for route in &config.routes {
            let (Some(upstream), Some(known)) = (upstream(route), known.get(route.id.as_str())) else { continue };
            let Some(load) = before.known_load(known) else { continue };
            load.limit(breakers(config, upstream));
            let Some(cluster) = self.routes.get_mut(&key(route)) else {
                self.plain.put(key(route), load);
                continue;
            };
            cluster.load = load;
            let Some(known) = before.of(known) else { continue };
            cluster.newer = AtomicBool::new(known.newer.load(Ordering::Relaxed));
            if let (Some(balancer), Some(known)) = (&cluster.balancer, &known.balancer) {
                balancer.inherit(known);
            }
        }
    }

    /// What a route has to do, if it has had something to do.
    fn known_load(&self, route: &Route) -> Option<Arc<Load>> {
        self.of(route).map(|cluster| Arc::clone(&cluster.load)).or_else(|| self.plain.get(key(route)))
    }

    /// What a route of the same configuration has to do.
    pub(crate) fn load(&self, route: &Route) -> Arc<Load> {
        self.known_load(route).unwrap_or_else(|| self.plain.put(key(route), Load::new(self.breakers)))
    }

    /// That of a route of the same configuration, if there is something to know of it.
    pub(crate) fn of(&self, route: &Route) -> Option<&Cluster> {
        self.routes.get(&key(route))
    }

    /// All that choose among endpoints, with how they are spoken to.
    pub(super) fn balanced<'c>(
        &'c self,
        config: &'c EdgeConfig,
    ) -> impl Iterator<Item = (&'c Arc<Route>, &'c Cluster)> {
        let clusters = config.routes.iter().filter_map(|route| Some((route, self.of(route)?)));
        clusters.filter(|(_, cluster)| cluster.balancer.is_some())
    }

    /// Makes the connections to all of them.
    pub(crate) const fn dial(&self) -> &Dialler {
        &self.dial
    }

    /// How TLS is spoken to authn, if it is elsewhere.
    pub(crate) const fn authn(&self) -> Option<&Arc<Identity>> {
        self.authn.as_ref()
    }
}

/// What upstreams have to do that nothing else is known of. Made when it is needed: most routes of a large configuration have
/// nothing to do. Reading takes no lock; what is new is put into a copy of its part.
#[derive(Debug)]
struct Plain([ArcSwap<HashMap<usize, Arc<Load>>>; PARTS]);

/// So many that a copy is small.
const PARTS: usize = 64;

impl Default for Plain {
    fn default() -> Self {
        Self(std::array::from_fn(|_| ArcSwap::default()))
    }
}

impl Plain {
    fn part(&self, key: usize) -> Option<&ArcSwap<HashMap<usize, Arc<Load>>>> {
        // Addresses of values of one size differ in their upper bits.
        self.0.get(usize::try_from(mixed(key as u64) % PARTS as u64).unwrap_or_default())
    }

    fn get(&self, key: usize) -> Option<Arc<Load>> {
        self.part(key)?.load().get(&key).map(Arc::clone)
    }

    /// Puts it there, unless somebody was faster; gives what is there.
    fn put(&self, key: usize, load: Arc<Load>) -> Arc<Load> {
        let Some(part) = self.part(key) else { return load };
        part.rcu(|all| {
            let mut all = HashMap::clone(all);
            all.entry(key).or_insert_with(|| Arc::clone(&load));
            all
        });
        part.load().get(&key).map(Arc::clone).unwrap_or(load)
    }
}

/// A route has one place in memory for as long as there is a configuration with it.
fn key(route: &Route) -> usize {
    std::ptr::from_ref(route).addr()
}

/// What the route says, and what all routes have where it says nothing.
fn breakers(config: &EdgeConfig, upstream: &Upstream) -> CircuitBreakers {
    let own = upstream.balancing.as_ref().map(|balancing| balancing.breakers).unwrap_or_default();
    own.or(config.proxy.breakers)
}

/// Makes identities, and the one that most routes share once.
struct Identities<'c> {
    extra: Option<&'c [u8]>,
    common: Option<Arc<Identity>>,
}

impl Identities<'_> {
    fn of(&mut self, name: &str, upstream: &Upstream) -> Result<Option<Arc<Identity>>, UpstreamTlsError> {
        if !upstream.endpoints.iter().any(|endpoint| endpoint.scheme.is_tls()) {
            return Ok(None);
        }
        match upstream.tls.as_deref() {
            None => self.common().map(Some),
            Some(tls) => Identity::of_route(name, self.extra, tls).map(Some),
        }
    }

    fn common(&mut self) -> Result<Arc<Identity>, UpstreamTlsError> {
        let common = match self.common.take() {
            Some(common) => common,
            None => Identity::common(self.extra)?,
        };
        Ok(Arc::clone(self.common.insert(common)))
    }
}

/// Where a route leads, if it leads up.
pub(super) fn upstream(route: &Route) -> Option<&Upstream> {
    match &route.target {
        Target::Upstream(upstream) => Some(upstream),
        Target::Redirect(_) | Target::Response { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::UpstreamEndpoint;

    #[test]
    fn http_2_is_spoken_where_all_endpoints_can_and_no_websocket_may_come() {
        use UpstreamScheme::{H2c, Http as Plain, Https, HttpsUnix, Unix};
        let of = |schemes: &[UpstreamScheme], websockets| {
            let endpoint = |scheme: &UpstreamScheme| UpstreamEndpoint {
                scheme: *scheme,
                host: "a".to_owned(),
                port: 1,
                authority: "a:1".into(),
                weight: 1,
            };
            let upstream = Upstream { endpoints: schemes.iter().map(endpoint).collect(), ..Upstream::default() };
            Http::of(&upstream, websockets)
        };
        for (schemes, http) in [
            (&[Https, HttpsUnix][..], Http::Negotiated),
            (&[H2c, H2c], Http::Two),
            (&[Https, H2c], Http::One),
            (&[Https, Plain], Http::One),
            (&[H2c, Plain], Http::One),
            (&[Unix], Http::One),
            (&[], Http::One),
        ] {
            assert_eq!(of(schemes, false), http, "{schemes:?}");
            assert_eq!(of(schemes, true), Http::One, "{schemes:?}");
        }
    }
}
