//! Routes of connections and of datagrams, which no request meets: found by what a CONNECT or a CONNECT-UDP asks for alone
//! (01 §2.2).

use std::collections::HashMap;
use std::sync::Arc;

use super::tree::Order;
use super::{HostPattern, Route, glob};
use crate::Host;

/// What a tunnel carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Carries {
    /// A connection of TCP, asked for with CONNECT.
    Connections,
    /// Datagrams of UDP, asked for with CONNECT-UDP (RFC 9298).
    Datagrams,
}

impl Carries {
    /// Both of them.
    pub const ALL: [Self; 2] = [Self::Connections, Self::Datagrams];

    /// As `from` writes it.
    #[must_use]
    pub const fn scheme(self) -> &'static str {
        match self {
            Self::Connections => "tcp+https",
            Self::Datagrams => "udp+https",
        }
    }

    /// What it is asked for with, for people.
    #[must_use]
    pub const fn method(self) -> &'static str {
        match self {
            Self::Connections => "CONNECT",
            Self::Datagrams => "CONNECT-UDP",
        }
    }
}

/// What a tunnel of a route is asked for with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TunnelMatch {
    /// What goes through it.
    pub carries: Carries,
    /// The hosts and ports that are asked for. One without a port is never asked for: every CONNECT and CONNECT-UDP has one.
    pub authorities: Box<[Authority]>,
    /// The host of ours that clients connect to and sign in on, where `from` names one besides; else it is the host that they
    /// ask for.
    pub proxy: Option<Box<str>>,
}

impl TunnelMatch {
    /// The host on which people are who they are that ask for `to`.
    pub(crate) fn door<'h>(&'h self, to: &'h Host) -> &'h str {
        self.proxy.as_deref().unwrap_or(to.name())
    }

    /// Whether `to` may be asked for in a request to the host `on`: that to which clients connect (RFC 9298 §3.2), or `to` itself,
    /// which is how CONNECT is written, and CONNECT-UDP by Pomerium's client (02 §5.3). What is meant for any other host is not
    /// for this route.
    pub(crate) fn is_asked_on(&self, on: &Host, to: &Host) -> bool {
        on == to || on.name() == self.door(to)
    }
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

    /// Whether `host` is asked for with it. An address is only met where it is named.
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
    connections: Asked,
    datagrams: Asked,
    /// The hosts of ours, or of theirs, that people sign in on for them; and patterns of theirs, in the order of the file.
    doors: HashMap<Box<str>, Order>,
    wild_doors: Vec<(Box<str>, Order)>,
}

/// What is asked for with tunnels of one kind.
#[derive(Debug, Default)]
struct Asked {
    /// By host and port; the first route of the file that has them.
    exact: HashMap<Box<str>, HashMap<u16, Order>>,
    /// In the order of the file.
    wildcards: Vec<(Authority, Order)>,
}

impl Asked {
    fn add(&mut self, authority: &Authority, order: Order) {
        if authority.is_wildcard() {
            self.wildcards.push((authority.clone(), order));
        } else if let Some(port) = authority.port {
            self.exact.entry(authority.host.clone()).or_default().entry(port).or_insert(order);
        }
    }

    fn find(&self, host: &Host) -> Option<Order> {
        let exact = || self.exact.get(host.name())?.get(&host.port()?).copied();
        let wildcard = || self.wildcards.iter().find(|(authority, _)| authority.is(host)).map(|(_, order)| *order);
        exact().or_else(wildcard)
    }

    fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.wildcards.is_empty()
    }
}

