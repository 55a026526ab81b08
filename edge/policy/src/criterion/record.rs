//! `record`: a field of a record that an external data source holds about the request.

use serde_json::Value;

use super::{Carrier, Dialect, Stand, Test, verdict};
use crate::document::{Entry, Mistake, Node};
use crate::matcher::{collect, equal, plain, text, unknown_operator};
use crate::{Facts, Reason, RuleResult};

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Record {
    kind: Box<str>,
    field: Box<str>,
    /// All must hold.
    conditions: Box<[Condition]>,
}

#[derive(Clone, Debug, PartialEq)]
enum Condition {
    Exists(bool),
    /// Of a list: its only element.
    Is(Value),
    Not(Value),
    StartsWith(Box<str>),
    EndsWith(Box<str>),
    Contains(Box<str>),
    In(Box<[Value]>),
    NotIn(Box<[Value]>),
    Has(Value),
    Exclude(Value),
    Less(Value),
    LessOrEqual(Value),
    Greater(Value),
    GreaterOrEqual(Value),
}

pub(crate) const KEYS: [&str; 17] = [
    "type",
    "field",
    "exists",
    "is",
    "not",
    "starts_with",
    "ends_with",
    "contains",
    "in",
    "not_in",
    "has",
    "exclude",
    "<",
    "<=",
    "=",
    ">",
    ">=",
];

impl Test for Record {
    fn parse(_: &str, data: &Node, _: Dialect) -> Result<Self, Vec<Mistake>> {
        let example = "write `record: {type: NAME, field: NAME, is: value}`";
        let say = |what: &str| Mistake::at(data.place, what).hint(example);
        let entries = data.as_map().ok_or_else(|| say("`record` needs a map"))?;
        let (mut kind, mut field) = (None, None);
        let conditions = collect(entries, |entry| {
            match entry.key.to_ascii_lowercase().as_str() {
                "type" => kind = Some(text(entry)?),
                "field" => field = Some(text(entry)?),
                _ => return Condition::parse(entry).map(Some),
            }
            Ok(None)
        })?;
        let conditions: Box<[_]> = conditions.into_iter().flatten().collect();
        match (kind, field) {
            (Some(kind), Some(field)) if !conditions.is_empty() => Ok(Self { kind, field, conditions }),
            (Some(_), Some(_)) => Err(say("`record` compares with nothing").into()),
            (None, _) => Err(say("`record` needs a `type`").into()),
            (_, None) => Err(say("`record` needs a `field`").into()),
        }
    }

    fn evaluate(&self, facts: &Facts<'_>, _: Stand) -> RuleResult {
        let value = self.find(facts);
        let holds = self.conditions.iter().all(|condition| condition.holds(value));
        verdict(holds, Reason::RecordOk, Reason::RecordUnauthorized)
    }

    fn words(&self) -> String {
        format!("a record {} whose {} fits", self.kind, self.field)
    }

    fn data(&self) -> String {
        let words = self.conditions.iter().map(Condition::words).collect::<Vec<_>>();
        format!("{} of {} {}", self.field, self.kind, words.join(" and "))
    }

    fn saw(&self, facts: &Facts<'_>) -> String {
        self.find(facts).map_or_else(|| format!("no {} of {}", self.field, self.kind), plain)
    }

    const CARRIER: Option<Carrier> = Some(Carrier::Records);

    fn holds_idle(&self) -> bool {
        self.conditions.iter().all(|condition| condition.holds(None))
    }
}

impl Record {
    fn find<'a>(&self, facts: &Facts<'a>) -> Option<&'a Value> {
        let record = facts.records.iter().find(|record| *record.kind == *self.kind)?;
        record.fields.get(&*self.field).filter(|value| !value.is_null())
    }
}

