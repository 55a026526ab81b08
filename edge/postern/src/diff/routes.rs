//! Which routes were added, removed or changed.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use postern_edge::route::{Balancing, Route, Target, Upstream, UpstreamEndpoint};

use super::Side;
use crate::ask;

/// How a route is another one than before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum RouteChange {
    Added(usize),
    Removed(usize),
    /// Which of both sides, and what of it: words of [`WHAT`].
    Changed(usize, usize, Vec<&'static str>),
}

/// What of a route can change.
pub(super) const WHAT: [&str; 6] = ["matcher", "target", "policy", "identity provider", "name", "settings"];

/// Which route of one side is which of the other.
#[derive(Debug)]
pub(super) struct Pairs(Vec<(usize, usize)>);

impl Pairs {
    /// Routes for the same requests; of what is left, those of one name, and those that lead to the same place for the same people.
    pub(super) fn of(old: &Side<'_>, new: &Side<'_>) -> Self {
        let mut pairs = Self(Vec::new());
        pairs.by(old, new, ask::matcher);
        pairs.by(old, new, |route| route.name.clone());
        pairs.by(old, new, |route| format!("{:?} {:?}", route.target, signature(route)));
        pairs
    }

    fn by(&mut self, old: &Side<'_>, new: &Side<'_>, key: impl Fn(&Route) -> String) {
        let mut left: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        let taken: std::collections::HashSet<_> = self.0.iter().map(|(_, new)| *new).collect();
        for (at, route) in new.routes().enumerate().filter(|(at, _)| !taken.contains(at)) {
            left.entry(key(route)).or_default().push(at);
        }
        left.values_mut().for_each(|same| same.reverse());
        let taken: std::collections::HashSet<_> = self.0.iter().map(|(old, _)| *old).collect();
        for (at, route) in old.routes().enumerate().filter(|(at, _)| !taken.contains(at)) {
            if let Some(other) = left.get_mut(&key(route)).and_then(Vec::pop) {
                self.0.push((at, other));
            }
        }
    }

    pub(super) fn are(&self, old: usize, new: usize) -> bool {
        self.0.contains(&(old, new))
    }

    /// Every change, those of the new order first.
    pub(super) fn changes(&self, old: &Side<'_>, new: &Side<'_>) -> Vec<RouteChange> {
        let by_new: BTreeMap<_, _> = self.0.iter().map(|(old, new)| (*new, *old)).collect();
        let by_old: BTreeMap<_, _> = self.0.iter().copied().collect();
        let now = new.routes().enumerate().filter_map(|(at, route)| match by_new.get(&at) {
            None => Some(RouteChange::Added(at)),
            Some(before) => {
                let what = differences(old.route(*before)?, route);
                (!what.is_empty()).then_some(RouteChange::Changed(*before, at, what))
            }
        });
        let gone = (0..old.routes().count()).filter(|at| !by_old.contains_key(at)).map(RouteChange::Removed);
        now.chain(gone).collect()
    }
}

/// The words of what differs.
fn differences(old: &Route, new: &Route) -> Vec<&'static str> {
    let differs = [
        ask::matcher(old) != ask::matcher(new),
        leads_elsewhere(old, new),
        old.policy != new.policy,
        old.idp != new.idp,
        old.name != new.name,
        settings_differ(old, new),
    ];
    WHAT.into_iter().zip(differs).filter_map(|(word, differs)| differs.then_some(word)).collect()
}

/// Whether both lead to different places. Who gets how many requests of several is a setting.
pub(super) fn leads_elsewhere(old: &Route, new: &Route) -> bool {
    let place = |route: &Route| match &route.target {
        Target::Upstream(upstream) => format!("{:?} {:?}", places(upstream), upstream.tls),
        target @ (Target::Redirect(_) | Target::Response { .. }) => format!("{target:?}"),
    };
    place(old) != place(new)
}

fn places(upstream: &Upstream) -> Vec<UpstreamEndpoint> {
    upstream.endpoints.iter().map(|endpoint| UpstreamEndpoint { weight: 1, ..endpoint.clone() }).collect()
}

/// How one of several is chosen, and how they are looked after.
fn balancing(route: &Route) -> Option<(Vec<u32>, &Balancing)> {
    let Target::Upstream(upstream) = &route.target else { return None };
    static USUAL: LazyLock<Balancing> = LazyLock::new(Balancing::default);
    let weights = upstream.endpoints.iter().map(|endpoint| endpoint.weight).collect();
    Some((weights, upstream.balancing.as_deref().unwrap_or(&USUAL)))
}

fn settings_differ(old: &Route, new: &Route) -> bool {
    let plain = |route: &Route| {
        format!(
            "{:?}",
            (
                route.tunnel.as_ref().map(|tunnel| &tunnel.proxy),
                (
                    &route.rewrite,
                    &route.pass_identity_headers,
                    (&route.issuer_format, &route.groups_filter),
                    &route.timeout
                ),
                (
                    (&route.idle_timeout, &route.upgrades),
                    &route.show_error_details,
                    &route.response_rewrites,
                    &route.depends_on
                ),
            )
        )
    };
    let fields =
        |route: &Route| (route.host_rewrite.clone(), route.request_headers.clone(), route.response_headers.clone());
    plain(old) != plain(new)
        || fields(old) != fields(new)
        || old.credentials != new.credentials
        || balancing(old) != balancing(new)
}

fn signature(route: &Route) -> &postern_policy::Policy {
    &route.policy
}
