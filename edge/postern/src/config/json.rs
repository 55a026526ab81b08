//! JSON -> [`Node`], with places: the third language that a configuration may be written in (01 §1.1).

use postern_policy::document::{self, Mistake, Node, Place};
use serde::de::IgnoredAny;

/// Reads one JSON document. All JSON is YAML, which knows the places; not all YAML is JSON.
///
/// # Errors
/// The first thing that is no JSON, or every mistake beyond that.
pub(super) fn read(text: &str) -> Result<Node, Vec<Mistake>> {
    if text.trim().is_empty() {
        return document::read(text);
    }
    match serde_json::from_str::<IgnoredAny>(text) {
        Ok(_) => document::read(text),
        Err(error) => Err(vec![mistake(&error)]),
    }
}

fn mistake(error: &serde_json::Error) -> Mistake {
    let number = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    let place = Place { line: number(error.line()), column: number(error.column().max(1)), length: 1 };
    let (message, end) = (error.to_string(), format!(" at line {} column {}", error.line(), error.column()));
    let message = message.strip_suffix(&end).unwrap_or(&message).to_owned();
    Mistake::at(place, message).hint("write it as JSON wants it: without comments, and no comma after the last element")
}
