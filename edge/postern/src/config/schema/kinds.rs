//! What each kind of value may look like: everything that a load takes for one.

use serde_json::{Map, Value, json};

use super::{name_of, reference};
use crate::config::keys::{FLAGS, Form, Kind, Status};

/// The definitions that other schemas refer to. None is an `anyOf` where one will do: an editor then marks the very value.
pub(super) fn definitions() -> Map<String, Value> {
    let duration = r"^\+?(?:-?0|(?:(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:ns|us|µs|μs|ms|s|m|h))+)$";
    let scalars = ["string", "number", "boolean"];
    let definitions = [
        ("text", json!({ "type": ["string", "number", "boolean", "null"] })),
        ("texts", json!({ "type": ["string", "number", "boolean", "null", "array"], "items": { "type": scalars } })),
        (
            "bool",
            json!({
                "type": ["boolean", "number", "string", "null"],
                "pattern": "^(?:1|t|T|TRUE|true|True|0|f|F|FALSE|false|False)?$",
            }),
        ),
        (
            "duration",
            json!({
                "type": ["string", "integer", "null"],
                "pattern": duration,
                "minimum": 0,
                "examples": ["30s", "5m", "1h30m"],
            }),
        ),
        ("seconds", json!({ "type": ["string", "null"], "pattern": r"^[0-9]+(?:\.[0-9]{1,9})?s$" })),
    ];
    definitions.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// A map as a text of JSON.
pub(super) const JSON: &str = r"^\s*(?:\{[\s\S]*\}\s*)?$";

/// The schema of a kind.
pub(super) fn schema(kind: &Kind) -> Value {
    match kind {
        Kind::Bool => reference("bool"),
        Kind::Text
        | Kind::Address
        | Kind::Url
        | Kind::Host
        | Kind::Regex
        | Kind::Header
        | Kind::Colour
        | Kind::Base64
        | Kind::Pem
        | Kind::File => reference("text"),
        Kind::Number(least, most) => number(*least, *most),
        Kind::Milliseconds => number(0, u64::MAX),
        Kind::Fraction => json!({
            "type": ["number", "string", "null"],
            "minimum": 0,
            "maximum": 1,
            "pattern": r"^\s*(?:0|1|0?\.[0-9]+|[01]\.[0-9]*)\s*$",
        }),
        Kind::Duration | Kind::DurationWithin(..) => reference("duration"),
        Kind::Seconds => reference("seconds"),
        Kind::Choice(names) => choice(names),
        Kind::List(Kind::Special(_, form @ (Form::OneEntry | Form::Pair))) => {
            let one = of_form(*form);
            let single = if *form == Form::Pair { "string" } else { "object" };
            let mut list = typed(one.clone(), &["array", single, "null"]);
            insert(&mut list, "items", one);
            list
        }
        Kind::List(_) => reference("texts"),
        Kind::Map(_) => json!({
            "type": ["object", "string", "null"],
            "additionalProperties": inner_of(kind),
            "pattern": JSON,
        }),
        Kind::Block(scope) => typed(reference(&name_of(scope)), &["object", "null"]),
        Kind::Blocks(scope) => {
            let one = reference(&name_of(scope));
            let mut list = typed(one.clone(), &["array", "object", "null"]);
            insert(&mut list, "items", typed(one, &["object"]));
            list
        }
        Kind::Named(_) => json!({ "type": ["object", "null"], "additionalProperties": inner_of(kind) }),
        Kind::Special(_, form) => of_form(*form),
    }
}

/// The same of these types alone.
pub(super) fn typed(mut schema: Value, types: &[&str]) -> Value {
    insert(&mut schema, "type", json!(types));
    schema
}

pub(super) fn insert(schema: &mut Value, keyword: &str, value: Value) {
    if let Some(object) = schema.as_object_mut() {
        object.insert(keyword.to_owned(), value);
    }
}

/// What each name of a map of free names holds.
#[expect(clippy::wildcard_enum_match_arm, reason = "the others hold nothing inside")]
pub(super) fn inner_of(kind: &Kind) -> Value {
    match kind {
        Kind::Map(inner) => schema(inner),
        Kind::Named(scope) => typed(reference(&name_of(scope)), &["object"]),
        _ => json!(true),
    }
}

fn of_form(form: Form) -> Value {
    match form {
        Form::Text => reference("text"),
        Form::Texts => reference("texts"),
        Form::Integer => json!({ "type": ["integer", "string", "null"] }),
        Form::Pair => json!({ "type": "string", "pattern": "=" }),
        Form::Hex => json!({ "type": ["string", "number", "null"], "pattern": "^(?:[0-9a-fA-F]{2})*$" }),
        Form::TextsOrMap => {
            let types = ["string", "number", "boolean", "null", "array", "object"];
            let items = json!({ "type": ["string", "number", "boolean"] });
            json!({ "type": types, "items": items, "additionalProperties": reference("text") })
        }
        Form::OneEntry => json!({ "type": "object", "minProperties": 1, "maxProperties": 1 }),
        Form::Any => json!({}),
        Form::Policy => reference("policy"),
        // A removed key that says nothing is no mistake.
        Form::Nothing => json!({ "enum": [null, "", []] }),
    }
}

fn number(least: u64, most: u64) -> Value {
    let digits = r"^\s*(?:\+?[0-9]+|0[xX][0-9a-fA-F]+|0[oO][0-7]+|0[bB][01]+)\s*$";
    let mut whole = json!({ "type": ["integer", "string", "null"], "minimum": least, "pattern": digits });
    if least <= 1 {
        // `true` counts as one.
        insert(&mut whole, "type", json!(["integer", "string", "boolean", "null"]));
    }
    if most < u64::from(u32::MAX) {
        insert(&mut whole, "maximum", json!(most));
    }
    whole
}

/// One of the names; in any case, and at the end of a longer name, as protocol buffers have them.
fn choice(names: &[&str]) -> Value {
    let letter = |c: char| match c {
        c if c.is_ascii_alphabetic() => format!("[{}{}]", c.to_ascii_lowercase(), c.to_ascii_uppercase()),
        c if c.is_ascii_alphanumeric() || c == '_' => c.to_string(),
        c => format!("\\{c}"),
    };
    let spelt: Vec<String> = names.iter().map(|name| name.chars().map(letter).collect()).collect();
    let pattern = format!("^(?:(?:[A-Za-z0-9_]*_)?(?:{}))?$", spelt.join("|"));
    let numbers: Vec<u64> = names.iter().filter_map(|name| name.parse().ok()).collect();
    let mut schemas =
        vec![json!({ "enum": names }), json!({ "type": "string", "pattern": pattern }), json!({ "type": "null" })];
    if !numbers.is_empty() {
        schemas.push(json!({ "enum": numbers }));
    }
    json!({ "anyOf": schemas })
}

/// Levels have further names in Pomerium's files.
pub(super) fn levels(names: &[&str]) -> Value {
    const OTHERS: [&str; 6] = ["warning", "critical", "fatal", "panic", "none", "disabled"];
    let all: Vec<_> = names.iter().copied().chain(OTHERS).collect();
    let mut schema = choice(&all);
    if let Some(first) = schema.pointer_mut("/anyOf/0/enum") {
        *first = json!(names);
    }
    schema
}

/// `runtime_flags`: those that exist.
pub(super) fn flags() -> Value {
    let flag = |(name, default, status): &(&str, bool, Status)| {
        let description = format!("Default: {default}. Flag: {}.", status.told());
        ((*name).to_owned(), json!({ "$ref": "#/$defs/bool", "default": default, "description": description }))
    };
    let properties: Map<_, _> = FLAGS.iter().map(flag).collect();
    json!({
        "type": ["object", "string", "null"],
        "properties": properties,
        "additionalProperties": false,
        "pattern": JSON,
    })
}
