//! The path and the query of a request: shared with its head where they are written there as they are meant, which is nearly always.

use std::fmt;
use std::ops::Deref;

use http::uri::PathAndQuery;

/// A path or a query.
#[derive(Clone)]
pub struct Text(Kept);

#[derive(Clone)]
enum Kept {
    PathOf(PathAndQuery),
    QueryOf(PathAndQuery),
    Own(String),
}

impl Text {
    /// The path of a head, as it is there.
    pub(super) fn path_of(target: &PathAndQuery) -> Self {
        Self(Kept::PathOf(target.clone()))
    }

    /// The query of a head, as it is there.
    pub(super) fn query_of(target: &PathAndQuery) -> Option<Self> {
        target.query().map(|_| Self(Kept::QueryOf(target.clone())))
    }

    /// The text itself.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match &self.0 {
            Kept::PathOf(target) => target.path(),
            Kept::QueryOf(target) => target.query().unwrap_or_default(),
            Kept::Own(text) => text,
        }
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self(Kept::Own(text))
    }
}

impl Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self)
    }
}
