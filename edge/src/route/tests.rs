use std::sync::Arc;

use http::StatusCode;
use proptest::prelude::*;

use super::*;
use crate::testing::{connection, exact, get, head, prefix, route};
use crate::{Host, PathConfig, PathError, Refusal, Request, UnderscoreHeaders};

fn table(routes: &[Arc<Route>]) -> RouteTable {
    RouteTable::new(routes, [("auth.example.com", None)], true)
}

fn found<'t>(table: &'t RouteTable, host: &str, path: &str) -> Option<&'t str> {
    table.find(&Host::parse(host.as_bytes()).unwrap(), path).map(|route| route.id.as_str())
}

fn with(id: &str, hosts: HostPattern, path: PathMatcher) -> Arc<Route> {
    Arc::new(Route { id: id.to_owned(), hosts, path, ..route("x", "/") })
}

#[test]
fn the_order_of_the_file_decides_within_a_host() {
    let routes = [
        with("api", exact("app.example.com"), prefix("/api")),
        with("exact", exact("app.example.com"), PathMatcher::Exact("/one".to_owned())),
        with("regex", exact("app.example.com"), PathMatcher::regex("/n/[0-9]+").unwrap()),
        with("all", exact("app.example.com"), prefix("/")),
        with("hidden", exact("app.example.com"), prefix("/late")),
    ];
    let table = table(&routes);
    for (path, id) in [
        ("/api", "api"),
        ("/apiary", "api"),
        ("/api/x", "api"),
        ("/API", "all"),
        ("/one", "exact"),
        ("/one/", "all"),
        ("/n/12", "regex"),
        ("/n/12/x", "all"),
        ("/x/n/12", "all"),
        ("/late", "all"),
        ("/", "all"),
    ] {
        assert_eq!(found(&table, "app.example.com", path), Some(id), "{path}");
    }
    assert_eq!(found(&table, "app.example.com", "*"), None);
}

#[test]
fn a_host_that_is_named_never_falls_through_to_a_wildcard() {
    let routes = [
        with("wild", HostPattern::wildcard("*.example.com", None), prefix("/")),
        with("named", exact("app.example.com"), prefix("/only")),
    ];
    let table = table(&routes);
    assert_eq!(found(&table, "app.example.com", "/only"), Some("named"));
    assert_eq!(found(&table, "app.example.com", "/other"), None);
    assert_eq!(found(&table, "app.example.com:8443", "/other"), None);
    assert_eq!(found(&table, "auth.example.com", "/other"), None, "our own host has no route");
    assert_eq!(found(&table, "b.example.com", "/other"), Some("wild"));
}

#[test]
fn wildcards_take_any_text_but_no_address() {
    let routes = [
        with("mid", HostPattern::wildcard("a*z.example.com", None), prefix("/")),
        with("ported", HostPattern::wildcard("*.ports.example.com", Some(9443)), prefix("/")),
        with("any", HostPattern::wildcard("*", None), prefix("/")),
    ];
    let table = table(&routes);
    assert_eq!(found(&table, "az.example.com", "/"), Some("mid"));
    assert_eq!(found(&table, "a.b.c.z.example.com:1", "/"), Some("mid"));
    assert_eq!(found(&table, "xa.z.example.com", "/"), Some("any"), "anchored at both ends");
    assert_eq!(found(&table, "azXexample.com", "/"), Some("any"), "a dot is a dot");
    assert_eq!(found(&table, "x.ports.example.com:9443", "/"), Some("ported"));
    assert_eq!(found(&table, "x.ports.example.com", "/"), Some("any"));
    assert_eq!(found(&table, "127.0.0.1", "/"), None);
    assert_eq!(found(&table, "[::1]:443", "/"), None);
    assert!(table.find(&Host::unnamed(), "/").is_none());
}

