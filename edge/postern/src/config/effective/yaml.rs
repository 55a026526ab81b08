//! What holds as YAML: one that loads again, and that any other reader of YAML takes for the same.

use std::fmt::{self, Write as _};

use postern_policy::document;
use serde_json::Value;

use super::show::origin;
use super::{Effective, Held};
use crate::config::problem::Origin;

/// The configuration as YAML. What holds nothing that could be written is a comment. With `origins`, the name of the file, each
/// value is followed by where it comes from.
#[must_use]
pub fn yaml(keys: &[Effective], origins: Option<&str>) -> String {
    let mut writer = Writer { out: String::new(), origins };
    // Writing to a string cannot fail.
    let _infallible = writer.map(keys, 0, false);
    if writer.out.is_empty() { "{}\n".to_owned() } else { writer.out }
}

struct Writer<'f> {
    out: String,
    origins: Option<&'f str>,
}

impl Writer<'_> {
    /// The lines of a map. `item`: the first stands behind the `- ` of a list, which takes the place of its last two spaces.
    fn map(&mut self, keys: &[Effective], depth: usize, item: bool) -> fmt::Result {
        let mut item = item;
        // A comment behind `- ` would leave the entry empty: what is written comes first.
        let (comments, held): (Vec<_>, Vec<_>) = keys.iter().partition(|one| item && is_comment(one));
        for one in held.into_iter().chain(comments) {
            if self.key(one, depth, item)? {
                item = false;
            }
        }
        if item { writeln!(self.out, "{}{{}}", dash(depth)) } else { Ok(()) }
    }

    /// The lines of one key, if it has some.
    fn key(&mut self, one: &Effective, depth: usize, item: bool) -> Result<bool, fmt::Error> {
        let lead = if item { dash(depth) } else { "  ".repeat(depth) };
        let name = scalar_text(&one.name);
        let mark = self.mark(one);
        match &one.held {
            Held::Words(words) | Held::Content(words) if words.is_empty() => return Ok(false),
            Held::Words(words) => {
                let status = if one.works { String::new() } else { format!(" ({})", one.status) };
                writeln!(self.out, "{}# {name}: {}{status}", "  ".repeat(depth), line(words))?;
            }
            Held::Content(path) => {
                writeln!(self.out, "{}# {name}: the content of {}{mark}", "  ".repeat(depth), line(path))?;
            }
            Held::Value(value) => {
                write!(self.out, "{lead}{name}:")?;
                self.value(value, depth, &mark)?;
            }
            Held::Map(keys) if keys.iter().all(is_comment) => {
                writeln!(self.out, "{lead}{name}: {{}}{mark}")?;
                self.map(keys, depth + 1, false)?;
            }
            Held::Map(keys) => {
                writeln!(self.out, "{lead}{name}:")?;
                self.map(keys, depth + 1, false)?;
            }
            Held::List(elements) if elements.is_empty() => writeln!(self.out, "{lead}{name}: []{mark}")?,
            Held::List(elements) => {
                writeln!(self.out, "{lead}{name}:")?;
                for keys in elements {
                    self.map(keys, depth + 2, true)?;
                }
            }
        }
        Ok(!is_comment(one))
    }

    /// What follows the colon of a key, or the dash of an element.
    fn value(&mut self, value: &Value, depth: usize, mark: &str) -> fmt::Result {
        if let Some(flow) = flow(value) {
            return writeln!(self.out, " {flow}{mark}");
        }
        writeln!(self.out, "{mark}")?;
        self.block(value, depth + 1, false)
    }

    /// A list or map on lines of its own.
    fn block(&mut self, value: &Value, depth: usize, item: bool) -> fmt::Result {
        let mut item = item;
        let mut lead = || if std::mem::take(&mut item) { dash(depth) } else { "  ".repeat(depth) };
        match value {
            Value::Object(map) => {
                for (name, value) in map {
                    write!(self.out, "{}{}:", lead(), scalar_text(name))?;
                    self.value(value, depth, "")?;
                }
            }
            Value::Array(values) => {
                for value in values {
                    match flow(value) {
                        Some(flow) => writeln!(self.out, "{}- {flow}", lead())?,
                        None if value.is_array() => {
                            writeln!(self.out, "{}-", lead())?;
                            self.block(value, depth + 1, false)?;
                        }
                        None => self.block(value, depth + 1, true)?,
                    }
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
                writeln!(self.out, "{}{}", lead(), scalar(value))?;
            }
        }
        Ok(())
    }

    /// Where a value comes from, as a comment.
    fn mark(&self, one: &Effective) -> String {
        let Some(file) = self.origins else { return String::new() };
        let told = origin(&one.at, Some(file));
        let status =
            if one.works || one.at.origin == Origin::Absent { String::new() } else { format!(", {}", one.status) };
        format!("  # {}{status}", line(&told))
    }
}

