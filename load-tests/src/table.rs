//! What was seen, for people and for programs.

use std::fmt;
use std::time::Duration;

use serde_json::{Map, Value};

/// Columns with names, and rows, some of which tell of a promise that was not kept, or a goal that was missed.
#[derive(Debug)]
pub(crate) struct Table {
    columns: Vec<&'static str>,
    rows: Vec<Vec<String>>,
    failed: bool,
}

impl Table {
    pub(crate) fn new(columns: &[&'static str]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new(), failed: false }
    }

    /// One of figures with goals.
    pub(crate) fn of_goals() -> Self {
        Self::new(&["what", "seen", "goal", "verdict"])
    }

    /// A figure; `kept` is whether what was promised holds, `judged` what is held against the goal.
    pub(crate) fn goal(&mut self, what: String, seen: String, goal: Goal, kept: bool, judged: Option<f64>) {
        let met = judged.map(|judged| match goal {
            Goal::AtMost(most) => judged <= most,
            Goal::Exactly(number) => judged.to_string() == number.to_string(),
            Goal::None => true,
        });
        self.failed |= !kept || met != Some(true);
        let verdict = match (kept, met) {
            (false, _) => "BROKEN",
            (true, Some(true)) if goal == Goal::None => "",
            (true, Some(true)) => "met",
            (true, Some(false)) => "not met",
            (true, None) => "nothing was seen",
        };
        self.row([what, seen, goal.to_string(), verdict.to_owned()]);
    }

    /// A number of what may not be.
    pub(crate) fn zero(&mut self, what: String, number: impl TryInto<u32>) {
        let number = count(number);
        self.goal(what, number.to_string(), Goal::AtMost(0.0), number <= 0.0, Some(number));
    }

    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// Notes that a promise was broken, or a goal missed.
    pub(crate) const fn fail(&mut self) {
        self.failed = true;
    }

    pub(crate) const fn has_failed(&self) -> bool {
        self.failed
    }

    /// A list of objects, a column each.
    pub(crate) fn json(&self) -> Value {
        let object = |row: &Vec<String>| {
            let named =
                self.columns.iter().zip(row).map(|(name, cell)| ((*name).to_owned(), Value::from(cell.as_str())));
            Value::Object(named.collect::<Map<_, _>>())
        };
        self.rows.iter().map(object).collect()
    }
}

/// As Markdown, so that it can be pasted into the documentation.
impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = |f: &mut fmt::Formatter<'_>, cells: &[&str]| writeln!(f, "| {} |", cells.join(" | "));
        line(f, &self.columns)?;
        line(f, &vec!["---"; self.columns.len()])?;
        let cells = |row: &Vec<String>| line(f, &row.iter().map(String::as_str).collect::<Vec<_>>());
        self.rows.iter().try_for_each(cells)
    }
}

/// What a figure is to be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Goal {
    AtMost(f64),
    Exactly(usize),
    None,
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtMost(most) => write!(f, "{most} at most"),
            Self::Exactly(number) => write!(f, "{number}"),
            Self::None => Ok(()),
        }
    }
}

/// A number of things; of more than four thousand million infinity.
pub(crate) fn count(number: impl TryInto<u32>) -> f64 {
    number.try_into().map_or(f64::INFINITY, f64::from)
}

/// A duration in milliseconds.
pub(crate) fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// Numbers that were seen, in order.
#[derive(Debug, Default)]
pub(crate) struct Seen(Vec<f64>);

impl FromIterator<f64> for Seen {
    fn from_iter<T: IntoIterator<Item = f64>>(numbers: T) -> Self {
        let mut numbers: Vec<_> = numbers.into_iter().collect();
        numbers.sort_by(f64::total_cmp);
        Self(numbers)
    }
}

impl Seen {
    /// The number that so many of a hundred do not exceed; `None` if nothing was seen.
    pub(crate) fn percentile(&self, percent: usize) -> Option<f64> {
        let place = (self.0.len() * percent).div_ceil(100).max(1) - 1;
        self.0.get(place).copied()
    }

    pub(crate) fn most(&self) -> Option<f64> {
        self.0.last().copied()
    }
}

/// A number with so many places behind the point; a dash for none.
pub(crate) fn shown(number: Option<f64>, places: usize) -> String {
    number.map_or_else(|| "–".to_owned(), |number| format!("{number:.places$}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_numbers_that_were_seen() {
        let seen: Seen = (1..=100).rev().map(f64::from).collect();
        assert_eq!([1, 50, 99, 100].map(|percent| seen.percentile(percent)), [1.0, 50.0, 99.0, 100.0].map(Some));
        assert_eq!(seen.most(), Some(100.0));
        let one: Seen = [7.0].into_iter().collect();
        assert_eq!(one.percentile(0), Some(7.0));
        assert_eq!(Seen::default().percentile(99), None);
    }

    #[test]
    fn a_goal_that_is_missed_fails_as_a_promise_that_is_broken_does() {
        let judged = |goal, kept, judged| {
            let mut table = Table::of_goals();
            table.goal("what".to_owned(), "seen".to_owned(), goal, kept, judged);
            (table.rows[0][3].clone(), table.has_failed())
        };
        let verdict = |text: &str, failed| (text.to_owned(), failed);
        assert_eq!(judged(Goal::AtMost(1.0), true, Some(1.0)), verdict("met", false));
        assert_eq!(judged(Goal::None, true, Some(9.0)), verdict("", false));
        assert_eq!(judged(Goal::Exactly(1), true, Some(2.0)), verdict("not met", true));
        assert_eq!(judged(Goal::AtMost(1.0), true, None), verdict("nothing was seen", true));
        assert_eq!(judged(Goal::None, false, None), verdict("BROKEN", true));
    }

    #[test]
    fn a_table_is_markdown_or_a_list_of_objects() {
        let mut table = Table::new(&["fault", "lost"]);
        table.row(["kill".to_owned(), "0".to_owned()]);
        assert_eq!(table.to_string(), "| fault | lost |\n| --- | --- |\n| kill | 0 |\n");
        assert_eq!(table.json(), serde_json::json!([{ "fault": "kill", "lost": "0" }]));
    }
}