#[test]
fn s_028_a_port_counts_only_where_it_was_written() {
    let routes = [
        with("plain", exact("app.example.com"), prefix("/")),
        with("ported", HostPattern::Exact { host: "app.example.com".to_owned(), port: Some(8443) }, prefix("/")),
        with("strict", HostPattern::Exact { host: "p.example.com".to_owned(), port: Some(8443) }, prefix("/")),
        with("address", exact("127.0.0.1"), prefix("/")),
    ];
    let table_any = table(&routes);
    for (host, id) in [
        ("app.example.com", Some("plain")),
        ("app.example.com:443", Some("plain")),
        ("app.example.com:80", Some("plain")),
        ("app.example.com:8443", Some("ported")),
        ("p.example.com:8443", Some("strict")),
        ("p.example.com", None),
        ("p.example.com:443", None),
        ("127.0.0.1:9", Some("address")),
        ("unknown.example.com", None),
    ] {
        assert_eq!(found(&table_any, host, "/"), id, "{host}");
    }
    let only = RouteTable::new(&routes, [], false);
    for (host, id) in [
        ("app.example.com", Some("plain")),
        ("app.example.com:443", Some("plain")),
        ("app.example.com:80", None),
        ("app.example.com:8443", Some("ported")),
    ] {
        assert_eq!(found(&only, host, "/"), id, "{host}");
    }
}

#[test]
fn s_026_a_regex_matches_the_whole_path_and_no_line() {
    let regex = PathMatcher::regex("/a|/b.*|(?m)^/c$").unwrap();
    for path in ["/a", "/b", "/bcd", "/c"] {
        assert!(regex.matches(path), "{path}");
    }
    for path in ["/ax", "/x/a", "/a\n", "/x\n/c", "/c\n", "/a\n/b"] {
        assert!(!regex.matches(path), "{path:?}");
    }
    assert!(PathMatcher::regex("a)(b").is_err());
    let evil = PathMatcher::regex("/(a*)*b").unwrap();
    assert!(!evil.matches(&format!("/{}", "a".repeat(16_000))), "linear time");
}

/// What 01 §2.3 says, word for word.
fn naive<'r>(routes: &'r [Arc<Route>], host: &Host, path: &str) -> Option<&'r Arc<Route>> {
    let names = |route: &Route, port: Option<u16>| matches!(&route.hosts, HostPattern::Exact { host: own, port: of } if own == host.name() && *of == port);
    let own = host.name() == "auth.example.com";
    let with_port = host.port().is_some() && routes.iter().any(|route| names(route, host.port()));
    let without = own || routes.iter().any(|route| names(route, None));
    if with_port || without {
        let port = if with_port { host.port() } else { None };
        return routes.iter().filter(|route| names(route, port)).find(|route| route.path.matches(path));
    }
    routes.iter().find(|route| match &route.hosts {
        HostPattern::Exact { .. } => false,
        HostPattern::Wildcard { pattern, port } => {
            !host.is_literal()
                && stands_for(pattern.as_bytes(), host.name().as_bytes())
                && port.is_none_or(|port| host.port() == Some(port))
                && route.path.matches(path)
        }
    })
}

/// Each `*` is any text (01 §2.2).
fn stands_for(pattern: &[u8], name: &[u8]) -> bool {
    match pattern.split_first() {
        None => name.is_empty(),
        Some((b'*', rest)) => (0..=name.len()).any(|end| stands_for(rest, &name[end..])),
        Some((byte, rest)) => name.first() == Some(byte) && stands_for(rest, &name[1..]),
    }
}

fn any_request() -> impl Strategy<Value = (Host, String)> {
    let other = vec!["b.example.com", "c.example.com", "auth.example.com", "b", "1.2.3.4", "[::1]"];
    let host = prop_oneof![Just("a.example.com"), prop::sample::select(other)];
    let port = prop::sample::select(vec!["", ":443", ":8443"]);
    let path = prop_oneof![2 => "/[ab/c]{0,5}", 8 => "/[ab/]{2,5}", 1 => Just("*".to_owned())];
    (host, port, path).prop_map(|(host, port, path)| (Host::parse(format!("{host}{port}").as_bytes()).unwrap(), path))
}

