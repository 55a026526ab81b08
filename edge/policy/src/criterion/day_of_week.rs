//! `day_of_week`: the day of the request, in UTC.

use jiff::civil::Weekday;
use jiff::tz::Offset;

use super::{Dialect, Stand, Test, verdict};
use crate::document::{Mistake, Node};
use crate::{Facts, Reason, RuleResult, Samples};

/// A bit for each day, Monday first.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct DayOfWeek(u8);

const DAYS: [&str; 7] = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];

impl Test for DayOfWeek {
    /// `*`, days separated by commas, and ranges of days.
    fn parse(_: &str, data: &Node, _: Dialect) -> Result<Self, Vec<Mistake>> {
        let Some(text) = data.as_str() else {
            let what = format!("`day_of_week` needs text, not {}", data.kind());
            return Err(Mistake::at(data.place, what).hint("write `mon-fri`, or `mon,wed`").into());
        };
        if text.trim() == "*" {
            return Ok(Self(0b111_1111));
        }
        let mut days = 0;
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (day(data, first)?, day(data, last)?);
            let length = (last + 7 - first) % 7;
            days |= (0..=length).fold(0, |days, step| days | 1 << ((first + step) % 7));
        }
        Ok(Self(days))
    }

    fn evaluate(&self, facts: &Facts<'_>, _: Stand) -> RuleResult {
        let today = today(facts).map_or(0, |day| 1 << day.to_monday_zero_offset());
        verdict(self.0 & today != 0, Reason::DayOfWeekOk, Reason::DayOfWeekUnauthorized)
    }

    fn words(&self) -> String {
        format!("a day among {}", self.data())
    }

    fn data(&self) -> String {
        let days = DAYS.into_iter().enumerate().filter(|(day, _)| self.0 & 1 << day != 0);
        days.map(|(_, name)| name).collect::<Vec<_>>().join(", ")
    }

    fn saw(&self, facts: &Facts<'_>) -> String {
        let index = today(facts).map(|day| day.to_monday_zero_offset().unsigned_abs());
        index.and_then(|index| DAYS.get(usize::from(index))).map_or_else(String::new, |day| (*day).to_owned())
    }

    fn sample(&self, samples: &mut Samples) {
        samples.days = true;
    }
}

fn today(facts: &Facts<'_>) -> Option<Weekday> {
    let now = jiff::Timestamp::from_second(facts.now.as_secs()).ok()?;
    Some(Offset::UTC.to_datetime(now).weekday())
}

/// A day by its whole name or its first three letters, from Monday at 0.
fn day(data: &Node, text: &str) -> Result<u8, Mistake> {
    let name = text.trim().to_ascii_lowercase();
    let is = |day: &str| day == name || name.len() == 3 && day.starts_with(&name);
    let found = DAYS.iter().position(|day| is(day)).and_then(|index| u8::try_from(index).ok());
    found.ok_or_else(|| {
        Mistake::at(data.place, format!("`{}` is not a day", text.trim())).hint_nearest(&name, DAYS, || {
            "write English names of days or their first three letters: `mon-fri`, or `mon,wed`".to_owned()
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::read;
    use crate::testing::World;

    // The world's clock stands on a Tuesday.
    #[test]
    fn days_are_named_alone_in_lists_and_in_ranges() {
        for data in ["'*'", "tue", "Tuesday", "'mon,TUE'", "mon-fri", "'thu, sat - tue'", "tue-tue"] {
            World::default().assert(&format!("day_of_week: {data}"), true, "day-of-week-ok");
        }
        for data in ["mon", "'wed,sunday'", "wed-mon", "sat-sun"] {
            World::default().assert(&format!("day_of_week: {data}"), false, "day-of-week-unauthorized");
        }
    }

    #[test]
    fn what_is_no_day_is_refused() {
        let hint = |data: &str| {
            let mistakes = DayOfWeek::parse("", &read(data).expect("YAML"), Dialect::default()).expect_err(data);
            mistakes[0].hint.clone().unwrap_or_default()
        };
        assert_eq!(hint("wendesday"), "did you mean `wednesday`?");
        for data in ["''", "mo", "mon-", "1", "[mon]", "'mon,'"] {
            assert!(!hint(data).is_empty(), "{data}");
        }
    }
}
