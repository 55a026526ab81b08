//! A point in time that can be stored and compared.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Milliseconds since the Unix epoch, in UTC. Never read from a clock in this crate: callers pass `now`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The instant that many milliseconds after the epoch.
    #[must_use]
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// The instant that many seconds after the epoch; saturates.
    #[must_use]
    pub const fn from_secs(secs: i64) -> Self {
        Self(secs.saturating_mul(1000))
    }

    /// Milliseconds since the epoch.
    #[must_use]
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// Whole seconds since the epoch, rounded down.
    #[must_use]
    pub const fn as_secs(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// This instant, later by `by`; saturates.
    #[must_use]
    pub fn plus(self, by: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(by.as_millis()).unwrap_or(i64::MAX)))
    }

    /// This instant, earlier by `by`; saturates.
    #[must_use]
    pub fn minus(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(by.as_millis()).unwrap_or(i64::MAX)))
    }

    /// How long after `earlier` this instant is; zero if it is not after it.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// Reads a date and time with its offset from UTC, as RFC 3339 and ISO 8601 write it: `2027-01-15T08:00:00Z`. A fraction is
    /// cut to milliseconds. `None` for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        // A zone in brackets would be passed over.
        let text = Some(text.trim()).filter(|text| !text.contains('['))?;
        text.parse().ok().map(|time: jiff::Timestamp| Self(time.as_millisecond()))
    }
}

impl From<SystemTime> for Timestamp {
    /// What a clock says; one that is before the epoch says the epoch.
    fn from(clock: SystemTime) -> Self {
        Self::default().plus(clock.duration_since(UNIX_EPOCH).unwrap_or_default())
    }
}

/// RFC 3339, in UTC, to the second.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_second(self.as_secs()) {
            Ok(time) => time.fmt(f),
            Err(_) => f.write_str("a time out of range"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_written_in_the_civil_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (-1, "1969-12-31T23:59:59Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_735_689_599, "2024-12-31T23:59:59Z"),
            (1_795_570_233, "2026-11-25T01:30:33Z"),
            (1_798_761_600, "2027-01-01T00:00:00Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(Timestamp::from_secs(seconds).to_string(), text);
            assert_eq!(Timestamp::parse(text), Some(Timestamp::from_secs(seconds)));
        }
    }

    #[test]
    fn time_is_read_with_its_zone_and_no_other_text_is() {
        let read = |text: &str| Timestamp::parse(text).map(Timestamp::as_millis);
        let base = read("2027-01-15T08:00:00Z");
        assert_eq!(base, Some(1_800_000_000_000));
        assert_eq!(read("2027-01-15t10:30:00+02:30"), base);
        assert_eq!(read("2027-01-15 03:00:00-05:00"), base);
        assert_eq!(read("2027-01-15T08:00:00.1239Z"), base.map(|base| base + 123));
        for text in [
            "",
            "2027-01-15",
            "2027-01-15T08:00:00",
            "2027-1-15T08:00:00Z",
            "2027-02-29T08:00:00Z",
            "2027-13-01T08:00:00Z",
            "2027-01-15T24:00:00Z",
            "2027-01-15T08:60:00Z",
            "2027-01-15T08:00:00+26:00",
            "2027-01-15T08:00:00.xZ",
            "2027-01-15T08:00:00ZZ",
            "+027-01-15T08:00:00Z",
            "2027-01-15T08:00:00+01:00[Europe/Berlin]",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn a_clock_is_read_to_the_millisecond_and_never_before_the_epoch() {
        let at = |clock| Timestamp::from(clock).as_millis();
        assert_eq!(at(UNIX_EPOCH + Duration::from_micros(1_234_567)), 1_234);
        assert_eq!(at(UNIX_EPOCH - Duration::from_secs(1)), 0);
    }
}
