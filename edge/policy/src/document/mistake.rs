//! One thing that is wrong in a document, told to the person who wrote it.

use granit_parser::ErrorKind;

use super::{Place, nearest};

/// What is wrong, where, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Mistake {
    /// Where it stands.
    pub place: Place,
    /// What is wrong: lower case, without a full stop.
    pub message: String,
    /// What to write instead, if that is known.
    pub hint: Option<String>,
}

impl Mistake {
    /// A mistake at that place.
    #[must_use]
    pub fn at(place: Place, message: impl Into<String>) -> Self {
        Self { place, message: message.into(), hint: None }
    }

    /// The same with advice on what to write.
    #[must_use]
    pub fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// The same about a word that is not known: it advises the one of `known` that was probably meant, else what `otherwise` says.
    #[must_use]
    pub fn hint_nearest<'k>(
        self,
        word: &str,
        known: impl IntoIterator<Item = &'k str>,
        otherwise: impl FnOnce() -> String,
    ) -> Self {
        self.hint(nearest(word, known).map_or_else(otherwise, |near| format!("did you mean `{near}`?")))
    }
}

/// What is read in parts tells of the mistakes of all of them.
impl From<Mistake> for Vec<Mistake> {
    fn from(mistake: Mistake) -> Self {
        vec![mistake]
    }
}

/// What the parser found wrong, in words for the author of the file.
#[expect(clippy::wildcard_enum_match_arm, reason = "the parser's list is open and long; the rest shares one sentence")]
pub(super) fn of_syntax(place: Place, kind: &ErrorKind) -> Mistake {
    let say = |message: &str, hint: &str| Mistake::at(place, message).hint(hint);
    match kind {
        ErrorKind::TabNotAllowed
        | ErrorKind::TabInBlockIndentation
        | ErrorKind::TabInIndentation
        | ErrorKind::TabAtBlockScalarStart
        | ErrorKind::TabInPlainScalar => {
            say("a tab stands where only spaces may", "indent with spaces; a tab inside a text needs quotes")
        }
        ErrorKind::MappingValueNotAllowed | ErrorKind::InvalidColonPlacement => say(
            "a `:` stands where no value may begin",
            "check the indentation of this line and the one before; a text that contains `: ` needs quotes",
        ),
        ErrorKind::SimpleKeyExpected | ErrorKind::InvalidSimpleKey => {
            say("this line has no `: ` after its key", "write `key: value`, with a space after the colon")
        }
        ErrorKind::ExpectedBlockMappingKey
        | ErrorKind::ExpectedBlockSequenceEntry
        | ErrorKind::InvalidIndentation
        | ErrorKind::MappingKeyNotAllowed
        | ErrorKind::BlockSequenceEntryNotAllowed
        | ErrorKind::InvalidFlowScalarIndent
        | ErrorKind::InvalidQuotedScalarIndent
        | ErrorKind::InvalidBlockScalarIndent => {
            say("this line does not fit the lines around it", "give neighbours in one map or list the same indentation")
        }
        ErrorKind::UnclosedFlowCollection { open } => {
            Mistake::at(place, format!("`{open}` is never closed")).hint("add the closing bracket")
        }
        ErrorKind::MismatchedFlowCollectionEnd { open, close } => {
            Mistake::at(place, format!("`{open}` is closed by `{close}`")).hint("close each bracket by its own kind")
        }
        ErrorKind::MisplacedFlowCollectionEnd => {
            say("a closing bracket has no opening one", "remove it, or add the bracket that it closes")
        }
        ErrorKind::UnexpectedEofFlowSequence | ErrorKind::ExpectedFlowSequenceSeparator => {
            say("`,` or `]` is missing in this list", "separate entries with `,` and end the list with `]`")
        }
        ErrorKind::UnexpectedEofFlowMapping
        | ErrorKind::UnexpectedEofImplicitFlowMapping
        | ErrorKind::ExpectedFlowMappingSeparator => {
            say("`,` or `}` is missing in this map", "separate entries with `,` and end the map with `}`")
        }
        ErrorKind::UnclosedQuotedScalar => say("a quote is never closed", "end the text with the quote it began with"),
        ErrorKind::InvalidTrailingSingleQuotedScalar | ErrorKind::InvalidTrailingDoubleQuotedScalar => say(
            "something follows the closing quote",
            "put the whole text inside the quotes; inside single quotes write `''` for a quote",
        ),
        ErrorKind::UnknownQuotedScalarEscape
        | ErrorKind::InvalidQuotedScalarHexEscape
        | ErrorKind::InvalidLowSurrogateHexEscape
        | ErrorKind::InvalidLowSurrogate
        | ErrorKind::MissingLowSurrogate
        | ErrorKind::UnpairedLowSurrogate
        | ErrorKind::InvalidUnicodeEscape => say(
            "a backslash begins no escape that is known",
            "write `\\\\` for a backslash, or use single quotes, where it means itself",
        ),
        ErrorKind::UnknownAnchor => say("no anchor of this name comes before", "define it with `&name` first"),
        ErrorKind::UnexpectedCharacter { character } => {
            Mistake::at(place, format!("no plain text may begin with `{}`", character.escape_default()))
                .hint("put the text in quotes")
        }
        ErrorKind::CommentNotSeparated => say("a comment needs a space before its `#`", "put a space before the `#`"),
        ErrorKind::RecursionLimitExceeded => super::reader::too_deep(place),
        ErrorKind::MissingAnchorOrAliasName => {
            say("a name is missing after `&` or `*`", "name it, or put a text that begins with `*` or `&` in quotes")
        }
        ErrorKind::UndeclaredTagHandle
        | ErrorKind::InvalidGlobalTagCharacter
        | ErrorKind::InvalidTagTerminator
        | ErrorKind::MissingTagUri
        | ErrorKind::UnclosedVerbatimTag => {
            say("`!` begins a tag, and this one is not known", "put the text in quotes")
        }
        ErrorKind::InvalidBlockEntryWhitespace | ErrorKind::BlockEntryInFlowCollection => {
            say("a `-` stands where no list entry may begin", "write `- value` on a line of its own")
        }
        ErrorKind::InvalidBlockScalarHeader | ErrorKind::ZeroBlockScalarIndent => {
            say("the text after `|` or `>` is not known here", "begin the block of text on the next line, indented")
        }
        ErrorKind::DocumentIndicatorInQuotedScalar => {
            say("a line of `---` or `...` cuts a quoted text", "close the quote, or indent the line")
        }
        ErrorKind::BomInsideDocument => {
            say("an invisible byte order mark stands here", "remove it; save the file as UTF-8 without BOM")
        }
        _ => say("this is not valid YAML", "check indentation, quotes and brackets on this line and the one before"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistake_prints_its_message() {
        let mistake = Mistake::at(Place { line: 3, column: 7, length: 2 }, "this is wrong").hint("write that");
        assert_eq!(mistake.to_string(), "this is wrong");
        assert_eq!(mistake.hint.as_deref(), Some("write that"));
    }
}