fn any_route() -> impl Strategy<Value = (String, Option<u16>, String)> {
    let host = prop::sample::select(vec![
        "a.example.com",
        "b.example.com",
        "auth.example.com",
        "*.example.com",
        "*",
        "a.*",
        "*b*",
        "a*.e*.c*m",
        "1.2.3.4",
    ]);
    let port = prop::sample::select(vec![None, None, Some(8443)]);
    // One host gets half of them, so that it has enough for an index.
    let host = prop_oneof![Just("a.example.com"), host];
    // What matches everything is rare, or the routes behind it would never be looked at.
    let piece = prop::sample::select(vec!["/", "a", "b", "[ab]", "a+", "(a|b)", ".", "b?", "[^/]*", "(?:a|/b)+"]);
    let regex = prop::collection::vec(piece, 1..5).prop_map(|pieces| format!("r/{}", pieces.concat()));
    let rare = prop::sample::select(vec!["p/", "p", "e/", "e", "r/a|/b.*", "r.*", "r\\*"]).prop_map(str::to_owned);
    let path = prop_oneof![1 => rare, 6 => "p/[ab/]{2,4}", 6 => "e/[ab/]{1,4}", 12 => regex];
    (host, port, path).prop_map(|(host, port, path)| (host.to_owned(), port, path))
}

fn built(index: usize, (host, port, path): &(String, Option<u16>, String)) -> Arc<Route> {
    let hosts = if host.contains('*') {
        HostPattern::wildcard(host, *port)
    } else {
        HostPattern::Exact { host: host.clone(), port: *port }
    };
    let matcher = match path.split_at(1) {
        ("p", path) => prefix(path),
        ("e", path) => PathMatcher::Exact(path.to_owned()),
        (_, path) => PathMatcher::regex(path).unwrap(),
    };
    with(&index.to_string(), hosts, matcher)
}

proptest! {
    #[test]
    fn find_agrees_with_a_naive_scan(
        routes in prop_oneof![prop::collection::vec(any_route(), 0..8), prop::collection::vec(any_route(), 20..120)],
        requests in prop::collection::vec(any_request(), 40),
    ) {
        let routes: Vec<_> = routes.iter().enumerate().map(|(index, route)| built(index, route)).collect();
        let table = table(&routes);
        for (host, path) in requests {
            let found = table.find(&host, &path).map(|route| &route.id);
            prop_assert_eq!(found, naive(&routes, &host, &path).map(|route| &route.id), "{}{}", host, path);
        }
    }
}

/// What `groups` says, taken at its word: the first group that has the host, and of its routes the first that matches.
fn by_groups<'t>(table: &'t RouteTable, host: &Host, path: &str) -> Option<&'t Arc<Route>> {
    let at = |port: Option<u16>| port.is_none_or(|own| host.port() == Some(own));
    let group = table.groups().into_iter().find(|group| match group.host {
        Some((name, port)) => name == host.name() && at(port),
        None => !host.is_literal(),
    })?;
    group.routes.into_iter().find(|route| match &route.hosts {
        HostPattern::Exact { .. } => route.path.matches(path),
        HostPattern::Wildcard { port, .. } => route.hosts.names(host.name()) && at(*port) && route.path.matches(path),
    })
}

proptest! {
    #[test]
    fn the_groups_are_in_the_order_in_which_routes_are_tried(
        routes in prop_oneof![prop::collection::vec(any_route(), 0..8), prop::collection::vec(any_route(), 20..120)],
        requests in prop::collection::vec(any_request(), 40),
    ) {
        let routes: Vec<_> = routes.iter().enumerate().map(|(index, route)| built(index, route)).collect();
        let table = table(&routes);
        prop_assert_eq!(table.groups().iter().map(|group| group.routes.len()).sum::<usize>(), routes.len());
        for (host, path) in requests {
            let found = table.find(&host, &path).map(|route| &route.id);
            prop_assert_eq!(found, by_groups(&table, &host, &path).map(|route| &route.id), "{}{}", host, path);
        }
    }
}

