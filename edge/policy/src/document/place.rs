//! Where something stood in a file.

/// A place in a text: line and column count from 1, in characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The line, from 1; 0 means that there is no place (a value from the environment).
    pub line: u32,
    /// The column, from 1.
    pub column: u32,
    /// How many characters to underline; at least 1.
    pub length: u32,
}

impl Place {
    /// No place in any text: the value came from elsewhere, such as the environment.
    pub const NONE: Self = Self { line: 0, column: 0, length: 0 };

    /// Whether there is a line to show.
    #[must_use]
    pub const fn is_known(self) -> bool {
        self.line > 0
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}
