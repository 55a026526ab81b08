//! `time_of_day`: the time of the request in a time zone.

use jiff::civil::Time;
use jiff::tz::TimeZone;

use super::{Dialect, Stand, Test, verdict};
use crate::document::{Mistake, Node};
use crate::matcher::{collect, unknown_operator};
use crate::{Facts, Reason, RuleResult, Samples};

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TimeOfDay {
    zone: TimeZone,
    /// At that time or later.
    after: Option<Time>,
    /// Earlier than that time.
    before: Option<Time>,
}

pub(crate) const KEYS: [&str; 3] = ["timezone", "after", "before"];

impl Test for TimeOfDay {
    fn parse(_: &str, data: &Node, _: Dialect) -> Result<Self, Vec<Mistake>> {
        let example = "write `time_of_day: {timezone: Europe/Berlin, after: \"9:00 AM\", before: \"17:00\"}`";
        let say = |what: &str, hint: &str| Mistake::at(data.place, what).hint(hint);
        let (mut zone, mut after, mut before) = (None, None, None);
        let entries = data.as_map().ok_or_else(|| say("`time_of_day` needs a map", example))?;
        collect(entries, |entry| {
            match entry.key.to_ascii_lowercase().as_str() {
                "timezone" => zone = Some(time_zone(&entry.value)?),
                "after" => after = Some(time(&entry.value)?),
                "before" => before = Some(time(&entry.value)?),
                _ => return Err(unknown_operator(entry, &KEYS)),
            }
            Ok(())
        })?;
        let zone = zone.ok_or_else(|| say("`time_of_day` needs a `timezone`", example))?;
        match (after, before) {
            (None, None) => Err(say("`time_of_day` needs `after`, `before` or both", example).into()),
            (Some(after), Some(before)) if after >= before => Err(say(
                "no time of day is both `after` and `before` these",
                "for a time that spans midnight write two criteria in an `or` block, one with `after` and one with `before`",
            )
            .into()),
            (after, before) => Ok(Self { zone, after, before }),
        }
    }

    fn evaluate(&self, facts: &Facts<'_>, _: Stand) -> RuleResult {
        let holds = self.local(facts).is_some_and(|now| {
            self.after.is_none_or(|after| now >= after) && self.before.is_none_or(|before| now < before)
        });
        verdict(holds, Reason::TimeOfDayOk, Reason::TimeOfDayUnauthorized)
    }

    fn words(&self) -> String {
        format!("a time {}", self.data())
    }

    fn data(&self) -> String {
        let after = self.after.map(|time| format!("from {time}"));
        let before = self.before.map(|time| format!("before {time}"));
        let bounds: Vec<_> = after.into_iter().chain(before).collect();
        format!("{} in {}", bounds.join(" and "), self.zone.iana_name().unwrap_or("UTC"))
    }

    fn saw(&self, facts: &Facts<'_>) -> String {
        self.local(facts).map_or_else(|| "a time out of range".to_owned(), |time| time.to_string())
    }

    fn sample(&self, samples: &mut Samples) {
        let bounds = [self.after, self.before].into_iter().flatten();
        samples.times_of_day.extend(bounds.map(|time| (self.zone.clone(), time)));
    }
}

impl TimeOfDay {
    fn local(&self, facts: &Facts<'_>) -> Option<Time> {
        let now = jiff::Timestamp::from_second(facts.now.as_secs()).ok()?;
        Some(self.zone.to_datetime(now).time())
    }
}

fn time_zone(node: &Node) -> Result<TimeZone, Mistake> {
    let name = node.as_str().unwrap_or_default();
    TimeZone::get(name).map_err(|_| {
        let known: Vec<_> = jiff::tz::db().available().map(|name| name.to_string()).collect();
        let known = known.iter().map(String::as_str);
        Mistake::at(node.place, format!("there is no time zone `{name}`")).hint_nearest(name, known, || {
            "write a name of the IANA time zone database, such as `Europe/Berlin` or `UTC`".to_owned()
        })
    })
}

/// `3:04 PM`, `3PM`, `15:04` or `15:04:05`.
fn time(node: &Node) -> Result<Time, Mistake> {
    node.as_str().and_then(clock).ok_or_else(|| {
        Mistake::at(node.place, "this is not a time of day")
            .hint("write `3:04 PM`, `3PM`, `15:04` or `15:04:05`, in quotes")
    })
}