fn is_comment(one: &Effective) -> bool {
    matches!(one.held, Held::Words(_) | Held::Content(_))
}

fn dash(depth: usize) -> String {
    format!("{}- ", "  ".repeat(depth.saturating_sub(1)))
}

/// A comment has one line.
fn line(text: &str) -> String {
    text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
}

/// A value that fits on the line of its key: a scalar, something empty, or a list of scalars.
fn flow(value: &Value) -> Option<String> {
    match value {
        Value::Array(values) if values.iter().all(|value| !value.is_array() && !value.is_object()) => {
            let scalars: Vec<_> = values.iter().map(scalar).collect();
            Some(format!("[{}]", scalars.join(", ")))
        }
        Value::Object(map) if map.is_empty() => Some("{}".to_owned()),
        Value::Array(_) | Value::Object(_) => None,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Some(scalar(value)),
    }
}

fn scalar(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), scalar_text)
}

/// Text without quotes where no reader of YAML can take it for anything else, else in double quotes.
fn scalar_text(text: &str) -> String {
    if is_plain(text) { text.to_owned() } else { quoted(text) }
}

fn is_plain(text: &str) -> bool {
    const INSIDE: &[char] = &['_', '-', '.', '/', ':', '@', '+', '=', '*', ' '];
    // What YAML 1.1 takes for a bool.
    const WORDS: [&str; 6] = ["yes", "no", "on", "off", "y", "n"];
    let allowed = text.chars().all(|c| c.is_ascii_alphanumeric() || INSIDE.contains(&c));
    let begins = text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '/');
    let letters = text.contains(|c: char| c.is_ascii_alphabetic() || c == '/');
    let odd = text.ends_with([':', ' ']) || text.contains(": ") || text.contains("  ");
    // A number of base sixty or with an exponent elsewhere.
    let number =
        text.starts_with(|c: char| c.is_ascii_digit()) && text.contains([':', '_', '+', '-', 'e', 'E', 'x', 'o']);
    let word = WORDS.iter().any(|word| text.eq_ignore_ascii_case(word));
    let same = || document::read(text).is_ok_and(|node| node.as_str() == Some(text));
    allowed && begins && letters && !odd && !number && !word && same()
}

fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}') => {
                // Writing to a string cannot fail.
                let _infallible = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::config::problem::At;

    fn one(name: &str, held: Held) -> Effective {
        Effective { name: name.to_owned(), at: At::absent(name), held, status: "works".to_owned(), works: true }
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let text = prop_oneof![
            "[ -~]{0,12}",
            "\\PC{0,6}",
            any::<String>(),
            prop::sample::select(vec![
                "yes", "null", "~", "1e3", "0x1F", "012", "1:30", "-", "?", "a: b", "a #b", "- a", "<<", "=", "a\n\nb",
                " a ", "*"
            ])
            .prop_map(str::to_owned),
        ];
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            text.clone().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 40, 5, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::btree_map(text.clone(), inner, 0..5)
                    .prop_map(|map| Value::Object(map.into_iter().filter(|(key, _)| key != "<<").collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(values in prop::collection::vec(any_value(), 0..4)) {
            let keys: Vec<_> = values.iter().zip(0..).map(|(value, n)| one(&format!("k{n}"), Held::Value(value.clone()))).collect();
            for keys in [keys.clone(), vec![one("list", Held::List(vec![keys.clone(), Vec::new(), keys]))]] {
                let text = yaml(&keys, None);
                let read = document::read(&text).map_err(|mistakes| TestCaseError::fail(format!("{mistakes:?}\n{text}")))?;
                prop_assert_eq!(read.to_json(), super::super::plain(&keys), "{}", text);
                let marked = document::read(&yaml(&keys, Some("config.yaml"))).unwrap();
                prop_assert_eq!(marked.to_json(), super::super::plain(&keys));
            }
        }
    }

    #[test]
    fn what_other_readers_could_mistake_stands_in_quotes() {
        for text in [
            "yes",
            "No",
            "on",
            "1e3",
            "0x1F",
            "1_000",
            "1:30",
            "2026-01-01",
            "",
            "~",
            "null",
            "a: b",
            ":443",
            "*",
            "123",
        ] {
            assert!(scalar_text(text).starts_with('"'), "{text}");
        }
        for text in ["1m30s", "https://a.example.com/x", "info", "127.0.0.1/32", "a@example.com", "X-Frame-Options"] {
            assert_eq!(scalar_text(text), text);
        }
        assert_eq!(yaml(&[], None), "{}\n");
        let empty = [one("blank", Held::List(vec![vec![one("gone", Held::Words("none".to_owned()))]]))];
        assert_eq!(document::read(&yaml(&empty, None)).unwrap().to_json(), json!({"blank": [{}]}));
    }
}
