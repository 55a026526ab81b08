//! Routes that can be served and probably mean something else.

use postern_edge::route::{HostPattern, PathMatcher, Target};

use super::{Resolved, covers, place, same_hosts, to};
use crate::config::Code;
use crate::config::context::Context;
use crate::config::value::quoted;

pub(super) fn all(cx: &mut Context<'_>, routes: &[Resolved]) {
    for (index, one) in routes.iter().enumerate() {
        let before = routes.get(..index).unwrap_or_default();
        let behind = routes.get(index + 1..).unwrap_or_default();
        hidden(cx, one, before);
        open_prefix(cx, one, behind);
        wide_wildcard(cx, one);
        plain_identity(cx, one);
    }
}

/// A route whose every request an earlier one takes: order decides, nothing else (01 §2.3).
fn hidden(cx: &mut Context<'_>, one: &Resolved, before: &[Resolved]) {
    let hides = |earlier: &&Resolved| {
        takes_hosts(&earlier.route.hosts, &one.route.hosts)
            && covers(&earlier.route.path, &one.route.path)
            && !is_duplicate(earlier, one)
    };
    if let Some(earlier) = before.iter().find(hides) {
        let what = format!("no request reaches this route: {} takes them all", place(&earlier.at));
        cx.advise(Code::HiddenRoute, &one.at, what, "put this route before the other one, or remove it");
    }
}

/// Two routes that `refuse_duplicates` names already.
fn is_duplicate(a: &Resolved, b: &Resolved) -> bool {
    a.identity == b.identity && matches!(a.route.target, Target::Upstream(_))
}

/// Whether a route of `outer` hosts is asked for every host of `inner`; an exact host never falls back to a wildcard.
fn takes_hosts(outer: &HostPattern, inner: &HostPattern) -> bool {
    match (outer, inner) {
        (HostPattern::Exact { host: a, port: None }, HostPattern::Exact { host: b, .. }) => a == b,
        (HostPattern::Wildcard { pattern, port: None, .. }, HostPattern::Wildcard { .. }) if pattern == "*" => true,
        _ => same_hosts(outer, inner),
    }
}

/// A prefix that also takes longer names from a route behind it that lets other people pass (01 §2.4).
fn open_prefix(cx: &mut Context<'_>, one: &Resolved, behind: &[Resolved]) {
    let PathMatcher::Prefix(prefix) = &one.route.path else { return };
    if prefix.ends_with('/') {
        return;
    }
    let longer = PathMatcher::Exact(format!("{prefix}x"));
    let next = behind
        .iter()
        .find(|other| same_hosts(&one.route.hosts, &other.route.hosts) && covers(&other.route.path, &longer));
    let Some(next) = next else { return };
    if format!("{:?}", next.route.policy) != format!("{:?}", one.route.policy) {
        let what = format!(
            "the prefix {} also covers `{prefix}x`, and {} behind it has another policy",
            quoted(prefix),
            place(&next.at)
        );
        cx.advise(
            Code::OpenPrefix,
            &one.at,
            what,
            format!("write `prefix: {prefix}/`, and `path: {prefix}` on a second route"),
        );
    }
}

fn wide_wildcard(cx: &mut Context<'_>, one: &Resolved) {
    if let HostPattern::Wildcard { pattern, .. } = &one.route.hosts {
        let what = format!(
            "{} also covers hosts with more labels, such as {}",
            quoted(pattern),
            quoted(&pattern.replacen('*', "a.b", 1))
        );
        cx.advise(
            Code::WideWildcard,
            &one.at,
            what,
            "write the hosts out if that is too much; a certificate's wildcard covers one label",
        );
    }
}

fn plain_identity(cx: &mut Context<'_>, one: &Resolved) {
    let Target::Upstream(upstream) = &one.route.target else { return };
    let exposed = upstream.endpoints.iter().find(|endpoint| to::is_exposed(endpoint));
    if let (true, Some(endpoint)) = (one.route.pass_identity_headers, exposed) {
        let what = format!("who the user is goes to {} without encryption", quoted(&endpoint.authority));
        cx.advise(Code::PlainIdentity, &one.at, what, "write an https URL as `to`");
    }
}
