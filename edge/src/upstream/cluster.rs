//! The upstreams of one configuration, ready to be dialled.

use std::sync::Arc;

use hashbrown::HashMap;

use super::tls::{Identity, UpstreamTlsError};
use crate::route::{Route, Target, Upstream, UpstreamScheme};
use crate::{AuthnUpstream, EdgeConfig};

/// All of them.
#[derive(Debug)]
pub(crate) struct Clusters {
    /// By the id of its route; of those that are spoken to in the clear and in HTTP/1.1 there is nothing to know.
    routes: HashMap<String, Cluster>,
    authn: Option<Cluster>,
}

/// The upstream of one route, or authn.
#[derive(Debug)]
pub(crate) struct Cluster {
    /// How TLS is spoken to it; `None` if no endpoint wants it.
    pub(crate) tls: Option<Arc<Identity>>,
    /// What is spoken over that.
    pub(crate) http: Http,
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

const PLAIN: Cluster = Cluster { tls: None, http: Http::One };

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
            if tls.is_some() || http != Http::One {
                routes.insert(route.id.clone(), Cluster { tls, http });
            }
        }
        let authn = match &config.authenticate.upstream {
            AuthnUpstream::Here(_) => None,
            AuthnUpstream::Elsewhere(_) => Some(Cluster { tls: Some(identities.common()?), http: Http::One }),
        };
        Ok(Self { routes, authn })
    }

    /// That of a route.
    pub(crate) fn of(&self, route: &Route) -> &Cluster {
        self.routes.get(&route.id).unwrap_or(&PLAIN)
    }

    /// Authn, if it is elsewhere.
    pub(crate) const fn authn(&self) -> Option<&Cluster> {
        self.authn.as_ref()
    }
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
                authority: "a:1".to_owned(),
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
