//! Routes that can be served and probably mean something else.

use std::collections::HashMap;

use postern_edge::route::{HostPattern, PathMatcher, Target};

use super::{Resolved, covers, place, same_hosts, to};
use crate::config::Code;
use crate::config::context::Context;
use crate::config::value::quoted;

/// The routes of each host name or pattern, in order.
type ByHost<'r> = HashMap<&'r str, Vec<&'r Resolved>>;

pub(super) fn all(cx: &mut Context<'_>, routes: &[Resolved]) {
    let mut before = ByHost::new();
    for one in routes {
        hidden(cx, one, &before);
        open_prefixes(cx, one, &before);
        before.entry(name(&one.route.hosts)).or_default().push(one);
        wide_wildcard(cx, one);
        plain_identity(cx, one);
    }
}

fn name(hosts: &HostPattern) -> &str {
    match hosts {
        HostPattern::Exact { host, .. } => host,
        HostPattern::Wildcard { pattern, .. } => pattern,
    }
}

/// A route whose every request an earlier one takes: order decides, nothing else (01 §2.3).
fn hidden(cx: &mut Context<'_>, one: &Resolved, before: &ByHost<'_>) {
    let everywhere = matches!(one.route.hosts, HostPattern::Wildcard { .. }).then_some("*");
    let names = everywhere.into_iter().chain([name(&one.route.hosts)]);
    let mut earlier = names.filter_map(|name| before.get(name)).flatten();
    let hides = |earlier: &&&Resolved| {
        takes_hosts(&earlier.route.hosts, &one.route.hosts)
            && covers(&earlier.route.path, &one.route.path)
            && !is_duplicate(earlier, one)
    };
    if let Some(earlier) = earlier.find(hides) {
        let what = format!("no request reaches this route: {} takes them all", place(&earlier.at));
        cx.advise(Code::HiddenRoute, &one.at, what, "put this route before the other one, or remove it");
    }
}

/// Two routes that are refused as such.
fn is_duplicate(a: &Resolved, b: &Resolved) -> bool {
    a.identity == b.identity && matches!(a.route.target, Target::Upstream(_))
}

/// Whether a route of `outer` hosts is asked for every host of `inner`: a host named with its port is a virtual host of its
/// own, and an exact host never falls back to a wildcard.
fn takes_hosts(outer: &HostPattern, inner: &HostPattern) -> bool {
    match (outer, inner) {
        (HostPattern::Wildcard { pattern, port: None, .. }, HostPattern::Wildcard { .. }) if pattern == "*" => true,
        _ => same_hosts(outer, inner),
    }
}

/// Earlier prefixes that also take longer names from this route, which lets other people pass (01 §2.4).
fn open_prefixes(cx: &mut Context<'_>, one: &Resolved, before: &ByHost<'_>) {
    for earlier in before.get(name(&one.route.hosts)).into_iter().flatten() {
        let PathMatcher::Prefix(prefix) = &earlier.route.path else { continue };
        let longer = PathMatcher::Exact(format!("{prefix}x"));
        let takes = !prefix.ends_with('/')
            && same_hosts(&earlier.route.hosts, &one.route.hosts)
            && covers(&one.route.path, &longer);
        if takes && one.route.policy != earlier.route.policy {
            let (prefix, behind) = (prefix.as_str(), place(&one.at));
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
