//! Everything that one request needs, immutable. A reload replaces it whole, so one request sees one configuration.

use std::collections::BTreeSet;
use std::sync::Arc;

use hashbrown::HashSet;
use http::HeaderValue;
use postern_identity::{IdpId, SessionId, edge_token};

use crate::EdgeConfig;
use crate::assertion::AnonymousSlots;
use crate::opened::OpenedCookies;
use crate::prepare::OwnCookies;
use crate::request::{FieldRules, Host, HostError, RequestRules};
use crate::route::{Carries, Route, RouteTable, Target};
use crate::upstream::{Clusters, UpstreamTlsError};

/// Of whom a route wants client certificates.
fn demand(route: &Arc<Route>) -> Option<[u8; 32]> {
    route.client_trust.as_ref().map(|trust| *trust.id())
}

/// One state of the configuration, ready to serve.
#[derive(Debug)]
pub struct Snapshot {
    /// What it was made from.
    pub config: EdgeConfig,
    /// The routes, by host.
    pub table: RouteTable,
    /// Grows with each reload; part of the key of cached assertions and of upstream connections.
    pub version: u64,
    pub(crate) rules: RequestRules,
    pub(crate) cookies: OwnCookies,
    /// Proves to authn that it is the edge that asks.
    pub(crate) edge_token: HeaderValue,
    /// The assertions of anonymous requests, by host.
    pub(crate) anonymous: AnonymousSlots,
    /// Session cookies that `config.keyring` has opened.
    opened: OpenedCookies,
    /// Where permitted requests go.
    pub(crate) clusters: Clusters,
    authenticate: Host,
    /// Not all hosts ask clients for a certificate of the same authorities.
    asks_by_host: bool,
}

/// Why a configuration makes no snapshot; the configuration has mostly found it before, with its place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// The authenticate address names no host that could be asked for.
    #[error("authenticate_service_url: {0}")]
    Authenticate(HostError),
    /// Two routes claim the same (S-036).
    #[error("routes {0:?} and {1:?} claim the same host, path and target")]
    Duplicate(String, String),
    /// TLS to upstreams cannot be spoken as it says.
    #[error(transparent)]
    UpstreamTls(#[from] UpstreamTlsError),
    /// A key gives a token that fits no field.
    #[error("the edge token cannot be written")]
    EdgeToken,
}

impl Snapshot {
    /// All or nothing.
    ///
    /// # Errors
    /// [`SnapshotError`].
    pub fn new(config: EdgeConfig, version: u64) -> Result<Self, SnapshotError> {
        refuse_duplicates(&config)?;
        let url = &config.authenticate.url;
        let authority = url.port().map_or_else(String::new, |port| format!(":{port}"));
        let authority = format!("{}{authority}", url.host_str().unwrap_or_default());
        let authenticate = Host::parse(authority.as_bytes()).map_err(SnapshotError::Authenticate)?;
        let own = std::iter::once(&authenticate).chain(&config.own_hosts).map(|host| (host.name(), host.port()));
        let table = RouteTable::new(&config.routes, own, config.request.match_any_incoming_port);
        let asks_by_host = config.routes.windows(2).any(|pair| match pair {
            [one, next] => demand(one) != demand(next),
            _ => false,
        });
        let claims = config.identity.claim_headers.iter().map(|claim| claim.header.clone()).collect();
        Ok(Self {
            version,
            rules: RequestRules {
                path: config.request,
                trusted_hops: config.proxy.trusted_hops,
                trusted_peers: config.proxy.trusted_peers.clone(),
                fields: FieldRules { underscores: config.request.underscores, claims },
                limits: config.limits.bytes,
                tunnels: table.has_tunnels(Carries::Connections),
            },
            cookies: OwnCookies::new(&config.cookie.name),
            edge_token: HeaderValue::try_from(edge_token(&config.keyring)).map_err(|_| SnapshotError::EdgeToken)?,
            anonymous: AnonymousSlots::default(),
            opened: OpenedCookies::default(),
            clusters: Clusters::new(&config)?,
            authenticate,
            asks_by_host,
            table,
            config,
        })
    }

