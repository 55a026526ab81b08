//! The routes of one virtual host, found by path: the first of the file that matches (01 §2.3, §2.4).

use std::collections::BTreeMap;
use std::sync::Arc;

use super::regexes::{PathRegex, Regexes};
use super::tree::{NEVER, Order, Tree};
use super::{PathMatcher, Route, route};

/// Which routes there are, by their order in the file.
#[derive(Debug)]
pub(super) enum Paths {
    /// One for every path, as most hosts have it: nothing else has to be looked at.
    Whole(Order),
    /// Those that are quickly tried one by one.
    Few(Box<[Order]>),
    /// More than that, and an index of them.
    Many(Box<(Box<[Order]>, Tree<Slot>)>),
}

/// Up to so many are tried one by one.
const FEW: usize = 8;

/// What is to be considered once a path was read to here.
#[derive(Debug)]
pub(super) struct Slot {
    /// The first route with this prefix.
    prefix: Order,
    /// The first route with exactly this path.
    exact: Order,
    /// The routes whose expression matches nothing but what begins like this.
    regexes: Regexes,
}

impl Slot {
    fn least(&self) -> Order {
        self.prefix.min(self.exact).min(self.regexes.least())
    }
}

impl Paths {
    /// Of the routes of `all` at `orders`, which ascend.
    pub(super) fn new(all: &[Arc<Route>], orders: Vec<Order>) -> Self {
        let whole = |order: Order| route(all, order).is_some_and(|route| is_whole(&route.path));
        match orders.as_slice() {
            [only] if whole(*only) => Self::Whole(*only),
            few if few.len() <= FEW => Self::Few(orders.into()),
            _ => {
                let index = index(all, &orders);
                Self::Many(Box::new((orders.into(), index)))
            }
        }
    }

    pub(super) fn orders(&self) -> &[Order] {
        match self {
            Self::Whole(only) => std::slice::from_ref(only),
            Self::Few(orders) => orders,
            Self::Many(many) => &many.0,
        }
    }

    /// The order of the first route.
    pub(super) fn first(&self) -> Option<Order> {
        self.orders().first().copied()
    }

    /// The first route that has this path, if it comes before `bound`.
    pub(super) fn find(&self, all: &[Arc<Route>], path: &str, bound: Order) -> Option<Order> {
        match self {
            Self::Whole(only) => (path.starts_with('/') && *only < bound).then_some(*only),
            Self::Few(orders) => {
                let matches = |order: &Order| route(all, *order).is_some_and(|route| route.path.matches(path));
                orders.iter().copied().take_while(|order| *order < bound).find(matches)
            }
            Self::Many(many) => find(&many.1, path, bound),
        }
    }
}

fn is_whole(path: &PathMatcher) -> bool {
    matches!(path, PathMatcher::Prefix(prefix) if prefix == "/")
}

fn find(index: &Tree<Slot>, path: &str, bound: Order) -> Option<Order> {
    let (mut best, mut regexes) = (bound, false);
    index.walk(path.bytes(), bound, |slot, length| {
        best = best.min(slot.prefix);
        if length == path.len() {
            best = best.min(slot.exact);
        }
        regexes |= slot.regexes.least() < best;
        best
    });
    if regexes {
        // Only those that come before what was found already can still win.
        index.walk(path.bytes(), best, |slot, _| {
            best = slot.regexes.find(path, best).unwrap_or(best);
            best
        });
    }
    (best < bound).then_some(best)
}

fn index(all: &[Arc<Route>], orders: &[Order]) -> Tree<Slot> {
    #[derive(Default)]
    struct Entry {
        prefix: Option<Order>,
        exact: Option<Order>,
        regexes: Vec<(Order, PathRegex)>,
    }
    let mut entries: BTreeMap<Vec<u8>, Entry> = BTreeMap::new();
    for (order, route) in orders.iter().filter_map(|order| Some((*order, route(all, *order)?))) {
        match &route.path {
            PathMatcher::Prefix(text) => {
                entries.entry(text.clone().into_bytes()).or_default().prefix.get_or_insert(order);
            }
            PathMatcher::Exact(text) => {
                entries.entry(text.clone().into_bytes()).or_default().exact.get_or_insert(order);
            }
            PathMatcher::Regex(regex) => {
                entries.entry(regex.literal_prefix()).or_default().regexes.push((order, regex.clone()));
            }
        }
    }
    let slot = |entry: Entry| Slot {
        prefix: entry.prefix.unwrap_or(NEVER),
        exact: entry.exact.unwrap_or(NEVER),
        regexes: Regexes::new(&entry.regexes),
    };
    let slots = entries.into_iter().map(|(key, entry)| (key, slot(entry))).collect();
    Tree::new(slots, Slot::least)
}
