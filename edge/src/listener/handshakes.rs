//! Who is in a handshake. Where there is no room left, whoever has been in it longest makes way: an honest client is done in
//! milliseconds, so it is one that only sits there. If one network has a good part of all the room it is its own oldest one, so
//! that somebody who opens ever more does not put out those whose lines are slow; and if a site has half of it, the oldest of
//! that network of the site which has most.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use tokio::sync::oneshot;
use tokio::time::timeout;

use super::ConnectionLimits;
use super::address::{network, site};

/// All handshakes under way, up to the bound in force.
#[derive(Debug, Default)]
pub(crate) struct Handshakes {
    queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    next: u64,
    total: usize,
    networks: HashMap<IpAddr, Waiting>,
    /// How many each site has; whoever has one has 65 536 networks.
    sites: HashMap<IpAddr, usize>,
    /// Of each network, how many and the oldest of them. The last one has most.
    ranks: BTreeSet<(usize, Reverse<u64>, IpAddr)>,
    /// All of them, oldest first.
    ages: BTreeMap<u64, IpAddr>,
}

/// A network has a good part of the room from an eighth of it on.
const PART: usize = 8;

/// Those of one network, oldest first. A sender that is dropped tells its handshake to make way.
type Waiting = BTreeMap<u64, oneshot::Sender<()>>;

/// Why a handshake did not come to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Interrupted {
    /// It took too long.
    Late,
    /// Another one wanted its place.
    Displaced,
}

impl Handshakes {
    /// What `work` gives for a client at `address`, within the time and beside as many others as the limits say.
    pub(crate) async fn run<T>(
        &self,
        limits: &ConnectionLimits,
        address: IpAddr,
        work: impl Future<Output = T>,
    ) -> Result<T, Interrupted> {
        let (place, displaced) = self.enter(limits.handshakes, network(address));
        let outcome = tokio::select! {
            biased;
            done = timeout(limits.handshake_time, work) => done.map_err(|_| Interrupted::Late),
            _ = displaced => Err(Interrupted::Displaced),
        };
        drop(place);
        outcome
    }

    fn enter(&self, most: usize, network: IpAddr) -> (Place<'_>, oneshot::Receiver<()>) {
        let (sender, displaced) = oneshot::channel();
        let id = self.with(|queue| {
            queue.next += 1;
            let id = queue.next;
            queue.of(network, |waiting| waiting.insert(id, sender));
            queue.ages.insert(id, network);
            // A reload may have left more than there may be.
            while queue.total > most.max(1) {
                queue.displace(most);
            }
            id
        });
        (Place { of: self, network, id }, displaced)
    }