    /// The session that a cookie's value names, where it was made for `scope` (S-083, S-089).
    pub(crate) fn open_cookie(&self, scope: &str, value: &[u8], expect: impl FnOnce(&[u8; 32])) -> Option<SessionId> {
        self.opened.open(&self.config.keyring, scope, value, expect)
    }

    /// Forgets the cookies that it has opened; long exchanges may keep the rest.
    pub(crate) fn forget_cookies(&self) {
        self.opened.forget();
    }

    #[cfg(test)]
    pub(crate) fn cookies_known(&self) -> usize {
        self.opened.used()
    }

    /// Takes over from the one before what is known of upstreams, and nothing else.
    pub(crate) fn inherit(&mut self, before: &Self) {
        self.clusters.inherit(&self.config, &before.clusters, &before.config);
    }

    /// Whether `host` asks clients for certificates of other authorities than the host that the connection was opened for: a
    /// browser would show another one there (S-029). Without SNI there is nothing to compare with.
    pub(crate) fn asks_otherwise(&self, sni: Option<&str>, host: &Host) -> bool {
        let Some(sni) = sni.filter(|sni| self.asks_by_host && *sni != host.name()) else { return false };
        // A server name has no port: the one that is asked for is the one that was connected to.
        let port = host.port().map(|port| format!(":{port}")).unwrap_or_default();
        let Ok(opened_for) = Host::parse(format!("{sni}{port}").as_bytes()) else { return true };
        let asked = |host: &Host| self.table.candidates(host).into_iter().map(demand).collect::<BTreeSet<_>>();
        asked(&opened_for) != asked(host)
    }

    /// The same for a route of tunnels, whose clients connect to the host `door`: what they ask for is none of ours.
    pub(crate) fn asks_otherwise_behind(&self, sni: Option<&str>, (route, door): (&Arc<Route>, &str)) -> bool {
        let Some(sni) = sni.filter(|sni| self.asks_by_host && *sni != door) else { return false };
        let Ok(opened_for) = Host::parse(sni.as_bytes()) else { return true };
        let there = self.table.candidates(&opened_for).into_iter().chain(self.table.first_on(&opened_for));
        let asked: BTreeSet<_> = there.map(demand).collect();
        // Where no route is, nothing was asked for in particular.
        !asked.is_empty() && asked != BTreeSet::from([demand(route)])
    }

    /// Whether this is the host where sign-in happens.
    pub(crate) fn is_authenticate(&self, host: &Host) -> bool {
        host.name() == self.authenticate.name() && self.authenticate.port().is_none_or(|port| host.port() == Some(port))
    }

    /// The identity provider of a host whose path belongs to no route: that of its first route, or the default one.
    pub(crate) fn idp_of(&self, host: &Host) -> Option<&IdpId> {
        self.table.first_on(host).map(|route| &route.idp).or(self.config.authenticate.idp.as_ref())
    }

    /// What a session cookie is bound to on this host (S-089).
    pub(crate) fn cookie_scope<'h>(&'h self, host: &'h str) -> &'h str {
        self.config.cookie.attributes.domain.as_deref().unwrap_or(host)
    }
}

fn refuse_duplicates(config: &EdgeConfig) -> Result<(), SnapshotError> {
    let mut seen = HashSet::with_capacity(config.routes.len());
    // Of two that lead to no upstream the second is idle, and nothing else (01 §2.9).
    for route in config.routes.iter().filter(|route| matches!(route.target, Target::Upstream(_))) {
        if !seen.insert(route.id.as_str()) {
            let first = config.routes.iter().find(|other| other.id == route.id).map(|other| other.name.clone());
            return Err(SnapshotError::Duplicate(first.unwrap_or_default(), route.name.clone()));
        }
    }
    Ok(())
}
