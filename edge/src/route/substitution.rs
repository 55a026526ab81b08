//! Rewriting by regular expression, in RE2's manner (01 §2.7).

use regex::Regex;

/// Every match of an expression becomes something else. Most routes have none.
#[derive(Debug, Clone)]
pub struct RegexRewrite(Box<Rule>);

#[derive(Debug, Clone)]
struct Rule {
    pattern: Regex,
    substitution: Box<[Part]>,
}

/// A piece of what takes the place of a match.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    /// What this group of the match found; 0 is the whole match.
    Group(usize),
}

/// Why nothing can take the place of a match.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SubstitutionError {
    /// It names a group that the expression does not have.
    #[error("the expression has no group {0}")]
    Group(usize),
    /// A backslash before something else than a digit or a backslash.
    #[error("a backslash must be followed by the number of a group, or by another backslash")]
    Escape,
}

impl RegexRewrite {
    /// `\0` to `\9` in `substitution` are groups of `pattern`, and `\\` is a backslash.
    ///
    /// # Errors
    /// [`SubstitutionError`].
    pub fn new(pattern: Regex, substitution: &str) -> Result<Self, SubstitutionError> {
        let (mut parts, mut text, mut chars) = (Vec::new(), String::new(), substitution.chars());
        while let Some(char) = chars.next() {
            if char != '\\' {
                text.push(char);
                continue;
            }
            match chars.next() {
                Some('\\') => text.push('\\'),
                Some(digit @ '0'..='9') => {
                    let group = digit as usize - '0' as usize;
                    if group >= pattern.captures_len() {
                        return Err(SubstitutionError::Group(group));
                    }
                    parts.push(Part::Text(std::mem::take(&mut text)));
                    parts.push(Part::Group(group));
                }
                _ => return Err(SubstitutionError::Escape),
            }
        }
        parts.push(Part::Text(text));
        parts.retain(|part| *part != Part::Text(String::new()));
        Ok(Self(Box::new(Rule { pattern, substitution: parts.into() })))
    }

    /// `text` with every match replaced; `None` if that would be longer than `most` bytes.
    pub(crate) fn apply(&self, text: &str, most: usize) -> Option<String> {
        let (mut out, mut from) = (String::with_capacity(text.len()), 0);
        for found in self.0.pattern.captures_iter(text) {
            let whole = found.get_match();
            out.push_str(text.get(from..whole.start())?);
            from = whole.end();
            for part in &self.0.substitution {
                out.push_str(match part {
                    Part::Text(text) => text,
                    Part::Group(group) => found.get(*group).map_or("", |group| group.as_str()),
                });
            }
            if out.len() > most {
                return None;
            }
        }
        out.push_str(text.get(from..)?);
        (out.len() <= most).then_some(out)
    }
}

/// By what is written.
impl PartialEq for RegexRewrite {
    fn eq(&self, other: &Self) -> bool {
        self.0.pattern.as_str() == other.0.pattern.as_str() && self.0.substitution == other.0.substitution
    }
}

impl Eq for RegexRewrite {}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewrite(pattern: &str, substitution: &str) -> Result<RegexRewrite, SubstitutionError> {
        RegexRewrite::new(Regex::new(pattern).unwrap(), substitution)
    }

    #[test]
    fn every_match_is_replaced_and_groups_are_filled_in() {
        for (pattern, substitution, text, expected) in [
            ("^/([^/]+)/([^/]+)", r"/\2/\1", "/a/b/c", "/b/a/c"),
            ("o", "0", "/foo/oo", "/f00/00"),
            ("/+", r"[\0]", "/a/b", "[/]a[/]b"),
            (r"/(\d+)?x", r"/<\1>", "/x/12x", "/<>/<12>"),
            ("a", r"\\1", "/a", r"/\1"),
            ("nothing", "x", "/a", "/a"),
            ("^/api(/|$)", "/", "/api", "/"),
            ("", "-", "/a", "-/-a-"),
            ("x", "", "/xax", "/a"),
        ] {
            let rewrite = rewrite(pattern, substitution).unwrap();
            assert_eq!(rewrite.apply(text, 100).as_deref(), Some(expected), "{pattern} {substitution} {text}");
        }
    }

    #[test]
    fn a_substitution_names_groups_that_there_are() {
        assert_eq!(rewrite("(a)", r"\2"), Err(SubstitutionError::Group(2)));
        assert_eq!(rewrite("(a)", r"x\n"), Err(SubstitutionError::Escape));
        assert_eq!(rewrite("(a)", r"x\"), Err(SubstitutionError::Escape));
        assert_eq!(rewrite("(a)", r"\0\1"), rewrite("(a)", r"\0\1"));
        assert_ne!(rewrite("(a)", r"\0"), rewrite("(a)", r"\1"));
    }

    #[test]
    fn r_002_what_would_become_too_long_is_given_up() {
        let rewrite = rewrite("", "0123456789").unwrap();
        assert_eq!(rewrite.apply("/a", 31).map(|text| text.len()), None);
        assert_eq!(rewrite.apply("/a", 32).map(|text| text.len()), Some(32));
    }
}
