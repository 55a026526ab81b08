//! How often one client may start, finish or end a sign-in (03 §2): ten a second with a burst of fifty.

use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// One request costs this much time.
const COST: Duration = Duration::from_millis(100);
/// How far ahead of the clock a client may be: the burst.
const BURST: Duration = Duration::from_secs(5);
/// Addresses that fall on the same slot share its budget. The table never grows.
const SLOTS: usize = 1 << 16;

/// A site, whose networks are many clients or one with as many addresses, has so many times as much.
const NETWORKS: u32 = 16;

/// A rate limit for each client address, or each /64 for IPv6, and for each /48.
///
/// The generic cell rate algorithm: a slot holds the instant at which its client has paid for all that it asked.
#[derive(Debug)]
pub(crate) struct Limit {
    started: Instant,
    hasher: RandomState,
    paid_until: Box<[AtomicU64]>,
}

impl Limit {
    /// Nobody has asked yet.
    pub(crate) fn new(now: Instant) -> Self {
        let paid_until = (0..SLOTS).map(|_| AtomicU64::new(0)).collect();
        Self { started: now, hasher: RandomState::new(), paid_until }
    }

    /// Counts one request of `client`.
    ///
    /// # Errors
    /// How long to wait, if the client asked too often; the request then costs nothing.
    pub(crate) fn take(&self, client: IpAddr, now: Instant) -> Result<(), Duration> {
        let now = micros(now.saturating_duration_since(self.started));
        match client.to_canonical() {
            IpAddr::V4(v4) => self.pay((0, v4.to_bits().into()), COST, now),
            IpAddr::V6(v6) => {
                let network = (64, v6.to_bits() >> 64);
                self.pay(network, COST, now)?;
                // Only what its network was granted, so that one of them does not take it from all.
                let paid = self.pay((48, v6.to_bits() >> 80), COST / NETWORKS, now);
                if let (Err(_), Some(slot)) = (paid, self.slot(network)) {
                    slot.fetch_sub(micros(COST), Ordering::Relaxed);
                }
                paid
            }
        }
    }

    fn slot(&self, who: (u8, u128)) -> Option<&AtomicU64> {
        self.paid_until.get(usize::try_from(self.hasher.hash_one(who) % SLOTS as u64).ok()?)
    }

    fn pay(&self, who: (u8, u128), cost: Duration, now: u64) -> Result<(), Duration> {
        let Some(slot) = self.slot(who) else { return Ok(()) };
        let (cost, latest) = (micros(cost), now + micros(BURST));
        let pay = |paid: u64| {
            let after = paid.max(now) + cost;
            (after <= latest).then_some(after)
        };
        match slot.fetch_update(Ordering::Relaxed, Ordering::Relaxed, pay) {
            Ok(_) => Ok(()),
            Err(paid) => Err(Duration::from_micros((paid + cost).saturating_sub(latest))),
        }
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX / 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_client_may_burst_fifty_and_then_ten_a_second() {
        let start = Instant::now();
        let limit = Limit::new(start);
        let client = ip("192.0.2.1");
        assert_eq!((0..60).filter(|_| limit.take(client, start).is_ok()).count(), 50);
        let wait = limit.take(client, start).unwrap_err();
        assert!(wait > Duration::ZERO && wait <= COST, "{wait:?}");
        let later = start + Duration::from_secs(1);
        assert_eq!((0..60).filter(|_| limit.take(client, later).is_ok()).count(), 10);
        assert_eq!((0..60).filter(|_| limit.take(client, start + Duration::from_secs(3600)).is_ok()).count(), 50);
    }

    #[test]
    fn all_addresses_of_a_64_share_one_limit_and_others_do_not() {
        let start = Instant::now();
        let limit = Limit::new(start);
        for n in 0..50 {
            assert_eq!(limit.take(ip(&format!("2001:db8:0:1::{n:x}")), start), Ok(()));
        }
        assert!(limit.take(ip("2001:db8:0:1:ffff::1"), start).is_err());
        assert!(limit.take(ip("2001:db8:0:2::1"), start).is_ok());
        assert!(limit.take(ip("::ffff:192.0.2.9"), start).is_ok());
    }

    #[test]
    fn all_networks_of_a_48_have_sixteen_times_as_much_and_one_of_them_does_not_take_it_all() {
        let start = Instant::now();
        let limit = Limit::new(start);
        let of = |network: u16| IpAddr::from([0x2001, 0xdb8, 7, network, 0, 0, 0, 1]);
        assert_eq!((0..2000).filter(|_| limit.take(of(1), start).is_ok()).count(), 50);
        let others = (2..2000).filter(|network| limit.take(of(*network), start).is_ok()).count();
        assert!((700..=750).contains(&others), "{others} besides those fifty");
        assert!((0..60).all(|_| limit.take(of(9999), start).is_err()));
        let later = start + Duration::from_secs(1);
        assert_eq!((0..60).filter(|_| limit.take(of(9999), later).is_ok()).count(), 50, "a refusal costs nothing");
        assert!(limit.take(ip("2001:db8:8::1"), start).is_ok(), "another site");
    }
}
