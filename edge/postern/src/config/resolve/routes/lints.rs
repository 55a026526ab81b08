//! Routes that can be served and probably mean something else.

use std::collections::{BTreeMap, HashMap};

use postern_edge::route::{HostPattern, PathMatcher, Route, Target};
use url::Url;

use super::{Resolved, connections, place, to};
use crate::config::context::Context;
use crate::config::value::quoted;
use crate::config::{At, Code};

pub(super) fn all(cx: &mut Context<'_>, routes: &[Resolved]) {
    let mut before: HashMap<Hosts<'_>, Earlier<'_>> = HashMap::new();
    connections::hidden(cx, routes);
    for (index, one) in routes.iter().enumerate() {
        if one.route.tunnel.is_some() {
            wide_wildcard(cx, one);
            continue;
        }
        hidden(cx, one, &before);
        open_prefixes(cx, one, &before);
        before.entry(Hosts::of(&one.route.hosts)).or_default().add(index, one);
        wide_wildcard(cx, one);
        plain_identity(cx, one);
    }
}

/// A host set, to find routes of the same one. A host named with its port is a virtual host of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Hosts<'r> {
    wildcard: bool,
    name: &'r str,
    port: Option<u16>,
}

impl<'r> Hosts<'r> {
    const EVERY: Self = Self { wildcard: true, name: "*", port: None };

    fn of(hosts: &'r HostPattern) -> Self {
        match hosts {
            HostPattern::Exact { host, port } => Self { wildcard: false, name: host, port: *port },
            HostPattern::Wildcard { pattern, port, .. } => Self { wildcard: true, name: pattern, port: *port },
        }
    }
}

/// A route and its number.
type Numbered<'r> = (usize, &'r Resolved);

/// The routes of one host set so far, by their paths: no route is compared with all others.
#[derive(Default)]
struct Earlier<'r> {
    prefixes: BTreeMap<&'r str, Vec<Numbered<'r>>>,
    exact: HashMap<&'r str, Vec<Numbered<'r>>>,
    regexes: Vec<Numbered<'r>>,
    /// The same, by their text.
    same_regex: HashMap<&'r str, Vec<Numbered<'r>>>,
}

impl<'r> Earlier<'r> {
    fn add(&mut self, index: usize, one: &'r Resolved) {
        let numbered = (index, one);
        match &one.route.path {
            PathMatcher::Prefix(prefix) => self.prefixes.entry(prefix).or_default().push(numbered),
            PathMatcher::Exact(path) => self.exact.entry(path).or_default().push(numbered),
            PathMatcher::Regex(regex) => {
                self.regexes.push(numbered);
                self.same_regex.entry(regex.as_str()).or_default().push(numbered);
            }
        }
    }

    /// The first that takes every path of `one`, as far as that can be told.
    fn hiding(&self, one: &Resolved) -> Option<Numbered<'r>> {
        let first = |found: Option<&Vec<Numbered<'r>>>| {
            found.into_iter().flatten().copied().find(|(_, earlier)| !is_duplicate(earlier, one))
        };
        let by_prefix = |path: &str| {
            let ends = path.char_indices().map(|(end, _)| end).chain([path.len()]);
            ends.filter_map(|end| first(self.prefixes.get(path.get(..end)?))).min_by_key(|(index, _)| *index)
        };
        let found = match &one.route.path {
            PathMatcher::Prefix(prefix) => [by_prefix(prefix), None, None],
            PathMatcher::Exact(path) => {
                let matches = |(_, earlier): &&Numbered<'r>| {
                    matches!(&earlier.route.path, PathMatcher::Regex(regex) if regex.is_match(path))
                        && !is_duplicate(earlier, one)
                };
                [by_prefix(path), first(self.exact.get(path.as_str())), self.regexes.iter().find(matches).copied()]
            }
            PathMatcher::Regex(regex) => {
                [first(self.prefixes.get("/")), first(self.same_regex.get(regex.as_str())), None]
            }
        };
        found.into_iter().flatten().min_by_key(|(index, _)| *index)
    }

    /// Every prefix that also covers a longer name, with that name, which `one` takes too.
    fn open(&self, one: &Resolved) -> Vec<Numbered<'r>> {
        let open = |prefix: &&str| !prefix.ends_with('/');
        let named = |path: &str| path.strip_suffix('x').and_then(|prefix| self.prefixes.get_key_value(prefix));
        let found: Vec<_> = match &one.route.path {
            PathMatcher::Prefix(path) => {
                let longer = self.prefixes.range(path.as_str()..).take_while(|(prefix, _)| prefix.starts_with(path));
                longer.chain(named(path)).collect()
            }
            PathMatcher::Exact(path) => named(path).into_iter().collect(),
            PathMatcher::Regex(regex) => {
                self.prefixes.iter().filter(|(prefix, _)| regex.is_match(&format!("{prefix}x"))).collect()
            }
        };
        found.into_iter().filter(|(prefix, _)| open(prefix)).flat_map(|(_, routes)| routes).copied().collect()
    }
}

