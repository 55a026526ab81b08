//! Where a signed assertion waits for the next request of the same session and host. Lock-free, and of fixed size.

use std::sync::{Arc, OnceLock};

use arc_swap::{ArcSwapOption, Guard};
use postern_identity::Timestamp;

use crate::assertion::Assertion;
use crate::{GroupsFilter, JwtIssuerFormat};

/// What an assertion was made for; another of these needs another assertion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Purpose<'a> {
    /// The host of the request: its audience (S-043).
    pub(crate) host: &'a str,
    /// How the issuer is written.
    pub(crate) issuer: JwtIssuerFormat,
    /// The groups that it may name.
    pub(crate) groups: Option<&'a GroupsFilter>,
    /// The state of the session's claims.
    pub(crate) generation: u64,
    /// The configuration: keys and claim headers.
    pub(crate) version: u64,
}

type Place = ArcSwapOption<Assertion>;

/// The assertions of one session; rides in its cache entry and goes with it. Most people use one application at a time, so the
/// pointer to the first assertion is a part of the entry itself: each allocation more is a wait for memory.
#[derive(Debug, Default)]
pub struct AssertionSlot {
    first: Place,
    /// The others, once there are any.
    more: OnceLock<Box<[Place; MORE]>>,
}

/// With the first, room for a user of nine applications at once; more of them share.
const MORE: usize = 8;

impl AssertionSlot {
    /// Asks for the first assertion before it is looked for.
    pub(crate) fn prefetch(&self) {
        self.first.load().iter().for_each(|first| first.prefetch());
    }

    /// The assertion for that purpose, if one is there and still fresh.
    pub(crate) fn find(&self, purpose: &Purpose<'_>, now: Timestamp) -> Option<Arc<Assertion>> {
        let held = |place: &Place| {
            let held = place.load();
            let fits = held.as_ref().is_some_and(|held| held.is_for(purpose) && held.is_fresh(now));
            if fits { Guard::into_inner(held) } else { None }
        };
        held(&self.first).or_else(|| near(self.more.get()?, purpose.host).find_map(held))
    }

    /// Keeps an assertion, in place of one that is of no use any more, or else of the one at its own place among the others.
    pub(crate) fn keep(&self, purpose: &Purpose<'_>, assertion: Arc<Assertion>, now: Timestamp) {
        let is_free = |place: &&Place| {
            let is_useless =
                |held: &Assertion| held.is_for(purpose) || !held.is_fresh(now) || held.version < purpose.version;
            place.load().as_deref().is_none_or(is_useless)
        };
        let others = || near(self.more.get_or_init(Box::default), purpose.host);
        let first = Some(&self.first).filter(is_free);
        if let Some(place) = first.or_else(|| others().find(is_free)).or_else(|| others().next()) {
            place.store(Some(assertion));
        }
    }
}

/// A host's own place and its neighbours, in order.
fn near<'p>(places: &'p [Place; MORE], host: &str) -> impl Iterator<Item = &'p Place> + use<'p> {
    places.iter().cycle().skip(fnv(host) as usize % MORE).take(MORE)
}

/// The assertions of nobody, a slot for several hosts.
#[derive(Debug, Default)]
pub(crate) struct AnonymousSlots([AssertionSlot; ANONYMOUS]);

const ANONYMOUS: usize = 32;

impl AnonymousSlots {
    /// The slot of that host.
    pub(crate) fn of(&self, host: &str) -> &AssertionSlot {
        let Self(slots @ [first, ..]) = self;
        slots.get(fnv(host) as usize % slots.len()).unwrap_or(first)
    }
}

/// FNV-1a: a collision costs a signature, nothing else.
fn fnv(host: &str) -> u32 {
    host.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}
