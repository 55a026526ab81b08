//! `date`: the time of the request is after, or before, a date.

use jiff::civil::DateTime;
use jiff::tz::Offset;
use postern_identity::Timestamp;

use super::{Dialect, Stand, Test, verdict};
use crate::document::{Entry, Mistake, Node};
use crate::matcher::{collect, unknown_operator};
use crate::{Facts, Reason, RuleResult, Samples};

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Date(Box<[Bound]>);

#[derive(Clone, Debug, PartialEq)]
enum Bound {
    /// At that time or later.
    After(Timestamp),
    /// Earlier than that time.
    Before(Timestamp),
}

impl Test for Date {
    fn parse(_: &str, data: &Node, _: Dialect) -> Result<Self, Vec<Mistake>> {
        match data.as_map() {
            Some(entries @ [_, ..]) => collect(entries, bound).map(|bounds| Self(bounds.into())),
            _ => Err(Mistake::at(data.place, "`date` needs `after`, `before` or both")
                .hint("write `date: {after: 2026-01-01T00:00:00Z}`")
                .into()),
        }
    }

    fn evaluate(&self, facts: &Facts<'_>, _: Stand) -> RuleResult {
        let holds = self.0.iter().all(|bound| match bound {
            Bound::After(time) => facts.now >= *time,
            Bound::Before(time) => facts.now < *time,
        });
        verdict(holds, Reason::DateOk, Reason::DateUnauthorized)
    }

    fn words(&self) -> String {
        format!("a date {}", self.data())
    }

    fn data(&self) -> String {
        let words = self.0.iter().map(|bound| match bound {
            Bound::After(time) => format!("from {time} on"),
            Bound::Before(time) => format!("before {time}"),
        });
        words.collect::<Vec<_>>().join(" and ")
    }

    fn saw(&self, facts: &Facts<'_>) -> String {
        facts.now.to_string()
    }

    fn sample(&self, samples: &mut Samples) {
        samples.moments.extend(self.0.iter().map(|bound| match bound {
            Bound::After(time) | Bound::Before(time) => *time,
        }));
    }
}

fn bound(entry: &Entry) -> Result<Bound, Mistake> {
    let time = || {
        entry.value.as_str().and_then(timestamp).ok_or_else(|| {
            Mistake::at(entry.value.place, format!("`{}` needs a date and time", entry.key))
                .hint("write it as in ISO 8601: `2026-01-31T16:20:00Z`; without a zone it is UTC")
        })
    };
    match entry.key.to_ascii_lowercase().as_str() {
        "after" => time().map(Bound::After),
        "before" => time().map(Bound::Before),
        _ => Err(unknown_operator(entry, &["after", "before"])),
    }
}

fn timestamp(text: &str) -> Option<Timestamp> {
    let in_utc = || {
        // A zone in brackets would be passed over.
        let text = Some(text.trim()).filter(|text| !text.contains('['))?;
        let time = Offset::UTC.to_timestamp(text.parse::<DateTime>().ok()?).ok()?;
        Some(Timestamp::from_millis(time.as_millisecond()))
    };
    Timestamp::parse(text).or_else(in_utc)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::read;
    use crate::testing::World;

    // The world's clock stands at 2023-11-14T22:13:20Z.
    #[test]
    fn a_date_is_compared_with_the_time_of_the_request() {
        let world = World::default();
        for data in [
            "{after: 2023-11-14}",
            "{after: '2023-11-14T22:13:20'}",
            "{before: '2023-11-14T22:13:21Z'}",
            "{after: '2023-11-14T23:00:00+01:00', before: '2023-11-15 00:00'}",
        ] {
            world.assert(&format!("date: {data}"), true, "date-ok");
        }
        for data in ["{after: '2023-11-14T22:13:21'}", "{before: '2023-11-14T22:13:20Z'}", "{before: 2023-11-14}"] {
            world.assert(&format!("date: {data}"), false, "date-unauthorized");
        }
    }

    #[test]
    fn what_is_no_date_is_refused() {
        for data in [
            "{}",
            "2023-11-14",
            "{after: tomorrow}",
            "{after: 20231114}",
            "{after: '2023-11-14T00:00[Europe/Berlin]'}",
            "{since: 2023-11-14}",
        ] {
            assert!(Date::parse("", &read(data).expect("YAML"), Dialect::default()).is_err(), "{data}");
        }
    }
}
