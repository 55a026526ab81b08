//! The tables that endpoints are chosen from: made when endpoints change, only read by requests.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::route::LoadBalancing;

/// One entry of a table: the place of an endpoint in its list.
type At = u16;

/// What an endpoint is chosen from.
#[derive(Debug)]
pub(super) enum Table {
    /// Each as often as its weight says, well mixed. Turns are taken in it, or places are drawn.
    Turns(Box<[At]>),
    /// All of one weight.
    Even(usize),
    /// Points on a ring, and whose they are, in order.
    Ring(Box<[(u64, At)]>),
    /// Whose each place is.
    Maglev(Box<[At]>),
}

impl Table {
    /// One to choose nothing from.
    pub(super) const NONE: Self = Self::Even(0);

    /// That of a policy, for endpoints of these names and weights. There are at most [`MOST`].
    pub(super) fn of(policy: LoadBalancing, endpoints: &[(String, u32)]) -> Self {
        let weights: Vec<u32> = endpoints.iter().map(|(_, weight)| (*weight).max(1)).collect();
        let even = weights.windows(2).all(|pair| matches!(pair, [one, next] if one == next));
        match policy {
            LoadBalancing::RoundRobin | LoadBalancing::Random | LoadBalancing::LeastRequest if even => {
                Self::Even(weights.len())
            }
            LoadBalancing::RoundRobin | LoadBalancing::Random | LoadBalancing::LeastRequest => {
                Self::Turns(turns(&weights))
            }
            LoadBalancing::RingHash => Self::Ring(ring(endpoints, &weights)),
            LoadBalancing::Maglev => Self::Maglev(maglev(endpoints, &weights)),
        }
    }

    /// The endpoint at a turn, or at a hash: the `step`-th one that is tried. Whoever tries often enough meets each.
    pub(super) fn at(&self, turn: u64, step: usize) -> Option<usize> {
        let within = |length: usize, turn: u64| {
            let length = u64::try_from(length).ok()?;
            usize::try_from(turn.checked_rem(length)?).ok()
        };
        match self {
            Self::Even(length) => within(*length, turn.wrapping_add(step as u64)),
            Self::Turns(turns) => {
                turns.get(within(turns.len(), turn.wrapping_add(step as u64))?).copied().map(usize::from)
            }
            Self::Ring(points) => {
                let first = points.partition_point(|(point, _)| *point < turn);
                points.get(within(points.len(), (first + step) as u64)?).map(|(_, at)| usize::from(*at))
            }
            Self::Maglev(places) => {
                // Whose own is out is spread over all others, each of whom stays with one.
                let place = if step <= REDRAWN { (0..step).fold(turn, |hash, _| mixed(hash)) } else { turn };
                let further = step.saturating_sub(REDRAWN);
                places.get(within(places.len(), place.wrapping_add(further as u64))?).copied().map(usize::from)
            }
        }
    }

    /// After so many steps every endpoint has been met.
    pub(super) const fn steps(&self) -> usize {
        match self {
            Self::Even(length) => *length,
            Self::Turns(turns) => turns.len(),
            Self::Ring(points) => points.len(),
            Self::Maglev(places) => REDRAWN + places.len(),
        }
    }
}

/// So many endpoints of one route, names that are resolved to many included.
pub(super) const MOST: usize = 1024;
/// A schedule is no longer than that, but for one turn of each.
const SCHEDULE: u64 = 4096;
/// Points of each endpoint on a ring, at least; of one with a larger share there are more.
const POINTS: u64 = 160;
/// Points on a ring, at most.
const RING: u64 = 65_536;
/// So often another place is drawn in a maglev table before the next ones are taken.
const REDRAWN: usize = 16;
/// Sizes of maglev tables: primes, so that every step leads through the whole table.
const SIZES: [u64; 4] = [1_021, 4_093, 16_381, 65_537];
const LARGEST: u64 = 262_147;
/// Places of each endpoint in such a table, at least, so that shares are right within a hundredth.
const PLACES: u64 = 100;