fn clock(text: &str) -> Option<Time> {
    let text = text.trim().to_ascii_uppercase();
    let (digits, noon) = match (text.strip_suffix("AM"), text.strip_suffix("PM")) {
        (Some(rest), _) => (rest.trim_end(), Some(0)),
        (_, Some(rest)) => (rest.trim_end(), Some(12)),
        (None, None) => (text.as_str(), None),
    };
    let mut parts = digits.split(':');
    let mut part = |digits: std::ops::RangeInclusive<usize>| match parts.next() {
        None => Some(None),
        Some(text) if digits.contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit()) => {
            text.parse::<i8>().ok().map(Some)
        }
        Some(_) => None,
    };
    let (hour, minute, second) = (part(1..=2)??, part(2..=2)?, part(2..=2)?);
    if parts.next().is_some() {
        return None;
    }
    let hour = match noon {
        Some(noon) if (1..=12).contains(&hour) => hour % 12 + noon,
        Some(_) => return None,
        // An hour alone could be anything.
        None => minute.map(|_| hour)?,
    };
    Time::new(hour, minute.unwrap_or(0), second.unwrap_or(0), 0).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::read;
    use crate::testing::World;

    // The world's clock stands at 22:13:20 UTC: 23:13:20 in Berlin, 17:13:20 in New York, 14:13:20 in Los Angeles.
    #[test]
    fn the_time_is_that_of_the_zone() {
        let yes = [
            "{timezone: UTC, after: '22:13:20'}",
            "{timezone: Europe/Berlin, after: 11:13 PM}",
            "{timezone: America/New_York, after: 5PM, before: '17:13:21'}",
            "{timezone: america/los_angeles, after: 2 pm, before: 3:00PM}",
        ];
        for data in yes {
            World::default().assert(&format!("time_of_day: {data}"), true, "time-of-day-ok");
        }
        for data in ["{timezone: UTC, before: '22:13:20'}", "{timezone: Europe/Berlin, before: 11PM}"] {
            World::default().assert(&format!("time_of_day: {data}"), false, "time-of-day-unauthorized");
        }
    }

    #[test]
    fn summer_time_is_kept() {
        // 2024-07-01T07:30:00Z is 9:30 in Berlin.
        let summer = World::default().at(1_719_819_000);
        summer.assert("time_of_day: {timezone: Europe/Berlin, after: '9:30', before: '9:31'}", true, "time-of-day-ok");
    }

    #[test]
    fn twelve_is_noon_or_midnight() {
        let at = |text: &str| clock(text).map(|time| time.to_string());
        assert_eq!(at("12AM").as_deref(), Some("00:00:00"));
        assert_eq!(at("12:05 pm").as_deref(), Some("12:05:00"));
        assert_eq!(at("3:04:05 PM").as_deref(), Some("15:04:05"));
        for text in ["", "15", "13PM", "0AM", "24:00", "9:5", "9:60", "9:00:00:00", "-9:00", "+9:00", "PM", "9.00"] {
            assert_eq!(at(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_refused() {
        let mistake = |data: &str| {
            TimeOfDay::parse("", &read(data).expect("YAML"), Dialect::default()).expect_err(data).remove(0)
        };
        assert_eq!(
            mistake("{timezone: Europe/Berln, after: 9AM}").hint.as_deref(),
            Some("did you mean `Europe/Berlin`?")
        );
        assert_eq!(mistake("{after: 9AM}").message, "`time_of_day` needs a `timezone`");
        assert_eq!(mistake("{timezone: UTC}").message, "`time_of_day` needs `after`, `before` or both");
        assert!(mistake("{timezone: UTC, after: 22:00, before: 06:00}").hint.unwrap().contains("spans midnight"));
        assert_eq!(mistake("{timezone: UTC, after: 9}").message, "this is not a time of day");
        assert_eq!(mistake("{timezone: UTC, until: 9AM}").message, "unknown operator `until`");
        assert_eq!(mistake("9AM").message, "`time_of_day` needs a map");
    }
}
