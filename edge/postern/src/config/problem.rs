//! One mistake in a configuration, with its place, what was wrong and what to write; and all of them together.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use postern_policy::document::Place;

use super::Code;

/// Whether the configuration can be used in spite of a problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The configuration is refused.
    Fatal,
    /// The configuration is used, and this should be known.
    Advisory,
}

/// Where a key sits: `routes[2].policy[0].allow.and[1]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyPath(String);

impl KeyPath {
    /// The path of `key` in the map that is here.
    #[must_use]
    pub fn key(&self, key: &str) -> Self {
        let key = readable(key);
        if self.0.is_empty() { Self(key.into_owned()) } else { Self(format!("{}.{key}", self.0)) }
    }

    /// The path of the element `index` in the list that is here.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        Self(format!("{}[{index}]", self.0))
    }

    /// The path that goes on with `rest`, a path of its own (`allow.and[1]`, `[0].allow`).
    #[must_use]
    pub fn join(&self, rest: &str) -> Self {
        let dot = if rest.is_empty() || rest.starts_with('[') || self.0.is_empty() { "" } else { "." };
        Self(format!("{}{dot}{rest}", self.0))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The most characters of a key that are shown: one of a megabyte would stand in every path below it.
const MAX_KEY: usize = 80;

/// A key as it may be shown: of one line, not too long.
fn readable(key: &str) -> Cow<'_, str> {
    if key.len() <= MAX_KEY && !key.contains(char::is_control) {
        return Cow::Borrowed(key);
    }
    let more = if key.chars().nth(MAX_KEY).is_some() { "…" } else { "" };
    Cow::Owned(key.chars().take(MAX_KEY).flat_map(char::escape_debug).chain(more.chars()).collect())
}

/// What a value was read from. The order is the order in which problems are told.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// The configuration file.
    File,
    /// An environment variable of that name.
    Environment(Arc<str>),
    /// Nothing: the key is not there, and that is the point.
    Absent,
}

/// Where exactly something stands.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct At {
    /// What it was read from.
    pub origin: Origin,
    /// The place in that text; line 0 if it has none.
    pub place: Place,
    /// The key.
    pub key: KeyPath,
}

impl At {
    /// A key that is missing from the whole configuration.
    #[must_use]
    pub fn absent(key: &str) -> Self {
        Self { origin: Origin::Absent, place: Place::default(), key: KeyPath::default().key(key) }
    }
}

/// One mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub at: At,
    /// Whether it stops the load.
    pub severity: Severity,
    /// Which kind.
    pub code: Code,
    /// What is wrong. Never holds a secret.
    pub what: String,
    /// What to write or do.
    pub hint: String,
}

/// The most problems of one severity that are kept and told, those that stand first in the file; of the rest only the number.
pub(super) const MAX_TOLD: usize = 200;

/// So many unknown words are compared with the known ones; more would take longer than the rest of the load.
const MAX_SEARCHES: usize = 1000;

/// All that was found, ordered by place, with the lines that it was found in (secrets masked).
#[derive(Debug, Clone, Default)]
pub struct Problems {
    list: Vec<Problem>,
    /// How many there were of each severity, those that are not kept included.
    fatal: usize,
    advisory: usize,
    /// How often it was searched for what was meant.
    searches: usize,
    file: Option<String>,
    /// The lines of the file that problems stand on, by number.
    pub(super) lines: BTreeMap<u32, String>,
}

impl Problems {
    /// No problems yet, in that file.
    pub(super) fn of(file: Option<String>) -> Self {
        Self { file, ..Self::default() }
    }

    /// Adds a problem that stops the load.
    pub fn fatal(&mut self, code: Code, at: &At, what: impl Into<String>, hint: impl Into<String>) {
        self.add(Severity::Fatal, code, at, what.into(), hint.into());
    }

    /// Adds a problem that should be known.
    pub fn advise(&mut self, code: Code, at: &At, what: impl Into<String>, hint: impl Into<String>) {
        self.add(Severity::Advisory, code, at, what.into(), hint.into());
    }

    pub(super) fn add(&mut self, severity: Severity, code: Code, at: &At, what: String, hint: String) {
        *self.counter(severity) += 1;
        self.list.push(Problem { at: at.clone(), severity, code, what, hint });
        if self.list.len() > 4 * MAX_TOLD {
            self.sort();
        }
    }

    fn counter(&mut self, severity: Severity) -> &mut usize {
        match severity {
            Severity::Fatal => &mut self.fatal,
            Severity::Advisory => &mut self.advisory,
        }
    }

    /// Puts them in order and drops those that are too many to be told.
    pub(super) fn sort(&mut self) {
        self.list.sort_by(|a, b| (&a.at, a.severity, a.code).cmp(&(&b.at, b.severity, b.code)));
        let (mut fatal, mut advisory) = (0, 0);
        self.list.retain(|problem| {
            let kept = match problem.severity {
                Severity::Fatal => &mut fatal,
                Severity::Advisory => &mut advisory,
            };
            *kept += 1;
            *kept <= MAX_TOLD
        });
    }

    /// Whether it is worth a search to say what a word was meant to be; counts the searches.
    pub(super) fn may_search(&mut self) -> bool {
        self.searches += 1;
        self.searches <= MAX_SEARCHES
    }

    /// The same without a line of the file: for readers who may not read it.
    #[must_use]
    pub fn without_lines(self) -> Self {
        Self { lines: BTreeMap::new(), ..self }
    }

    /// Each problem that is told, in order of place.
    pub fn iter(&self) -> std::slice::Iter<'_, Problem> {
        self.list.iter()
    }

    /// The numbers of the lines of the file that problems stand on.
    pub(super) fn numbers(&self) -> BTreeSet<u32> {
        let in_file =
            self.list.iter().filter(|problem| problem.at.origin == Origin::File && problem.at.place.is_known());
        in_file.map(|problem| problem.at.place.line).collect()
    }

    /// Whether some problem stops the load.
    #[must_use]
    pub fn any_fatal(&self) -> bool {
        self.count(Severity::Fatal) > 0
    }

    /// How many there are of one severity, told or not.
    #[must_use]
    pub fn count(&self, severity: Severity) -> usize {
        match severity {
            Severity::Fatal => self.fatal,
            Severity::Advisory => self.advisory,
        }
    }

    /// How many of one severity are only counted.
    #[must_use]
    pub fn untold(&self, severity: Severity) -> usize {
        self.count(severity) - self.list.iter().filter(|problem| problem.severity == severity).count()
    }

    /// The file's name, as it was given; `None` when everything came from the environment.
    #[must_use]
    pub fn file(&self) -> Option<&str> {
        self.file.as_deref()
    }
}

impl<'p> IntoIterator for &'p Problems {
    type Item = &'p Problem;
    type IntoIter = std::slice::Iter<'p, Problem>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}
