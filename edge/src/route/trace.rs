//! Why a route was chosen and others were not, for people. What is told is asked of the table that chooses.

use std::sync::Arc;

use crate::Host;
use crate::route::{Authority, Carries, HostPattern, Route, RouteTable};

/// Why a route was not chosen, although it is before the one that was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Miss {
    /// It is for other hosts.
    Host,
    /// It is for that host, at another port.
    Port,
    /// It is for that host at any port, and another route names the port.
    PortIsNamed,
    /// It is for a pattern of hosts, and this one is named exactly: such a host never falls back to patterns (01 §2.3).
    HostIsNamed,
    /// It is for a pattern of hosts, and this is an address: those match only where they are named.
    Address,
    /// It is for this host and other paths.
    Path,
    /// It is for one of requests, connections and datagrams, and this is another.
    Kind,
    /// It is for this tunnel as well, and comes later or has a pattern where another names the host.
    Later,
}

impl Miss {
    /// A stable word for programs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Port => "port",
            Self::PortIsNamed => "port-is-named",
            Self::HostIsNamed => "host-is-named",
            Self::Address => "address",
            Self::Path => "path",
            Self::Kind => "kind",
            Self::Later => "later",
        }
    }
}

impl RouteTable {
    /// Each of `routes`, which are those of this table in the order of the file, up to the one that is chosen: `None` for
    /// that one, else why not.
    pub fn trace<'r>(
        &self,
        routes: &'r [Arc<Route>],
        host: &Host,
        path: &str,
    ) -> impl Iterator<Item = (&'r Arc<Route>, Option<Miss>)> {
        let candidates = self.candidates(host);
        let (chosen, any) = (self.find(host, path), self.takes_any(host));
        let is = |route: &Arc<Route>, other: Option<&Arc<Route>>| other.is_some_and(|other| Arc::ptr_eq(route, other));
        let end = routes.iter().position(|route| is(route, chosen)).map_or(routes.len(), |at| at + 1);
        routes.iter().take(end).map(move |route| {
            if is(route, chosen) {
                return (route, None);
            }
            if route.tunnel.is_some() {
                return (route, Some(Miss::Kind));
            }
            let here = candidates.iter().any(|other| Arc::ptr_eq(route, other));
            (route, Some(if here { Miss::Path } else { elsewhere(&route.hosts, host, any) }))
        })
    }
}

impl RouteTable {
    /// The same for a tunnel to `host`.
    pub fn trace_tunnel<'r>(
        &self,
        routes: &'r [Arc<Route>],
        carries: Carries,
        host: &Host,
    ) -> impl Iterator<Item = (&'r Arc<Route>, Option<Miss>)> {
        let chosen = self.tunnel(carries, host);
        let is = |route: &Arc<Route>| chosen.is_some_and(|other| Arc::ptr_eq(route, other));
        let end = routes.iter().position(is).map_or(routes.len(), |at| at + 1);
        let miss = move |route: &Arc<Route>| {
            let authorities = &route.tunnel.as_deref().filter(|tunnel| tunnel.carries == carries)?.authorities;
            let same = |authority: &Authority| authority.pattern().names(host.name());
            Some(match (authorities.iter().any(|one| one.is(host)), authorities.iter().any(same)) {
                (true, _) => Miss::Later,
                (false, true) => Miss::Port,
                (false, false) => Miss::Host,
            })
        };
        let chosen = chosen.map(Arc::clone);
        routes.iter().take(end).map(move |route| match &chosen {
            Some(chosen) if Arc::ptr_eq(route, chosen) => (route, None),
            Some(_) | None => (route, Some(miss(route).unwrap_or(Miss::Kind))),
        })
    }
}

/// Why a route is no candidate for a host. `any`: routes that name no port take this one.
fn elsewhere(hosts: &HostPattern, host: &Host, any: bool) -> Miss {
    let (wildcard, port) = match hosts {
        HostPattern::Exact { port, .. } => (false, *port),
        HostPattern::Wildcard { port, .. } => (true, *port),
    };
    match port {
        _ if !hosts.names(host.name()) => Miss::Host,
        _ if wildcard && host.is_literal() => Miss::Address,
        Some(own) if host.port() != Some(own) => Miss::Port,
        None if !any => Miss::Port,
        _ if wildcard => Miss::HostIsNamed,
        _ => Miss::PortIsNamed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{exact, prefix, route};

    fn told(routes: &[Arc<Route>], any_port: bool, host: &str, path: &str) -> Vec<Option<Miss>> {
        let table = RouteTable::new(routes, [("auth.example.com", None)], any_port);
        let host = Host::parse(host.as_bytes()).unwrap();
        table.trace(routes, &host, path).map(|(_, miss)| miss).collect()
    }

    fn with_port(host: &str, port: u16) -> Route {
        Route { hosts: HostPattern::Exact { host: host.to_owned(), port: Some(port) }, ..route(host, "/") }
    }

    #[test]
    fn every_route_before_the_chosen_one_says_why_it_is_not() {
        let routes: Vec<Arc<Route>> = [
            route("b.example.com", "/"),
            route("*.example.com", "/"),
            with_port("a.example.com", 8443),
            route("a.example.com", "/admin"),
            route("a.example.com", "/"),
            route("a.example.com", "/late"),
        ]
        .map(Arc::new)
        .into();
        let (host, path) = (Some(Miss::Host), Some(Miss::Path));
        let (named, port) = (Some(Miss::HostIsNamed), Some(Miss::Port));
        assert_eq!(told(&routes, true, "a.example.com", "/x"), [host, named, port, path, None]);
        assert_eq!(told(&routes, true, "a.example.com:8443", "/x"), [host, named, None]);
        assert_eq!(told(&routes, true, "c.example.com", "/x"), [host, None]);
        assert_eq!(told(&routes, true, "auth.example.com", "/x"), [host, named, host, host, host, host]);
        assert_eq!(told(&routes, true, "192.0.2.1", "/"), [host; 6]);
    }

    #[test]
    fn ports_and_addresses_have_reasons_of_their_own() {
        let late = Route { hosts: exact("a.example.com"), path: prefix("/late"), ..route("a.example.com", "/") };
        let routes: Vec<Arc<Route>> = [late, with_port("a.example.com", 443), route("*", "/")].map(Arc::new).into();
        assert_eq!(told(&routes, false, "a.example.com:443", "/"), [Some(Miss::PortIsNamed), None]);
        assert_eq!(told(&routes, false, "a.example.com:8443", "/late"), [Some(Miss::Port); 3]);
        assert_eq!(told(&routes, true, "192.0.2.1", "/"), [Some(Miss::Host), Some(Miss::Host), Some(Miss::Address)]);
    }
}
