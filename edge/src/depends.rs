//! `depends_on`: the hosts that whoever signs in on a route gets a cookie on as well, so that its pages may call them (01 §2.1, 02 §1.5).
//! Authn leads browsers there; which of them, only the edge knows that was asked for the route.

use postern_identity::MAX_ADDITIONAL_HOSTS;
use url::Url;

use crate::route::{HostPattern, Route, RouteTable};
use crate::{Host, Snapshot};

/// Why a host of `depends_on` is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LeftOut {
    /// It gets the very cookie that the route's host does.
    SameCookie,
    /// `cookie_domain` does not have it, so no browser keeps a cookie of ours for it.
    OutsideOfDomain,
    /// People sign in there, and no application has a session there.
    SignInHost,
    /// No route has it.
    NoRoute,
    /// Its first route wants sessions of another identity provider.
    OtherProvider,
}

/// What there is to know of hosts before a browser is led to them.
#[derive(Clone, Copy, Debug)]
pub struct Neighbours<'s> {
    /// Which host has which routes.
    pub table: &'s RouteTable,
    /// `cookie_domain`.
    pub cookie_domain: Option<&'s str>,
    /// The host where people sign in.
    pub sign_in_host: &'s str,
}

impl Neighbours<'_> {
    /// Why nobody who signs in on `route` is led to `host`; `own` is the host where they wanted to go, as far as it is known.
    #[must_use]
    pub fn left_out(&self, route: &Route, own: Option<&str>, host: &Host) -> Option<LeftOut> {
        if let Some(domain) = self.cookie_domain {
            let is_inside = host.name().strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
            return Some(if is_inside { LeftOut::SameCookie } else { LeftOut::OutsideOfDomain });
        }
        // Cookies know no ports.
        if own == Some(host.name()) {
            return Some(LeftOut::SameCookie);
        }
        if host.name() == self.sign_in_host {
            return Some(LeftOut::SignInHost);
        }
        match self.table.first_on(host) {
            None => Some(LeftOut::NoRoute),
            Some(first) if first.idp != route.idp => Some(LeftOut::OtherProvider),
            Some(_) => None,
        }
    }
}

impl Route {
    /// The one host where people sign in to pass here, if there is but one.
    #[must_use]
    pub fn own_host(&self) -> Option<String> {
        match self.door() {
            HostPattern::Exact { host, .. } => Some(host),
            HostPattern::Wildcard { .. } => None,
        }
    }
}

impl Snapshot {
    /// The hosts, each with its port, that a browser is led through once it is signed in at `wanted`, an address of that route.
    pub(crate) fn additional_hosts(&self, route: &Route, wanted: &Url) -> Vec<String> {
        let neighbours = Neighbours {
            table: &self.table,
            cookie_domain: self.config.cookie.attributes.domain.as_deref(),
            sign_in_host: self.config.authenticate.url.host_str().unwrap_or_default(),
        };
        let mut hosts: Vec<Host> = Vec::new();
        // Browsers reach it as they reach this one, at the same port, unless another is written.
        for host in route.depends_on.iter().map(|host| host.or_port(wanted.port())) {
            let is_new = hosts.iter().all(|other| other.name() != host.name());
            if is_new && neighbours.left_out(route, wanted.host_str(), &host).is_none() {
                hosts.push(host);
            }
        }
        hosts.iter().take(MAX_ADDITIONAL_HOSTS).map(ToString::to_string).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::*;

    fn hosts(names: &[&str]) -> Box<[Host]> {
        names.iter().map(|name| Host::parse(name.as_bytes()).unwrap()).collect()
    }

    fn led_to(change: impl FnOnce(&mut crate::EdgeConfig), depends_on: &[&str], wanted: &str) -> Vec<String> {
        let app = Route { depends_on: hosts(depends_on), ..guarded("app.example.com", "/", any_user()) };
        let other = Route { idp: postern_identity::IdpId::new("other"), ..route("other.example.com", "/") };
        let mut config = config(vec![
            app,
            route("api.example.com", "/"),
            route("files.example.com", "/"),
            other,
            Route {
                hosts: HostPattern::Exact { host: "port.example.com".to_owned(), port: Some(8443) },
                ..route("port.example.com", "/")
            },
            Route { hosts: HostPattern::wildcard("*.apps.example.com", None), ..route("unused", "/") },
            tunnel("db", Some("proxy.example.com"), &["db.internal:5432"]),
        ]);
        change(&mut config);
        let snapshot = Snapshot::new(config, 0).unwrap();
        snapshot.additional_hosts(&snapshot.config.routes[0], &Url::parse(wanted).unwrap())
    }

    #[test]
    fn hosts_of_routes_get_a_cookie_at_the_port_of_the_page_unless_they_name_one() {
        let all = ["api.example.com", "x.apps.example.com", "proxy.example.com", "files.example.com:8"];
        assert_eq!(led_to(|_| {}, &all, "https://app.example.com/x"), all);
        let at = led_to(|_| {}, &all, "https://app.example.com:9443/x");
        let [api, app, proxy, files] = all;
        assert_eq!(at, [format!("{api}:9443"), format!("{app}:9443"), format!("{proxy}:9443"), files.to_owned()]);
        assert_eq!(led_to(|_| {}, &["port.example.com:8443"], "https://app.example.com/"), ["port.example.com:8443"]);
    }

    #[test]
    fn what_cannot_get_one_or_has_it_is_left_out_and_nothing_twice() {
        let led = |depends_on: &[&str]| led_to(|_| {}, depends_on, "https://app.example.com/x");
        for name in [
            "app.example.com",
            "app.example.com:8443",
            "auth.example.com",
            "nobody.example.com",
            "port.example.com",
            "other.example.com",
            "db.internal",
        ] {
            assert_eq!(led(&[name, "api.example.com"]), ["api.example.com"], "{name}");
        }
        assert_eq!(led(&["api.example.com", "API.example.com.", "api.example.com:8"]), ["api.example.com"]);
        let six = ["a", "b", "c", "d", "e", "f"].map(|name| format!("{name}.apps.example.com"));
        assert_eq!(led(&six.each_ref().map(String::as_str)), six[..MAX_ADDITIONAL_HOSTS]);
    }

    #[test]
    fn with_a_cookie_domain_there_is_nothing_to_do() {
        for domain in ["example.com", "other.example"] {
            let change = |config: &mut crate::EdgeConfig| config.cookie.attributes.domain = Some(domain.to_owned());
            assert_eq!(led_to(change, &["api.example.com"], "https://app.example.com/x"), [""; 0], "{domain}");
        }
    }
}