/// Smooth turns: those of one endpoint lie as far apart as they can. Each one's standing grows by its weight with each turn; who
/// stands highest has the turn, and pays for it with the weight of all.
fn turns(weights: &[u32]) -> Box<[At]> {
    let divisor = weights.iter().fold(0, |divisor, weight| common(divisor, *weight)).max(1);
    let exact: u64 = weights.iter().map(|weight| u64::from(weight / divisor)).sum();
    let scaled = |weight: &u32| {
        let weight = u64::from(weight / divisor);
        let share = if exact <= SCHEDULE { weight } else { (weight * SCHEDULE / exact).max(1) };
        i64::try_from(share).unwrap_or(i64::MAX)
    };
    let shares: Vec<i64> = weights.iter().map(scaled).collect();
    let all: i64 = shares.iter().sum();
    let mut standing = vec![0_i64; shares.len()];
    let turn = |_| {
        standing.iter_mut().zip(&shares).for_each(|(standing, share)| *standing += share);
        let highest = standing.iter_mut().enumerate().rev().max_by_key(|(_, standing)| **standing);
        let (at, standing) = highest?;
        *standing -= all;
        At::try_from(at).ok()
    };
    (0..all).filter_map(turn).collect()
}

const fn common(mut one: u32, mut other: u32) -> u32 {
    while other != 0 {
        (one, other) = (other, one % other);
    }
    one
}

/// Points for each endpoint, as many as its share. A ring that loses one endpoint moves only who was with it.
fn ring(endpoints: &[(String, u32)], weights: &[u32]) -> Box<[(u64, At)]> {
    let least = u64::from(weights.iter().copied().min().unwrap_or(1));
    let all: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
    let each = (RING * least / all.max(1)).clamp(1, POINTS);
    let mut points: Vec<(u64, At)> = Vec::new();
    for (at, ((name, _), weight)) in endpoints.iter().zip(weights).enumerate() {
        let Ok(at) = At::try_from(at) else { break };
        let count = (each * u64::from(*weight) / least).clamp(1, RING);
        points.extend((0..count).map(|number| (hash_of(name, number), at)));
    }
    points.sort_unstable();
    points.into_boxed_slice()
}

/// Each endpoint goes through the places in an order of its own and takes the first that is free; by turns, heavier ones more
/// often, until all are taken.
fn maglev(endpoints: &[(String, u32)], weights: &[u32]) -> Box<[At]> {
    let wanted = PLACES * u64::try_from(endpoints.len()).unwrap_or(u64::MAX);
    let size = SIZES.into_iter().find(|size| *size >= wanted).unwrap_or(LARGEST);
    let mut orders: Vec<(u64, u64)> =
        endpoints.iter().map(|(name, _)| (hash_of(name, 0) % size, hash_of(name, 1) % (size - 1) + 1)).collect();
    let heaviest = u64::from(weights.iter().copied().max().unwrap_or(1));
    // In the first round each takes a place, however light it is.
    let mut credits: Vec<u64> = weights.iter().map(|weight| heaviest.saturating_sub((*weight).into())).collect();
    let mut places: Vec<Option<At>> = vec![None; usize::try_from(size).unwrap_or_default()];
    let mut free = places.len();
    while free > 0 && !orders.is_empty() {
        for (at, (next, skip)) in orders.iter_mut().enumerate() {
            let (Some(credit), Some(weight)) = (credits.get_mut(at), weights.get(at)) else { continue };
            *credit += u64::from(*weight);
            if *credit < heaviest || free == 0 {
                continue;
            }
            *credit -= heaviest;
            loop {
                let place = usize::try_from(*next).ok().and_then(|next| places.get_mut(next));
                *next = (*next + *skip) % size;
                if let Some(place @ None) = place {
                    *place = At::try_from(at).ok();
                    free -= 1;
                    break;
                }
            }
        }
    }
    places.into_iter().map(Option::unwrap_or_default).collect()
}

/// The same in every process, so that several edges choose alike.
fn hash_of(name: &str, number: u64) -> u64 {
    // FNV-1a, mixed well.
    let folded = name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    mixed(folded ^ mixed(number))
}

/// The hash of what somebody is known by, the same in every process.
pub(super) fn hash_of_bytes(bytes: &[u8]) -> u64 {
    let folded = bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3));
    mixed(folded)
}

