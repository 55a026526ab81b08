//! The configuration as a JSON Schema (draft 2020-12), for editors: made from the tables that the load itself uses, so that it
//! knows the same keys. It asks for names and shapes; what values mean only a load can tell.

mod kinds;
#[cfg(test)]
mod tests;

use serde_json::{Map, Value, json};

use super::effective;
use super::keys::{Form, Key, Kind, SCOPES, SETTINGS, Scope, Status};

/// The schema of a whole file. Names of keys are those of lower case, although others are read too.
#[must_use]
pub fn schema() -> Value {
    let mut definitions = postern_policy::schema();
    definitions.extend(kinds::definitions());
    for (_, scope) in SCOPES.iter().filter(|(_, scope)| scope.prefix != Some("")) {
        definitions.insert(name_of(scope), object(scope));
    }
    let mut root = Map::new();
    root.insert("$schema".to_owned(), json!("https://json-schema.org/draft/2020-12/schema"));
    root.insert("title".to_owned(), json!("Configuration of Postern"));
    root.extend(object(&SETTINGS).as_object().cloned().unwrap_or_default());
    // An empty file is one that leaves everything to the environment.
    root.insert("type".to_owned(), json!(["object", "null"]));
    json_texts(&mut root);
    dotted(&mut root);
    root.insert("$defs".to_owned(), Value::Object(definitions));
    Value::Object(root)
}

/// A name for the definition of a map.
fn name_of(scope: &Scope) -> String {
    let words = scope.name.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join("_")
}

fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/$defs/{name}") })
}

/// A map of the keys of one scope, and no others.
fn object(scope: &Scope) -> Value {
    let properties: Map<_, _> = scope.keys.iter().map(|key| (key.name.to_owned(), property(key))).collect();
    let required: Vec<_> = scope.keys.iter().filter(|key| is_required(key)).map(|key| key.name).collect();
    // Of no type, so that it can be said of a list of maps too: that one map is meant, who refers to it says.
    let mut object = json!({ "properties": properties, "additionalProperties": false });
    if !required.is_empty() {
        kinds::insert(&mut object, "required", json!(required));
    }
    object
}

fn is_required(key: &Key) -> bool {
    key.default.starts_with("required") || matches!(key.kind, Kind::Special(words, _) if words.ends_with(", required"))
}

/// One key: what it may hold, what holds without it, and what becomes of it.
fn property(key: &Key) -> Value {
    let read = !matches!((key.status, key.kind), (Status::NoEffect(_), Kind::Special(..)));
    let mut schema = if read { of(key) } else { json!({}) };
    kinds::insert(&mut schema, "description", json!(description(key)));
    if is_required(key) {
        kinds::insert(&mut schema, "not", json!({ "type": "null" }));
    }
    if let Some(default) = effective::literal(key) {
        kinds::insert(&mut schema, "default", default);
    }
    if matches!(key.status, Status::NoEffect(_) | Status::Removed(_)) {
        kinds::insert(&mut schema, "deprecated", json!(true));
    }
    schema
}

/// What the key may hold, with what its name says more than its kind.
fn of(key: &Key) -> Value {
    match (key.name, key.kind) {
        ("runtime_flags", _) => kinds::flags(),
        ("policies", _) => json!({ "type": ["object", "null"], "additionalProperties": reference("named_policy") }),
        // A claim can be anything.
        ("allowed_idp_claims", _) => json!({ "type": ["object", "string", "null"], "pattern": kinds::JSON }),
        ("default_policy" | "policy" | "ssh_policy", Kind::Special(_, Form::Policy)) => reference("policy"),
        ("log_level" | "proxy_log_level", Kind::Choice(names)) => kinds::levels(names),
        (_, kind) => kinds::schema(&kind),
    }
}

/// `Duration. Default: 30s. Works.`
fn description(key: &Key) -> String {
    let plain = |text: &str| text.replace('`', "");
    let mut parts = Vec::new();
    if !matches!(key.status, Status::Removed(_)) {
        parts.push(sentence(&plain(&key.kind.to_string()).replace(", see below", "")));
    }
    if !key.default.is_empty() {
        parts.push(format!("Default: {}.", plain(key.default)));
    }
    if !matches!(key.status, Status::Works | Status::AsItsBlock) {
        parts.push(sentence(&plain(&key.status.told())));
    }
    if !key.differs.is_empty() {
        parts.push(format!("Differs from Pomerium: {}.", plain(key.differs)));
    }
    parts.join(" ")
}

fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().map(|first| first.to_uppercase().to_string()).unwrap_or_default();
    format!("{first}{}.", letters.as_str())
}

/// At the top a block may be a text of JSON, as in a variable.
fn json_texts(root: &mut Map<String, Value>) {
    let properties = root.get_mut("properties").and_then(Value::as_object_mut);
    for (name, schema) in properties.into_iter().flatten() {
        if SETTINGS.find(name).is_some_and(|key| matches!(key.kind, Kind::Block(_))) {
            *schema = kinds::typed(schema.take(), &["object", "string", "null"]);
            kinds::insert(schema, "pattern", json!(kinds::JSON));
        }
    }
}

/// `head.rest: value` at the top stands for `head: {rest: value}`.
fn dotted(root: &mut Map<String, Value>) {
    let mut patterns = Map::new();
    for key in SETTINGS.keys {
        match key.kind {
            Kind::Block(scope) => {
                if let Some(properties) = root.get_mut("properties").and_then(Value::as_object_mut) {
                    properties.extend(
                        scope.keys.iter().map(|inner| (format!("{}.{}", key.name, inner.name), property(inner))),
                    );
                }
            }
            Kind::Map(_) | Kind::Named(_) => {
                let inner = of(key).get("additionalProperties").cloned();
                let inner = inner.filter(Value::is_object).unwrap_or_else(|| kinds::inner_of(&key.kind));
                patterns.insert(format!("^{}\\..", key.name), inner);
            }
            Kind::Bool
            | Kind::Text
            | Kind::Number(..)
            | Kind::Fraction
            | Kind::Duration
            | Kind::DurationWithin(..)
            | Kind::Milliseconds
            | Kind::Seconds
            | Kind::Choice(_)
            | Kind::Address
            | Kind::Url
            | Kind::Host
            | Kind::Regex
            | Kind::Header
            | Kind::Colour
            | Kind::Base64
            | Kind::Pem
            | Kind::File
            | Kind::List(_)
            | Kind::Blocks(_)
            | Kind::Special(..) => {}
        }
    }
    root.insert("patternProperties".to_owned(), Value::Object(patterns));
}