impl Condition {
    fn parse(entry: &Entry) -> Result<Self, Mistake> {
        let value = || entry.value.to_json();
        let needs = |what: &str| {
            let what = format!("`{}` needs {what}, not {}", entry.key, entry.value.kind());
            Mistake::at(entry.value.place, what).hint("see the matchers of `record`")
        };
        let listed = || -> Result<Box<[Value]>, Mistake> {
            let nodes = entry.value.as_list().ok_or_else(|| needs("a list"))?;
            Ok(nodes.iter().map(Node::to_json).collect())
        };
        Ok(match entry.key.to_ascii_lowercase().as_str() {
            "exists" => Self::Exists(entry.value.as_bool().ok_or_else(|| needs("true or false"))?),
            "is" | "=" => Self::Is(value()),
            "not" => Self::Not(value()),
            "starts_with" => Self::StartsWith(text(entry)?),
            "ends_with" => Self::EndsWith(text(entry)?),
            "contains" => Self::Contains(text(entry)?),
            "in" => Self::In(listed()?),
            "not_in" => Self::NotIn(listed()?),
            "has" => Self::Has(value()),
            "exclude" => Self::Exclude(value()),
            "<" => Self::Less(ordered(entry)?),
            "<=" => Self::LessOrEqual(ordered(entry)?),
            ">" => Self::Greater(ordered(entry)?),
            ">=" => Self::GreaterOrEqual(ordered(entry)?),
            _ => return Err(unknown_operator(entry, &KEYS)),
        })
    }

    /// What is not there has no property but that.
    fn holds(&self, value: Option<&Value>) -> bool {
        let Some(value) = value else { return matches!(self, Self::Exists(false)) };
        let text = |holds: fn(&str, &str) -> bool, wanted: &str| value.as_str().is_some_and(|text| holds(text, wanted));
        let elements = value.as_array().map(Vec::as_slice);
        match self {
            Self::Exists(wanted) => *wanted,
            Self::Is(wanted) => match elements {
                Some(elements) if !wanted.is_array() => matches!(elements, [element] if equal(element, wanted)),
                Some(_) | None => equal(value, wanted),
            },
            Self::Not(wanted) => !equal(value, wanted),
            Self::StartsWith(wanted) => text(|text, wanted| text.starts_with(wanted), wanted),
            Self::EndsWith(wanted) => text(|text, wanted| text.ends_with(wanted), wanted),
            Self::Contains(wanted) => text(|text, wanted| text.contains(wanted), wanted),
            Self::In(listed) => listed.iter().any(|wanted| equal(value, wanted)),
            Self::NotIn(listed) => !listed.iter().any(|wanted| equal(value, wanted)),
            Self::Has(wanted) => elements.is_some_and(|elements| elements.iter().any(|element| equal(element, wanted))),
            Self::Exclude(wanted) => {
                elements.is_some_and(|elements| !elements.iter().any(|element| equal(element, wanted)))
            }
            Self::Less(bound) => compare(value, bound).is_some_and(std::cmp::Ordering::is_lt),
            Self::LessOrEqual(bound) => compare(value, bound).is_some_and(std::cmp::Ordering::is_le),
            Self::Greater(bound) => compare(value, bound).is_some_and(std::cmp::Ordering::is_gt),
            Self::GreaterOrEqual(bound) => compare(value, bound).is_some_and(std::cmp::Ordering::is_ge),
        }
    }

    fn words(&self) -> String {
        let listed = |values: &[Value]| values.iter().map(plain).collect::<Vec<_>>().join(", ");
        match self {
            Self::Exists(true) => "exists".to_owned(),
            Self::Exists(false) => "does not exist".to_owned(),
            Self::Is(value) => format!("is {}", plain(value)),
            Self::Not(value) => format!("is not {}", plain(value)),
            Self::StartsWith(text) => format!("starts with {text}"),
            Self::EndsWith(text) => format!("ends with {text}"),
            Self::Contains(text) => format!("contains {text}"),
            Self::In(values) => format!("is in {}", listed(values)),
            Self::NotIn(values) => format!("is not in {}", listed(values)),
            Self::Has(value) => format!("has {}", plain(value)),
            Self::Exclude(value) => format!("does not have {}", plain(value)),
            Self::Less(value) => format!("< {}", plain(value)),
            Self::LessOrEqual(value) => format!("<= {}", plain(value)),
            Self::Greater(value) => format!("> {}", plain(value)),
            Self::GreaterOrEqual(value) => format!(">= {}", plain(value)),
        }
    }
}

