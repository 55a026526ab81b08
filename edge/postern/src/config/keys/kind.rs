//! What a key holds: the same word for the reference page, the schema, and the shape that a value is checked for.

use std::fmt;
use std::time::Duration;

use super::Scope;
use crate::config::duration::written;

/// What a key holds.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    /// `true` or `false`.
    Bool,
    /// Any text.
    Text,
    /// A whole number, both bounds included.
    Number(u64, u64),
    /// A number from 0 to 1.
    Fraction,
    /// As Go writes it: `1h30m`.
    Duration,
    /// The same from the first of these numbers of milliseconds to the second.
    DurationWithin(u64, u64),
    /// A whole number of milliseconds.
    Milliseconds,
    /// As JSON of a protocol buffer writes it: `0.5s`, in seconds alone.
    Seconds,
    /// One of these.
    Choice(&'static [&'static str]),
    /// `host:port`.
    Address,
    /// An absolute URL.
    Url,
    /// A host name.
    Host,
    /// A regular expression of RE2's syntax.
    Regex,
    /// The name of a header.
    Header,
    /// A CSS colour.
    Colour,
    /// Standard base64 with padding.
    Base64,
    /// base64 of PEM.
    Pem,
    /// The path of a file.
    File,
    /// A list of these; one value is a list of one.
    List(&'static Self),
    /// Free names, each with one of these.
    Map(&'static Self),
    /// A map of known keys.
    Block(&'static Scope),
    /// A list of maps of known keys.
    Blocks(&'static Scope),
    /// Free names, each with a map of known keys.
    Named(&'static Scope),
    /// Something with a reading of its own, in words, and the form that it has in a document.
    Special(&'static str, Form),
}

/// The form of a value with a reading of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// Text.
    Text,
    /// Text, or a list of texts.
    Texts,
    /// A whole number, negative ones too.
    Integer,
    /// Text with a `=` in it.
    Pair,
    /// Pairs of hexadecimal digits.
    Hex,
    /// Text, a list of texts, or a map of texts.
    TextsOrMap,
    /// A map of one entry.
    OneEntry,
    /// Anything.
    Any,
    /// A policy, or the name of one.
    Policy,
    /// Nothing: the key was removed.
    Nothing,
}

impl Kind {
    /// Any count.
    pub(super) const COUNT: Self = Self::Number(0, u32::MAX as u64);
    /// A share of a hundred.
    pub(super) const PERCENT: Self = Self::Number(0, 100);

    /// Several of them, in words.
    #[expect(clippy::wildcard_enum_match_arm, reason = "the others have no plural of their own")]
    fn plural(&self) -> String {
        match self {
            Self::Bool => "bools".to_owned(),
            Self::Text => "texts".to_owned(),
            Self::Url => "URLs".to_owned(),
            Self::Header => "headers".to_owned(),
            Self::Host => "hosts".to_owned(),
            Self::File => "files".to_owned(),
            Self::Special(word, _) => (*word).to_owned(),
            _ => self.to_string(),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::Bool => "bool",
            Self::Text => "text",
            Self::Fraction => "number from 0 to 1",
            Self::Duration => "duration",
            Self::Milliseconds => "milliseconds",
            Self::Seconds => "seconds, as in `0.5s`",
            Self::Address => "host:port",
            Self::Url => "URL",
            Self::Host => "host",
            Self::Regex => "regular expression",
            Self::Header => "header",
            Self::Colour => "colour",
            Self::Base64 => "base64",
            Self::Pem => "base64 PEM",
            Self::File => "file",
            Self::Block(_) => "map, see below",
            Self::Blocks(_) => "list of maps, see below",
            Self::Named(_) => "map of name to map, see below",
            Self::Special(words, _) => words,
            Self::Number(least, most) if *most >= u64::from(u32::MAX) => {
                return if *least == 0 { f.write_str("number") } else { write!(f, "number from {least}") };
            }
            Self::Number(least, most) => return write!(f, "number from {least} to {most}"),
            Self::DurationWithin(least, most) => {
                let [least, most] = [*least, *most].map(|bound| written(Duration::from_millis(bound)));
                return write!(f, "duration from {least} to {most}");
            }
            Self::Choice(names) => {
                let names: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
                return f.write_str(&names.join(", "));
            }
            Self::List(kind) => return write!(f, "list of {}", kind.plural()),
            Self::Map(kind) => return write!(f, "map of {}", kind.plural()),
        };
        f.write_str(text)
    }
}
