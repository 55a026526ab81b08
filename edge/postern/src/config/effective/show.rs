//! What holds as JSON: as a file that could be loaded, or key by key with origins.

use serde_json::{Map, Value, json};

use super::{Effective, Held, secrets};
use crate::config::problem::{At, Origin};

/// The configuration as one JSON document that can be loaded; keys that hold nothing that could be written are left out.
#[must_use]
pub fn plain(keys: &[Effective]) -> Value {
    let held = keys.iter().filter_map(|one| Some((one.name.clone(), value(&one.held)?)));
    Value::Object(held.collect::<Map<_, _>>())
}

fn value(held: &Held) -> Option<Value> {
    match held {
        Held::Value(value) => Some(value.clone()),
        Held::Map(keys) => Some(plain(keys)),
        Held::List(elements) => Some(elements.iter().map(|keys| plain(keys)).collect()),
        Held::Content(_) | Held::Words(_) => None,
    }
}

/// Every key by itself, with where its value comes from; `file` is the configuration file as it was named.
#[must_use]
pub fn listed(keys: &[Effective], file: Option<&str>) -> Value {
    let mut out = Vec::new();
    list(keys, file, &mut out);
    Value::Array(out)
}

fn list(keys: &[Effective], file: Option<&str>, out: &mut Vec<Value>) {
    for one in keys {
        let value = match &one.held {
            Held::Map(keys) if !keys.is_empty() => {
                list(keys, file, out);
                continue;
            }
            Held::List(elements) if !elements.is_empty() => {
                elements.iter().for_each(|keys| list(keys, file, out));
                continue;
            }
            Held::Map(_) => json!({}),
            Held::List(_) => json!([]),
            Held::Value(value) => value.clone(),
            Held::Content(_) => json!(secrets::MASK),
            Held::Words(_) => Value::Null,
        };
        out.push(json!({
            "key": one.at.key.as_str(),
            "value": value,
            "origin": origin_object(one, file),
            "status": one.status,
        }));
    }
}

fn origin_object(one: &Effective, file: Option<&str>) -> Value {
    if let Held::Content(path) = &one.held {
        return json!({ "kind": "file_content", "path": path, "named_at": origin(&one.at, file) });
    }
    let At { origin, place, .. } = &one.at;
    let place = place.is_known().then_some(place);
    let (line, column) = (place.map(|place| place.line), place.map(|place| place.column));
    match (origin, &one.held) {
        (Origin::File, _) => json!({ "kind": "file", "file": file, "line": line, "column": column }),
        (Origin::Environment(name), _) => {
            json!({ "kind": "environment", "variable": &**name, "line": line, "column": column })
        }
        (Origin::Absent, Held::Words(words)) => json!({ "kind": "default", "words": words }),
        (Origin::Absent, _) => json!({ "kind": "default" }),
    }
}

/// Where something was read from, in one word: `config.yaml:3:10`, `environment ADDRESS`, `default`.
pub(super) fn origin(at: &At, file: Option<&str>) -> String {
    let place = if at.place.is_known() { format!(":{}:{}", at.place.line, at.place.column) } else { String::new() };
    match &at.origin {
        Origin::File => format!("{}{place}", file.unwrap_or("the file")),
        Origin::Environment(name) => format!("environment {name}{place}"),
        Origin::Absent => "default".to_owned(),
    }
}