#[test]
fn groups_stand_in_the_order_of_the_file_with_the_port_before_the_host_and_patterns_last() {
    let routes = [
        with("any", HostPattern::wildcard("*", None), prefix("/")),
        with("b", exact("b.example.com"), prefix("/")),
        with("a", exact("a.example.com"), prefix("/")),
        with("b9", HostPattern::Exact { host: "b.example.com".to_owned(), port: Some(9443) }, prefix("/")),
    ];
    let table = table(&routes);
    let told: Vec<_> = table
        .groups()
        .iter()
        .map(|group| (group.host.map(|(name, _)| name.to_owned()), group.routes.iter().map(|one| &*one.id).collect()))
        .collect::<Vec<(_, Vec<_>)>>();
    let host = |name: &str| Some(name.to_owned());
    let b = "b.example.com";
    assert_eq!(
        told,
        [
            (host(b), vec!["b9"]),
            (host(b), vec!["b"]),
            (host("a.example.com"), vec!["a"]),
            (host("auth.example.com"), vec![]),
            (None, vec!["any"]),
        ]
    );
}

fn rewritten(path: PathMatcher, with: &str, asked: &str) -> Result<Option<String>, Refusal> {
    let route = Route { path, rewrite: Some(PathRewrite::Prefix(with.to_owned())), ..route("x", "/") };
    Ok(route.upstream_path(asked, &PathConfig::default())?.map(|rewritten| rewritten.path))
}

/// Path and query, or the reason.
fn by_expression(pattern: &str, substitution: &str, asked: &str) -> Result<(String, Option<String>), &'static str> {
    let rewrite = RegexRewrite::new(regex::Regex::new(pattern).unwrap(), substitution).unwrap();
    let route = Route { rewrite: Some(PathRewrite::Regex(rewrite)), ..route("x", "/") };
    let rewritten = route.upstream_path(asked, &PathConfig::default()).map_err(|refusal| refusal.reason())?;
    Ok(rewritten.map(|rewritten| (rewritten.path, rewritten.query)).unwrap())
}

#[test]
fn an_expression_rewrites_the_path_and_may_make_a_query() {
    let path = |path: &str| Ok((path.to_owned(), None));
    assert_eq!(by_expression("^/u/([^/]+)/(.*)$", r"/\2/of/\1", "/u/a%20b/c"), path("/c/of/a%20b"));
    assert_eq!(by_expression("nothing", "x", "/a"), path("/a"));
    assert_eq!(by_expression("^/a", "", "/a/b"), path("/b"));
    assert_eq!(by_expression("^/a", "/", "/a//b"), path("/b"), "slashes are merged again");
    let made = by_expression(r"^/item/(\d+)$", r"/item.php?id=\1", "/item/7");
    assert_eq!(made, Ok(("/item.php".to_owned(), Some("id=7".to_owned()))));
    let query = |own| Rewritten { path: String::new(), query: Some("id=7".to_owned()) }.query(own);
    assert_eq!((query(None).as_deref(), query(Some("x")).as_deref()), (Some("id=7"), Some("id=7&x")));
}

#[test]
fn s_021_what_an_expression_makes_is_a_path_or_nothing_goes_up() {
    for (pattern, substitution, asked) in [
        ("^/", "", "/a"),
        ("^/static", "", "/static../secret"),
        ("^/a", "/%2e%2e/b", "/a"),
        ("x", "..", "/a/x/b"),
        ("x", "%2f", "/x"),
        ("x", "#", "/x"),
        ("x", " ", "/x"),
        ("x", "é", "/x"),
        ("x", "?a b", "/x"),
        ("x", "?a#b", "/x"),
        ("x", "%zz", "/x"),
    ] {
        assert_eq!(
            by_expression(pattern, substitution, asked),
            Err("path-rewrite"),
            "{pattern} {substitution} {asked}"
        );
    }
    let long = format!("/{}", "x".repeat(9000));
    assert_eq!(by_expression("x", "yy", &long), Err("path-rewrite"), "over the limit of a target");
    let star = Route {
        rewrite: Some(PathRewrite::Regex(RegexRewrite::new(regex::Regex::new(".").unwrap(), "x").unwrap())),
        ..route("x", "/")
    };
    assert_eq!(star.upstream_path("*", &PathConfig::default()), Ok(None));
}

