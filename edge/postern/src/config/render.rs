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
        let _infallible = writeln!(out, "{}: {}", self.subject(), self.verdict());
        out
    }

    /// The same as one JSON document (`docs/reference/configuration.md`).
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        json!({
            "file": self.file(),
            "ok": !self.any_fatal(),
            "problems": self.iter().map(|problem| self.to_json_one(problem)).collect::<Vec<_>>(),
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
                let index = usize::try_from(place.line).unwrap_or(usize::MAX).wrapping_sub(1);
                let Some(line) = self.lines.get(index) else { return Ok(()) };
                let number = place.line;
                let (pad, width) = underline(line, place.column, place.length);
                writeln!(out, "{gutter} {blue}|{reset}\n{blue}{number} |{reset} {line}")?;
                writeln!(out, "{gutter} {blue}|{reset} {pad}{tint}{}{reset}", "^".repeat(width))
            }
        }
    }
}

/// As wide as the line number of a problem.
fn gutter(problem: &Problem) -> String {
    " ".repeat(problem.at.place.line.to_string().len())
}

/// What stands before the caret (tabs kept, so that it lines up) and how wide the caret is, within the line.
fn underline(line: &str, column: u32, length: u32) -> (String, usize) {
    let before = usize::try_from(column.max(1)).unwrap_or(1) - 1;
    let pad: String = line.chars().take(before).map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
    let room = line.chars().count().saturating_sub(before).max(1);
    (pad, usize::try_from(length.max(1)).unwrap_or(1).min(room))
}

fn counted(number: usize, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}
