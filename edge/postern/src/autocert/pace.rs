//! When a certificate or a staple is due, and how long to wait after a failure.

use std::time::Duration;

use postern_identity::{Timestamp, random};

/// The first pause after an order that failed; it doubles up to [`LONGEST_PAUSE`]. Authorities count failures, and refuse who
/// has too many in an hour.
const PAUSE: Duration = Duration::from_secs(5 * 60);
/// The longest pause between two orders for one name.
const LONGEST_PAUSE: Duration = Duration::from_secs(6 * 3600);

/// The first pause after a responder has said nothing good; it doubles up to [`LONGEST_STAPLE_PAUSE`]. Some responders know a
/// certificate only seconds after it is issued.
const STAPLE_PAUSE: Duration = Duration::from_secs(10);
/// The longest pause between two questions about one certificate.
pub(super) const LONGEST_STAPLE_PAUSE: Duration = Duration::from_secs(3600);

/// With less than this left, a certificate is not served on for the want of a staple of the next one.
const LAST: Duration = Duration::from_secs(24 * 3600);

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

/// When half of the life of a staple is over.
pub(super) fn half(from: Timestamp, until: Timestamp) -> Timestamp {
    from.plus(until.since(from) / 2)
}

/// When a staple that has just come is to be replaced: at half of its life, or a little earlier at random. One that is older
/// already, since the responder has no other: at half of what is left of it.
pub(super) fn staple_renewal(from: Timestamp, until: Timestamp, now: Timestamp) -> Timestamp {
    let due = half(from, until).minus(share(until.since(from) / 40));
    if now < due { due } else { now.plus((until.since(now) / 2).max(STAPLE_PAUSE)) }
}

/// How long a certificate does for one that has no staple yet: until a tenth of its life is left, or a day.
pub(super) fn spare(from: Timestamp, until: Timestamp, now: Timestamp) -> Duration {
    until.minus((until.since(from) / 10).min(LAST)).since(now)
}

/// How long to wait after so many failures in a row to get a staple, counted from 0.
pub(super) fn staple_pause(failures: u32) -> Duration {
    let pause = STAPLE_PAUSE.saturating_mul(1 << failures.min(10)).min(LONGEST_STAPLE_PAUSE);
    pause + share(pause / 4)
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
    fn a_staple_is_replaced_at_half_of_its_life_and_one_that_is_older_at_half_of_the_rest() {
        let (from, hours) = (Timestamp::from_secs(1_800_000_000), |hours: u64| Duration::from_secs(3600 * hours));
        let until = from.plus(hours(80));
        for _ in 0..50 {
            let due = staple_renewal(from, until, from.plus(hours(1)));
            assert!(due <= from.plus(hours(40)) && due >= from.plus(hours(38)), "{due}");
            assert_eq!(staple_renewal(from, until, from.plus(hours(40))), from.plus(hours(60)));
        }
        assert_eq!(staple_renewal(from, until, until), until.plus(STAPLE_PAUSE), "never at once");
    }

    #[test]
    fn a_certificate_does_for_the_next_one_until_a_day_or_a_tenth_of_its_life_is_left() {
        let (from, hours) = (Timestamp::from_secs(1_800_000_000), |hours: u64| Duration::from_secs(3600 * hours));
        for (life, spare_for) in [(2160, 2136), (100, 90)] {
            let until = from.plus(hours(life));
            assert_eq!(spare(from, until, from), hours(spare_for));
            assert_eq!(spare(from, until, from.plus(hours(spare_for))), Duration::ZERO);
            assert_eq!(spare(from, until, until.plus(hours(1))), Duration::ZERO);
        }
    }

    #[test]
    fn a_responder_that_fails_is_asked_again_soon_and_then_less_and_less_often() {
        for (failures, least) in [(0, 10), (1, 20), (8, 2560), (9, 3600), (100, 3600)] {
            let pause = staple_pause(failures);
            let least = Duration::from_secs(least);
            assert!(pause >= least && pause <= least + least / 4, "{failures}: {pause:?}");
        }
    }

    #[test]
    fn failures_are_told_apart_by_longer_and_longer_pauses_with_an_end() {
        for (failures, least) in [(0, 300), (1, 600), (2, 1200), (6, 19_200), (7, 21_600), (100, 21_600)] {
            let pause = pause(failures);
            let least = Duration::from_secs(least);
            assert!(pause >= least && pause <= least + least / 4, "{failures}: {pause:?}");
        }
    }
}
