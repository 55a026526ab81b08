//! How many connections one address has, where that is bounded. Addresses of IPv6 count by their network, as a household has one;
//! and all networks of a site together, as whoever has a site has 65 536 of them.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

/// The connections of each address.
#[derive(Debug, Default)]
pub(crate) struct Addresses(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    networks: HashMap<IpAddr, usize>,
    sites: HashMap<IpAddr, usize>,
}

/// A site has so many times as much as a network: behind one may be the telephones of a town.
const NETWORKS: usize = 16;

/// One of them, given back on drop.
#[derive(Debug)]
pub(crate) struct AddressPlace {
    addresses: Arc<Addresses>,
    address: IpAddr,
}

impl Addresses {
    /// A place for a connection of `address`, unless it has so many already.
    pub(crate) fn take(self: &Arc<Self>, address: IpAddr, most: usize) -> Option<AddressPlace> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Counts { networks, sites } = &mut *counts;
        let has = |counts: &HashMap<IpAddr, usize>, key| counts.get(&key).copied().unwrap_or_default();
        if has(networks, network(address)) >= most || has(sites, site(address)) >= most.saturating_mul(NETWORKS) {
            return None;
        }
        *networks.entry(network(address)).or_default() += 1;
        *sites.entry(site(address)).or_default() += 1;
        Some(AddressPlace { addresses: Arc::clone(self), address })
    }
}

impl Drop for AddressPlace {
    fn drop(&mut self) {
        let mut counts = self.addresses.0.lock().unwrap_or_else(PoisonError::into_inner);
        give_back(&mut counts.networks, network(self.address));
        give_back(&mut counts.sites, site(self.address));
    }
}

fn give_back(counts: &mut HashMap<IpAddr, usize>, key: IpAddr) {
    if let Some(count) = counts.get_mut(&key) {
        *count = count.saturating_sub(1);
        if *count == 0 {
            counts.remove(&key);
        }
    }
}

/// An address of IPv4, or the /64 of one of IPv6.
pub(super) fn network(address: IpAddr) -> IpAddr {
    prefix(address, 64)
}

/// An address of IPv4, or the /48 of one of IPv6: the most that one customer is given (RFC 6177).
pub(super) fn site(address: IpAddr) -> IpAddr {
    prefix(address, 48)
}

fn prefix(address: IpAddr, bits: u32) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & u128::MAX << (128 - bits)).into(),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_has_so_many_and_gets_them_back() {
        let addresses = Arc::new(Addresses::default());
        let take = |address: &str| addresses.take(address.parse().unwrap(), 2);
        let (one, _two) = (take("192.0.2.1").unwrap(), take("::ffff:192.0.2.1").unwrap());
        assert!(take("192.0.2.1").is_none());
        assert!(take("192.0.2.2").is_some());
        drop(one);
        assert!(take("192.0.2.1").is_some());
        let _pair = (take("2001:db8::1").unwrap(), take("2001:db8::2").unwrap());
        assert!(take("2001:db8::3").is_none() && take("2001:db8:0:1::1").is_some());
        drop((_two, _pair));
        let counts = addresses.0.lock().unwrap();
        assert!(counts.networks.is_empty() && counts.sites.is_empty(), "nothing is kept of who is gone");
    }

    #[test]
    fn r_001_all_networks_of_a_site_have_sixteen_times_as_many_and_no_more() {
        let addresses = Arc::new(Addresses::default());
        let take =
            |site: u16, network: u16| addresses.take(IpAddr::from([0x2001, 0xdb8, site, network, 0, 0, 0, 1]), 2);
        let places: Vec<_> = (0..65_535).map_while(|network| take(1, network)).collect();
        assert_eq!(places.len(), 32);
        assert!(take(2, 0).is_some(), "another site");
        drop(places);
        let counts = addresses.0.lock().unwrap();
        assert!(counts.networks.is_empty() && counts.sites.is_empty());
    }
}
