//! Which route a request belongs to (01 §2.2 to §2.4): its virtual host first, then the order of the file.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::named::Named;
use super::paths::Paths;
use super::tree::{NEVER, Order, Tree};
use super::tunnels::{Carries, Tunnels};
use super::{HostPattern, Route, glob, route};
use crate::Host;

/// All routes, by host. Finding one neither allocates nor looks at other hosts' routes.
#[derive(Debug)]
pub struct RouteTable {
    /// In the order of the file.
    routes: Vec<Arc<Route>>,
    /// The hosts that some route, or authn, names exactly.
    exact: Named,
    /// The hosts with `*`, by what stands behind their last one, read backwards.
    wildcards: Tree<Vec<Wildcard>>,
    /// The routes of connections and of datagrams.
    tunnels: Tunnels,
    /// A route that names no port serves any (`match_any_incoming_port`), else none and 443 only.
    any_port: bool,
}

/// Routes that one request can meet, in the order in which they are tried.
#[derive(Debug, Clone)]
pub struct Group<'t> {
    /// The host that is named, and the port that it insists on; `None` for all patterns.
    pub host: Option<(&'t str, Option<u16>)>,
    /// The routes; none for a host of ours.
    pub routes: Vec<&'t Arc<Route>>,
}

/// The routes of one pattern.
#[derive(Debug)]
struct Wildcard {
    pattern: String,
    port: Option<u16>,
    paths: Paths,
}

impl RouteTable {
    /// The table of `routes`, in the order of the file. `own` are hosts of ours that have no routes: wildcards never reach them.
    #[must_use]
    pub fn new<'h>(
        routes: &[Arc<Route>],
        own: impl IntoIterator<Item = (&'h str, Option<u16>)>,
        any_port: bool,
    ) -> Self {
        let (mut exact, mut wild) = (BTreeMap::<_, Vec<Order>>::new(), BTreeMap::<_, Vec<Order>>::new());
        for (name, port) in own {
            exact.entry((name, port)).or_default();
        }
        for (order, route) in (0..).zip(routes).filter(|(_, route)| route.tunnel.is_none()) {
            match &route.hosts {
                HostPattern::Exact { host, port } => exact.entry((host.as_str(), *port)).or_default().push(order),
                HostPattern::Wildcard { pattern, port } => {
                    wild.entry((pattern.as_str(), *port)).or_default().push(order);
                }
            }
        }
        let exact = Named::new(routes, exact.into_iter());
        let mut tails = BTreeMap::<Vec<u8>, Vec<Wildcard>>::new();
        for ((pattern, port), orders) in wild {
            let tail = glob::tail(pattern).bytes().rev().collect();
            let wildcard = Wildcard { pattern: pattern.to_owned(), port, paths: Paths::new(routes, orders) };
            tails.entry(tail).or_default().push(wildcard);
        }
        let least = |wildcards: &Vec<Wildcard>| wildcards.iter().map(Wildcard::least).min().unwrap_or(NEVER);
        let tunnels = Tunnels::new(routes);
        Self { routes: routes.to_vec(), exact, wildcards: Tree::new(tails, least), tunnels, any_port }
    }

    /// The first route of the file that has this host and path. A host that is named exactly never falls through to a
    /// wildcard (01 §2.3). `None`: there is nothing here (S-031).
    #[must_use]
    pub fn find(&self, host: &Host, path: &str) -> Option<&Arc<Route>> {
        let order = match self.named(host) {
            Some(paths) => paths.find(&self.routes, path, NEVER),
            None => self.wild(host, |paths, bound| paths.find(&self.routes, path, bound)),
        };
        self.route(order?)
    }

    /// The route whose tunnel to this host and port is asked for (S-105).
    #[must_use]
    pub fn tunnel(&self, carries: Carries, host: &Host) -> Option<&Arc<Route>> {
        self.route(self.tunnels.find(carries, host)?)
    }

    /// Whether there is any route of such tunnels.
    #[must_use]
    pub fn has_tunnels(&self, carries: Carries) -> bool {
        !self.tunnels.has_none(carries)
    }

    /// The first route of the file on this host, whatever its path; else the first whose tunnels are asked for there.
    #[must_use]
    pub fn first_on(&self, host: &Host) -> Option<&Arc<Route>> {
        let order = match self.named(host) {
            Some(paths) => paths.first(),
            None => self.wild(host, |paths, _| paths.first()),
        };
        self.route(order.or_else(|| self.tunnels.behind(host))?)
    }

    /// Whether this host is anybody's: some route, or a host of ours.
    #[must_use]
    pub fn knows(&self, host: &Host) -> bool {
        self.named(host).is_some() || self.first_on(host).is_some()
    }

