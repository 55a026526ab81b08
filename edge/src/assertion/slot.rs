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

/// The assertions of one session; rides in its cache entry and goes with it. Most sessions of a large cache have none.
#[derive(Debug, Default)]
pub struct AssertionSlot {
    places: OnceLock<Box<[ArcSwapOption<Assertion>]>>,
}

/// Room for a user of eight applications at once; more of them share.
const PLACES: usize = 8;

fn places(count: usize) -> Box<[ArcSwapOption<Assertion>]> {
    (0..count.max(1)).map(|_| ArcSwapOption::empty()).collect()
}

impl AssertionSlot {
    pub(crate) fn with_places(count: usize) -> Self {
        Self { places: places(count).into() }
    }

    /// The assertion for that purpose, if one is there and still fresh.
    pub(crate) fn find(&self, purpose: &Purpose<'_>, now: Timestamp) -> Option<Arc<Assertion>> {
        near(self.places.get()?, purpose).find_map(|place| {
            let held = place.load();
            let fits = held.as_ref().is_some_and(|held| held.is_for(purpose) && held.is_fresh(now));
            if fits { Guard::into_inner(held) } else { None }
        })
    }

    /// Keeps an assertion, in place of one that is not fresh any more, or else of the one at its own place.
    pub(crate) fn keep(&self, purpose: &Purpose<'_>, assertion: Arc<Assertion>, now: Timestamp) {
        let places = self.places.get_or_init(|| places(PLACES));
        let stale = |place: &&ArcSwapOption<Assertion>| {
            place.load().as_ref().is_none_or(|held| held.is_for(purpose) || !held.is_fresh(now))
        };
        if let Some(place) = near(places, purpose).find(stale).or_else(|| near(places, purpose).next()) {
            place.store(Some(assertion));
        }
    }
}

/// A purpose's own place and its neighbours, in order.
fn near<'p>(
    places: &'p [ArcSwapOption<Assertion>],
    purpose: &Purpose<'_>,
) -> impl Iterator<Item = &'p ArcSwapOption<Assertion>> + use<'p> {
    let own = fnv(purpose.host.as_bytes()) as usize % places.len();
    places.iter().cycle().skip(own).take(places.len().min(NEIGHBOURS))
}

/// Places that one purpose may look at.
const NEIGHBOURS: usize = 8;

/// FNV-1a: a collision costs a signature, nothing else.
fn fnv(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}
