//! What a route matches: hosts and paths, each by itself.

use crate::route::{HostPattern, PathMatcher, PathRegex, glob};

impl HostPattern {
    /// A host with `*`, each of which stands for any text, dots included (01 §2.2).
    #[must_use]
    pub fn wildcard(pattern: &str, port: Option<u16>) -> Self {
        Self::Wildcard { pattern: pattern.to_ascii_lowercase(), port }
    }

    /// Whether a host of this name fits, whatever its port.
    #[must_use]
    pub fn names(&self, name: &str) -> bool {
        match self {
            Self::Exact { host, .. } => host == name,
            Self::Wildcard { pattern, .. } => glob::matches(pattern, name),
        }
    }
}

impl PathMatcher {
    /// A regular expression that must match the whole path.
    ///
    /// # Errors
    /// If it is none, or too large.
    pub fn regex(pattern: &str) -> Result<Self, regex::Error> {
        PathRegex::new(pattern).map(Self::Regex)
    }

    /// Whether the canonical path is this one's (01 §2.4).
    #[must_use]
    pub fn matches(&self, path: &str) -> bool {
        match self {
            Self::Prefix(prefix) => path.starts_with(prefix.as_str()),
            Self::Exact(exact) => path == exact,
            Self::Regex(regex) => regex.is_match(path),
        }
    }

    /// Whether it names parameters or escapes itself; then such paths are what its author meant.
    pub(crate) fn is_deliberate(&self) -> bool {
        let text = match self {
            Self::Prefix(text) | Self::Exact(text) => text.as_str(),
            Self::Regex(regex) => regex.as_str(),
        };
        text.contains([';', '%'])
    }
}
