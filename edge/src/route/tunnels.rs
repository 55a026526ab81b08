//! Routes of connections, which no request meets: found by the authority of a CONNECT alone (01 §2.2).

use std::collections::HashMap;
use std::sync::Arc;

use super::tree::Order;
use super::{HostPattern, Route, glob};
use crate::Host;

/// What a connection of a route is asked for with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TunnelMatch {
    /// The hosts and ports that are asked for. One without a port is never asked for: every CONNECT has one.
    pub authorities: Box<[Authority]>,
    /// The host of ours that clients connect to and sign in on, where `from` names one besides; else it is the host that they
    /// ask for.
    pub proxy: Option<Box<str>>,
}

/// A host, or a pattern of hosts, and its port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Authority {
    /// Lower-case, without a trailing dot; `*` stands for any text.
    pub host: Box<str>,
    /// The port.
    pub port: Option<u16>,
}

impl Authority {
    /// As a pattern of hosts.
    #[must_use]
    pub fn pattern(&self) -> HostPattern {
        let (host, port) = (self.host.to_string(), self.port);
        if self.is_wildcard() {
            HostPattern::Wildcard { pattern: host, port }
        } else {
            HostPattern::Exact { host, port }
        }
    }

    fn is_wildcard(&self) -> bool {
        self.host.contains('*')
    }

    /// Whether a CONNECT to `host` asks for it. An address is only met where it is named.
    pub(super) fn is(&self, host: &Host) -> bool {
        let named = if self.is_wildcard() {
            !host.is_literal() && glob::matches(&self.host, host.name())
        } else {
            *self.host == *host.name()
        };
        named && self.port.is_some() && self.port == host.port()
    }
}

impl std::fmt::Display for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.port {
            Some(port) => write!(f, "{}:{port}", self.host),
            None => f.write_str(&self.host),
        }
    }
}

/// All such routes.
#[derive(Debug, Default)]
pub(super) struct Tunnels {
    /// By host and port; the first route of the file that has them.
    exact: HashMap<Box<str>, HashMap<u16, Order>>,
    /// In the order of the file.
    wildcards: Vec<(Authority, Order)>,
    /// The hosts of ours, or of theirs, that people sign in on for them; and patterns of theirs, in the order of the file.
    doors: HashMap<Box<str>, Order>,
    wild_doors: Vec<(Box<str>, Order)>,
}

impl Tunnels {
    pub(super) fn new(routes: &[Arc<Route>]) -> Self {
        let mut all = Self::default();
        for (order, route) in (0..).zip(routes) {
            let Some(tunnel) = route.tunnel.as_deref() else { continue };
            for authority in &tunnel.authorities {
                all.add(authority, order);
                match &tunnel.proxy {
                    Some(_) => {}
                    None if authority.is_wildcard() => all.wild_doors.push((authority.host.clone(), order)),
                    None => drop(all.doors.entry(authority.host.clone()).or_insert(order)),
                }
            }
            if let Some(proxy) = &tunnel.proxy {
                all.doors.entry(proxy.clone()).or_insert(order);
            }
        }
        all
    }

    fn add(&mut self, authority: &Authority, order: Order) {
        if authority.is_wildcard() {
            self.wildcards.push((authority.clone(), order));
        } else if let Some(port) = authority.port {
            self.exact.entry(authority.host.clone()).or_default().entry(port).or_insert(order);
        }
    }

    /// The route that a CONNECT asks for: one that names its host before all that have a pattern (01 §2.3).
    pub(super) fn find(&self, host: &Host) -> Option<Order> {
        let exact = || self.exact.get(host.name())?.get(&host.port()?).copied();
        let wildcard = || self.wildcards.iter().find(|(authority, _)| authority.is(host)).map(|(_, order)| *order);
        exact().or_else(wildcard)
    }

    /// The first route for which people sign in on this host.
    pub(super) fn behind(&self, host: &Host) -> Option<Order> {
        let exact = self.doors.get(host.name()).copied();
        let is_wild = |(pattern, _): &&(Box<str>, Order)| !host.is_literal() && glob::matches(pattern, host.name());
        exact.or_else(|| self.wild_doors.iter().find(is_wild).map(|(_, order)| *order))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.wildcards.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::super::RouteTable;
    use crate::Host;
    use crate::testing::{route, tunnel};

    fn found(table: &RouteTable, authority: &str) -> Option<String> {
        table.tunnel(&Host::parse(authority.as_bytes()).unwrap()).map(|route| route.name.clone())
    }

    #[test]
    fn s_105_only_the_exact_host_and_port_of_a_route_is_found() {
        let routes = [
            route("db.example.com", "/"),
            tunnel("postgres", None, &["db.example.com:5432", "10.0.0.7:5432"]),
            tunnel("pattern", None, &["*.example.com:22"]),
            tunnel("ssh", None, &["bastion.example.com:22"]),
            tunnel("later", None, &["db.example.com:5432"]),
            tunnel("portless", None, &["portless.example.com"]),
        ];
        let table = RouteTable::new(&routes.map(std::sync::Arc::new), [], true);
        let found = |authority| found(&table, authority);
        assert_eq!(found("db.example.com:5432").as_deref(), Some("postgres"));
        assert_eq!(found("DB.example.com.:5432").as_deref(), Some("postgres"));
        assert_eq!(found("10.0.0.7:5432").as_deref(), Some("postgres"));
        assert_eq!(found("x.y.example.com:22").as_deref(), Some("pattern"));
        assert_eq!(found("bastion.example.com:22").as_deref(), Some("ssh"), "a name goes before a pattern");
        for other in [
            "db.example.com:5433",
            "db.example.com:443",
            "db.example.com",
            "x.db.example.com:5432",
            "example.com:22",
            "10.0.0.8:5432",
            "portless.example.com",
            "portless.example.com:443",
        ] {
            assert_eq!(found(other), None, "{other}");
        }
    }

    #[test]
    fn no_request_meets_a_route_of_connections_but_people_sign_in_on_its_host() {
        let routes = [
            tunnel("postgres", None, &["db.example.com:5432"]),
            tunnel("mysql", Some("proxy.example.com"), &["mysql.internal:3306"]),
            tunnel("ssh", None, &["*.ssh.example.com:22"]),
            tunnel("ops", Some("proxy.example.com"), &["*.ops.internal:22"]),
        ];
        let table = RouteTable::new(&routes.map(std::sync::Arc::new), [], true);
        let host = |text: &str| Host::parse(text.as_bytes()).unwrap();
        for authority in ["db.example.com", "db.example.com:5432", "proxy.example.com", "mysql.internal:3306"] {
            assert!(table.find(&host(authority), "/").is_none(), "{authority}");
        }
        let first = |text: &str| table.first_on(&host(text)).map(|route| route.name.as_str());
        assert_eq!(first("db.example.com"), Some("postgres"));
        assert_eq!(first("proxy.example.com:8443"), Some("mysql"));
        assert_eq!(first("a.ssh.example.com"), Some("ssh"));
        for nobodys in ["mysql.internal", "a.ops.internal", "ssh.example.com"] {
            assert_eq!(first(nobodys), None, "{nobodys}");
        }
        assert!(table.knows(&host("proxy.example.com")) && !table.knows(&host("mysql.internal")));
    }
}
