//! Route tables of known size, and requests for what is in them.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use postern_edge::route::{HostPattern, HostRewrite, PathMatcher, Route, RouteTable, Target, Upgrades};
use postern_edge::{Host, JwtIssuerFormat, ResponseHeaders};
use postern_identity::IdpId;
use postern_policy::Policy;

const REQUESTS: usize = 10_000;

/// One route on each of so many hosts.
pub(crate) fn hosts(count: usize) -> Box<dyn Fn(usize)> {
    let name = |index: usize| format!("app-{index}.apps.example.com");
    let routes = (0..count).map(|index| route(&name(index), prefix("/")));
    // As many requests whatever the table: what differs is the table alone, not what the processor remembers of the requests.
    lookups(routes, (0..REQUESTS).map(|index| (name(index % count), "/api/v1/items".to_owned())))
}

/// One route on each of so many patterns.
pub(crate) fn wildcards(count: usize) -> Box<dyn Fn(usize)> {
    let routes = (0..count).map(|index| route(&format!("*.team-{index}.example.com"), prefix("/")));
    lookups(routes, (0..count).map(|index| (format!("app.team-{index}.example.com"), "/api".to_owned())))
}

/// So many routes on one host: prefixes, paths and regexes in turn.
pub(crate) fn paths(count: usize) -> Box<dyn Fn(usize)> {
    let routes = (0..count).map(|index| {
        let team = index % 10;
        let matcher = match index % 3 {
            0 => prefix(&format!("/team-{team}/service-{index}/")),
            1 => PathMatcher::Exact(format!("/team-{team}/page-{index}")),
            _ => PathMatcher::regex(&format!("/team-{team}/v[0-9]+/users/[^/]+/orders-{index}")).unwrap(),
        };
        route("app.example.com", matcher)
    });
    let asked = (0..count).map(|index| {
        let team = index % 10;
        let path = match index % 3 {
            0 => format!("/team-{team}/service-{index}/items/4711"),
            1 => format!("/team-{team}/page-{index}"),
            _ => format!("/team-{team}/v2/users/4711/orders-{index}"),
        };
        ("app.example.com".to_owned(), path)
    });
    lookups(routes, asked)
}

/// Reading the host of a request.
pub(crate) fn host_parse() -> Box<dyn Fn(usize)> {
    Box::new(|_| {
        black_box(Host::parse(black_box(b"app-4711.apps.example.com")).unwrap());
    })
}

/// Looks up one request after the other, in an order without order. Each finds a route, else nothing would be measured.
fn lookups(
    routes: impl Iterator<Item = Arc<Route>>,
    asked: impl Iterator<Item = (String, String)>,
) -> Box<dyn Fn(usize)> {
    let table = RouteTable::new(&routes.collect::<Vec<_>>(), [], true);
    let mut asked: Vec<_> = asked.map(|(host, path)| (Host::parse(host.as_bytes()).unwrap(), path)).collect();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for last in (1..asked.len()).rev() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        asked.swap(last, usize::try_from(state >> 33).unwrap() % (last + 1));
    }
    Box::new(move |turn| {
        let (host, path) = asked.get(turn % asked.len()).unwrap();
        assert!(black_box(table.find(black_box(host), black_box(path))).is_some(), "{host}{path}");
    })
}

fn prefix(text: &str) -> PathMatcher {
    PathMatcher::Prefix(text.to_owned())
}

/// A route that answers by itself.
fn route(from: &str, path: PathMatcher) -> Arc<Route> {
    let hosts = match from {
        pattern if pattern.contains('*') => HostPattern::wildcard(pattern, None),
        host => HostPattern::Exact { host: host.to_owned(), port: None },
    };
    Arc::new(Route { hosts, path, ..plain_route("") })
}

/// A route of a whole host, that answers by itself.
pub(crate) fn plain_route(host: &str) -> Route {
    Route {
        id: String::new(),
        name: String::new(),
        hosts: HostPattern::Exact { host: host.to_owned(), port: None },
        path: prefix("/"),
        target: Target::Response { status: http::StatusCode::OK, body: String::new() },
        policy: Policy::new(Vec::new(), Vec::new()),
        client_trust: None,
        idp: IdpId::new("main"),
        rewrite: None,
        host_rewrite: HostRewrite::Upstream,
        request_headers: Vec::new(),
        response_headers: ResponseHeaders::default(),
        response_rewrites: Box::default(),
        pass_identity_headers: true,
        issuer_format: JwtIssuerFormat::HostOnly,
        groups_filter: None,
        timeout: None,
        idle_timeout: None,
        upgrades: Upgrades::default(),
        tunnel: None,
        credentials: None,
        public: false,
        static_window: Duration::ZERO,
        max_request_body: None,
        show_error_details: false,
        depends_on: Box::default(),
    }
}