#[test]
fn a_prefix_is_rewritten_by_plain_surgery_and_made_canonical_again() {
    let cases = [
        (prefix("/admin"), "/", "/admin/x", "/x"),
        (prefix("/admin"), "/", "/admin", "/"),
        (prefix("/"), "/a", "/foo", "/afoo"),
        (prefix("/"), "/a/", "/foo", "/a/foo"),
        (prefix("/v1/"), "/v2/", "/v1/x%20y", "/v2/x%20y"),
        (PathMatcher::Exact("/a".to_owned()), "/b", "/a", "/b"),
        (PathMatcher::regex("/n/.*").unwrap(), "/m", "/n/1", "/m"),
    ];
    for (matcher, with, asked, path) in cases {
        assert_eq!(rewritten(matcher, with, asked), Ok(Some(path.to_owned())), "{asked} with {with}");
    }
    assert_eq!(route("x", "/").upstream_path("/a", &PathConfig::default()), Ok(None));
}

#[test]
fn s_021_a_rewrite_never_makes_a_dot_segment() {
    let refused = |error: PathError| Err(Refusal::BadRequest(error.into()));
    assert_eq!(rewritten(prefix("/static"), "/", "/static../secret"), refused(PathError::AboveRoot));
    assert_eq!(rewritten(prefix("/static"), "/files/", "/static../secret"), refused(PathError::HiddenDots));
    assert_eq!(rewritten(prefix("/static"), "/", "/static./x"), refused(PathError::HiddenDots));
    assert_eq!(rewritten(prefix("/static"), "/", "/static..;a/x"), refused(PathError::HiddenDots));
    assert_eq!(rewritten(prefix("/static"), "/files", "/static../x"), Ok(Some("/files../x".to_owned())));
}

fn asked(target: &str, host: &str) -> Request {
    Request::read(&get(target, &[("host", host)]), &connection(), &crate::request::RequestRules::default()).unwrap()
}

#[test]
fn a_redirect_keeps_what_it_does_not_change() {
    let to = |change: &dyn Fn(&mut Redirect)| {
        let mut redirect = Redirect { status: StatusCode::MOVED_PERMANENTLY, ..Redirect::default() };
        change(&mut redirect);
        redirect
    };
    let route = Route { path: prefix("/old"), ..route("app.example.com", "/") };
    let cases: [(Redirect, &str, &str, &str); 12] = [
        (
            to(&|r| r.scheme = Some("https".into())),
            "/old/x?q=1",
            "app.example.com",
            "https://app.example.com/old/x?q=1",
        ),
        (to(&|r| r.scheme = Some("https".into())), "/old", "app.example.com:80", "https://app.example.com/old"),
        (to(&|r| r.scheme = Some("https".into())), "/old", "app.example.com:8080", "https://app.example.com:8080/old"),
        (
            to(&|r| r.host = Some("new.example.com:9".into())),
            "/old",
            "app.example.com:1",
            "http://new.example.com:9/old",
        ),
        (to(&|r| r.port = Some(8443)), "/old", "app.example.com:1", "http://app.example.com:8443/old"),
        (to(&|r| r.path = Some("/new".into())), "/old/x?q", "app.example.com", "http://app.example.com/new?q"),
        (to(&|r| r.prefix = Some("/new".into())), "/old/x", "app.example.com", "http://app.example.com/new/x"),
        (
            to(&|r| (r.path, r.prefix) = (Some("/p".into()), Some("/n".into()))),
            "/old/x",
            "app.example.com",
            "http://app.example.com/p",
        ),
        (to(&|r| r.strip_query = true), "/old?q=1", "app.example.com", "http://app.example.com/old"),
        (to(&|_| ()), "/old", "[::1]:99", "http://[::1]:99/old"),
        // S-041: a credential of ours is nothing to take along to somebody else.
        (
            to(&|r| r.host = Some("new.example.com".into())),
            "/old?a=1&pomerium%5fsession=x&b",
            "app.example.com",
            "http://new.example.com/old?a=1&b",
        ),
        (to(&|_| ()), "/old?pomerium_session=x", "app.example.com", "http://app.example.com/old"),
    ];
    for (redirect, target, host, location) in cases {
        assert_eq!(redirect.location(&route, &asked(target, host)), location);
    }
}

#[test]
fn the_rules_of_reading_are_strict_by_default() {
    assert_eq!(PathConfig::default().underscores, UnderscoreHeaders::Reject);
    assert_eq!(head("GET", "/", &[]).method, "GET");
}