/// A route whose every request an earlier one takes: order decides, nothing else (01 §2.3). An exact host never falls back to
/// a wildcard.
fn hidden(cx: &mut Context<'_>, one: &Resolved, before: &HashMap<Hosts<'_>, Earlier<'_>>) {
    let own = Hosts::of(&one.route.hosts);
    let every = (own.wildcard && own != Hosts::EVERY).then_some(Hosts::EVERY);
    let earlier = every.into_iter().chain([own]).filter_map(|hosts| before.get(&hosts)?.hiding(one));
    if let Some((_, earlier)) = earlier.min_by_key(|(index, _)| *index) {
        let what = format!("no request reaches this route: {} takes them all", place(&earlier.at));
        cx.advise(Code::HiddenRoute, &one.at, what, "put this route before the other one, or remove it");
    }
}

/// Two routes that are refused as such.
fn is_duplicate(a: &Resolved, b: &Resolved) -> bool {
    a.identity == b.identity && matches!(a.route.target, Target::Upstream(_))
}

/// Earlier prefixes that also take longer names from this route, which lets other people pass (01 §2.4).
fn open_prefixes(cx: &mut Context<'_>, one: &Resolved, before: &HashMap<Hosts<'_>, Earlier<'_>>) {
    let Some(earlier) = before.get(&Hosts::of(&one.route.hosts)) else { return };
    for (_, earlier) in earlier.open(one) {
        let PathMatcher::Prefix(prefix) = &earlier.route.path else { continue };
        if one.route.policy != earlier.route.policy {
            let behind = place(&one.at);
            let what =
                format!("the prefix `{prefix}` also covers `{prefix}x`, and {behind} behind it has another policy");
            let hint = format!("write `prefix: {prefix}/`, and `path: {prefix}` on a second route");
            cx.advise(Code::OpenPrefix, &earlier.at, what, hint);
        }
    }
}

fn wide_wildcard(cx: &mut Context<'_>, one: &Resolved) {
    if let HostPattern::Wildcard { pattern, .. } = &one.route.hosts {
        let example = quoted(&pattern.replacen('*', "a.b", 1));
        let what = format!("{} also covers hosts with more labels, such as {example}", quoted(pattern));
        let hint = "write the hosts out if that is too much; a certificate's wildcard covers one label";
        cx.advise(Code::WideWildcard, &one.at, what, hint);
        if is_foreign(pattern) {
            let what =
                format!("{} also covers names of other people, and a session can be carried there", quoted(pattern));
            let hint = "end the pattern in a domain of your own, such as `*.example.com`";
            cx.advise(Code::WideWildcard, &one.at, what, hint);
        }
    }
}

/// Whether a pattern ends in less than a domain that somebody can own: whoever has a name under it can receive sign-ins.
fn is_foreign(pattern: &str) -> bool {
    let fixed = pattern.rsplit('*').next().unwrap_or_default();
    !fixed.strip_prefix('.').is_some_and(|domain| domain == "localhost" || domain.contains('.'))
}

fn plain_identity(cx: &mut Context<'_>, one: &Resolved) {
    let Target::Upstream(upstream) = &one.route.target else { return };
    let exposed = upstream.endpoints.iter().find(|endpoint| to::is_exposed(endpoint));
    if let (true, Some(endpoint)) = (one.route.pass_identity_headers, exposed) {
        let what = format!("who the user is goes to {} without encryption", quoted(&endpoint.authority));
        cx.advise(Code::PlainIdentity, &one.at, what, "write an https URL as `to`");
    }
}

/// Paths that only the host where people sign in answers itself, before any route (01 §4.6).
const SIGN_IN_PATHS: [&str; 3] = ["/", "/oauth2/callback", "/robots.txt"];

/// A route on the host where people sign in, which never gets what sign-in itself answers there.
pub(super) fn sign_in_host(cx: &mut Context<'_>, route: &Route, at: &At, url: &Url) {
    let HostPattern::Exact { host, port } = &route.hosts else { return };
    if route.tunnel.is_some() {
        return;
    }
    if url.host_str() != Some(host) || url.port().is_some_and(|own| *port != Some(own)) {
        return;
    }
    let lost: Vec<_> = SIGN_IN_PATHS.into_iter().filter(|path| route.path.matches(path)).map(quoted).collect();
    let hint = "give the route a host of its own";
    match (&route.path, lost.as_slice()) {
        (_, []) => {}
        (PathMatcher::Exact(_), [path, ..]) => {
            let what =
                format!("no request reaches this route: people sign in on this host, and {path} belongs to that");
            cx.advise(Code::SignInHost, at, what, hint);
        }
        (PathMatcher::Prefix(_) | PathMatcher::Regex(_), lost) => {
            let what = format!("people sign in on this host, and this route never gets {}", lost.join(", "));
            cx.advise(Code::SignInHost, at, what, hint);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::is_foreign;

    #[test]
    fn a_pattern_under_no_domain_of_ones_own_covers_other_people() {
        for foreign in ["*", "*.com", "app.*", "*example.com", "a.*.com", "*.*"] {
            assert!(is_foreign(foreign), "{foreign}");
        }
        for own in ["*.example.com", "*.a.example.com", "app-*.example.com", "*.localhost", "*.co.uk.example"] {
            assert!(!is_foreign(own), "{own}");
        }
    }
}
