//! Which route a request belongs to (01 §2.2 to §2.4): its virtual host first, then the order of the file.

use std::sync::Arc;

use hashbrown::HashMap;
use regex::Regex;

use crate::Host;
use crate::route::{HostPattern, PathMatcher, Route};

/// All routes, by host. Finding one neither allocates nor looks at other hosts' routes.
#[derive(Debug, Default)]
pub struct RouteTable {
    /// The hosts that some route, or authn, names exactly.
    exact: HashMap<String, Ports>,
    /// The routes with `*` in their host, in the order of the file.
    wildcards: Vec<Arc<Route>>,
    /// A route that names no port serves any (`match_any_incoming_port`), else none and 443 only.
    any_port: bool,
}

/// The virtual hosts of one host name.
#[derive(Debug, Default)]
struct Ports {
    /// The one that insists on no port.
    any: Option<Vec<Arc<Route>>>,
    /// Those that insist on one.
    each: Vec<(u16, Vec<Arc<Route>>)>,
}

impl RouteTable {
    /// The table of `routes`, in the order of the file. `own` are hosts of ours that have no routes: wildcards never reach them.
    #[must_use]
    pub fn new<'h>(
        routes: &[Arc<Route>],
        own: impl IntoIterator<Item = (&'h str, Option<u16>)>,
        any_port: bool,
    ) -> Self {
        let mut table = Self { any_port, ..Self::default() };
        for (host, port) in own {
            table.virtual_host(host, port);
        }
        for route in routes {
            match &route.hosts {
                HostPattern::Exact { host, port } => table.virtual_host(host, *port).push(Arc::clone(route)),
                HostPattern::Wildcard { .. } => table.wildcards.push(Arc::clone(route)),
            }
        }
        table
    }

    /// The first route of the file that has this host and path. A host that is named exactly never falls through to a
    /// wildcard (01 §2.3). `None`: there is nothing here (S-031).
    #[must_use]
    pub fn find(&self, host: &Host, path: &str) -> Option<&Arc<Route>> {
        match self.named(host) {
            Some(routes) => routes.iter().find(|route| route.path.matches(path)),
            None => self.wild(host).find(|route| route.path.matches(path)),
        }
    }

    /// The first route of the file on this host, whatever its path.
    #[must_use]
    pub fn first_on(&self, host: &Host) -> Option<&Arc<Route>> {
        match self.named(host) {
            Some(routes) => routes.first(),
            None => self.wild(host).next(),
        }
    }

    /// Whether this host is anybody's: some route, or a host of ours.
    #[must_use]
    pub fn knows(&self, host: &Host) -> bool {
        self.named(host).is_some() || self.wild(host).next().is_some()
    }

    /// Whether some public route has this host and path, whichever route comes first.
    pub(crate) fn has_public(&self, host: &Host, path: &str) -> bool {
        let public = |route: &&Arc<Route>| route.public && route.path.matches(path);
        match self.named(host) {
            Some(routes) => routes.iter().any(|route| public(&route)),
            None => self.wild(host).any(|route| public(&route)),
        }
    }

    /// The routes whose host this is, in the order in which their paths are tried.
    pub(super) fn candidates(&self, host: &Host) -> impl Iterator<Item = &Arc<Route>> {
        let named = self.named(host);
        let wild = named.is_none().then(|| self.wild(host));
        named.into_iter().flatten().chain(wild.into_iter().flatten())
    }

    fn virtual_host(&mut self, host: &str, port: Option<u16>) -> &mut Vec<Arc<Route>> {
        let ports = self.exact.entry_ref(host).or_default();
        let Some(port) = port else { return ports.any.get_or_insert_default() };
        let at = ports.each.iter().position(|(own, _)| *own == port).unwrap_or_else(|| {
            ports.each.push((port, Vec::new()));
            ports.each.len() - 1
        });
        #[expect(clippy::indexing_slicing, reason = "the position was just found or made")]
        &mut ports.each[at].1
    }

    /// The routes of the virtual host, if the host is named exactly: with its port first, then without.
    fn named(&self, host: &Host) -> Option<&Vec<Arc<Route>>> {
        let ports = self.exact.get(host.name())?;
        let own = host.port().and_then(|port| ports.each.iter().find(|(own, _)| *own == port));
        own.map(|(_, routes)| routes).or_else(|| ports.any.as_ref().filter(|_| self.takes_any(host)))
    }

    fn wild<'t, 'h>(&'t self, host: &'h Host) -> impl Iterator<Item = &'t Arc<Route>> + use<'t, 'h> {
        // An address matches only a route that names it (03 §3.2 step 3); a request without host matches none.
        let routes = if host.is_literal() { &[][..] } else { &self.wildcards[..] };
        routes.iter().filter(move |route| match &route.hosts {
            HostPattern::Exact { .. } => false,
            HostPattern::Wildcard { regex, port, .. } => {
                port.map_or_else(|| self.takes_any(host), |own| host.port() == Some(own)) && regex.is_match(host.name())
            }
        })
    }

    /// Whether routes that name no port serve that of `host`.
    pub(super) fn takes_any(&self, host: &Host) -> bool {
        self.any_port || matches!(host.port(), None | Some(443))
    }
}

impl HostPattern {
    /// A host with `*`, each of which stands for any text, dots included (01 §2.2).
    ///
    /// # Errors
    /// If the pattern is too large.
    pub fn wildcard(pattern: &str, port: Option<u16>) -> Result<Self, regex::Error> {
        let pattern = pattern.to_ascii_lowercase();
        let text = pattern.split('*').map(regex::escape).collect::<Vec<_>>().join(".*");
        Ok(Self::Wildcard { regex: Regex::new(&format!(r"\A(?:{text})\z"))?, pattern, port })
    }
}

impl PathMatcher {
    /// A regular expression that must match the whole path: anchored at both ends, in linear time, and not before a line
    /// end (S-026).
    ///
    /// # Errors
    /// If it is none, or too large.
    pub fn regex(pattern: &str) -> Result<Self, regex::Error> {
        Regex::new(pattern)?;
        Regex::new(&format!(r"\A(?:{pattern})\z")).map(Self::Regex)
    }

    /// Whether the canonical path is this one's (01 §2.4).
    #[must_use]
    pub fn matches(&self, path: &str) -> bool {
        match self {
            Self::Prefix(prefix) => path.starts_with(prefix.as_str()),
            Self::Exact(exact) => path == exact,
            Self::Regex(regex) => regex.is_match(path),
        }
    }

    /// Whether it names parameters or escapes itself; then such paths are what its author meant.
    pub(crate) fn is_deliberate(&self) -> bool {
        let text = match self {
            Self::Prefix(text) | Self::Exact(text) => text.as_str(),
            Self::Regex(regex) => regex.as_str(),
        };
        text.contains([';', '%'])
    }
}