fn ordered(entry: &Entry) -> Result<Value, Mistake> {
    let value = entry.value.to_json();
    if value.is_number() || value.is_string() {
        return Ok(value);
    }
    let what = format!("`{}` needs a number or text, not {}", entry.key, entry.value.kind());
    Err(Mistake::at(entry.value.place, what).hint("write `\">=\": 3`"))
}

/// Numbers by value, texts by their bytes; nothing else has an order.
fn compare(value: &Value, bound: &Value) -> Option<std::cmp::Ordering> {
    match (value, bound) {
        (Value::Number(value), Value::Number(bound)) => value.as_f64()?.partial_cmp(&bound.as_f64()?),
        (Value::String(value), Value::String(bound)) => Some(value.cmp(bound)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::document::read;
    use crate::testing::World;
    use crate::{Facts, facts};

    fn holds(conditions: &str, fields: &Value) -> bool {
        let node = read(&format!("{{type: geo, field: f, {conditions}}}")).expect(conditions);
        let record = Record::parse("", &node, Dialect::default()).expect(conditions);
        let records = [
            facts::Record { kind: "other", fields: &serde_json::Map::new() },
            facts::Record { kind: "geo", fields: fields.as_object().expect("an object") },
        ];
        let world = World::default();
        let stand = Stand { action: crate::Action::Allow, inverted: false };
        let result = record.evaluate(&Facts { records: &records, ..world.facts() }, stand);
        assert!(result.reasons.contains(if result.value { Reason::RecordOk } else { Reason::RecordUnauthorized }));
        result.value
    }

    #[test]
    fn a_field_is_compared_by_its_operators() {
        let cases = [
            ("exists: true", json!("x"), true),
            ("exists: false", json!("x"), false),
            ("is: NZ", json!("NZ"), true),
            ("is: NZ", json!(["NZ"]), true),
            ("is: NZ", json!(["NZ", "AU"]), false),
            ("'=': 3", json!(3.0), true),
            ("not: NZ", json!("AU"), true),
            ("in: [NZ, AU]", json!("AU"), true),
            ("not_in: [NZ, AU]", json!("AU"), false),
            ("starts_with: a, ends_with: c, contains: b", json!("abc"), true),
            ("contains: b", json!(["b"]), false),
            ("has: b", json!(["a", "b"]), true),
            ("has: b", json!("b"), false),
            ("exclude: b", json!(["a", "b"]), false),
            ("'<': 3", json!(2.5), true),
            ("'<=': 3", json!(3), true),
            ("'>': 3", json!(3), false),
            ("'>=': 3", json!("3"), false),
            ("'>=': '2026-01-01'", json!("2026-02-01"), true),
        ];
        for (conditions, value, expected) in cases {
            assert_eq!(holds(conditions, &json!({ "f": value })), expected, "{conditions} {value}");
        }
    }

    #[test]
    fn what_is_not_there_has_no_property() {
        for conditions in ["exists: true", "not: x", "not_in: [x]", "exclude: x", "'<': 3"] {
            assert!(!holds(conditions, &json!({"g": 1})), "{conditions}");
            assert!(!holds(conditions, &json!({ "f": null })), "{conditions}");
        }
        assert!(holds("exists: false", &json!({})));
        World::default().assert("record: {type: geo, field: f, not: x}", false, "record-unauthorized");
    }

    #[test]
    fn what_is_no_record_is_refused() {
        for data in [
            "geo",
            "{field: f, is: x}",
            "{type: geo, is: x}",
            "{type: geo, field: f}",
            "{type: geo, field: f, matches: x}",
            "{type: geo, field: f, in: x}",
            "{type: geo, field: f, exists: maybe}",
            "{type: geo, field: f, '<': [1]}",
            "{type: geo, field: 7, is: x}",
        ] {
            assert!(Record::parse("", &read(data).expect("YAML"), Dialect::default()).is_err(), "{data}");
        }
    }
}