/// Every bit of the outcome depends on every bit of what goes in (SplitMix64).
pub(super) const fn mixed(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// A draw: which one, that is counted. Nobody's security depends on it.
pub(super) fn draw(count: u64) -> u64 {
    static SEED: LazyLock<u64> = LazyLock::new(|| RandomState::new().hash_one(0_u64));
    mixed(count ^ *SEED)
}

/// A draw from 0 to the one below.
pub(super) fn drawn(below: u64) -> u64 {
    static DRAWS: AtomicU64 = AtomicU64::new(0);
    draw(DRAWS.fetch_add(1, Ordering::Relaxed)) % below.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(weights: &[u32]) -> Vec<(String, u32)> {
        weights.iter().enumerate().map(|(at, weight)| (format!("192.0.2.{at}:80"), *weight)).collect()
    }

    fn counted(table: &Table, turns: impl Iterator<Item = u64>, endpoints: usize) -> Vec<usize> {
        let mut counts = vec![0; endpoints];
        for turn in turns {
            counts[table.at(turn, 0).unwrap()] += 1;
        }
        counts
    }

    #[test]
    fn turns_are_as_the_weights_say_and_lie_apart() {
        let table = Table::of(LoadBalancing::RoundRobin, &named(&[50, 10, 10]));
        let order: Vec<_> = (0..7).map(|turn| table.at(turn, 0).unwrap()).collect();
        assert_eq!(order, [0, 0, 1, 0, 2, 0, 0]);
        assert_eq!(counted(&table, 0..700, 3), [500, 100, 100]);
        let huge = Table::of(LoadBalancing::RoundRobin, &named(&[u32::MAX, 1, 1_000_000_000]));
        assert!(huge.steps() <= 4097, "{}", huge.steps());
        let counts = counted(&huge, 0..huge.steps() as u64, 3);
        assert!(counts[1] == 1 && counts[0] > 3 * counts[2], "{counts:?}");
    }

    #[test]
    fn whoever_tries_often_enough_meets_each_endpoint() {
        for policy in [LoadBalancing::RoundRobin, LoadBalancing::Random, LoadBalancing::RingHash, LoadBalancing::Maglev]
        {
            for weights in [&[1, 1, 1, 1][..], &[9, 1, 30, 1]] {
                let table = Table::of(policy, &named(weights));
                let met: std::collections::BTreeSet<_> =
                    (0..table.steps()).filter_map(|step| table.at(77, step)).collect();
                assert_eq!(met.len(), 4, "{policy:?} {weights:?}");
            }
        }
        assert_eq!(Table::of(LoadBalancing::RoundRobin, &[]).at(3, 0), None);
        assert_eq!(Table::of(LoadBalancing::Maglev, &[]).at(3, 1), Some(0), "whose list is empty looks nothing up");
        assert_eq!(Table::of(LoadBalancing::RingHash, &[]).at(3, 1), None);
    }

    #[test]
    fn hashes_are_spread_as_the_weights_say() {
        for policy in [LoadBalancing::RingHash, LoadBalancing::Maglev] {
            for (weights, expected) in [(&[1, 1, 1, 1][..], [0.25; 4]), (&[70, 10, 10, 10], [0.7, 0.1, 0.1, 0.1])] {
                let table = Table::of(policy, &named(weights));
                let counts = counted(&table, (0..100_000).map(mixed), 4);
                for (count, expected) in counts.iter().zip(expected) {
                    let share = f64::from(u32::try_from(*count).unwrap()) / 100_000.0;
                    assert!((share - expected).abs() < expected * 0.25, "{policy:?} {weights:?} {counts:?}");
                }
            }
        }
    }

    #[test]
    fn the_lightest_endpoint_has_a_place_of_its_own() {
        for policy in [LoadBalancing::RingHash, LoadBalancing::Maglev] {
            let table = Table::of(policy, &named(&[1_000_000, 1, 1_000_000]));
            let met = (0..table.steps()).filter_map(|step| table.at(0, step)).any(|at| at == 1);
            assert!(met, "{policy:?}");
        }
    }

    #[test]
    fn who_leaves_moves_hardly_anybody_else() {
        for policy in [LoadBalancing::RingHash, LoadBalancing::Maglev] {
            let all = named(&[1; 10]);
            let (before, after) = (Table::of(policy, &all), Table::of(policy, &all[..9]));
            let moved = (0..10_000_u64).map(mixed).filter(|key| {
                let (was, is) = (before.at(*key, 0), after.at(*key, 0));
                was != Some(9) && was != is
            });
            let moved = moved.count();
            assert!(moved < 800, "{policy:?}: {moved} of 9000");
        }
    }
}
