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
