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

/// A rate limit for each client address, or each /64 for IPv6.
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
        let now = millis(now.saturating_duration_since(self.started));
        let place = usize::try_from(self.hasher.hash_one(network(client)) % SLOTS as u64).unwrap_or_default();
        let Some(slot) = self.paid_until.get(place) else { return Ok(()) };
        let pay = |paid: u64| {
            let after = paid.max(now) + millis(COST);
            (after <= now + millis(BURST)).then_some(after)
        };
        match slot.fetch_update(Ordering::Relaxed, Ordering::Relaxed, pay) {
            Ok(_) => Ok(()),
            Err(paid) => Err(Duration::from_millis((paid + millis(COST)).saturating_sub(now + millis(BURST)))),
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX / 4)
}

/// What counts as one client.
fn network(client: IpAddr) -> u64 {
    match client.to_canonical() {
        IpAddr::V4(v4) => u64::from(v4.to_bits()),
        IpAddr::V6(v6) => u64::try_from(v6.to_bits() >> 64).unwrap_or_default(),
    }
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
}