    /// Whether some public route has this host and path, whichever route comes first.
    pub(crate) fn has_public(&self, host: &Host, path: &str) -> bool {
        let public = |paths: &Paths| {
            let public = |route: &&Arc<Route>| route.public && route.path.matches(path);
            paths.orders().iter().find(|order| self.route(**order).as_ref().is_some_and(public)).copied()
        };
        match self.named(host) {
            Some(paths) => public(paths).is_some(),
            None => self.wild(host, |paths, _| public(paths)).is_some(),
        }
    }

    /// The routes whose host this is, in the order in which their paths are tried.
    #[must_use]
    pub fn candidates(&self, host: &Host) -> Vec<&Arc<Route>> {
        let mut orders = self.named(host).map(|paths| paths.orders().to_vec()).unwrap_or_default();
        if self.named(host).is_none() {
            self.visit(host, |paths, _| {
                orders.extend(paths.orders());
                NEVER
            });
            orders.sort_unstable();
        }
        orders.into_iter().filter_map(|order| self.route(order)).collect()
    }

    /// All routes in the order in which they are tried: a request meets those of the first group that has its host, from the
    /// first to the last, and none of another group. Groups of exact hosts come first, one with its port before the one
    /// without; all patterns together are the last group.
    #[must_use]
    pub fn groups(&self) -> Vec<Group<'_>> {
        let routes = |orders: &[Order]| orders.iter().filter_map(|order| self.route(*order)).collect();
        let mut firsts = BTreeMap::new();
        for ((host, _), paths) in self.exact.iter(&self.routes) {
            let first = paths.first().unwrap_or(NEVER);
            firsts.entry(host).and_modify(|least: &mut Order| *least = first.min(*least)).or_insert(first);
        }
        let mut exact: Vec<_> = self.exact.iter(&self.routes).collect();
        exact.sort_unstable_by_key(|((host, port), _)| (firsts.get(host), *host, port.is_none(), *port));
        let mut groups: Vec<_> =
            exact.into_iter().map(|(host, paths)| Group { host: Some(host), routes: routes(paths.orders()) }).collect();
        let mut wild: Vec<Order> =
            self.wildcards.values().flatten().flat_map(|wildcard| wildcard.paths.orders()).copied().collect();
        wild.sort_unstable();
        if !wild.is_empty() {
            groups.push(Group { host: None, routes: routes(&wild) });
        }
        groups
    }

    fn route(&self, order: Order) -> Option<&Arc<Route>> {
        route(&self.routes, order)
    }

    /// The routes of the virtual host, if the host is named exactly: with its port first, then without.
    fn named(&self, host: &Host) -> Option<&Paths> {
        let get = |port| self.exact.get(&self.routes, (host.name(), port));
        let with_port = if host.port().is_some() { get(host.port()) } else { None };
        with_port.or_else(|| if self.takes_any(host) { get(None) } else { None })
    }

    /// The lowest order that `find` gives for the routes of the wildcards which have this host; it is told from which order on
    /// none is of interest.
    fn wild(&self, host: &Host, find: impl Fn(&Paths, Order) -> Option<Order>) -> Option<Order> {
        let mut best = NEVER;
        self.visit(host, |paths, bound| {
            best = find(paths, bound).map_or(bound, |order| order.min(bound));
            best
        });
        (best < NEVER).then_some(best)
    }

    /// Shows `see` the routes of each wildcard that has this host; what it gives back is the bound from then on, as in
    /// [`Tree::walk`].
    fn visit(&self, host: &Host, mut see: impl FnMut(&Paths, Order) -> Order) {
        // An address matches only a route that names it (03 §3.2 step 3); a request without host matches none.
        if host.is_literal() {
            return;
        }
        let mut bound = NEVER;
        self.wildcards.walk(host.name().bytes().rev(), NEVER, |wildcards, _| {
            for wildcard in wildcards.iter().filter(|wildcard| self.has(wildcard, host)) {
                bound = see(&wildcard.paths, bound);
            }
            bound
        });
    }

    fn has(&self, wildcard: &Wildcard, host: &Host) -> bool {
        let port = wildcard.port.map_or_else(|| self.takes_any(host), |own| host.port() == Some(own));
        port && glob::matches(&wildcard.pattern, host.name())
    }

    /// Whether routes that name no port serve that of `host`.
    pub(super) fn takes_any(&self, host: &Host) -> bool {
        self.any_port || matches!(host.port(), None | Some(443))
    }
}

impl Wildcard {
    fn least(&self) -> Order {
        self.paths.first().unwrap_or(NEVER)
    }
}
