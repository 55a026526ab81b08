//! Problems as people and as programs read them.

use std::fmt::Write as _;

use serde_json::json;

use super::problem::{Origin, Problem, Problems, Severity};

/// Whether to colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Colour {
    /// For a terminal.
    Terminal,
    /// Plain text.
    Plain,
}

impl Colour {
    const fn of(self, code: &'static str) -> &'static str {
        match self {
            Self::Terminal => code,
            Self::Plain => "",
        }
    }
}

const BOLD: &str = "\u{1b}[1m";
const RED: &str = "\u{1b}[1;31m";
const YELLOW: &str = "\u{1b}[1;33m";
const BLUE: &str = "\u{1b}[1;34m";
const RESET: &str = "\u{1b}[0m";

impl Problems {
    /// Every problem with its place, a snippet and what to write; then how many there are.
    #[must_use]
    pub fn to_human(&self, colour: Colour) -> String {
        let mut out = String::new();
        for problem in self {
            // Writing to a string cannot fail.
            let _infallible = self.one(&mut out, problem, colour);
        }
        let _infallible = self.end(&mut out);
        out
    }

    /// How many there are, told or not, and where to read on.
    fn end(&self, out: &mut String) -> std::fmt::Result {
        let untold = [(Severity::Fatal, "error"), (Severity::Advisory, "warning")];
        for (number, noun) in untold.map(|(severity, noun)| (self.untold(severity), noun)) {
            if number > 0 {
                writeln!(out, "and {} more\n", counted(number, noun))?;
            }
        }
        writeln!(out, "{}: {}", self.subject(), self.verdict())?;
        let first = self.iter().min_by_key(|problem| problem.severity);
        first.map_or(Ok(()), |first| writeln!(out, "`postern help {}` says more of the first", first.code))
    }

    /// The same as one JSON document (`docs/reference/configuration.md`).
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        json!({
            "file": self.file(),
            "ok": !self.any_fatal(),
            "problems": self.iter().map(|problem| self.to_json_one(problem)).collect::<Vec<_>>(),
            "more": { "fatal": self.untold(Severity::Fatal), "advisory": self.untold(Severity::Advisory) },
        })
    }

    fn to_json_one(&self, problem: &Problem) -> serde_json::Value {
        let place = problem.at.place;
        let variable = match &problem.at.origin {
            Origin::Environment(name) => Some(&**name),
            Origin::File | Origin::Absent => None,
        };
        let file = (problem.at.origin == Origin::File).then(|| self.file()).flatten();
        let known = |number: u32| (place.line > 0).then_some(number);
        json!({
            "code": problem.code.to_string(),
            "page": format!("docs/reference/problems.md#{}", problem.code).to_lowercase(),
            "severity": match problem.severity { Severity::Fatal => "fatal", Severity::Advisory => "advisory" },
            "key": problem.at.key.as_str(),
            "file": file,
            "variable": variable,
            "line": known(place.line),
            "column": known(place.column),
            "length": known(place.length.max(1)),
            "what": problem.what,
            "hint": problem.hint,
        })
    }

    fn subject(&self) -> &str {
        self.file().unwrap_or("environment")
    }

    fn verdict(&self) -> String {
        let (errors, warnings) = (self.count(Severity::Fatal), self.count(Severity::Advisory));
        match (errors, warnings) {
            (0, 0) => "no problems".to_owned(),
            (0, _) => format!("usable, {}", counted(warnings, "warning")),
            (_, 0) => counted(errors, "error"),
            (_, _) => format!("{}, {}", counted(errors, "error"), counted(warnings, "warning")),
        }
    }

    fn one(&self, out: &mut String, problem: &Problem, colour: Colour) -> std::fmt::Result {
        let (word, tint) = match problem.severity {
            Severity::Fatal => ("error", RED),
            Severity::Advisory => ("warning", YELLOW),
        };
        let (tint, bold, reset) = (colour.of(tint), colour.of(BOLD), colour.of(RESET));
        writeln!(out, "{tint}{word}[{}]{reset}{bold}: {}{reset}", problem.code, problem.what)?;
        self.place(out, problem, colour, tint)?;
        let (blue, gutter) = (colour.of(BLUE), gutter(problem));
        if !problem.at.key.as_str().is_empty() {
            writeln!(out, "{gutter} {blue}={reset} key: {}", problem.at.key)?;
        }
        writeln!(out, "{gutter} {blue}={reset} {bold}help{reset}: {}\n", problem.hint)
    }

