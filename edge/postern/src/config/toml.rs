//! TOML -> [`Node`], with places: the second language that a configuration may be written in (01 §1.1).

use postern_policy::document::{Entry, MAX_DEPTH, Mistake, Node, Place, Value};
use serde_json::Number;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Reads one TOML document.
///
/// # Errors
/// Every mistake in it.
pub(super) fn read(text: &str) -> Result<Node, Vec<Mistake>> {
    let (table, errors) = DeTable::parse_recoverable(text);
    let mut reader = Reader { lines: Lines::of(text), mistakes: Vec::new() };
    for error in errors {
        let place = reader.lines.place(error.span().unwrap_or(0..0));
        let message = error.message().lines().collect::<Vec<_>>().join(", ");
        reader.mistakes.push(Mistake::at(place, message).hint("write it as TOML 1.0 wants it, see https://toml.io"));
    }
    let place = Place { line: 1, column: 1, length: 1 };
    let value = reader.table(table.get_ref(), 0);
    if reader.mistakes.is_empty() { Ok(Node { place, value }) } else { Err(reader.mistakes) }
}

struct Reader<'t> {
    lines: Lines<'t>,
    mistakes: Vec<Mistake>,
}

impl Reader<'_> {
    fn table(&mut self, table: &DeTable<'_>, depth: usize) -> Value {
        let entries = table.iter().map(|(key, value)| Entry {
            key: key.get_ref().to_string(),
            key_place: self.lines.place(key.span()),
            value: self.node(value, depth + 1),
        });
        Value::Map(entries.collect())
    }

    fn node(&mut self, value: &Spanned<DeValue<'_>>, depth: usize) -> Node {
        let place = self.lines.place(value.span());
        if depth > MAX_DEPTH {
            let message = format!("tables and arrays nest more than {MAX_DEPTH} deep");
            self.mistakes.push(Mistake::at(place, message).hint("write it flatter"));
            return Node { place, value: Value::Null };
        }
        let value = match value.get_ref() {
            DeValue::String(text) => Value::String(text.to_string()),
            DeValue::Boolean(on) => Value::Bool(*on),
            DeValue::Integer(integer) => self.number(place, integer.as_str(), whole(integer.as_str(), integer.radix())),
            DeValue::Float(float) => {
                let value = float.as_str().parse().ok().and_then(Number::from_f64);
                self.number(place, float.as_str(), value)
            }
            DeValue::Datetime(time) => Value::String(time.to_string()),
            DeValue::Array(values) => Value::List(values.iter().map(|value| self.node(value, depth + 1)).collect()),
            DeValue::Table(table) => self.table(table, depth),
        };
        Node { place, value }
    }

    fn number(&mut self, place: Place, text: &str, value: Option<Number>) -> Value {
        let Some(value) = value else {
            // It may be a secret without its quotes.
            let mistake = Mistake::at(place, "this number is too large, or none".to_owned());
            self.mistakes.push(mistake.hint("write a smaller number, or a text in quotes"));
            return Value::Null;
        };
        Value::Number { value, text: text.to_owned() }
    }
}

/// Underscores are gone already.
fn whole(text: &str, radix: u32) -> Option<Number> {
    let digits = text.trim_start_matches('+');
    let unsigned = u64::from_str_radix(digits, radix).map(Number::from);
    unsigned.or_else(|_| i64::from_str_radix(digits, radix).map(Number::from)).ok()
}

/// The beginnings of lines, to find a place by its byte.
struct Lines<'t> {
    text: &'t str,
    starts: Vec<usize>,
}

impl<'t> Lines<'t> {
    fn of(text: &'t str) -> Self {
        let after = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(index, _)| index + 1);
        Self { text, starts: std::iter::once(0).chain(after).collect() }
    }

    /// Line and column in characters; a value of several lines is underlined in its first.
    fn place(&self, span: std::ops::Range<usize>) -> Place {
        let line = self.starts.partition_point(|start| *start <= span.start).max(1);
        let start = self.starts.get(line - 1).copied().unwrap_or(0);
        let count = |text: Option<&str>| text.map_or(0, |text| text.chars().count());
        let first = self.text.get(span.clone()).and_then(|text| text.lines().next());
        let number = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        Place {
            line: number(line),
            column: number(count(self.text.get(start..span.start)) + 1),
            length: number(count(first).max(1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use postern_policy::document;

    use super::*;

    #[test]
    fn toml_gives_the_same_document_as_yaml() {
        let toml = "address = ':443'\ncount = 0x1F\nbig = 1_000\nshare = 0.5\non = true\nday = 2026-01-02\n\n\
                    [[routes]]\nfrom = 'https://a.example.com'\nto = ['http://b', 'http://c']\n\n[routes.redirect]\nhost_redirect = 'd'\n";
        let yaml = "address: ':443'\ncount: 31\nbig: 1000\nshare: 0.5\non: true\nday: '2026-01-02'\nroutes:\n\
                    - from: https://a.example.com\n  to: [http://b, http://c]\n  redirect: {host_redirect: d}\n";
        assert_eq!(read(toml).unwrap().to_json(), document::read(yaml).unwrap().to_json());
        assert_eq!(read("").unwrap().to_json(), serde_json::json!({}));
    }

    #[test]
    fn each_key_and_value_has_its_place() {
        let root = read("# \u{e9}\nname = 'caf\u{e9}'\n\n[[routes]]\n\u{9}'\u{e9}' = 12\n").unwrap();
        let name = root.entry("name").unwrap();
        assert_eq!(name.key_place, Place { line: 2, column: 1, length: 4 });
        assert_eq!(name.value.place, Place { line: 2, column: 8, length: 6 });
        let route = &root.get("routes").unwrap().as_list().unwrap()[0];
        let entry = route.entry("\u{e9}").unwrap();
        assert_eq!(entry.key_place, Place { line: 5, column: 2, length: 3 });
        assert_eq!(entry.value.place, Place { line: 5, column: 8, length: 2 });
    }

    #[test]
    fn every_mistake_is_told_with_its_place() {
        let told = |text: &str| read(text).unwrap_err().iter().map(|mistake| mistake.place.line).collect::<Vec<_>>();
        assert_eq!(told("a = 1\nb = \nc = 2\nd = 1 1\n"), [2, 4]);
        assert_eq!(told("a = 1\na = 2\n"), [2]);
        assert_eq!(told("a = 99999999999999999999\n"), [1]);
        let deep = format!("a = {}1{}", "[".repeat(70), "]".repeat(70));
        assert!(read(&deep).unwrap_err()[0].message.contains("deep"));
        for hostile in
            ["[a.".repeat(100_000), format!("a{} = 1", ".a".repeat(100_000)), "[[a]]\n".repeat(100_000) + "x"]
        {
            assert!(read(&hostile).is_err());
        }
    }
}