impl Tunnels {
    pub(super) fn new(routes: &[Arc<Route>]) -> Self {
        let mut all = Self::default();
        for (order, route) in (0..).zip(routes) {
            let Some(tunnel) = route.tunnel.as_deref() else { continue };
            for authority in &tunnel.authorities {
                match tunnel.carries {
                    Carries::Connections => all.connections.add(authority, order),
                    Carries::Datagrams => all.datagrams.add(authority, order),
                }
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

    const fn of(&self, carries: Carries) -> &Asked {
        match carries {
            Carries::Connections => &self.connections,
            Carries::Datagrams => &self.datagrams,
        }
    }

    /// The route whose tunnel is asked for: one that names its host before all that have a pattern (01 §2.3).
    pub(super) fn find(&self, carries: Carries, host: &Host) -> Option<Order> {
        self.of(carries).find(host)
    }

    /// The first route for which people sign in on this host.
    pub(super) fn behind(&self, host: &Host) -> Option<Order> {
        let exact = self.doors.get(host.name()).copied();
        let is_wild = |(pattern, _): &&(Box<str>, Order)| !host.is_literal() && glob::matches(pattern, host.name());
        exact.or_else(|| self.wild_doors.iter().find(is_wild).map(|(_, order)| *order))
    }

    /// Whether there is none of this kind.
    pub(super) fn has_none(&self, carries: Carries) -> bool {
        self.of(carries).is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::super::RouteTable;
    use super::*;
    use crate::testing::{datagrams, route, tunnel};

    fn host(text: &str) -> Host {
        Host::parse(text.as_bytes()).unwrap()
    }

    fn found(table: &RouteTable, carries: Carries, authority: &str) -> Option<String> {
        table.tunnel(carries, &host(authority)).map(|route| route.name.clone())
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
        let table = RouteTable::new(&routes.map(Arc::new), [], true);
        let found = |authority| found(&table, Carries::Connections, authority);
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
        let table = RouteTable::new(&routes.map(Arc::new), [], true);
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

    #[test]
    fn s_105_datagrams_are_found_by_the_very_host_and_port_too_and_apart_from_connections() {
        let routes = [
            tunnel("tcp", None, &["dns.example.com:53", "only.example.com:1"]),
            datagrams("dns", None, &["dns.example.com:53", "[2001:db8::42]:53"]),
            datagrams("game", Some("proxy.example.com"), &["*.game.internal:27015"]),
        ];
        let table = RouteTable::new(&routes.map(Arc::new), [], true);
        let found = |carries, authority| found(&table, carries, authority);
        assert_eq!(found(Carries::Connections, "dns.example.com:53").as_deref(), Some("tcp"));
        for (authority, name) in [
            ("dns.example.com:53", Some("dns")),
            ("DNS.example.com.:53", Some("dns")),
            ("[2001:DB8:0::42]:53", Some("dns")),
            ("a.game.internal:27015", Some("game")),
            ("only.example.com:1", None),
            ("dns.example.com:54", None),
            ("dns.example.com", None),
            ("game.internal:27015", None),
            ("127.0.0.1:27015", None),
        ] {
            assert_eq!(found(Carries::Datagrams, authority).as_deref(), name, "{authority}");
        }
        assert!(table.has_tunnels(Carries::Connections) && table.has_tunnels(Carries::Datagrams));
        let first = |text: &str| table.first_on(&host(text)).map(|route| route.name.as_str());
        assert_eq!(first("proxy.example.com"), Some("game"));
        assert!(table.find(&host("dns.example.com"), "/").is_none(), "no request meets it");
    }

    #[test]
    fn s_105_a_tunnel_is_asked_for_on_the_host_that_clients_connect_to_or_on_what_is_asked_for() {
        let of = |proxy: Option<&str>| TunnelMatch {
            carries: Carries::Datagrams,
            authorities: Box::default(),
            proxy: proxy.map(Into::into),
        };
        let to = host("dns.internal:53");
        let proxied = of(Some("proxy.example.com"));
        for on in ["proxy.example.com", "proxy.example.com:8443", "Proxy.example.com.", "dns.internal:53"] {
            assert!(proxied.is_asked_on(&host(on), &to), "{on}");
        }
        for on in ["dns.internal", "dns.internal:54", "other.example.com", "x.proxy.example.com", "10.0.0.53:53"] {
            assert!(!proxied.is_asked_on(&host(on), &to), "{on}");
        }
        for on in ["dns.internal", "dns.internal:8443", "dns.internal:53"] {
            assert!(of(None).is_asked_on(&host(on), &to), "{on}");
        }
        assert!(!of(None).is_asked_on(&host("proxy.example.com"), &to));
    }
}