    fn place(&self, out: &mut String, problem: &Problem, colour: Colour, tint: &str) -> std::fmt::Result {
        let (place, gutter) = (problem.at.place, gutter(problem));
        let (blue, reset) = (colour.of(BLUE), colour.of(RESET));
        match &problem.at.origin {
            Origin::Absent => Ok(()),
            Origin::Environment(name) if place.line > 0 => {
                writeln!(out, "{gutter}{blue}-->{reset} environment variable {name}, decoded, line {}", place.line)
            }
            Origin::Environment(name) => writeln!(out, "{gutter}{blue}-->{reset} environment variable {name}"),
            Origin::File if place.line == 0 => writeln!(out, "{gutter}{blue}-->{reset} {}", self.subject()),
            Origin::File => {
                writeln!(out, "{gutter}{blue}-->{reset} {}:{}:{}", self.subject(), place.line, place.column)?;
                let Some(line) = self.lines.get(&place.line) else { return Ok(()) };
                let (number, Snippet { text, pad, width }) = (place.line, snippet(line, place.column, place.length));
                writeln!(out, "{gutter} {blue}|{reset}\n{blue}{number} |{reset} {text}")?;
                writeln!(out, "{gutter} {blue}|{reset} {pad}{tint}{}{reset}", "^".repeat(width))
            }
        }
    }
}

/// As wide as the line number of a problem.
fn gutter(problem: &Problem) -> String {
    " ".repeat(problem.at.place.line.to_string().len())
}

/// A line as it is shown, what stands before the caret, and how wide the caret is.
struct Snippet {
    text: String,
    pad: String,
    width: usize,
}

/// The most characters of a line that are shown.
const MAX_WIDTH: usize = 160;
/// How many of them stand before the caret where the line is cut there.
const BEFORE: usize = 40;

/// The part of a line around the caret; tabs are kept before the caret, so that it lines up.
fn snippet(line: &str, column: u32, length: u32) -> Snippet {
    let number = |number: u32| usize::try_from(number.max(1)).unwrap_or(1);
    let column = number(column) - 1;
    let is_long = line.chars().nth(MAX_WIDTH).is_some();
    let begin = if is_long { column.saturating_sub(BEFORE) } else { 0 };
    let part: Vec<char> = line.chars().skip(begin).take(MAX_WIDTH).map(harmless).collect();
    let ends_here = line.chars().nth(begin + MAX_WIDTH).is_none();
    let (head, tail) = (if begin > 0 { "…" } else { "" }, if ends_here { "" } else { "…" });
    let before = column - begin;
    let pad = head.chars().map(|_| ' ');
    let pad = pad.chain(part.iter().take(before).map(|c| if *c == '\t' { '\t' } else { ' ' })).collect();
    let room = part.len().saturating_sub(before).max(1);
    Snippet { text: head.chars().chain(part).chain(tail.chars()).collect(), pad, width: number(length).min(room) }
}

/// A character that moves no cursor and turns no text around: a file may hold anything.
const fn harmless(c: char) -> char {
    match c {
        '\t' => c,
        '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => '\u{fffd}',
        _ => c,
    }
}

fn counted(number: usize, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(line: &str, column: u32, length: u32) -> (String, String) {
        let Snippet { text, pad, width } = snippet(line, column, length);
        (text, format!("{pad}{}", "^".repeat(width)))
    }

    #[test]
    fn the_caret_stands_below_its_word() {
        assert_eq!(shown("name: word", 7, 4), ("name: word".to_owned(), "      ^^^^".to_owned()));
        assert_eq!(shown("\tname: word", 8, 99), ("\tname: word".to_owned(), "\t      ^^^^".to_owned()));
        assert_eq!(shown("", 1, 1), (String::new(), "^".to_owned()));
        assert_eq!(shown("ab", 9, 1), ("ab".to_owned(), "  ^".to_owned()));
    }

    #[test]
    fn a_long_line_is_cut_around_the_caret() {
        let line = format!("{}word{}", "ä".repeat(1000), "z".repeat(1_000_000));
        let (text, caret) = shown(&line, 1001, 4);
        assert_eq!(text.chars().count(), MAX_WIDTH + 2);
        assert_eq!(text, format!("…{}word{}…", "ä".repeat(BEFORE), "z".repeat(MAX_WIDTH - BEFORE - 4)));
        assert_eq!(caret, format!("{}^^^^", " ".repeat(BEFORE + 1)));
        let (text, caret) = shown(&line, 1, 2_000_000);
        assert!(text.starts_with("ää") && text.ends_with('…') && caret == "^".repeat(MAX_WIDTH), "{caret}");
        let (text, _) = shown(&line, 1_001_004, 1);
        assert!(text.starts_with('…') && text.ends_with('z'));
    }

    #[test]
    fn a_line_cannot_steer_a_terminal() {
        let (text, caret) = shown("a\u{1b}[31m\u{202e}b: x", 9, 1);
        assert_eq!(text, "a\u{fffd}[31m\u{fffd}b: x");
        assert_eq!(caret, "        ^");
    }
}