    fn with<T>(&self, act: impl FnOnce(&mut Queue) -> T) -> T {
        act(&mut self.queue.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Queue {
    fn displace(&mut self, most: usize) {
        let crowd =
            self.ranks.last().filter(|(many, ..)| *many >= (most / PART).max(2)).map(|(_, _, network)| *network);
        let crowd = crowd.or_else(|| self.of_a_crowded_site(most));
        let Some(network) = crowd.or_else(|| self.ages.first_key_value().map(|(_, network)| *network)) else { return };
        if let Some((id, _)) = self.of(network, BTreeMap::pop_first) {
            self.ages.remove(&id);
        }
    }

    /// The network that has most of a site with half of the room.
    fn of_a_crowded_site(&self, most: usize) -> Option<IpAddr> {
        let (crowded, _) = self.sites.iter().find(|(_, many)| **many > (most / 2).max(1))?;
        self.ranks.iter().rev().map(|(_, _, network)| *network).find(|network| site(*network) == *crowded)
    }

    /// Changes those of a network, and what is counted of them.
    fn of<T>(&mut self, network: IpAddr, change: impl FnOnce(&mut Waiting) -> T) -> T {
        let rank =
            |waiting: &Waiting| waiting.first_key_value().map(|(oldest, _)| (waiting.len(), Reverse(*oldest), network));
        let waiting = self.networks.entry(network).or_default();
        let before = waiting.len();
        self.total -= before;
        rank(waiting).map(|rank| self.ranks.remove(&rank));
        let changed = change(waiting);
        let after = waiting.len();
        self.total += after;
        match rank(waiting) {
            Some(rank) => drop(self.ranks.insert(rank)),
            None => drop(self.networks.remove(&network)),
        }
        let of_site = self.sites.entry(site(network)).or_default();
        *of_site = (*of_site + after).saturating_sub(before);
        if *of_site == 0 {
            self.sites.remove(&site(network));
        }
        changed
    }
}

/// A place among them, given back on drop.
struct Place<'h> {
    of: &'h Handshakes,
    network: IpAddr,
    id: u64,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.of.with(|queue| {
            queue.of(self.network, |waiting| waiting.remove(&self.id));
            queue.ages.remove(&self.id);
        });
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use std::time::Duration;

    use super::*;

    fn limits(handshakes: usize) -> ConnectionLimits {
        ConnectionLimits { handshakes, handshake_time: Duration::from_secs(10), ..ConnectionLimits::default() }
    }

    fn of(address: &str) -> IpAddr {
        address.parse().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn r_001_the_handshake_that_takes_longest_makes_way_for_another() {
        let (handshakes, limits) = (Handshakes::default(), limits(2));
        let first = handshakes.run(&limits, of("192.0.2.1"), pending::<()>());
        let second = handshakes.run(&limits, of("192.0.2.2"), pending::<()>());
        let others = async {
            tokio::task::yield_now().await;
            handshakes.run(&limits, of("192.0.2.3"), ready(3)).await
        };
        let (first, second, third) = tokio::join!(first, second, others);
        assert_eq!((first, third), (Err(Interrupted::Displaced), Ok(3)));
        assert_eq!(second, Err(Interrupted::Late));
    }

    #[tokio::test(start_paused = true)]
    async fn r_001_a_network_that_opens_ever_more_puts_out_its_own() {
        let (handshakes, limits) = (Handshakes::default(), limits(4));
        let slow = handshakes.run(&limits, of("192.0.2.1"), pending::<()>());
        let slow_too = handshakes.run(&limits, of("2001:db8::1"), pending::<()>());
        let flood = futures_util::future::join_all((1..=100).map(|host| {
            let address = IpAddr::from([0x2001, 0xdb8, 0, 1, 0, 0, 0, host]);
            handshakes.run(&limits, address, pending::<()>())
        }));
        let late = async {
            tokio::task::yield_now().await;
            handshakes.run(&limits, of("192.0.2.9"), ready(1)).await
        };
        let (slow, slow_too, flood, late) = tokio::join!(slow, slow_too, flood, late);
        assert_eq!((slow, slow_too, late), (Err(Interrupted::Late), Err(Interrupted::Late), Ok(1)));
        let displaced = flood.iter().filter(|ended| **ended == Err(Interrupted::Displaced)).count();
        assert_eq!(displaced, 99, "98 for its own, one for another");
    }

    #[tokio::test(start_paused = true)]
    async fn r_001_a_site_with_ever_more_networks_puts_out_its_own_and_first_of_the_network_with_most() {
        let (handshakes, limits) = (Handshakes::default(), limits(64));
        let run = |address: [u16; 8]| handshakes.run(&limits, address.into(), pending::<()>());
        let slow = run([0x2001, 0xdb8, 2, 0, 0, 0, 0, 1]);
        let neighbour = run([0x2001, 0xdb8, 1, 0, 0, 0, 0, 1]);
        let two = futures_util::future::join_all([1, 2].map(|host| run([0x2001, 0xdb8, 1, 1, 0, 0, 0, host])));
        let many = futures_util::future::join_all((2..64).map(|network| run([0x2001, 0xdb8, 1, network, 0, 0, 0, 1])));
        let (slow, neighbour, two, many) = tokio::join!(slow, neighbour, two, many);
        assert_eq!(slow, Err(Interrupted::Late), "it is the oldest of all");
        assert_eq!(two, [Err(Interrupted::Displaced), Err(Interrupted::Late)], "of two it is the older one");
        assert_eq!(neighbour, Err(Interrupted::Displaced), "where each has one, the oldest");
        assert!(many.iter().all(|ended| *ended == Err(Interrupted::Late)));
    }

    #[tokio::test(start_paused = true)]
    async fn r_001_an_office_is_not_put_out_by_a_client_of_many_networks() {
        let (handshakes, limits) = (Handshakes::default(), limits(64));
        let many = futures_util::future::join_all((0..62).map(|network| {
            handshakes.run(&limits, IpAddr::from([0x2001, 0xdb8, network, 0, 0, 0, 0, 1]), pending::<()>())
        }));
        let office = async {
            tokio::task::yield_now().await;
            let two = handshakes.run(&limits, of("192.0.2.1"), pending::<()>());
            tokio::join!(two, handshakes.run(&limits, of("192.0.2.1"), pending::<()>()))
        };
        let more = async {
            tokio::task::yield_now().await;
            tokio::task::yield_now().await;
            let more = (62..90).map(|network| IpAddr::from([0x2001, 0xdb8, network, 0, 0, 0, 0, 1]));
            futures_util::future::join_all(more.map(|one| handshakes.run(&limits, one, pending::<()>()))).await
        };
        let (many, office, _) = tokio::join!(many, office, more);
        assert_eq!(office, (Err(Interrupted::Late), Err(Interrupted::Late)));
        assert_eq!(many.iter().filter(|ended| **ended == Err(Interrupted::Displaced)).count(), 28);
    }

    #[tokio::test(start_paused = true)]
    async fn a_place_that_is_given_back_is_free() {
        let (handshakes, limits) = (Handshakes::default(), limits(1));
        assert_eq!(handshakes.run(&limits, of("192.0.2.1"), ready(1)).await, Ok(1));
        let dropped = timeout(Duration::ZERO, handshakes.run(&limits, of("192.0.2.1"), pending::<()>())).await;
        assert!(dropped.is_err());
        handshakes.with(|queue| {
            assert!(
                queue.networks.is_empty()
                    && queue.sites.is_empty()
                    && queue.ranks.is_empty()
                    && queue.ages.is_empty()
                    && queue.total == 0,
                "{queue:?}"
            );
        });
    }
}
