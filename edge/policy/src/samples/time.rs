//! Times that differ by what some criteria on time say.

use std::time::Duration;

use jiff::ToSpan as _;
use jiff::civil::Time;
use jiff::tz::TimeZone;
use postern_identity::Timestamp;

use super::{Sample, Samples};

const SECOND: Duration = Duration::from_secs(1);

/// `now`, every moment and the second before it, and of each of these every day of the week and every time of day.
pub(super) fn of(
    moments: &[Timestamp],
    times_of_day: &[(TimeZone, Time)],
    days: bool,
    now: Timestamp,
) -> Vec<Sample<Timestamp>> {
    let mut bases = vec![Sample::made_up(now)];
    for moment in moments {
        bases.push(Sample::named(*moment));
        bases.push(Sample::made_up(moment.minus(SECOND)));
    }
    let mut given = bases.clone();
    for base in &bases {
        let of_days = if days { 7 } else { 1 };
        for (day, later) in (0..of_days).flat_map(|day| [(day, true), (day, false)]) {
            let span = Duration::from_secs(day * 24 * 3600);
            let time = if later { base.value.plus(span) } else { base.value.minus(span) };
            given.push(Sample::made_up(time));
            for (zone, clock) in times_of_day {
                let at = on(zone, *clock, time);
                given.extend(at.map(Sample::named));
                given.extend(at.map(|at| Sample::made_up(at.minus(SECOND))));
                // The same day may be over there.
                for shifted in [24, -24].into_iter().filter_map(|hours| shifted(at?, hours)) {
                    given.push(Sample::made_up(shifted));
                }
            }
        }
    }
    let mut seen = std::collections::HashSet::new();
    given.retain(|sample| seen.insert(sample.value));
    given.truncate(Samples::MOST);
    given
}

/// That time of the day on which `time` is in the zone.
fn on(zone: &TimeZone, clock: Time, time: Timestamp) -> Option<Timestamp> {
    let there = zone.to_datetime(jiff::Timestamp::from_second(time.as_secs()).ok()?);
    let at = zone.to_timestamp(there.date().to_datetime(clock)).ok()?;
    Some(Timestamp::from_millis(at.as_millisecond()))
}

fn shifted(time: Timestamp, hours: i64) -> Option<Timestamp> {
    let time = jiff::Timestamp::from_millisecond(time.as_millis()).ok()?;
    Some(Timestamp::from_millis(time.checked_add(hours.hours()).ok()?.as_millisecond()))
}
