//! What becomes of text from outside before a template escapes it: it is cut, cleaned, and linked only where safe.

use std::borrow::Cow;

/// At most `limit` characters of `text`, without control characters and without marks that turn the direction of
/// writing (S-074). What was cut off shows as an ellipsis.
#[must_use]
pub fn clip(text: &str, limit: usize) -> Cow<'_, str> {
    if text.chars().take(limit + 1).count() <= limit && !text.chars().any(is_hostile) {
        return Cow::Borrowed(text);
    }
    let mut clean = text.chars().map(|c| if is_hostile(c) { ' ' } else { c });
    let mut kept: String = clean.by_ref().take(limit).collect();
    if clean.next().is_some() {
        kept.push('…');
    }
    Cow::Owned(kept)
}

/// The address, if a browser that follows it stays with http, https or this very host; `None` for anything else, such
/// as `javascript:` or `//other.example`.
#[must_use]
pub fn href(link: &str) -> Option<&str> {
    let own_path = link.starts_with('/') && !link.starts_with("//") && !link.starts_with("/\\");
    let absolute = link.starts_with("https://") || link.starts_with("http://");
    let clean = link.len() <= MAX_LINK && !link.chars().any(|c| c.is_control() || c == '\\');
    ((own_path || absolute) && clean).then_some(link)
}

/// Longer addresses are not linked: a page stays small.
const MAX_LINK: usize = 4096;

/// How many bytes `text` takes once escaped.
#[must_use]
pub(crate) fn weight(text: &str) -> usize {
    text.chars().map(|c| if matches!(c, '<' | '>' | '&' | '"' | '\'') { 5 } else { c.len_utf8() }).sum()
}

/// The rows that fit, and how many did not.
pub(crate) struct Fit<'a, T> {
    pub(crate) rows: &'a [T],
    pub(crate) hidden: usize,
}

/// As many of `rows` as stay below `budget` bytes once escaped and cut: the page stays small whatever the claims are.
pub(crate) fn fit<T>(rows: &[T], budget: usize, weigh: impl Fn(&T) -> usize) -> Fit<'_, T> {
    let count = rows
        .iter()
        .scan(0, |spent, row| {
            *spent += weigh(row) + ROW_MARKUP;
            (*spent <= budget).then_some(())
        })
        .count();
    Fit { rows: rows.get(..count).unwrap_or_default(), hidden: rows.len().saturating_sub(count) }
}

/// The markup of a row, in bytes.
const ROW_MARKUP: usize = 60;
/// Control characters, and the ones that reorder or hide text.
fn is_hostile(c: char) -> bool {
    let turns = matches!(c, '\u{200e}' | '\u{200f}' | '\u{061c}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let hides = matches!(c, '\u{200b}' | '\u{2028}' | '\u{2029}' | '\u{feff}');
    c.is_control() || turns || hides
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_text_is_cut_at_a_character_and_says_so() {
        assert_eq!(clip("äöü", 2), "äö…");
        assert_eq!(clip("äöü", 3), "äöü");
    }

    #[test]
    fn text_cannot_turn_the_direction_of_writing_or_break_lines() {
        assert_eq!(clip("a\u{202e}b\nc\u{0}d", 9), "a b c d");
    }

    #[test]
    fn only_http_addresses_and_own_paths_are_linked() {
        for link in ["/a?b=c", "https://a.example/", "http://127.0.0.1:1/"] {
            assert_eq!(href(link), Some(link));
        }
        for link in ["javascript:alert(1)", "//evil.example", "/\\evil.example", "data:,x", "", "a", "/a\nb", " /a"] {
            assert_eq!(href(link), None, "{link:?}");
        }
    }
}
