//! The hosts that are named exactly, and the routes of each. A name is kept once, with the route that has it.

use std::hash::BuildHasher as _;
use std::sync::Arc;

use hashbrown::{DefaultHashBuilder, HashTable};

use super::paths::Paths;
use super::tree::Order;
use super::{HostPattern, Route, route};

/// A host, and the port that it insists on.
pub(super) type Name<'n> = (&'n str, Option<u16>);

/// Routes by the host that they name.
#[derive(Debug)]
pub(super) struct Named {
    /// Of hosts that have routes: its first route knows the name.
    hosts: HashTable<Paths>,
    hasher: DefaultHashBuilder,
    /// Hosts of ours without routes; few.
    bare: Vec<(Box<str>, Option<u16>)>,
    /// The routes of those: none.
    none: Paths,
}

impl Named {
    /// The orders of the routes of each host, which ascend.
    pub(super) fn new<'n>(all: &[Arc<Route>], hosts: impl ExactSizeIterator<Item = (Name<'n>, Vec<Order>)>) -> Self {
        let hasher = DefaultHashBuilder::default();
        let mut table = HashTable::with_capacity(hosts.len());
        let mut bare = Vec::new();
        for (name, orders) in hosts {
            if orders.is_empty() {
                bare.push((name.0.into(), name.1));
            } else {
                // The names are different, and there is room for all: nothing is hashed again.
                table.insert_unique(hasher.hash_one(name), Paths::new(all, orders), |_| 0);
            }
        }
        Self { hosts: table, hasher, bare, none: Paths::new(all, Vec::new()) }
    }

    /// The routes of that host.
    #[inline]
    pub(super) fn get(&self, all: &[Arc<Route>], name: Name<'_>) -> Option<&Paths> {
        let is = |paths: &Paths| name_of(all, paths) == Some(name);
        let bare = || self.bare.iter().any(|(host, port)| (&**host, *port) == name).then_some(&self.none);
        self.hosts.find(self.hasher.hash_one(name), is).or_else(bare)
    }

    /// Every host with its routes.
    pub(super) fn iter<'t>(&'t self, all: &'t [Arc<Route>]) -> impl Iterator<Item = (Name<'t>, &'t Paths)> {
        let bare = self.bare.iter().map(|(host, port)| ((&**host, *port), &self.none));
        self.hosts.iter().filter_map(|paths| Some((name_of(all, paths)?, paths))).chain(bare)
    }
}

fn name_of<'r>(all: &'r [Arc<Route>], paths: &Paths) -> Option<Name<'r>> {
    match &route(all, paths.first()?)?.hosts {
        HostPattern::Exact { host, port } => Some((host, *port)),
        HostPattern::Wildcard { .. } => None,
    }
}
