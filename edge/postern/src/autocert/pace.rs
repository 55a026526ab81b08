//! When a certificate is due, and how long to wait after a failure.

use std::time::Duration;

use postern_identity::{Timestamp, random};

/// The first pause after an order that failed; it doubles up to [`LONGEST_PAUSE`]. Authorities count failures, and refuse who
/// has too many in an hour.
const PAUSE: Duration = Duration::from_secs(5 * 60);
/// The longest pause between two orders for one name.
const LONGEST_PAUSE: Duration = Duration::from_secs(6 * 3600);

/// When a certificate is to be renewed: a third of its life before its end, and a little earlier at random, so that what was
/// issued together is not renewed together.
pub(super) fn renewal(from: Timestamp, until: Timestamp) -> Timestamp {
    let life = until.since(from);
    from.plus(life * 2 / 3).minus(share(life / 30))
}

/// How long to wait after so many failures in a row, counted from 0.
pub(super) fn pause(failures: u32) -> Duration {
    let pause = least_pause(failures);
    pause + share(pause / 4)
}

/// The least of it.
pub(super) fn least_pause(failures: u32) -> Duration {
    PAUSE.saturating_mul(1 << failures.min(10)).min(LONGEST_PAUSE)
}

/// A part of it, at random.
pub(super) fn share(whole: Duration) -> Duration {
    let random = random::<2>().map_or(0, u16::from_le_bytes);
    whole.mul_f64(f64::from(random) / f64::from(u16::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_renewed_when_a_third_of_its_life_is_left_or_a_little_earlier() {
        let day = Duration::from_secs(86_400);
        let from = Timestamp::from_secs(1_800_000_000);
        for days in [1, 6, 90] {
            let life = day * days;
            for _ in 0..50 {
                let due = renewal(from, from.plus(life));
                assert!(due <= from.plus(life * 2 / 3) && due >= from.plus(life * 19 / 30), "{days}: {due}");
            }
        }
        assert_eq!(renewal(from, from), from);
    }

    #[test]
    fn failures_are_told_apart_by_longer_and_longer_pauses_with_an_end() {
        for (failures, least) in [(0, 300), (1, 600), (2, 1200), (6, 19_200), (7, 21_600), (100, 21_600)] {
            let pause = pause(failures);
            let (least, most) = (Duration::from_secs(least), Duration::from_secs(least + least / 4));
            assert!(pause >= least && pause <= most, "{failures}: {pause:?}");
        }
    }
}
